package samples

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/cli"
)

// maxGap is the longest time without samples. A wrong year in one row would have a
// simulation count through all the years between.
const maxGap = 366 * 24 * int64(time.Hour)

// place turns the rows of a port into samples.
func (f *file) place(rows []row) (*bill.Samples, error) {
	if err := f.local(rows); err != nil {
		return nil, err
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.at, b.at) })
	rows, err := f.distinct(rows)
	if err != nil {
		return nil, err
	}
	if err := f.notCounters(rows); err != nil {
		return nil, err
	}
	ends := f.ends(rows)
	if f.counters {
		if rows, err = f.differences(rows); err != nil {
			return nil, err
		}
		ends = true
	}
	rows = f.oneKnown(rows)
	if len(rows) == 0 {
		return nil, errors.New("there are no samples")
	}
	step, err := f.step(rows)
	if err != nil {
		return nil, err
	}
	slot := int64(f.Interval)
	if slot == 0 {
		slot = step
	}
	if slot > 24*int64(time.Hour) {
		return nil, fmt.Errorf("samples are %v apart: must be at most a day", time.Duration(slot))
	}
	for i := range rows {
		r := &rows[i]
		period := cmp.Or(r.period, step)
		if ends {
			r.at -= period
		}
		for d := range r.value {
			if f.rate {
				r.value[d] = r.value[d].times(float64(period) / float64(time.Second))
			}
			if r.value[d].whole > math.MaxInt64/4 {
				return nil, f.at(r.line, errLarge)
			}
		}
	}
	list, err := f.fit(rows, slot, step)
	if err == nil {
		err = f.plausible(list, slot)
	}
	if err != nil {
		return nil, err
	}
	return bill.NewSamples(list, time.Duration(slot))
}

// distinct returns the rows, which are sorted, each time once.
func (f *file) distinct(rows []row) ([]row, error) {
	kept := rows[:0]
	for _, r := range rows {
		n := len(kept)
		switch {
		case n == 0 || kept[n-1].at != r.at:
			if n > 0 && r.at-kept[n-1].at > maxGap {
				return nil, f.at(r.line, cli.Hint(fmt.Errorf("%.1f years after %s %d", float64(r.at-kept[n-1].at)/float64(maxGap),
					f.format.unit, kept[n-1].line), "correct the time, or bill the years one by one"))
			}
			kept = append(kept, r)
		case kept[n-1].value == r.value && kept[n-1].period == r.period:
			f.note(r.line, "same", "the same as %s %d: counted once", f.format.unit, kept[n-1].line)
		default:
			return nil, f.at(r.line, cli.Hint(fmt.Errorf("%s %d has different bytes for the same time", f.format.unit, kept[n-1].line),
				"if they are of several ports, give each port a file and -csv of its own, and -add"))
		}
	}
	return kept, nil
}

// notCounters returns an error if amounts rise as counters do.
func (f *file) notCounters(rows []row) error {
	if f.deltas || f.rate || f.counters || len(rows) < 3 {
		return nil
	}
	for d, name := range directions[:total] {
		rising := 0
		var values, steps []float64
		for i, r := range rows {
			if i == 0 || !r.value[d].known || !rows[i-1].value[d].known {
				continue
			}
			apart := r.value[d].float() - rows[i-1].value[d].float()
			if apart > 0 {
				rising++
			}
			values, steps = append(values, r.value[d].float()), append(steps, math.Abs(apart))
		}
		n := len(values)
		if n < 2 || rising*20 < n*19 {
			continue
		}
		slices.Sort(values)
		slices.Sort(steps)
		if n >= 50 || values[n/2] > 1000*steps[n/2] {
			return f.at(rows[1].line, cli.Hint(fmt.Errorf("%s rises from sample to sample: these seem to be counters", name),
				"give -counters; if they are bytes of each sample, -format amount"))
		}
	}
	return nil
}

