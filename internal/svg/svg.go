// Package svg draws plots as SVG. Colours are literal, as few programs but browsers know variables.
package svg

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// Columns is the width of a plot, in pixels as all measures.
const Columns = 648

const width, left, right = 800, 56, 56 + Columns

// style gives each colour a class. Those of dark mode come last, where other programs ignore them.
// Areas and lines also differ in lightness.
const style = `
text, rect, circle, .area { fill: currentColor } .area { shape-rendering: crispEdges }
.line { fill: none; stroke: currentColor; stroke-width: 2 } .thin { stroke-width: 1 } .dash { stroke-dasharray: 5 4 }
.commit, .cap, .quota { stroke-width: 1.5; stroke-dasharray: 6 4 } .end { text-anchor: end } .mid { text-anchor: middle }
text { font: 12px system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif }
.title { font-size: 18px } .value { font-size: 19px } .strong { font-size: 13px } .title, .strong { font-weight: 600 }
.ground { color: #ffffff } .blank { color: #f1f3f5 } .freed { color: #fbe9d7 } .grid { color: #e3e8ed }
.ink, .billed { color: #1c2733 } .dim { color: #5b6875 } .commit, .cap, .quota { color: #b25e00 } .flat { color: #8b97a3 }
.out, .sum { color: #2f7fb8 } .outmost, .summost { color: #a9cfe8 } .in { color: #2d8f6f } .inmost { color: #a8dac8 }
.free { color: #ef9b20 } .over { color: #d1394d }
@media (prefers-color-scheme: dark) {
.ground { color: #12181f } .blank { color: #1a222b } .freed { color: #3a2d1c } .grid { color: #27313c }
.ink, .billed { color: #e6edf3 } .dim { color: #9aa7b4 } .commit, .cap, .quota { color: #f2a65a } .flat { color: #7b8793 }
.out, .sum { color: #4fa3dd } .outmost, .summost { color: #244f6e } .in { color: #45b890 } .inmost { color: #1f5443 }
.free { color: #f2b04a } .over { color: #f0606f }
}
`

// Picture collects the elements of an SVG.
type Picture struct {
	out   strings.Builder
	tiles int
}

// New begins a picture with a title, and lines of text below it.
func New(high int, title string, lines ...string) *Picture {
	p := &Picture{}
	p.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" class="ink">`,
		width, high)
	p.add("<title>%s</title>\n<style>%s</style>", escape(title), style)
	p.rect("ground", 0, 0, width, float64(high))
	if long := []rune(title); len(long) > 64 { // its end has the file and the cycle
		title = "…" + string(long[len(long)-63:])
	}
	p.text("title", left, 34, title)
	for i, line := range lines {
		p.text("dim", left, float64(56+17*i), line)
	}
	return p
}

// Tile writes a figure below the title: at most five, of which the first has most room.
func (p *Picture) Tile(name, value, remark string) {
	x := float64(left + 137*p.tiles + 53*min(p.tiles, 1))
	p.tiles++
	p.text("dim", x, 104, name)
	p.text("value", x, 127, value)
	p.text("dim", x, 145, remark)
}

// Write ends the picture, and writes it.
func (p *Picture) Write(w io.Writer) error {
	_, err := io.WriteString(w, p.out.String()+"</svg>\n")
	return err
}

