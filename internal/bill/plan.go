package bill

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	p := make(Plan, len(commits))
	err = parallel(len(commits), func(i int) (err error) {
		if p[i], err = c.Simulate(commits[i]); err == nil {
			p[i].offered, p[i].passed = nil, nil // which are large
		}
		return err
	})
	return p, err
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
		return nil, errors.New("next to nothing would be billed for the demand: too few of its windows have any")
	}
	step := math.Ceil(round((to - from) / planMost))
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

// round returns the least step, x or more, whose multiples are round numbers.
func round(x float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(x)))
	for _, f := range []float64{1, 1.5, 2, 2.5, 3, 4, 5} {
		if f*unit >= x*(1-1e-12) {
			return f * unit
		}
	}
	return 10 * unit
}

// parallel calls do for the numbers 0 to n-1, on all processors.
func parallel(n int, do func(i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				errs[i] = do(i)
			}
		}()
	}
	all.Wait()
	return errors.Join(errs...)
}

// Knee returns the index of the least commit at which 99.9% of the demand passes, -1
// if there is none.
func (p Plan) Knee() int {
	return slices.IndexFunc(p, func(x *Simulated) bool { return x.PassedShare() >= 0.999 })
}

// Text writes the plan for people.
func (p Plan) Text(w io.Writer, s Style) error {
	var t strings.Builder
	p[0].head(s.lines(&t))
	patient := p[0].Patience > 0
	row := func(commit, billed, passed, flat, delayed, lost, free, mark string) {
		if patient {
			delayed = fmt.Sprintf(" %9s", delayed)
		} else {
			delayed = "" // there is none
		}
		fmt.Fprintf(&t, "%11s %11s %8s %7s%s %9s %13s%s\n", commit, billed, passed, flat, delayed, lost, free, mark)
	}
	t.WriteByte('\n')
	row("commit", "billed", "passed", "flat", "delayed", "lost", "free used", "")
	knee := p.Knee()
	for i, x := range p {
		mark := ""
		if i == knee {
			mark = s.paint(colourLine, " knee")
		}
		b := x.Bill
		row(b.rate(x.Commit), b.rate(b.Billed), percent(x.PassedShare()), percent(x.FlatShare()), amount(x.Delayed), amount(x.Lost),
			fmt.Sprintf("%s of %s", thousands(b.FreeUsed), thousands(b.FreeTotal)), mark)
	}
	switch knee {
	case -1:
		fmt.Fprintf(&t, "\n%s\n", s.paint(colourDim, "None of these passes 99.9%."))
	case 0:
		fmt.Fprintf(&t, "\n%s\n", s.paint(colourDim, "The least of these is enough, and less may be."))
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// JSON writes the plan for programs, an object a line.
func (p Plan) JSON(w io.Writer) error {
	knee := p.Knee()
	for i, x := range p {
		j, is := x.JSON(), i == knee
		j.Knee = &is
		if err := json.NewEncoder(w).Encode(j); err != nil {
			return err
		}
	}
	return nil
}
