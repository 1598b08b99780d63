package bill

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
)

// maxBytes is the maximum of all samples together, so that no sum overflows.
const maxBytes = 1 << 62

// Sample is the traffic of a slot.
type Sample struct {
	At      int64 // when the slot begins, nanoseconds since the Unix epoch
	In, Out int64 // bytes
	Line    int   // of the file, for messages; 0 if there is none
	// Of a ledger, for each direction: bytes passed that did not fit into a gate's own window.
	Beyond [2]bool
}

// Samples are samples on a grid, in order of time, one a slot. A slot without one is missing.
type Samples struct {
	Slot time.Duration // length of a sample
	// Source says whose traffic it is, and which file has it, for titles.
	Source string

	list []Sample
}

// NewSamples takes samples in any order, one a slot, which all begin on one grid of slots.
// It sorts and keeps the list.
func NewSamples(list []Sample, slot time.Duration) (*Samples, error) {
	if len(list) == 0 {
		return nil, errors.New("there are no samples")
	}
	slices.SortFunc(list, func(a, b Sample) int { return cmp.Compare(a.At, b.At) })
	total := uint64(0)
	for i, x := range list {
		switch {
		case i > 0 && x.At == list[i-1].At:
			return nil, fmt.Errorf("two samples begin at %s", time.Unix(0, x.At).UTC().Format(time.DateTime))
		case (x.At-list[0].At)%int64(slot) != 0:
			return nil, fmt.Errorf("the sample at %s is not on the grid", time.Unix(0, x.At).UTC().Format(time.DateTime))
		}
		if total += uint64(x.In) + uint64(x.Out); max(uint64(x.In), uint64(x.Out), total) > maxBytes {
			return nil, errors.New("the samples have more than 4 EiB, the most bytes that can be counted")
		}
	}
	return &Samples{Slot: slot, list: list}, nil
}

// ceilDiv is a/b, rounded up.
func ceilDiv(a, b int64) int64 { return -budget.FloorDiv(-a, b) }

// All returns the samples in order of time.
func (s *Samples) All() iter.Seq[Sample] { return slices.Values(s.list) }

// Len returns the number of slots that have a sample.
func (s *Samples) Len() int { return len(s.list) }

// Cycles returns the cycles in which samples begin.
func (s *Samples) Cycles(c calendar.Calendar) (all []calendar.Cycle) {
	for _, x := range s.list {
		if n := len(all); n == 0 || x.At >= all[n-1].End {
			all = append(all, c.At(x.At))
		}
	}
	return all
}

// Count returns the number of samples that begin in a cycle.
func (s *Samples) Count(c calendar.Cycle) int { return s.index(c.End) - s.index(c.Start) }

// Series is traffic in consecutive slots of equal length.
type Series struct {
	Start   int64         // when the first slot begins, nanoseconds since the Unix epoch
	Slot    time.Duration // length of a slot
	In, Out []int64       // bytes of each slot
	Known   []bool        // the slots that were measured
}

// newSeries returns a series of n slots with no bytes, which are not known.
func newSeries(start int64, slot time.Duration, n int64) *Series {
	return &Series{Start: start, Slot: slot, In: make([]int64, n), Out: make([]int64, n), Known: make([]bool, n)}
}

// direction returns the bytes of the gate of a method: with Sum all pass the one of Out.
func (s *Series) direction(m Method) []int64 {
	if m == In {
		return s.In
	}
	return s.Out
}

func (s *Series) at(i int) int64 { return s.Start + int64(i)*int64(s.Slot) }

// series returns the slots that begin in a span, from the first sample at the earliest to
// the last at the latest.
func (s *Samples) series(from, to int64) (*Series, error) {
	n, first, last := int64(s.Slot), s.list[0].At, s.list[len(s.list)-1].At
	start := first + max(ceilDiv(from-first, n), 0)*n
	end := max(start, min(first+ceilDiv(to-first, n)*n, last+n))
	if (end-start)/n > calendar.MaxSlots {
		return nil, fmt.Errorf("samples every %v are more than %d a cycle: too many", s.Slot, calendar.MaxSlots)
	}
	x := newSeries(start, s.Slot, (end-start)/n)
	for _, y := range s.list[s.index(start):s.index(end)] {
		i := (y.At - start) / n
		x.In[i], x.Out[i], x.Known[i] = y.In, y.Out, true
	}
	return x, nil
}

// index returns the index of the first sample at a time or after it.
func (s *Samples) index(at int64) int {
	i, _ := slices.BinarySearchFunc(s.list, at, func(x Sample, at int64) int { return cmp.Compare(x.At, at) })
	return i
}
