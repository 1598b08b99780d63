package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// It reads what this go prints of a package in which each kind of end occurs.
func TestLog(t *testing.T) {
	files := fstest.MapFS{
		"go.mod": {Data: []byte("module m\n\ngo 1.24\n")},
		"a/a_test.go": {Data: []byte(`package a
import ("testing"; "time")
func TestFast(t *testing.T) { t.Log("not shown") }
func TestSlow(t *testing.T) { time.Sleep(1010*time.Millisecond) }
func TestBad(t *testing.T) { t.Run("one", func(t *testing.T) { t.Error("shown") }); t.Run("two", func(t *testing.T) { t.Skip("needs this") }) }
func TestSkip(t *testing.T) { t.Skip("needs that") }
`)},
		"b/b_test.go": {Data: []byte("package b\nimport (\"testing\"; \"os\")\nfunc TestExit(*testing.T) { os.Exit(3) }\n")},
		"c/c_test.go": {Data: []byte("package c\nimport \"testing\"\nfunc TestPanic(*testing.T) { panic(\"boom\") }\n")},
		"d/d_test.go": {Data: []byte("package d\nthis is no Go\n")},
		"e/e_test.go": {Data: []byte("package e\nimport \"testing\"\nfunc TestFine(*testing.T) {}\n")},
		"f/f.go":      {Data: []byte("package f\n")},
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, files); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", "test", "-json", "-vet=off", "-p=1", "./...")
	c.Dir = dir
	in, _ := c.Output()
	var out strings.Builder
	l := newLog(&out)
	if err := l.read(bytes.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	if got := string(l.patterns()); got != "m/a ^(TestBad|TestSkip)$\n" {
		t.Errorf("missed: %q", got)
	}
	got := regexp.MustCompile(`\(\d+\.\d+s`).ReplaceAllString(out.String(), "(TIME")
	for _, want := range []string{
		"pass  m/a TestSlow (TIME)\n",
		"    a_test.go:5: shown\n",
		"fail  m/a TestBad/one (TIME)\n",
		"skip  m/a TestBad/two (TIME): needs this\n",
		"skip  m/a TestSkip (TIME): needs that\n",
		"fail  m/a TestBad (TIME)\n",
		"fail  m/a (TIME)\n",
		"=== RUN   TestExit\n", "fail  m/b (TIME)\n",
		"panic: boom", "fail  m/c (TIME)\n",
		"expected declaration", "fail  m/d (TIME)\n",
		"pass  m/e (TIME)\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if regexp.MustCompile("not shown|TestFast|m/f").MatchString(got) {
		t.Errorf("more than is to be shown:\n%s", got)
	}
	// TestBad, and one for each of b, c and d.
	if l.passed != 3 || l.failed != 4 || l.skipped != 2 {
		t.Errorf("%d passed, %d failed, %d skipped\n%s", l.passed, l.failed, l.skipped, got)
	}
	if err := newLog(&out).read(strings.NewReader("no JSON")); err == nil {
		t.Error("no JSON is read")
	}
}
