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

// Asked to stop while the pipelines are only beginning, run ends at once, too.
func TestPipelineScriptStopped(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "bash")
	ns := nettest.New(t)
	ns.Taps("tap0", "tap1")
	tmp := t.TempDir()
	begun := func() bool { left, _ := filepath.Glob(tmp + "/pipeline.*"); return len(left) > 0 }
	var times []time.Duration
	for i := range 12 {
		run := ns.Command(bin+"/pipeline.sh", "run", "tap0", "tap1", "-in", "quotagate -rate 1Gbit/s")
		run.Env = append(os.Environ(), "TMPDIR="+tmp)
		script := pipeline(t, nil, nil, run)
		eventually(t, 20*time.Second, "it begins", begun)
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		asked := time.Now()
		signal(t, script, unix.SIGTERM)
		if err := script[0].End(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(asked))
		status := run.ProcessState
		if begun() || status.ExitCode() != 0 && status.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
			t.Fatalf("stop %d: %v; files are left: %v", i, status, begun())
		}
		if left := tools(t, ns); len(left) > 0 {
			t.Errorf("stop %d: processes are left: %v", i, left)
		}
	}
	// A pipeline that does not hear is given two seconds, each of the two. The machine
	// has other things to do.
	if slices.Sort(times); times[len(times)/2] > 3*time.Second {
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
	for name, says := range map[string]string{
		"a signal": "",
		"a tap goes": `(?s)tap1: the device has gone away.*pipeline.sh: (in: tunwrite|out: tunread) has failed with status 1\n` +
			`.*the pipeline (in|out) has failed; the other goes with it`,
		"a stage is gone": "",
	} {
		t.Run(name, func(t *testing.T) {
			ns := nettest.New(t)
			ns.Taps("tap0", "tap1")
			run := ns.Command(bin+"/pipeline.sh", "run", "tap0", "tap1",
				"-in", "quotagate -quota 123GB | bytehist -o /dev/null", "-out", "cat")
			tmp := t.TempDir()
			run.Env = append(os.Environ(), "TMPDIR="+tmp)
			script := pipeline(t, nil, nil, run)
			// It stands when all the tools run.
			eventually(t, 20*time.Second, "the pipelines", func() bool { return len(tools(t, ns)) == 6 })
			time.Sleep(300 * time.Millisecond)
			switch name {
			case "a signal":
				signal(t, script, unix.SIGTERM)
			case "a tap goes":
				ns.Run("ip", "link", "del", "tap1")
			default:
				for pid, tool := range tools(t, ns) {
					if tool == "quotagate" {
						_ = unix.Kill(pid, unix.SIGKILL)
					}
				}
			}
			gone(t, script)
			said, status := script[0].Said.String(), run.ProcessState.ExitCode()
			if (status == 0) != (name == "a signal") || !regexp.MustCompile(says).MatchString(said) {
				t.Errorf("status %d, it says %s", status, said)
			}
			if left, err := os.ReadDir(tmp); len(left) > 0 || err != nil || len(tools(t, ns)) > 0 {
				t.Errorf("left: files %v, %v, processes %v", left, err, tools(t, ns))
			}
		})
	}
}

func TestPipelineScriptUsage(t *testing.T) {
	const alone = "pipeline.sh: with -queues each gate would keep a quota of its own"
	for _, tt := range []struct{ args, says string }{
		{"", "usage: pipeline.sh"},
		{"fly", "pipeline.sh: there is no command fly"},
		{"run tap0", "pipeline.sh: run: 1 arguments given"},
		{"run tap0 tap0", "pipeline.sh: run wants two taps, and tap0 is one"},
		{"run tap0 tap1 -in", "pipeline.sh: -in wants a value"},
		{"run tap0 tap1 -x", "pipeline.sh: there is no flag -x"},
		{"demo now", "pipeline.sh: demo: 1 arguments given"},
		{"run tap0 tap1 -queues 0", "pipeline.sh: -queues wants a number from 1 to 128"},
		{"run tap0 tap1 -queues 129", "pipeline.sh: -queues wants a number from 1 to 128"},
		{"run tap0 tap1 -queues 2x", "pipeline.sh: -queues wants a number from 1 to 128"},
		// Several gates without a ledger.
		{"run tap0 tap1 -queues 2 -in 'quotagate -rate 1Mbit/s'", alone},
		{"run tap0 tap1 -queues 2 -in 'quotagate -rate 1Mbit/s -ledger x' -out 'cat | quotagate -rate 1Mbit/s'", alone},
		// With a ledger, and with one queue, the taps come next.
		{"run no0 no1 -queues 2 -in 'quotagate -rate 1Mbit/s -ledger x -dir in'", ": no such network interface"},
		{"run no0 no1 -queues 1 -in 'quotagate -rate 1Mbit/s'", ": no such network interface"},
	} {
		c := exec.Command("sh", "-c", "pipeline.sh "+tt.args)
		c.Dir = t.TempDir()
		if says, status := outcome(c); !strings.Contains(says, tt.says) || (status == 2) == strings.Contains(tt.args, "no0") {
			t.Errorf("%s: status %d, %s, want %s", tt.args, status, says, tt.says)
		}
	}
	for command := range scriptFlags(t) {
		for _, help := range []string{"-h", "--help", "x -h"} {
			out := output(t, exec.Command("sh", "-c", "pipeline.sh "+command+" "+help))
			if !strings.HasPrefix(out, "usage: pipeline.sh") {
				t.Errorf("%s %s: %s", command, help, out)
			}
		}
	}
}
