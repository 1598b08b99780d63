// Package nettest gives tests network namespaces of their own, and skips those that
// cannot have what they need.
package nettest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Must is the environment variable that turns the skipping of a test for want
// of privileges or programs into a failure.
const Must = "FRAMEPIPE_MUST_RUN"

// Skip skips a test, loudly, or fails it where nothing may be skipped.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	why := fmt.Sprintf(format, args...)
	if os.Getenv(Must) != "" {
		t.Fatalf("NOT RUN, and %s is set: %s", Must, why)
	}
	skip(t, why)
}

// Shared returns the files beside the project that match a pattern, and skips the
// test, loudly, where there are none. That is no failure where nothing else may be
// skipped: a clone does not come with them.
func Shared(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob("../../../shared/" + pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		skip(t, "needs shared/"+pattern+" beside the project")
	}
	return names
}

func skip(t testing.TB, why string) {
	t.Helper()
	fmt.Fprintf(os.Stderr, "SKIPPED %s: %s\n", t.Name(), why)
	t.Skip(why)
}
