package bill

import (
	"fmt"
	"time"
)

// Series is what went through, in slots of equal length one after the other. A
// ledger can be made into one, and so can samples.
type Series struct {
	Start   int64         // when the first slot begins, nanoseconds since the Unix epoch
	Slot    time.Duration // how long each is
	In, Out []int64       // bytes of each
	Known   []bool        // which were measured; nil if all were
}

// Source is what a Series can be had from.
type Source interface {
	// Spans returns the spans of time of which something is known, in order; one
	// at least.
	Spans() []Span
	// Series returns the slots that begin in a span, as far as there are any.
	Series(from, to int64) (*Series, error)
}

// Span is a span of time: when its first slot begins and its last one ends,
// nanoseconds since the Unix epoch.
type Span struct{ Start, End int64 }

// Spans is Source's.
func (s *Series) Spans() []Span { return []Span{{s.Start, s.at(len(s.In))}} }

// Series is Source's.
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

// sums are those of all slots before each, so that any window is a difference.
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

// window returns the window that begins with slot i. It is known if any of its
// slots is.
func (f *frame) window(i int) Window {
	j := i + f.per
	return Window{At: f.at(i), In: f.in[j] - f.in[i], Out: f.out[j] - f.out[i], Known: f.known == nil || f.known[j] > f.known[i]}
}

// history is how far back from a cycle's start the forecast looks: a week, and a
// day for what the clock was put back.
const history = 8 * 24 * time.Hour

// Of bills a cycle of a source.
func Of(s Source, cycle Cycle, zone *time.Location, c Terms) (*Bill, error) {
	series, err := s.Series(cycle.Start-int64(history), cycle.End+int64(c.Window))
	if err != nil {
		return nil, err
	}
	b, err := New(series, cycle, zone, c)
	if err == nil && b.To == b.From {
		err = fmt.Errorf("there is nothing in the cycle %s", cycle.Name)
	}
	return b, err
}
