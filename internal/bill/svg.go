package bill

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/cli"
)

// The picture's measures, in its units.
const (
	svgWidth  = 960
	svgHeight = 640
	svgLeft   = 84
	svgRight  = svgWidth - 96 // end of the plots, before the labels of lines
	svgEdge   = svgWidth - 20
	plotWidth = svgRight - svgLeft
	legend    = 98.5
	monthTop  = 112
	monthHigh = 236
	curveTop  = 424
	curveHigh = 152
)

// svgStyle has the colours for light and dark mode. The areas and lines also differ in
// lightness, so that the picture is readable without colour.
const svgStyle = `
svg { --ground: #ffffff; --ink: #1c2733; --dim: #5b6875; --grid: #e3e8ed; --mean: #2f7fb8; --most: #a9cfe8; --over: #d1495b; --line: #b25e00; --free: #fbe9d7; --blank: #f3f5f7 }
@media (prefers-color-scheme: dark) {
svg { --ground: #12181f; --ink: #e6edf3; --dim: #9aa7b4; --grid: #27313c; --mean: #4fa3dd; --most: #244f6e; --over: #f0717f; --line: #f2a65a; --free: #33281c; --blank: #1a222b }
}
text { font: 13px system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; fill: var(--ink) }
.title { font-size: 19px; font-weight: 600 } .dim { fill: var(--dim) } .small { font-size: 12px }
.end { text-anchor: end } .mid { text-anchor: middle } .strong { font-weight: 600 }
.ground { fill: var(--ground) } .grid { stroke: var(--grid); stroke-width: 1 } .axis { stroke: var(--dim); stroke-width: 1 }
.mean { fill: var(--mean) } .most { fill: var(--most) } .over { fill: var(--over) } .freed { fill: var(--free) } .blank { fill: var(--blank) }
.line { stroke: var(--line); stroke-width: 1.5; stroke-dasharray: 6 4; fill: none } .label { fill: var(--line); font-weight: 600 }
.halo { paint-order: stroke; stroke: var(--ground); stroke-width: 4px; stroke-linejoin: round }
.curve { stroke: var(--mean); stroke-width: 2; fill: none }
`

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

// picture collects the elements of an SVG.
type picture struct{ strings.Builder }

func (p *picture) add(format string, args ...any) {
	fmt.Fprintf(p, format, args...)
	p.WriteByte('\n')
}

func (p *picture) text(class string, x, y float64, text string) {
	p.add(`<text class="%s" x="%s" y="%s">%s</text>`, class, unit(x), unit(y), escape(text))
}

// unit formats a coordinate to a tenth, finer than can be seen.
func unit(x float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0")
}

