package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"framepipe/internal/nettest"

	"golang.org/x/sys/unix"
)

// needSandbox skips a test where the kernel has no filter for system calls.
func needSandbox(t *testing.T) {
	t.Helper()
	c := tool("bytehist", "-v")
	c.Stdin = strings.NewReader("")
	out, _ := c.CombinedOutput()
	if !strings.HasPrefix(string(out), "bytehist: sandbox: system-call filter, ") {
		nettest.Skip(t, "%s", out)
	}
}

// held checks that all threads of a process are in the sandbox, as proc(5) says.
func held(t *testing.T, s *stage) {
	t.Helper()
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", s.Process.Pid))
	if len(threads) < 2 {
		t.Errorf("%s: %d threads", s.Args[0], len(threads))
	}
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue // it has ended
		}
		if err != nil || !strings.Contains(string(b), "\nNoNewPrivs:\t1\n") || !strings.Contains(string(b), "\nSeccomp:\t2\n") {
			t.Errorf("%s, %s: %v\n%s", s.Args[0], name, err, b)
		}
	}
}

func signal(t *testing.T, all []*stage, sig ...unix.Signal) {
	t.Helper()
	for _, s := range all {
		for _, x := range sig {
			if err := s.Process.Signal(x); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// All four tools are held from the first frame on, and do their work: after long
// waits, signals of all kinds and many frames, and the metrics are written.
func TestSandbox(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	metrics := t.TempDir() + "/gate.prom"
	all, in, out := whole(t, "-window", "2s", "-metrics", metrics)
	cross(t, in, out)
	for _, s := range all {
		held(t, s)
	}
	first, err := os.Stat(metrics)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // into waits that the scheduler knows of
	signal(t, all, unix.SIGUSR1, unix.SIGSTOP, unix.SIGCONT, unix.SIGURG)
	for range 20000 {
		cross(t, in, out)
	}
	time.Sleep(1200 * time.Millisecond)
	cross(t, in, out)
	for _, s := range all {
		held(t, s)
	}
	if now, err := os.Stat(metrics); err != nil || os.SameFile(first, now) {
		t.Errorf("the metrics are as they were, %v", err)
	}
	signal(t, all, unix.SIGTERM)
	for _, s := range all {
		if err := s.wait(t, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		want := regexp.MustCompile(`^` + filepath.Base(s.Args[0]) + `: .*\n$`) // the counters, and nothing else
		if status := s.ProcessState.ExitCode(); status != 0 || !want.MatchString(s.stderr.String()) {
			t.Errorf("%s: status %d, %s", s.Args[0], status, &s.stderr)
		}
	}
	if b, err := os.ReadFile(metrics); err != nil || !strings.Contains(string(b), "quotagate_in_frames_total 20002\n") {
		t.Errorf("%s, %v", b, err)
	}
}

// What a tool was given to write to it writes: reports, a ledger over the end of
// cycles, metrics. The local time is the machine's.
func TestSandboxFiles(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	dir := t.TempDir()
	reports := dir + "/reports"
	var out bytes.Buffer
	gate := tool("quotagate", "-v", "-quota", "1GB", "-window", "1s", "-cycle", "1s", "-clock", "stream",
		"-ledger", dir+"/ledger", "-dir", "out", "-metrics", dir+"/gate.prom")
	hist := tool("bytehist", "-v", "-o", reports, "-every", "1ms")
	hist.Env = append(os.Environ(), "TZ=Asia/Kathmandu")
	back := tool("framepcap", "-v")
	all := pipeline(t, bytes.NewReader(stream(1000, 500, 10*time.Millisecond)), &out, gate, hist, back)
	for _, s := range all {
		if err := s.wait(t, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{
		"^quotagate: sandbox: system-call filter, .*\n",
		"^bytehist: sandbox: system-call filter, [^/]*\n$",
		"^framepcap: sandbox: system-call filter, [^/]*\n$",
	} {
		if got := all[i].stderr.String(); !regexp.MustCompile(want).MatchString(got) || all[i].ProcessState.ExitCode() != 0 {
			t.Errorf("%v: %s", all[i].ProcessState, got)
		}
	}
	if b, err := os.ReadFile(dir + "/gate.prom"); err != nil || !strings.Contains(string(b), "\nquotagate_in_frames_total 1000\n") {
		t.Errorf("%s, %v", b, err)
	}
	if out.Len() != 24+1000*516 {
		t.Errorf("%d bytes of capture", out.Len())
	}
	b, err := os.ReadFile(reports)
	zone, err2 := time.LoadLocation("Asia/Kathmandu")
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04:05", time.Now().In(zone).Format("2006-01-02 ")+string(b[:min(8, len(b))]), zone)
	if d := time.Since(at).Abs(); err != nil || d > time.Minute && d < 24*time.Hour-time.Minute {
		t.Errorf("%s, %v", b, err)
	}
}

// A stage that is told to die with a trace prints it.
func TestSandboxTrace(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	for i := range 4 {
		all, in, out := whole(t)
		cross(t, in, out)
		signal(t, all[i:i+1], unix.SIGQUIT)
		if err := all[i].wait(t, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		got := all[i].stderr.String()
		if status := all[i].ProcessState.ExitCode(); status != 2 || !strings.Contains(got, "goroutine 1 ") {
			t.Errorf("%s: status %d, %s", all[i].Args[0], status, got)
		}
	}
}
