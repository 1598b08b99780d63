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

// Times are a date and a time of day. Seconds may have a fraction.
var (
	dates = map[string][]string{
		"":    {"2006-01-02 ", "2006-01-02T", "2006/01/02 "},
		"dmy": {"2-1-2006 ", "2.1.2006 ", "2/1/2006 "},
		"mdy": {"1-2-2006 ", "1.2.2006 ", "1/2/2006 "},
	}
	hours = []string{"15:04:05", "15:04", "3:04:05 PM", "3:04 PM", "15:04:05Z07:00", "15:04:05 -0700", "15:04:05-0700"}
)

// layouts returns the layouts of times, with the order of day and month that is given.
func (f Format) layouts() (all []string) {
	for order, list := range dates {
		for _, hour := range hours {
			for _, date := range list {
				if order == "" || f.has(order) {
					all = append(all, date+hour)
				}
			}
		}
	}
	return all
}

var dayOrMonth = regexp.MustCompile(`^\d{1,2}[-./]\d{1,2}[-./]\d{4}\b`)

// time reads a time in nanoseconds since the Unix epoch. wall reports whether it is the time of
// a clock of the zone, as if it were UTC.
func (f *file) time(text string) (at int64, wall bool, err error) {
	if t, is := epoch(text); is {
		return t.UnixNano(), false, calendar.CheckYear(t)
	}
	for i, layout := range f.layouts {
		if t, err := time.Parse(layout, strings.ToUpper(text)); err == nil {
			f.layouts[0], f.layouts[i] = layout, f.layouts[0] // most likely that of the next one
			return t.UnixNano(), !f.utc && !strings.Contains(layout, "07"), calendar.CheckYear(t)
		}
	}
	if dayOrMonth.MatchString(text) {
		return 0, false, cli.Hint(fmt.Errorf("%.40q: the day or the month first?", text), "give -format dmy or -format mdy")
	}
	return 0, false, fmt.Errorf("%.40q is not a time: want 2006-01-02T15:04:05Z, 2006-01-02 15:04:05 or seconds since 1970", text)
}

// epoch reads seconds since the epoch, or by their number of digits milli-, micro- or nanoseconds. The latter
// have ten digits of seconds: 202603010005 is no time.
func epoch(text string) (t time.Time, is bool) {
	whole, part, _ := strings.Cut(text, ".")
	if n := len(whole); n != 9 && n != 10 && n != 13 && n != 16 && n != 19 || strings.Trim(whole+part, "0123456789") != "" {
		return t, false
	}
	digits, point := whole+part+"000000000", min(len(whole), 10)
	seconds, _ := strconv.ParseInt(digits[:point], 10, 64) // or the largest, of no year that is taken
	nanoseconds, _ := strconv.ParseInt(digits[point:point+9], 10, 64)
	return time.Unix(seconds, nanoseconds), true
}

// local turns the times of clocks into instants. When clocks are set back, each time of an hour comes
// twice. Of two rows with one time the first in the file is the earlier, or the later in a file that goes
// back in time. A single row is the earlier, unless the row before it is between both; and all flows are.
func (g *grid) local() error {
	rows, times := g.rows, map[int64]int{}
	if last := len(rows) - 1; last > 0 && rows[0].wall && rows[last].at < rows[0].at {
		slices.Reverse(rows)
	}
	for _, r := range rows {
		if first, last := g.instants(r.at); r.wall && first < last {
			times[r.at]++
		}
	}
	previous := int64(0)
	for i := range rows {
		r := &rows[i]
		if r.wall {
			first, last := g.instants(r.at)
			name := func() string { return time.Unix(0, r.at).UTC().Format(time.DateTime) }
			switch n := times[r.at]; {
			case first > last:
				return g.at(r.line, cli.Hint(fmt.Errorf("%s does not exist in %s: clocks were set forward", name(), g.Zone),
					"give the zone of the file with -tz"))
			case g.flows:
			case n > 2:
				return g.at(r.line, cli.Hint(fmt.Errorf("%s comes %d times", name(), n),
					"export times with their zone, or as seconds since 1970"))
			case n == 2:
				times[r.at] = -1 // the next one is the later
			case n < 0, first <= previous && previous <= last:
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
	switch isFirst, isLast := offset(first) == before, offset(last) == after; {
	case isFirst && !isLast:
		last = first
	case isLast && !isFirst:
		first = last
	}
	return first, last
}
