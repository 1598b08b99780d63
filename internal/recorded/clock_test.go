package recorded

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Times of records in seconds, what the clock shows at each, and how many records
// are out of line.
func TestClock(t *testing.T) {
	const night, year = 8 * 3600, 365 * 86400
	for _, tt := range []struct {
		name         string
		times, shows []int64
		strays       int
	}{
		{"disorder", []int64{100, 102, 101, 103}, []int64{100, 102, 102, 103}, 0},
		{"one far ahead", []int64{100, 101, 101 + year, 102, 103}, []int64{100, 101, 101, 102, 103}, 1},
		{"the first is wrong", []int64{100 + year, 1, 2, 3}, []int64{100 + year, 100 + year, 101 + year, 102 + year}, 1},
		{"two far ahead", []int64{100, 100 + year, 100 + 3*year, 101, 102}, []int64{100, 100, 100 + year, 100 + year, 101 + year}, 2},
		{"one far ahead before a night", []int64{100, 100 + year, 100 + night, 101 + night}, []int64{100, 100, 100, 101 + night}, 1},
		{"every hour", []int64{3600, 7200, 10800, 14400}, []int64{3600, 3600, 7200, 10800}, 0},
		{"two days in the wrong order", []int64{90000, 90001, 10, 12, 13}, []int64{90000, 90001, 90001, 90003, 90004}, 1},
		{"after 2116", []int64{100, 5e9, 101}, []int64{100, 100, 101}, 1},
	} {
		c := &Clock{}
		var shows []int64
		for _, s := range tt.times {
			shows = append(shows, c.Read(uint64(s)*1e9)/1e9)
		}
		if !slices.Equal(shows, tt.shows) || c.Strays != tt.strays {
			t.Errorf("%s: the clock shows %v, with %d records out of line; want %v, %d", tt.name, shows, c.Strays, tt.shows, tt.strays)
		}
	}
}

// Whatever the times, the clock never goes back. Records whose times are wrong change
// nothing of what it shows at the others, of which some follow pauses.
func TestClockGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, shown := &Clock{}, int64(0)
		read := func(at uint64) int64 {
			now := c.Read(at)
			if now < shown || now > latest {
				t.Fatalf("the clock shows %d after %d", now, shown)
			}
			shown = now
			return now
		}
		at, strays := uint64(1e18), 0
		read(at)
		for range rapid.IntRange(1, 50).Draw(t, "records") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0: // one record is wrong
				stray := rapid.Uint64().Draw(t, "stray")
				if d := distance(int64(min(stray, latest)), int64(at)); d <= int64(2*silence) {
					continue
				}
				read(stray)
				strays++
			case 1: // a pause, and the record that ends it
				at += uint64(rapid.Int64Range(int64(silence)+1, 1e15).Draw(t, "pause"))
				read(at)
			}
			at += uint64(rapid.Int64Range(0, int64(silence)/2).Draw(t, "step"))
			if now := read(at); now != int64(at) {
				t.Fatalf("the clock shows %d at %d", now, at)
			}
		}
		if c.Strays != strays {
			t.Fatalf("%d records are out of line, want %d", c.Strays, strays)
		}
		for range rapid.IntRange(0, 50).Draw(t, "any") {
			read(rapid.Uint64().Draw(t, "time"))
		}
	})
}
