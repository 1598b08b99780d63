package budget

import "math"

// bins is how many classes of excess are told apart: an eighth of an octave
// each, from 1/256 of the quota on.
const (
	perOctave = 8
	octaves   = 24
	bins      = 1 + perOctave*octaves
	lowest    = 8 // octaves below the quota
)

// ahead is how many slots the forecast looks back upon: as demand was in the
// last quarter of a window it will be for a whole one.
const ahead = Slots / 4

// learned is what was seen of demand.
type learned struct {
	now, last   [bins]float64 // slots with so much excess
	seen        float64       // slots of this cycle
	old         float64       // slots of the last
	runs        float64       // slots in which something passed beyond the quota
	stale       bool          // the table below
	above       [bins]float64 // scratch: slots expected in a slot, with more excess
	sinceUpdate int
}

// class is the bin of an excess, as a share of the quota; -1 if there is none.
func class(excess float64) int {
	if excess <= 0 {
		return -1
	}
	return min(max(int((math.Log2(excess)+lowest)*perOctave)+1, 0), bins-1)
}

// see counts a slot.
func (l *learned) see(excess float64) {
	l.seen++
	if c := class(excess); c >= 0 {
		l.now[c]++
	}
}

func (l *learned) idle(slots int64) { l.seen += float64(slots) }

// turn makes this cycle the last one.
func (l *learned) turn(int64) {
	l.last, l.old = l.now, l.seen
	l.now, l.seen = [bins]float64{}, 0
	l.runs = 0
}

// excess is by how much a window would go over if it were as the slots before
// and with i, as a share of the quota.
func (b *Budget) excess(i int64) float64 {
	o := b.offered[phase2(i)] - b.offered[phase2(i-ahead)]
	return float64(o)*Slots/ahead/float64(b.cfg.Quota) - 1
}

// decide finds the verdict for the slot that begins.
func (b *Budget) decide() {
	b.limit = b.t + 1
	b.free = b.worth()
	if !b.free {
		return
	}
	for k := b.first; k <= b.t; k++ {
		if !b.may(k) {
			b.limit = k
			return
		}
	}
}

func (b *Budget) worth() bool {
	switch b.cfg.Policy {
	case Never:
		return false
	case Greedy:
		return true
	}
	left := float64(b.cur.total-b.cur.worst) * Slots
	if left <= 0 {
		return false
	}
	c := class(b.excess(b.t - 1))
	if c < 0 {
		return true // nothing is held up, and if it is, it is little
	}
	l := &b.learned
	length := float64(b.cur.end-b.cur.start) / float64(b.slot)
	rest := float64(b.cur.end)/float64(b.slot) - float64(b.t)
	seen := 0.0
	prior := min(length/8, l.old)
	w := 0.0
	if prior > 0 {
		w = prior / l.old
	}
	n := max(l.seen+prior, length/32)
	for i := c + 1; i < bins; i++ {
		seen += l.now[i] + w*l.last[i]
	}
	const doubt = 12 * Slots
	cost := (float64(b.cur.worst)*Slots + doubt) / (l.runs + doubt)
	return seen/n*rest*cost < left
}
