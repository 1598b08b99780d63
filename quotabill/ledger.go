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

// fromLedger reads what gates have counted, up to now. What the flags do not say
// of the cycle and the window is the ledger's. It reads what was charged, or for a
// simulation what was offered.
func (c *config) fromLedger(name string, given func(flag string) bool, now int64) (source bill.Source, err error) {
	l, err := ledger.Read(name)
	if errors.Is(err, ledger.ErrDamaged) {
		err = cli.Hint(err, "want the -ledger of a quotagate; samples are read with -csv")
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
		return nil, cli.Usagef("-cycle-day is of months, and %s has cycles of %v", name, cli.Duration(cfg.Cycle))
	}
	c.opened, c.length = true, cfg.Cycle
	if !given("window") {
		c.window.Duration = cli.Duration(budget.Slots * cfg.Slot)
	}
	// A clock that was wrong for a while has left cycles in the future.
	cycles := slices.DeleteFunc(l.Cycles(), func(x ledger.Cycle) bool { return x.Start > now })
	nothing := fmt.Errorf("%s: nothing was counted yet", name)
	if len(cycles) == 0 {
		return nil, nothing
	}
	var all bill.Pieces
	room := uint64(mostBytes)
	for i, x := range cycles {
		s, used, sum := table(&x, cfg.Slot, c.simulates())
		if sum > room {
			return nil, fmt.Errorf("%s: %w: there are more bytes in it than can be counted", name, ledger.ErrDamaged)
		}
		room -= sum
		// Up to now, or to where a replay of old records has come.
		if i == len(cycles)-1 && now < x.End {
			used = max(used, int((now-x.Start)/int64(cfg.Slot)))
		}
		if i == len(cycles)-1 {
			s.In, s.Out = s.In[:used], s.Out[:used]
		}
		if len(all) == 0 { // before the first byte no gate has looked, perhaps
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
		all = all[:last] // it has just begun
	}
	return all, nil
}

// mostBytes is what all the slots of a ledger may have together, so that no sum
// overflows.
const mostBytes = 1 << 62

// table reads what a cycle of a ledger has, charged or offered, how many slots of it
// were used, and the bytes of all of them, of which it reads no more than mostBytes.
func table(x *ledger.Cycle, slot time.Duration, offered bool) (s *bill.Series, used int, sum uint64) {
	s = &bill.Series{Start: x.Start, Slot: slot, In: make([]int64, x.Slots), Out: make([]int64, x.Slots)}
	for i := range x.Slots {
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
