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

// place turns the rows of a port into samples.
func (f *file) place(rows []row) (*bill.Samples, error) {
	if err := f.local(rows); err != nil {
		return nil, err
	}
	if byTime := func(a, b row) int { return cmp.Compare(a.at, b.at) }; !slices.IsSortedFunc(rows, byTime) {
		slices.SortStableFunc(rows, byTime)
	}
	rows, err := f.distinct(rows)
	if err == nil {
		err = f.notCounters(rows)
	}
	if err == nil && f.counters {
		rows, err = f.differences(rows)
	}
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, errNone
	}
	step, err := f.step(rows)
	if err != nil {
		return nil, err
	}
	slot := cmp.Or(int64(f.Interval), step)
	if slot > 24*int64(time.Hour) {
		return nil, fmt.Errorf("samples are %v apart: must be at most a day", time.Duration(slot))
	}
	if err := f.amounts(rows, step); err != nil {
		return nil, err
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

// distinct returns the rows, which are sorted, each time once. Rows of one time may have
// one direction each.
func (f *file) distinct(rows []row) ([]row, error) {
	kept := rows[:0]
	for _, r := range rows {
		n := len(kept) - 1
		if n < 0 || f.flows || kept[n].at != r.at {
			if n >= 0 && r.at-kept[n].at > maxGap {
				return nil, f.at(r.line, cli.Hint(fmt.Errorf("%.1f years after %s %d", float64(r.at-kept[n].at)/float64(maxGap),
					f.unit, kept[n].line), "correct the time, or bill the years one by one"))
			}
			kept = append(kept, r)
			continue
		}
		last := &kept[n]
		switch {
		case last.value == r.value && last.period == r.period:
			f.note(r.line, "same", "the same as %s %d: counted once", f.unit, last.line)
		case !last.value[in].known && !r.value[out].known:
			last.value[in] = r.value[in]
		case !last.value[out].known && !r.value[in].known:
			last.value[out] = r.value[out]
		default:
			hint := "if they are of several ports, give each port a file and -csv of its own, and -add"
			if f.format == "prometheus" {
				hint = "ask for one series a port and direction"
			}
			return nil, f.at(r.line, cli.Hint(fmt.Errorf("%s %d has different bytes for the same time", f.unit, last.line), "%s", hint))
		}
	}
	return kept, nil
}

// known returns the directions that any row knows.
func known(rows []row) (has [2]bool) {
	for i := range rows {
		for d, v := range rows[i].value {
			has[d] = has[d] || v.known
		}
	}
	return has
}

// notCounters returns an error if amounts rise as counters do: nearly always, and if there are
// few, by far less than they are.
func (f *file) notCounters(rows []row) error {
	if f.deltas || f.rate || f.counters {
		return nil
	}
	for d, name := range directions[:total] {
		rising := 0
		var values, steps []float64
		for i := 1; i < len(rows); i++ {
			before, v := rows[i-1].value[d], rows[i].value[d]
			if !before.known || !v.known {
				continue
			}
			apart := v.float() - before.float()
			if apart > 0 {
				rising++
			}
			values, steps = append(values, v.float()), append(steps, math.Abs(apart))
		}
		n := len(values)
		if n >= 2 && rising*20 >= n*19 && (n >= 50 || median(values) > 1000*median(steps)) {
			return f.at(rows[1].line, cli.Hint(fmt.Errorf("%s rises from sample to sample: these seem to be counters", name),
				"give -counters; if they are bytes of each sample, -format amount"))
		}
	}
	return nil
}

// median returns the median of values, and sorts them.
func median[T cmp.Ordered](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

// amounts turns the values of rows into bytes, and their times into beginnings.
func (f *file) amounts(rows []row, step int64) error {
	has, ends := known(rows), f.counters || f.ends(rows)
	for i := range rows {
		r := &rows[i]
		period := cmp.Or(r.period, step)
		if ends {
			r.at -= period
		}
		for d, name := range directions[:total] {
			v := &r.value[d]
			if has[d] && !v.known {
				f.note(r.line, "nan", "%s is not known: it counts as nothing", name)
			}
			if f.rate {
				*v = v.times(float64(period) / float64(time.Second))
			}
			if v.whole > math.MaxInt64/4 {
				return f.at(r.line, errLarge)
			}
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
	has, wide := known(rows), [2]bool{}
	for i := range rows {
		for d, v := range rows[i].value {
			wide[d] = wide[d] || v.whole >= 1<<32
		}
	}
	rows = slices.DeleteFunc(rows, func(r row) bool { return has != [2]bool{r.value[in].known, r.value[out].known} })
	wraps := 0
	var list []row
	for i := 1; i < len(rows); i++ {
		last, r := &rows[i-1], rows[i]
		r.period = r.at - last.at
		for d := range r.value {
			from, to := last.value[d].whole, r.value[d].whole
			n, wrapped := f.count(from, to, wide[d], r.period)
			r.value[d].whole, r.value[d].part = n, 0
			switch {
			case wrapped:
				wraps++
				f.note(r.line, "wrap", "the counter of %s wrapped", directions[d])
			case to < from:
				f.note(r.line, "reset", "the counter of %s began anew: the bytes since then count, and those before are not known", directions[d])
			}
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		return nil, errors.New("a single count shows no bytes")
	}
	if len(list) > 10 && wraps > len(list) {
		return nil, cli.Hint(errors.New("counters of 32 bits wrap in most samples, and may wrap twice in one"), "count with 64 bits: ifHCInOctets, ifHCOutOctets")
	}
	return list, nil
}

// count returns the bytes from one count to the next, and whether the counter wrapped: it
// had 32 or 64 bits, was in their upper half, and the bytes are no more than the port
// carries, or a quarter of the bits if its speed is not known. If not, it began anew.
func (f *file) count(from, to uint64, wide bool, period int64) (n uint64, wrapped bool) {
	if to >= from {
		return to - from, false
	}
	if f.format == "prometheus" { // these never wrap
		return to, false
	}
	width := uint64(0) // 2^64
	if !wide {
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
// over them. A flow is spread over its time.
func (f *file) fit(rows []row, slot, step int64) ([]bill.Sample, error) {
	list, p, sum, parts := make([]bill.Sample, 0, len(rows)), int64(0), int64(0), int64(0)
	if !f.flows {
		p = phase(rows, slot)
	}
	for _, r := range rows {
		start, end := r.at, r.at+r.period
		if !f.flows {
			n := max((r.period+slot/2)/slot, 1)
			start = floorDiv(r.at-p+min(cmp.Or(r.period, step), slot)/2, slot)*slot + p
			end = start + n*slot
			if n > 1 {
				f.note(r.line, "spread", "covers %v: spread over %d samples", cli.Duration(r.period), n)
			}
		}
		all := [2]int64{r.value[in].round(), r.value[out].round()}
		if sum += all[in] + all[out]; sum < 0 || sum > 1<<62 {
			return nil, f.at(r.line, errLarge)
		}
		first := floorDiv(start-p, slot)*slot + p
		if parts += (end - first) / slot; parts > 1<<28 {
			return nil, errMany
		}
		rest := all
		for at := first; at < end; at += slot {
			i, has := len(list), false
			if i > 0 && at <= list[i-1].At {
				i, has = slices.BinarySearchFunc(list, at, func(x bill.Sample, at int64) int { return cmp.Compare(x.At, at) })
			}
			switch {
			case !has && len(list) == maxRows:
				return nil, errMany
			case !has:
				list = slices.Insert(list, i, bill.Sample{At: at, Line: r.line})
			case r.period == 0:
				f.note(r.line, "added", "in the same sample as %s %d: the bytes of both are added", f.unit, list[i].Line)
			}
			later := max(end-at-slot, 0)
			left := [2]int64{share(all[in], later, end-start), share(all[out], later, end-start)}
			list[i].In += rest[in] - left[in]
			list[i].Out += rest[out] - left[out]
			rest = left
		}
	}
	return list, nil
}

// share is n*part/whole, rounded down; part is at most whole.
func share(n, part, whole int64) int64 {
	high, low := bits.Mul64(uint64(n), uint64(part))
	q, _ := bits.Div64(high, low, uint64(whole))
	return int64(q)
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
