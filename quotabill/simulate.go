package main

import (
	"bytes"
	"encoding/json"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/budget"
	"framepipe/internal/cli"
)

// threshold is the gate's default.
const threshold = 0.75

func (c *config) simulates() bool { return c.simulate || c.plan }

// checkSimulation checks the flags of simulations against the others.
func (c *config) checkSimulation() error {
	if !c.simulates() {
		if c.threshold != threshold || c.reserve != 0 || c.patience != 0 {
			return cli.Usagef("-threshold, -reserve and -patience go with -simulate or -plan")
		}
		return nil
	}
	switch {
	case c.simulate && c.plan:
		return cli.Usagef("-simulate is for one commit and -plan for several: give one")
	case c.window.Month:
		return cli.Usagef("-window month is a transfer cap: -simulate and -plan are for a percentile")
	case c.simulate && c.rate == 0 && c.quota == 0:
		return cli.Usagef("-simulate needs a commit: give -rate 100Mbit/s, or -quota")
	case c.window.Duration%budget.Slots != 0:
		return cli.Usagef("-window %v: must be divisible by sixty", c.window)
	case c.reserve < 0:
		return cli.Usagef("-reserve %d is negative", c.reserve)
	case c.patience < 0:
		return cli.Usagef("-patience %v is negative", c.patience)
	case c.all || c.prom != "":
		return cli.Usagef("-all and -prom are for bills, not for -simulate or -plan")
	case c.plan && (c.svg != "" || c.slots != ""):
		return cli.Usagef("-svg and -slots are for one commit: give them with -simulate, not -plan")
	case c.missing != bill.Zero:
		return cli.Usagef("-missing is not for -simulate or -plan: they count missing samples as zero")
	}
	return nil
}

// simulateCycle writes the simulation of gates, or a plan.
func (j *job) simulateCycle(w *bytes.Buffer, source bill.Source, name string, style bill.Style) error {
	cycle, err := j.cycle(source)
	if err != nil {
		return err
	}
	scenario, err := bill.NewScenario(source, cycle, bill.Gates{
		Terms: j.terms, Calendar: j.calendar,
		Threshold: float64(j.threshold), Reserve: int64(j.reserve), Patience: time.Duration(j.patience),
	})
	if err != nil {
		return about(name, err)
	}
	if j.plan {
		return about(name, j.writePlan(w, scenario, style))
	}
	x, err := scenario.Simulate(j.terms.Commit)
	if err != nil {
		return about(name, err)
	}
	if j.json {
		err = json.NewEncoder(w).Encode(x.JSON())
	} else {
		err = x.Text(w, style)
	}
	if err != nil {
		return err
	}
	if err := j.draw(x.Bill); err != nil || j.slots == "" {
		return err
	}
	var buf bytes.Buffer
	if err := x.Slots(&buf); err != nil {
		return err
	}
	return cli.Write(j.slots, buf.Bytes())
}

// writePlan writes the simulations of a range of commits.
func (j *job) writePlan(w *bytes.Buffer, scenario *bill.Scenario, style bill.Style) error {
	p, err := scenario.Plan(j.terms.Commit)
	if err != nil {
		return err
	}
	if j.json {
		return p.JSON(w)
	}
	return p.Text(w, style)
}
