package bill

import (
	"iter"
	"time"

	"framepipe/internal/calendar"
)

// view is a series in the windows of a cycle. It has the sums of all slots before each
// slot, so that a window is a difference.
type view struct {
	*Series
	n        int // slots of the series
	in, out  []int64
	known    []int32
	per      int // slots in a window
	first    int // index of the cycle's first slot in the series; may be negative
	slots    int // of the cycle
	from, to int // the slots of the series that are in the cycle
}

func newView(s *Series, cycle calendar.Cycle, window time.Duration) *view {
	n := len(s.In)
	v := &view{Series: s, n: n, per: int(window / s.Slot)}
	v.in, v.out, v.known = make([]int64, n+1), make([]int64, n+1), make([]int32, n+1)
	for i := range n {
		v.in[i+1], v.out[i+1], v.known[i+1] = v.in[i]+s.In[i], v.out[i]+s.Out[i], v.known[i]
		if s.Known[i] {
			v.known[i+1]++
		}
	}
	v.first = int(ceilDiv(cycle.Start-s.Start, int64(s.Slot)))
	v.slots = int(ceilDiv(cycle.End-s.Start, int64(s.Slot))) - v.first
	v.from, v.to = min(max(v.first, 0), n), max(min(v.first+v.slots, n), 0)
	return v
}

// window returns the window that begins with slot i, which is known if any of its
// slots is.
func (v *view) window(i int) Window {
	in, out := v.bytes(i, i+v.per)
	return Window{At: v.at(i), In: in, Out: out, Known: v.known[i+v.per] > v.known[i]}
}

// bytes returns the bytes of the slots from i on and before j.
func (v *view) bytes(i, j int) (in, out int64) { return v.in[j] - v.in[i], v.out[j] - v.out[i] }

// windows returns the complete windows of a phase.
func (v *view) windows(phase int) iter.Seq[Window] {
	return func(yield func(Window) bool) {
		i := v.first + phase
		if i < 0 {
			i += (-i + v.per - 1) / v.per * v.per
		}
		for ; i < v.first+v.slots && i+v.per <= v.n && yield(v.window(i)); i += v.per {
		}
	}
}

// future returns the first slot of the windows of the first phase that are not complete
// yet, and how many such windows the cycle has.
func (v *view) future() (first, n int) {
	i := v.first
	if over := v.n - v.per - i; over >= 0 {
		i += (over/v.per + 1) * v.per
	}
	return i, max(0, (v.first+v.slots-i+v.per-1)/v.per)
}
