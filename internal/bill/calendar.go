package bill

import (
	"errors"
	"fmt"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/gate"
)

// Cycle is a billing cycle.
type Cycle struct {
	Name       string // the month in which it begins: 2005-06; or for a fixed length, its start
	Start, End int64  // nanoseconds since the Unix epoch
}

// Calendar divides time into consecutive billing cycles: months that begin at
// midnight of a day, or of the last day of a month without that day; or
// spans of a fixed length.
type Calendar struct {
	Day  int
	Zone *time.Location
	// Length, if not 0, is the length of all cycles, which begin at multiples
	// of it since the Unix epoch.
	Length time.Duration
}

// Bounds returns the bounds of the cycle that contains a time, nanoseconds since
// the Unix epoch.
func (c Calendar) Bounds(at int64) (start, end int64) {
	if c.Length > 0 {
		return gate.Every(c.Length)(at)
	}
	return gate.Month(c.Day, c.Zone)(at)
}

// At returns the cycle that contains a time.
func (c Calendar) At(at int64) Cycle {
	start, end := c.Bounds(at)
	if c.Length > 0 {
		return Cycle{c.name(start), start, end}
	}
	return Cycle{time.Unix(0, start).In(c.Zone).Format("2006-01"), start, end}
}

// name returns the start of a cycle of fixed length, in UTC: 2026-03-05 if all such
// cycles begin at midnight, else 2026-03-05T06:00:00Z.
func (c Calendar) name(start int64) string {
	t := time.Unix(0, start).UTC()
	if c.Length%(24*time.Hour) == 0 {
		return t.Format(time.DateOnly)
	}
	return t.Format(time.RFC3339Nano)
}

// Parse returns the cycle with a name, as returned by At. For a cycle of fixed length,
// the name may be its start in any zone (RFC 3339).
func (c Calendar) Parse(name string) (Cycle, error) {
	if c.Length == 0 {
		m, err := parseMonth(name)
		if err != nil {
			return Cycle{}, err
		}
		last := time.Date(m.Year(), m.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
		noon := time.Date(m.Year(), m.Month(), min(c.Day, last), 12, 0, 0, 0, c.Zone)
		return c.At(noon.UnixNano()), nil
	}
	at, err := parseBeginning(name)
	if err != nil {
		return Cycle{}, err
	}
	x := c.At(at)
	if x.Start != at {
		return Cycle{}, fmt.Errorf("no cycle of %v begins then, but one at %s", cli.Duration(c.Length), x.Name)
	}
	return x, nil
}

// CanParse returns an error if no calendar has a cycle of this name.
func CanParse(name string) error {
	_, err := parseBeginning(name)
	if err != nil {
		_, err = parseMonth(name)
	}
	return err
}

func parseMonth(name string) (time.Time, error) {
	m, err := time.Parse("2006-01", name)
	if err != nil || inYears(m) != nil {
		return m, errors.New("want the month in which a cycle begins, such as 2005-06")
	}
	return m, nil
}

func parseBeginning(name string) (int64, error) {
	t, err := time.Parse(time.DateOnly, name)
	if err != nil {
		t, err = time.Parse(time.RFC3339, name)
	}
	if err != nil || inYears(t) != nil {
		return 0, errors.New("want when a cycle begins, such as 2026-03-05 or 2026-03-05T06:00:00Z")
	}
	return t.UnixNano(), nil
}

// Cycles returns the cycles of which a source has data.
func Cycles(s Source, c Calendar) (all []Cycle) {
	for _, span := range s.Spans() {
		at := span.Start
		if n := len(all); n > 0 {
			at = max(at, all[n-1].End)
		}
		for at < span.End {
			x := c.At(at)
			all = append(all, x)
			at = x.End
		}
	}
	return all
}

// Last returns the last cycle of which a source has data.
func Last(s Source, c Calendar) Cycle {
	spans := s.Spans()
	return c.At(spans[len(spans)-1].End - 1)
}
