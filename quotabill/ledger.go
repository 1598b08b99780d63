package main

import (
	"fmt"
	"slices"

	"framepipe/internal/bill"
	"framepipe/internal/cli"
	"framepipe/internal/ledger"
)

// slotsPerWindow is how many slots of a ledger a gate's window has.
const slotsPerWindow = 60

// fromLedger reads what a gate has counted: of the cycle that now lies in, or of
// the last one there is, and of the one before. What the flags do not say of the
// cycle and the window is the ledger's.
func (c *config) fromLedger(name string, given func(flag string) bool, now int64) (*bill.Series, error) {
	l, err := ledger.Read(name)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	cfg := l.Config()
	if cfg.Cycle != 0 {
		return nil, fmt.Errorf("%s: its cycles have %v each, and bills are of months", name, cfg.Cycle)
	}
	if !given("cycle-day") {
		c.cycleDay = cfg.CycleDay
	}
	if !given("tz") {
		c.zone = cfg.Zone.String()
	}
	if !given("window") {
		c.window.Duration = cli.Duration(slotsPerWindow * cfg.Slot)
	}
	// A clock that was wrong for a while has left cycles in the future.
	cycles := slices.DeleteFunc(l.Cycles(), func(x ledger.Cycle) bool { return x.Start > now })
	if len(cycles) == 0 {
		return nil, fmt.Errorf("%s: nothing was counted yet", name)
	}
	if n := len(cycles); n > 1 && cycles[n-2].End == cycles[n-1].Start && (cycles[n-1].Start-cycles[n-2].Start)%int64(cfg.Slot) == 0 {
		cycles = cycles[n-2:]
	} else {
		cycles = cycles[n-1:]
	}
	s := &bill.Series{Start: cycles[0].Start, Slot: cfg.Slot}
	used := 0
	for _, x := range cycles {
		for i := range x.Slots {
			in, out := x.Bytes(ledger.In, false, i), x.Bytes(ledger.Out, false, i)
			s.In, s.Out = append(s.In, in), append(s.Out, out)
			if in+out > 0 {
				used = len(s.In)
			}
		}
	}
	// Up to now, or to where a replay of old records has come.
	last := cycles[len(cycles)-1]
	if now < last.End {
		used = max(used, int((now-s.Start)/int64(cfg.Slot)))
	}
	s.In, s.Out = s.In[:used], s.Out[:used]
	return s, nil
}
