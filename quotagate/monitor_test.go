package main

import (
	"strings"
	"testing"

	"framepipe/internal/budget"
	"framepipe/internal/gate"
	"framepipe/internal/metrics/metricstest"
)

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
