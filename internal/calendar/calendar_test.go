package calendar

import (
	"testing"
	"time"
)

func TestMonth(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err) // Go brings the database along
	}
	const form = "2006-01-02 15:04:05"
	for _, c := range []struct {
		day              int
		now, start, next string
	}{
		{1, "2026-03-29 03:00:00", "2026-03-01 00:00:00", "2026-04-01 00:00:00"}, // a day of 23 hours
		{5, "2026-01-04 23:59:59", "2025-12-05 00:00:00", "2026-01-05 00:00:00"},
		{5, "2026-01-05 00:00:00", "2026-01-05 00:00:00", "2026-02-05 00:00:00"},
		{31, "2026-02-28 00:00:00", "2026-02-28 00:00:00", "2026-03-31 00:00:00"},
		{31, "2026-02-27 00:00:00", "2026-01-31 00:00:00", "2026-02-28 00:00:00"},
		{31, "2024-03-01 00:00:00", "2024-02-29 00:00:00", "2024-03-31 00:00:00"},
	} {
		now, _ := time.ParseInLocation(form, c.now, berlin)
		start, end := Calendar{Day: c.day, Zone: berlin}.Bounds(now.UnixNano())
		if got := time.Unix(0, start).In(berlin).Format(form); got != c.start {
			t.Errorf("day %d, %s: starts %s, want %s", c.day, c.now, got, c.start)
		}
		if got := time.Unix(0, end).In(berlin).Format(form); got != c.next {
			t.Errorf("day %d, %s: ends %s, want %s", c.day, c.now, got, c.next)
		}
	}
}

// Where the clock goes forward or back at midnight, or leaves out a day, every time
// still lies in its cycle, and cycles follow each other.
func TestMonthMidnight(t *testing.T) {
	for _, name := range []string{"America/Asuncion", "America/Havana", "America/St_Johns", "America/Sao_Paulo", "Atlantic/Azores", "Africa/Cairo", "Asia/Beirut", "Asia/Amman", "Pacific/Apia"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		shifts := 0
		for _, day := range []int{1, 15, 20, 30, 31} {
			bounds := Calendar{Day: day, Zone: zone}.Bounds
			for at := time.Date(1985, 1, 1, 0, 0, 0, 0, zone); at.Year() < 2030; shifts++ {
				_, shift := at.ZoneBounds()
				if shift.IsZero() {
					break
				}
				at = shift
				for d := -25 * time.Hour; d <= 25*time.Hour; d += 30 * time.Minute {
					now := shift.Add(d).UnixNano()
					start, end := bounds(now)
					if start > now || end <= now {
						t.Fatalf("%s, day %d: the cycle of %v is from %v to %v", name, day, shift.Add(d), time.Unix(0, start).In(zone), time.Unix(0, end).In(zone))
					}
					_, before := bounds(start - 1)
					after, _ := bounds(end)
					if s, e := bounds(start); s != start || e != end || before != start || after != end {
						t.Fatalf("%s, day %d: %v begins a cycle until %v, but the one before ends %v", name, day, time.Unix(0, start).In(zone), time.Unix(0, end).In(zone), time.Unix(0, before).In(zone))
					}
					begin := time.Unix(0, start).In(zone)
					y, m, d := begin.Date()
					if last := time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day(); begin.Hour() > 1 || d != min(day, last) && y != 2011 {
						t.Fatalf("%s, day %d: a cycle begins at %v", name, day, begin)
					}
				}
			}
		}
		if shifts < 100 {
			t.Errorf("%s: %d shifts", name, shifts)
		}
	}
}

