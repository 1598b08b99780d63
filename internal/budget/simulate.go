package budget

import (
	"slices"
	"time"
)

// Demand is offered traffic, in samples of equal length.
type Demand struct {
	Start  int64         // when the first sample begins, nanoseconds since the Unix epoch
	Sample time.Duration // length of a sample: a multiple of a slot
	Lanes  [][]int64     // the bytes of each sample, for every lane of the budget
}

// Simulation configures a simulation of demand.
type Simulation struct {
	Config
	// Threshold is the gate's: the share of the quota up to which all bytes pass.
	Threshold float64
	// Patience is how long demand that may not pass waits before it is lost.
	Patience time.Duration
	// From and To bound the result to slots that begin in this span, in nanoseconds
	// since the Unix epoch. Demand that waits when the span begins or ends is lost.
	From, To int64
	// Slot, if not nil, is called for every slot, lane by lane.
	Slot func(lane int, start, offered, passed int64)
}

// Result is the result of a simulation.
type Result struct {
	Offered, Passed int64
	Delayed         int64         // of Passed, after the slot of arrival
	Longest         time.Duration // longest delay of a byte that passed
	Stats                         // at the end of the span, or of the demand
}

// Run simulates demand from its start to its end, which may span several cycles.
// Demand that still waits at the end is lost.
func (s *Simulation) Run(demand ...Demand) (r Result, err error) {
	b, err := New(s.Config)
	if err != nil {
		return r, err
	}
	g := shaper{b: b, threshold: s.Threshold}
	var queue [lanes]backlog
	counts := false
	for _, d := range demand {
		split := int64(d.Sample) / b.slot
		first := FloorDiv(d.Start, b.slot)
		// The backlog drains no faster than the highest rate ever offered.
		fastest := int64(0)
		for _, samples := range d.Lanes {
			fastest = max(fastest, (slices.Max(samples)+split-1)/split)
		}
		for i := range int64(len(d.Lanes[0])) * split {
			t := first + i
			if in := s.From <= t*b.slot && t*b.slot < s.To; in != counts {
				if counts {
					r.Stats = b.Stats(b.t * b.slot)
				}
				counts, queue = in, [lanes]backlog{}
			}
			for l, samples := range d.Lanes {
				offered := part(samples[i/split], i%split, split)
				q := &queue[l]
				passed := g.slot(l, t, offered, min(q.bytes, max(fastest-offered, 0)))
				delayed, longest := q.slot(t, offered, passed, int64(s.Patience)/b.slot)
				if counts {
					r.Offered += offered
					r.Passed += passed
					r.Delayed += delayed
					r.Longest = max(r.Longest, time.Duration(longest*b.slot))
				}
				if s.Slot != nil {
					s.Slot(l, t*b.slot, offered, passed)
				}
			}
		}
	}
	if counts {
		r.Stats = b.Stats(b.t * b.slot)
	}
	return r, nil
}

// part returns the bytes in slot i of the slots of a sample, among which they are spread
// evenly.
func part(bytes, i, slots int64) int64 {
	q, m := bytes/slots, bytes%slots
	return q + m*(i+1)/slots - m*i/slots
}

// backlog is waiting demand, oldest first.
type backlog struct {
	bytes int64
	since []waiting
}

type waiting struct{ slot, bytes int64 }

// slot updates the backlog with the bytes offered and passed in slot t, and removes
// bytes that have waited longer than patience, in slots. It returns how many of
// the passed bytes had waited, and their longest delay.
func (q *backlog) slot(t, offered, passed, patience int64) (delayed, longest int64) {
	left := passed
	for left > 0 && len(q.since) > 0 {
		w := &q.since[0]
		n := min(w.bytes, left)
		left, q.bytes, delayed = left-n, q.bytes-n, delayed+n
		longest = max(longest, t-w.slot)
		if w.bytes -= n; w.bytes == 0 {
			q.since = q.since[1:]
		}
	}
	if rest := offered - left; rest > 0 && patience > 0 {
		q.since = append(q.since, waiting{t, rest})
		q.bytes += rest
	}
	for len(q.since) > 0 && t-q.since[0].slot >= patience {
		q.bytes -= q.since[0].bytes
		q.since = q.since[1:]
	}
	return delayed, longest
}

// shaper is a gate that works a slot at a time. Bytes are spread evenly over a slot.
type shaper struct {
	b         *Budget
	threshold float64
	quota     int64 // the present limit of a sample: the commit or the spent level
	limit     int64 // the same for the shortest sample
	own       [lanes][2]sliding
}

