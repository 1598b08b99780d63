// Package e2e tests the tools as they are used: the real binaries, joined by
// real pipes, on real taps with real TCP.
package e2e

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/packettest"
	"framepipe/internal/process"

	"github.com/rogpeppe/go-internal/testscript"
)

// bin is where the tools were built.
var bin string

func TestMain(m *testing.M) {
	if os.Getenv(residentOf) != "" {
		os.Exit(printResident(os.Args[1:]))
	}
	// Those that run beside others mostly wait.
	_ = flag.Set("test.parallel", "6")
	flag.Parse()
	if name := os.Getenv(meterFile); name != "" {
		os.Exit(meter(name))
	}
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "framepipe-bin-")
	defer os.RemoveAll(dir)
	bin = dir + "/bin"
	packages := []string{"framepipe/bench/soak"}
	for _, name := range manTools {
		packages = append(packages, "framepipe/"+name)
	}
	// As if it were installed: most tests need no build of their own. Another user
	// runs the stages of up, and must reach them.
	err = errors.Join(err, process.Build(bin, packages...), os.Chmod(dir, 0o755), os.Chmod(bin, 0o755), os.MkdirAll(dir+"/share/framepipe", 0o755))
	for from, to := range map[string]string{"pipeline.sh": "/bin/pipeline.sh", "internal/status/status.sh": "/share/framepipe/status.sh"} {
		text, e := os.ReadFile(root + "/" + from)
		err = errors.Join(err, e, os.WriteFile(dir+to, text, 0o755))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return m.Run()
}

// What the tests run is built of these files. Go takes the results of a run before for
// those of this one unless it knows of a test that has looked at what has changed.
func TestSources(t *testing.T) {
	n := 0
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			n++
			_, err = os.Stat(name)
		}
		return err
	})
	if err != nil || n < 100 {
		t.Errorf("%d files, %v", n, err)
	}
}

// The scripts in testdata/script are the behaviour at the command line.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			return os.CopyFS(filepath.Join(e.WorkDir, "vectors"), os.DirFS("../../frame/testdata/vectors"))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"stream": makeStream,
			"exits":  exits,
			"same":   same,
		},
	})
}

// makeStream FILE FRAMES SIZE INTERVAL [START] writes a stream of UDP frames of three
// flows; SIZE 0 makes TCP super-frames.
func makeStream(ts *testscript.TestScript, _ bool, args []string) {
	n, err1 := strconv.Atoi(args[1])
	size, err2 := strconv.Atoi(args[2])
	interval, err3 := time.ParseDuration(args[3])
	ts.Check(errors.Join(err1, err2, err3))
	start := uint64(1e9)
	if len(args) > 4 {
		start, err1 = strconv.ParseUint(args[4], 10, 33)
		ts.Check(err1)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), streamFrom(start*1e9, n, size, interval), 0o644))
}

func stream(n, size int, interval time.Duration) []byte { return streamFrom(1e18, n, size, interval) }

func streamFrom(start uint64, n, size int, interval time.Duration) []byte {
	var all []frame.Record
	for i := range n {
		s := packettest.Spec{UDP: true, Port: uint16(5000 + i%3)}
		rec := frame.Record{Time: start + uint64(i)*uint64(interval)}
		if size > 0 {
			s.Payload = packettest.Bytes(size - 42)
			rec.Frame = s.Frame()
		} else {
			s.UDP, s.Payload = false, packettest.Bytes(43800)
			rec.Offload, rec.Frame = s.Super(1460)
		}
		all = append(all, rec)
	}
	return streamOf(all...)
}

func streamOf(records ...frame.Record) []byte {
	var b bytes.Buffer
	w := frame.NewWriter(&b)
	_ = w.Header(frame.LinkEthernet, "tap0")
	for _, rec := range records {
		_ = w.Write(&rec)
	}
	_ = w.Flush()
	return b.Bytes()
}

// exits STATUS COMMAND... runs a shell command, whose stdout and stderr the
// script can look at, and wants it to exit so. A trace on stderr is never
// right.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("bash", "-c", "("+strings.Join(args[1:], " ")+"); echo \"status $?\" >status.txt"))
	if got := strings.TrimSpace(ts.ReadFile("status.txt")); got != "status "+args[0] {
		ts.Fatalf("%s, want %s", got, args[0])
	}
	if e := ts.ReadFile("stderr"); strings.Contains(e, "goroutine") || strings.Contains(e, "panic") {
		ts.Fatalf("a trace:\n%s", e)
	}
}

// same FILE FILE compares files of any bytes.
func same(ts *testscript.TestScript, neg bool, args []string) {
	if (ts.ReadFile(args[0]) == ts.ReadFile(args[1])) == neg {
		ts.Fatalf("%s and %s: the same is %v", args[0], args[1], neg)
	}
}
