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
	text := func(c config, source string) string {
		m := &monitor{labels: c.labels()}
		return string(m.prometheus(&state{State: gate.State{Budget: &budget.Stats{}}, Source: source}))
	}
	in := config{ledger: `/tmp/a "ledger"`, dir: 0, given: map[string]bool{"dir": true}}
	out := in
	out.dir = 1
	for _, tt := range []struct{ text, labels string }{
		{text(in, "tap0"), `ledger="/tmp/a \"ledger\"",direction="in"`},
		{text(out, "tap1"), `ledger="/tmp/a \"ledger\"",direction="out"`},
		{text(config{}, "tap0"), `interface="tap0"`},
		{text(config{}, "tap1"), `interface="tap1"`},
		{text(config{dir: 1, given: map[string]bool{"dir": true}}, "tap1\xff\n\\"), `interface="tap1` + "\ufffd" + `\n\\",direction="out"`},
		{text(config{}, ""), ""},
	} {
		metricstest.Check(t, tt.text, "quotagate_", tt.labels)
		if n := strings.Count(tt.text, "# HELP"); n != 25 {
			t.Errorf("%d metrics", n)
		}
	}
}
