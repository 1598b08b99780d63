package calendar

import (
	"testing"
	"time"
)

func load(t *testing.T, zone string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err) // Go brings the database along
	}
	return z
}

// A cycle has every time from its start up to its end, and its name.
func TestCycles(t *testing.T) {
	berlin := load(t, "Europe/Berlin")
	month := func(day int) Calendar { return Calendar{Day: day, Zone: berlin} }
	fixed := func(length time.Duration) Calendar { return Calendar{Day: 1, Zone: time.UTC, Length: length} }
	for _, tt := range []struct {
		calendar          Calendar
		at                string
		name, start, next string
	}{
		{month(1), "2026-03-29 03:00:00", "2026-03", "2026-03-01 00:00:00", "2026-04-01 00:00:00"}, // a day of 23 hours
		{month(5), "2026-01-04 23:59:59", "2025-12", "2025-12-05 00:00:00", "2026-01-05 00:00:00"},
		{month(5), "2026-01-05 00:00:00", "2026-01", "2026-01-05 00:00:00", "2026-02-05 00:00:00"},
		{month(31), "2026-02-28 00:00:00", "2026-02", "2026-02-28 00:00:00", "2026-03-31 00:00:00"},
		{month(31), "2026-02-27 00:00:00", "2026-01", "2026-01-31 00:00:00", "2026-02-28 00:00:00"},
		{month(31), "2024-03-01 00:00:00", "2024-02", "2024-02-29 00:00:00", "2024-03-31 00:00:00"},
		{month(31), "2005-07-01 00:00:00", "2005-06", "2005-06-30 00:00:00", "2005-07-31 00:00:00"},
		{month(1), "1970-01-15 00:00:00", "1970-01", "1970-01-01 00:00:00", "1970-02-01 00:00:00"},
		{month(1), "2200-12-15 00:00:00", "2200-12", "2200-12-01 00:00:00", "2201-01-01 00:00:00"},
		{fixed(24 * time.Hour), "2026-03-05 13:00:00", "2026-03-05", "2026-03-05 00:00:00", "2026-03-06 00:00:00"},
		{fixed(7 * 24 * time.Hour), "2026-03-11 13:00:00", "2026-03-05", "2026-03-05 00:00:00", "2026-03-12 00:00:00"},
		{fixed(6 * time.Hour), "2026-03-05 13:00:00", "2026-03-05T12:00:00Z", "2026-03-05 12:00:00", "2026-03-05 18:00:00"},
	} {
		c := tt.calendar
		nano := func(s string) int64 {
			x, err := time.ParseInLocation(time.DateTime, s, c.Zone)
			if err != nil {
				t.Fatal(err)
			}
			return x.UnixNano()
		}
		want := Cycle{tt.name, nano(tt.start), nano(tt.next)}
		for _, at := range []int64{nano(tt.at), want.Start, want.End - 1} {
			if got := c.At(at); got != want {
				t.Errorf("%s: %v is in %+v, want %+v", tt.at, time.Unix(0, at), got, want)
			}
		}
		if before, after := c.At(want.Start-1), c.At(want.End); before.End != want.Start || after.Start != want.End {
			t.Errorf("%+v is between %+v and %+v", want, before, after)
		}
		names := []string{tt.name}
		if c.Length > 0 { // in any zone
			names = append(names, time.Unix(0, want.Start).In(berlin).Format(time.RFC3339))
		}
		for _, name := range names {
			if got, err := c.Parse(name); err != nil || got != want {
				t.Errorf("%s is %+v, %v, want %+v", name, got, err, want)
			}
		}
	}
	for length, names := range map[time.Duration][]string{
		0:                  {"", "2005", "2005-13", "2005-06-01", "0000-01", "1969-12", "2201-01", "9999-01", "last"},
		24 * time.Hour:     {"", "2026-03", "2026-03-05T01:00:00Z", "1960-01-01", "2026-02-30"},
		7 * 24 * time.Hour: {"2026-03-06"},
		6 * time.Hour:      {"2026-03-05T13:00:00Z"},
	} {
		for _, name := range names {
			if x, err := fixed(length).Parse(name); err == nil {
				t.Errorf("%v: %q is %+v", length, name, x)
			}
		}
	}
}

