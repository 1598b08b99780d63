package main

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/gate"
	"framepipe/internal/recorded"
)

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
	clock := &recorded.Clock{}
	both, s, err := through(t, cfg, slices.Concat(day, earlier), func(f *filter) { f.records = clock })
	if err != nil || clock.Strays != 1 || s.Used > s.Quota {
		t.Errorf("%v, %d records are out of line, %+v", err, clock.Strays, s)
	}
	if n := len(both) - len(alone); n < len(alone)/5 {
		t.Errorf("%d bytes of the earlier capture pass, and %d of the later one alone", n, len(alone))
	}
	reader, order := &recorded.Clock{}, map[uint64]int64{} // times of the clock
	read(t, slices.Concat(day, earlier), func(r *frame.Record) { order[r.Time] = reader.Read(r.Time) })
	var passed []int64
	read(t, both, func(r *frame.Record) { passed = append(passed, order[r.Time]) })
	for i, at := range passed {
		j, _ := slices.BinarySearch(passed, at+int64(cfg.Window))
		if n := int64(j-i) * 1518; n > cfg.Quota {
			t.Fatalf("a window has %d bytes, of %d", n, cfg.Quota)
		}
	}
}
