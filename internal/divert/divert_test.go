package divert

import (
	"testing"
	"time"
)

// The decisions of the valve, moment by moment.
func TestValve(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	type step struct {
		at          time.Duration
		lacks, stop bool
		pass        bool // wanted
	}
	for _, tt := range []struct {
		name  string
		open  bool
		steps []step
	}{
		{"closed, it diverts whatever lacks, until it is asked to stop", false, []step{
			{at: 0},
			{at: s, lacks: true},
			{at: 10 * s, stop: true, lacks: true, pass: true},
			{at: 20 * s, stop: true, pass: true},
		}},
		{"open, it lets pass at once and diverts after a second", true, []step{
			{at: 0},
			{at: 5 * s, lacks: true, pass: true},
			{at: 6 * s, lacks: true, pass: true},
			{at: 7 * s, pass: true},
			{at: 8*s - ms, pass: true},
			{at: 8 * s},
			{at: 10 * s, stop: true, pass: true},
			{at: 20 * s, stop: true, pass: true},
		}},
		{"open, the second begins anew when something lacks again", true, []step{
			{at: 0, lacks: true, pass: true},
			{at: 1 * s, pass: true},
			{at: 2*s - ms, lacks: true, pass: true},
			{at: 2 * s, pass: true},
			{at: 3*s - ms, pass: true},
			{at: 3 * s},
		}},
	} {
		v := valve{open: tt.open}
		for _, s := range tt.steps {
			lacking := ""
			if s.lacks {
				lacking = "net is down"
			}
			v.closing = s.stop
			if pass := v.passes(time.Unix(1e9, 0).Add(s.at), lacking); pass != s.pass {
				t.Errorf("%s: at %v: frames pass %v, want %v", tt.name, s.at, pass, s.pass)
			}
		}
	}
}

// What a tap is without.
func TestLacks(t *testing.T) {
	several := func(queues, detached int) port {
		return port{index: 7, up: true, tap: true, several: true, queues: queues, detached: detached, carrier: true}
	}
	down := several(1, 1)
	down.up = false
	single := port{index: 7, up: true, tap: true, carrier: true}
	idle := single
	idle.carrier = false
	for _, tt := range []struct {
		name          string
		p             port
		read, written bool
		lacks         string
	}{
		{"it is not there", port{}, false, false, "is gone"},
		{"down", down, false, false, "is down"},
		{"nobody", several(0, 0), false, false, "has no reader"},
		{"a reader", several(1, 0), true, false, "has no writer"},
		{"a writer", several(0, 1), false, true, "has no reader"},
		{"both", several(1, 1), true, true, ""},
		{"a single queue without a process", idle, false, false, "has no reader"},
		{"a single queue with one", single, true, true, ""},
	} {
		if read, written, lacks := tt.p.read(), tt.p.written(), tt.p.lacks(); read != tt.read || written != tt.written || lacks != tt.lacks {
			t.Errorf("%s: read %v, written %v, lacks %q, want %v, %v, %q", tt.name, read, written, lacks, tt.read, tt.written, tt.lacks)
		}
	}
}
