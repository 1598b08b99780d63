package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/budget"
	"framepipe/internal/cli"
	"framepipe/internal/ledger"
)

// fromLedger reads the counts of gates up to now: charged bytes, or offered bytes for a
// simulation. Without flags for them, the cycle and the window are the ledger's.
func (c *config) fromLedger(name string, given func(flag string) bool, now int64) (source bill.Source, err error) {
	l, err := ledger.Read(name)
	if errors.Is(err, ledger.ErrDamaged) {
		err = cli.Hint(err, "give the file of quotagate -ledger, or read samples with -csv")
	}
	if err != nil {
		return nil, err
	}
	defer l.Close()
	defer l.Catch(&err)
	cfg := l.Config()
	switch {
	case cfg.Cycle == 0:
		if !given("cycle-day") {
			c.cycleDay = cfg.CycleDay
		}
		if !given("tz") {
			c.zone = cfg.Zone.String()
		}
	case given("cycle-day"):
		return nil, cli.Usagef("-cycle-day is for months, but %s has cycles of %v", name, cli.Duration(cfg.Cycle))
	}
	c.length = cfg.Cycle
	if !given("window") {
		c.window.Duration = cli.Duration(budget.Slots * cfg.Slot)
	}
	// A clock that was ahead for a while may have left counts in the future. Ignore them.
	cycles := slices.DeleteFunc(l.Cycles(), func(x ledger.Cycle) bool { return x.Start > now })
	nothing := fmt.Errorf("%s: no traffic was counted yet", name)
	if len(cycles) == 0 {
		return nil, nothing
	}
	var all bill.Pieces
	room := uint64(mostBytes)
	for i, x := range cycles {
		s, used, sum := readCycle(&x, cfg.Slot, c.simulates(), now)
		if sum > room {
			return nil, fmt.Errorf("%s: %w: the sum of its counts is too large", name, ledger.ErrDamaged)
		}
		room -= sum
		if i == len(cycles)-1 && now < x.End { // drop the current slot if it is empty
			used = max(used, len(s.In)-1)
		}
		if i == len(cycles)-1 {
			s.In, s.Out = s.In[:used], s.Out[:used]
		}
		if len(all) == 0 { // time before the first byte is unknown: no gate counted
			if sum == 0 {
				continue
			}
			first := 0
			for s.In[first]+s.Out[first] == 0 {
				first++
			}
			s.Start += int64(first) * int64(cfg.Slot)
			s.In, s.Out = s.In[first:], s.Out[first:]
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, nothing
	}
	if last := len(all) - 1; len(all[last].In) == 0 {
		all = all[:last] // the cycle has just begun
	}
	return all, nil
}

// mostBytes bounds the sum of all slots of a ledger, so that no sum overflows.
const mostBytes = 1 << 62

// readCycle reads a cycle up to now. used is one more than the last slot with bytes. sum
// is the bytes; reading stops once it exceeds mostBytes.
func readCycle(x *ledger.Cycle, slot time.Duration, offered bool, now int64) (s *bill.Series, used int, sum uint64) {
	n := x.Slots
	if now < x.End {
		n = min(n, int((now-x.Start)/int64(slot))+1)
	}
	s = &bill.Series{Start: x.Start, Slot: slot, In: make([]int64, n), Out: make([]int64, n)}
	for i := range n {
		for d, to := range [...]*int64{ledger.In: &s.In[i], ledger.Out: &s.Out[i]} {
			if *to = x.Bytes(ledger.Direction(d), offered, i); *to > 0 {
				used = i + 1
			}
			if sum += uint64(*to); sum > mostBytes {
				return s, used, sum
			}
		}
	}
	return s, used, sum
}
