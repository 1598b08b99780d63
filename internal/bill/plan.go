package bill

import (
	"errors"
	"math"
	"runtime"
	"slices"

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
	running := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, commit := range commits {
		running <- struct{}{}
		go func() {
			if p[i], errs[i] = c.Simulate(commit); errs[i] == nil {
				p[i].Bill.offered, p[i].Bill.passed = nil, nil // which are large
			}
			<-running
		}()
	}
	for range cap(running) { // wait for the last ones
		running <- struct{}{}
	}
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
		if n, err := Bytes(int64(rate), c.Window); err == nil && n > 0 {
			all = append(all, n)
		}
	}
	return all, nil
}

// held returns the cost of the cycle if gates hold the commit.
func (x *Simulated) held() Money { return x.Bill.cost(x.Commit).Total }

// paid returns the cost if there are no gates, so that all passes and the rest is overage.
func (x *Simulated) paid() Money { return x.Bill.cost(x.Natural.Billed).Total }

// best returns the knee, the least commit at which gates pass 99.9%; of these commits the one that costs least,
// of equal ones the last, which passes most; and the one that costs least without gates. The first two are nil
// if gates pass less at all.
func (p Plan) best() (knee, held, paid *Simulated) {
	paid = p[0]
	for _, x := range p {
		if enough := x.PassedShare() >= 0.999; enough && knee == nil {
			knee, held = x, x
		} else if enough && x.held() <= held.held() {
			held = x
		}
		if x.paid() < paid.paid() {
			paid = x
		}
	}
	return knee, held, paid
}

// marked returns the commit to mark, nil if there is none, and its mark. Without prices it is the knee.
// With them it is the cheapest with gates, or the one to pay without gates if that costs no more.
func (p Plan) marked() (x *Simulated, mark string) {
	knee, held, paid := p.best()
	switch {
	case p[0].Prices.None():
		return knee, "knee"
	case held == nil || paid.paid() <= held.held():
		return paid, "pay"
	}
	return held, "cheapest"
}
