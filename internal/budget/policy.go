package budget

import "math"

// experts is how many simple rules there are. Each lets a burst run on from when the
// forecast excess of a window is from, a share of the quota, until it is half of that. All
// of them are tried on paper, on the demand as it comes; the one that would have passed
// most for the windows that are left is followed.
const experts = 12

// from returns the threshold of an expert: none, and 1/32 to 32 times the quota.
func from(expert int) float64 {
	if expert == 0 {
		return 0
	}
	return math.Ldexp(1, expert-6)
}

const (
	// ahead is how many slots the forecast looks back upon: as demand was in
	// them it will be for a whole window.
	ahead = Slots / 12
	// often is how many slots a choice of expert holds.
	often = Slots / 5
)

// trial is how an expert fares.
type trial struct {
	running bool
	tail    int8 // slots since it stopped in which a window may still hold some of the burst
	// For each past:
	cost [pasts]float64 // windows gone over
	gain [pasts]float64 // bytes passed beyond the quota, in slots of it
}

// The pasts that the rest of a cycle may be like.
const (
	current  = iota // this cycle so far
	previous        // the last cycle
	pasts
)

// learned is what was seen of demand.
type learned struct {
	trials [experts]trial
	quiet  bool           // no expert is busy
	seen   [pasts]float64 // slots
	choice int            // the expert that is followed
	until  int64          // the slot in which to choose anew
	follow bool           // a burst is being let run
}

// see counts a slot: the forecast at its begin, what came in it as a share of
// what the quota sustains, and whether the offered window is over.
func (l *learned) see(e, share float64, over bool) {
	l.seen[current]++
	if e <= 0 && !over && l.quiet {
		return
	}
	l.quiet = true
	dark := max(1-1/max(share, 1), 0)
	for i := range l.trials {
		x := &l.trials[i]
		least := from(i)
		if x.running {
			least /= 2
		}
		switch {
		case e > 0 && e >= least:
			x.running, x.tail = true, Slots
			if over {
				x.count(share - 1)
			}
		case x.tail > 0 && over:
			x.running = false
			x.tail--
			x.count(-dark)
		default:
			x.running, x.tail = false, 0
			continue
		}
		l.quiet = false
	}
}

// count counts a window.
func (x *trial) count(gain float64) {
	x.cost[current]++
	x.gain[current] += gain
}

// idle counts slots in which nothing came.
func (l *learned) idle(slots int64) {
	few := min(slots, 2*Slots)
	for range few {
		l.see(-1, 0, false)
	}
	l.seen[current] += float64(slots - few)
}

// turn makes this cycle the last one.
func (l *learned) turn() {
	l.seen[previous], l.seen[current] = l.seen[current], 0
	for i := range l.trials {
		x := &l.trials[i]
		x.cost[previous], x.cost[current] = x.cost[current], 0
		x.gain[previous], x.gain[current] = x.gain[current], 0
	}
}

// choose finds the expert to follow for the rest of a cycle, in slots, with so many windows
// (of one phase each) to spend.
//
// The rest may be like this cycle so far, or like the last cycle. Each of these pasts tells
// how much every expert would gain in the rest; one that needs more windows than there are
// runs out, and gains as much less. The best expert does best on average, as a share of the
// most that could be had in each past: so neither outweighs the other by being one of
// floods. The last cycle counts less the more of this one is over.
func (l *learned) choose(rest, length, left float64) {
	var total [experts]float64
	for p := range pasts {
		scale := rest / max(l.seen[p], length/32)
		var value [experts]float64
		most := 0.0
		for i := range l.trials {
			x := &l.trials[i]
			gain, cost := x.gain[p]*scale, x.cost[p]*scale
			if cost > left {
				gain *= left / cost
			}
			value[i] = gain
			most = max(most, gain)
		}
		if most <= 0 {
			continue
		}
		weight := 1.0
		if p == previous {
			weight = max(1-l.seen[current]/length, 0)
		}
		for i, v := range value {
			total[i] += weight * max(v/most, -1)
		}
	}
	l.choice = 0
	for i := range total {
		if total[i] > total[l.choice] {
			l.choice = i
		}
	}
}

// excess is by how much a window would go over if it were as the slots before
// and with i, as a share of the quota.
func (b *Budget) excess(i int64) float64 {
	o := int64(0)
	for l := range b.cfg.Lanes {
		x := &b.lane[l]
		o = max(o, x.offered[at(i)]-x.offered[at(i-ahead)])
	}
	return float64(o)*Slots/ahead/float64(b.cfg.Quota) - 1
}

// learn ends the current slot.
func (b *Budget) learn() {
	share, over := 0.0, false
	for l := range b.cfg.Lanes {
		x := &b.lane[l]
		one := float64(x.offered[at(b.t)]-x.offered[at(b.t-1)]) * Slots / float64(b.cfg.Quota)
		switch lane := x.offered[at(b.t)]-x.offered[at(b.t-Slots)] > b.cfg.Quota; {
		case lane && over: // both gain
			share += one - 1
		case lane || !over && one > share:
			share, over = one, lane
		}
	}
	b.learned.see(b.excess(b.t-1), share, over)
}

// decide finds the verdict for the slot that begins.
func (b *Budget) decide() {
	b.limit = b.t + 1
	b.free = b.worth()
	if !b.free || b.ample() {
		return
	}
	for k := b.first; k <= b.t; k++ {
		if b.over[at(k)] && b.allowed[at(k)] {
			continue
		}
		// The window one length before is of the same phase, and may yet turn
		// out to be over.
		again := int64(0)
		if k >= b.t-late && !b.over[at(k-Slots)] {
			again = 1
		}
		if !b.may(k, again) {
			b.limit = k
			return
		}
	}
}

// ample reports that all windows from first on can go over, without a look at
// each: no phase, whichever it is, comes near what is free.
func (b *Budget) ample() bool {
	for _, c := range [...]*cycle{&b.prev, &b.cur, &b.next} {
		apart := b.first*b.slot >= c.end || (b.t+span)*b.slot <= c.start
		if !apart && c.worst+1 >= c.total {
			return false
		}
	}
	return true
}

// head is by how much the slots exceed what the quota sustains that the next
// window to go over begins with. It is what letting it go over sets free.
func (b *Budget) head() float64 {
	const few = 6
	k := min(b.first, b.t-few)
	held := int64(0)
	for l := range b.cfg.Lanes {
		held = max(held, b.Held(l, k, k+few-1))
	}
	return float64(held)*Slots/few/float64(b.cfg.Quota) - 1
}

func (b *Budget) worth() bool {
	switch b.cfg.Policy {
	case Never:
		return false
	case Greedy:
		return true
	}
	l := &b.learned
	left := float64(b.cur.total-b.cur.worst) * Slots
	e := b.excess(b.t - 1)
	if h := b.head(); l.follow {
		e = max(e, h)
	}
	if e <= 0 {
		l.follow = false
		return false
	}
	if b.t >= l.until {
		l.until = b.t + often
		length := float64(b.cur.end-b.cur.start) / float64(b.slot)
		rest := float64(b.cur.end)/float64(b.slot) - float64(b.t)
		l.choose(rest, length, max(left, 0))
	}
	if least := from(l.choice); !l.follow {
		l.follow = e >= least
	} else if e < least/2 {
		l.follow = false
	}
	return l.follow
}
