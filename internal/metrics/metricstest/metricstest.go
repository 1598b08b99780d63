// Package metricstest checks text for Prometheus without its programs.
package metricstest

import (
	"regexp"
	"strings"
	"testing"
)

var (
	metric = regexp.MustCompile(`^([a-z][a-z0-9_]*) \S.*\.\n# TYPE ([a-z0-9_]+) (counter|gauge)\n((?:.*\n)+)$`)
	series = regexp.MustCompile(`^([a-z][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? ` +
		`(?:[+-]?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|[+-]Inf|NaN)\n$`)
)

// Check checks that each metric has the prefix, one HELP and one TYPE before its series, which stand together and
// have the labels and a value, and that no series occurs twice.
func Check(t testing.TB, text, prefix, labels string) {
	t.Helper()
	all, seen := strings.Split(text, "# HELP "), map[string]bool{}
	if all[0] != "" || len(all) == 1 {
		t.Errorf("%q begins with no metric", text)
	}
	for _, one := range all[1:] {
		m := metric.FindStringSubmatch(one)
		if m == nil || m[1] != m[2] || !strings.HasPrefix(m[1], prefix) || seen[m[1]] ||
			m[3] == "counter" && !strings.HasSuffix(m[1], "_total") {
			t.Errorf("%q lacks a sentence or a TYPE, has another prefix or occurs twice", one)
			continue
		}
		seen[m[1]] = true
		for line := range strings.Lines(m[4]) {
			s := series.FindStringSubmatch(line)
			if s == nil || s[1] != m[1] || !strings.Contains(s[2], labels) || seen[s[1]+"{"+s[2]] {
				t.Errorf("%q is no series of %s with a number, lacks labels or occurs twice", line, m[1])
				continue
			}
			seen[s[1]+"{"+s[2]] = true
		}
	}
}
