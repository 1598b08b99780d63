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
	for want, p := range map[string]port{
		"is gone":       {},
		"is down":       {index: 7, queues: 1, detached: 1},
		"has no reader": {index: 7, up: true, detached: 1},
		"has no writer": {index: 7, up: true, queues: 1},
		"":              {index: 7, up: true, queues: 1, detached: 1},
	} {
		if lacks := p.lacks(); lacks != want {
			t.Errorf("%+v %s, want %q", p, lacks, want)
		}
	}
}
