package bill

import (
	"errors"
	"fmt"
	"time"

	"framepipe/internal/gate"
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
	// Span returns when the first slot begins and the last one ends.
	Span() (start, end int64)
	// Series returns the slots that begin in a span, as far as there are any.
	Series(from, to int64) (*Series, error)
}

// Span is Source's.
func (s *Series) Span() (start, end int64) { return s.Start, s.at(len(s.In)) }

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

// Cycle is a billing cycle.
type Cycle struct {
	Name       string // the month it begins in: 2005-06
	Start, End int64  // nanoseconds since the Unix epoch
}

// CycleAt returns the cycle that a time lies in, of those that begin at midnight
// of a day of the month, or on its last day where it has no such day.
func CycleAt(at int64, day int, zone *time.Location) Cycle {
	start, end := gate.Month(day, zone)(at)
	return Cycle{time.Unix(0, start).In(zone).Format("2006-01"), start, end}
}

// ParseCycle returns the cycle that begins in a month, as in 2005-06.
func ParseCycle(name string, day int, zone *time.Location) (Cycle, error) {
	m, err := time.Parse("2006-01", name)
	if err != nil || m.Year() < 1970 || m.Year() > 2200 {
		return Cycle{}, errors.New("want the month in which a cycle begins, such as 2005-06")
	}
	last := time.Date(m.Year(), m.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
	return CycleAt(time.Date(m.Year(), m.Month(), min(day, last), 12, 0, 0, 0, zone).UnixNano(), day, zone), nil
}

// history is how far back from a cycle's start the forecast looks: a week, and a
// day for what the clock was put back.
const history = 8 * 24 * time.Hour

// Cycles returns the cycles that a source knows something of.
func Cycles(s Source, day int, zone *time.Location) (all []Cycle) {
	start, end := s.Span()
	for at := start; at < end; {
		c := CycleAt(at, day, zone)
		all = append(all, c)
		at = c.End
	}
	return all
}

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
