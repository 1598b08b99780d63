// Package bill works out what a provider bills for traffic that is metered in
// samples: a percentile of them, or what went through in a month.
//
// It is arithmetic: it knows no clock, and of files only what a reader gives.
// Bytes are whole numbers throughout and ranks are found without floating point,
// which in other programs puts some of them off by one; only what is shown as a
// rate is divided.
//
// # The percentile
//
// Of n samples a provider throws away the highest and bills the next. Which one
// that is differs:
//
//   - [Floor] throws away ⌊n·(100-P)/100⌋: never more than the share that was
//     agreed on. Contracts are written so, and the gate reckons with it.
//   - [Nearest] bills the sample of rank n·P/100, rounded, a half up, from below.
//     This is round(n / 100 * 95) - 1 of get95thIn and its neighbours in
//     LibreNMS (LibreNMS/Billing.php), but for the halves that its floating point may
//     lose; and lrint(n * (float)0.95) - 1 of
//     getpercentiledata in vnStat (src/percentile.c), which rounds a half to the even
//     rank: where n is 30, 70, 110 and so on it bills the sample below. No month of
//     five-minute samples has a half.
//
// Cacti (cacti_stats_calc in lib/graph_variables.php) throws away ⌈n·5%⌉: the
// same as Floor where that share is a whole number of samples, and one more,
// which no contract allows, where it is not. For other percentiles than 95, 90, 75,
// 50 and 25 it finds the share in floating point, and one more may be one too
// many: 1 - 98/100 of 100 samples is 2.0000000000000018 of them, and so 3.
//
// # Both directions
//
// LibreNMS bills the larger of both percentiles ([Separate]) or, for its bills of
// type agg, that of their sums ([Sum]). vnStat shows both directions and the sum.
// Cacti has all of these, and the larger direction of each sample ([Max]), which it
// calls nth_percentile_maximum.
//
// # Missing samples
//
// Between the first and the last sample that is known, one that is missing counts
// as nothing ([Zero]), or does not count ([Skip]): the three programs above can
// only bill what they have recorded. Before the first and after the last nothing is
// known, and nothing is counted.
package bill

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"framepipe/internal/budget"
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

// Rank is which sample the percentile is.
type Rank uint8

const (
	Floor Rank = iota
	Nearest
)

// Missing is what a sample counts that is not there.
type Missing uint8

const (
	Zero Missing = iota
	Skip
)

var (
	methods  = []string{"separate", "max", "sum", "in", "out"}
	ranks    = []string{"floor", "nearest"}
	missings = []string{"zero", "skip"}
)

func (m Method) String() string  { return methods[m] }
func (r Rank) String() string    { return ranks[r] }
func (m Missing) String() string { return missings[m] }

// Set is flag.Value's.
func (m *Method) Set(s string) error { return cli.Choose(m, methods, s) }

// Set is flag.Value's.
func (r *Rank) Set(s string) error { return cli.Choose(r, ranks, s) }

// Set is flag.Value's.
func (m *Missing) Set(s string) error { return cli.Choose(m, missings, s) }

// Percentile is a share of samples, in 10⁻⁹ percent, so that 99.9 is exact.
type Percentile int64

const hundred Percentile = 100e9

// Set is flag.Value's.
func (p *Percentile) Set(s string) error {
	whole, fraction, dot := strings.Cut(strings.TrimSuffix(s, "%"), ".")
	wrong := errors.New("want a percentile, such as 95 or 99.9, over 0 and up to 100")
	if len(fraction) > 9 || len(whole) > 3 || whole == "" || dot && fraction == "" {
		return wrong
	}
	n, err := strconv.ParseUint(whole+fraction+strings.Repeat("0", 9-len(fraction)), 10, 63)
	if err != nil || n == 0 || Percentile(n) > hundred {
		return wrong
	}
	*p = Percentile(n)
	return nil
}

func (p Percentile) String() string {
	s := fmt.Sprintf("%d.%09d", p/1e9, p%1e9)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// Float returns the percentile for being shown: 95.
func (p Percentile) Float() float64 { return float64(p) / 1e9 }

// Above is the share of samples that are above the percentile, and free.
func (p Percentile) Above() budget.Ratio {
	return budget.Ratio{Num: int64(hundred - p), Den: int64(hundred)}
}

// Free returns how many of n samples cost nothing, by the rule of Floor.
func (p Percentile) Free(n int) int {
	hi, lo := bits.Mul64(uint64(n), uint64(hundred-p))
	q, _ := bits.Div64(hi, lo, uint64(hundred))
	return int(q)
}

// Index returns which of n values in ascending order is billed. n is over 0.
func (p Percentile) Index(n int, r Rank) int {
	if r == Floor {
		return n - 1 - p.Free(n)
	}
	hi, lo := bits.Mul64(uint64(n), uint64(p))
	lo, carry := bits.Add64(lo, uint64(hundred/2), 0)
	rank, _ := bits.Div64(hi+carry, lo, uint64(hundred))
	return max(int(rank), 1) - 1
}

// of returns the value that is billed. It sorts the values; of none it is 0.
func (p Percentile) of(values []int64, r Rank) int64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[p.Index(len(values), r)]
}

