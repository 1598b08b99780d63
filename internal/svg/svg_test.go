package svg

import (
	"encoding/xml"
	"os"
	"regexp"
	"strings"
	"testing"
)

// wellFormed wants XML that needs no other file.
func wellFormed(t *testing.T, picture string) {
	t.Helper()
	if err := xml.Unmarshal([]byte(picture), &struct{}{}); err != nil {
		t.Fatal(err)
	}
	if bad := regexp.MustCompile(`NaN|Inf|%!|href|url\(`).FindString(picture); bad != "" {
		t.Errorf("the picture has %q", bad)
	}
}

func written(t *testing.T, p *Picture) string {
	t.Helper()
	var out strings.Builder
	_ = p.Write(&out)
	wellFormed(t, out.String())
	return out.String()
}

// The upper end of a plot is one of its lines, and so is a lower end over 0.
func TestAxis(t *testing.T) {
	for _, tt := range []struct{ low, most, wantLow, wantMost float64 }{
		{0, 26e6, 0, 30e6}, {0, 30e6, 0, 30e6}, {-3, 20, -3, 20}, {0, 0, 0, 1}, {99.2, 100, 99.2, 100}, {71, 100, 70, 100}, {0, 1e18, 0, 1e18},
	} {
		p := New(100, "title")
		at := &Plot{Picture: p, High: 100, Low: tt.low, Most: tt.most, Per: 1, Unit: "bit/s"}
		at.Axis(5, "name", "note")
		at.Ticks(Mark{0, "0"}, Mark{0.01, "left out"}, Mark{1, "1"})
		if out := written(t, p); at.Low != tt.wantLow || at.Most != tt.wantMost || strings.Contains(out, "left out") {
			t.Errorf("%v to %v became %v to %v", tt.low, tt.most, at.Low, at.Most)
		}
	}
}

// An area is as far from 0 as its values, up or down, and one run for equal ones.
func TestArea(t *testing.T) {
	for from, want := range map[float64]string{0: "M56 50h0V40h2V25h1V60h1V50z", 30: "M56 35h2V25h1V35h1V35z"} {
		p := New(100, "title")
		at := &Plot{Picture: p, High: 100, Low: -100, Most: 100}
		at.Area("out", from, []float64{20, 20, 50, -20})
		if got := strings.ReplaceAll(p.out.String(), ".0", ""); !strings.HasSuffix(got, ` d="`+want+"\"/>\n") {
			t.Errorf("from %v: %s, want %s", from, got, want)
		}
	}
}

// The end of a long title is left, which has the file and the cycle.
func TestTitle(t *testing.T) {
	out := written(t, New(100, strings.Repeat("東京 <&\x01>", 20)+"ledger · 2026-11"))
	if !regexp.MustCompile(`<text class="title"[^>]*>(…[^<]*ledger · 2026-11)<`).MatchString(out) {
		t.Error(out)
	}
}

// The pictures of the README are complete and small, say what drew them, and are dark where the reader's system is.
func TestPictures(t *testing.T) {
	for _, name := range []string{"bill", "demo"} {
		file, err := os.ReadFile("../../man/" + name + ".svg")
		if err != nil {
			t.Fatal(err)
		}
		picture := string(file)
		wellFormed(t, picture)
		if !strings.HasPrefix(picture, "<!-- ") || len(picture) > 40e3 || !strings.Contains(picture, style) {
			t.Errorf("%s: %d bytes, no command, or not in these colours", name, len(picture))
		}
	}
}
