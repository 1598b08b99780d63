// Package bill computes the bill for traffic that a provider meters in samples: a percentile of the samples,
// or the bytes of a month.
//
// It uses no clock, and reads no files: package samples does. Bytes are integers throughout, and ranks are
// computed without floating point, which makes some ranks of other programs wrong by one; only displayed
// rates are divided.
//
// # The percentile
//
// Of n samples, a provider discards the highest and bills the next. Programs differ in how many they discard:
//
//   - [Floor] discards ⌊n·(100-P)/100⌋: never more than the agreed share. Contracts say this, and the gate
//     relies on it.
//   - [Nearest] bills the sample of rank n·P/100, counted from the lowest and rounded half up. This is
//     round(n / 100 * 95) - 1 of get95thIn and its neighbours in LibreNMS (LibreNMS/Billing.php) up to 2025,
//     except for halves lost in its floating point; and lrint(n * (float)0.95) - 1 of getpercentiledata in
//     vnStat (src/percentile.c), which rounds half to even: where n is 30, 70, 110 and so on, vnStat bills
//     the sample below. No month of five-minute samples has a half.
//
// Since its pull request 18481 of November 2025, LibreNMS bills SUM(delta)/SUM(period) of each five minutes
// on the clock, so that several ports, or several polls of that time, are one sample at their mean rate.
// Later versions take index round(n / 100 * 95) - 2: the sample below that of Nearest.
//
// Cacti (cacti_stats_calc in lib/graph_variables.php) discards ⌈n·5%⌉: the same as Floor if that share is a
// whole number of samples, else one more, which no contract allows. For percentiles other than 95, 90, 75, 50
// and 25, Cacti computes the share in floating point and may round up wrongly: 1 - 98/100 of 100 samples is
// 2.0000000000000018, so it discards 3.
//
// # Both directions
//
// LibreNMS bills the larger of both percentiles ([Separate]) or, for bills of type agg, the percentile of the
// sums ([Sum]). vnStat shows both directions and the sum. Cacti has all of these, and the larger direction of
// each sample ([Max]), which it calls nth_percentile_maximum.
//
// # Missing samples
//
// Between the first and the last known sample, a missing one counts as 0 ([Zero]) or does not count ([Skip]):
// the three programs above can only bill samples they have recorded. Samples before the first and after the
// last known one never count.
package bill

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
)

// Method is how the two directions become one bill.
type Method uint8

const (
	Separate Method = iota // each direction's percentile; the larger is billed
	Max                    // the larger direction of each sample
	Sum                    // both directions of each sample
	In
	Out
)

// Rank selects the sample that is billed.
type Rank uint8

const (
	Floor Rank = iota
	Nearest
)

// Missing is how a missing sample counts.
type Missing uint8

const (
	Zero Missing = iota
	Skip
)

// The names of these.
var (
	Methods  = []string{"separate", "max", "sum", "in", "out"}
	Ranks    = []string{"floor", "nearest"}
	Missings = []string{"zero", "skip"}
)

func (m Method) String() string { return Methods[m] }

// index returns the index of the billed one of n ascending values. n must be positive.
func (r Rank) index(p budget.Percentile, n int) int {
	if r == Floor {
		return n - 1 - p.Free(n)
	}
	rank := mulDiv(int64(n), int64(p), int64(budget.Hundred/2), int64(budget.Hundred))
	return max(int(rank), 1) - 1
}

// Terms are the terms of the contract.
type Terms struct {
	Method     Method
	Percentile budget.Percentile
	Rank       Rank
	Missing    Missing
	Window     time.Duration // length of the provider's sample; a multiple of a slot
	// Commit is the bytes of a window that are paid for in any case, 0 if there is no
	// commit. Windows over it use up free windows.
	Commit int64
	// Cap is the bytes of a cycle that may be transferred, 0 if there is no cap.
	Cap int64
	// Held is set if gates keep outbound traffic to the commit, or to the level that is billed
	// anyway; with Max and Sum, both directions.
	Held   bool
	Slots  int // of a window of these gates; 60 if 0
	Prices Prices

	Poller  budget.Poller // the provider's
	Reserve int64         // free windows of the gates that are never used
}