// Terms are those of the contract.
type Terms struct {
	Method     Method
	Percentile Percentile
	Rank       Rank
	Missing    Missing
	Window     time.Duration // what the provider calls a sample; a multiple of a slot
	// Commit is the bytes of a window that are paid for anyway, 0 if none are.
	// Windows over it use up the free ones.
	Commit int64
	// Cap is the bytes of a cycle that may be transferred, 0 if there is no cap.
	Cap int64
}

// Bytes returns how many whole bytes a rate in bits per second is in a window. What
// is over the one is over the other.
func Bytes(rate int64, window time.Duration) (int64, error) {
	hi, lo := bits.Mul64(uint64(rate), uint64(window))
	const perByte = 8 * uint64(time.Second)
	if hi >= perByte {
		return 0, errors.New("that is too much")
	}
	n, _ := bits.Div64(hi, lo, perByte)
	if n > 1<<62 {
		return 0, errors.New("that is too much")
	}
	return int64(n), nil
}

// Value is what a window counts with these bytes, for the methods that have one value a
// window. For Separate it is the larger, as it is for Max; only their percentiles
// differ.
func (m Method) Value(in, out int64) int64 {
	switch m {
	case Sum:
		return in + out
	case In:
		return in
	case Out:
		return out
	}
	return max(in, out)
}

// Bill is what one cycle costs, as far as it is known. Rates are in bytes a window; see
// BPS.
type Bill struct {
	Terms
	Cycle Cycle
	Zone  *time.Location
	Slot  time.Duration

	// From and To are what is known of the cycle, nanoseconds since the Unix epoch.
	From, To int64
	// Windows are those that were complete by then, the cycle's first phase.
	Windows []Window
	// Samples are those of them that count.
	Samples, Absent int
	Billed, In, Out int64 // of a window: what is billed, and each direction's percentile
	// InBytes and OutBytes are all that went through.
	InBytes, OutBytes int64

	// Total is how many samples there will be at the end of the cycle.
	Total int
	// FreeTotal of them cost nothing; FreeUsed were over the line so far: over
	// the commit, or over what is billed if there is none. By Separate it is that
	// of the direction that used more.
	FreeTotal, FreeUsed int

	// Phases is how many phases the provider's poller may have that can be told
	// apart: one for each slot of a window. The worst one bills WorstBilled, and
	// begins its windows WorstOffset after the cycle; WorstUsed is the most free
	// windows that any of them used.
	Phases      int
	WorstBilled int64
	WorstOffset time.Duration
	WorstUsed   int

	Forecast Forecast
	Transfer Transfer

	// Simulated says that it is of what would have passed, and nobody's bill.
	Simulated bool
}

// Window is a sample as the provider takes it.
type Window struct {
	At      int64 // when it begins, nanoseconds since the Unix epoch
	In, Out int64 // bytes
	Known   bool
}

// BPS returns a number of bytes a window as bits per second.
func (b *Bill) BPS(bytes int64) float64 {
	return float64(bytes) * 8 / b.Window.Seconds()
}

// Counted is what one value a window is taken of: the method, or by Separate the
// direction that is billed.
func (b *Bill) Counted() Method {
	switch {
	case b.Method != Separate:
		return b.Method
	case b.In > b.Out:
		return In
	}
	return Out
}

// Line is what windows are compared with: the commit, or what is billed.
func (b *Bill) Line() int64 {
	if b.Commit > 0 {
		return b.Commit
	}
	return b.Billed
}

// Closed reports whether all of the cycle is known.
func (b *Bill) Closed() bool { return b.To >= b.Cycle.End }

// WindowError is the error for windows that samples cannot be made into.
type WindowError struct{ Slot, Window time.Duration }

func (e *WindowError) Error() string {
	if e.Window < e.Slot {
		return fmt.Sprintf("samples of %v are too coarse for windows of %v", cli.Duration(e.Slot), cli.Duration(e.Window))
	}
	return fmt.Sprintf("windows of %v are no whole number of samples of %v", cli.Duration(e.Window), cli.Duration(e.Slot))
}

// tally is what a set of windows comes to.
type tally struct {
	in, out, one []int64 // values of the windows that count
	absent       int
}

func (t *tally) add(m Method, w Window, rule Missing) {
	if !w.Known {
		t.absent++
		if rule == Skip {
			return
		}
	}
	t.in, t.out = append(t.in, w.In), append(t.out, w.Out)
	if m == Max || m == Sum {
		t.one = append(t.one, m.Value(w.In, w.Out))
	}
}

