package samples

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/cli"
)

// maxGap is the longest time without samples. A wrong year in one row would have a
// simulation count through all the years between.
const maxGap = 366 * 24 * int64(time.Hour)

// grid is the rows of a port on their way to samples.
type grid struct {
	*file
	rows       []row
	seen, wide [2]bool // whether a direction has values, and counters that do not wrap at 32 bits
	step, slot int64   // nanoseconds: how far rows are apart, and samples
	list       []bill.Sample
}

// place turns the rows of a port into samples.
func (f *file) place(rows []row) (*bill.Samples, error) {
	if len(rows) == 0 {
		return nil, errNone
	}
	g := &grid{file: f, rows: rows}
	for _, pass := range []func() error{
		g.local, g.distinct, g.look, g.differences, g.intervals, g.amounts, g.fit, g.plausible,
	} {
		if err := pass(); err != nil {
			return nil, err
		}
	}
	return bill.NewSamples(g.list, time.Duration(g.slot))
}

func byTime(a, b row) int { return cmp.Compare(a.at, b.at) }

// distinct sorts the rows, and keeps each time once. Rows of one time may have one direction each.
func (g *grid) distinct() error {
	if !slices.IsSortedFunc(g.rows, byTime) {
		slices.SortStableFunc(g.rows, byTime)
	}
	kept := g.rows[:1]
	for _, r := range g.rows[1:] {
		last := &kept[len(kept)-1]
		switch {
		case r.at-last.at > maxGap:
			return g.at(r.line, cli.Hint(fmt.Errorf("%.1f years after %s %d", float64(r.at-last.at)/float64(maxGap), g.part, last.line),
				"correct the time, or bill the years one by one"))
		case g.flows || last.at != r.at:
			kept = append(kept, r)
		case last.value == r.value && last.period == r.period:
			g.note(r.line, "the same as %s %d: counted once", g.part, last.line)
		case min(last.value[in], r.value[in]) == unknown && min(last.value[out], r.value[out]) == unknown:
			last.value = [2]float64{max(last.value[in], r.value[in]), max(last.value[out], r.value[out])}
		default:
			return g.at(r.line, cli.Hint(fmt.Errorf("%s %d has different bytes for the same time", g.part, last.line),
				"if they are of several ports, give each port a series, or a file and -csv of its own, and -add"))
		}
	}
	g.rows = kept
	return nil
}

// look looks at the values. It returns an error if amounts look like counters: nearly all that
// change rise, and if these are few, by little.
func (g *grid) look() error {
	for d, name := range directions[:total] {
		n, steps, rising, first, last := 0., 0., 0., 0., 0.
		for i := range g.rows {
			x := g.rows[i].value[d]
			switch {
			case x == unknown:
				continue
			case n == 0:
				first = x
			case x > last:
				rising++
				steps++
			case x < last:
				steps++
			}
			n, last, g.wide[d] = n+1, x, g.wide[d] || x >= 1<<32 || g.name == "prometheus"
		}
		g.seen[d] = n > 0
		if g.Format.has("amount") || g.rate || g.Counters || steps < 2 || rising < 0.95*steps {
			continue
		}
		if steps >= 50 || first > 1000*(last-first)/steps {
			return g.at(g.rows[1].line, cli.Hint(fmt.Errorf("%s rises from sample to sample: these seem to be counters", name),
				"give -counters; if they are bytes of each sample, -format amount"))
		}
	}
	return nil
}

// differences turns counts into the bytes between them.
func (g *grid) differences() error {
	if !g.Counters {
		return nil
	}
	rows := slices.DeleteFunc(g.rows, func(r row) bool {
		return g.seen != [2]bool{r.value[in] != unknown, r.value[out] != unknown}
	})
	if len(rows) < 2 {
		return errors.New("a single count shows no bytes")
	}
	wraps, last := 0, rows[0]
	for i := 1; i < len(rows); i++ {
		r, now := &rows[i], rows[i]
		r.period = r.at - last.at
		limit := float64(1 << 30) // of a counter that wrapped: a quarter of 32 bits, or as much as the port carries
		if g.Speed > 0 {
			limit = 1.1 * float64(g.Speed) / 8 * time.Duration(r.period).Seconds()
		}
		for d, count := range now.value {
			before := last.value[d]
			switch wrapped := 1<<32 - before + count; {
			case count >= before:
				r.value[d] = count - before // or both are unknown
			case !g.wide[d] && before >= 1<<31 && wrapped <= limit: // a lower one was reset, on any fast port
				r.value[d] = wrapped
				wraps++
				g.note(r.line, "the counter of %s wrapped", directions[d])
			default:
				g.note(r.line, "the counter of %s began anew: the bytes since then count, "+
					"and those before are not known", directions[d])
			}
		}
		last = now
	}
	if g.rows = rows[1:]; len(g.rows) > 10 && wraps > len(g.rows) {
		return cli.Hint(errors.New("counters of 32 bits wrap in most samples, and may wrap twice in one"),
			"count with 64 bits: ifHCInOctets, ifHCOutOctets")
	}
	return nil
}

