package bill

import "slices"

// view is the series of a bill in the windows of its cycle. It has the sums of all slots before each
// slot, so that a window is a difference.
type view struct {
	*Bill
	*Series
	in, out  []int64
	n        int // slots of the series
	per      int // slots in a window
	first    int // index of the cycle's first slot in the series; may be negative
	slots    int // of the cycle
	from, to int // the slots of the series that are in the cycle

	// The windows of the first phase have numbers: those that begin in the cycle from 0 to before end, and
	// those before it negative ones. Of now and later ones the series does not have all slots.
	now, end int
}

// newView returns the view of a series of which at least one slot begins in the cycle.
func newView(b *Bill, s *Series) *view {
	n := len(s.Known)
	v := &view{Bill: b, Series: s, in: sums(s.In), out: sums(s.Out), n: n, per: int(b.Window / s.Slot)}
	v.first = int(ceilDiv(b.Cycle.Start-s.Start, int64(s.Slot)))
	v.slots = int(ceilDiv(b.Cycle.End-s.Start, int64(s.Slot))) - v.first
	v.from, v.to = max(v.first, 0), min(v.first+v.slots, n)
	v.now = (n - v.first) / v.per
	v.end = max((v.slots+v.per-1)/v.per, v.now)
	return v
}

// sums returns the sum of the values before each, and of all.
func sums(values []int64) []int64 {
	all := make([]int64, len(values)+1)
	for i, v := range values {
		all[i+1] = all[i] + v
	}
	return all
}

// bytes returns the bytes of the slots from i on and before j.
func (v *view) bytes(i, j int) (in, out int64) { return v.in[j] - v.in[i], v.out[j] - v.out[i] }

// window returns the window that begins with slot i, which is known if any of its
// slots is, and all are in the series.
func (v *view) window(i int) Window {
	w := Window{At: v.at(i)}
	if j := i + v.per; i >= 0 && j <= v.n {
		w.In, w.Out = v.bytes(i, j)
		w.Known = slices.Contains(v.Known[i:j], true)
	}
	return w
}

// number returns a window of the first phase.
func (v *view) number(k int) Window { return v.window(v.first + k*v.per) }

// windows returns the complete windows of a phase.
func (v *view) windows(phase int) (all []Window) {
	for i := v.first + phase; i < min(v.first+v.slots, v.n-v.per+1); i += v.per {
		if i >= 0 {
			all = append(all, v.window(i))
		}
	}
	return all
}
