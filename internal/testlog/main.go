// Testlog prints the output of the tests while they run, and shortens it:
//
//	go test -json ./... | testlog [-skips N] [-missed FILE]
//
// It prints a line for each package, for each test that takes a second or longer, and for
// each skip with its reason. For a failed test it prints the whole output. The status is
// 1 if a test fails, or if more than N skip. FILE gets a line for each package in which tests
// skip: the package, and a pattern for go test -run that finds these tests.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	skips := flag.Int("skips", -1, "fail if more tests skip than this; -1: no limit")
	missed := flag.String("missed", "", "file for the tests that skip")
	flag.Parse()
	start := time.Now()
	l := newLog(os.Stdout)
	err := l.read(os.Stdin)
	if err == nil && *skips >= 0 && l.skipped > *skips {
		err = fmt.Errorf("%d tests skip, and at most %d may", l.skipped, *skips)
	}
	if *missed != "" {
		err = errors.Join(err, os.WriteFile(*missed, l.patterns(), 0o666))
	}
	fmt.Printf("%d passed, %d skipped, %d failed, %v\n", l.passed, l.skipped, l.failed, time.Since(start).Round(time.Second))
	if err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
	}
	if err != nil || l.failed > 0 {
		os.Exit(1)
	}
}

// event is a line of go test -json; see go doc test2json and go help buildjson.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// log counts top-level tests, and the skips of all.
type log struct {
	w                       io.Writer
	passed, failed, skipped int
	output                  map[string]map[string]string // by package and test, until the test ends
	broken                  map[string]bool              // packages with a failed test
	missed                  map[string][]string          // top-level tests that skip, or a part of them, by package
}

func newLog(w io.Writer) *log {
	return &log{w: w, output: map[string]map[string]string{}, broken: map[string]bool{}, missed: map[string][]string{}}
}

// patterns returns the lines that find the tests that skip.
func (l *log) patterns() (b []byte) {
	for _, name := range slices.Sorted(maps.Keys(l.missed)) {
		b = fmt.Appendf(b, "%s ^(%s)$\n", name, strings.Join(l.missed[name], "|"))
	}
	return b
}

func (l *log) read(r io.Reader) error {
	for d := json.NewDecoder(r); ; {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		l.add(&e)
	}
}

func (l *log) add(e *event) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(l.w, e.Output)
	case "output":
		if l.output[e.Package] == nil {
			l.output[e.Package] = map[string]string{}
		}
		l.output[e.Package][e.Test] += e.Output
	case "pass", "fail", "skip":
		if e.Test == "" {
			l.endPackage(e)
			delete(l.output, e.Package)
		} else {
			l.endTest(e)
			delete(l.output[e.Package], e.Test)
		}
	}
}

// reason matches the line of a call of t.Skip.
var reason = regexp.MustCompile(`(?m)^ +\S+\.go:\d+: (.*)`)

func (l *log) endTest(e *event) {
	top := !strings.Contains(e.Test, "/")
	output := l.output[e.Package][e.Test]
	note := ""
	switch e.Action {
	case "pass":
		if top {
			l.passed++
		}
	case "fail":
		if top {
			l.failed++
		}
		l.broken[e.Package] = true
		fmt.Fprint(l.w, output)
	case "skip":
		l.skipped++
		name, _, _ := strings.Cut(e.Test, "/")
		if all := l.missed[e.Package]; !slices.Contains(all, name) {
			l.missed[e.Package] = append(all, name)
		}
		if m := reason.FindStringSubmatch(output); m != nil {
			note = ": " + m[1]
		}
	}
	if e.Action != "pass" || top && e.Elapsed >= 1 {
		fmt.Fprintf(l.w, "%s  %s %s (%.1fs)%s\n", e.Action, e.Package, e.Test, e.Elapsed, note)
	}
}

func (l *log) endPackage(e *event) {
	note := ""
	if strings.Contains(l.output[e.Package][""], "\t(cached)") {
		note = ", cached"
	}
	if e.Action == "fail" {
		// After a panic or os.Exit, some tests have no end of their own.
		for _, output := range l.output[e.Package] {
			fmt.Fprint(l.w, output)
		}
		if !l.broken[e.Package] {
			l.failed++
		}
	}
	if e.Action != "skip" { // no test files
		fmt.Fprintf(l.w, "%s  %s (%.1fs%s)\n", e.Action, e.Package, e.Elapsed, note)
	}
}
