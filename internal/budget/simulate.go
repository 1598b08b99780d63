package budget

import "slices"

// Demand is what would have been sent, in samples of a window each.
type Demand struct {
	Start int64   // when the first sample begins
	Bytes []int64 // in each sample; negative: missing
}

// Simulation is how demand is simulated.
type Simulation struct {
	Config
	// Threshold is the gate's: the share of the quota up to which all passes.
	Threshold float64
	// Slot, if not nil, is told of every slot.
	Slot func(start, offered, passed int64)
}

// Result is what a simulation came to.
type Result struct {
	Offered, Passed, Lost int64
	Stats                 // at the end
}

// Run simulates demand from its begin to its end, over as many cycles as that
// takes.
func (s *Simulation) Run(demand ...Demand) (Result, error) {
	b, err := New(s.Config)
	if err != nil {
		return Result{}, err
	}
	g := &shaper{b: b, quota: s.Quota, threshold: int64(s.Threshold * float64(s.Quota))}
	var r Result
	for _, d := range demand {
		base := floorDiv(d.Start, b.slot)
		for i, bytes := range d.Bytes {
			bytes = max(bytes, 0)
			for j := range int64(Slots) {
				offered := part(bytes, j)
				t := base + int64(i)*Slots + j
				passed := g.slot(t, offered)
				r.Offered += offered
				r.Passed += passed
				if s.Slot != nil {
					s.Slot(t*b.slot, offered, passed)
				}
			}
		}
		r.Stats = b.Stats(b.t * b.slot)
	}
	r.Lost = r.Offered - r.Passed
	return r, nil
}

// part is slot j's part of a sample's bytes.
func part(bytes, j int64) int64 {
	q, m := bytes/Slots, bytes%Slots
	return q + m*(j+1)/Slots - m*j/Slots
}

// shaper is the gate, a slot at a time. Bytes are spread evenly over a slot, so
// that a window that begins inside one holds no more than the larger of the two
// that begin with it and with the next: the gate's own window needs no slot more.
type shaper struct {
	b         *Budget
	quota     int64
	threshold int64
}

// slot lets pass what may of what is offered in slot t.
func (g *shaper) slot(t, offered int64) int64 {
	b := g.b
	now := t * b.slot
	b.Offer(now, offered)
	used := b.held(t - Slots + 1)
	fits := max(g.quota-used, 0) // into the gate's own window
	var pass int64
	if b.Free(now) {
		pass = max(fits, b.Room(now))
	} else {
		own := max(g.threshold-used, b.sustainable(t-Slots+1, Slots))
		tail := min(max(g.threshold-b.Used(now), b.Sustainable(now)), b.Room(now))
		pass = max(own, tail, 0)
	}
	pass = min(pass, offered)
	b.Pass(now, pass, pass > fits)
	return pass
}

// AllKnowing is what a scheduler passes that knows all demand and the phase of
// the poller: all up to the quota, and the free samples that exceed it most.
func AllKnowing(quota int64, free Ratio, samples []int64) int64 {
	excess := make([]int64, 0, len(samples))
	sum := int64(0)
	for _, s := range samples {
		sum += min(max(s, 0), quota)
		excess = append(excess, max(s-quota, 0))
	}
	slices.Sort(excess)
	slices.Reverse(excess)
	n := FreeWindows(int64(len(samples)+1), 1, free)
	for _, e := range excess[:n] {
		sum += e
	}
	return sum
}
