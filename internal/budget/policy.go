package budget

import "slices"

// experts is the number of simple rules. Each lets a burst run from when the
// forecast excess of a window reaches a threshold until it is half of
// that. All are simulated on the demand as it arrives; the budget follows the one that
// would pass most with the windows that are left.
const experts = 12

// runs reports whether an expert lets a burst begin, or run on, at a forecast excess. The
// thresholds are none, and 1/32 to 32 times the quota.
func runs(expert int, running bool, excess float64) bool {
	least := 0.0
	if expert > 0 {
		least = float64(int(1)<<expert) / 64
	}
	if running {
		least /= 2
	}
	return excess > 0 && excess >= least
}

// past is demand from which the rest of a cycle is predicted.
type past struct {
	seen float64          // slots
	cost [experts]float64 // windows that each expert spent
	gain [experts]float64 // bytes that it passed beyond the quota, in quotas of a slot
}

// count counts a window of an expert.
func (p *past) count(expert int, gain float64) {
	p.cost[expert]++
	p.gain[expert] += gain
}

// trial is the simulation of an expert.
type trial struct {
	running bool
	tail    int64 // slots since it stopped in which a window may still hold some of the burst
}

// learned holds the simulations of the experts.
type learned struct {
	trials     [experts]trial
	quiet      bool  // no expert is in a burst or its tail
	this, last past  // this cycle so far, and the last cycle
	choice     int   // the expert that is followed
	until      int64 // the slot in which to choose again
	follow     bool  // a burst is running
}

// observe counts a slot. e is the forecast excess at its start, share the bytes offered
// in it relative to the quota of a slot. over reports whether the offered window is over.
func (l *learned) observe(e, share float64, over bool, slots int64) {
	l.this.seen++
	if e <= 0 && !over && l.quiet {
		return
	}
	l.quiet = true
	for i := range l.trials {
		x := &l.trials[i]
		switch {
		case runs(i, x.running, e):
			x.running, x.tail = true, slots
			if over {
				l.this.count(i, share-1)
			}
		case x.tail > 0 && over:
			x.running = false
			x.tail--
			l.this.count(i, 1/max(share, 1)-1) // the link is dark
		default:
			x.running, x.tail = false, 0
			continue
		}
		l.quiet = false
	}
}

// choose chooses the expert to follow. rest is the remaining and length the whole length
// of the cycle, in slots; left is the number of windows to spend, of one phase each.
//
// The rest may be like this cycle so far, or like the last cycle. Each of these pasts
// predicts how much every expert would gain in the rest; the gain of an expert that needs
// more windows than are left is reduced in proportion. The best expert has the highest
// average gain, as a share of the best gain in each past; without that scaling, a past
// with floods would outweigh the other. The weight of the last cycle falls as this one
// proceeds.
func (l *learned) choose(rest, length, left float64) {
	var total [experts]float64
	weight := 1.0
	for _, p := range [...]*past{&l.this, &l.last} {
		scale := rest / max(p.seen, length/32)
		var value [experts]float64
		for i := range value {
			gain, cost := p.gain[i]*scale, p.cost[i]*scale
			if cost > left {
				gain *= left / cost
			}
			value[i] = gain
		}
		if most := slices.Max(value[:]); most > 0 {
			for i, v := range value {
				total[i] += weight * max(v/most, -1)
			}
		}
		weight = max(1-l.this.seen/length, 0)
	}
	l.choice = slices.Index(total[:], slices.Max(total[:]))
}

// excess returns by how much a window at the rate of some slots, in the lane that has most in
// them, would exceed the quota, as a share of it.
func (b *Budget) excess(bytes *[lanes]sums, first, last int64) float64 {
	most := int64(0)
	for l := range b.held {
		most = max(most, bytes[l].in(first, last))
	}
	return float64(most)*float64(b.slots)/float64(last-first+1)/float64(b.cfg.Quota) - 1
}

// forecast returns the excess of a window from the current slot on. It expects the rate offered in the last
// twelfth of a window to go on.
func (b *Budget) forecast() float64 {
	return b.excess(&b.offered, b.t-max(b.slots/12, 1), b.t-1)
}

// learn passes the current slot, which ends, to the experts.
func (b *Budget) learn() {
	if b.cfg.Policy != Weighed {
		return
	}
	share, over := 0.0, false
	for l := range b.held {
		x := &b.offered[l]
		one := float64(x.in(b.t, b.t)) * float64(b.slots) / float64(b.cfg.Quota)
		switch lane := x.in(b.t-b.slots+1, b.t) > b.cfg.Quota; {
		case lane && over: // both lanes gain
			share += one - 1
		case lane || !over && one > share:
			share, over = one, lane
		}
	}
	b.learned.observe(b.forecast(), share, over, b.slots)
}

// worth reports whether a burst may run, by the policy.
func (b *Budget) worth() bool {
	if b.cfg.Policy != Weighed {
		return b.cfg.Policy == Greedy
	}
	l := &b.learned
	e := b.forecast()
	if l.follow { // to spend the next window frees the bytes of its first slots
		const few = 6
		k := min(b.first, b.t-few)
		e = max(e, b.excess(&b.passed, k, k+few-1))
	}
	if e > 0 && b.t >= l.until {
		l.until = b.t + b.slots/5
		used, _ := b.chain(&b.cycles[1], false)
		left := float64(b.cycles[1].total-used) * float64(b.gap)
		length := float64(b.cycles[1].end-b.cycles[1].start) / float64(b.slot)
		rest := float64(b.cycles[1].end)/float64(b.slot) - float64(b.t)
		l.choose(rest, length, max(left, 0))
	}
	l.follow = runs(l.choice, l.follow, e)
	return l.follow
}
