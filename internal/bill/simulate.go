package bill

import (
	"fmt"
	"slices"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
)

// Gates configures the simulated gates of both directions, which limit demand to a
// commit by the provider's terms.
type Gates struct {
	Terms // without the commit: see Simulate
	calendar.Calendar
	Threshold float64       // share of the commit up to which all bytes pass
	Reserve   int64         // free windows that are never used
	Patience  time.Duration // how long demand that may not pass waits
}

// Scenario is a cycle of past demand offered to gates. The gates learn from the cycles
// before it.
type Scenario struct {
	Gates
	Cycle calendar.Cycle
	// From and To bound the known demand of the cycle, in nanoseconds since
	// the Unix epoch. The rest of the cycle counts as idle.
	From, To int64
	// Natural is the bill of the known demand, if all of it had passed.
	Natural *Bill

	windows []Window  // of the whole cycle
	demand  []*Series // up to a window past the cycle's end
	runs    [][]int   // groups of columns that share a budget
}

// NewScenario reads the demand of a cycle and of all cycles before it.
func NewScenario(s Source, cycle calendar.Cycle, g Gates) (*Scenario, error) {
	g.Cap, g.Missing = 0, Zero
	if g.Window%budget.Slots != 0 {
		return nil, fmt.Errorf("windows of %v cannot be divided into sixty slots", cli.Duration(g.Window))
	}
	c := &Scenario{Gates: g, Cycle: cycle}
	known, err := s.Series(cycle.Start, cycle.End)
	if err != nil {
		return nil, err
	}
	if len(known.In) == 0 {
		return nil, fmt.Errorf("there is no data for the cycle %s", cycle.Name)
	}
	c.From, c.To = known.Start, min(known.at(len(known.In)), cycle.End)
	after, err := s.Series(cycle.Start, cycle.End+int64(g.Window))
	if err != nil {
		return nil, err
	}
	after = after.fold(g.Method)
	if c.Natural, err = New(after, cycle, g.Zone, g.Terms); err != nil {
		return nil, err
	}
	if c.windows, err = after.windows(cycle, g.Window); err != nil {
		return nil, err
	}
	all, err := upTo(s, cycle.End+int64(g.Window))
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		c.demand = append(c.demand, x.fold(g.Method).regroup(c.slot()))
	}
	if c.group(); len(c.runs) == 0 {
		return nil, fmt.Errorf("no traffic was offered before the end of the cycle %s", cycle.Name)
	}
	return c, nil
}

func (c *Scenario) slot() time.Duration { return c.Window / budget.Slots }

// group groups the columns of the demand that share a budget: with Separate each
// column has its own; with Max a window is free for both. A
// column without bytes needs none.
func (c *Scenario) group() {
	var used []int
	for _, column := range []int{colIn, colOut} {
		if slices.ContainsFunc(c.demand, func(s *Series) bool {
			return slices.ContainsFunc(s.column(column), func(n int64) bool { return n > 0 })
		}) {
			used = append(used, column)
		}
	}
	switch {
	case c.Method == Separate:
		for _, column := range used {
			c.runs = append(c.runs, []int{column})
		}
	case len(used) > 0:
		c.runs = [][]int{used}
	}
}

// Simulated is the result of gates in a cycle. Bytes are summed over all directions
// that the method counts.
type Simulated struct {
	*Scenario
	Commit                         int64 // bytes of a window
	Offered, Passed, Delayed, Lost int64
	Longest                        time.Duration // longest delay of a byte that passed
	// Flat is the bytes that would pass without free windows. Best is the bytes
	// that a scheduler would pass if it knew all demand and the poller's phase, of
	// Whole, the demand in windows of that phase.
	Flat, Best, Whole int64
	// Bill is the bill of the bytes that passed.
	Bill *Bill

	offered, passed *Series // slots of the cycle, and of a window after it
}

// Simulate limits the demand to a commit, in bytes of a window.
func (c *Scenario) Simulate(commit int64) (*Simulated, error) {
	x := &Simulated{Scenario: c, Commit: commit}
	slot := int64(c.slot())
	start := ceilDiv(c.Cycle.Start, slot) * slot
	n := ceilDiv(c.Cycle.End+int64(c.Window)-start, slot)
	if n > MaxSlots {
		return nil, fmt.Errorf("windows of %v have more than %d slots a cycle: too many", cli.Duration(c.Window), MaxSlots)
	}
	x.offered, x.passed = newSeries(start, c.slot(), int(n)), newSeries(start, c.slot(), int(n))
	for _, lanes := range c.runs {
		if err := x.run(lanes); err != nil {
			return nil, err
		}
	}
	x.Lost = x.Offered - x.Passed
	terms := c.Terms
	terms.Commit = commit
	var err error
	if x.Bill, err = New(x.passed, c.Cycle, c.Zone, terms); err != nil {
		return nil, err
	}
	x.Bill.From, x.Bill.To, x.Bill.Simulated = c.From, c.To, true
	return x, nil
}

// run simulates the gates of some lanes: with a budget, without one, and with all
// demand known in advance.
func (x *Simulated) run(lanes []int) error {
	var demand []budget.Demand
	for _, s := range x.demand {
		demand = append(demand, s.demand(lanes))
	}
	s := budget.Simulation{
		Config: budget.Config{
			Quota: x.Commit, Window: x.Window, Free: x.Percentile.Above(), Cycle: x.Bounds, Reserve: x.Reserve,
		},
		Threshold: x.Threshold, Patience: x.Patience, From: x.Cycle.Start, To: x.Cycle.End,
		Slot: func(lane int, start, offered, passed int64) {
			i := int((start - x.passed.Start) / int64(x.passed.Slot))
			if start >= x.passed.Start && i < len(x.passed.In) {
				x.offered.column(lanes[lane])[i] += offered
				x.passed.column(lanes[lane])[i] += passed
			}
		},
	}
	r, err := s.Run(demand...)
	if err != nil {
		return err
	}
	x.Offered += r.Offered
	x.Passed += r.Passed
	x.Delayed += r.Delayed
	x.Longest = max(x.Longest, r.Longest)

	s.Policy, s.Slot = budget.Never, nil
	if r, err = s.Run(demand...); err != nil {
		return err
	}
	x.Flat += r.Passed

	windows := make([][]int64, len(lanes))
	for i, column := range lanes {
		for _, w := range x.windows {
			v := [...]int64{colIn: w.In, colOut: w.Out}[column]
			windows[i] = append(windows[i], v)
			x.Whole += v
		}
	}
	x.Best += budget.AllKnowing(x.Commit, x.Percentile.Above(), windows...)
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

// BestShare returns the share that passes if all demand is known in advance.
func (x *Simulated) BestShare() float64 { return share(x.Best, x.Whole) }
