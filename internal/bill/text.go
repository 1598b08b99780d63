package bill

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"framepipe/internal/cli"
)

func (b *Bill) time(at int64) time.Time { return time.Unix(0, at).In(b.Zone) }

// date formats a time by a layout of the date alone. It appends the time of day if
// the cycle does not go from midnight to midnight.
func (b *Bill) date(at int64, layout string) string {
	const clock = " 15:04"
	if b.time(b.Cycle.Start).Format(clock) != " 00:00" || b.time(b.Cycle.End).Format(clock) != " 00:00" {
		layout += clock
	}
	return b.time(at).Format(layout)
}

func (b *Bill) rate(bytes int64) string { return cli.Human(b.BPS(bytes), "bit/s") }

func amount(bytes int64) string { return cli.Human(float64(bytes), "B") }

// percent formats a share, rounded down so that less than all never shows as 100%.
func percent(share float64) string {
	return fmt.Sprintf("%.2f%%", math.Floor(share*1e4+1e-7)/1e2)
}

// Text writes the bill for people.
func (b *Bill) Text(w io.Writer, s Style) error {
	p := newPage(s)
	p.line("cycle", "%s", b.cycle())
	if b.Cap > 0 {
		b.writeTransfer(p)
	}
	p.line("billed", "%s  %s", p.bold(b.rate(b.Billed)), b.samples())
	p.remark(b.basis())
	if b.Absent > 0 {
		p.remark(b.absent())
	}
	p.line("in", "%-12s  %s", b.rate(b.In), amount(b.InBytes))
	p.line("out", "%-12s  %s", b.rate(b.Out), amount(b.OutBytes))
	if b.Commit > 0 {
		p.line("commit", "%-12s  %s", b.rate(b.Commit), b.against(p))
	}
	if b.Total > 0 {
		p.line("free", "%s", b.free(p))
	}
	if b.Phases > 1 {
		p.line("worst phase", "%s", b.worst())
	}
	if len(b.Windows) > 0 {
		if !b.Closed() {
			b.writeForecast(p)
		}
		p.WriteByte('\n')
		b.plotCycle(p)
		p.WriteByte('\n')
		b.plotCurve(p)
	}
	return p.writeTo(w)
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
	start, end := b.date(b.Cycle.Start, "2 Jan"), b.date(b.Cycle.End, "2 Jan")
	return fmt.Sprintf("%s  %s to %s %s, %s", b.Cycle.Name, start, end, b.Zone, state)
}

// samples describes the samples that are billed.
func (b *Bill) samples() string {
	noun := "samples"
	if b.Samples == 1 {
		noun = "sample"
	}
	return fmt.Sprintf("percentile %v of %d %s of %v", b.Percentile, b.Samples, noun, cli.Duration(b.Window))
}

// basis describes the billed value.
func (b *Bill) basis() string {
	return [...]string{
		Separate: "the larger of each direction's percentile: " + b.Counted().String(),
		Max:      "the larger direction of each sample",
		Sum:      "both directions of each sample together",
		In:       "what came in",
		Out:      "what went out",
	}[b.Method]
}

// absent describes the missing samples and how they count.
func (b *Bill) absent() string {
	return fmt.Sprintf("missing: %d, which %s", b.Absent, [...]string{Zero: "count as 0", Skip: "do not count"}[b.Missing])
}

// against describes the difference between the bill and the commit.
func (b *Bill) against(p *page) string {
	switch diff := b.Commit - b.Billed; {
	case diff < 0:
		return p.paint(colourOver, "over by "+b.rate(-diff))
	case diff > 0:
		return "under by " + b.rate(diff)
	}
	return "met exactly"
}

// lineName names the line that windows are compared with.
func (b *Bill) lineName() string {
	if b.Commit > 0 {
		return "the commit"
	}
	return "what is billed"
}

// free draws how many free windows are used.
func (b *Bill) free(p *page) string {
	left, colour := fmt.Sprintf("%d left", b.FreeTotal-b.FreeUsed), colourMean
	if b.FreeUsed > b.FreeTotal {
		left, colour = p.paint(colourOver, fmt.Sprintf("%d too many", b.FreeUsed-b.FreeTotal)), colourOver
	}
	const width = 12
	full := 0
	if b.FreeUsed > 0 {
		full = int(math.Round(width * min(float64(b.FreeUsed)/float64(b.FreeTotal), 1)))
	}
	bar := p.paint(colour, strings.Repeat("█", full)) + p.paint(colourMost, strings.Repeat("░", width-full))
	return fmt.Sprintf("%s  %d of %d windows over %s, %s", bar, b.FreeUsed, b.FreeTotal, b.lineName(), left)
}

// worst describes the poller's worst phase.
func (b *Bill) worst() string {
	return fmt.Sprintf("%-12s  of %d: windows that begin %v later; at most %d over",
		b.rate(b.WorstBilled), b.Phases, b.WorstOffset, b.WorstUsed)
}

