package bill

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"framepipe/internal/cli"
)

func (b *Bill) time(at int64) time.Time { return time.Unix(0, at).In(b.Zone) }

// date formats a date. It appends the time of day if the cycle does not go from midnight to midnight.
func (b *Bill) date(at int64) string {
	const clock = " 15:04"
	layout := "2 Jan"
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
	p.line("billed", "%s  %s%s", p.bold(b.rate(b.Billed)), b.open("so far; "), b.samples())
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
	if !b.Prices.None() && b.Total > 0 {
		b.writeCost(p)
	}
	if b.Phases > 1 {
		p.line("worst phase", "%s", b.worst())
	}
	if len(b.Windows) > 0 {
		if !b.Closed() {
			b.writeForecast(p)
		}
		b.plots(p)
	}
	return p.writeTo(w)
}

// open returns a remark on a cycle that has not ended.
func (b *Bill) open(remark string) string {
	if b.Closed() {
		return ""
	}
	return remark
}

const allOfIt = ", all of it"

// cycle describes the cycle and its known part.
func (b *Bill) cycle() string {
	const day = "2 Jan 15:04"
	state := allOfIt
	if !b.Closed() {
		state = fmt.Sprintf(", until %s: %.0f%%", b.time(b.To).Format(day), math.Floor(100*b.along(b.To)))
	}
	if b.From-b.Cycle.Start >= int64(b.Window) {
		state += ", known from " + b.time(b.From).Format(day)
	}
	start, end := b.date(b.Cycle.Start), b.date(b.Cycle.End)
	return fmt.Sprintf("%s  %s to %s %s%s", b.Cycle.Name, start, end, b.Zone, state)
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

// against describes the difference between the bill and the commit. Before the cycle ends, the
// commit is exceeded only if it would be with no more traffic.
func (b *Bill) against(p *page) string {
	diff := b.Commit - b.Least
	switch {
	case diff < 0:
		return p.paint(colourOver, "over by "+b.open("at least ")+b.rate(-diff))
	case !b.Closed():
		return "kept so far"
	case diff > 0:
		return "under by " + b.rate(diff)
	}
	return "met exactly"
}

// free draws how many free windows are used. Without a commit, the highest are.
func (b *Bill) free(p *page) string {
	if b.Commit == 0 {
		return fmt.Sprintf("%d of %d windows: the highest cost nothing", b.FreeTotal, b.Total)
	}
	left, colour := fmt.Sprintf("%d left", b.FreeTotal-b.FreeUsed), colourMean
	if b.FreeUsed > b.FreeTotal {
		left, colour = p.paint(colourOver, fmt.Sprintf("%d too many", b.FreeUsed-b.FreeTotal)), colourOver
	}
	const width = 12
	full := int(math.Round(width * min(float64(b.FreeUsed)/float64(max(b.FreeTotal, 1)), 1)))
	bar := p.paint(colour, strings.Repeat("█", full)) + p.paint(colourMost, strings.Repeat("░", width-full))
	return fmt.Sprintf("%s  %d of %d windows over the commit, %s", bar, b.FreeUsed, b.FreeTotal, left)
}

// worst describes the poller's worst phase.
func (b *Bill) worst() string {
	text := fmt.Sprintf("%-12s  of %d: windows that begin %v later", b.rate(b.WorstBilled), b.Phases, b.WorstOffset)
	if b.Commit > 0 {
		text += fmt.Sprintf("; at most %d over", b.WorstUsed)
	}
	return text
}

// tooEarly replaces a forecast from less than a day.
const tooEarly = "too early to say: less than a day is known"

func (b *Bill) writeForecast(p *page) {
	f := &b.Forecast
	if f.Days == 0 {
		p.line("forecast", tooEarly)
		return
	}
	special := map[int]string{1: "the day before", 7: "the week before"}
	ranges, past := "", cmp.Or(special[f.Days], fmt.Sprintf("the %d days before", f.Days))
	if f.Trials > 0 {
		ranges = fmt.Sprintf("; from %s to %s", b.rate(f.Low), b.rate(f.High))
		past += fmt.Sprintf(", and the errors of %d forecasts", f.Trials)
	}
	p.line("forecast", "%-12s  on %s%s", b.rate(f.Billed), b.date(b.Cycle.End), ranges)
	p.remark("by " + past)
	p.remark(fmt.Sprintf("%s in, %s out", amount(f.InBytes), amount(f.OutBytes)))
	if b.Commit > 0 {
		p.remark(fmt.Sprintf("%d of %d windows over the commit", f.FreeUsed, b.FreeTotal))
	}
	if b.Held {
		p.remark("as gates hold the commit")
	}
}

// writeCost writes the cost of the cycle: at least, if it has not ended.
func (b *Bill) writeCost(p *page) {
	c := b.cost(b.Least)
	p.line("cost", "%s  %s%s", p.bold(b.Prices.money(c.Total)), b.open("at least: "), b.parts(c))
	if !b.Closed() && b.Forecast.Days > 0 {
		cost := func(bytes int64) string { return b.Prices.money(b.cost(bytes).Total) }
		text := cost(b.Forecast.Billed) + " by the forecast"
		if b.Forecast.Trials > 0 {
			text += fmt.Sprintf(", from %s to %s", cost(b.Forecast.Low), cost(b.Forecast.High))
		}
		p.remark(text)
	}
}

// parts describes the parts of a cost.
func (b *Bill) parts(c Cost) string {
	if c.Total > c.Commit+c.Overage {
		return "the minimum"
	}
	over := cli.Human(float64(c.Over), "bit/s")
	if b.Commit == 0 {
		return over
	}
	text := fmt.Sprintf("%v for the commit", c.Commit)
	if c.Over > 0 {
		text += fmt.Sprintf(", %v for %s over it", c.Overage, over)
	}
	return text
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
	case !b.Closed() && b.Forecast.Days == 0:
		p.line("expected", tooEarly)
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
	rows, priced := []string{"cycle\tbilled\tin\tout\tin\tout\tsamples\tfree"}, !all[0].Prices.None()
	if priced {
		rows[0] += "\tcost"
	}
	for _, b := range all {
		used, cost := "", ""
		if b.Commit > 0 {
			used = fmt.Sprintf("%d of ", b.FreeUsed)
		}
		if priced {
			cost = "\t" + b.Prices.money(b.cost(b.Least).Total)
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s%d%s", b.Cycle.Name, b.rate(b.Billed), b.rate(b.In),
			b.rate(b.Out), amount(b.InBytes), amount(b.OutBytes), b.Samples, used, b.FreeTotal, cost))
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
	if x.Patience > 0 {
		p.line("delayed", "%-12s  %v at the longest", amount(x.Delayed), cli.Duration(x.Longest))
	}
	p.line("lost", "%-12s  %s of it", amount(x.Lost), percent(share(x.Lost, x.Offered)))
	p.line("free", "%s", b.free(p))
	p.line("worst phase", "%s", b.worst())
	if !b.Prices.None() {
		b.writeCost(p)
	}
	b.plots(p)
	return p.writeTo(w)
}

// writeDemand writes the cycle and its demand.
func (x *Simulated) writeDemand(p *page) {
	b := x.Natural
	p.line("cycle", "%s", strings.TrimSuffix(b.cycle(), allOfIt))
	p.line("demand", "%-12s  %s, %s", b.rate(b.Billed), b.samples(), amount(x.Offered))
	if x.Part {
		p.remark("the known part, with its share of the free windows")
	}
}

// Text writes the plan for people, a line for each commit.
func (p Plan) Text(w io.Writer, s Style) error {
	page := newPage(s)
	p[0].writeDemand(page)
	page.WriteByte('\n')
	prices := &p[0].Prices
	knee, _, _ := p.best()
	marked, word := p.marked()
	lines := []string{"commit\tbilled\tpassed\tflat\tdelayed\tlost\tfree used"}
	if !prices.None() {
		lines[0] = "commit\tcost\tall paid\tpassed\tdelayed\tlost\tfree used"
	}
	for _, x := range p {
		b, mark := x.Bill, ""
		if x == marked {
			mark = "\t" + page.paint(colourLine, word)
		}
		first := fmt.Sprintf("%s\t%s\t%s", b.rate(b.Billed), percent(x.PassedShare()), percent(x.FlatShare()))
		if !prices.None() {
			first = fmt.Sprintf("%v\t%v\t%s", x.held(), x.paid(), percent(x.PassedShare()))
		}
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%s\t%d of %d%s",
			b.rate(x.Commit), first, amount(x.Delayed), amount(x.Lost), b.FreeUsed, b.FreeTotal, mark))
	}
	page.table(lines)
	switch {
	case !prices.None():
		p.writeAdvice(page, word == "pay")
	case knee == nil:
		fmt.Fprintf(page, "\n%s\n", page.paint(colourDim, "None of these passes 99.9%."))
	case knee == p[0]:
		fmt.Fprintf(page, "\n%s\n", page.paint(colourDim, "The least of these is enough, and less may be."))
	}
	return page.writeTo(w)
}

// writeAdvice says which commit is cheapest with gates, and which without.
func (p Plan) writeAdvice(page *page, toPay bool) {
	_, x, paid := p.best()
	pay := fmt.Sprintf("%s without gates, for %s: all passes at once", paid.Bill.rate(paid.Commit), paid.Prices.money(paid.paid()))
	hold := "None of these commits passes 99.9% with gates"
	if x != nil {
		hold = fmt.Sprintf("%s with gates would cost %s", x.Bill.rate(x.Commit), x.Prices.money(x.held()))
	}
	page.WriteByte('\n')
	if toPay {
		fmt.Fprintf(page, "It is cheapest to pay: %s.\n%s.\n", pay, hold)
		return
	}
	fmt.Fprintf(page, "Cheapest: %s; %s (%s) lost, %s delayed", strings.Replace(hold, " would cost", ", for", 1),
		amount(x.Lost), percent(share(x.Lost, x.Offered)), amount(x.Delayed))
	if x.Delayed > 0 {
		fmt.Fprintf(page, " by up to %v", cli.Duration(x.Longest))
	}
	fmt.Fprintf(page, ".\nTo pay instead: %s.\n", pay)
}
