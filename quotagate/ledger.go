package main

import (
	"errors"
	"io/fs"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/cli"
	"framepipe/internal/gate"
	"framepipe/internal/ledger"

	"golang.org/x/sys/unix"
)

// direction is the flag -dir.
type direction struct {
	ledger.Direction
	given bool
}

func (d *direction) String() string {
	if !d.given {
		return ""
	}
	return [...]string{"in", "out"}[d.Direction]
}

// Set implements flag.Value.
func (d *direction) Set(s string) error {
	switch s {
	case "in":
		d.Direction = ledger.In
	case "out":
		d.Direction = ledger.Out
	default:
		return errors.New("want in or out")
	}
	d.given = true
	return nil
}

// billing is the flag -bill: the combination of the two directions in the bill.
type billing uint8

const (
	separate billing = iota // each has its own percentile; the larger is billed
	larger                  // the larger of each sample
	both                    // the sum of each sample
)

var billings = []string{"separate", "max", "sum"}

func (b *billing) String() string { return billings[*b] }

// Set implements flag.Value.
func (b *billing) Set(s string) error { return cli.Choose(b, billings, s) }

// book implements gate.Book with a ledger, for one direction.
type book struct {
	*ledger.Ledger
	bounds func(wall int64) (start, end int64)
	dir    ledger.Direction
	lanes  [][]ledger.Direction // each is held to the quota separately; the gate's own is first
	window time.Duration
	clock  *wallClock
}

// Slot implements gate.Book.
func (b *book) Slot(now int64) (s gate.Slot, err error) {
	s.Shift = b.clock.shift(now)
	x, err := b.At(now+s.Shift, b.dir)
	if err != nil {
		return s, err
	}
	s.Charged, s.Offered, s.Marked = x.Charged, x.Offered, x.Marked
	s.Start, s.End = x.Start-s.Shift, x.End-s.Shift
	for _, d := range b.lanes[0] {
		s.Now = append(s.Now, b.Look(x.Start, d).Charged, b.Look(x.End, d).Charged)
	}
	for end := x.Start; end > x.Start-int64(b.window); {
		p := gate.Past{End: end - s.Shift}
		for _, d := range b.lanes[0] {
			y := b.Look(p.End+s.Shift-1, d)
			p.Cells = append(p.Cells, y.Charged)
			end = y.Start
		}
		s.Past = append(s.Past, p)
	}
	return s, nil
}

// cycle returns the start of the cycle that contains wall.
func (b *book) cycle(wall int64) int64 {
	start, _ := b.bounds(wall)
	return start
}

// Before implements gate.Book.
func (b *book) Before(s *gate.Slot) (sum int64) {
	to := s.Start + s.Shift
	for _, d := range b.lanes[0] {
		sum += b.Charged(b.cycle(to), to, d)
	}
	return sum
}

// Counts implements gate.Book. A budget needs this cycle and the previous one, from
// their first byte on: before it the gate did not run, and demand is unknown, not 0.
func (b *book) Counts(from, to int64, do func(lane int, start, offered, charged int64, marked bool)) {
	begun := from > 0
	if !begun {
		from = b.first(b.cycle(b.cycle(to)-1), to)
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

// first returns the start of the first cycle that starts in [from, to), or to.
func (b *book) first(from, to int64) int64 {
	for _, c := range b.Cycles() {
		if c.Start >= from && c.Start < to {
			return c.Start
		}
	}
	return to
}

// syncing is the interval between writes of the counts to disk. A crash of the machine
// loses the counts since the last write.
const syncing = 10 * time.Second

// percentiled checks that cycles begin with a slot, as a budget requires.
func (c *config) percentiled(window time.Duration) error {
	const step = 15 * time.Minute // UTC offsets of time zones are multiples of it
	slot := window / budget.Slots
	switch {
	case window%budget.Slots != 0 || c.cycle == 0 && step%slot != 0:
		return cli.Usagef("-percentile with -window %v: a sixtieth of the window must divide 15 minutes; use 1m, 5m, 15m or 1h", cli.Duration(window))
	case c.cycle != 0 && time.Duration(c.cycle)%slot != 0:
		return cli.Usagef("-percentile with -cycle %v: must be a multiple of a sixtieth of the window, %v", c.cycle, cli.Duration(slot))
	case c.reserve < 0:
		return cli.Usagef("-reserve %d is negative", c.reserve)
	}
	return nil
}

// open opens the ledger of a gate and creates its budget.
func (c *config) open(cfg *gate.Config, clock *wallClock, warn func(format string, args ...any)) (*book, error) {
	zone, err := time.LoadLocation(c.zone)
	if err != nil {
		return nil, err
	}
	other := ledger.In + ledger.Out - c.dir.Direction
	b := &book{dir: c.dir.Direction, window: cfg.Window, clock: clock}
	switch c.bill {
	case separate:
		b.lanes = [][]ledger.Direction{{b.dir}}
	case larger:
		b.lanes = [][]ledger.Direction{{b.dir}, {other}}
	case both:
		b.lanes = [][]ledger.Direction{{b.dir, other}}
	}
	slot := 5 * time.Second // with -window month, as with a window of five minutes
	if cfg.Cycle == nil {
		slot = cfg.Window / budget.Slots
	}
	lc := ledger.Config{Slot: slot, CycleDay: c.cycleDay, Zone: zone}
	b.bounds = gate.Month(c.cycleDay, zone)
	if c.cycle > 0 {
		lc = ledger.Config{Slot: slot, Cycle: time.Duration(c.cycle)}
		b.bounds = gate.Every(time.Duration(c.cycle))
	}
	if c.percentile > 0 {
		cfg.Budget, err = budget.New(budget.Config{
			Quota: gate.Quota(cfg.Quota, cfg.Rate, cfg.Window), Lanes: len(b.lanes), Window: cfg.Window,
			Free: c.percentile.Above(), Cycle: b.bounds, Reserve: int64(c.reserve),
		})
		if err != nil {
			return nil, err
		}
	}
	b.Ledger, err = ledger.Open(c.ledger, lc, b.bounds)
	switch path := (*fs.PathError)(nil); {
	case errors.Is(err, ledger.ErrTooShort): // the ledger's error does not name the flags
		return nil, cli.Hint(err, "a longer -window, or a shorter -cycle")
	case errors.As(err, new(ledger.DiffersError)):
		return nil, cli.Hint(err, "use the -window, -cycle, -cycle-day and -tz that it was created with, or another -ledger")
	case errors.Is(err, unix.ENOSPC):
		return nil, cli.Hint(err, "make room, or put the -ledger on another disk; it never grows")
	case errors.As(err, &path):
		return nil, cli.Hint(err, "-ledger needs a readable and writable file in an existing directory")
	case err != nil:
		return nil, cli.Hint(err, "move the file away; quotagate then creates a new one")
	}
	go func() {
		failed := false
		for range time.Tick(syncing) {
			err := b.Sync()
			if err != nil && !failed {
				warn("writing back the ledger: %v", err)
			}
			failed = err != nil
		}
	}()
	return b, nil
}
