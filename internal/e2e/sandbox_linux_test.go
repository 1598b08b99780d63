package e2e

import (
	"errors"
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

// threads checks that the status of all threads of a process has these lines; see proc(5).
func threads(t testing.TB, pid int, want ...string) {
	t.Helper()
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if len(names) < 2 {
		t.Errorf("process %d: %d threads", pid, len(names))
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		status := strings.ReplaceAll(string(b), " \n", "\n")
		for _, line := range want {
			if !strings.Contains(status, "\n"+line+"\n") {
				t.Errorf("%s: %v, not %q:\n%s", name, err, line, b)
			}
		}
	}
}

// held is the status of a thread in the sandbox.
var held = []string{"NoNewPrivs:\t1", "Seccomp:\t2"}

// noCapabilities is that of one without privileges and without a way to get them.
var noCapabilities = []string{
	"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1",
}

// unprivileged is that of one of a user and group without privileges, and in no other group.
func unprivileged(uid, gid int) []string {
	four := func(id int) string { return strings.Repeat(fmt.Sprintf("\t%d", id), 4) }
	return append([]string{"Uid:" + four(uid), "Gid:" + four(gid), "Groups:\t"}, noCapabilities...)
}

// All four tools are held from the first frame on, and do their work: after long
// waits, signals of all kinds and many frames, and the metrics are written. For SIGUSR1 each
// prints its counters, and nothing else.
func TestSandbox(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	metrics := t.TempDir() + "/gate.prom"
	all, in, out := whole(t, "-window", "2s", "-metrics", metrics)
	cross(t, in, out)
	for _, s := range all {
		threads(t, s.Process.Pid, held...)
	}
	first, err := os.Stat(metrics)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // into waits that the scheduler knows of; the gate publishes its state once a second
	signal(t, all, unix.SIGUSR1)
	for i, want := range []string{
		`tunread: frames=1 bytes=56 ethernet_bytes=64 offloaded=0 errors=0 malformed=0 dropped=0 dropped_bytes=0`,
		`quotagate: state=open used=\d+ quota=1000000000 used_share=0.0000 read=1 read_bytes=56 in=1 in_bytes=64 passed=1 .* held=0 held_bytes=0 delay=0s`,
		`bytehist: frames=1 bytes=56 ethernet_bytes=64 reports=0 left_out=0`,
		`tunwrite: frames=1 bytes=56 segmented=0 merged=0 refused=0 malformed=0 ethernet_bytes=64 written=1 written_bytes=56 written_ethernet_bytes=64 lost_ethernet_bytes=0`,
	} {
		line := regexp.MustCompile("^" + want + "\n$")
		eventually(t, 10*time.Second, want, func() bool { return line.MatchString(all[i].Said.String()) })
	}
	signal(t, all, unix.SIGSTOP, unix.SIGCONT, unix.SIGURG)
	for range 20000 {
		cross(t, in, out)
	}
	time.Sleep(1200 * time.Millisecond)
	cross(t, in, out)
	for _, s := range all {
		threads(t, s.Process.Pid, held...)
	}
	if now, err := os.Stat(metrics); err != nil || os.SameFile(first, now) {
		t.Errorf("the metrics are as they were, %v", err)
	}
	signal(t, all, unix.SIGTERM)
	ended(t, all...)
	for _, s := range all {
		if says := s.Said.String(); strings.Count(says, "\n") != 1 {
			t.Errorf("%s: %s", s.Args[0], says)
		}
	}
	if s := read(t, metrics); !regexp.MustCompile(`\nquotagate_in_frames_total\S* 20002\n`).MatchString(s) {
		t.Error(s)
	}
}
