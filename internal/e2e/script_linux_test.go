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

// twoTaps makes tap0 and tap1, as pipeline.sh wants them.
func twoTaps(ns *nettest.Namespace) {
	for _, tap := range []string{"tap0", "tap1"} {
		ns.Run("ip", "tuntap", "add", "dev", tap, "mode", "tap", "multi_queue", "vnet_hdr")
		ns.Run("ip", "link", "set", tap, "up")
	}
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
	for _, tap := range []string{"tap0", "tap1"} {
		ns.Run("ip", "tuntap", "add", "dev", tap, "mode", "tap", "multi_queue", "vnet_hdr")
	}
	tmp := t.TempDir()
	var times []time.Duration
	for i := range 12 {
		run := ns.Command(bin+"/pipeline.sh", "run", "tap0", "tap1", "-in", "quotagate -rate 1Gbit/s")
		run.Env = append(os.Environ(), "TMPDIR="+tmp)
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		begun := func() bool { left, _ := filepath.Glob(tmp + "/pipeline.*"); return len(left) > 0 }
		eventually(t, 20*time.Second, "it begins", begun)
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		asked := time.Now()
		_ = run.Process.Signal(unix.SIGTERM)
		deaf := time.AfterFunc(20*time.Second, func() { _ = run.Process.Kill() })
		_ = run.Wait()
		deaf.Stop()
		took, status := time.Since(asked), run.ProcessState
		times = append(times, took)
		if took > 20*time.Second || begun() || status.ExitCode() != 0 && status.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
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
	if err := os.WriteFile(dir+"/mktemp", []byte("#!/bin/sh\n: >"+dir+"/begun\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(bin+"/pipeline.sh", "run", "tap0", "tap1")
	run.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "it begins", func() bool { _, err := os.Stat(dir + "/begun"); return err == nil })
	_ = unix.Kill(-run.Process.Pid, unix.SIGINT)
	if err := run.Wait(); err != nil {
		t.Errorf("%v", err)
	}
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
			twoTaps(ns)
			run := ns.Command("../../pipeline.sh", "run", "tap0", "tap1",
				"-in", "quotagate -quota 123GB | bytehist -o /dev/null", "-out", "cat")
			tmp := t.TempDir()
			run.Env = append(os.Environ(), "TMPDIR="+tmp)
			script := pipeline(t, nil, nil, run)[0]
			t.Cleanup(func() { t.Logf("it said: %s", &script.stderr) })
			// It stands when all the tools run.
			for start := time.Now(); len(tools(t, ns)) < 6; {
				if time.Since(start) > 20*time.Second {
					t.Fatal("the pipelines do not come up")
				}
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(300 * time.Millisecond)
			end(script, ns)
			if err := script.wait(t, 5*time.Second); err != nil {
				t.Fatal(err)
			}
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
			if says := script.stderr.String(); name == "a tap goes" && !regexp.MustCompile(`(?s)tap1: the device has gone away.*one pipeline has failed; the other goes with it`).MatchString(says) {
				t.Errorf("it says %s", says)
			}
		})
	}
	for args, want := range map[string]string{
		"":                  "usage: pipeline.sh",
		"fly":               "pipeline.sh: there is no command fly",
		"run tap0":          "pipeline.sh: run: 1 arguments given",
		"run tap0 tap0":     "pipeline.sh: run wants two taps, and tap0 is one",
		"run tap0 tap1 -in": "pipeline.sh: -in wants a value",
		"run tap0 tap1 -x":  "pipeline.sh: there is no flag -x",
		"demo now":          "pipeline.sh: demo: 1 arguments given",
	} {
		c := exec.Command("../../pipeline.sh", strings.Fields(args)...)
		out, _ := c.CombinedOutput()
		if status := c.ProcessState.ExitCode(); !strings.HasPrefix(string(out), want) || status != 2 {
			t.Errorf("%q: status %d, %s, want %s", args, status, out, want)
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
