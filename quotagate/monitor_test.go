package main

import (
	"strings"
	"testing"

	"framepipe/internal/budget"
	"framepipe/internal/gate"
	"framepipe/internal/metrics/metricstest"
)

// Two gates whose files lie in one directory have no series in common, and the same HELP.
func TestMetrics(t *testing.T) {
	text := func(c config, source string) string {
		m := &monitor{labels: c.labels()}
		return string(m.prometheus(&state{State: gate.State{Budget: &budget.Stats{}}, Source: source}))
	}
	in := config{ledger: `/tmp/a "ledger"`, dir: 0, given: map[string]bool{"dir": true}}
	out := in
	out.dir = 1
	seen := map[string]bool{}
	for _, tt := range []struct{ text, labels string }{
		{text(in, "tap0"), `ledger="/tmp/a \"ledger\"",direction="in"`},
		{text(out, "tap1"), `ledger="/tmp/a \"ledger\"",direction="out"`},
		{text(config{}, "tap0"), `interface="tap0"`},
		{text(config{}, "tap1"), `interface="tap1"`},
		{text(config{dir: 1, given: map[string]bool{"dir": true}}, "tap1\xff\n\\"), `interface="tap1` + "\ufffd" + `\n\\",direction="out"`},
		{text(config{}, ""), ""},
	} {
		metricstest.Check(t, tt.text, "quotagate_", tt.labels)
		for line := range strings.Lines(tt.text) {
			name := line[:strings.LastIndexByte(line, ' ')]
			if line[0] != '#' && seen[name] {
				t.Errorf("%s is a series of two gates", name)
			}
			seen[name] = true
		}
		if help := strings.Count(tt.text, "# HELP"); help != 25 {
			t.Errorf("%d metrics", help)
		}
	}
}
