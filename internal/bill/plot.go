package bill

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/cli"
)

// bar is a bar of a plot: the mean and the maximum of its windows, in bytes a window.
type bar struct {
	mean, most float64
	windows    int
}

func (c *bar) add(v int64) {
	c.windows++
	c.mean += (float64(v) - c.mean) / float64(c.windows)
	c.most = max(c.most, float64(v))
}

// bars divides the cycle into n bars of a method's values. A window longer than a bar fills
// all that it covers.
func (b *Bill) bars(n int, m Method) []bar {
	all := make([]bar, n)
	at := func(t int64) int { return int(b.along(t) * float64(n)) }
	for _, w := range b.Windows {
		first := min(at(w.At), n-1)
		last := min(max(first, at(w.At+int64(b.Window))-1), n-1)
		for i := first; i <= last && w.Known; i++ {
			all[i].add(m.Value(w.In, w.Out))
		}
	}
	return all
}

// along returns the share of the cycle that is before a time.
func (b *Bill) along(at int64) float64 {
	return float64(at-b.Cycle.Start) / float64(b.Cycle.End-b.Cycle.Start)
}

// curve divides the windows that count, highest first, into n bars: the duration curve.
func (b *Bill) curve(n int, m Method) []bar {
	var values []int64
	for _, w := range b.Windows {
		if w.Known || b.Missing == Zero {
			values = append(values, m.Value(w.In, w.Out))
		}
	}
	slices.Sort(values)
	slices.Reverse(values)
	all := make([]bar, n)
	for i := range all {
		first := i * len(values) / n
		for _, v := range values[first:min(max((i+1)*len(values)/n, first+1), len(values))] {
			all[i].add(v)
		}
	}
	return all
}

// scale returns the end of the rate axis, and the highest value of a method, in bytes a
// window. If the highest value is over four times the line and the bill, the axis ends
// below it so that the other values remain visible.
func (b *Bill) scale(m Method) (top, highest float64) {
	for _, w := range b.Windows {
		highest = max(highest, float64(m.Value(w.In, w.Out)))
	}
	least := float64(max(b.Line(), b.Billed))
	top = max(least, highest)
	if least > 0 && top > 4*least {
		top = 3 * least
	}
	perWindow := b.Window.Seconds() / 8
	return roundUp(top/perWindow*1.02, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) * perWindow, highest
}

