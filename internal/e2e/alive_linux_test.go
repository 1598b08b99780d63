package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/ping"

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

// answers reports whether the router answers an echo from the host within 0.2 s.
func (u *uplink) answers() bool { return u.host.Reaches("10.0.0.1", 200*time.Millisecond) }

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
	late := slack()
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
	if most := time.Second + late(); times[kills*3/4] > most {
		t.Errorf("back after %v, and not after %v", times, most)
	}
	restarts := 0
	for _, p := range u.status().Pipelines {
		restarts += p.Restarts
	}
	if restarts < kills || restarts > kills+2 {
		t.Errorf("%d kills, and %d restarts", kills, restarts)
	}
}

// A stage that ends at once, over and over, is started again after pauses that grow. With
// -fail open frames pass by meanwhile; closed, nothing passes. When the stage is mended they
// go through the pipelines again.
func TestUpFails(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"closed", "open"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			u := newUplink(t, true)
			before := u.looks()
			broken := openDir(t) + "/broken"
			u.must("up", "e0", "-fail", mode, "-in", "test ! -e "+broken+" && cat")
			talk := u.connection("10.0.0.1:7")
			talk("before")
			write(t, broken, "")
			echoes := u.router.StartPing("10.0.0.2", ping.Config{Every: 10 * time.Millisecond})
			u.kill("^cat", unix.SIGKILL)
			eventually(t, 20*time.Second, "a pause", func() bool { return strings.Contains(u.log("in"), "it ended at once, 4 times in a row") })
			echoes.Stop()
			r := echoes.Wait()
			open := strings.Contains(u.log("divert"), "the frames of e0 pass by the taps")
			t.Log(r)
			if open != (mode == "open") {
				t.Errorf("tundivert says\n%s", u.log("divert"))
			}
			if mode == "open" {
				talk("past")
				if s := u.must("status"); !strings.Contains(s, ", open: a pipeline is down, and frames pass by\n") {
					t.Errorf("status:\n%s", s)
				}
			} else if u.answers() {
				t.Error("there is an answer through a pipeline that is not there")
			}
			if err := os.Remove(broken); err != nil {
				t.Fatal(err)
			}
			eventually(t, 30*time.Second, "pipelines that stay", func() bool {
				return len(u.stages()) == 5 && u.status().State == "diverting"
			})
			talk("after")
			u.must("down")
			u.same(before)
		})
	}
}

// Taps that go are made again, an interface that goes is waited for, and connections live on.
func TestUpDevicesGo(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.must("up", "e0", "-in", "quotagate -quota 1PB", "-out", "quotagate -quota 1PB")
	talk := u.connection("10.0.0.1:7", "[fd00::1]:7")
	talk("before")
	whole := func() bool {
		return u.answers() && len(u.stages()) == 6 && u.status().State == "diverting"
	}
	for _, tap := range []string{"fphost", "fpnet"} {
		u.host.Run("ip", "link", "del", u.device(tap))
		t.Logf("without %s: an answer after %v", tap, eventually(t, 15*time.Second, tap+" goes: an answer", whole))
		talk(tap)
	}
	killed := u.kill("^tundivert", unix.SIGKILL)[0]
	eventually(t, 15*time.Second, "tundivert goes: an answer", func() bool { return u.processes()[killed] == "" && whole() })
	talk("tundivert")

	router := strings.TrimSpace(u.router.Run("cat", "/sys/class/net/e1/address"))
	host := strings.TrimSpace(u.host.Run("cat", "/sys/class/net/e0/address"))
	u.router.Run("ip", "link", "del", "e1") // and its other end, e0
	eventually(t, 5*time.Second, "a message", func() bool {
		return strings.Contains(u.log("divert"), "e0 is gone; it is diverted again when it is back")
	})
	u.host.Batch(fmt.Sprintf("link add e0 address %s type veth peer name e1 address %s netns %s", host, router, u.router.Name), "link set e0 up", "addr add 10.0.0.2/24 dev e0", "addr add fd00::2/64 dev e0")
	u.router.Batch("link set e1 up", "addr add 10.0.0.1/24 dev e1", "addr add fd00::1/64 dev e1")
	eventually(t, 15*time.Second, "the interface is back: an answer", whole)
	talk("on the new interface")
	u.must("down")
	if s := u.host.Run("ip", "-o", "link"); strings.Contains(s, "fphost") || strings.Contains(s, "fpnet") {
		t.Errorf("left: %s", s)
	}
}