// billed sorts the values and returns the percentiles.
func (t *tally) billed(c *Terms) (billed, in, out int64) {
	in, out = c.Percentile.of(t.in, c.Rank), c.Percentile.of(t.out, c.Rank)
	switch c.Method {
	case Separate:
		billed = max(in, out)
	case In:
		billed = in
	case Out:
		billed = out
	default:
		billed = c.Percentile.of(t.one, c.Rank)
	}
	return billed, in, out
}

// over returns how many windows are over a line, once billed has sorted them.
func (t *tally) over(m Method, line int64) int {
	count := func(sorted []int64) int {
		i, _ := slices.BinarySearch(sorted, line+1)
		return len(sorted) - i
	}
	switch m {
	case Separate:
		return max(count(t.in), count(t.out))
	case In:
		return count(t.in)
	case Out:
		return count(t.out)
	}
	return count(t.one)
}

// frame is a series seen as windows of a cycle.
type frame struct {
	*sums
	per   int // slots in a window
	first int // the cycle's first slot in the series; may be before it
	slots int // of the cycle
}

// each calls do with the windows of a phase that are complete.
func (f *frame) each(phase int, do func(Window)) {
	i := f.first + phase
	if i < 0 {
		i += (-i + f.per - 1) / f.per * f.per
	}
	for ; i < f.first+f.slots && i+f.per <= f.n; i += f.per {
		do(f.window(i))
	}
}

// left returns when the windows of a phase begin that are yet to come.
func (f *frame) left(phase int) (first, n int) {
	i := f.first + phase
	if over := f.n - f.per - i; over >= 0 {
		i += (over/f.per + 1) * f.per
	}
	end := f.first + f.slots
	return i, max(0, (end-i+f.per-1)/f.per)
}

// New bills a cycle of a series. The series should reach a window past the
// cycle's end, for the pollers that begin their last one late, and some days
// back from its start for the forecast; both may be missing.
func New(s *Series, cycle Cycle, zone *time.Location, c Terms) (*Bill, error) {
	switch {
	case s.Slot <= 0 || len(s.In) != len(s.Out) || s.Known != nil && len(s.Known) != len(s.In):
		return nil, errors.New("a series that is none")
	case c.Percentile <= 0 || c.Percentile > hundred:
		return nil, errors.New("a percentile is over 0 and up to 100")
	case c.Window < s.Slot || c.Window%s.Slot != 0:
		return nil, &WindowError{s.Slot, c.Window}
	case cycle.End <= cycle.Start || cycle.End-cycle.Start < int64(c.Window):
		return nil, errors.New("a cycle shorter than a window")
	case (cycle.End-cycle.Start)/int64(s.Slot) > MaxSlots:
		return nil, fmt.Errorf("samples every %v are more than %d in a cycle", s.Slot, MaxSlots)
	}
	b := &Bill{Terms: c, Cycle: cycle, Zone: zone, Slot: s.Slot}
	f := &frame{sums: s.sums(), per: int(c.Window / s.Slot)}
	f.first = int(ceilDiv(cycle.Start-s.Start, int64(s.Slot)))
	f.slots = int(ceilDiv(cycle.End-s.Start, int64(s.Slot))) - f.first
	b.Phases = min(f.per, f.slots)

	from, to := min(max(f.first, 0), f.n), max(min(f.first+f.slots, f.n), 0)
	if to > from {
		b.From, b.To = s.at(from), s.at(to)
		b.InBytes, b.OutBytes = f.in[to]-f.in[from], f.out[to]-f.out[from]
	}

	for phase := range b.Phases {
		t := tally{in: make([]int64, 0, f.slots/f.per+1), out: make([]int64, 0, f.slots/f.per+1)}
		f.each(phase, func(w Window) {
			if phase == 0 {
				b.Windows = append(b.Windows, w)
			}
			t.add(c.Method, w, c.Missing)
		})
		billed, in, out := t.billed(&b.Terms)
		if phase == 0 {
			b.Billed, b.In, b.Out = billed, in, out
			b.Samples, b.Absent = len(t.in), t.absent
			b.FreeUsed = t.over(c.Method, b.Line())
			_, left := f.left(0)
			b.Total = b.Samples + left
			b.FreeTotal = c.Percentile.Free(b.Total)
		}
		if used := t.over(c.Method, b.Line()); used > b.WorstUsed {
			b.WorstUsed = used
		}
		if billed > b.WorstBilled {
			b.WorstBilled, b.WorstOffset = billed, time.Duration(phase)*s.Slot
		}
	}
	b.forecast(f)
	if c.Cap > 0 {
		b.transfer(f, from, to)
	}
	return b, nil
}

func ceilDiv(a, b int64) int64 {
	q := a / b
	if a%b > 0 {
		q++
	}
	return q
}
