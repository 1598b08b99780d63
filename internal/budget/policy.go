package budget

// experts is the number of simple rules. Each lets a burst run from when the
// forecast excess of a window reaches from, as a share of the quota, until it is half of
// that. All are simulated on the demand as it arrives; the budget follows the one that
// would pass most with the windows that are left.
const experts = 12

// from returns the threshold of an expert: none, and 1/32 to 32 times the quota.
func from(expert int) float64 {
	if expert == 0 {
		return 0
	}
	return float64(int(1)<<expert) / 64
}

// ahead is the number of past slots that the forecast uses: it expects their rate to last for a
// whole window.
func (b *Budget) ahead() int64 { return max(b.slots/12, 1) }

// often is the number of slots between choices of an expert.
func (b *Budget) often() int64 { return b.slots / 5 }

// trial is the simulation of an expert.
type trial struct {
	running bool
	tail    int64 // slots since it stopped in which a window may still hold some of the burst
	// For each past:
	cost [pasts]float64 // windows spent
	gain [pasts]float64 // bytes passed beyond the quota, in quotas of a slot
}

// The pasts from which the rest of a cycle is predicted.
const (
	current  = iota // this cycle so far
	previous        // the last cycle
	pasts
)

// learned holds the simulations of the experts.
type learned struct {
	trials [experts]trial
	quiet  bool           // no expert is in a burst or its tail
	seen   [pasts]float64 // slots observed
	choice int            // the expert that is followed
	until  int64          // the slot in which to choose again
	follow bool           // a burst is running
}

// observe counts a slot. e is the forecast excess at its start, share the bytes offered
// in it relative to the quota of a slot. over reports whether the offered window is over.
func (l *learned) observe(e, share float64, over bool, slots int64) {
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
			x.running, x.tail = true, slots
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

// nextCycle makes this cycle the last one.
func (l *learned) nextCycle() {
	l.seen[previous], l.seen[current] = l.seen[current], 0
	for i := range l.trials {
		x := &l.trials[i]
		x.cost[previous], x.cost[current] = x.cost[current], 0
		x.gain[previous], x.gain[current] = x.gain[current], 0
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

// window returns the bytes of a window at the rate of some slots, as a share of the quota.
func (b *Budget) window(bytes, slots int64) float64 {
	return float64(bytes) * float64(b.slots) / float64(slots) / float64(b.cfg.Quota)
}

// excess returns by how much a window would exceed the quota, as a share of it, at the
// rate offered in the last slots up to and including i.
func (b *Budget) excess(i int64) float64 {
	o := int64(0)
	for l := range b.held {
		x := &b.lane[l]
		o = max(o, x.offered[at(i)]-x.offered[at(i-b.ahead())])
	}
	return b.window(o, b.ahead()) - 1
}

// learn passes the current slot, which ends, to the experts.
func (b *Budget) learn() {
	if b.cfg.Policy != Weighed {
		return
	}
	share, over := 0.0, false
	for l := range b.held {
		x := &b.lane[l]
		one := b.window(x.offered[at(b.t)]-x.offered[at(b.t-1)], 1)
		switch lane := x.offered[at(b.t)]-x.offered[at(b.t-b.slots)] > b.cfg.Quota; {
		case lane && over: // both lanes gain
			share += one - 1
		case lane || !over && one > share:
			share, over = one, lane
		}
	}
	b.learned.observe(b.excess(b.t-1), share, over, b.slots)
}

// decide finds the verdict for the slot that begins now.
func (b *Budget) decide() {
	b.limit = b.t + 1
	if b.free = b.worth(); !b.free {
		return
	}
	for i := range b.cycles {
		_, limit := b.chain(&b.cycles[i], true)
		b.limit = min(b.limit, limit)
	}
}

// head returns by how much the first slots of the next window to go over exceed the
// quota's rate, as a share of it. Spending that window frees these bytes.
func (b *Budget) head() float64 {
	const few = 6
	k := min(b.first, b.t-few)
	held := int64(0)
	for l := range b.held {
		x := &b.lane[l]
		held = max(held, x.upTo(k+few-1)-x.upTo(k-1))
	}
	return b.window(held, few) - 1
}

// worth reports whether a burst may run, by the policy.
func (b *Budget) worth() bool {
	switch b.cfg.Policy {
	case Never:
		return false
	case Greedy:
		return true
	}
	l := &b.learned
	e := b.excess(b.t - 1)
	if l.follow {
		e = max(e, b.head())
	}
	if e <= 0 {
		l.follow = false
		return false
	}
	if b.t >= l.until {
		l.until = b.t + b.often()
		used, _ := b.chain(&b.cycles[1], false)
		left := float64(b.cycles[1].total-used) * float64(b.gap)
		length := float64(b.cycles[1].end-b.cycles[1].start) / float64(b.slot)
		rest := float64(b.cycles[1].end)/float64(b.slot) - float64(b.t)
		l.choose(rest, length, max(left, 0))
	}
	if least := from(l.choice); !l.follow {
		l.follow = e >= least
	} else if e < least/2 {
		l.follow = false
	}
	return l.follow
}
