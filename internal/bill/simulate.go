package bill

import (
	"fmt"
	"slices"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
)

// Gates configures the simulated gates of both directions, which limit demand to a
// commit by the provider's terms.
type Gates struct {
	Terms // without the commit: see Simulate
	calendar.Calendar
	Threshold float64       // share of the commit up to which all bytes pass
	Patience  time.Duration // how long demand that may not pass waits
}

// Scenario is a cycle of past demand offered to gates. The gates learn from the cycle
// before it.
type Scenario struct {
	Gates
	// Cycle is the known part of the cycle: it has its share of the free windows, so that what gates
	// pass of it compares with the bill of the demand. Part is set if that is not all.
	Cycle calendar.Cycle
	Part  bool
	// Natural is the bill of the known demand, if all of it had passed.
	Natural *Bill

	slot   time.Duration // of the gates
	demand *Series       // up to a window past the cycle's end
}

// NewScenario reads the demand of a cycle and of the one before it, from which a gate that starts learns.
func NewScenario(s *Samples, cycle calendar.Cycle, g Gates) (*Scenario, error) {
	slots, err := g.Calendar.Divide(g.Window)
	if err != nil {
		return nil, err
	}
	g.Commit, g.Cap, g.Missing, g.Slots = 0, 0, Zero, slots
	natural, err := New(s, cycle, g.Zone, g.Terms)
	if err != nil {
		return nil, err
	}
	if g.Method.Value(natural.InBytes, natural.OutBytes) == 0 {
		return nil, fmt.Errorf("no traffic was offered in the cycle %s", cycle.Name)
	}
	c := &Scenario{Gates: g, Cycle: cycle, Natural: natural, slot: g.Window / time.Duration(slots)}
	slot := int64(c.slot) // the known part, if it is a window or more, is a cycle of its own
	start, end := ceilDiv(natural.From, slot)*slot, budget.FloorDiv(min(natural.To, cycle.End), slot)*slot
	whole := start-cycle.Start < slot && cycle.End-end < slot
	if !whole && end-start >= int64(c.Window) {
		c.Cycle.Start, c.Cycle.End, c.Part = start, end, true
		if c.Natural, err = New(s, c.Cycle, c.Zone, c.Terms); err != nil {
			return nil, err
		}
	}
	before, _ := g.Calendar.Bounds(cycle.Start - 1)
	c.demand = s.demand(before, c.Cycle.End+int64(g.Window), c.slot)
	return c, nil
}

// Bounds returns the bounds of the budget's cycle at a time: the known part is a cycle of its own.
func (c *Scenario) Bounds(at int64) (start, end int64) {
	start, end = c.Calendar.Bounds(at)
	for _, edge := range []int64{c.Cycle.Start, c.Cycle.End} {
		if at < edge {
			end = min(end, edge)
		} else {
			start = max(start, edge)
		}
	}
	return start, end
}

// budgets returns the methods of the gates that share a budget: with Max a window is free for
// both directions.
func (m Method) budgets() [][]Method {
	return [...][][]Method{Separate: {{In}, {Out}}, Max: {{In, Out}}, Sum: {{Sum}}, In: {{In}}, Out: {{Out}}}[m]
}

// demand returns the samples of a span. They are merged so that their length becomes a multiple of slot. As
// sample and slot both divide a window, so does the new length.
func (s *Samples) demand(start, end int64, slot time.Duration) *Series {
	length := int64(s.Slot)
	for length%int64(slot) != 0 {
		length += int64(s.Slot)
	}
	list := s.list[s.index(start):s.index(end)]
	// Start on a multiple of length, or with the sample that contains it.
	at := list[0].At
	at -= (at - budget.FloorDiv(at, length)*length) / int64(s.Slot) * int64(s.Slot)
	x := newSeries(at, time.Duration(length), (list[len(list)-1].At-at)/length+1)
	for _, y := range list {
		i := (y.At - at) / length
		x.In[i] += y.In
		x.Out[i] += y.Out
	}
	return x
}

// Simulated is the result of gates in a cycle. Bytes are summed over all directions
// that the method counts.
type Simulated struct {
	*Scenario
	Commit                         int64 // bytes of a window
	Offered, Passed, Delayed, Lost int64
	Longest                        time.Duration // longest delay of a byte that passed
	Flat                           int64         // bytes that would pass without free windows
	// Bill is the bill of the bytes that passed.
	Bill *Bill
}

// Simulate limits the demand to a commit, in bytes of a window.
func (c *Scenario) Simulate(commit int64) (*Simulated, error) {
	x := &Simulated{Scenario: c, Commit: commit}
	slot := int64(c.slot)
	start := ceilDiv(c.Cycle.Start, slot) * slot
	n := ceilDiv(c.Cycle.End+int64(c.Window)-start, slot)
	offered, passed, counted := newSeries(start, c.slot, n), newSeries(start, c.slot, n), &Free{}
	passed.Known = slices.Repeat([]bool{true}, int(n))
	offered.Known = passed.Known
	for _, gates := range c.Method.budgets() {
		if err := x.run(gates, offered, passed, counted); err != nil {
			return nil, err
		}
	}
	x.Lost = x.Offered - x.Passed
	terms := c.Terms
	terms.Commit = commit
	x.Bill = newBill(passed, c.Cycle, c.Zone, terms, counted)
	x.Bill.From, x.Bill.To, x.Bill.Simulated = c.Natural.From, c.Natural.To, true
	x.Bill.offered, x.Bill.Source = offered, c.Natural.Source
	return x, nil
}

// run simulates gates that share a budget: with the budget, and without it.
func (x *Simulated) run(gates []Method, offered, passed *Series, counted *Free) error {
	demand, idle := budget.Demand{Start: x.demand.Start, Sample: x.demand.Slot}, true
	for _, m := range gates {
		lane := make([]int64, len(x.demand.In))
		for i := range lane {
			lane[i] = m.Value(x.demand.In[i], x.demand.Out[i])
			idle = idle && lane[i] == 0
		}
		demand.Lanes = append(demand.Lanes, lane)
	}
	if idle { // as a file of one direction has another
		return nil
	}
	cfg := x.Terms.budget(x.Commit, x.Bounds)
	cfg.Lanes, cfg.Whole = len(gates), true
	cfg.Hard = true // the gates hold all that counts to the commit, so it is never lost
	s := budget.Simulation{
		Config: cfg, Threshold: x.Threshold, Patience: x.Patience, From: x.Cycle.Start, To: x.Cycle.End,
		Slot: func(lane int, start, o, p int64) {
			i := int((start - passed.Start) / int64(passed.Slot))
			if start >= passed.Start && i < len(passed.In) {
				offered.direction(gates[lane])[i] += o
				passed.direction(gates[lane])[i] += p
			}
		},
	}
	r, err := s.Run(demand)
	if err != nil {
		return err
	}
	x.Offered += r.Offered
	x.Passed += r.Passed
	x.Delayed += r.Delayed
	x.Longest = max(x.Longest, r.Longest)
	counted.add(r.Stats)

	s.Policy, s.Slot = budget.Never, nil
	if r, err = s.Run(demand); err != nil {
		return err
	}
	x.Flat += r.Passed
	return nil
}

// share returns part/whole, and 1 if whole is 0.
func share(part, whole int64) float64 {
	if whole == 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

// PassedShare returns the share of the offered bytes that passed.
func (x *Simulated) PassedShare() float64 { return share(x.Passed, x.Offered) }

// FlatShare returns the share that passes without free windows.
func (x *Simulated) FlatShare() float64 { return share(x.Flat, x.Offered) }
