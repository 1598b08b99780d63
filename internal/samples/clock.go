package samples

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"framepipe/internal/calendar"
	"framepipe/internal/cli"
)

// clock reads times.
type clock struct {
	layouts []string // the last one that fitted first
}

var dayOrMonth = regexp.MustCompile(`^\d{1,2}[-./]\d{1,2}[-./]\d{4}\b`)

// newClock returns a clock of the times without a zone, which are of the zone of the options, of those
// with one, and of those with the order of day and month that the options give.
func newClock(o Options) (c clock) {
	days := []string{"2006-01-02 ", "2006-01-02T", "2006/01/02 "}
	for order, day := range map[string]string{"dmy": "2-1-2006 ", "mdy": "1-2-2006 "} {
		if o.Format.has(order) {
			days = append(days, day, strings.ReplaceAll(day, "-", "."), strings.ReplaceAll(day, "-", "/"))
		}
	}
	zones := []string{"15:04:05Z07:00", "15:04:05 -0700", "15:04:05-0700"}
	for _, of := range append([]string{"15:04:05", "15:04", "3:04:05 PM", "3:04 PM"}, zones...) {
		for _, day := range days {
			c.layouts = append(c.layouts, day+of)
		}
	}
	return c
}

// parse returns a time in nanoseconds since the Unix epoch, and whether it is the time of
// a clock of the zone, as if it were UTC.
func (c *clock) parse(text string) (at int64, wall bool, err error) {
	if at, is, err := epoch(text); is || err != nil {
		return at, false, err
	}
	for i, layout := range c.layouts {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		c.layouts[0], c.layouts[i] = layout, c.layouts[0]
		return t.UnixNano(), !strings.Contains(layout, "07"), calendar.CheckYear(t)
	}
	if dayOrMonth.MatchString(text) {
		return 0, false, cli.Hint(fmt.Errorf("%.40q: the day or the month first?", text), "give -format dmy or -format mdy")
	}
	return 0, false, fmt.Errorf("%.40q is not a time: want 2006-01-02T15:04:05Z, 2006-01-02 15:04:05 or seconds since 1970", text)
}

// epoch reads seconds since the epoch, or by their size milli-, micro- or nanoseconds.
func epoch(text string) (at int64, is bool, err error) {
	whole, part, _ := strings.Cut(text, ".")
	if len(whole) < 9 || strings.Trim(whole, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || strings.Trim(part, "0123456789") != "" {
		return 0, false, fmt.Errorf("%.40q is not a time", text)
	}
	unit := int64(time.Second)
	for limit := int64(1e11); n >= limit && unit > 1; limit *= 1000 {
		unit /= 1000
	}
	t := time.Unix(n/(1e9/unit), n%(1e9/unit)*unit)
	if err := calendar.CheckYear(t); err != nil {
		return 0, false, err
	}
	at = t.UnixNano()
	if part != "" {
		fraction, _ := strconv.ParseFloat("0."+part, 64)
		at += int64(fraction*float64(unit) + 0.5)
	}
	return at, true, nil
}

// local turns the times of clocks into instants. When clocks are set back, each time of an hour comes
// twice. Of two rows with one time the first in the file is the earlier, or the later in a file that goes
// back in time. A single row is the earlier, unless the row before it is between both; and all flows are.
func (g *grid) local() error {
	rows, times := g.rows, map[int64]int{}
	if last := len(rows) - 1; last > 0 && rows[0].wall && rows[last].at < rows[0].at {
		slices.Reverse(rows)
	}
	for i := range rows {
		r := &rows[i]
		if !r.wall {
			continue
		}
		switch first, last := g.instants(r.at); {
		case first > last:
			name := time.Unix(0, r.at).UTC().Format(time.DateTime)
			return g.at(r.line, cli.Hint(fmt.Errorf("%s does not exist in %s: clocks were set forward", name, g.Zone),
				"give the zone of the file with -tz"))
		case first == last:
			r.at, r.wall = first, false
		default:
			times[r.at]++
		}
	}
	previous := int64(0)
	for i := range rows {
		r := &rows[i]
		if r.wall {
			first, last := g.instants(r.at)
			switch n := times[r.at]; {
			case g.flows:
			case n > 2:
				name := time.Unix(0, r.at).UTC().Format(time.DateTime)
				return g.at(r.line, cli.Hint(fmt.Errorf("%s comes %d times", name, n),
					"export times with their zone, or as seconds since 1970"))
			case n == 2:
				times[r.at] = -1 // the next one is the later
			case n < 0, n == 1 && first <= previous && previous <= last:
				first = last
			}
			r.at = first
		}
		previous = r.at
	}
	return nil
}

// instants returns the first and the last instant at which clocks of the zone show a time. If
// they never do, the first is the later one.
func (f *file) instants(wall int64) (first, last int64) {
	const day = 24 * int64(time.Hour)
	offset := func(at int64) int64 {
		_, seconds := time.Unix(0, at).In(f.Zone).Zone()
		return int64(seconds) * int64(time.Second)
	}
	before, after := offset(wall-day), offset(wall+day)
	first, last = wall-before, wall-after
	if first == last {
		return first, last
	}
	switch isFirst, isLast := offset(first) == before, offset(last) == after; {
	case isFirst && !isLast:
		last = first
	case isLast && !isFirst:
		first = last
	}
	return first, last
}
