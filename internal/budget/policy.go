package budget

// The experts. Each is a rule for when to let a burst run on: from when the
// forecast excess of a window is from at least, until it is under till. All of
// them are tried on the demand as it comes, on paper; the one that would have
// passed most for the windows that are left is followed.
const (
	perOctave = 4
	levels    = 1 + 11*perOctave // none, and 1/32 to 64 times the quota
	stops     = 3                // till, as a share of from: all, half, nothing
	experts   = levels * stops
)

type expert struct {
	from, till float64
}

var rules = func() (r [experts]expert) {
	for i := range levels {
		from := 0.0
		if i > 0 {
			from = 1.0 / 32
			for range (i - 1) / perOctave {
				from *= 2
			}
			for range (i - 1) % perOctave {
				from *= 1.189207115002721 // 2^(1/4)
			}
		}
		r[i*stops] = expert{from, 0}
		r[i*stops+1] = expert{from, from / 2}
		r[i*stops+2] = expert{from, from}
	}
	return r
}()

const (
	// ahead is how many slots the forecast looks back upon: as demand was in
	// them it will be for a whole window.
	ahead = Slots / 12
	// often is how many slots a choice of expert holds.
	often = Slots / 5
)

// trial is how an expert fares.
type trial struct {
	running  bool
	tail     int8    // slots since it stopped in which a window may still hold some of the burst
	cost     float64 // this cycle: windows gone over
	gain     float64 // and what passed beyond the quota, in slots of it
	lastCost float64
	lastGain float64
}

// learned is what was seen of demand.
type learned struct {
	trials [experts]trial
	quiet  bool    // no expert is busy
	seen   float64 // slots of this cycle
	last   float64 // slots of the last one
	choice int     // the expert that is followed
	until  int64   // the slot in which to choose anew
	follow bool    // a burst is being let run
}

// see counts a slot: the forecast at its begin, what came in it as a share of
// what the quota sustains, and whether the offered window is over.
func (l *learned) see(e, share float64, over bool) {
	l.seen++
	if e <= 0 && !over && l.quiet {
		return
	}
	l.quiet = true
	dark := max(1-1/max(share, 1), 0)
	for i := range l.trials {
		x := &l.trials[i]
		r := &rules[i]
		from := r.from
		if x.running {
			from = r.till
		}
		switch {
		case e > 0 && e >= from:
			x.running, x.tail = true, Slots
			if over {
				x.cost++
				x.gain += share - 1
			}
		case x.tail > 0 && over:
			x.running = false
			x.tail--
			x.cost++
			x.gain -= dark
		default:
			x.running, x.tail = false, 0
			continue
		}
		l.quiet = false
	}
}

// idle counts slots in which nothing came.
func (l *learned) idle(slots int64) {
	for range min(slots, 2*Slots) {
		l.see(-1, 0, false)
		slots--
	}
	l.seen += float64(slots)
}

// turn makes this cycle the last one.
func (l *learned) turn() {
	l.last, l.seen = l.seen, 0
	for i := range l.trials {
		x := &l.trials[i]
		x.lastCost, x.lastGain, x.cost, x.gain = x.cost, x.gain, 0, 0
	}
}

// choose finds the expert to follow for what is left of a cycle, in slots, with
// so many windows (of one phase each) to spend: the one that gains most. One
// that needs more than there are runs out, and gains as much less.
//
// The last cycle counts as an eighth of one. That fades over the first quarter
// of this cycle, and the faster the less this cycle is like the last: a month of
// floods says nothing about one without, and waiting for another would let the
// windows go unused.
func (l *learned) choose(rest, length, left float64) {
	prior := min(length/8, l.last) * max(1-4*l.seen/length, 0)
	w := 0.0
	if prior > 0 {
		w = prior / l.last
		// Both are what letting everything run would have gained in a slot.
		x := &l.trials[0]
		was := x.lastGain / l.last
		is := max((x.gain+w*x.lastGain)/(l.seen+prior), 0)
		alike := 0.0
		switch {
		case was <= 0:
			alike = 1
		case is > 0:
			alike = min(is/was, was/is)
		}
		alike *= alike
		alike *= alike
		w *= alike
		prior *= alike
	}
	scale := rest / max(l.seen+prior, length/32)
	best := -1.0
	for i := range l.trials {
		x := &l.trials[i]
		gain := (x.gain + w*x.lastGain) * scale
		cost := (x.cost + w*x.lastCost) * scale
		if cost > left {
			gain *= left / cost
		}
		if gain > best {
			best, l.choice = gain, i
		}
	}
}

// excess is by how much a window would go over if it were as the slots before
// and with i, as a share of the quota.
func (b *Budget) excess(i int64) float64 {
	o := b.offered[at(i)] - b.offered[at(i-ahead)]
	return float64(o)*Slots/ahead/float64(b.cfg.Quota) - 1
}

// learn ends the current slot.
func (b *Budget) learn() {
	share := float64(b.offered[at(b.t)]-b.offered[at(b.t-1)]) * Slots / float64(b.cfg.Quota)
	over := b.offered[at(b.t)]-b.offered[at(b.t-Slots)] > b.cfg.Quota
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
		again := int64(0) // the window one length before is of the same phase
		if k-Slots >= b.first {
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
	return float64(b.upTo(k+few-1)-b.upTo(k-1))*Slots/few/float64(b.cfg.Quota) - 1
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
	r := &rules[l.choice]
	if !l.follow {
		l.follow = e >= r.from
	} else if e < r.till && b.cur.used[phase(b.first)] >= b.cur.worst {
		l.follow = false
	}
	return l.follow
}
