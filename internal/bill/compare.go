package bill

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"framepipe/internal/cli"
)

// Comparison is a provider's samples laid over a ledger of the same time.
type Comparison struct {
	Window  time.Duration // of the samples
	Samples int           // of the time that the ledger has
	// Phase is when the samples begin, after the multiples of Window since the Unix epoch, so that they
	// match the ledger best. Sure is not set if others match as well.
	Phase time.Duration
	Sure  bool
	// Median and Largest are the differences, as shares of the larger of sample and ledger.
	Median, Largest float64
	Differ          []Difference // more than tolerated

	jitter   time.Duration
	zone     *time.Location
	counters []*counter
}

// Difference is a sample of a direction that is not what the ledger has.
type Difference struct {
	At             int64 // when the sample begins by its stamp, nanoseconds since the Unix epoch
	Direction      Method
	Sample, Ledger int64 // bytes
}

// tolerated is the share by which a sample may differ.
const tolerated = 0.02

// counter is a direction's bytes up to a time that is in the ledger. They are spread evenly over a slot.
type counter struct {
	*Series
	direction Method
	sums      []int64
}

func newCounter(s *Series, direction Method) *counter {
	return &counter{s, direction, sums(s.direction(direction))}
}

func (c *counter) upTo(at int64) float64 {
	i, rest := (at-c.Start)/int64(c.Slot), float64((at-c.Start)%int64(c.Slot))/float64(c.Slot)
	return float64(c.sums[i]) + rest*float64(c.sums[i+1]-c.sums[i])
}

// between returns the bytes between two times.
func (c *counter) between(from, to int64) float64 { return c.upTo(to) - c.upTo(from) }

// of returns the bytes of a sample.
func (c *counter) of(x Sample) int64 { return c.direction.Value(x.In, x.Out) }

// Compare finds the phase of a provider's samples by the ledger of gates, and the samples that differ
// whatever polls within the jitter.
func Compare(s, ledger *Samples, jitter time.Duration, zone *time.Location) (*Comparison, error) {
	// Stamps are up to a sample early or late, and polls a jitter more.
	n := int64(s.Slot)
	series, err := ledger.series(s.list[0].At-3*n, s.list[len(s.list)-1].At+4*n)
	if err != nil {
		return nil, err
	}
	from, to := s.index(series.Start+2*n), s.index(series.at(len(series.In))-3*n)
	if from >= to {
		return nil, errors.New("the ledger and the samples have no time in common")
	}
	c, list := &Comparison{Window: s.Slot, Samples: to - from, jitter: jitter, zone: zone}, s.list[from:to]
	for _, direction := range []Method{In, Out} {
		count := newCounter(series, direction)
		// Often a file or a ledger has one direction.
		if count.sums[len(series.In)] > 0 && slices.ContainsFunc(list, func(x Sample) bool { return count.of(x) > 0 }) {
			c.counters = append(c.counters, count)
		}
	}
	off := func(by int64) (sum float64) {
		for _, x := range list {
			for _, count := range c.counters {
				sum += math.Abs(count.between(x.At+by, x.At+by+n) - float64(count.of(x)))
			}
		}
		return sum
	}
	best, step := int64(0), max(int64(series.Slot), n/60)
	least, all := math.Inf(1), []float64(nil)
	for by := -n; by < n; by += step {
		sum := off(by)
		if all = append(all, sum); sum < least {
			best, least = by, sum
		}
	}
	for by, last := best-step, best+step; by < last; by += max(step/5, 1) {
		if sum := off(by); sum < least {
			best, least = by, sum
		}
	}
	slices.Sort(all)
	c.Sure = all[len(all)/2] > 1.2*least
	c.Phase = time.Duration(((list[0].At+best)%n + n) % n)
	c.differences(list, best)
	return c, nil
}

// differences compares samples that begin later than their stamps.
func (c *Comparison) differences(list []Sample, later int64) {
	n, jitter := int64(c.Window), int64(c.jitter)
	var shares []float64
	for _, x := range list {
		for _, count := range c.counters {
			at, bytes := x.At+later, float64(count.of(x))
			have := count.between(at, at+n)
			least, most := count.between(at+jitter, at+n-jitter), count.between(at-jitter, at+n+jitter)
			if have > 0 || bytes > 0 {
				shares = append(shares, math.Abs(bytes-have)/max(bytes, have))
			}
			if bytes < least*(1-tolerated) || bytes > most*(1+tolerated) {
				c.Differ = append(c.Differ, Difference{x.At, count.direction, count.of(x), int64(have)})
			}
		}
	}
	if slices.Sort(shares); len(shares) > 0 {
		c.Median, c.Largest = shares[len(shares)/2], shares[len(shares)-1]
	}
}

// Text writes the comparison for people, with the first differences.
func (c *Comparison) Text(w io.Writer, s Style) error {
	const most = 20
	p := newPage(s)
	p.line("samples", "%d of %v", c.Samples, cli.Duration(c.Window))
	if c.Sure {
		p.line("phase", "%s  for quotagate: -phase %v", p.bold(c.Phase.String()), cli.Duration(c.Phase))
	} else {
		p.line("phase", "cannot be told: others match as well as %v", cli.Duration(c.Phase))
	}
	p.line("difference", "%.2f%% in the median, %.2f%% at most", 100*c.Median, 100*c.Largest)
	p.line("differ", "%d by more than %v%%, with polls up to %v early or late", len(c.Differ), 100*tolerated, cli.Duration(c.jitter))
	for _, x := range c.Differ[:min(len(c.Differ), most)] {
		fmt.Fprintf(p, "sample %s %s: %s, the ledger has %s\n", time.Unix(0, x.At).In(c.zone).Format(time.DateTime), x.Direction, amount(x.Sample), amount(x.Ledger))
	}
	if more := len(c.Differ) - most; more > 0 {
		fmt.Fprintf(p, "and %d more\n", more)
	}
	return p.writeTo(w)
}

// JSON returns the comparison for programs.
func (c *Comparison) JSON() []map[string]any {
	differ := []map[string]any{}
	for _, x := range c.Differ {
		differ = append(differ, map[string]any{
			"time": time.Unix(0, x.At).In(c.zone), "direction": x.Direction.String(),
			"sample_bytes": x.Sample, "ledger_bytes": x.Ledger,
		})
	}
	return []map[string]any{{
		"samples": c.Samples, "window_s": c.Window.Seconds(), "phase_s": given(c.Sure, c.Phase.Seconds()),
		"median_difference": c.Median, "largest_difference": c.Largest, "differ": differ,
	}}
}
