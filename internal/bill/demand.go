package bill

import (
	"fmt"
	"slices"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
)

// The columns of a series.
const (
	colIn = iota
	colOut
)

func (s *Series) column(c int) []int64 { return [...][]int64{colIn: s.In, colOut: s.Out}[c] }

// fold returns a series with only the bytes that a method counts: for Sum, both
// directions in Out; for In or Out, 0 in the other direction.
func (s *Series) fold(m Method) *Series {
	x := *s
	switch m {
	case Sum:
		x.In, x.Out = make([]int64, len(s.In)), slices.Clone(s.Out)
		for i, n := range s.In {
			x.Out[i] += n
		}
	case In:
		x.Out = make([]int64, len(s.Out))
	case Out:
		x.In = make([]int64, len(s.In))
	}
	return &x
}

// windows returns the windows, of the first phase, of the cycle in which a series begins.
// Windows without slots in the series have no bytes.
func (s *Series) windows(cycle calendar.Cycle, window time.Duration) ([]Window, error) {
	slot := int64(s.Slot)
	start := s.Start - floorDiv(s.Start-cycle.Start, slot)*slot
	n := ceilDiv(cycle.End-start, int64(window))
	if n > MaxSlots {
		return nil, fmt.Errorf("windows of %v are more than %d a cycle: too many", window, MaxSlots)
	}
	all := make([]Window, n)
	for i := range s.In {
		if k := (s.at(i) - start) / int64(window); k < n {
			all[k].In += s.In[i]
			all[k].Out += s.Out[i]
		}
	}
	return all, nil
}

// regroup merges neighbouring samples so that their length becomes a multiple of slot.
// As sample and slot both divide a window, so does the new length.
func (s *Series) regroup(slot time.Duration) *Series {
	length := lcm(int64(s.Slot), int64(slot))
	if length == int64(s.Slot) {
		return s
	}
	per := length / int64(s.Slot)
	ahead := (s.Start - floorDiv(s.Start, length)*length) / int64(s.Slot)
	x := newSeries(s.Start-ahead*int64(s.Slot), time.Duration(length), int(ceilDiv(ahead+int64(len(s.In)), per)))
	for i := range s.In {
		j := (int64(i) + ahead) / per
		x.In[j] += s.In[i]
		x.Out[j] += s.Out[i]
	}
	return x
}

func lcm(a, b int64) int64 {
	x, y := a, b
	for y != 0 {
		x, y = y, x%y
	}
	return a / x * b
}

// demand returns columns of a series as lanes.
func (s *Series) demand(lanes []int) budget.Demand {
	d := budget.Demand{Start: s.Start, Sample: s.Slot, Bytes: s.column(lanes[0])}
	if len(lanes) > 1 {
		d.Other = s.column(lanes[1])
	}
	return d
}

// upTo returns the data of a source before a time, one series for each of its spans.
func upTo(s Source, end int64) (all []*Series, err error) {
	for _, span := range s.Spans() {
		part, err := s.Series(span.Start, min(span.End, end))
		if err != nil {
			return nil, err
		}
		if len(part.In) > 0 {
			all = append(all, part)
		}
	}
	return all, nil
}
