package budget

import "math"

// The experts. Each is a rule for when to let a burst run on: from when the
// forecast excess of a window is from at least, until it is under till. All of
// them are tried on the demand as it comes, on paper; the one that would have
// passed most for the windows that are left is followed.
const (
	perOctave = 2
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
				from *= math.Sqrt2
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

// tally is what an expert did in a span of time.
type tally struct {
	cost float64 // windows gone over
	gain float64 // what passed beyond the quota, in slots of it
}

// trial is how an expert fares.
type trial struct {
	running bool
	tail    int8 // slots since it stopped in which a window may still hold some of the burst
	past    [pasts]tally
}

// The pasts that the rest of a cycle may be like.
const (
	current  = iota // this cycle so far
	recent          // the latest part of it, older slots count less and less
	previous        // the last cycle
	pasts
)

const (
	// aging is how many steps the recent past ages by in a quarter of a cycle;
	// in each it forgets as large a part of what it holds.
	aging = 16
	// doubt is how far, at first, two experts' gains may be apart by chance, as
	// a share.
	doubt = 0.1
)

// learned is what was seen of demand.
type learned struct {
	trials [experts]trial
	quiet  bool           // no expert is busy
	seen   [pasts]float64 // slots
	every  float64        // slots after which the recent past ages
	age    float64        // slots since it did
	choice int            // the expert that is followed
	until  int64          // the slot in which to choose anew
	follow bool           // a burst is being let run
}

// see counts a slot: the forecast at its begin, what came in it as a share of
// what the quota sustains, and whether the offered window is over.
func (l *learned) see(e, share float64, over bool) {
	l.elapse(1)
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
	x.past[current].cost++
	x.past[current].gain += gain
	x.past[recent].cost++
	x.past[recent].gain += gain
}

// elapse counts slots.
func (l *learned) elapse(slots float64) {
	l.seen[current] += slots
	l.seen[recent] += slots
	l.age += slots
	if l.age < l.every {
		return
	}
	times := 1.0
	if slots > 1 {
		times = math.Floor(l.age / max(l.every, 1))
	}
	l.age = 0
	keep := math.Pow(1-1.0/aging, times)
	l.seen[recent] *= keep
	for i := range l.trials {
		x := &l.trials[i].past[recent]
		x.cost *= keep
		x.gain *= keep
	}
}

// idle counts slots in which nothing came.
func (l *learned) idle(slots int64) {
	for range min(slots, 2*Slots) {
		l.see(-1, 0, false)
		slots--
	}
	l.elapse(float64(slots))
}

// turn makes this cycle the last one.
func (l *learned) turn() {
	l.seen[previous], l.seen[current] = l.seen[current], 0
	for i := range l.trials {
		p := &l.trials[i].past
		p[previous], p[current] = p[current], tally{}
	}
}

// choose finds the expert to follow for what is left of a cycle, in slots, with
// so many windows (of one phase each) to spend.
//
// Nobody knows what the rest will be like. It may be like this cycle so far,
// like the latest part of it, or like the last cycle. Each of these pasts tells
// what every expert would gain in the rest; one that needs more windows than
// there are runs out, and gains as much less. The expert is best that does best
// on average, as a share of what could be had in each past: so none of them
// outweighs the others by being one of floods. The last cycle counts less the
// more of this one is over.
//
// Where experts differ by no more than chance would make them, the one with the
// lowest threshold is followed: what passes now is certain, and bursts to wait
// for are not. The more windows were tried, the smaller chance's part is.
func (l *learned) choose(rest, length, left float64) {
	var total [experts]float64
	for p := range pasts {
		scale := rest / max(l.seen[p], length/32)
		var value [experts]float64
		most := 0.0
		for i := range l.trials {
			x := &l.trials[i].past[p]
			gain, cost := x.gain*scale, x.cost*scale
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
	best := 0
	for i := range total {
		if total[i] > total[best] {
			best = i
		}
	}
	past := &l.trials[best].past
	tried := (past[current].cost + past[previous].cost) / Slots
	enough := total[best] - doubt/math.Sqrt(1+tried)*math.Abs(total[best])
	l.choice = 0
	for total[l.choice] < enough {
		l.choice++
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
	b.learned.every = float64((b.cur.end-b.cur.start)/b.slot) / (4 * aging)
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
		if c := &b.cur; c.worst > 0 {
			// Experts' costs are of all phases, and some use fewer than the worst.
			sum := int64(0)
			for _, n := range c.used {
				sum += n
			}
			left *= float64(sum) / float64(c.worst*Slots)
		}
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