func TestCycles(t *testing.T) {
	for _, tt := range []struct {
		day        int
		name       string
		start, end string
	}{
		{1, "2005-06", "2005-06-01", "2005-07-01"},
		{31, "2005-06", "2005-06-30", "2005-07-31"},
		{31, "2005-02", "2005-02-28", "2005-03-31"},
		{29, "2004-02", "2004-02-29", "2004-03-29"},
		{15, "2005-12", "2005-12-15", "2006-01-15"},
	} {
		c, err := Calendar{Day: tt.day, Zone: time.UTC}.Parse(tt.name)
		format := func(at int64) string { return time.Unix(0, at).UTC().Format(time.DateOnly) }
		if err != nil || format(c.Start) != tt.start || format(c.End) != tt.end || c.Name != tt.name {
			t.Errorf("%+v: %+v, %v", tt, c, err)
		}
		if again := (Calendar{Day: tt.day, Zone: time.UTC}.At(c.Start)); again != c {
			t.Errorf("%+v: at its start it is %+v", c, again)
		}
		if again := (Calendar{Day: tt.day, Zone: time.UTC}.At(c.End - 1)); again != c {
			t.Errorf("%+v: at its end it is %+v", c, again)
		}
	}
	for _, s := range []string{"1970-01", "2200-12"} {
		if c, err := (Calendar{Day: 1, Zone: time.UTC}).Parse(s); err != nil || c.Name != s {
			t.Errorf("%q: %v, %v", s, c, err)
		}
	}
	for _, s := range []string{"", "2005", "2005-13", "2005-06-01", "0000-01", "1969-12", "2201-01", "9999-01", "last"} {
		if c, err := (Calendar{Day: 1, Zone: time.UTC}).Parse(s); err == nil {
			t.Errorf("%q: %v", s, c)
		}
	}
}

func TestFixedCycles(t *testing.T) {
	at := func(s string) int64 {
		x, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return x.UnixNano()
	}
	for _, tt := range []struct {
		length          time.Duration
		time            string
		name            string
		start, end      string
		other, notBegun string
	}{
		{24 * time.Hour, "2026-03-05T13:00:00Z", "2026-03-05", "2026-03-05T00:00:00Z", "2026-03-06T00:00:00Z", "2026-03-05T01:00:00+01:00", "2026-03-05T01:00:00Z"},
		{7 * 24 * time.Hour, "2026-03-11T13:00:00Z", "2026-03-05", "2026-03-05T00:00:00Z", "2026-03-12T00:00:00Z", "2026-03-05T00:00:00Z", "2026-03-06"},
		{6 * time.Hour, "2026-03-05T13:00:00Z", "2026-03-05T12:00:00Z", "2026-03-05T12:00:00Z", "2026-03-05T18:00:00Z", "2026-03-05T12:00:00+00:00", "2026-03-05T13:00:00Z"},
	} {
		c := Calendar{Day: 1, Zone: time.UTC, Length: tt.length}
		x := c.At(at(tt.time))
		if before, after := c.At(x.Start-1), c.At(x.End); before.End != x.Start || after.Start != x.End || c.At(x.End-1) != x {
			t.Errorf("%v: %+v is between %+v and %+v", tt.length, x, before, after)
		}
		if want := (Cycle{tt.name, at(tt.start), at(tt.end)}); x != want {
			t.Errorf("%v: %+v, want %+v", tt.length, x, want)
		}
		for _, name := range []string{tt.name, tt.other} {
			if again, err := c.Parse(name); err != nil || again != x {
				t.Errorf("%v: %s is %+v, %v", tt.length, name, again, err)
			}
		}
		for _, name := range []string{tt.notBegun, "2026-03", "", "1960-01-01", "2026-02-30"} {
			if x, err := c.Parse(name); err == nil {
				t.Errorf("%v: %s is %+v", tt.length, name, x)
			}
		}
	}
}

// A name that is taken is of a cycle that has it.
func FuzzCycleName(f *testing.F) {
	for _, s := range []string{"2005-06", "2026-03-05", "2026-03-05T06:00:00Z", "2026-03-05T06:00:00.5+02:00", "1970-01-01", "2200-12-31T23:59:59Z"} {
		f.Add(s, int64(time.Hour))
		f.Add(s, int64(0))
	}
	f.Fuzz(func(t *testing.T, name string, length int64) {
		c := Calendar{Day: 31, Zone: time.UTC, Length: time.Duration(max(length, 0))}
		x, err := c.Parse(name)
		if err != nil {
			return
		}
		if again, err := c.Parse(x.Name); err != nil || again != x || c.At(x.Start) != x || x.End <= x.Start {
			t.Fatalf("%q is %+v, and that %+v, %v", name, x, again, err)
		}
	})
}
