package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"framepipe/internal/nettest"

	"golang.org/x/sys/unix"
)

// stages returns those of the tools in the uplink's pipelines, by number.
func (u *uplink) stages() map[int]string {
	all := u.processes()
	for pid, line := range all {
		if !regexp.MustCompile(`^(tunread|tunwrite|quotagate|bytehist|cat)\b`).MatchString(line) {
			delete(all, pid)
		}
	}
	return all
}

// eventually waits until something is so.
func eventually(t testing.TB, within time.Duration, what string, so func() bool) (after time.Duration) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if so() {
			return time.Since(start)
		}
		if time.Since(start) > within {
			t.Fatalf("%s: not in %v", what, within)
		}
	}
}

// shared is a directory that the user of the stages can look into, too.
func (u *uplink) shared() string {
	u.t.Helper()
	dir, err := os.MkdirTemp("", "framepipe-shared-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// answers reports whether the router answers an echo from the host within 0.2 s.
func (u *uplink) answers() (ok bool) {
	u.host.Do(func() {
		c, err := net.Dial("ip4:icmp", "10.0.0.1")
		if err != nil {
			return // no route, at the moment
		}
		defer c.Close()
		number := uint16(echoes.Add(1))
		// RFC 792; with this identifier, all but the number add up to nothing.
		m := binary.BigEndian.AppendUint16([]byte{8, 0}, ^number)
		m = binary.BigEndian.AppendUint16(append(m, 0xf7, 0xff), number)
		_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = c.Write(m)
		for b := make([]byte, 2000); err == nil && !ok; {
			var n int
			if n, _, err = c.(*net.IPConn).ReadFrom(b); n >= 8 {
				ok = b[0] == 0 && bytes.Equal(b[4:8], m[4:8])
			}
		}
	})
	return ok
}

var echoes atomic.Uint32

// Fifty times some stage is killed: its pipeline is back, all of it, within a
// second, and connections that were open are open still.
func TestUpStagesKilled(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.must("up", "e0", "-in", "quotagate -quota 1PB | bytehist -o /dev/null", "-out", "quotagate -quota 1PB | cat | bytehist -o /dev/null")
	talk := u.connection("10.0.0.1:7", "[fd00::1]:7")
	talk("before")
	const kills = 50
	want := len(u.stages())
	if want != 9 {
		t.Fatalf("%d stages: %v", want, u.stages())
	}
	var times []time.Duration
	for i := range kills {
		before := u.stages()
		pids := make([]int, 0, want)
		for pid := range before {
			pids = append(pids, pid)
		}
		slices.Sort(pids)
		victim := pids[rand.IntN(len(pids))]
		if err := unix.Kill(victim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		times = append(times, eventually(t, 10*time.Second, fmt.Sprintf("kill %d, of %s: all stages", i, before[victim]), func() bool {
			// A frame lets those know that do not watch their output, such as cat.
			ok := u.answers()
			now := u.stages()
			return ok && len(now) == want && now[victim] == ""
		}))
		time.Sleep(330 * time.Millisecond) // what ends at once again is given pauses
	}
	talk("after")
	slices.Sort(times)
	t.Logf("back after %v, %v, %v (least, median, most)", times[0], times[kills/2], times[kills-1])
	if times[kills*3/4] > time.Second { // the machine has other things to do
		t.Errorf("back after %v", times)
	}
	status := u.must("status")
	restarts := 0
	for _, m := range regexp.MustCompile(`, (\d+) restarts`).FindAllStringSubmatch(status, -1) {
		n := 0
		_, _ = fmt.Sscan(m[1], &n)
		restarts += n
	}
	if restarts < kills || restarts > kills+2 {
		t.Errorf("%d kills, and\n%s", kills, status)
	}
}

// A stage that ends at once, over and over, is given pauses that grow; with -fail
// open the traffic goes past the pipelines meanwhile, and through them again when
// they stay.
func TestUpFails(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "tc")
	for _, mode := range []string{"closed", "open"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			u := newUplink(t, false)
			u.host.Run("ip", "addr", "add", "10.0.0.2/24", "dev", "e0")
			before := u.looks()
			broken := u.shared() + "/broken"
			u.must("up", "e0", "-fail", mode, "-in", "test ! -e "+broken+" && cat")
			talk := u.connection("10.0.0.1:7")
			talk("before")
			if err := os.WriteFile(broken, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for pid, line := range u.stages() {
				if line == "cat " {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
			var status string
			eventually(t, 20*time.Second, "a pause", func() bool {
				status = u.must("status")
				return strings.Contains(status, "it ends over and over")
			})
			if open := strings.Contains(status, "OPEN: the pipelines fail, and the traffic has gone past them, unshaped, for "); open != (mode == "open") {
				t.Fatalf("status:\n%s", status)
			}
			if mode == "open" {
				u.ping(u.host, "10.0.0.1")
				u.ping(u.router, "10.0.0.2")
				talk("past")
				u.host.Run("ip", "link", "set", "e0", "nomaster")
				eventually(t, 10*time.Second, "the interface is back", func() bool { return strings.Contains(u.said(), "back in the bridges: e0") })
				if _, err := os.Stat(u.state + "/e0/open"); err != nil {
					t.Errorf("an interface that is back is no way past: %v", err)
				}
				u.ping(u.host, "10.0.0.1")
			} else if u.answers() {
				t.Error("something answers through a pipeline that is not there")
			}
			if err := os.Remove(broken); err != nil {
				t.Fatal(err)
			}
			eventually(t, 30*time.Second, "pipelines that stay", func() bool {
				status = u.must("status")
				return !strings.Contains(status, "over and over") && !strings.Contains(status, "OPEN") && len(u.stages()) == 5
			})
			talk("after")
			if s := u.host.Run("tc", "qdisc", "show"); strings.Contains(s, "clsact") {
				t.Errorf("the way past is still there: %s", s)
			}
			u.must("down")
			u.same(before)
		})
	}
}

// Where the tools cannot be run there is no way past the pipelines either: nobody holds
// the taps. Nobody is told that there is one.
func TestUpNotOpen(t *testing.T) {
	t.Parallel()
	u := newUplink(t, false)
	nettest.Need(t, "tc", "cp")
	u.host.Run("ip", "addr", "add", "10.0.0.2/24", "dev", "e0")
	bin := u.shared() + "/bin"
	nettest.Run(t, "cp", "-r", filepath.Dir(u.pipeline), bin)
	nettest.Run(t, "chmod", "-R", "a+rX", bin)
	u.pipeline = bin + "/pipeline.sh"
	c := u.script("up", "e0", "-fail", "open")
	c.Env = append(c.Env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(bin+"/tunread", bin+"/gone"); err != nil {
		t.Fatal(err)
	}
	for pid := range u.stages() {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	eventually(t, 30*time.Second, "a message", func() bool {
		return strings.Contains(u.said(), "cannot go past the pipelines, as tunread does not run")
	})
	if s := u.must("status"); strings.Contains(s, "OPEN") || strings.Contains(u.said(), "OPEN") {
		t.Errorf("status:\n%s\nup says\n%s", s, u.said())
	}
	if err := os.Rename(bin+"/gone", bin+"/tunread"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "an answer", u.answers)
	u.must("down")
}

// A stage that is stopped goes on, and one that reads no more, without ending, is
// taken for dead once frames are lost for it.
func TestUpHangs(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	nettest.Need(t, "perl")
	dir := u.shared()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	hang := dir + "/hang"
	u.must("up", "e0", "-in", "quotagate -quota 1PB",
		"-out", `perl -e 'while (!-e "`+hang+`") { exit unless sysread(STDIN, $b, 65536); syswrite(STDOUT, $b) } unlink "`+hang+`"; sleep 1000'`) // and the next one does not hang
	talk := u.connection("10.0.0.1:7")
	talk("before")
	for pid := range u.stages() {
		_ = unix.Kill(pid, unix.SIGSTOP)
	}
	t.Logf("an answer %v after a stop", eventually(t, 10*time.Second, "an answer after a stop", u.answers))
	talk("stopped, and gone on")

	if err := os.WriteFile(hang, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	flood := u.host.Command("ping", "-n", "-q", "-f", "-i", "0.002", "-s", "1400", "-w", "60", "10.0.0.1")
	if err := flood.Start(); err != nil {
		t.Fatal(err)
	}
	defer flood.Wait()
	defer flood.Process.Kill()
	var log []byte
	after := eventually(t, 40*time.Second, "found to hang", func() bool {
		log, _ = os.ReadFile(u.state + "/e0/out.log")
		return strings.Contains(string(log), "the pipeline out hangs: the queue of fphost")
	})
	_ = flood.Process.Kill()
	t.Logf("found to hang after %v, and an answer %v later", after, eventually(t, 20*time.Second, "an answer", u.answers))
	talk("after")
}

// The tools run as a user who is not root, without a capability and with no way to
// get one, and what they write is his.
func TestUpUnprivileged(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.pipeline = "../../pipeline.sh" // whose tools may be where the stages' user cannot go
	up := u.script("up", "e0", "-in", "quotagate -rate 1Gbit/s -ledger bill -dir in -metrics gate.prom | bytehist -o hist.in",
		"-out", "quotagate -rate 1Gbit/s -percentile 95 -ledger bill -dir out")
	secret, err := os.Open("/etc/shadow")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	up.ExtraFiles = []*os.File{secret}
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for pid, line := range u.stages() { // those that come after are no different
		if strings.HasPrefix(line, "tunwrite") {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	eventually(t, 10*time.Second, "an answer", u.answers)
	u.connection("10.0.0.1:7", "[fd00::1]:7")("as nobody")
	u.ping(u.router, "10.0.0.2")
	all := u.stages()
	if len(all) != 7 {
		t.Errorf("%d stages: %v", len(all), all)
	}
	for pid, line := range all {
		eventually(t, 5*time.Second, line+" with a filter", func() bool { // once its files are open
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			return strings.Contains(string(b), "Seccomp:\t2\n")
		})
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"Uid:\t65534\t65534\t65534\t65534\n", "Groups:\t \n", "NoNewPrivs:\t1\n",
			"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
		} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s: not %q in\n%s", line, want, b)
			}
		}
		// No terminal, and nothing open that is not its own.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); f[2] != f[3] || f[4] != "0" {
			t.Errorf("%s: group %s, session %s, terminal %s", line, f[2], f[3], f[4])
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			to, _ := os.Readlink(fd)
			n := 0
			_, _ = fmt.Sscan(filepath.Base(fd), &n)
			pipe := strings.HasPrefix(to, "pipe:")
			switch {
			case n < 2 && (pipe || to == "/dev/null"), n == 2 && strings.HasSuffix(to, ".log"), to == "/dev/net/tun":
			case n > 2 && pipe && !strings.HasPrefix(line, "quotagate") && !strings.HasPrefix(line, "tunwrite"): // of its own
			case strings.HasPrefix(to, "anon_inode:[event"), strings.HasPrefix(to, u.lib), strings.HasPrefix(to, "/memfd:frames"):
			case n == 7 && strings.HasSuffix(to, "/bin"): // where the tools are, lest he have to go there
			default:
				t.Errorf("%s: has %s as %d", line, to, n)
			}
		}
	}
	time.Sleep(1500 * time.Millisecond)
	u.must("down")
	for _, name := range []string{"bill", "gate.prom", "hist.in"} {
		info, err := os.Stat(u.lib + "/" + name)
		if err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if said, code := u.run("up", "e0", "-user", "nobody-there"); code != 2 || !strings.Contains(said, "there is no user nobody-there") {
		t.Errorf("status %d: %s", code, said)
	}
	if said, code := u.run("up", "e0", "-user", "root"); code != 1 || !strings.Contains(said, " is somebody else's, and could lead root elsewhere") {
		t.Errorf("root, among files of nobody's: status %d: %s", code, said)
	}
}

// A stage that writes over its environment, and does not end by itself, is ended all the
// same; and what it says does nothing to the terminal of who looks at the status.
func TestUpHidden(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	nettest.Need(t, "perl")
	before := u.looks()
	hides := u.shared() + "/hides"
	err := os.WriteFile(hides, []byte(`$0 = "x" x 3000; $SIG{TERM} = $SIG{HUP} = "IGNORE";
$| = 1; if (!fork) { while (1) { print STDERR "tunread: a=1 \033[2Jred\n"; sleep 1 } }
while (sysread STDIN, my $b, 65536) { print $b } sleep 1000`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"down", "TERM"} {
		u.must("up", "e0", "-in", "exec perl "+hides)
		if s := u.must("status"); !strings.Contains(s, "tunread: a=1 [2Jred\n") {
			t.Errorf("status:\n%q", s)
		}
		if how == "down" {
			u.must("down")
		} else {
			pid, err := os.ReadFile(u.state + "/e0/pid")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			_, _ = fmt.Sscan(string(pid), &n)
			_ = unix.Kill(n, unix.SIGTERM)
			eventually(t, 30*time.Second, "undone", func() bool { _, err := os.Stat(u.state + "/e0"); return err != nil })
		}
		for _, pid := range u.host.Processes() {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(b) == "perl\n" || strings.HasPrefix(string(b), "xxx") {
				t.Errorf("after %s, %d is there yet", how, pid)
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		u.same(before)
	}
}

// Asked to stop, at any moment, up puts everything back and ends with 0, however
// often that is done. Bash 5.2 crashed in one stop of eight, with the host left dark,
// when the trap was in the process that reads, and now and then heard no signal at all.
// So does the death of the process that keeps it running, with 137, and so do signals
// that kill, such as that of systemd's watchdog.
func TestUpStopped(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	signals := []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGABRT, unix.SIGUSR1}
	const stops = 6
	for i := range stops {
		c := u.script("up", "e0", "-foreground", "-out", "quotagate -rate 100Mbit/s")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		var said bytes.Buffer
		c.Stdout, c.Stderr = &said, &said
		c.WaitDelay = time.Second // the stages have these, too
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "up", func() bool {
			_, err := os.Stat(u.state + "/e0/ready")
			return err == nil
		})
		time.Sleep(time.Duration(i) * 123 * time.Millisecond)
		want := 0
		if i < stops-1 {
			if _ = c.Process.Signal(signals[i]); i > 2 {
				want = -1 // it dies of that
			}
		} else {
			want = 128 + int(unix.SIGKILL)
			for pid := range u.processes() {
				if parent(pid) == c.Process.Pid {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
		}
		deaf := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() })
		err := c.Wait()
		deaf.Stop()
		if c.ProcessState.ExitCode() != want || strings.Contains(said.String(), "line ") {
			t.Errorf("stop %d: %v\n%s", i, err, &said)
			_, _ = u.run("down")
		}
	}
	u.same(before)
}

// parent returns the number of a process's parent, or 0.
func parent(pid int) (ppid int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), "\nPPid:")
	_, _ = fmt.Sscan(rest, &ppid)
	return ppid
}