// amounts turns the values of rows into bytes, and their times into beginnings.
func (g *grid) amounts() error {
	ends := g.Counters || g.ends()
	for i := range g.rows {
		r := &g.rows[i]
		period := cmp.Or(r.period, g.step)
		if ends {
			r.at -= period + g.late
		}
		for d, v := range r.value {
			if v == unknown && g.seen[d] {
				g.note(r.line, "%s is not known: it counts as nothing", directions[d])
			}
			r.value[d] = max(v, 0)
			if g.rate {
				r.value[d] *= time.Duration(period).Seconds()
			}
		}
	}
	return nil
}

// ends reports whether times are the ends of samples. Where the file does not say so, a row does that
// covers more or less than the one before: it is as far from that as the period of the later of both.
func (g *grid) ends() bool {
	if g.settled {
		return g.end
	}
	near := func(a, b int64) bool { return max(a-b, b-a) <= b/10 }
	for i := 1; i < len(g.rows); i++ {
		before, after, apart := g.rows[i-1].period, g.rows[i].period, g.rows[i].at-g.rows[i-1].at
		if before > 0 && near(apart, before) != near(apart, after) {
			return near(apart, after)
		}
	}
	last := len(g.rows) - 1
	from, to := time.Unix(0, g.rows[0].at).In(g.Zone), time.Unix(0, g.rows[last].at).In(g.Zone)
	midnight := func(t time.Time) bool { return t.Day() == 1 && t.Hour() == 0 && t.Minute() == 0 && t.Second() == 0 }
	switch {
	case g.end:
		g.note(g.rows[0].line, "times count as the ends of samples: give -format end or -format start")
	case last > 1 && midnight(to) && from.Day() == 1 && from.Hour() == 0 && !midnight(from):
		g.note(g.rows[last].line, "the times go from %s to %s, as the ends of samples do, "+
			"but count as their beginnings: give -format end or -format start", from.Format("2 Jan 15:04"), to.Format("2 Jan 15:04"))
	}
	return g.end
}

// steps are the intervals of pollers, in seconds.
var steps = []int64{
	1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 240, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400,
}

// round returns the step of pollers that is within a tenth, or the interval itself.
func round(apart int64) int64 {
	for _, s := range steps {
		if s *= int64(time.Second); max(apart-s, s-apart) <= s/10 {
			return s
		}
	}
	return apart
}

// intervals finds how far rows are apart: the most frequent of their periods or differences,
// the least of several, as pollers that jitter would have it.
func (g *grid) intervals() error {
	var apart []int64
	for i := range g.rows {
		if r := &g.rows[i]; r.period > 0 || i > 0 {
			apart = append(apart, round(cmp.Or(r.period, r.at-g.rows[max(i-1, 0)].at)))
		}
	}
	step, n := most(apart)
	others := slices.DeleteFunc(apart, func(x int64) bool { return x <= 3*step || x > 24*int64(time.Hour) })
	other, m := most(others)
	g.slot = cmp.Or(int64(g.Interval), step)
	switch g.step = min(cmp.Or(step, g.slot), g.slot); {
	case g.slot == 0:
		return cli.Hint(errors.New("a single sample does not show how far samples are apart"), "give -interval")
	case g.Interval == 0 && m > 0 && 2*m >= n && (m > 1 || other > 10*step):
		err := fmt.Errorf("samples are %v apart or %v", cli.Duration(step), cli.Duration(other))
		return g.at(g.rows[1].line, cli.Hint(err, "give -interval"))
	case g.slot > 24*int64(time.Hour):
		return fmt.Errorf("samples are %v apart: must be at most a day", time.Duration(g.slot))
	}
	if step > g.slot && g.rows[0].period == 0 {
		g.note(g.rows[0].line, "samples are mostly %v apart, not %v: those between count as missing",
			cli.Duration(step), cli.Duration(g.slot))
	}
	return nil
}

