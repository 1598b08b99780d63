package bill

import (
	"framepipe/internal/budget"
	"framepipe/internal/calendar"
)

// Free is the free windows of a cycle as gates count them: the most disjoint windows of any poller
// (see package budget), so that a bill says what the gates' metrics say.
type Free struct{ Total, Used int }

// add adds a budget. A provider bills the direction that has more.
func (f *Free) add(s budget.Stats) {
	f.Total, f.Used = int(s.Total), max(f.Used, int(s.Used))
}

// budget returns the configuration of the gates' budget.
func (c *Terms) budget(commit int64, cycle func(int64) (start, end int64)) budget.Config {
	return budget.Config{
		Quota: commit, Window: c.Window, Percentile: c.Percentile, Cycle: cycle, Reserve: c.Reserve, Poller: c.Poller, Slots: c.Slots,
	}
}

// free counts the free windows of a cycle of a ledger.
func (s *Samples) free(cycle calendar.Cycle, c Terms) (*Free, error) {
	f := &Free{}
	length := cycle.End - cycle.Start
	cfg := c.budget(c.Commit, func(at int64) (start, end int64) {
		start = cycle.Start + budget.FloorDiv(at-cycle.Start, length)*length
		return start, start + length
	})
	cfg.Policy, cfg.Hard = budget.Never, true // these do not change the counts
	cfg.Whole = s.list[0].At <= cycle.Start
	for _, gates := range c.Method.budgets() {
		cfg.Lanes = len(gates)
		b, err := budget.New(cfg)
		if err != nil {
			return nil, err
		}
		// Windows that begin before the cycle may end in it.
		first := s.index(cycle.Start - 2*int64(c.Window))
		for _, x := range s.list[first:s.index(cycle.End)] {
			for lane, m := range gates {
				bytes := m.Value(x.In, x.Out)
				b.Count(lane, x.At, bytes, bytes, m != Out && x.Beyond[0] || m != In && x.Beyond[1])
			}
		}
		f.add(b.Stats(min(s.list[len(s.list)-1].At, cycle.End-1)))
	}
	return f, nil
}
