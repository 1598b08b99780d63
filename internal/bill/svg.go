package bill

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
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
	svgRight  = 96 // margin of the plots, for the labels of lines
	svgEdge   = svgWidth - 20
	plotWidth = svgWidth - svgLeft - svgRight
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

// ticks returns round numbers up to top, about n.
func ticks(top float64, n int) (all []float64) {
	step := nice(top / float64(n) * 0.999)
	for _, s := range []float64{1.2, 1.5, 3, 4, 6, 8} { // their multiples are not round
		unit := math.Pow(10, math.Floor(math.Log10(step)))
		if math.Abs(step-s*unit) < unit/1e6 {
			step = map[float64]float64{1.2: 2, 1.5: 2, 3: 5, 4: 5, 6: 10, 8: 10}[s] * unit
			break
		}
	}
	for x := 0.0; x <= top*1.0001; x += step {
		all = append(all, x)
	}
	return all
}

// SVG draws the cycle, with its free windows marked, and the duration curve.
func (b *Bill) SVG(w io.Writer) error {
	var p picture
	top, highest := b.scale()
	line := float64(b.Line())
	p.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`, svgWidth, svgHeight, svgWidth, svgHeight)
	title := fmt.Sprintf("%s billed, %s", b.rate(b.Billed), b.Cycle.Name)
	p.add("<title>%s</title>", escape(title))
	p.add("<style>%s</style>", svgStyle)
	p.add(`<rect class="ground" width="%d" height="%d"/>`, svgWidth, svgHeight)

	const date = "2 January 2006"
	p.text("title", svgLeft, 36, b.rate(b.Billed)+" billed")
	p.text("dim", svgLeft, 58, b.headline())
	p.text("dim", svgLeft, 76, b.subtitle())
	p.text("dim end", svgEdge, 36, fmt.Sprintf("%s to %s, %s", b.date(b.Cycle.Start, date), b.date(b.Cycle.End, date), b.Zone))

	b.svgMonth(&p, top, line, highest)
	b.svgCurve(&p, top, line)
	p.add("</svg>")
	_, err := io.WriteString(w, p.String())
	return err
}

// headline describes the billed value.
func (b *Bill) headline() string {
	text := fmt.Sprintf("%s percentile of %s, %s", ordinal(b.Percentile), b.samples(), b.basis())
	if b.Absent > 0 {
		text += "; " + b.absent()
	}
	return text
}

// subtitle describes the free windows, the worst phase and the forecast.
func (b *Bill) subtitle() string {
	var parts []string
	over := "it"
	if b.Commit > 0 {
		over = "the commit of " + b.rate(b.Commit)
	}
	parts = append(parts, fmt.Sprintf("%s windows over %s, %s are free", thousands(b.FreeUsed), over, thousands(b.FreeTotal)))
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
		parts = append(parts, fmt.Sprintf("%s of %s used", cli.Human(float64(b.Transfer.Used), "B"), cli.Human(float64(b.Cap), "B")))
	}
	return strings.Join(parts, " · ")
}

// rates draws the rate axis.
func (b *Bill) rates(p *picture, y func(float64) float64, top, line float64, n int) {
	perWindow := b.Window.Seconds() / 8
	for _, bits := range ticks(top/perWindow, n) {
		at := y(bits * perWindow)
		p.add(`<path class="grid" d="M%d %sH%d"/>`, svgLeft, unit(at), svgWidth-svgRight)
		p.text("small dim end", svgLeft-8, at+4, short(bits))
	}
}

// short formats a rate for an axis: 25 Mbit/s.
func short(bits float64) string {
	if bits == 0 {
		return "0"
	}
	s := cli.Human(bits, "bit/s")
	number, unit, _ := strings.Cut(s, " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return number + " " + unit
}

// commitLine draws the line that windows are compared with.
func (b *Bill) commitLine(p *picture, at float64) {
	p.add(`<path class="line" d="M%d %sH%d"/>`, svgLeft, unit(at), svgWidth-svgRight)
	p.text("label small", svgWidth-svgRight+6, at, b.lineName())
	p.text("label small", svgWidth-svgRight+6, at+15, b.rate(b.Line()))
}

func (b *Bill) svgMonth(p *picture, top, line, highest float64) {
	y := func(v float64) float64 { return monthTop + monthHigh*(1-v/top) }
	length := float64(b.Cycle.End - b.Cycle.Start)
	x := func(at int64) float64 { return svgLeft + plotWidth*float64(at-b.Cycle.Start)/length }
	bottom := float64(monthTop + monthHigh)

	// Unknown parts have another background.
	if a := x(b.From); a > svgLeft+1 {
		p.add(`<rect class="blank" x="%d" y="%d" width="%s" height="%d"/>`, svgLeft, monthTop, unit(a-svgLeft), monthHigh)
	}
	if z := x(b.To); z < svgWidth-svgRight-1 {
		p.add(`<rect class="blank" x="%s" y="%d" width="%s" height="%d"/>`, unit(z), monthTop, unit(svgWidth-svgRight-z), monthHigh)
	}
	b.rates(p, y, top, line, 5)

	// A column for each unit of width: its mean and its maximum.
	n := plotWidth
	mean, most, count := make([]float64, n), make([]float64, n), make([]int, n)
	free := make([]bool, n)
	for _, w := range b.Windows {
		if !w.Known {
			continue
		}
		i := min(max(int(x(w.At)-svgLeft), 0), n-1)
		v := float64(b.Counted().Value(w.In, w.Out))
		mean[i] += v
		most[i] = max(most[i], v)
		count[i]++
		free[i] = free[i] || v > line
	}
	columns := func(class string, value func(i int) (lo, hi float64)) {
		var d strings.Builder
		for i := range n {
			if count[i] == 0 {
				continue
			}
			if lo, hi := value(i); hi > lo {
				fmt.Fprintf(&d, "M%d %sV%sh1V%sz", svgLeft+i, unit(y(lo)), unit(y(hi)), unit(y(lo)))
			}
		}
		if d.Len() > 0 {
			p.add(`<path class="%s" shape-rendering="crispEdges" d="%s"/>`, class, d.String())
		}
	}
	// A sample longer than a column also fills the columns after it.
	if wide := plotWidth * float64(b.Window) / length; wide > 1 {
		last := -1
		for i := range n {
			if count[i] > 0 {
				last = i
			} else if last >= 0 && float64(i-last) < wide {
				mean[i], most[i], count[i], free[i] = mean[last], most[last], 1, free[last]
			}
		}
	}
	columns("most", func(i int) (float64, float64) { return 0, min(most[i], line) })
	columns("mean", func(i int) (float64, float64) { return 0, min(mean[i]/float64(count[i]), line) })
	columns("over", func(i int) (float64, float64) { return line, min(most[i], top) })
	// Free windows are marked under the axis, so that short ones are visible too.
	var marks strings.Builder
	for i := range n {
		if free[i] {
			fmt.Fprintf(&marks, "M%d %sv7h1v-7z", svgLeft+i, unit(bottom+1))
		}
	}
	if marks.Len() > 0 {
		p.add(`<path class="over" shape-rendering="crispEdges" d="%s"/>`, marks.String())
	}
	b.commitLine(p, y(line))
	p.add(`<path class="axis" d="M%d %sH%d"/>`, svgLeft, unit(bottom), svgWidth-svgRight)
	for _, m := range b.ticks() {
		size := 3
		if m.label != "" {
			size = 10
		}
		p.add(`<path class="axis" d="M%s %sv%d"/>`, unit(x(m.at)), unit(bottom), size)
		if m.label != "" && x(m.at) < svgWidth-svgRight-30 {
			p.text("small dim mid", max(x(m.at), svgLeft+20), bottom+25, m.label)
		}
	}

	p.text("small dim end", svgEdge, 98.5, b.highest(top, highest))
	// The legend.
	over := "over the commit"
	if b.Commit == 0 {
		over = "over what is billed"
	}
	at := float64(svgLeft)
	for _, e := range []struct{ class, text string }{
		{"most", fmt.Sprintf("most of %s", cli.Duration((time.Duration(length) / plotWidth).Round(time.Minute)))}, {"mean", "mean"}, {"over", over},
	} {
		p.add(`<rect class="%s" x="%s" y="%d" width="12" height="12" rx="2"/>`, e.class, unit(at), 88)
		p.text("small", at+18, 98.5, e.text)
		at += 18 + 7*float64(len(e.text)) + 20
	}
}

func (b *Bill) svgCurve(p *picture, top, line float64) {
	y := func(v float64) float64 { return curveTop + curveHigh*(1-v/top) }
	bottom := float64(curveTop + curveHigh)
	x := func(share float64) float64 { return svgLeft + plotWidth*share }
	p.text("strong", svgLeft, curveTop-16, "How many samples are higher")
	free := float64(budget.Hundred-b.Percentile) / float64(budget.Hundred)
	all := b.sorted()
	if free > 0 {
		p.add(`<rect class="freed" x="%d" y="%d" width="%s" height="%d"/>`, svgLeft, curveTop, unit(max(plotWidth*free, 1)), curveHigh)
	}
	b.rates(p, y, top, line, 3)
	if len(all) > 0 {
		// A point for each half unit of width. The curve only falls, so no peak is lost
		// between points.
		var d strings.Builder
		n := min(len(all), 2*plotWidth)
		for k := range n {
			i := k * len(all) / n
			fmt.Fprintf(&d, "L%s %s", unit(x(float64(i)/float64(len(all)))), unit(y(min(float64(all[i]), top))))
		}
		end := y(float64(all[len(all)-1]))
		fmt.Fprintf(&d, "L%s %s", unit(x(1)), unit(end))
		p.add(`<path class="most" d="M%d %s%sL%s %sZ"/>`, svgLeft, unit(bottom), d.String(), unit(x(1)), unit(bottom))
		p.add(`<path class="curve" d="M%s"/>`, d.String()[1:])
	}
	b.commitLine(p, y(line))
	p.add(`<path class="axis" d="M%d %sH%d"/>`, svgLeft, unit(bottom), svgWidth-svgRight)
	for _, share := range []float64{0, .25, .5, .75, 1} {
		p.add(`<path class="axis" d="M%s %sv4"/>`, unit(x(share)), unit(bottom))
		class := "small dim mid"
		if share == 0 {
			class = "small dim"
		} else if share == 1 {
			class = "small dim end"
		}
		p.text(class, x(share), bottom+19, fmt.Sprintf("%g%%", 100*share))
	}
	if free > 0.02 && free < 0.22 {
		p.text("small dim mid", x(free), bottom+19, fmt.Sprintf("%.3g%%", 100*free))
	}
	// The billed value is at the end of the free share.
	p.add(`<circle class="over" cx="%s" cy="%s" r="4.5"/>`, unit(x(free)), unit(y(float64(b.Billed))))
	if b.Commit > 0 {
		p.text("strong small halo", x(free)+9, max(y(float64(b.Billed))-6, curveTop+12), "billed "+b.rate(b.Billed))
	}
	if free > 0 {
		p.text("small dim end", svgEdge, curveTop-16, fmt.Sprintf("the highest %.3g%% cost nothing", 100*free))
	}
	p.text("small dim end", svgWidth-svgRight, bottom+38, "share of the samples that are higher")
}
