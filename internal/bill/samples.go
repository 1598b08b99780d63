package bill

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"framepipe/internal/calendar"
)

// MaxSlots is the maximum number of slots of a cycle.
const MaxSlots = 1 << 22

// maxBytes is the maximum of all samples together, so that no sum overflows.
const maxBytes = 1 << 62

// Sample is the traffic of a slot.
type Sample struct {
	At      int64 // when the slot begins, nanoseconds since the Unix epoch
	In, Out int64 // bytes
	Line    int   // of the file, for errors; 0 if there is none
}

// Samples are samples on a grid, in order of time, one a slot. A slot without one is missing.
type Samples struct {
	Slot time.Duration // length of a sample
	// Moved is the number of samples that were not on the grid.
	Moved int
	// Source says whose traffic it is, and which file has it, for titles.
	Source string

	list []Sample
}

// NewSamples puts samples, in any order, on a grid of slots. It overwrites the list.
//
// Without a slot, the most frequent difference between times is used, the least one of
// several. The grid has the phase that most samples have; each of the others counts in
// the slot that begins nearest to it. Samples of one slot are added. Equal samples count
// once; two samples with the same time and different bytes are an error.
func NewSamples(list []Sample, slot time.Duration) (*Samples, error) {
	if len(list) == 0 {
		return nil, errors.New("there are no samples")
	}
	slices.SortFunc(list, func(a, b Sample) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Line, b.Line)) })
	list, err := distinct(list)
	if err != nil {
		return nil, err
	}
	if slot == 0 {
		if len(list) == 1 {
			return nil, errors.New("a single sample does not show how far samples are apart: give -interval")
		}
		apart := make([]int64, len(list)-1)
		for i := range apart {
			apart[i] = list[i+1].At - list[i].At
		}
		slot = time.Duration(most(apart))
	}
	if slot > 24*time.Hour {
		return nil, fmt.Errorf("samples are %v apart: must be at most a day", slot)
	}
	s := &Samples{Slot: slot, list: list[:0]}
	n := int64(slot)
	phases := make([]int64, len(list))
	for i, x := range list {
		phases[i] = x.At - floorDiv(x.At, n)*n
	}
	phase := most(phases)
	for _, x := range list {
		at := floorDiv(x.At-phase+n/2, n)*n + phase
		if at != x.At {
			s.Moved++
		}
		if last := len(s.list) - 1; last >= 0 && s.list[last].At == at {
			s.list[last].In += x.In
			s.list[last].Out += x.Out
			continue
		}
		x.At = at
		s.list = append(s.list, x)
	}
	return s, nil
}

// distinct returns the samples, which are sorted, each once.
func distinct(list []Sample) ([]Sample, error) {
	kept, total := list[:0], uint64(0)
	for _, x := range list {
		if n := len(kept); n > 0 && kept[n-1].At == x.At {
			if last := kept[n-1]; x.In != last.In || x.Out != last.Out {
				return nil, lineError(x.Line, fmt.Errorf("line %d has different bytes for the same time", last.Line))
			}
			continue
		}
		total += uint64(x.In) + uint64(x.Out)
		if max(uint64(x.In), uint64(x.Out), total) > maxBytes {
			return nil, lineError(x.Line, errors.New("that is more bytes than can be counted"))
		}
		kept = append(kept, x)
	}
	return kept, nil
}

// most returns the most frequent value, the least of several. It sorts the values.
func most(values []int64) int64 {
	slices.Sort(values)
	best, times := values[0], 0
	for first, i := 0, 0; i < len(values); i++ {
		if values[i] != values[first] {
			first = i
		}
		if i-first >= times {
			best, times = values[i], i-first+1
		}
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

// ceilDiv is a/b, rounded up.
func ceilDiv(a, b int64) int64 { return -floorDiv(-a, b) }

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

// Series is traffic in consecutive slots of equal length.
type Series struct {
	Start   int64         // when the first slot begins, nanoseconds since the Unix epoch
	Slot    time.Duration // length of a slot
	In, Out []int64       // bytes of each slot
	Known   []bool        // the slots that were measured
}

// newSeries returns a series of n slots with no bytes, which are not known.
func newSeries(start int64, slot time.Duration, n int64) (*Series, error) {
	if n > MaxSlots {
		return nil, fmt.Errorf("samples every %v are more than %d a cycle: too many", slot, MaxSlots)
	}
	return &Series{start, slot, make([]int64, n), make([]int64, n), make([]bool, n)}, nil
}

func (s *Series) at(i int) int64 { return s.Start + int64(i)*int64(s.Slot) }

// series returns the slots that begin in a span, from the first sample at the earliest to
// the last at the latest.
func (s *Samples) series(from, to int64) (*Series, error) {
	n, first, last := int64(s.Slot), s.list[0].At, s.list[len(s.list)-1].At
	start := first + max(ceilDiv(from-first, n), 0)*n
	end := max(start, min(first+ceilDiv(to-first, n)*n, last+n))
	x, err := newSeries(start, s.Slot, (end-start)/n)
	if err != nil {
		return nil, err
	}
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
