// Package calendar divides time into billing cycles: months, or spans of a fixed length.
package calendar

import (
	"errors"
	"fmt"
	"time"
)

// Cycle is a billing cycle.
type Cycle struct {
	Name       string // the month in which it begins: 2005-06; or for a fixed length, its start
	Start, End int64  // nanoseconds since the Unix epoch
}

const (
	// MaxSlots is the maximum number of slots of a cycle, in a ledger and in a bill.
	MaxSlots = 1 << 22
	// Slots is the usual number of slots of a window, and the greatest.
	Slots = 60
)

// Calendar divides time into consecutive billing cycles.
type Calendar struct {
	// Day is the day of the month on whose midnight cycles begin, in Zone. In a month
	// without that day, the cycle begins on the last day. If clocks skip midnight, the
	// day begins at the change.
	Day  int
	Zone *time.Location
	// Length, if not 0, is the length of all cycles, which begin at multiples
	// of it since the Unix epoch: at midnight UTC for a day. Then Day does not count.
	Length time.Duration
}

// Bounds returns the bounds of the cycle that contains a time, nanoseconds since
// the Unix epoch.
func (c Calendar) Bounds(at int64) (start, end int64) {
	if c.Length > 0 {
		start = at - at%int64(c.Length)
		return start, start + int64(c.Length)
	}
	year, month, _ := time.Unix(0, at).In(c.Zone).Date()
	end = c.begin(year, month-1)
	for end <= at {
		start, end = end, c.begin(year, month)
		month++
	}
	return start, end
}

// Divide returns the number of slots of a window: the greatest from Slots down to 10 for which
// a slot is whole nanoseconds, every cycle begins with a slot, and none has more than MaxSlots.
func (c Calendar) Divide(window time.Duration) (slots int, err error) {
	step := 15 * time.Minute // cycles begin at multiples of it, as UTC offsets of time zones are such
	switch {
	case c.Length > 0:
		step = c.Length
	case c.Zone == time.UTC:
		step = 24 * time.Hour
	}
	for n := time.Duration(Slots); n >= 10; n-- {
		slot := max(window/n, 1)
		if window == n*slot && step%slot == 0 && c.Longest()/slot < MaxSlots {
			return int(n), nil
		}
	}
	return 0, fmt.Errorf("windows of %v cannot be divided into 10 to %d slots that cycles begin with", window, Slots)
}

// Longest returns the length of the longest cycle: a month of 31 days and the hour that the end of
// summer time adds.
func (c Calendar) Longest() time.Duration {
	if c.Length > 0 {
		return c.Length
	}
	return 31*24*time.Hour + time.Hour
}

// begin returns when the cycle of a month begins.
func (c Calendar) begin(year int, month time.Month) int64 {
	day := min(c.Day, time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day())
	midnight := time.Date(year, month, day, 0, 0, 0, 0, c.Zone)
	if midnight.Day() != day || midnight.Hour() != 0 { // clocks skip it
		midnight, _ = time.Date(year, month, day+1, 12, 0, 0, 0, c.Zone).ZoneBounds()
	}
	return midnight.UnixNano()
}

// At returns the cycle that contains a time. The name of a cycle of fixed length is its
// start in UTC: 2026-03-05 if all such cycles begin at midnight, else 2026-03-05T06:00:00Z.
func (c Calendar) At(at int64) Cycle {
	start, end := c.Bounds(at)
	begin, layout := time.Unix(0, start).UTC(), time.RFC3339Nano
	switch {
	case c.Length == 0:
		begin, layout = begin.In(c.Zone), "2006-01"
	case c.Length%(24*time.Hour) == 0:
		layout = time.DateOnly
	}
	return Cycle{begin.Format(layout), start, end}
}

// Parse returns the cycle with a name, as returned by At. For a cycle of fixed length,
// the name may be its start in any zone (RFC 3339).
func (c Calendar) Parse(name string) (Cycle, error) {
	if c.Length == 0 {
		t, err := time.Parse("2006-01", name)
		if err != nil || CheckYear(t) != nil {
			return Cycle{}, errors.New("want the month in which a cycle begins, such as 2005-06")
		}
		return c.At(c.begin(t.Year(), t.Month())), nil
	}
	t, err := time.Parse(time.DateOnly, name)
	if err != nil {
		t, err = time.Parse(time.RFC3339, name)
	}
	if err != nil || CheckYear(t) != nil {
		return Cycle{}, errors.New("want when a cycle begins, such as 2026-03-05 or 2026-03-05T06:00:00Z")
	}
	x := c.At(t.UnixNano())
	if x.Start != t.UnixNano() {
		err = fmt.Errorf("no cycle begins then, but one at %s", x.Name)
	}
	return x, err
}

// CheckYear returns an error if nanoseconds since the Unix epoch might not hold a time, or
// a cycle around it.
func CheckYear(t time.Time) error {
	if y := t.Year(); y < 1970 || y > 2200 {
		return fmt.Errorf("the year %d is not between 1970 and 2200", y)
	}
	return nil
}