// hold holds to a quota.
func (g *shaper) hold(quota int64) {
	_, longest, limit := g.b.cfg.Poller.Samples(g.b.cfg.Window, quota)
	g.quota, g.limit = quota, limit
	for l := range g.own {
		x := &g.b.passed[l]
		g.own[l] = [2]sliding{
			{b: g.b, passed: x, slots: g.b.slots, quota: limit},
			{b: g.b, passed: x, slots: int64(longest) / g.b.slot, rest: int64(longest) % g.b.slot, quota: quota},
		}
	}
}

// sliding is a gate's own window of some slots and a rest of one: no span of its length
// holds more than its quota.
type sliding struct {
	b                  *Budget
	passed             *sums // of the lane
	slots, rest, quota int64

	// The rate that could be kept up in a slot, and the slot whose window does not allow more.
	rate, slot, tightest int64
}

// room returns the bytes that may pass by the end of the slot that begins after slots from
// now.
func (w *sliding) room(after int64) int64 {
	t := w.b.t
	k := t + after - w.slots
	return w.quota - w.passed.in(k+1, t) - muldiv(w.passed.in(k, k), w.rest, w.b.slot)
}

// fits returns the bytes that may pass in this slot.
func (w *sliding) fits() int64 {
	fits := w.room(0)
	if w.rest > 0 { // the span that ends inside this slot
		held := w.passed.in(w.b.t-w.slots, w.b.t)
		fits = min(fits, int64(float64(w.quota-held)*float64(w.b.slot)/float64(w.rest)))
	}
	return max(fits, 0)
}

// sustainable returns the highest rate, in bytes a slot, that can be kept up until all earlier
// bytes have left the window, or a lower one from want on.
func (w *sliding) sustainable(want int64) int64 {
	// A rate that could be kept up a slot ago, and was not exceeded, still can if the slot's own bytes
	// leave early enough. This saves most searches.
	t := w.b.t
	kept := w.slot == t-1 && w.passed.in(t-1, t-1) <= w.rate && w.room(w.slots-1)/w.slots >= w.rate
	w.slot = t
	if n := w.tightest - t; kept && (want <= w.rate || n >= 0 && w.room(n)/(n+1) <= w.rate) {
		return w.rate
	}
	w.rate = w.quota
	for after := range w.slots {
		if rate := w.room(after) / (after + 1); rate < w.rate {
			w.rate, w.tightest = max(rate, 0), t+after
		}
	}
	return w.rate
}

// slot returns how many of the offered and waiting bytes pass in slot t.
func (g *shaper) slot(lane int, t, offered, waited int64) int64 {
	b := g.b
	now := t * b.slot
	if quota := b.Quota(now); quota != g.quota {
		g.hold(quota)
	}
	threshold := int64(g.threshold * float64(g.limit))
	want := offered + waited
	fits, pass := int64(unlimited), want
	for i := range g.own[lane] {
		w := &g.own[lane][i]
		room := w.fits()
		fits = min(fits, room)
		if room -= w.quota - threshold; pass > room { // above the threshold
			pass = min(pass, max(room, w.sustainable(pass)))
		}
	}
	pass = min(pass, fits)
	spent := g.limit > b.quota
	if spent || pass < want && b.cfg.Policy != Never { // whose window would not allow more
		allowed := want
		if k, limited := b.Limit(now); limited {
			allowed = min(g.allowed(lane, k), want)
		}
		if spent {
			pass = min(pass, allowed)
		} else {
			pass = max(pass, allowed)
		}
	}
	b.Count(lane, now, offered, pass, pass > fits)
	return pass
}

// allowed returns the bytes that may pass in this slot beside those of the slots from k on.
func (g *shaper) allowed(lane int, k int64) int64 {
	quota, held := g.b.quota, g.b.passed[lane].in(k, g.b.t)
	return max(min(max(int64(g.threshold*float64(quota))-held, g.sustainable(lane, k)), quota-held), 0)
}

// sustainable returns the highest rate, in bytes a slot, at which no window from k on
// exceeds the quota before it ends.
func (g *shaper) sustainable(lane int, k int64) int64 {
	b := g.b
	rate := b.quota / b.span
	for ; k <= b.t; k++ {
		rate = min(rate, (b.quota-b.passed[lane].in(k, b.t))/(k+b.span-b.t))
	}
	return max(rate, 0)
}
