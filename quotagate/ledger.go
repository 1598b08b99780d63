package main

import (
	"errors"
	"time"

	"framepipe/internal/gate"
	"framepipe/internal/ledger"
)

// slotsPerWindow is how finely a ledger divides a window. One slot more than the
// window counts: 1/60 of the quota is given away for the phases between slots.
const slotsPerWindow = 60

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

// Set is flag.Value's.
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

// billing is the flag -bill: what of the two directions is billed.
type billing uint8

const (
	separate billing = iota // each has its own percentile; the larger is billed
	larger                  // the larger of each sample
	both                    // their sum
)

func (b *billing) String() string { return [...]string{"separate", "max", "sum"}[*b] }

// Set is flag.Value's.
func (b *billing) Set(s string) error {
	for i := separate; i <= both; i++ {
		if i.String() == s {
			*b = i
			return nil
		}
	}
	return errors.New("want separate, max or sum")
}

// book is a ledger as a gate of one direction sees it.
type book struct {
	*ledger.Ledger
	dir    ledger.Direction
	dirs   []ledger.Direction // that count against the quota
	window time.Duration
}

// Turn is gate.Book's.
func (b *book) Turn(now int64) (s gate.Slot, err error) {
	charged, offered, end, err := b.At(now, b.dir)
	if err != nil {
		return s, err
	}
	s.Charged, s.Offered, s.End = charged, offered, end
	for _, d := range b.dirs {
		c, _, _, err := b.At(now, d)
		if err != nil {
			return s, err
		}
		s.Now = append(s.Now, c)
		cells, ends := b.Before(now, d, slotsPerWindow+1)
		s.Start = ends[0]
		for i, c := range cells {
			if ends[i] <= s.Start-int64(b.window) {
				break
			}
			if i == len(s.Past) {
				s.Past = append(s.Past, gate.Past{End: ends[i]})
			}
			s.Past[i].Cells = append(s.Past[i].Cells, c)
		}
	}
	return s, nil
}

// Cycle is gate.Book's.
func (b *book) Cycle(s *gate.Slot) (sum int64) {
	for _, c := range b.Cycles() {
		if s.Start < c.Start || s.Start >= c.End {
			continue
		}
		for _, d := range b.dirs {
			for i := range int((s.Start - c.Start) / int64(b.Config().Slot)) {
				sum += c.Bytes(d, false, i)
			}
		}
	}
	return sum
}

// syncing is how often what was counted is written to the disk. A machine that
// stops loses that much.
const syncing = 10 * time.Second

// open opens the ledger of a gate.
func (c *config) open(cfg *gate.Config, warn func(format string, args ...any)) (*book, error) {
	zone, err := time.LoadLocation(c.zone)
	if err != nil {
		return nil, err
	}
	b := &book{dir: c.dir.Direction, dirs: []ledger.Direction{c.dir.Direction}, window: cfg.Window}
	if c.bill == both {
		b.dirs = []ledger.Direction{ledger.In, ledger.Out}
	}
	slot := 5 * time.Second // a month has the slots of windows of five minutes
	if cfg.Cycle == nil {
		slot = cfg.Window / slotsPerWindow
	}
	lc, bounds := ledger.Config{Slot: slot, CycleDay: c.cycleDay, Zone: zone}, gate.Month(c.cycleDay, zone)
	if c.cycle > 0 {
		lc, bounds = ledger.Config{Slot: slot, Cycle: time.Duration(c.cycle)}, gate.Every(time.Duration(c.cycle))
	}
	if b.Ledger, err = ledger.Open(c.ledger, lc, bounds); err != nil {
		return nil, err
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
