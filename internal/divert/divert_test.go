package divert

import (
	"testing"
	"time"
)

// The decisions of the valve, moment by moment.
const s, ms = time.Second, time.Millisecond

// valveStep is the input of a valve at a time, and the decision that the test expects.
type valveStep struct {
	at      time.Duration
	lacks   bool
	stop    bool
	divert  bool
	changed bool
}

var valves = []struct {
	name  string
	open  bool
	steps []valveStep
}{
	{"closed, it diverts whatever lacks", false, []valveStep{
		{at: 0, divert: true},
		{at: s, lacks: true, divert: true},
		{at: 9 * s, divert: true},
	}},
	{"closed, asked to stop", false, []valveStep{
		{at: 0, lacks: true, divert: true},
		{at: s, stop: true, lacks: true, changed: true},
		{at: 2 * s, stop: true},
	}},
	{"open, nothing lacks", true, []valveStep{
		{at: 0, divert: true},
		{at: s, divert: true},
	}},
	{"open, it lets pass at once and diverts after a second", true, []valveStep{
		{at: 0, divert: true},
		{at: 5 * s, lacks: true, changed: true},
		{at: 6 * s, lacks: true},
		{at: 7 * s},
		{at: 8*s - ms},
		{at: 8 * s, divert: true, changed: true},
		{at: 9 * s, divert: true},
	}},
	{"open, the second begins anew when something lacks again", true, []valveStep{
		{at: 0, lacks: true, changed: true},
		{at: 1 * s},
		{at: 2*s - ms, lacks: true},
		{at: 2 * s},
		{at: 3*s - ms},
		{at: 3 * s, divert: true, changed: true},
	}},
	{"open, asked to stop", true, []valveStep{
		{at: 0, divert: true},
		{at: s, stop: true, changed: true},
		{at: 5 * s, stop: true},
	}},
	{"open, asked to stop while it lets pass", true, []valveStep{
		{at: 0, lacks: true, changed: true},
		{at: s, stop: true, lacks: true},
		{at: 5 * s, stop: true},
	}},
}

func TestValve(t *testing.T) {
	for _, tt := range valves {
		t.Run(tt.name, func(t *testing.T) {
			v := valve{open: tt.open}
			began := time.Unix(1e9, 0)
			for _, s := range tt.steps {
				v.closing = s.stop
				if divert, changed := v.decide(began.Add(s.at), s.lacks); divert != s.divert || changed != s.changed {
					t.Errorf("at %v: divert %v, changed %v, want %v, %v", s.at, divert, changed, s.divert, s.changed)
				}
			}
		})
	}
}

// What a tap is without.
func TestLacks(t *testing.T) {
	several := func(queues, detached int) port {
		return port{index: 7, ethernet: true, up: true, tap: true, several: true, queues: queues, detached: detached, carrier: true}
	}
	down := several(1, 1)
	down.up = false
	single := port{index: 7, ethernet: true, up: true, tap: true}
	attached := single
	attached.carrier = true
	idle := attached
	idle.up = false
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
		{"several of each", several(4, 4), true, true, ""},
		{"a single queue without a process", single, false, false, "has no reader"},
		{"a single queue with one", attached, true, true, ""},
		{"a single queue, down", idle, false, false, "is down"},
	} {
		if read, written, lacks := tt.p.read(), tt.p.written(), tt.p.lacks(); read != tt.read || written != tt.written || lacks != tt.lacks {
			t.Errorf("%s: read %v, written %v, lacks %q, want %v, %v, %q", tt.name, read, written, lacks, tt.read, tt.written, tt.lacks)
		}
	}
}