// Where the clock goes forward or back at midnight, or leaves out a day, every time
// still lies in its cycle, and cycles follow each other.
func TestMidnight(t *testing.T) {
	for _, name := range []string{
		"America/Asuncion", "America/Havana", "America/St_Johns", "America/Sao_Paulo", "Atlantic/Azores",
		"Africa/Cairo", "Asia/Beirut", "Asia/Amman", "Pacific/Apia",
	} {
		zone, shifts := load(t, name), 0
		for _, day := range []int{1, 15, 20, 30, 31} {
			for at := time.Date(1985, 1, 1, 0, 0, 0, 0, zone); at.Year() < 2030; shifts++ {
				if _, at = at.ZoneBounds(); at.IsZero() {
					break
				}
				for d := -25 * time.Hour; d <= 25*time.Hour; d += 30 * time.Minute {
					around(t, Calendar{Day: day, Zone: zone}, at.Add(d))
				}
			}
		}
		if shifts < 100 {
			t.Errorf("%s: %d shifts", name, shifts)
		}
	}
}

// around wants a time to lie in a cycle between others, which begins at the midnight of its day.
func around(t *testing.T, c Calendar, at time.Time) {
	t.Helper()
	now := at.UnixNano()
	start, end := c.Bounds(now)
	_, before := c.Bounds(start - 1)
	after, _ := c.Bounds(end)
	if s, e := c.Bounds(start); start > now || end <= now || s != start || e != end || before != start || after != end {
		t.Fatalf("%s, day %d: the cycle of %v is from %d to %d, after %d and before %d", c.Zone, c.Day, at, start, end, before, after)
	}
	begin := time.Unix(0, start).In(c.Zone)
	y, m, d := begin.Date()
	if last := time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day(); begin.Hour() > 1 || d != min(c.Day, last) && y != 2011 {
		t.Fatalf("%s, day %d: a cycle begins at %v", c.Zone, c.Day, begin)
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

// A window has the most slots that cycles begin with.
func TestDivide(t *testing.T) {
	for _, tt := range []struct {
		zone          string
		cycle, window time.Duration
		slots         int // 0 if it is refused
	}{
		{"UTC", 0, 5 * time.Minute, 60}, {"UTC", 0, 24 * time.Hour, 60}, {"UTC", 0, 48 * time.Second, 60},
		{"UTC", 0, 7 * time.Minute, 56}, {"UTC", 0, 12 * time.Second, 16}, {"UTC", 0, 10 * time.Second, 10},
		{"UTC", 0, 6 * time.Second, 0}, {"UTC", 0, 61 * time.Second, 0}, {"UTC", 0, 9, 0},
		{"Europe/Berlin", 0, 15 * time.Minute, 60},
		{"Asia/Kathmandu", 0, 2 * time.Hour, 48}, {"Asia/Kathmandu", 0, 24 * time.Hour, 0},
		{"UTC", time.Hour, 10 * time.Second, 50}, {"UTC", time.Hour, 1500 * time.Millisecond, 60},
		{"UTC", time.Hour, 1700 * time.Millisecond, 34}, {"UTC", 7 * time.Minute, 7 * time.Minute, 60},
	} {
		got, err := Calendar{Day: 1, Zone: load(t, tt.zone), Length: tt.cycle}.Divide(tt.window)
		if got != tt.slots || (err == nil) != (got > 0) {
			t.Errorf("%s, %v, %v: %d slots and %v, want %d", tt.zone, tt.cycle, tt.window, got, err, tt.slots)
		}
	}
}
