package bill

import (
	"fmt"
	"time"

	"framepipe/internal/calendar"
)

// Series is traffic in consecutive slots of equal length, from a ledger or from
// samples.
type Series struct {
	Start   int64         // when the first slot begins, nanoseconds since the Unix epoch
	Slot    time.Duration // length of a slot
	In, Out []int64       // bytes of each slot
	Known   []bool        // the slots that were measured; nil if all were
}

// Source provides Series.
type Source interface {
	// Spans returns the known spans of time, in order; at least one.
	Spans() []Span
	// Series returns the existing slots that begin in a span.
	Series(from, to int64) (*Series, error)
}

// Span is a span of time, from the start of its first slot to the end of its last,
// in nanoseconds since the Unix epoch.
type Span struct{ Start, End int64 }

// Spans implements Source.
func (s *Series) Spans() []Span { return []Span{{s.Start, s.at(len(s.In))}} }

// Series implements Source.
func (s *Series) Series(from, to int64) (*Series, error) {
	i := min(max(ceilDiv(from-s.Start, int64(s.Slot)), 0), int64(len(s.In)))
	j := min(max(ceilDiv(to-s.Start, int64(s.Slot)), i), int64(len(s.In)))
	part := &Series{Start: s.at(int(i)), Slot: s.Slot, In: s.In[i:j], Out: s.Out[i:j]}
	if s.Known != nil {
		part.Known = s.Known[i:j]
	}
	return part, nil
}

func (s *Series) at(i int) int64 { return s.Start + int64(i)*int64(s.Slot) }

// sums are the sums of all slots before each slot, so that a window is a difference.
type sums struct {
	*Series
	n       int
	in, out []int64
	known   []int32
}

func (s *Series) sums() *sums {
	n := len(s.In)
	x := &sums{Series: s, n: n, in: make([]int64, n+1), out: make([]int64, n+1)}
	for i := range n {
		x.in[i+1] = x.in[i] + s.In[i]
		x.out[i+1] = x.out[i] + s.Out[i]
	}
	if s.Known != nil {
		x.known = make([]int32, n+1)
		for i, k := range s.Known {
			x.known[i+1] = x.known[i]
			if k {
				x.known[i+1]++
			}
		}
	}
	return x
}

// window returns the window that begins with slot i, which is known if any of its
// slots is.
func (f *cycleView) window(i int) Window {
	j := i + f.per
	return Window{At: f.at(i), In: f.in[j] - f.in[i], Out: f.out[j] - f.out[i], Known: f.known == nil || f.known[j] > f.known[i]}
}

// history is the time before a cycle that the forecast uses: a week, and a day for
// changes of the clocks.
const history = 8 * 24 * time.Hour

// Of computes the bill of a cycle from a source.
func Of(s Source, cycle calendar.Cycle, zone *time.Location, c Terms) (*Bill, error) {
	series, err := s.Series(cycle.Start-int64(history), cycle.End+int64(c.Window))
	if err != nil {
		return nil, err
	}
	b, err := New(series, cycle, zone, c)
	if err == nil && b.To == b.From {
		err = fmt.Errorf("there is no data for the cycle %s", cycle.Name)
	}
	return b, err
}

// Cycles returns the cycles of which a source has data.
func Cycles(s Source, c calendar.Calendar) (all []calendar.Cycle) {
	for _, span := range s.Spans() {
		at := span.Start
		if n := len(all); n > 0 {
			at = max(at, all[n-1].End)
		}
		for at < span.End {
			x := c.At(at)
			all = append(all, x)
			at = x.End
		}
	}
	return all
}

// Last returns the last cycle of which a source has data.
func Last(s Source, c calendar.Calendar) calendar.Cycle {
	spans := s.Spans()
	return c.At(spans[len(spans)-1].End - 1)
}