// SVG draws the cycle, with its free windows marked, and the duration curve.
func (b *Bill) SVG(w io.Writer) error {
	var p picture
	top, highest := b.scale()
	p.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`,
		svgWidth, svgHeight, svgWidth, svgHeight)
	title := fmt.Sprintf("%s billed, %s", b.rate(b.Billed), b.Cycle.Name)
	p.add("<title>%s</title>", escape(title))
	p.add("<style>%s</style>", svgStyle)
	p.add(`<rect class="ground" width="%d" height="%d"/>`, svgWidth, svgHeight)

	const date = "2 January 2006"
	p.text("title", svgLeft, 36, b.rate(b.Billed)+" billed")
	p.text("dim", svgLeft, 58, b.headline())
	p.text("dim", svgLeft, 76, b.subtitle())
	p.text("dim end", svgEdge, 36, fmt.Sprintf("%s to %s, %s", b.date(b.Cycle.Start, date), b.date(b.Cycle.End, date), b.Zone))

	b.drawCycle(&p, panel{monthTop, monthHigh, top}, highest)
	b.drawCurve(&p, panel{curveTop, curveHigh, top})
	p.add("</svg>")
	_, err := io.WriteString(w, p.String())
	return err
}

// headline describes the billed value.
func (b *Bill) headline() string {
	text := b.samples() + ", " + b.basis()
	if b.Absent > 0 {
		text += "; " + b.absent()
	}
	return text
}

// subtitle describes the free windows, the worst phase and the forecast.
func (b *Bill) subtitle() string {
	parts := []string{fmt.Sprintf("%d windows over %s, %d are free", b.FreeUsed, b.lineName(), b.FreeTotal)}
	if b.Phases > 1 {
		parts = append(parts, "worst phase "+b.rate(b.WorstBilled))
	}
	switch {
	case b.Simulated:
		parts = append(parts, "simulated")
	case !b.Closed():
		parts = append(parts, "forecast "+b.rate(b.Forecast.Billed))
	}
	if b.Cap > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s used", amount(b.Transfer.Used), amount(b.Cap)))
	}
	return strings.Join(parts, " · ")
}

// panel is a plot in the picture: where it begins, its height, and the end of its rate axis
// in bytes a window.
type panel struct{ top, high, most float64 }

// y returns the coordinate of a rate, at the most the end of the axis.
func (at panel) y(v float64) float64 { return at.top + at.high*(1-min(v/at.most, 1)) }

func (at panel) bottom() float64 { return at.top + at.high }

// x returns the coordinate of a share of a plot's width.
func (panel) x(share float64) float64 { return svgLeft + plotWidth*share }

// drawRates draws the axis of about n rates.
func (b *Bill) drawRates(p *picture, at panel, n float64) {
	perWindow := b.Window.Seconds() / 8
	step := roundUp(at.most/perWindow/n*0.999, 1, 2, 2.5, 5)
	for bits := 0.0; bits*perWindow <= at.most*1.0001; bits += step {
		y := at.y(bits * perWindow)
		p.add(`<path class="grid" d="M%d %sH%d"/>`, svgLeft, unit(y), svgRight)
		p.text("small dim end", svgLeft-8, y+4, cli.Human(bits, "bit/s"))
	}
}

// drawLine draws the line that windows are compared with, and the axis below.
func (b *Bill) drawLine(p *picture, at panel) {
	name := "billed"
	if b.Commit > 0 {
		name = "commit"
	}
	y := at.y(float64(b.Line()))
	p.add(`<path class="line" d="M%d %sH%d"/>`, svgLeft, unit(y), svgRight)
	p.text("label small", svgRight+6, y, name)
	p.text("label small", svgRight+6, y+15, b.rate(b.Line()))
	p.add(`<path class="axis" d="M%d %sH%d"/>`, svgLeft, unit(at.bottom()), svgRight)
}

// drawCycle draws the rates of the cycle: a bar for each unit of width.
func (b *Bill) drawCycle(p *picture, at panel, highest float64) {
	// Unknown parts have another background.
	from, to := at.x(b.along(b.From)), at.x(b.along(min(b.To, b.Cycle.End)))
	p.add(`<path class="blank" d="M%d %gH%sv%gH%dzM%s %gH%dv%gH%sz"/>`, svgLeft, at.top, unit(from), at.high, svgLeft,
		unit(to), at.top, svgRight, at.high, unit(to))
	b.drawRates(p, at, 5)

	all, line := b.bars(plotWidth), float64(b.Line())
	draw := func(class string, extent func(c bar) (low, high float64)) {
		var d strings.Builder
		for i, c := range all {
			if low, high := extent(c); at.y(low) > at.y(high) {
				fmt.Fprintf(&d, "M%d %sV%sh1V%sz", svgLeft+i, unit(at.y(low)), unit(at.y(high)), unit(at.y(low)))
			}
		}
		p.add(`<path class="%s" shape-rendering="crispEdges" d="%s"/>`, class, d.String())
	}
	draw("most", func(c bar) (float64, float64) { return 0, min(c.most, line) })
	draw("mean", func(c bar) (float64, float64) { return 0, min(c.mean, line) })
	draw("over", func(c bar) (float64, float64) { return line, c.most })
	// Free windows are marked under the axis, so that short ones are visible too.
	var d strings.Builder
	for i, c := range all {
		if c.most > line {
			fmt.Fprintf(&d, "M%d %sv7h1v-7z", svgLeft+i, unit(at.bottom()+1))
		}
	}
	p.add(`<path class="over" shape-rendering="crispEdges" d="%s"/>`, d.String())
	b.drawLine(p, at)
	for _, m := range b.marks() {
		p.add(`<path class="axis" d="M%s %sv10"/>`, unit(at.x(m.at)), unit(at.bottom()))
		if m.at < 0.95 {
			p.text("small dim mid", max(at.x(m.at), svgLeft+20), at.bottom()+25, m.label)
		}
	}
	p.text("small dim end", svgEdge, legend, b.highest(at.most, highest))
	b.drawLegend(p)
}

// drawLegend explains the colours of the bars.
func (b *Bill) drawLegend(p *picture) {
	width := cli.Duration((time.Duration(b.Cycle.End-b.Cycle.Start) / plotWidth).Round(time.Minute))
	at := float64(svgLeft)
	for _, e := range []struct{ class, text string }{
		{"most", fmt.Sprintf("most of %v", width)}, {"mean", "mean"}, {"over", "over " + b.lineName()},
	} {
		p.add(`<rect class="%s" x="%s" y="%g" width="12" height="12" rx="2"/>`, e.class, unit(at), legend-10.5)
		p.text("small", at+18, legend, e.text)
		at += 18 + 7*float64(len(e.text)) + 20
	}
}

// drawCurve draws the duration curve, with the free samples and the billed value.
func (b *Bill) drawCurve(p *picture, at panel) {
	p.text("strong", svgLeft, at.top-16, "How many samples are higher")
	free := float64(budget.Hundred-b.Percentile) / float64(budget.Hundred)
	p.add(`<rect class="freed" x="%d" y="%g" width="%s" height="%g"/>`, svgLeft, at.top, unit(plotWidth*free), at.high)
	b.drawRates(p, at, 3)
	var d strings.Builder
	for i, c := range b.curve(plotWidth) {
		fmt.Fprintf(&d, "L%d %sh1", svgLeft+i, unit(at.y(c.most)))
	}
	p.add(`<path class="most" d="M%d %s%sV%sz"/>`, svgLeft, unit(at.bottom()), d.String(), unit(at.bottom()))
	p.add(`<path class="curve" d="M%s"/>`, d.String()[1:])
	b.drawLine(p, at)
	for _, share := range []float64{0, .25, .5, .75, 1} {
		p.add(`<path class="axis" d="M%s %sv4"/>`, unit(at.x(share)), unit(at.bottom()))
		p.text("small dim mid", at.x(share), at.bottom()+19, fmt.Sprintf("%g%%", 100*share))
	}
	// The billed value is at the end of the free share.
	y := at.y(float64(b.Billed))
	p.add(`<circle class="over" cx="%s" cy="%s" r="4.5"/>`, unit(at.x(free)), unit(y))
	if b.Commit > 0 {
		p.text("strong small halo", at.x(free)+9, max(y-6, at.top+12), "billed "+b.rate(b.Billed))
	}
	p.text("small dim end", svgEdge, at.top-16, fmt.Sprintf("the highest %.3g%% cost nothing", 100*free))
	p.text("small dim end", svgRight, at.bottom()+38, "share of the samples that are higher")
}
