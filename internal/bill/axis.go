package bill

import "time"

// mark is a place on the axis of time. Those without a label are small.
type mark struct {
	at    int64 // nanoseconds since the Unix epoch
	label string
}

// date writes a time by a layout, which has no time of day, and with that where
// the cycle does not go from midnight to midnight.
func (b *Bill) date(at int64, layout string) string {
	clock := ""
	for _, bound := range []int64{b.Cycle.Start, b.Cycle.End} {
		switch h, m, s := b.time(bound).Clock(); {
		case s > 0:
			clock = " 15:04:05"
		case h+m > 0 && clock == "":
			clock = " 15:04"
		}
	}
	return b.time(at).Format(layout + clock)
}

const (
	days  = 24 * time.Hour
	month = 10 * days // cycles of which the weeks are marked, not the days
)

func (b *Bill) length() time.Duration { return time.Duration(b.Cycle.End - b.Cycle.Start) }

// marks are those under the text's plot: weeks from the beginning on, or days, or
// hours.
func (b *Bill) marks() (all []mark) {
	if b.length() < 2*days {
		return b.hours()
	}
	step := 7
	if b.length() < month {
		step = 1
	}
	for day := 0; ; day += step {
		d := b.time(b.Cycle.Start).AddDate(0, 0, day)
		if d.UnixNano() >= b.Cycle.End {
			return all
		}
		all = append(all, mark{d.UnixNano(), d.Format("Mon 2 Jan")})
	}
}

// hours marks about six times of a short cycle.
func (b *Bill) hours() (all []mark) {
	step := b.length() / 6
	for _, unit := range []time.Duration{time.Second, time.Minute, time.Hour} {
		if step >= unit {
			step = step.Truncate(unit)
		}
	}
	for at := b.Cycle.Start; at < b.Cycle.End; at += int64(max(step, time.Second)) {
		all = append(all, mark{at, b.time(at).Format("15:04")})
	}
	return all
}

// ticks are those of the picture: days, of which Mondays have a label, or as marks
// has them.
func (b *Bill) ticks() (all []mark) {
	if b.length() < month {
		return b.marks()
	}
	for day := 0; ; day++ {
		d := b.time(b.Cycle.Start).AddDate(0, 0, day)
		if d.UnixNano() > b.Cycle.End {
			return all
		}
		m := mark{at: d.UnixNano()}
		if d.Weekday() == time.Monday {
			m.label = d.Format("Mon 2 Jan")
		}
		all = append(all, m)
	}
}
