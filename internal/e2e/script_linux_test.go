package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"framepipe/internal/nettest"

	"golang.org/x/sys/unix"
)

// tools returns the processes of ours in a namespace, by number.
func tools(t testing.TB, ns *nettest.Namespace) map[int]string {
	t.Helper()
	found := map[int]string{}
	for _, pid := range ns.Processes() {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		switch s := strings.TrimSpace(string(name)); s {
		case "tunread", "tunwrite", "quotagate", "bytehist":
			found[pid] = s
		}
	}
	return found
}

func killOne(t testing.TB, ns *nettest.Namespace, name string) {
	t.Helper()
	for pid, s := range tools(t, ns) {
		if s == name {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	}
}

// Asked to stop while the pipelines are only beginning, run ends at once, too.
func TestPipelineScriptStopped(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "bash")
	ns := nettest.New(t)
	ns.Taps("tap0", "tap1")
	tmp := t.TempDir()
	var times []time.Duration
	for i := range 12 {
		run := ns.Command(bin+"/pipeline.sh", "run", "tap0", "tap1", "-in", "quotagate -rate 1Gbit/s")
		run.Env = append(os.Environ(), "TMPDIR="+tmp)
		script := pipeline(t, nil, nil, run)
		begun := func() bool { left, _ := filepath.Glob(tmp + "/pipeline.*"); return len(left) > 0 }
		eventually(t, 20*time.Second, "it begins", begun)
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		asked := time.Now()
		signal(t, script, unix.SIGTERM)
		if err := script[0].End(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		took, status := time.Since(asked), run.ProcessState
		times = append(times, took)
		if begun() || status.ExitCode() != 0 && status.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
			t.Fatalf("stop %d: %v after %v; files are left: %v", i, status, took, begun())
		}
		if left := tools(t, ns); len(left) > 0 {
			t.Errorf("stop %d: processes are left: %v", i, left)
		}
	}
	slices.Sort(times)
	t.Logf("from %v to %v, median %v", times[0], times[len(times)-1], times[len(times)/2])
	// A pipeline that does not hear is given two seconds, each of the two. The machine
	// has other things to do.
	if times[len(times)/2] > 3*time.Second {
		t.Errorf("they took %v", times)
	}
}

// So it does with 0 if a ^C ends, with it, what it was waiting for just then.
func TestPipelineScriptInterrupted(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "bash")
	dir := t.TempDir()
	write(t, dir+"/mktemp", "#!/bin/sh\n: >"+dir+"/begun\nexec sleep 60\n")
	run := exec.Command(bin+"/pipeline.sh", "run", "tap0", "tap1")
	run.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	script := pipeline(t, nil, nil, run)[0]
	eventually(t, 20*time.Second, "it begins", func() bool { return exists(dir + "/begun") })
	_ = unix.Kill(-run.Process.Pid, unix.SIGINT)
	ended(t, script)
}

