package main

import (
	"cmp"
	"errors"
	"io/fs"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/cli"
	"framepipe/internal/gate"
	"framepipe/internal/ledger"

	"golang.org/x/sys/unix"
)

// book implements gate.Book with a ledger, for one direction.
type book struct {
	*ledger.Ledger
	dir    ledger.Direction
	lanes  [][]ledger.Direction // each is held to the quota separately; the gate's own is first
	window time.Duration        // the longest sample
	clock  *wallClock
}

// View implements gate.Book.
func (b *book) View(now int64) (v gate.View, err error) {
	v.Shift = b.clock.shift(now)
	slot, err := b.At(now+v.Shift, b.dir)
	if err != nil {
		return v, err
	}
	v.Charged, v.Offered, v.Marked = slot.Charged, slot.Offered, slot.Marked
	v.Start, v.End = slot.Start-v.Shift, slot.End-v.Shift
	for _, d := range b.lanes[0] {
		v.Now = append(v.Now, b.Look(slot.Start, d).Charged, b.Look(slot.End, d).Charged)
	}
	for end := slot.Start; end > slot.Start-int64(b.window); {
		p := gate.Past{End: end - v.Shift}
		for _, d := range b.lanes[0] {
			past := b.Look(p.End+v.Shift-1, d)
			p.Charged = append(p.Charged, past.Charged)
			end = past.Start
		}
		v.Past = append(v.Past, p)
	}
	return v, nil
}

// Before implements gate.Book.
func (b *book) Before(v *gate.View) (sum int64) {
	for _, d := range b.lanes[0] {
		sum += b.Charged(v.Start+v.Shift, d)
	}
	return sum
}

// Counts implements gate.Book. A budget needs this cycle and the previous one, from
// their first byte on: before it the gate did not run, and demand is unknown, not 0.
func (b *book) Counts(from, to int64, do func(lane int, start, offered, charged int64, marked bool)) {
	begun := from > 0
	if !begun {
		start, _ := b.Config.Bounds(to)
		start, _ = b.Config.Bounds(start - 1)
		from = to
		for _, c := range b.Cycles() {
			if c.Start >= start {
				from = min(from, c.Start)
			}
		}
	}
	for at := from; at < to; {
		var x ledger.Slot
		for lane, dirs := range b.lanes {
			offered, charged, marked := int64(0), int64(0), false
			for _, d := range dirs {
				x = b.Look(at, d)
				offered, charged = offered+x.Offered.Load(), charged+x.Charged.Load()
				marked = marked || x.Marked.Load()
			}
			if begun = begun || offered+charged > 0; begun {
				do(lane, x.Start, offered, charged, marked)
			}
		}
		at = x.End
	}
}

// open opens the ledger of a gate and creates its budget.
func (c *config) open(clock *wallClock, warn func(format string, args ...any)) (b *book, err error) {
	g, other := &c.gate, ledger.In+ledger.Out-c.dir
	b = &book{dir: c.dir, window: g.Window + 2*g.Poller.Jitter, clock: clock}
	each := [][]ledger.Direction{{c.dir}, {other}}
	b.lanes = [][][]ledger.Direction{separate: each, larger: each, both: {{c.dir, other}}}[c.bill]
	cfg := ledger.Config{Slots: cmp.Or(c.slots, budget.Slots), Calendar: c.calendar}
	cfg.Slot = g.Window / time.Duration(cfg.Slots)
	if g.Cycle != nil {
		cfg.Slot = 5 * time.Second // with -window month, as with a window of five minutes
	}
	if c.percentile > 0 {
		g.Budget, err = budget.New(budget.Config{
			Quota: g.Bytes(g.Window), Lanes: len(b.lanes), Window: g.Window, Slots: cfg.Slots,
			Percentile: c.percentile, Cycle: c.calendar.Bounds, Reserve: c.reserve, Poller: g.Poller,
			Separate: c.bill == separate, Hard: c.hard, Whole: c.whole,
		})
		if err != nil {
			return nil, err
		}
	}
	if b.Ledger, err = ledger.Open(c.ledger, cfg); err != nil {
		return nil, hint(err)
	}
	g.Book = b
	go b.sync(warn)
	return b, nil
}

// hint adds to an error of opening a ledger what to do about it. The ledger knows nothing
// of flags.
func hint(err error) error {
	switch {
	case errors.Is(err, ledger.ErrTooShort):
		return cli.Hint(err, "a longer -window, or a shorter -cycle")
	case errors.Is(err, ledger.ErrDiffers):
		return cli.Hint(err, "use the -window, -cycle, -cycle-day and -tz that it was created with, or another -ledger")
	case errors.Is(err, unix.ENOSPC):
		return cli.Hint(err, "make room, or put the -ledger on another disk; it never grows")
	case errors.As(err, new(*fs.PathError)):
		return cli.Hint(err, "-ledger needs a readable and writable file in an existing directory")
	}
	return cli.Hint(err, "move the file away; quotagate then creates a new one")
}

// sync writes the counts to disk every ten seconds: a crash of the machine loses the counts since.
// It warns of an error once.
func (b *book) sync(warn func(format string, args ...any)) {
	failed := false
	for range time.Tick(10 * time.Second) {
		err := b.Sync()
		if err != nil && !failed {
			warn("writing back the ledger: %v", err)
		}
		failed = err != nil
	}
}
