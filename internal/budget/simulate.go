package budget

import (
	"fmt"
	"slices"
	"time"
)

// Demand is offered traffic, in samples of equal length.
type Demand struct {
	Start  int64         // when the first sample begins, nanoseconds since the Unix epoch
	Sample time.Duration // length of a sample: a multiple of a slot
	Lanes  [][]int64     // the bytes of each sample, for every lane
}

// Simulation configures a simulation of demand.
type Simulation struct {
	Config
	// Threshold is the gate's: the share of the quota up to which all bytes pass.
	Threshold float64
	// Patience is how long demand that may not pass waits before it is lost.
	Patience time.Duration
	// From and To bound the result to slots that begin in this span, in nanoseconds
	// since the Unix epoch. If To is 0, all slots count. Demand that waits when the
	// span begins or ends is lost.
	From, To int64
	// Slot, if not nil, is called for every slot, lane by lane.
	Slot func(lane int, start, offered, passed int64)
}

// Result is the result of a simulation.
type Result struct {
	Offered, Passed int64
	Delayed         int64 // of Passed, after the slot of arrival
	Lost            int64
	Longest         time.Duration // longest delay of a byte that passed
	Stats                         // at the end of the span, or of the demand
}

// Run simulates demand from its start to its end, which may span several cycles.
// Demand that still waits at the end is lost.
func (s *Simulation) Run(demand ...Demand) (r Result, err error) {
	cfg := s.Config
	if len(demand) > 0 {
		cfg.Lanes = len(demand[0].Lanes)
	}
	b, err := New(cfg)
	if err != nil {
		return r, err
	}
	g := shaper{b: b, threshold: s.Threshold}
	var queue [lanes]backlog
	counts := s.To == 0
	for _, d := range demand {
		split := int64(d.Sample) / b.slot
		if split < 1 || int64(d.Sample)%b.slot != 0 {
			return r, fmt.Errorf("samples of %v are not a multiple of slots of %v", d.Sample, time.Duration(b.slot))
		}
		first := FloorDiv(d.Start, b.slot)
		// The backlog drains no faster than the highest rate ever offered.
		fastest := int64(0)
		for _, samples := range d.Lanes {
			fastest = max(fastest, (slices.Max(samples)+split-1)/split)
		}
		for i := range int64(len(d.Lanes[0])) * split {
			t := first + i
			if in := s.To == 0 || s.From <= t*b.slot && t*b.slot < s.To; in != counts {
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
	r.Lost = r.Offered - r.Passed
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
	var longest time.Duration
	_, longest, g.limit = g.b.cfg.Poller.Samples(g.b.cfg.Window, quota)
	g.quota = quota
	for l := range g.own {
		g.own[l] = [2]sliding{
			{slots: g.b.slots, quota: g.limit},
			{slots: int64(longest) / g.b.slot, rest: int64(longest) % g.b.slot, quota: quota},
		}
	}
}

// sliding is a gate's own window of some slots and a rest of one: no span of its length
// holds more than its quota.
type sliding struct {
	slots, rest, quota int64

	// The rate that could be kept up in a slot, and the slot whose window does not allow more.
	rate, slot, tightest int64
}

// room returns the bytes that may pass by the end of the slot that begins after slots from
// now.
func (w *sliding) room(x *lane, b *Budget, after int64) int64 {
	k := min(b.t+after-w.slots, b.t)
	room := w.quota - x.held(k+1)
	if oldest := x.upTo(k) - x.upTo(k-1); w.rest > 0 && oldest > 0 {
		room -= muldiv(oldest, w.rest, b.slot)
	}
	return room
}

// fits returns the bytes that may pass in this slot.
func (w *sliding) fits(x *lane, b *Budget) int64 {
	fits := w.room(x, b, 0)
	if w.rest > 0 { // the span that ends inside this slot
		fits = min(fits, int64(float64(w.quota-x.held(b.t-w.slots))*float64(b.slot)/float64(w.rest)))
	}
	return max(fits, 0)
}

// sustainable returns the highest rate, in bytes a slot, that can be kept up until all earlier
// bytes have left the window, or a lower one from want on.
func (w *sliding) sustainable(x *lane, b *Budget, want int64) int64 {
	// A rate that could be kept up a slot ago, and was not exceeded, still can if the slot's own bytes
	// leave early enough. This saves most searches.
	kept := w.slot == b.t-1 && x.upTo(b.t-1)-x.upTo(b.t-2) <= w.rate && w.room(x, b, w.slots-1)/w.slots >= w.rate
	w.slot = b.t
	if n := w.tightest - b.t; kept && (want <= w.rate || n >= 0 && w.room(x, b, n)/(n+1) <= w.rate) {
		return w.rate
	}
	w.rate = w.quota
	for after := range w.slots {
		if rate := w.room(x, b, after) / (after + 1); rate < w.rate {
			w.rate, w.tightest = max(rate, 0), b.t+after
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
	x := &b.lane[lane]
	threshold := int64(g.threshold * float64(g.limit))
	want := offered + waited
	fits, pass := int64(unlimited), want
	for i := range g.own[lane] {
		w := &g.own[lane][i]
		room := w.fits(x, b)
		fits = min(fits, room)
		if room -= w.quota - threshold; pass > room { // above the threshold
			pass = min(pass, max(room, w.sustainable(x, b, pass)))
		}
	}
	pass = min(pass, fits)
	if pass == want || b.cfg.Policy == Never { // the budget's own window would not allow more
		b.Count(lane, now, offered, pass, false)
		return pass
	}
	if k, limited := b.Limit(now); !limited {
		pass = want
	} else if pass < want {
		held := x.held(k)
		pass = max(pass, min(max(threshold-held, g.sustainable(x, k)), g.limit-held))
	}
	pass = min(max(pass, 0), want)
	b.Count(lane, now, offered, pass, pass > fits)
	return pass
}

// sustainable returns the highest rate, in bytes a slot, at which no window from k on
// exceeds the quota before it ends.
func (g *shaper) sustainable(x *lane, k int64) int64 {
	b := g.b
	rate := g.limit / b.span
	for ; k <= b.t; k++ {
		rate = min(rate, (g.limit-x.held(k))/(k+b.span-b.t))
	}
	return max(rate, 0)
}
