package bill

import (
	"fmt"
	"time"
)

// Pieces are one or more series with slots of the same length, in order. There may be
// unknown time between them.
type Pieces []*Series

// Spans implements Source.
func (p Pieces) Spans() (all []Span) {
	for _, s := range p {
		all = append(all, s.Spans()...)
	}
	return all
}

// Series implements Source. If a piece is not aligned to the slots of the first one,
// its slots are moved later to the next of those.
func (p Pieces) Series(from, to int64) (*Series, error) {
	slot := p[0].Slot
	var parts []*Series
	for _, s := range p {
		part, err := s.Series(from, to)
		if err != nil {
			return nil, err
		}
		if len(part.In) > 0 {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return &Series{Start: from, Slot: slot}, nil
	}
	start, last := parts[0].Start, parts[len(parts)-1]
	n := ceilDiv(last.at(len(last.In))-start, int64(slot))
	if n > MaxSlots {
		return nil, fmt.Errorf("slots of %v are more than %d a cycle: too many", slot, MaxSlots)
	}
	x := newSeries(start, slot, int(n))
	x.Known = make([]bool, n)
	for _, part := range parts {
		first := ceilDiv(part.Start-start, int64(slot))
		for i := range part.In {
			j := first + int64(i)
			x.In[j] += part.In[i]
			x.Out[j] += part.Out[i]
			x.Known[j] = x.Known[j] || part.Known == nil || part.Known[i]
		}
	}
	return x, nil
}

// newSeries returns a series of n slots with no bytes.
func newSeries(start int64, slot time.Duration, n int) *Series {
	return &Series{Start: start, Slot: slot, In: make([]int64, n), Out: make([]int64, n)}
}