func (b *Bill) writeForecast(p *page) {
	free := ""
	if b.Commit > 0 {
		free = fmt.Sprintf(", %d of %d windows over the commit", b.Forecast.FreeUsed, b.FreeTotal)
	}
	p.line("forecast", "%-12s  on %s%s", b.rate(b.Forecast.Billed), b.date(b.Cycle.End, "2 Jan"), free)
	p.remark(fmt.Sprintf("%s in, %s out, going by the week before", amount(b.Forecast.InBytes), amount(b.Forecast.OutBytes)))
}

func (b *Bill) writeTransfer(p *page) {
	x := &b.Transfer
	left := amount(x.Left) + " left"
	if x.Left < 0 {
		left = p.paint(colourOver, amount(-x.Left)+" too much")
	}
	p.line("used", "%s  %.1f%% of %s, %s", p.bold(amount(x.Used)), 100*float64(x.Used)/float64(b.Cap), amount(b.Cap), left)
	switch {
	case x.Left < 0:
		p.line("ran out", "%s", p.paint(colourOver, b.time(x.MeanOut).Format("Mon 2 Jan 15:04")))
	case !b.Closed():
		rate := func(name string, perSecond float64, out int64) {
			lasts := "lasts"
			if out != 0 {
				lasts = p.paint(colourOver, "runs out "+b.time(out).Format("Mon 2 Jan"))
			}
			p.line(name, "%-12s  %s", cli.Human(perSecond*8, "bit/s"), lasts)
		}
		rate("at today's", x.Today, x.TodayOut)
		rate("at the mean", x.Mean, x.MeanOut)
		p.line("expected", "%-12s  at the end of the cycle", amount(x.Forecast))
	}
}

// Bills are the bills of several cycles.
type Bills []*Bill

// Text writes a line for each bill.
func (all Bills) Text(w io.Writer, s Style) error {
	p := newPage(s)
	rows := []string{"cycle\tbilled\tin\tout\tin\tout\tsamples\tfree used"}
	for _, b := range all {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d of %d", b.Cycle.Name,
			b.rate(b.Billed), b.rate(b.In), b.rate(b.Out), amount(b.InBytes), amount(b.OutBytes), b.Samples, b.FreeUsed, b.FreeTotal))
	}
	p.table(rows)
	return p.writeTo(w)
}

// Text writes the simulation for people.
func (x *Simulated) Text(w io.Writer, s Style) error {
	p, b := newPage(s), x.Bill
	x.writeDemand(p)
	p.line("commit", "%-12s  simulated", b.rate(x.Commit))
	p.line("billed", "%s  of what passed: %s", p.bold(b.rate(b.Billed)), b.against(p))
	p.remark(b.basis())
	p.line("passed", "%s  %s of %s", p.bold(percent(x.PassedShare())), amount(x.Passed), amount(x.Offered))
	p.remark(percent(x.FlatShare()) + " with a flat quota")
	foresight := " if all had been known before"
	if x.Patience > 0 {
		foresight += "; nothing waits"
	}
	p.remark(percent(x.BestShare()) + foresight)
	if x.Patience > 0 {
		p.line("delayed", "%-12s  %v at the longest", amount(x.Delayed), cli.Duration(x.Longest))
	}
	p.line("lost", "%-12s  %s of it", amount(x.Lost), percent(share(x.Lost, x.Offered)))
	p.line("free", "%s", b.free(p))
	p.line("worst phase", "%s", b.worst())
	p.WriteByte('\n')
	b.plotCycle(p)
	return p.writeTo(w)
}

// writeDemand writes the cycle and its demand.
func (x *Simulated) writeDemand(p *page) {
	b := x.Natural
	p.line("cycle", "%s", b.cycle())
	p.line("demand", "%-12s  %s, %s", b.rate(b.Billed), b.samples(), amount(x.Offered))
	if !b.Closed() || b.From-b.Cycle.Start >= int64(b.Window) {
		p.remark("of the rest of the cycle nothing is known: none comes")
	}
}

// Text writes the plan for people, a line for each commit.
func (p Plan) Text(w io.Writer, s Style) error {
	page := newPage(s)
	p[0].writeDemand(page)
	page.WriteByte('\n')
	knee := p.Knee()
	rows := []string{"commit\tbilled\tpassed\tflat\tdelayed\tlost\tfree used"}
	for i, x := range p {
		b, mark := x.Bill, ""
		if i == knee {
			mark = "\t" + page.paint(colourLine, "knee")
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%d of %d%s", b.rate(x.Commit), b.rate(b.Billed),
			percent(x.PassedShare()), percent(x.FlatShare()), amount(x.Delayed), amount(x.Lost), b.FreeUsed, b.FreeTotal, mark))
	}
	page.table(rows)
	switch knee {
	case -1:
		fmt.Fprintf(page, "\n%s\n", page.paint(colourDim, "None of these passes 99.9%."))
	case 0:
		fmt.Fprintf(page, "\n%s\n", page.paint(colourDim, "The least of these is enough, and less may be."))
	}
	return page.writeTo(w)
}
