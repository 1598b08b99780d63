package svg

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
)

func wellFormed(t *testing.T, picture []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if bad := regexp.MustCompile(`NaN|Inf|%!|href|url\(`).Find(picture); bad != nil {
		t.Errorf("the picture has %q", bad)
	}
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
		var out bytes.Buffer
		if err := p.Write(&out); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, out.Bytes())
		if at.Low != tt.wantLow || at.Most != tt.wantMost || strings.Contains(out.String(), "left out") {
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
		got := strings.ReplaceAll(p.out.String(), ".0", "")
		if _, got, _ = strings.Cut(got, `d="`); strings.TrimSuffix(got, "\"/>\n") != want {
			t.Errorf("from %v: %s, want %s", from, got, want)
		}
	}
}

// The end of a long title is left, which has the file and the cycle.
func TestTitle(t *testing.T) {
	p := New(100, strings.Repeat("東京 <&\x01>", 20)+"ledger · 2026-11")
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, out.Bytes())
	title := regexp.MustCompile(`<text class="title"[^>]*>(…[^<]*ledger · 2026-11)<`).FindSubmatch(out.Bytes())
	if title == nil {
		t.Error(out.String())
	}
}

// The pictures of the README are complete and small, say what drew them, and are dark where the reader's system is.
func TestPictures(t *testing.T) {
	for _, name := range []string{"bill", "demo"} {
		picture, err := os.ReadFile("../../man/" + name + ".svg")
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, picture)
		if !bytes.HasPrefix(picture, []byte("<!-- ")) || len(picture) > 40e3 || !strings.Contains(string(picture), style) {
			t.Errorf("%s: %d bytes, no command, or not in these colours", name, len(picture))
		}
	}
}
