package bill

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// The picture's measures, in pixels at its natural size.
const (
	svgWidth = 800
	svgLeft  = 56
	svgRight = 704 // end of the plots, before the names of lines
	svgPlot  = svgRight - svgLeft
)

// svgStyle has literal colours, as few programs but browsers know variables. Those for dark mode
// stand apart, where the others ignore them. Areas and lines also differ in lightness.
const svgStyle = `
text { font-family: system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; font-size: 12px; fill: #1c2733 }
.title { font-size: 18px; font-weight: 600 } .value { font-size: 19px } .strong { font-size: 13px; font-weight: 600 }
.end { text-anchor: end } .mid { text-anchor: middle } .dim { fill: #5b6875 }
.ground { fill: #ffffff } .blank { fill: #f1f3f5 } .freed { fill: #fbe9d7 } .grid { stroke: #e3e8ed } .axis { stroke: #5b6875 }
.out { fill: #2f7fb8 } .outmost { fill: #a9cfe8 } .in { fill: #2d8f6f } .inmost { fill: #a8dac8 }
.free { fill: #ef9b20 } .over { fill: #d1394d } .flat { fill: #8b97a3 }
.outline, .inline, .overline, .flatline { fill: none; stroke-width: 2 }
.outline { stroke: #2f7fb8 } .inline { stroke: #2d8f6f } .overline { stroke: #d1394d } .flatline { stroke: #8b97a3 }
.commit { stroke: #b25e00; stroke-width: 1.5; stroke-dasharray: 6 4 } .billed { stroke: #1c2733; stroke-width: 2 }
.dash { stroke-dasharray: 5 4 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .dim { fill: #9aa7b4 }
.ground { fill: #12181f } .blank { fill: #1a222b } .freed { fill: #3a2d1c } .grid { stroke: #27313c } .axis { stroke: #9aa7b4 }
.out { fill: #4fa3dd } .outmost { fill: #244f6e } .in { fill: #45b890 } .inmost { fill: #1f5443 }
.free { fill: #f2b04a } .over { fill: #f0606f } .flat { fill: #7b8793 }
.outline { stroke: #4fa3dd } .inline { stroke: #45b890 } .overline { stroke: #f0606f } .flatline { stroke: #7b8793 }
.commit { stroke: #f2a65a } .billed { stroke: #e6edf3 }
}
`

// picture collects the elements of an SVG.
type picture struct{ strings.Builder }

// newPicture begins a picture with a title, and lines of text below it.
func newPicture(high int, title string, lines ...string) *picture {
	var p picture
	p.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`,
		svgWidth, high, svgWidth, high)
	p.add("<title>%s</title>\n<style>%s</style>", escape(title), svgStyle)
	p.rect("ground", 0, 0, svgWidth, float64(high))
	p.text("title", svgLeft, 34, title)
	for i, line := range lines {
		p.text("dim", svgLeft, float64(56+17*i), line)
	}
	return &p
}

// writeTo ends the picture, and writes it.
func (p *picture) writeTo(w io.Writer) error {
	p.add("</svg>")
	_, err := io.WriteString(w, p.String())
	return err
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

// unit formats a coordinate to a tenth, finer than can be seen.
func unit(x float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0") }

func (p *picture) add(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *picture) text(class string, x, y float64, text string) {
	p.add(`<text class="%s" x="%s" y="%s">%s</text>`, class, unit(x), unit(y), escape(text))
}

func (p *picture) rect(class string, x, y, width, high float64) {
	p.add(`<rect class="%s" x="%s" y="%s" width="%s" height="%s"/>`,
		class, unit(x), unit(y), unit(width), unit(high))
}

func (p *picture) dot(class string, x, y float64) {
	p.add(`<circle class="%s" cx="%s" cy="%s" r="4.5"/>`, class, unit(x), unit(y))
}

// across draws a line through a plot.
func (p *picture) across(class string, y float64) {
	p.add(`<path class="%s" d="M%d %sH%d"/>`, class, svgLeft, unit(y), svgRight)
}

// down draws a line downwards.
func (p *picture) down(class string, x, y, high float64) {
	p.add(`<path class="%s" d="M%s %sv%s"/>`, class, unit(x), unit(y), unit(high))
}

// key is a colour of a legend, and its name.
type key struct{ class, name string }

func (p *picture) legend(x, y float64, keys ...key) {
	for _, k := range keys {
		p.rect(k.class, x, y-10, 12, 12)
		p.text("", x+17, y, k.name)
		x += 40 + 6.5*float64(len(k.name))
	}
}

// panel is a plot in the picture: where it begins and its height; and the values at its ends,
// in numbers of which per are one of the unit.
type panel struct {
	top, high, low, most, per float64
	unit                      string
}

// y returns the coordinate of a value, or of the end of the panel before it.
func (at panel) y(v float64) float64 {
	return at.top + at.high*(at.most-min(max(v, at.low), at.most))/(at.most-at.low)
}

func (at panel) bottom() float64 { return at.top + at.high }

// x returns the coordinate of a share of a plot's width.
func x(share float64) float64 { return svgLeft + svgPlot*share }

// begin draws the name of a panel, about n lines with their values, and the axis below.
func (p *picture) begin(at panel, name string, n float64) {
	prefix := metric(max(at.most, -at.low) / at.per)
	per := at.per * math.Pow(1000, float64(prefix))
	step := roundUp((at.most-at.low)/per/n*0.999, 1, 2, 2.5, 5)
	for i := math.Ceil(at.low/per/step - 1e-6); i*step*per <= at.most+1e-6*step*per; i++ {
		y := at.y(i * step * per)
		p.across("grid", y)
		p.text("dim end", svgLeft-8, y+4, fmt.Sprintf("%.5g", math.Abs(i*step)))
	}
	p.text("dim end", svgLeft-8, at.top-11, prefixes[prefix]+at.unit)
	p.text("strong", svgLeft, at.top-16, name)
	p.across("axis", at.bottom())
}

var prefixes = [...]string{"", "k", "M", "G", "T", "P", "E"}

// metric returns the index of the prefix for an axis up to most.
func metric(most float64) int { return int(min(max(math.Log10(most)/3+1e-9, 0), 6)) }

// columns draws a part of each bar, one pixel wide, upwards or with sign -1 downwards.
func (p *picture) columns(
	class string, at panel, sign float64, bars []bar, part func(c bar) (from, to float64),
) {
	var d strings.Builder
	for i, c := range bars {
		from, to := part(c)
		if low, high := unit(at.y(sign*from)), unit(at.y(sign*to)); from < to && low != high {
			fmt.Fprintf(&d, "M%d %sV%sh1V%sz", svgLeft+i, low, high, low)
		}
	}
	p.add(`<path class="%s" shape-rendering="crispEdges" d="%s"/>`, class, d.String())
}

// point is a point of a line: a share of the plot's width, and a value.
type point struct{ share, value float64 }

func (p *picture) line(class string, at panel, points ...point) {
	var d strings.Builder
	for i, v := range points {
		fmt.Fprintf(&d, "%c%s %s", "ML"[min(i, 1)], unit(x(v.share)), unit(at.y(v.value)))
	}
	p.add(`<path class="%s" d="%s"/>`, class, d.String())
}
