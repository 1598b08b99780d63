package bill

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/cli"
)

// Style is the style of a drawn bill.
type Style struct {
	Colour bool
	ASCII  bool
	Width  int // columns
}

// Colours, of the 256 of xterm.
const (
	colourMean = 37
	colourMost = 24
	colourOver = 203
	colourLine = 214
	colourDim  = 245
)

func (s Style) paint(colour int, text string) string {
	if !s.Colour || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[38;5;%dm%s\x1b[0m", colour, text)
}

// nice returns the least round number, x or more, for the end of an axis.
func nice(x float64) float64 {
	if !(x > 0) || math.IsInf(x, 0) {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(x)))
	for _, f := range []float64{1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8} {
		if f*unit >= x*(1-1e-12) {
			return f * unit
		}
	}
	return 10 * unit
}

func (b *Bill) time(at int64) time.Time { return time.Unix(0, at).In(b.Zone) }

func (b *Bill) rate(bytes int64) string { return cli.Human(b.BPS(bytes), "bit/s") }

// thousands formats a number with thousands separators.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// basis describes the billed value, for people.
func (b *Bill) basis() string {
	switch b.Method {
	case Separate:
		return "the larger of each direction's percentile: " + b.Counted().String()
	case Max:
		return "the larger direction of each sample"
	case Sum:
		return "both directions of each sample together"
	case In:
		return "what came in"
	}
	return "what went out"
}

// ordinal returns the percentile as an ordinal: 95th.
func ordinal(p budget.Percentile) string {
	s := p.String()
	end := "th"
	if !strings.HasSuffix(s, "11") && !strings.HasSuffix(s, "12") && !strings.HasSuffix(s, "13") {
		switch s[len(s)-1] {
		case '1':
			end = "st"
		case '2':
			end = "nd"
		case '3':
			end = "rd"
		}
	}
	return s + end
}

// Text writes the bill for people.
func (b *Bill) Text(w io.Writer, s Style) error {
	if s.Width == 0 {
		s.Width = 80
	}
	s.Width = min(max(s.Width, 40), 240)
	var t strings.Builder
	line := s.lines(&t)
	line("cycle", "%s", b.cycle())
	if b.Cap > 0 {
		b.textTransfer(line, s)
	}
	line("billed", "%s  %s percentile of %s", bold(s, b.rate(b.Billed)), ordinal(b.Percentile), b.samples())
	dim := func(text string) { line("", "%14s%s", "", s.paint(colourDim, text)) }
	dim(b.basis())
	if b.Absent > 0 {
		dim(b.absent())
	}
	line("in", "%-12s  %s", b.rate(b.In), cli.Human(float64(b.InBytes), "B"))
	line("out", "%-12s  %s", b.rate(b.Out), cli.Human(float64(b.OutBytes), "B"))
	if b.Commit > 0 {
		line("commit", "%-12s  %s", b.rate(b.Commit), b.against(s))
	}
	if b.Total > 0 {
		line("free", "%s", b.free(s))
	}
	if b.Phases > 1 {
		line("worst phase", "%s", b.worst())
	}
	if !b.Closed() && len(b.Windows) > 0 {
		free := ""
		if b.Commit > 0 {
			free = fmt.Sprintf(", %s of %s windows over the commit", thousands(b.Forecast.FreeUsed), thousands(b.FreeTotal))
		}
		line("forecast", "%-12s  on %s%s", b.rate(b.Forecast.Billed), b.date(b.Cycle.End, "2 Jan"), free)
		dim(fmt.Sprintf("%s in, %s out, going by the week before", cli.Human(float64(b.Forecast.InBytes), "B"), cli.Human(float64(b.Forecast.OutBytes), "B")))
	}
	if len(b.Windows) > 0 {
		t.WriteByte('\n')
		b.month(&t, s)
		t.WriteByte('\n')
		b.duration(&t, s)
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// lines returns a function that writes a line: a name and its figures.
func (s Style) lines(t *strings.Builder) func(name, format string, args ...any) {
	return func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s%s\n", s.paint(colourDim, fmt.Sprintf("%-12s", name)), fmt.Sprintf(format, args...))
	}
}

// cycle describes the cycle and its known part.
func (b *Bill) cycle() string {
	const day = "2 Jan 15:04"
	state := "all of it"
	if !b.Closed() {
		share := float64(b.To-b.Cycle.Start) / float64(b.Cycle.End-b.Cycle.Start)
		state = fmt.Sprintf("until %s: %.0f%%", b.time(b.To).Format(day), math.Floor(100*share))
	}
	if b.From-b.Cycle.Start >= int64(b.Window) {
		state += ", known from " + b.time(b.From).Format(day)
	}
	return fmt.Sprintf("%s  %s to %s %s, %s", b.Cycle.Name, b.date(b.Cycle.Start, "2 Jan"), b.date(b.Cycle.End, "2 Jan"), b.Zone, state)
}

// against describes the difference between the bill and the commit.
func (b *Bill) against(s Style) string {
	switch diff := b.Commit - b.Billed; {
	case diff < 0:
		return s.paint(colourOver, "over by "+b.rate(-diff))
	case diff > 0:
		return "under by " + b.rate(diff)
	}
	return "met exactly"
}

// worst describes the poller's worst phase.
func (b *Bill) worst() string {
	return fmt.Sprintf("%-12s  of %d: windows that begin %v later; at most %s over", b.rate(b.WorstBilled), b.Phases, b.WorstOffset, thousands(b.WorstUsed))
}

func bold(s Style, text string) string {
	text = fmt.Sprintf("%-12s", text)
	if s.Colour {
		return "\x1b[1m" + text + "\x1b[0m"
	}
	return text
}

// samples describes the number of samples.
func (b *Bill) samples() string {
	if b.Samples == 1 {
		return fmt.Sprintf("1 sample of %s", cli.Duration(b.Window))
	}
	return fmt.Sprintf("%s samples of %s", thousands(b.Samples), cli.Duration(b.Window))
}

// absent describes the missing samples and how they count.
func (b *Bill) absent() string {
	word := "count as 0"
	if b.Missing == Skip {
		word = "do not count"
	}
	return fmt.Sprintf("missing: %s, which %s", thousands(b.Absent), word)
}

// free draws how many free windows are used.
func (b *Bill) free(s Style) string {
	left := b.FreeTotal - b.FreeUsed
	text := fmt.Sprintf("%s left", thousands(left))
	if left < 0 {
		text = s.paint(colourOver, fmt.Sprintf("%s too many", thousands(-left)))
	}
	over := "the commit"
	if b.Commit == 0 {
		over = "what is billed"
	}
	const width = 12
	share := 0.0
	if b.FreeTotal > 0 {
		share = min(float64(b.FreeUsed)/float64(b.FreeTotal), 1)
	} else if b.FreeUsed > 0 {
		share = 1
	}
	full, empty := "█", "░"
	if s.ASCII {
		full, empty = "#", "."
	}
	n := int(math.Round(share * width))
	colour := colourMean
	if left < 0 {
		colour = colourOver
	}
	bar := s.paint(colour, strings.Repeat(full, n)) + s.paint(colourMost, strings.Repeat(empty, width-n))
	return fmt.Sprintf("%s  %s of %s windows over %s, %s", bar, thousands(b.FreeUsed), thousands(b.FreeTotal), over, text)
}

func (b *Bill) textTransfer(line func(name, format string, args ...any), s Style) {
	x := &b.Transfer
	share := 100 * float64(x.Used) / float64(b.Cap)
	left := cli.Human(float64(x.Left), "B") + " left"
	if x.Left < 0 {
		left = s.paint(colourOver, cli.Human(-float64(x.Left), "B")+" too much")
	}
	line("used", "%s  %.1f%% of %s, %s", bold(s, cli.Human(float64(x.Used), "B")), share, cli.Human(float64(b.Cap), "B"), left)
	if x.Left < 0 {
		line("ran out", "%s", s.paint(colourOver, b.time(x.MeanOut).Format("Mon 2 Jan 15:04")))
		return
	}
	if b.Closed() {
		return
	}
	out := func(at int64) string {
		if at == 0 {
			return "lasts"
		}
		return s.paint(colourOver, "runs out "+b.time(at).Format("Mon 2 Jan"))
	}
	line("at today's", "%-12s  %s", cli.Human(x.Today*8, "bit/s"), out(x.TodayOut))
	line("at the mean", "%-12s  %s", cli.Human(x.Mean*8, "bit/s"), out(x.MeanOut))
	line("expected", "%-12s  at the end of the cycle", cli.Human(float64(x.Forecast), "B"))
}

// Plots.

const (
	rows   = 8
	margin = 12 // for the labels beside a plot
)

// chart is a plot of columns, each with a mean and a maximum, in bytes a window.
type chart struct {
	mean, most []float64
	top, line  float64
}

var (
	eighths = []rune(" ▁▂▃▄▅▆▇█")
	hatch   = "▒"
)

func (b *Bill) draw(t *strings.Builder, s Style, c chart, name string) {
	lineRow := rows - 1 - min(int(c.line/c.top*rows), rows-1)
	for row := range rows {
		lo, hi := c.top*float64(rows-1-row)/rows, c.top*float64(rows-row)/rows
		label, colour := "", colourDim
		switch {
		case row == lineRow && c.line > 0:
			label, colour = cli.Human(b.BPS(int64(c.line)), "bit/s"), colourLine
		case row == 0:
			label = cli.Human(math.Round(c.top*8/b.Window.Seconds()), "bit/s")
		case row == rows-1:
			label = "0"
		}
		axis := "│"
		switch {
		case s.ASCII && label == "":
			axis = "|"
		case s.ASCII:
			axis = "+"
		case label != "":
			axis = "┤"
		}
		t.WriteString(s.paint(colour, fmt.Sprintf("%*s", margin, label)) + s.paint(colourDim, axis))
		var text strings.Builder
		last, run := -1, ""
		flush := func() {
			if last >= 0 {
				run = s.paint(last, run)
			}
			text.WriteString(run)
			run = ""
		}
		for i := range c.mean {
			ch, colour := " ", -1
			switch mean, most := c.mean[i], c.most[i]; {
			case mean >= hi:
				ch, colour = "█", colourMean
			case mean > lo && (mean-lo)/(hi-lo) >= 1./16:
				ch, colour = string(eighths[int(math.Round((mean-lo)/(hi-lo)*8))]), colourMean
			case most > lo+(hi-lo)/3:
				ch, colour = hatch, colourMost
			case row == lineRow && c.line > 0:
				ch, colour = "─", colourLine
			}
			if colour >= 0 && colour != colourLine && row < lineRow {
				colour = colourOver
			}
			if s.ASCII {
				switch {
				case ch == hatch:
					ch = ":"
				case ch == "─":
					ch = "-"
				case ch != " ":
					ch = "#"
				}
			}
			if colour != last {
				flush()
				last = colour
			}
			run += ch
		}
		flush()
		if row == lineRow && c.line > 0 {
			text.WriteString(s.paint(colourLine, " "+name))
		}
		t.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
}

func (b *Bill) lineName() string {
	if b.Commit > 0 {
		return "commit"
	}
	return "billed"
}

// axis writes the line under a plot: a mark and a label at some columns.
func (s Style) axis(t *strings.Builder, columns int, at []int, labels []string) {
	bar, mark, corner := "─", "┬", "└"
	if s.ASCII {
		bar, mark, corner = "-", "+", "+"
	}
	cells := make([]string, columns)
	for i := range cells {
		cells[i] = bar
	}
	text := []rune(strings.Repeat(" ", columns+8))
	end := 0
	for i, x := range at {
		if x >= columns || x < end {
			continue
		}
		cells[x] = mark
		copy(text[x:], []rune(labels[i]))
		end = x + len(labels[i]) + 1
	}
	pad := strings.Repeat(" ", margin)
	t.WriteString(pad + s.paint(colourDim, corner+strings.Join(cells, "")) + "\n")
	t.WriteString(s.paint(colourDim, pad+" "+strings.TrimRight(string(text), " ")) + "\n")
}

// columns returns the number of columns of a plot, without its labels.
func (s Style) columns() int { return max(s.Width-margin-1-len(" commit"), 16) }

// scale returns the end of the rate axis, and the highest value, in bytes a
// window. If the highest value is over four times the line and the bill, the axis ends
// below it so that the other values remain visible.
func (b *Bill) scale() (top, highest float64) {
	m := b.Counted()
	for _, w := range b.Windows {
		highest = max(highest, float64(m.Value(w.In, w.Out)))
	}
	least := float64(max(b.Line(), b.Billed))
	top = max(least, highest)
	if least > 0 && top > 4*least {
		top = 3 * least
	}
	perWindow := b.Window.Seconds() / 8
	return nice(top/perWindow*1.02) * perWindow, highest
}

// highest describes the highest value.
func (b *Bill) highest(top, highest float64) string {
	text := "the highest is " + b.rate(int64(highest))
	if highest > top {
		text += ", off the plot"
	}
	return text
}

// month draws the rates of the cycle: the mean and the maximum of each column.
func (b *Bill) month(t *strings.Builder, s Style) {
	n := s.columns()
	top, highest := b.scale()
	c := chart{mean: make([]float64, n), most: make([]float64, n), top: top, line: float64(b.Line())}
	count := make([]int, n)
	length := b.Cycle.End - b.Cycle.Start
	for _, w := range b.Windows {
		if i := int(float64(w.At-b.Cycle.Start) / float64(length) * float64(n)); i >= 0 && i < n && w.Known {
			v := float64(b.Counted().Value(w.In, w.Out))
			c.mean[i] += v
			c.most[i] = max(c.most[i], v)
			count[i]++
		}
	}
	for i := range n {
		c.mean[i] /= float64(max(count[i], 1))
	}
	mean, most := "█", hatch
	if s.ASCII {
		mean, most = "#", ":"
	}
	width := cli.Duration((time.Duration(length) / time.Duration(n)).Round(time.Minute))
	fmt.Fprintf(t, "%*s%s\n", margin+1, "", fmt.Sprintf("%s mean, %s most of each %v; %s", s.paint(colourMean, mean), s.paint(colourMost, most), width, b.highest(top, highest)))
	b.draw(t, s, c, b.lineName())
	var at []int
	var labels []string
	for _, m := range b.marks() {
		at = append(at, int(float64(m.at-b.Cycle.Start)/float64(length)*float64(n)))
		labels = append(labels, m.label)
	}
	s.axis(t, n, at, labels)
}

// sorted returns the values of the windows that count, highest first.
func (b *Bill) sorted() []int64 {
	var all []int64
	for _, w := range b.Windows {
		if w.Known || b.Missing == Zero {
			all = append(all, b.Counted().Value(w.In, w.Out))
		}
	}
	slices.Sort(all)
	slices.Reverse(all)
	return all
}

// duration draws the duration curve: the share of the samples at or above a rate.
func (b *Bill) duration(t *strings.Builder, s Style) {
	all := b.sorted()
	if len(all) == 0 {
		return
	}
	n := s.columns()
	top, _ := b.scale()
	c := chart{mean: make([]float64, n), most: make([]float64, n), top: top, line: float64(b.Line())}
	for i := range n {
		lo, hi := i*len(all)/n, max((i+1)*len(all)/n, i*len(all)/n+1)
		for _, v := range all[lo:hi] {
			c.mean[i] += float64(v) / float64(hi-lo)
		}
		c.most[i] = float64(all[lo])
	}
	fmt.Fprintf(t, "%*s%s\n", margin+1, "", "which share of the samples is higher")
	b.draw(t, s, c, b.lineName())
	free := float64(budget.Hundred-b.Percentile) / 1e9
	at, labels := []int{0}, []string{"0%"}
	for _, x := range []float64{free, 25, 50, 75} {
		if x > 3 || n > 100 && x > 0 {
			at = append(at, int(x/100*float64(n)))
			labels = append(labels, fmt.Sprintf("%.4g%%", x))
		}
	}
	s.axis(t, n, at, labels)
}