// ends reports whether times are the ends of samples. Where the file does not say so, the
// periods of consecutive rows do if they are not all the same.
func (f *file) ends(rows []row) bool {
	if f.settled {
		return f.end
	}
	near := func(a, b int64) bool { return max(a-b, b-a) <= b/10 }
	start, end := 0, 0
	for i := 1; i < len(rows); i++ {
		a, b := rows[i-1], rows[i]
		if a.period == 0 || near(a.period, b.period) {
			continue
		}
		if near(b.at-a.at, a.period) {
			start++
		}
		if near(b.at-a.at, b.period) {
			end++
		}
	}
	if start != end {
		return end > start
	}
	last := len(rows) - 1
	from, to := time.Unix(0, rows[0].at).In(f.Zone), time.Unix(0, rows[last].at).In(f.Zone)
	midnight := func(t time.Time) bool { return t.Day() == 1 && t.Hour() == 0 && t.Minute() == 0 && t.Second() == 0 }
	if last > 1 && !f.end && midnight(to) && from.Day() == 1 && from.Hour() == 0 && !midnight(from) && from.Month() != to.Month() {
		f.note(rows[last].line, "ends", "the times go from %s to %s, as the ends of samples do, but count as their beginnings: give -format end or -format start",
			from.Format("2 Jan 15:04"), to.Format("2 Jan 15:04"))
	}
	if f.end {
		f.note(rows[0].line, "ends", "times count as the ends of samples: give -format end or -format start")
	}
	return f.end
}

// differences turns counts into the bytes between them.
func (f *file) differences(rows []row) ([]row, error) {
	var has [2]bool
	narrow := [2]bool{true, true}
	for _, r := range rows {
		for d, v := range r.value {
			has[d] = has[d] || v.known
			narrow[d] = narrow[d] && v.whole < 1<<32
		}
	}
	var list []row
	var last row
	wraps := 0
	for _, r := range rows {
		if has[in] && !r.value[in].known || has[out] && !r.value[out].known {
			continue
		}
		x := row{line: r.line, at: r.at, period: r.at - last.at}
		for d := range r.value {
			if has[d] {
				n, wrapped := f.count(last.value[d].whole, r.value[d].whole, narrow[d], x.period)
				x.value[d] = number{whole: n, known: true}
				switch {
				case last.line == 0:
				case wrapped:
					wraps++
					f.note(r.line, "wrap", "the counter of %s wrapped", directions[d])
				case r.value[d].whole < last.value[d].whole:
					f.note(r.line, "reset", "the counter of %s began anew: the bytes since then count, and those before are not known", directions[d])
				}
			}
		}
		if last.line != 0 {
			list = append(list, x)
		}
		last = r
	}
	if len(list) == 0 {
		return nil, errors.New("a single count shows no bytes")
	}
	if len(list) > 10 && wraps > len(list) {
		return nil, cli.Hint(fmt.Errorf("counters of 32 bits wrap in most samples, and may wrap twice in one"), "count with 64 bits: ifHCInOctets, ifHCOutOctets")
	}
	return list, nil
}

// count returns the bytes from one count to the next, and whether the counter wrapped: it
// had 32 or 64 bits, was in their upper half, and the bytes are no more than the port
// carries, or a quarter of the bits if its speed is not known. If not, it began anew.
func (f *file) count(from, to uint64, narrow bool, period int64) (n uint64, wrapped bool) {
	if to >= from {
		return to - from, false
	}
	if f.format.name == "prometheus" { // these never wrap
		return to, false
	}
	width := uint64(0) // 2^64
	if narrow {
		width = 1 << 32
	}
	n, half := to-from+width, (width-1)/2
	limit := half / 2
	if f.Speed > 0 {
		limit = uint64(float64(f.Speed) / 8 * time.Duration(period).Seconds() * 1.1)
	}
	if from > half && n <= limit {
		return n, true
	}
	return to, false
}

// oneKnown returns the rows of which something is known. Where one direction is not, it
// counts as nothing.
func (f *file) oneKnown(rows []row) []row {
	var has [2]bool
	for _, r := range rows {
		has[in], has[out] = has[in] || r.value[in].known, has[out] || r.value[out].known
	}
	kept := rows[:0]
	for _, r := range rows {
		if !r.value[in].known && !r.value[out].known {
			continue
		}
		for d, v := range r.value {
			if has[d] && !v.known {
				f.note(r.line, "nan", "%s is not known: it counts as nothing", directions[d])
			}
		}
		kept = append(kept, r)
	}
	return kept
}

// steps are the intervals of pollers, in seconds.
var steps = []int64{1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 240, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400}

// round returns the step of pollers that is within a tenth, or the interval itself.
func round(apart int64) int64 {
	for _, s := range steps {
		if s *= int64(time.Second); max(apart-s, s-apart) <= s/10 {
			return s
		}
	}
	return apart
}

