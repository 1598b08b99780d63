package main

import (
	"testing"
	"time"

	"framepipe/internal/gate"
	"framepipe/internal/recorded"
)

// A replay adds up what the gate said at each second.
func TestReplay(t *testing.T) {
	r := &replay{records: &recorded.Clock{}}
	if got := r.String(); got != "no frame" {
		t.Errorf("nothing: %s", got)
	}
	r.observe(0, &gate.State{Open: true}) // before the first frame
	base := time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC).UnixNano()
	for i, s := range []gate.State{
		{Open: true, Quota: 1000},
		{Open: true, Quota: 1000, Used: 700},
		{Quota: 1000, Used: 990, Delay: 5 * time.Millisecond}, // shut for two seconds
		{Quota: 1000, Used: 800},
		{Open: true, Quota: 1000, Used: 100},
		{Quota: 1000, Used: 900}, // and for one
		{Open: true, Quota: 1000},
	} {
		s.In = gate.Counts{Frames: 10, Bytes: 2000}
		s.Passed = gate.Counts{Frames: 7, Bytes: 1500}
		s.DroppedEarly, s.DroppedFull = gate.Counts{Frames: 1, Bytes: 200}, gate.Counts{Frames: 2, Bytes: 300}
		r.observe(base+int64(i)*int64(time.Second), &s)
	}
	want := `from 2026-11-22 07:00:00 to 2026-11-22 07:00:06 UTC: 6s
passed 7 frames, 1.50 kB; dropped 3 frames, 500 B (25.00%)
closed 2 times, 3s in all; the fullest window had 99.00% of 1.00 kB; frames waited up to 5ms`
	if got := r.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