// Bytes returns the bytes of a window at a rate in bits per second, rounded down. A
// whole number of bytes exceeds the result if and only if it exceeds the rate.
func Bytes(rate int64, window time.Duration) (int64, error) {
	if n := mulDiv(rate, int64(window), 0, 8*int64(time.Second)); n <= maxBytes {
		return n, nil
	}
	return 0, fmt.Errorf("more than %d bytes in a window of %v", int64(maxBytes), cli.Duration(window))
}

// Value returns the value of a window with these bytes, for methods with one value a
// window. For Separate it returns the larger direction, as for Max.
func (m Method) Value(in, out int64) int64 {
	return [...]int64{Separate: max(in, out), Max: max(in, out), Sum: in + out, In: in, Out: out}[m]
}

// Bill is the bill of one cycle, for the part that is known. Rates are in bytes a
// window; see BPS.
type Bill struct {
	Terms
	// Source says whose traffic it is, and which file has it, for titles.
	Source string
	Cycle  calendar.Cycle
	Zone   *time.Location

	// From and To bound the known part of the cycle, in nanoseconds since the Unix epoch.
	From, To int64
	// Windows are the complete windows of the cycle's first phase.
	Windows []Window
	// Samples is the number of them that count, Absent of the missing ones.
	Samples, Absent int
	Billed, In, Out int64 // bytes a window: the billed value, and each direction's percentile
	// InBytes and OutBytes are all bytes of the known part.
	InBytes, OutBytes int64

	// Total is the number of samples at the end of the cycle.
	Total int
	// FreeTotal of them are free; FreeUsed are over Line so far. For Separate, FreeUsed
	// is that of the direction that used more. Gates count in their own way: see Free.
	FreeTotal, FreeUsed int

	// Phases is the number of distinct phases of the provider's poller: one
	// for each slot of a window. The worst phase bills WorstBilled, and its
	// windows begin WorstOffset after those of the first; WorstUsed is the
	// maximum of free windows used in any phase.
	Phases      int
	WorstBilled int64
	WorstOffset time.Duration
	WorstUsed   int

	// Least is billed if nothing more comes in this cycle.
	Least    int64
	Forecast Forecast
	Transfer Transfer

	// Simulated is set if the bill is of a simulation.
	Simulated bool

	offered, passed *Series // slots of the cycle, and others around it
}

// Window is a sample of the provider.
type Window struct {
	At      int64 // start, nanoseconds since the Unix epoch
	In, Out int64 // bytes
	Known   bool
}

// BPS converts bytes a window to bits per second.
func (b *Bill) BPS(bytes int64) float64 {
	return float64(bytes) * 8 / b.Window.Seconds()
}

// Counted returns the method that gives one value a window: the bill's own, or for
// Separate the direction that is billed.
func (b *Bill) Counted() Method {
	switch {
	case b.Method != Separate:
		return b.Method
	case b.In > b.Out:
		return In
	}
	return Out
}

// Line returns the limit of windows that are not free: the commit, or without one the
// billed value.
func (b *Bill) Line() int64 {
	return cmp.Or(b.Commit, b.Billed)
}

// Closed reports whether the cycle is known to its end.
func (b *Bill) Closed() bool { return b.To >= b.Cycle.End }

// parts returns the methods with a percentile of their own, of which the largest is billed.
func (m Method) parts() []Method {
	if m == Separate {
		return []Method{In, Out}
	}
	return []Method{m}
}

// values returns a method's values of the windows that count, in ascending order.
func (c *Terms) values(m Method, windows []Window) []int64 {
	values := make([]int64, 0, len(windows))
	for _, w := range windows {
		if w.Known || c.Missing == Zero {
			values = append(values, m.Value(w.In, w.Out))
		}
	}
	slices.Sort(values)
	return values
}

// percentile returns the percentile of a method's values, 0 if no window counts.
func (c *Terms) percentile(m Method, windows []Window) int64 {
	values := c.values(m, windows)
	if len(values) == 0 {
		return 0
	}
	return values[c.Rank.index(c.Percentile, len(values))]
}

