package samples

import (
	"cmp"
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
	format Format
	last   string // the layout of the time before
	// The offsets of the zone around a day since the epoch; they differ where clocks change.
	day     int64
	offsets [2]int64
}

// layouts are the forms of times. Those without a zone are of a clock of the zone.
var (
	layouts = []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 -0700", "2006-01-02T15:04:05-0700",
		time.DateTime, "2006-01-02T15:04:05", "2006/01/02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006/01/02 15:04",
	}
	dayLayouts = map[string][]string{
		"dmy": {"2-1-2006 15:04:05", "2-1-2006 15:04", "2-1-2006 3:04:05 PM", "2-1-2006 3:04 PM"},
		"mdy": {"1-2-2006 15:04:05", "1-2-2006 15:04", "1-2-2006 3:04:05 PM", "1-2-2006 3:04 PM"},
	}
	dayOrMonth = regexp.MustCompile(`^\d{1,2}[-./]\d{1,2}[-./]\d{4}\b`)
)

// parse returns a time in nanoseconds since the Unix epoch, and whether it is the time of
// a clock of the zone, as if it were UTC.
func (c *clock) parse(text string) (at int64, wall bool, err error) {
	if t, err := time.Parse(c.last, text); err == nil && c.last != "" {
		return t.UnixNano(), !strings.Contains(c.last, "07"), calendar.CheckYear(t)
	}
	if at, is, err := epoch(text); is || err != nil {
		return at, false, err
	}
	list, original := layouts, text
	if dayOrMonth.MatchString(text) {
		for order := range dayLayouts {
			if c.format.has(order) {
				list = dayLayouts[order]
			}
		}
		day, clock, _ := strings.Cut(text, " ")
		text = strings.NewReplacer(".", "-", "/", "-").Replace(day) + " " + clock
	}
	for _, layout := range list {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		c.last = layout
		return t.UnixNano(), !strings.Contains(layout, "07"), calendar.CheckYear(t)
	}
	err = fmt.Errorf("%.40q is not a time: want 2006-01-02T15:04:05Z, 2006-01-02 15:04:05 or seconds since 1970", text)
	if dayOrMonth.MatchString(text) {
		err = cli.Hint(fmt.Errorf("%.40q: the day or the month first?", original), "give -format dmy or -format mdy")
	}
	return 0, false, err
}

// epoch reads seconds since the epoch, or by their size milli-, micro- or nanoseconds.
func epoch(text string) (at int64, is bool, err error) {
	whole, part, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || len(whole) < 9 || whole[0] < '0' {
		return 0, false, nil
	}
	unit := int64(time.Second)
	for limit := int64(1e11); n >= limit && unit > 1; limit *= 1000 {
		unit /= 1000
	}
	if strings.Trim(part, "0123456789") != "" {
		return 0, false, fmt.Errorf("%.40q is not a time", text)
	}
	t := time.Unix(n/(1e9/unit), n%(1e9/unit)*unit)
	if err := calendar.CheckYear(t); err != nil {
		return 0, false, err
	}
	if at = t.UnixNano(); part != "" {
		fraction, _ := strconv.ParseFloat("0."+part, 64)
		at += int64(fraction * float64(unit))
	}
	return at, true, nil
}

// local turns the times of clocks into instants. Between two and three, when clocks are set
// back, each time comes twice. Of two rows with one time the first in the file is the
// earlier, or the later in a file that goes back in time. A single row is the earlier,
// unless the row before it is between both.
func (f *file) local(rows []row) error {
	up, count := 0, map[int64]int{}
	for i, r := range rows {
		if r.wall {
			if i > 0 {
				up += cmp.Compare(r.at, rows[i-1].at)
			}
			if first, second := f.instants(r.at); second != 0 && first != 0 {
				count[r.at]++
			}
		}
	}
	if up < 0 {
		slices.Reverse(rows)
	}
	seen, previous := map[int64]int{}, int64(0)
	for i := range rows {
		r := &rows[i]
		if !r.wall {
			previous = r.at
			continue
		}
		wall := r.at
		first, second := f.instants(wall)
		name := ""
		if first == 0 || second != 0 {
			name = time.Unix(0, wall).UTC().Format(time.DateTime)
		}
		switch {
		case first == 0:
			return f.at(r.line, cli.Hint(fmt.Errorf("%s does not exist in %s: clocks were set forward", name, f.Zone),
				"give the zone of the file with -tz"))
		case second != 0 && count[wall] > 2:
			return f.at(r.line, cli.Hint(fmt.Errorf("%s comes %d times", name, count[wall]), "export times with their zone, or as seconds since 1970"))
		case second == 0:
		case count[wall] == 2 && seen[wall] == 1, count[wall] == 1 && first <= previous && previous <= second:
			first = second
		}
		if second != 0 {
			seen[wall]++
		}
		r.at, previous = first, first
	}
	return nil
}

// instants returns the instants at which clocks of the zone show a time: 0, one or two.
func (f *file) instants(wall int64) (first, second int64) {
	const day = 24 * int64(time.Hour)
	if c := &f.clock; wall/day != c.day {
		c.day = wall / day
		_, before := time.Unix(0, (c.day-1)*day).In(f.Zone).Zone()
		_, after := time.Unix(0, (c.day+2)*day).In(f.Zone).Zone()
		c.offsets = [2]int64{int64(before) * int64(time.Second), int64(after) * int64(time.Second)}
	}
	before, after := f.clock.offsets[0], f.clock.offsets[1]
	if before == after {
		return wall - before, 0
	}
	for _, offset := range []int64{before, after} {
		at := wall - offset
		if _, is := time.Unix(0, at).In(f.Zone).Zone(); int64(is)*int64(time.Second) != offset {
			continue
		}
		if first == 0 {
			first = at
		} else {
			second = at
		}
	}
	return first, second
}
