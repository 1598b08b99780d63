package bill

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"

	"framepipe/internal/svg"
)

// Plan is the simulations of several commits, the least first.
type Plan []*Simulated

// Plan simulates commits around the bill of the demand, and one more commit if it is
// not 0, in bytes of a window.
func (c *Scenario) Plan(more int64) (Plan, error) {
	commits, err := c.commits()
	if err != nil {
		return nil, err
	}
	if more > 0 {
		commits = append(commits, more)
	}
	slices.Sort(commits)
	commits = slices.Compact(commits)
	p, errs := make(Plan, len(commits)), make([]error, len(commits))
	var all sync.WaitGroup
	running := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, commit := range commits {
		all.Add(1)
		go func() {
			defer all.Done()
			running <- struct{}{}
			if p[i], errs[i] = c.Simulate(commit); errs[i] == nil {
				p[i].Bill.offered, p[i].Bill.passed = nil, nil // which are large
			}
			<-running
		}()
	}
	all.Wait()
	return p, errors.Join(errs...)
}

// The range of a plan, as shares of the bill of the demand, and its maximum number
// of commits.
const (
	planFrom = 0.40
	planTo   = 1.10
	planMost = 14
)

// commits returns about a dozen round rates, in bytes of a window.
func (c *Scenario) commits() (all []int64, err error) {
	natural := c.Natural.BPS(c.Natural.Billed)
	from, to := natural*planFrom, natural*planTo
	if to < 10 {
		return nil, errors.New("there is nothing to plan: next to nothing would be billed, as too few windows have traffic")
	}
	step := math.Ceil(svg.RoundUp((to-from)/planMost, 1, 1.5, 2, 2.5, 3, 4, 5))
	for rate := math.Ceil(from/step) * step; rate <= to; rate += step {
		n, err := Bytes(int64(rate), c.Window)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			all = append(all, n)
		}
	}
	return all, nil
}

// Knee returns the index of the least commit at which 99.9% of the demand passes, -1
// if there is none.
func (p Plan) Knee() int {
	return slices.IndexFunc(p, func(x *Simulated) bool { return x.PassedShare() >= enough })
}

// enough is the share of the demand that passes gates at a commit worth buying.
const enough = 0.999

// Row is a commit of a plan, for output.
type Row struct {
	Commit                         int64 // bits per second, rounded up
	Offered, Passed, Delayed, Lost int64 // bytes
	Cost                           Money // of the cycle, if gates hold the commit
	Paid                           Money // if there are no gates, so that all passes and the rest is overage
	// Mark is "knee" without prices. With them, it is "cheapest" for the row that costs least of those
	// at which gates pass 99.9%, or "pay" for the one that costs least without gates if that is no more.
	Mark string
}

// Rows returns the plan's commits and their costs, which are 0 without prices.
func (p Plan) Rows() []Row {
	rows, knee := make([]Row, len(p)), p.Knee()
	for i, x := range p {
		rate := BitRate(x.Commit, x.Window)
		rows[i] = Row{
			Commit: rate, Offered: x.Offered, Passed: x.Passed, Delayed: x.Delayed, Lost: x.Lost,
			Cost: x.Prices.Of(rate, rate).Total, Paid: x.Prices.Of(rate, BitRate(x.Natural.Billed, x.Window)).Total,
		}
	}
	switch held, paid := cheapest(rows); {
	case len(p) == 0:
	case p[0].Prices.None():
		if knee >= 0 {
			rows[knee].Mark = "knee"
		}
	case held < 0 || rows[paid].Paid <= rows[held].Cost:
		rows[paid].Mark = "pay"
	default:
		rows[held].Mark = "cheapest"
	}
	return rows
}

// cheapest returns the row that costs least with gates that pass 99.9%, -1 if there is none, and the row that
// costs least without gates. Of equal ones it is the last with gates, which passes most.
func cheapest(rows []Row) (held, paid int) {
	held = -1
	for i, x := range rows {
		if share(x.Passed, x.Offered) >= enough && (held < 0 || x.Cost <= rows[held].Cost) {
			held = i
		}
		if x.Paid < rows[paid].Paid {
			paid = i
		}
	}
	return held, paid
}