// most returns the most frequent value, the least of several, and how often it comes. It
// sorts the values.
func most(values []int64) (best int64, times int) {
	slices.Sort(values)
	for first, i := 0, 0; i < len(values); i++ {
		if values[i] != values[first] {
			first = i
		}
		if i-first >= times {
			best, times = values[i], i-first+1
		}
	}
	return best, times
}

// phase returns by how much slots begin after a multiple of their length: as most rows do,
// or not at all if most are near. Flows begin at any time.
func (g *grid) phase() int64 {
	if g.flows {
		return 0
	}
	phases, near := make([]int64, len(g.rows)), 0
	for i := range g.rows {
		p := g.rows[i].at - floor(g.rows[i].at, g.slot)
		if phases[i] = p; p <= g.slot/10 || p >= g.slot-g.slot/10 {
			near++
		}
	}
	best, times := most(phases)
	if 2*times < len(phases) && 2*near > len(phases) {
		return 0
	}
	return best
}

// floor is the last multiple of b that is at most a.
func floor(a, b int64) int64 { return a - (a%b+b)%b }

// fit puts rows on a grid of slots. A row counts in the slot that has its middle, which for
// a row as long as a slot is the one that begins nearest; one that covers several is spread
// over them. A flow is spread over its time.
func (g *grid) fit() error {
	list, slot, p := make([]bill.Sample, 0, len(g.rows)), g.slot, g.phase()
	sum, parts := 0., int64(0)
	for i := range g.rows {
		r := &g.rows[i]
		start, end := r.at, r.at+r.period
		if !g.flows {
			n := max((r.period+slot/2)/slot, 1)
			start = floor(r.at-p+min(cmp.Or(r.period, g.step), slot)/2, slot) + p
			end = start + n*slot
			if n > 1 {
				g.note(r.line, "covers %v: spread over %d samples", cli.Duration(r.period), n)
			}
		}
		if sum += r.value[in] + r.value[out]; sum > 1<<62 {
			return g.at(r.line, errLarge)
		}
		all := [2]int64{int64(r.value[in] + 0.5), int64(r.value[out] + 0.5)}
		first, rest := floor(start-p, slot)+p, all
		if parts += (end - first) / slot; parts > 1<<25 {
			return errMany
		}
		for at := first; at < end; at += slot {
			i, has := slices.BinarySearchFunc(list, at, func(x bill.Sample, at int64) int { return cmp.Compare(x.At, at) })
			switch {
			case !has && len(list) == maxRows:
				return errMany
			case !has:
				list = slices.Insert(list, i, bill.Sample{At: at, Line: r.line})
			case r.period == 0:
				g.note(r.line, "in the same sample as %s %d: the bytes of both are added", g.part, list[i].Line)
			}
			later := max(end-at-slot, 0)
			left := [2]int64{share(all[in], later, end-start), share(all[out], later, end-start)}
			list[i].In += rest[in] - left[in]
			list[i].Out += rest[out] - left[out]
			rest = left
		}
	}
	g.list = list
	return nil
}

// share is n*part/whole, rounded down; part is at most whole.
func share(n, part, whole int64) int64 {
	high, low := bits.Mul64(uint64(n), uint64(part))
	q, _ := bits.Div64(high, low, uint64(whole))
	return int64(q)
}

// plausible checks samples against the speed of the port, or against each other.
func (g *grid) plausible() error {
	seconds := time.Duration(g.slot).Seconds()
	for d, name := range directions[:total] {
		bytes := func(x bill.Sample) int64 { return [2]int64{x.In, x.Out}[d] }
		limit := 1.1 * float64(g.Speed) / 8 * seconds
		if g.Speed == 0 {
			limit = 1000 * g.median(bytes)
		}
		for _, x := range g.list {
			if float64(bytes(x)) <= limit {
				continue
			}
			rate := cli.Human(float64(bytes(x))*8/seconds, "bit/s")
			if g.Speed > 0 {
				return g.at(x.Line, cli.Hint(fmt.Errorf("%s is %s, more than the port carries", name, rate),
					"correct or remove the sample, or give the speed of the port with -speed"))
			}
			g.note(x.Line, "%s is %s, over a thousand times the median: "+
				"if that cannot be, give the speed of the port with -speed", name, rate)
		}
	}
	return nil
}

// median is that of the samples that are not 0; no limit if they are fewer than ten.
func (g *grid) median(bytes func(bill.Sample) int64) float64 {
	var values []int64
	for _, x := range g.list {
		if n := bytes(x); n > 0 {
			values = append(values, n)
		}
	}
	if len(values) < 10 {
		return math.Inf(1)
	}
	slices.Sort(values)
	return float64(values[len(values)/2])
}
