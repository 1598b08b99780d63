package bill

import (
	"fmt"
	"math"
	"strings"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/cli"
	"framepipe/internal/svg"
)

// bars divides the cycle into n bars of a method's values, times a sign: the mean and the highest of
// each, in bytes a window. A window longer than a bar fills all that it covers.
func (b *Bill) bars(n int, m Method, sign float64) (mean, most []float64) {
	mean, most = make([]float64, n), make([]float64, n)
	windows := make([]float64, n)
	at := func(t int64) int { return min(int(b.along(t)*float64(n)), n-1) }
	for _, w := range b.Windows {
		v := sign * float64(m.Value(w.In, w.Out))
		for i := at(w.At); i <= at(w.At+int64(b.Window)-1) && w.Known; i++ {
			windows[i]++
			mean[i] += (v - mean[i]) / windows[i]
			if math.Abs(v) > math.Abs(most[i]) {
				most[i] = v
			}
		}
	}
	return mean, most
}

// along returns the share of the cycle that is before a time.
func (b *Bill) along(at int64) float64 {
	return float64(at-b.Cycle.Start) / float64(b.Cycle.End-b.Cycle.Start)
}

// curve returns n of the windows that count, highest first: the duration curve.
func (b *Bill) curve(n int, m Method) []float64 {
	values, curve := b.values(m, b.Windows), make([]float64, n)
	if len(values) == 0 {
		return curve
	}
	for i := range curve {
		curve[i] = float64(values[len(values)-1-i*len(values)/n])
	}
	return curve
}

// scale returns how far a plot of a method's values goes, and the highest value, in bytes a window. If
// that is over four times the line and the bill, the plot ends below it so that the other values remain visible.
func (b *Bill) scale(m Method) (top, highest float64) {
	for _, w := range b.Windows {
		highest = max(highest, float64(m.Value(w.In, w.Out)))
	}
	least := float64(max(b.Line(), b.Billed))
	top = max(least, highest)
	if least > 0 && top > 4*least {
		top = 3 * least
	}
	return top * 1.02, highest
}

// highest describes the highest value of a plot that ends at top.
func (b *Bill) highest(top, highest float64) string {
	text := "the highest is " + b.rate(int64(highest))
	if highest > top {
		text += ", off the plot"
	}
	return text
}

// marks returns the marks of the time axis: weeks from the start of the cycle, or days,
// or about six in a short cycle.
func (b *Bill) marks() (all []svg.Mark) {
	length := time.Duration(b.Cycle.End - b.Cycle.Start)
	days, step, layout := 7, time.Duration(0), "Mon 2 Jan"
	switch {
	case length < 2*oneDay:
		days, step, layout = 0, max((length/6).Truncate(time.Minute), time.Minute), "15:04"
	case length < 10*oneDay:
		days = 1
	}
	for t := b.time(b.Cycle.Start); t.UnixNano() < b.Cycle.End; t = t.AddDate(0, 0, days).Add(step) {
		all = append(all, svg.Mark{At: b.along(t.UnixNano()), Label: t.Format(layout)})
	}
	return all
}

// shares returns the marks of the duration curve, of which the second is the share of the free windows.
func (b *Bill) shares() (all []svg.Mark) {
	for _, at := range []float64{0, float64(budget.Hundred-b.Percentile) / float64(budget.Hundred), 0.25, 0.5, 0.75} {
		all = append(all, svg.Mark{At: at, Label: fmt.Sprintf("%.4g%%", 100*at)})
	}
	return all
}

// The measures of a plot in text.
const (
	plotRows = 8
	margin   = 12 // for the labels beside it
)

// plots draws the rates of the cycle, and the duration curve if the cycle is not simulated.
func (b *Bill) plots(p *page) {
	if p.cells {
		return
	}
	n, m, perWindow := max(p.Width-margin-1-len(" commit"), 16), b.Counted(), b.Window.Seconds()/8
	top, highest := b.scale(m)
	top = svg.RoundUp(top/perWindow, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) * perWindow
	width := cli.Duration((time.Duration(b.Cycle.End-b.Cycle.Start) / time.Duration(n)).Round(time.Minute))
	fmt.Fprintf(p, "\n%*s%s mean, %s most of each %v; %s\n", margin+1, "",
		p.paint(colourMean, "█"), p.paint(colourMost, "▒"), width, b.highest(top, highest))
	mean, most := b.bars(n, m, 1)
	b.plot(p, mean, most, top, b.marks())
	if !b.Simulated {
		fmt.Fprintf(p, "\n%*swhich share of the samples is higher\n", margin+1, "")
		values := b.curve(n, m)
		b.plot(p, values, values, top, b.shares())
	}
}

// plot draws bars, the line that windows are compared with, and the axes.
func (b *Bill) plot(p *page, mean, most []float64, top float64, marks []svg.Mark) {
	line, name := plotRows-1-min(int(float64(b.Line())/top*plotRows), plotRows-1), " billed"
	if b.Commit > 0 {
		name = " commit"
	}
	labels := map[int]string{0: cli.Human(math.Round(top*8/b.Window.Seconds()), "bit/s"), plotRows - 1: "0"}
	labels[line] = b.rate(b.Line())
	for row := range plotRows {
		axis, colour := "│", colourDim
		if labels[row] != "" {
			axis = "┤"
		}
		cells := ""
		for i := range mean {
			cells += p.cell(mean[i]/top*plotRows, most[i]/top*plotRows, row, line)
		}
		if row == line {
			colour = colourLine
			cells += p.paint(colour, name)
		}
		p.WriteString(p.paint(colour, fmt.Sprintf("%*s", margin, labels[row])) + p.paint(colourDim, axis))
		p.WriteString(strings.TrimRight(cells, " ") + "\n")
	}
	p.axis(len(mean), marks)
}

// cell draws the part of a bar, whose values are in rows, in a row. The line is in the row of that number.
func (p *page) cell(mean, most float64, row, line int) string {
	low := float64(plotRows - 1 - row)
	eighths := int(math.Round(min(mean-low, 1) * 8))
	text, colour := "▒", colourMost
	switch {
	case eighths > 0:
		text, colour = string([]rune("▁▂▃▄▅▆▇█")[eighths-1]), colourMean
	case most > low+1./3:
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
func (p *page) axis(columns int, marks []svg.Mark) {
	line, text := []rune(strings.Repeat("─", columns)), strings.Repeat(" ", margin+1)
	for i, m := range marks {
		x := int(m.At * float64(columns))
		if free := margin + 1 + x - len(text); free >= min(i, 1) && x+len(m.Label) <= columns+len(" commit") {
			line[x] = '┬'
			text += strings.Repeat(" ", free) + m.Label
		}
	}
	p.WriteString(strings.Repeat(" ", margin) + p.paint(colourDim, "└"+string(line)) + "\n")
	p.WriteString(p.paint(colourDim, text) + "\n")
}
