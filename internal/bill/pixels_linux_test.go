package bill

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"framepipe/internal/nettest"
	"framepipe/internal/svg"
)

// spot is the middle of a window of hundred, and a rate in Mbit/s, negative below the axis.
type spot struct{ window, rate float64 }

func (s spot) at() (x, y int) {
	return 56 + int(svg.Columns*(s.window+0.5)/100), int(math.Round(202 + 210*(20-s.rate)/23))
}

// pixels wants colours at spots of a picture that begins so far down.
func pixels(t *testing.T, picture image.Image, down int, want map[spot]string) {
	t.Helper()
	for at, colour := range want {
		x, y := at.at()
		r, g, b, _ := picture.At(x, y+down).RGBA()
		if got := fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8); got != colour {
			t.Errorf("%v, pixel %d, %d: %s, want %s", at, x, y+down, got, colour)
		}
	}
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

func TestPixels(t *testing.T) {
	nettest.Programs(t, "rsvg-convert", browser)
	t.Run("picture", picturePixels)
	t.Run("page", pagePixels)
}

func picturePixels(t *testing.T) {
	c := exec.Command("rsvg-convert")
	c.Stdin = strings.NewReader(drawn(t, hundred(t).SVG))
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	pixels(t, picture, 0, light)
}

// A browser shows the page, light or dark.
func pagePixels(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/page.html", []byte(drawn(t, hundred(t).HTML)), 0o644); err != nil {
		t.Fatal(err)
	}
	dark := map[spot]string{{40, 14}: "#12181f", {40, 4}: "#4fa3dd", {40, -1.5}: "#45b890", {97, 15}: "#f2b04a", {-8, 30}: "#12181f"}
	for scheme, want := range []map[spot]string{dark, light} {
		out, err := exec.Command(browser, "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=800,1000",
			fmt.Sprintf("--blink-settings=preferredColorScheme=%d", scheme), "--user-data-dir="+dir+"/profile",
			"--screenshot="+dir+"/page.png", "file://"+dir+"/page.html").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		f, err := os.Open(dir + "/page.png")
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		pixels(t, picture, 12, want)
	}
}
