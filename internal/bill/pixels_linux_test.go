package bill

import (
	"bytes"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"os/exec"
	"testing"

	"framepipe/internal/nettest"
	"framepipe/internal/svg"
)

// spot is the middle of a window of hundred, and a rate in Mbit/s, negative below the axis.
type spot struct{ window, rate float64 }

func (s spot) at() (x, y int) {
	return 56 + int(svg.Columns*(s.window+0.5)/100), int(math.Round(202 + 210*(20-s.rate)/23))
}

var light = map[spot]string{
	{40, 14}:   "#ffffff", // the ground
	{99, 14}:   "#f1f3f5", // not known yet
	{40, 4}:    "#2f7fb8", // out
	{40, -1.5}: "#2d8f6f", // in
	{85, 11}:   "#d1394d", // over the commit
	{97, 11}:   "#d1394d",
	{97, 15}:   "#ef9b20", // free
	{97, -3.5}: "#ef9b20", // its mark below the axis
	{40, -3.5}: "#ffffff",
	{40, 12}:   "#1c2733", // the billed line
}

const browser = "chromium-headless-shell"

// The picture is right by itself, and in a browser's page, dark or light.
func TestPixels(t *testing.T) {
	nettest.Programs(t, "rsvg-convert", browser)
	dir := t.TempDir()
	b, shot := hundred(), dir+"/shot.png"
	for name, draw := range map[string]func(io.Writer) error{"picture.svg": b.SVG, "page.html": b.HTML} {
		if err := os.WriteFile(dir+"/"+name, []byte(drawn(t, draw)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page := func(scheme string) []string {
		return []string{
			browser, "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=800,1000",
			"--blink-settings=preferredColorScheme=" + scheme, "--user-data-dir=" + dir + "/profile",
			"--screenshot=" + shot, "file://" + dir + "/page.html",
		}
	}
	dark := map[spot]string{{40, 14}: "#12181f", {40, 4}: "#4fa3dd", {40, -1.5}: "#45b890", {97, 15}: "#f2b04a", {-8, 30}: "#12181f"}
	for _, tt := range []struct {
		down    int // where the picture begins
		want    map[spot]string
		command []string
	}{
		{0, light, []string{"rsvg-convert", "-o", shot, dir + "/picture.svg"}},
		{12, dark, page("0")},
		{12, light, page("1")},
	} {
		if out, err := exec.Command(tt.command[0], tt.command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		picture := must(png.Decode(bytes.NewReader(must(os.ReadFile(shot)))))
		for at, colour := range tt.want {
			x, y := at.at()
			r, g, b, _ := picture.At(x, y+tt.down).RGBA()
			if got := fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8); got != colour {
				t.Errorf("%v, pixel %d, %d: %s, want %s", at, x, y+tt.down, got, colour)
			}
		}
	}
}