// pipeline.sh run joins two taps until it is told to stop, and takes the other
// pipeline down when one ends.
func TestPipelineScript(t *testing.T) {
	nettest.Need(t, "bash")
	for name, end := range map[string]func(script *stage, ns *nettest.Namespace){
		"a signal":        func(s *stage, _ *nettest.Namespace) { _ = s.Process.Signal(unix.SIGTERM) },
		"a tap goes":      func(_ *stage, ns *nettest.Namespace) { ns.Run("ip", "link", "del", "tap1") },
		"a stage is gone": func(_ *stage, ns *nettest.Namespace) { killOne(t, ns, "quotagate") },
	} {
		t.Run(name, func(t *testing.T) {
			ns := nettest.New(t)
			ns.Taps("tap0", "tap1")
			run := ns.Command("../../pipeline.sh", "run", "tap0", "tap1",
				"-in", "quotagate -quota 123GB | bytehist -o /dev/null", "-out", "cat")
			tmp := t.TempDir()
			run.Env = append(os.Environ(), "TMPDIR="+tmp)
			script := pipeline(t, nil, nil, run)[0]
			t.Cleanup(func() { t.Logf("it said: %s", &script.Said) })
			// It stands when all the tools run.
			eventually(t, 20*time.Second, "the pipelines", func() bool { return len(tools(t, ns)) == 6 })
			time.Sleep(300 * time.Millisecond)
			end(script, ns)
			gone(t, []*stage{script})
			status := script.ProcessState.ExitCode()
			if want := name == "a signal"; (status == 0) != want {
				t.Errorf("status %d", status)
			}
			if left := tools(t, ns); len(left) > 0 {
				t.Errorf("processes are left: %v", left)
			}
			if left, err := os.ReadDir(tmp); len(left) > 0 || err != nil {
				t.Errorf("files are left: %v, %v", left, err)
			}
			if says := script.Said.String(); name == "a tap goes" && !regexp.MustCompile(`(?s)tap1: the device has gone away.*pipeline.sh: (in: tunwrite|out: tunread) has failed with status 1\n.*the pipeline (in|out) has failed; the other goes with it`).MatchString(says) {
				t.Errorf("it says %s", says)
			}
		})
	}
	const alone = "pipeline.sh: with -queues each gate would keep a quota of its own"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "usage: pipeline.sh"},
		{[]string{"fly"}, "pipeline.sh: there is no command fly"},
		{[]string{"run", "tap0"}, "pipeline.sh: run: 1 arguments given"},
		{[]string{"run", "tap0", "tap0"}, "pipeline.sh: run wants two taps, and tap0 is one"},
		{[]string{"run", "tap0", "tap1", "-in"}, "pipeline.sh: -in wants a value"},
		{[]string{"run", "tap0", "tap1", "-x"}, "pipeline.sh: there is no flag -x"},
		{[]string{"demo", "now"}, "pipeline.sh: demo: 1 arguments given"},
		{[]string{"run", "tap0", "tap1", "-queues"}, "pipeline.sh: -queues wants a value"},
		{[]string{"run", "tap0", "tap1", "-queues", "0"}, "pipeline.sh: -queues wants a number from 1 to 128"},
		{[]string{"run", "tap0", "tap1", "-queues", "129"}, "pipeline.sh: -queues wants a number from 1 to 128"},
		{[]string{"run", "tap0", "tap1", "-queues", "2x"}, "pipeline.sh: -queues wants a number from 1 to 128"},
		// Several gates without a ledger.
		{[]string{"run", "tap0", "tap1", "-queues", "2", "-in", "quotagate -rate 1Mbit/s"}, alone},
		{[]string{"run", "tap0", "tap1", "-queues", "2", "-in", "quotagate -rate 1Mbit/s -ledger x", "-out", "cat | quotagate -rate 1Mbit/s"}, alone},
	} {
		if says, status := outcome(exec.Command("../../pipeline.sh", tt.args...)); !strings.HasPrefix(says, tt.want) || status != 2 {
			t.Errorf("%q: status %d, %s, want %s", tt.args, status, says, tt.want)
		}
	}
	// With a ledger, and with one queue, the taps come next.
	for _, args := range [][]string{{"-queues", "2", "-in", "quotagate -rate 1Mbit/s -ledger x -dir in"}, {"-queues", "1", "-in", "quotagate -rate 1Mbit/s"}} {
		c := exec.Command(bin+"/pipeline.sh", append([]string{"run", "no0", "no1"}, args...)...)
		c.Dir = t.TempDir()
		if says, _ := outcome(c); !strings.Contains(says, "no0") {
			t.Errorf("%q: %s", args, says)
		}
	}
	for command := range scriptFlags(t) {
		for _, help := range []string{"-h", "--help", "x -h"} {
			out, err := exec.Command("../../pipeline.sh", strings.Fields(command+" "+help)...).Output()
			if err != nil || !strings.HasPrefix(string(out), "usage: pipeline.sh") {
				t.Errorf("%s %s: %v, %s", command, help, err, out)
			}
		}
	}
}
