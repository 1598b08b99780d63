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
func (j *job) fromLedger(now int64) (samples *bill.Samples, err error) {
	l, err := ledger.Read(j.ledger)
	if errors.Is(err, ledger.ErrDamaged) {
		err = cli.Hint(err, "give the file of quotagate -ledger, or read samples with -csv")
	}
	if err != nil {
		return nil, err
	}
	defer l.Close()
	defer l.Catch(&err)
	cfg := l.Config
	switch {
	case cfg.Length == 0:
		if !j.given("cycle-day") {
			j.calendar.Day = cfg.Day
		}
		if !j.given("tz") {
			j.zone = cfg.Zone.String()
		}
	case j.given("cycle-day"):
		return nil, cli.Usagef("-cycle-day is for months, but %s has cycles of %v", j.ledger, cli.Duration(cfg.Length))
	}
	j.calendar.Length, j.terms.Slots = cfg.Length, cfg.Slots
	if !j.given("window") {
		j.window.Duration = cli.Duration(cfg.Window())
	}
	list := readLedger(l, j.simulate || j.plan, now)
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: no traffic was counted yet", j.ledger)
	}
	if samples, err = bill.NewSamples(list, cfg.Slot); err != nil {
		err = fmt.Errorf("%s: %w: %w", j.ledger, ledger.ErrDamaged, err)
	}
	return samples, err
}

// readLedger returns the slots from the first byte on: before it no gate counted. They end
// with the last slot before now, or with the last byte if its cycle is over.
func readLedger(l *ledger.Ledger, offered bool, now int64) (list []bill.Sample) {
	// A clock that was ahead for a while may have left counts in the future. Ignore them.
	cycles := slices.DeleteFunc(l.Cycles(), func(x ledger.Cycle) bool { return x.Start > now })
	used := 0
	for _, x := range cycles {
		for i := range x.Slots {
			in, out := x.Slot(i, ledger.In), x.Slot(i, ledger.Out)
			s := bill.Sample{
				At: in.Start, In: in.Charged.Load(), Out: out.Charged.Load(),
				Beyond: [2]bool{in.Marked.Load(), out.Marked.Load()},
			}
			if offered {
				s.In, s.Out = in.Offered.Load(), out.Offered.Load()
			}
			switch empty := s.In == 0 && s.Out == 0; {
			case s.At > now || empty && (used == 0 || now-s.At < int64(l.Config.Slot)):
				continue
			case !empty:
				used = len(list) + 1
			}
			list = append(list, s)
		}
	}
	if n := len(cycles); n > 0 && now >= cycles[n-1].End {
		list = list[:used]
	}
	return list
}

// compare lays the samples of a provider over a ledger.
func (j *job) compare(s *bill.Samples) error {
	if !j.given("jitter") {
		j.terms.Poller = budget.NewPoller(s.Slot)
	}
	if err := j.checkPoller(s.Slot); err != nil {
		return err
	}
	counts, err := j.fromLedger(time.Now().UnixNano())
	if err != nil {
		return err
	}
	if s.Slot < time.Duration(j.window.Duration) {
		return fmt.Errorf("samples of %v are shorter than the ledger's windows of %v", cli.Duration(s.Slot), j.window.Duration)
	}
	c, err := bill.Compare(s, counts, j.terms.Poller.Jitter, j.calendar.Zone)
	if err != nil {
		return err
	}
	return j.write(c, j.ledger)
}