// step returns how far rows are apart: the most frequent of their periods or differences,
// the least of several, as pollers that jitter would have it.
func (f *file) step(rows []row) (int64, error) {
	var apart []int64
	for i, r := range rows {
		switch {
		case r.period > 0:
			apart = append(apart, round(r.period))
		case i > 0:
			apart = append(apart, round(r.at-rows[i-1].at))
		}
	}
	if len(apart) == 0 && f.Interval > 0 {
		return int64(f.Interval), nil
	}
	if len(apart) == 0 {
		return 0, cli.Hint(errors.New("a single sample does not show how far samples are apart"), "give -interval")
	}
	step, n := most(apart)
	if f.Interval > 0 {
		return min(step, int64(f.Interval)), nil
	}
	others := slices.DeleteFunc(apart, func(x int64) bool { return x <= 3*step || x > 24*int64(time.Hour) })
	if len(others) > 0 {
		if other, m := most(others); 2*m >= n && (m > 1 || other > 10*step) {
			return 0, f.at(rows[1].line, cli.Hint(fmt.Errorf("samples are %v apart or %v", cli.Duration(step), cli.Duration(other)), "give -interval"))
		}
	}
	return step, nil
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
// or not at all if most are near.
func phase(rows []row, slot int64) int64 {
	phases, near := make([]int64, len(rows)), 0
	for i, r := range rows {
		phases[i] = r.at - floorDiv(r.at, slot)*slot
		if phases[i] <= slot/10 || phases[i] >= slot-slot/10 {
			near++
		}
	}
	best, times := most(phases)
	if 2*times < len(rows) && 2*near > len(rows) {
		return 0
	}
	return best
}

// floorDiv is a/b, rounded down.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// fit puts rows on a grid of slots. A row counts in the slot that has its middle, which for
// a row as long as a slot is the one that begins nearest; one that covers several is spread
// over them.
func (f *file) fit(rows []row, slot, step int64) ([]bill.Sample, error) {
	p := phase(rows, slot)
	list := make([]bill.Sample, 0, len(rows))
	sum, last := int64(0), int64(0)
	for _, r := range rows {
		n := max((r.period+slot/2)/slot, 1)
		if n > 1 {
			f.note(r.line, "spread", "covers %v: spread over %d samples", cli.Duration(r.period), n)
		}
		if int64(len(list))+n > maxRows {
			return nil, fmt.Errorf("more than %d samples", maxRows)
		}
		first := floorDiv(r.at-p+min(cmp.Or(r.period, step), slot)/2, slot)
		bytes := [2]int64{r.value[in].round(), r.value[out].round()}
		if sum += bytes[in] + bytes[out]; sum < 0 || sum > 1<<62 {
			return nil, f.at(r.line, errLarge)
		}
		for k := range n {
			part := func(all int64) int64 { return all/n + min(max(all%n-k, 0), 1) }
			list = append(list, bill.Sample{At: (first+k)*slot + p, In: part(bytes[in]), Out: part(bytes[out]), Line: r.line})
		}
		last = r.period
	}
	slices.SortStableFunc(list, func(a, b bill.Sample) int { return cmp.Compare(a.At, b.At) })
	kept := list[:0]
	for _, x := range list {
		n := len(kept) - 1
		if n < 0 || kept[n].At != x.At {
			kept = append(kept, x)
			continue
		}
		if last == 0 { // no row has a period
			f.note(x.Line, "added", "in the same sample as %s %d: the bytes of both are added", f.format.unit, kept[n].Line)
		}
		kept[n].In, kept[n].Out = kept[n].In+x.In, kept[n].Out+x.Out
	}
	return kept, nil
}

// plausible checks samples against the speed of the port, or against each other.
func (f *file) plausible(list []bill.Sample, slot int64) error {
	for d, name := range directions[:total] {
		bytes := func(x bill.Sample) int64 {
			if d == in {
				return x.In
			}
			return x.Out
		}
		var values []int64
		for _, x := range list {
			if n := bytes(x); n > 0 {
				values = append(values, n)
			}
		}
		slices.Sort(values)
		for _, x := range list {
			n := float64(bytes(x))
			rate := n * 8 / time.Duration(slot).Seconds()
			switch {
			case f.Speed > 0 && rate > 1.1*float64(f.Speed):
				return f.at(x.Line, cli.Hint(fmt.Errorf("%s is %s, more than the port carries", name, cli.Human(rate, "bit/s")),
					"correct or remove the sample, or give the speed of the port with -speed"))
			case f.Speed == 0 && len(values) >= 10 && n > 1000*float64(values[len(values)/2]):
				f.note(x.Line, "high", "%s is %s, over a thousand times the median: if that cannot be, give the speed of the port with -speed",
					name, cli.Human(rate, "bit/s"))
			}
		}
	}
	return nil
}
