package main

import (
	"strings"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/gate"
	"framepipe/internal/metrics/metricstest"
)

// The line of SIGUSR1 has what there is.
func TestLine(t *testing.T) {
	m := &monitor{}
	if got := m.line(); got != "no frame yet" {
		t.Error(got)
	}
	s := state{State: gate.State{Used: 7, Quota: 10, Rate: 5, Opens: time.Minute, HeldFrames: 1, HeldBytes: 2, Delay: time.Second}}
	s.Budget = &budget.Stats{Total: 9, Used: 2, Left: 7, End: 1e18, Spent: 20}
	s.DroppedFull = gate.Counts{Frames: 3, Bytes: 4}
	m.state.Store(&s)
	const want = "state=pacing used=7 quota=10 used_share=0.7000 free_total=9 free_used=2 free_left=7 burst=held " +
		"cycle_end=2001-09-09T01:46:40Z spent=20 opens_in=1m0s rate_bytes=5 read=0 read_bytes=0 in=0 in_bytes=0 passed=0 passed_bytes=0 " +
		"dropped_full=3 dropped_full_bytes=4 marked=0 marked_bytes=0 control=0 control_bytes=0 unmetered=0 unmetered_bytes=0 " +
		"held=1 held_bytes=2 delay=1s"
	if got := m.line(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Two gates whose files lie in one directory have no labels in common.
func TestMetrics(t *testing.T) {
	text := func(ledger, direction, source string) string {
		m := &monitor{ledger: ledger, direction: direction}
		return string(m.prometheus(&state{State: gate.State{Budget: &budget.Stats{}}, Source: source}))
	}
	for _, tt := range []struct{ text, labels string }{
		{text(`/tmp/a "ledger"`, "in", "tap0"), `ledger="/tmp/a \"ledger\"",direction="in"`},
		{text("", "", "tap0"), `interface="tap0"`},
		{text("", "out", "tap1\xff\n\\"), `interface="tap1` + "\ufffd" + `\n\\",direction="out"`},
		{text("", "", ""), ""},
	} {
		metricstest.Check(t, tt.text, "quotagate_", tt.labels)
		if n := strings.Count(tt.text, "# HELP"); n != 25 {
			t.Errorf("%d metrics", n)
		}
	}
}