// roundUp returns the least number, x or more, that is one of the steps times a power of
// ten. It is 1 if x is not positive.
func roundUp(x float64, steps ...float64) float64 {
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

// highest describes the highest value.
func (b *Bill) highest(top, highest float64) string {
	text := "the highest is " + b.rate(int64(highest))
	if highest > top {
		text += ", off the plot"
	}
	return text
}

// mark is a label at a share of an axis.
type mark struct {
	at    float64
	label string
}

// marks returns the marks of the time axis: weeks from the start of the cycle, or days,
// or about six in a short cycle.
func (b *Bill) marks() (all []mark) {
	const day = 24 * time.Hour
	length := time.Duration(b.Cycle.End - b.Cycle.Start)
	days, step, layout := 7, time.Duration(0), "Mon 2 Jan"
	switch {
	case length < 2*day:
		days, step, layout = 0, max((length/6).Truncate(time.Minute), time.Minute), "15:04"
	case length < 10*day:
		days = 1
	}
	for t := b.time(b.Cycle.Start); t.UnixNano() < b.Cycle.End; t = t.AddDate(0, 0, days).Add(step) {
		all = append(all, mark{b.along(t.UnixNano()), t.Format(layout)})
	}
	return all
}

// The measures of a plot in text.
const (
	plotRows = 8
	margin   = 12 // for the labels beside it
)

// plotWidth returns the number of columns of a plot, without its labels.
func (p *page) plotWidth() int { return max(p.Width-margin-1-len(" commit"), 16) }

// plotCycle draws the rates of the cycle: the mean and the maximum of each bar.
func (b *Bill) plotCycle(p *page) {
	if p.tabs {
		return
	}
	n := p.plotWidth()
	top, highest := b.scale(b.Counted())
	width := cli.Duration((time.Duration(b.Cycle.End-b.Cycle.Start) / time.Duration(n)).Round(time.Minute))
	fmt.Fprintf(p, "%*s%s mean, %s most of each %v; %s\n", margin+1, "",
		p.paint(colourMean, "█"), p.paint(colourMost, "▒"), width, b.highest(top, highest))
	b.plot(p, b.bars(n, b.Counted()), top, b.marks())
}

// plotCurve draws the duration curve: the share of the samples at or above a rate.
func (b *Bill) plotCurve(p *page) {
	if p.tabs {
		return
	}
	top, _ := b.scale(b.Counted())
	marks := []mark{{0, "0%"}}
	free := float64(budget.Hundred-b.Percentile) / float64(budget.Hundred)
	for _, at := range []float64{free, 0.25, 0.5, 0.75} {
		marks = append(marks, mark{at, fmt.Sprintf("%.4g%%", 100*at)})
	}
	fmt.Fprintf(p, "%*swhich share of the samples is higher\n", margin+1, "")
	b.plot(p, b.curve(p.plotWidth(), b.Counted()), top, marks)
}

// plot draws bars, the line that windows are compared with, and the axes.
func (b *Bill) plot(p *page, bars []bar, top float64, marks []mark) {
	line := plotRows - 1 - min(int(float64(b.Line())/top*plotRows), plotRows-1)
	for row := range plotRows {
		label, colour, name := "", colourDim, ""
		switch row {
		case line:
			label, colour, name = b.rate(b.Line()), colourLine, " billed"
			if b.Commit > 0 {
				name = " commit"
			}
		case 0:
			label = cli.Human(math.Round(top*8/b.Window.Seconds()), "bit/s")
		case plotRows - 1:
			label = "0"
		}
		axis := "│"
		if label != "" {
			axis = "┤"
		}
		p.WriteString(p.paint(colour, fmt.Sprintf("%*s", margin, label)) + p.paint(colourDim, axis))
		var cells strings.Builder
		for _, c := range bars {
			cells.WriteString(p.cell(c, top, row, line))
		}
		cells.WriteString(p.paint(colourLine, name))
		p.WriteString(strings.TrimRight(cells.String(), " ") + "\n")
	}
	p.axis(len(bars), marks)
}

// cell draws a bar's part of a row. The line is in the row of that number.
func (p *page) cell(c bar, top float64, row, line int) string {
	high := top / plotRows
	low := high * float64(plotRows-1-row)
	eighths := int(math.Round(min((c.mean-low)/high, 1) * 8))
	text, colour := "▒", colourMost
	switch {
	case eighths > 0:
		text, colour = string([]rune("▁▂▃▄▅▆▇█")[eighths-1]), colourMean
	case c.most > low+high/3:
	case row == line:
		return p.paint(colourLine, "─")
	default:
		return " "
	}
	if row < line {
		colour = colourOver
	}
	return p.paint(colour, text)
}

// axis draws the axis under a plot of so many columns, with the labels that fit.
func (p *page) axis(columns int, marks []mark) {
	line, text := []rune(strings.Repeat("─", columns)), strings.Repeat(" ", margin+1)
	for i, m := range marks {
		x := int(m.at * float64(columns))
		if free := margin + 1 + x - len(text); free >= min(i, 1) && x+len(m.label) <= columns+len(" commit") {
			line[x] = '┬'
			text += strings.Repeat(" ", free) + m.label
		}
	}
	p.WriteString(strings.Repeat(" ", margin) + p.paint(colourDim, "└"+string(line)) + "\n")
	p.WriteString(p.paint(colourDim, text) + "\n")
}
