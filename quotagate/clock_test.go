package main

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/gate"

	"pgregory.net/rapid"
)

// Times of records in seconds, what the gate's clock shows at each, and how many records
// are out of line.
func TestRecordClock(t *testing.T) {
	const night, year = 8 * 3600, 365 * 86400
	for _, tt := range []struct {
		name         string
		times, shows []int64
		strays       int
	}{
		{"in order", []int64{100, 101, 101, 150}, []int64{100, 101, 101, 150}, 0},
		{"disorder", []int64{100, 102, 101, 103}, []int64{100, 102, 102, 103}, 0},
		{"one far ahead", []int64{100, 101, 101 + year, 102, 103}, []int64{100, 101, 101, 102, 103}, 1},
		{"one far back", []int64{100, 101, 1, 102, 103}, []int64{100, 101, 101, 102, 103}, 1},
		{"the first is wrong", []int64{100 + year, 1, 2, 3}, []int64{100 + year, 100 + year, 101 + year, 102 + year}, 1},
		{"two far ahead", []int64{100, 100 + year, 100 + 3*year, 101, 102}, []int64{100, 100, 100 + year, 100 + year, 101 + year}, 2},
		{"a night", []int64{100, 100 + night, 101 + night}, []int64{100, 100, 101 + night}, 0},
		{"one far ahead before a night", []int64{100, 100 + year, 100 + night, 101 + night}, []int64{100, 100, 100, 101 + night}, 1},
		{"every hour", []int64{3600, 7200, 10800, 14400}, []int64{3600, 3600, 7200, 10800}, 0},
		{"two days in the wrong order", []int64{90000, 90001, 10, 12, 13}, []int64{90000, 90001, 90001, 90003, 90004}, 1},
		{"after 2116", []int64{100, 5e9, 101}, []int64{100, 100, 101}, 1},
		{"1970", []int64{0, 1, 2, 3}, []int64{0, 1, 2, 3}, 0},
	} {
		c := &recordClock{}
		var shows []int64
		for _, s := range tt.times {
			shows = append(shows, c.read(uint64(s)*1e9)/1e9)
		}
		if !slices.Equal(shows, tt.shows) || c.strays != tt.strays {
			t.Errorf("%s: the clock shows %v, with %d records out of line; want %v, %d", tt.name, shows, c.strays, tt.shows, tt.strays)
		}
	}
}

// Whatever the times, the clock never goes back. Records whose times are wrong change
// nothing of what it shows at the others, of which some follow pauses.
func TestRecordClockGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, shown := &recordClock{}, int64(0)
		read := func(at uint64) int64 {
			now := c.read(at)
			if now < shown || now > gate.MaxTime {
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
				if d := distance(int64(min(stray, gate.MaxTime)), int64(at)); d <= 2*silence {
					continue
				}
				read(stray)
				strays++
			case 1: // a pause, and the record that ends it
				at += uint64(rapid.Int64Range(silence+1, 1e15).Draw(t, "pause"))
				read(at)
			}
			at += uint64(rapid.Int64Range(0, silence/2).Draw(t, "step"))
			if now := read(at); now != int64(at) {
				t.Fatalf("the clock shows %d at %d", now, at)
			}
		}
		if c.strays != strays {
			t.Fatalf("%d records are out of line, want %d", c.strays, strays)
		}
		for range rapid.IntRange(0, 50).Draw(t, "any") {
			read(rapid.Uint64().Draw(t, "time"))
		}
	})
}

// A gate lets the same pass whether or not one record of the stream has a wrong time.
func TestStray(t *testing.T) {
	stream := records(3000, 300*time.Microsecond, plain)
	one := len(stream) / 3000
	want, s, err := through(t, quota, stream, nil)
	if err != nil || s.DroppedEarly.Frames == 0 {
		t.Fatalf("%v, %+v", err, s)
	}
	for _, wrong := range []uint64{0, 1e18 - 1e15, 1e18 + 3600e9, 1<<64 - 1} {
		bent := bytes.Clone(stream)
		_, f := plain(1499)
		copy(bent[1499*one:], (&frame.Record{Time: wrong, Frame: f}).Append(nil))
		got, s, err := through(t, quota, bent, nil)
		if err != nil || len(got) < len(want)*99/100 || len(got) > len(want) {
			t.Errorf("one record at %d: %d bytes pass, want %d, %v, %+v", wrong, len(got), len(want), err, s)
		}
	}
}

// Two captures in the wrong order: none that holds for one is lost behind the other, and
// what passes in a window of their times, one after the other, is at most the quota.
func TestWrongOrder(t *testing.T) {
	cfg := quota
	cfg.Policy = gate.Random // frames that wait pass later than their times say
	day := records(3000, 300*time.Microsecond, plain)
	earlier := bytes.Clone(day)
	for at := 0; at < len(earlier); at += len(day) / 3000 {
		earlier[at+2] -= 1 // the first byte of the time: two years
	}
	alone, _, err := through(t, cfg, day, nil)
	if err != nil {
		t.Fatal(err)
	}
	clock := &recordClock{}
	both, s, err := through(t, cfg, slices.Concat(day, earlier), func(f *filter) { f.records = clock })
	if err != nil || clock.strays != 1 || s.Used > s.Quota {
		t.Errorf("%v, %d records are out of line, %+v", err, clock.strays, s)
	}
	if n := len(both) - len(alone); n < len(alone)/5 {
		t.Errorf("%d bytes of the earlier capture pass, and %d of the later one alone", n, len(alone))
	}
	reader, order := &recordClock{}, map[uint64]int64{} // times of the clock
	read(t, slices.Concat(day, earlier), func(r *frame.Record) { order[r.Time] = reader.read(r.Time) })
	var passed []int64
	read(t, both, func(r *frame.Record) { passed = append(passed, order[r.Time]) })
	for i, at := range passed {
		j, _ := slices.BinarySearch(passed, at+int64(cfg.Window))
		if n := int64(j-i) * 1518; n > cfg.Quota {
			t.Fatalf("a window has %d bytes, of %d", n, cfg.Quota)
		}
	}
}