func (p *Picture) add(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

func (p *Picture) text(class string, x, y float64, text string) {
	p.add(`<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, escape(text))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

func (p *Picture) rect(class string, x, y, width, high float64) {
	p.add(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, class, x, y, width, high)
}

// path draws a line from a point: h120 is 120 to the right, and v-10 is 10 upwards.
func (p *Picture) path(class string, x, y float64, to string) {
	p.add(`<path class="line %s" d="M%.1f %.1f%s"/>`, class, x, y, to)
}

// Plot is a plot of values over the share of its width, from 0 to 1.
type Plot struct {
	*Picture
	Top, High float64
	Low, Most float64 // the values at its ends
	Per       float64 // values in a unit
	Unit      string

	keys float64 // the width of the name and the keys above it
}

func x(share float64) float64 { return left + Columns*share }

func (at *Plot) y(v float64) float64 {
	return at.Top + at.High*(at.Most-min(max(v, at.Low), at.Most))/(at.Most-at.Low)
}

// Span gives a part of a plot another background. It comes before all else in the plot.
func (at *Plot) Span(class string, from, to float64) {
	at.rect(class, x(from), at.Top, x(to)-x(from), at.High)
}

// Axis draws about n lines with their values. It moves the upper end of the plot to such a line, and the
// lower end if that is over 0. Above the plot are a name, and a note at the right.
func (at *Plot) Axis(n float64, name, note string) {
	prefix, per := Prefix(max(at.Most, -at.Low) / at.Per)
	per *= at.Per
	step := per * RoundUp((at.Most-at.Low)/per/n, 1, 2, 2.5, 5)
	if at.Low > 0 {
		at.Low = math.Floor(at.Low/step) * step
	}
	at.Most = math.Ceil(max(at.Most/step, 1)-1e-9) * step
	for i := math.Ceil(at.Low/step - 1e-9); i*step <= at.Most*(1+1e-9); i++ {
		at.across("thin grid", i*step)
		at.text("dim end", left-8, at.y(i*step)+4, fmt.Sprintf("%.5g", math.Abs(i*step/per)))
	}
	at.text("dim end", left-8, at.Top-11, prefix+at.Unit)
	at.text("strong", left, at.Top-20, name)
	at.text("dim end", right, at.Top-20, note)
	at.keys = 12 * float64(len(name))
}

// Key names a colour, above the plot and behind its name and the keys before.
func (at *Plot) Key(class, name string) {
	at.rect(class, left+at.keys, at.Top-30, 12, 12)
	at.text("ink", left+at.keys+17, at.Top-20, name)
	at.keys += 40 + 6.5*float64(len(name))
}

func (at *Plot) across(class string, v float64) {
	at.path(class, left, at.y(v), fmt.Sprintf("h%d", Columns))
}

// Prefix returns the prefix of a unit for values up to most, and its factor.
func Prefix(most float64) (prefix string, factor float64) {
	i := int(min(max(math.Log10(most)/3+1e-9, 0), 6))
	return []string{"", "k", "M", "G", "T", "P", "E"}[i], math.Pow(1000, float64(i))
}

// RoundUp returns the least number, x or more, that is one of the steps times a power of ten. It is
// 1 if x is not positive.
func RoundUp(x float64, steps ...float64) float64 {
	if !(x > 0) || math.IsInf(x, 0) {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(x)))
	for _, f := range steps {
		if f*unit >= x*(1-1e-12) {
			return f * unit
		}
	}
	return 10 * unit
}

// Mark is a label at a share of an axis.
type Mark struct {
	At    float64
	Label string
}

// Ticks draws the zero line, and marks below the plot. It leaves out labels that would touch others.
func (at *Plot) Ticks(marks ...Mark) {
	at.across("thin dim", 0)
	at.across("thin dim", at.Low)
	last := -1.
	for _, m := range marks {
		at.path("thin dim", x(m.At), at.Top+at.High, "v6")
		if m.At-last > 0.045 {
			last = m.At
			at.text("dim mid", x(m.At), at.Top+at.High+20, m.Label)
		}
	}
}

// Level draws a line at a value, and at its right its name, which is its class, above or below it.
func (at *Plot) Level(name, value string, v float64, below bool) {
	at.across(name, v)
	y := at.y(v)
	if below {
		y += 30
	}
	at.text("strong", right+6, y-17, name)
	at.text("dim", right+6, y-4, value)
}

// Area fills columns, a pixel wide each, between a value and their own values if these are further from 0.
func (at *Plot) Area(class string, from float64, values []float64) {
	base := fmt.Sprintf("%.1f", at.y(from))
	d, last, run := "", base, 0
	for _, v := range values {
		if math.Abs(v) < math.Abs(from) {
			v = from
		}
		if y := fmt.Sprintf("%.1f", at.y(v)); y != last {
			d += fmt.Sprintf("h%dV%s", run, y)
			last, run = y, 0
		}
		run++
	}
	at.add(`<path class="area %s" d="M%d %s%sh%dV%sz"/>`, class, left, base, d, run, base)
}

// Line draws a line through points, each a share of the plot's width and a value.
func (at *Plot) Line(class string, points ...[2]float64) {
	d := ""
	for _, p := range points[1:] {
		d += fmt.Sprintf("L%.1f %.1f", x(p[0]), at.y(p[1]))
	}
	at.path(class, x(points[0][0]), at.y(points[0][1]), d)
}

// Dot draws a point.
func (at *Plot) Dot(class string, p [2]float64) {
	at.add(`<circle class="%s" cx="%.1f" cy="%.1f" r="4.5"/>`, class, x(p[0]), at.y(p[1]))
}

// Text writes a text whose baseline is so far below a point.
func (at *Plot) Text(class string, p [2]float64, down float64, text string) {
	at.text(class, x(p[0]), at.y(p[1])+down, text)
}
