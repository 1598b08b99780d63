package bill

import "time"

// mark is a mark on the time axis. Marks without a label are small.
type mark struct {
	at    int64 // nanoseconds since the Unix epoch
	label string
}

// date formats a time by a layout of the date alone. It appends the time of day if
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
	month = 10 * days // longer cycles have marks for weeks, not days
)

func (b *Bill) length() time.Duration { return time.Duration(b.Cycle.End - b.Cycle.Start) }

// marks returns the marks under the text's plot: weeks from the start of the cycle,
// or days, or hours.
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

// hours returns about six marks for a short cycle.
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

// ticks returns the marks of the picture: days, with labels for Mondays, or the marks
// of the text for a short cycle.
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