// billed returns the bytes that are billed for windows.
func (c *Terms) billed(windows []Window) (most int64) {
	for _, m := range c.Method.parts() {
		most = max(most, c.percentile(m, windows))
	}
	return most
}

// over returns how many windows are over a line.
func (c *Terms) over(windows []Window, line int64) (most int) {
	for _, m := range c.Method.parts() {
		n := 0
		for _, w := range windows {
			if m.Value(w.In, w.Out) > line {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// history is the time before a cycle that the forecast uses: for its errors, forecasts of
// spans of a month that ended up to four weeks ago, each with a week of its own before it.
const history = (31 + 28 + 8) * 24 * time.Hour

// unfit is the hint for windows that are not a multiple of the samples.
const unfit = "give the length of the provider's samples with -window, and that of the input's with -interval"

// New computes the bill of a cycle. Samples up to a window past the cycle's end count for
// pollers whose last window begins just before it, and two months before its start for the
// forecast; both may be missing.
func New(s *Samples, cycle calendar.Cycle, zone *time.Location, c Terms) (*Bill, error) {
	window, slot, length := cli.Duration(c.Window), cli.Duration(s.Slot), cycle.End-cycle.Start
	switch {
	case s.Count(cycle) == 0:
		return nil, fmt.Errorf("there is no data for the cycle %s", cycle.Name)
	case window < slot:
		return nil, cli.Hint(fmt.Errorf("samples of %v are too coarse for windows of %v", slot, window), unfit)
	case window%slot != 0:
		return nil, cli.Hint(fmt.Errorf("windows of %v are not a multiple of samples of %v", window, slot), unfit)
	case length < int64(window):
		return nil, fmt.Errorf("the cycle %s is shorter than a window of %v", cycle.Name, window)
	case length/int64(slot) > calendar.MaxSlots:
		return nil, fmt.Errorf("samples every %v are more than %d a cycle: too many", slot, calendar.MaxSlots)
	}
	end := cycle.End + int64(c.Window)
	before := min(int64(history/s.Slot), max(calendar.MaxSlots-ceilDiv(end-cycle.Start, int64(s.Slot)), 0))
	series, err := s.series(cycle.Start-before*int64(s.Slot), end)
	if err != nil {
		return nil, err
	}
	var counted *Free
	if c.Held && c.Commit > 0 && c.Window == time.Duration(cmp.Or(c.Slots, budget.Slots))*s.Slot {
		if counted, err = s.free(cycle, c); err != nil {
			return nil, err
		}
	}
	b := newBill(series, cycle, zone, c, counted)
	b.Source = s.Source
	return b, nil
}

// newBill computes the bill of a cycle in which a slot of a series begins. Free windows are those that
// gates counted, if they did.
func newBill(s *Series, cycle calendar.Cycle, zone *time.Location, c Terms, counted *Free) *Bill {
	b := &Bill{Terms: c, Cycle: cycle, Zone: zone, offered: s, passed: s}
	v := newView(b, s)
	b.From, b.To = s.at(v.from), s.at(v.to)
	b.InBytes, b.OutBytes = v.bytes(v.from, v.to)
	b.Windows = v.windows(0)
	b.Billed, b.In, b.Out = b.billed(b.Windows), b.percentile(In, b.Windows), b.percentile(Out, b.Windows)
	b.Samples = len(b.values(b.Method, b.Windows))
	for _, w := range b.Windows {
		if !w.Known {
			b.Absent++
		}
	}
	b.Total = b.Samples + v.end - v.now
	b.FreeTotal, b.FreeUsed = b.Percentile.Free(b.Total), b.over(b.Windows, b.Line())
	if counted != nil {
		b.FreeTotal, b.FreeUsed = counted.Total, counted.Used
	}
	b.Phases = min(v.per, v.slots)
	for phase := range b.Phases {
		windows := v.windows(phase)
		b.WorstUsed = max(b.WorstUsed, b.over(windows, b.Line()))
		if billed := b.billed(windows); billed > b.WorstBilled {
			b.WorstBilled, b.WorstOffset = billed, time.Duration(phase)*v.Slot
		}
	}
	v.forecast()
	if c.Cap > 0 {
		v.transfer()
	}
	return b
}