// A stage that is stopped goes on, and one that reads no more, without ending, is found within
// seconds, however few frames there are.
func TestUpHangs(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	dir := openDir(t)
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

	late := slack()
	write(t, hang, "")
	start := time.Now()
	pings := u.host.StartPing("10.0.0.1", ping.Config{Every: 250 * time.Millisecond}) // no queue fills up
	eventually(t, 20*time.Second, "a restart", func() bool { return strings.Contains(u.log("out"), "out has ended with status") })
	if after := time.Since(start); after > 10*time.Second+late() {
		t.Errorf("started again after %v", after)
	}
	pings.Stop()
	if log := u.log("out"); !strings.Contains(log, "the next stage has not read for 5 s") {
		t.Errorf("the log does not tell which stage hangs:\n%s", log)
	}
	eventually(t, 5*time.Second, "an answer", u.answers)
	talk("after")
}

// The tools run as a user who is not root, without a capability and with no way to get
// one. Their files belong to that user, and the taps do not.
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
	u.kill("^tunwrite", unix.SIGKILL) // those that come after are no different
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
		threads(t, pid, unprivileged(nobody, nobody)...)
		// No terminal, and nothing open that is not its own.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); f[4] != "0" {
			t.Errorf("%s: terminal %s", line, f[4])
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			to, _ := os.Readlink(fd)
			n := 0
			_, _ = fmt.Sscan(filepath.Base(fd), &n)
			pipe := strings.HasPrefix(to, "pipe:")
			switch {
			case n < 3 && (pipe || to == "/dev/null"), n == 3 && strings.HasSuffix(to, ".counters"), to == "/dev/net/tun":
			case n > 2 && pipe && !strings.HasPrefix(line, "quotagate") && !strings.HasPrefix(line, "tunwrite"): // of its own
			case strings.HasPrefix(to, "anon_inode:[event"), strings.HasPrefix(to, u.lib), strings.HasPrefix(to, "/memfd:frames"):
			case n == 7 && strings.HasSuffix(to, "/bin"): // the directory of the tools
			case strings.HasPrefix(line, "bytehist") && to == "/dev/null": // takes the bytes that bytehist skips
			default:
				t.Errorf("%s: has %s as %d", line, to, n)
			}
		}
	}
	for pid, line := range u.processes() {
		if strings.HasPrefix(line, "tundivert") {
			threads(t, pid, noCapabilities...)
		}
	}
	c := u.host.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", bin+"/tunread", u.device("fphost"))
	if out, err := c.CombinedOutput(); err == nil {
		t.Errorf("another process of nobody attaches to the tap: %s", out)
	}
	time.Sleep(1500 * time.Millisecond)
	u.must("down")
	for _, name := range []string{"bill", "gate.prom", "hist.in"} {
		info, err := os.Stat(u.lib + "/" + name)
		if err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// A stage that writes over its environment, and does not end by itself, is ended all the
// same; and its name and messages cannot control the terminal of a reader of status and logs.
func TestUpHidden(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	hides := openDir(t) + "/hides"
	write(t, hides, `$0 = "x" x 3000; $SIG{TERM} = $SIG{HUP} = "IGNORE";
$| = 1; if (!fork) { while (1) { print STDERR "\033[2Jred\n"; sleep 1 } }
while (sysread STDIN, my $b, 65536) { print $b } sleep 1000`)
	for _, how := range []string{"down", "TERM"} {
		u.must("up", "e0", "-in", "exec perl "+hides)
		if s := u.must("status"); strings.ContainsAny(s, "\033\177") || !regexp.MustCompile(`(?m)^\S+ \S+ \[2Jred$`).MatchString(u.log("in")) {
			t.Errorf("status:\n%q, the log:\n%q", s, u.log("in"))
		}
		if how == "down" {
			u.must("down")
		} else {
			u.kill("up -foreground e0", unix.SIGTERM)
			eventually(t, 30*time.Second, "undone", u.undone)
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
