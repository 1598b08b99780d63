// Package metricstest checks text for Prometheus without its programs.
package metricstest

import (
	"regexp"
	"strings"
	"testing"
)

var (
	comment = regexp.MustCompile(`^# (HELP|TYPE) ([a-z][a-z0-9_]*) (\S.*)$`)
	sample  = regexp.MustCompile(`^([a-z][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)$`)
	value   = regexp.MustCompile(`^([+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|[+-]Inf|NaN)$`)
)

// Check checks that each metric has the prefix, one HELP and one TYPE before its series, which stand together and
// have the labels and a value, and that no series occurs twice.
func Check(t testing.TB, text, prefix, labels string) {
	t.Helper()
	helped, typed, seen, last := map[string]bool{}, map[string]string{}, map[string]bool{}, ""
	for line := range strings.Lines(text) {
		line, ended := strings.CutSuffix(line, "\n")
		c, s := comment.FindStringSubmatch(line), sample.FindStringSubmatch(line)
		switch {
		case !ended:
			t.Errorf("%q has no end", line)
		case c != nil && c[1] == "HELP":
			if helped[c[2]] || !strings.HasPrefix(c[2], prefix) || !strings.HasSuffix(c[3], ".") {
				t.Errorf("%q is the second HELP, of another prefix or no sentence", line)
			}
			helped[c[2]], last = true, c[2]
		case c != nil:
			if typed[c[2]] != "" || c[2] != last || (c[3] == "counter") != strings.HasSuffix(c[2], "_total") && c[3] != "gauge" {
				t.Errorf("%q does not fit", line)
			}
			typed[c[2]] = c[3]
		case s == nil || !value.MatchString(s[3]):
			t.Errorf("%q is no series with a number", line)
		case s[1] != last || typed[last] == "" || !strings.Contains(s[2], labels) || seen[s[1]+s[2]]:
			t.Errorf("%q is not under its HELP and TYPE, lacks labels or occurs twice", line)
		default:
			seen[s[1]+s[2]] = true
		}
	}
	if len(seen) == 0 {
		t.Error("there is no series")
	}
}
