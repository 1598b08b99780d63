package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"framepipe/internal/ledger"
	"framepipe/internal/ping"

	"golang.org/x/sys/unix"
)

// Fifty times some stage is killed: its pipeline is back, all of it, within a second. So it is with
// tundivert; taps that go are made again, and an interface that goes is waited for. Connections
// live on.
func TestUpRestarts(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	u.must("up", "e0", "-in", "quotagate -quota 1PB | bytehist -o /dev/null", "-out", "quotagate -quota 1PB | cat | bytehist -o /dev/null")
	works := u.connection("10.0.0.1:7", "[fd00::1]:7")
	const kills, want = 50, 9
	var times []time.Duration
	late := slack()
	for i := range kills {
		pids := slices.Collect(maps.Keys(u.stages()))
		victim := pids[rand.IntN(len(pids))]
		what := u.stages()[victim]
		if err := unix.Kill(victim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		times = append(times, eventually(t, 10*time.Second, fmt.Sprintf("kill %d, of %s: all stages", i, what), func() bool {
			// A frame lets those know that do not watch their output, such as cat.
			ok := u.answers()
			now := u.stages()
			return ok && len(now) == want && now[victim] == ""
		}))
		time.Sleep(330 * time.Millisecond) // what ends at once again is given pauses
	}
	works("after")
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

	back := func(what string) {
		t.Helper()
		t.Logf("%s: an answer after %v", what, eventually(t, 15*time.Second, what+": an answer", func() bool {
			return u.answers() && len(u.stages()) == want && u.status().State == "diverting"
		}))
		works(what)
	}
	for _, tap := range []string{"fphost", "fpnet"} {
		u.host.Batch("link del " + u.tap(tap))
		back(tap + " goes")
	}
	killed := u.kill("^tundivert", unix.SIGKILL)[0]
	eventually(t, 5*time.Second, "its end", func() bool { return u.processes("")[killed] == "" })
	back("tundivert goes")
	router := strings.TrimSpace(u.router.Run("cat", "/sys/class/net/e1/address"))
	host := strings.TrimSpace(u.host.Run("cat", "/sys/class/net/e0/address"))
	u.host.Batch("link del e0")
	eventually(t, 5*time.Second, "a message", func() bool {
		return strings.Contains(u.log("divert"), "e0 is gone; it is diverted again when it is back")
	})
	u.host.Batch(fmt.Sprintf("link add e0 address %s type veth peer name e1 address %s netns %s", host, router, u.router.Name),
		"link set e0 up", "addr add 10.0.0.2/24 dev e0", "addr add fd00::2/64 dev e0")
	u.router.Batch("link set e1 up", "addr add 10.0.0.1/24 dev e1", "addr add fd00::1/64 dev e1")
	back("the interface is back")
	u.must("down")
	if s := u.host.Run("ip", "-o", "link"); ourTaps.MatchString(s) {
		t.Errorf("left: %s", s)
	}
}

// A gate whose ledger is cut off ends, and ends at once, over and over, when it is started again,
// after pauses that grow. The log says why. With -fail open frames pass by meanwhile; closed,
// nothing passes. When the ledger is mended they go through the pipelines again.
func TestUpFails(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"closed", "open"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			u := newUplink(t)
			before := u.looks()
			u.must("up", "e0", "-fail", mode, "-in", "quotagate -quota 1GB -window 1m -cycle 1h -ledger bill -dir in")
			works := u.connection("10.0.0.1:7")
			bill := u.lib + "/bill"
			if err := os.Truncate(bill, 5000); err != nil {
				t.Fatal(err)
			}
			eventually(t, 20*time.Second, "a pause", func() bool {
				u.answers() // the gate counts only frames that arrive
				return strings.Contains(u.log("in"), "it ended at once, 4 times in a row")
			})
			for _, want := range []string{
				"quotagate: bill: the ledger was truncated, or its disk failed", "quotagate: bill: not a ledger, or damaged: 5000 bytes, but ",
				"quotagate: hint: move the file away; quotagate then creates a new one",
			} {
				if !strings.Contains(u.log("in"), want) {
					t.Errorf("no %q in\n%s", want, u.log("in"))
				}
			}
			if open := strings.Contains(u.log("divert"), "the frames of e0 pass by the taps"); open != (mode == "open") {
				t.Errorf("tundivert says\n%s", u.log("divert"))
			}
			if mode == "open" {
				works("past")
				if s := u.must("status"); !strings.Contains(s, ", open: a pipeline is down, and frames pass by\n") {
					t.Errorf("status:\n%s", s)
				}
			} else if u.answers() {
				t.Error("there is an answer through a pipeline that is not there")
			}
			if err := os.Remove(bill); err != nil {
				t.Fatal(err)
			}
			eventually(t, 30*time.Second, "pipelines that stay", func() bool {
				return len(u.stages()) == 5 && u.status().State == "diverting"
			})
			works("after")
			if charged(t, bill, ledger.In) == 0 {
				t.Error("nothing is counted in the new ledger")
			}
			u.must("down")
			u.same(before)
		})
	}
}

// A stage that is stopped goes on, and one that reads no more, without ending, is found within
// seconds, however few frames there are.
func TestUpHangs(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	hang := u.lib + "/hang" // where the stages may remove it, so that the next one does not hang
	u.must("up", "e0", "-in", "quotagate -quota 1PB",
		"-out", `perl -e 'while (!-e "hang") { exit unless sysread(STDIN, $b, 65536); syswrite(STDOUT, $b) } unlink "hang"; sleep 1000'`)
	works := u.connection("10.0.0.1:7")
	for pid := range u.stages() {
		_ = unix.Kill(pid, unix.SIGSTOP)
	}
	t.Logf("an answer %v after a stop", eventually(t, 10*time.Second, "an answer after a stop", u.answers))
	works("stopped, and gone on")

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
	works("after")
}

// However much stages print, lines or not, a pipeline that ends is started again.
func TestUpPrints(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	u.must("up", "e0", "-in", "cat /dev/zero >&2 & cat", "-out", "yes >&2 & cat")
	for range 2 {
		time.Sleep(time.Second) // the pipes of the messages are full
		u.kill("^tunread .*fphost", unix.SIGKILL)
		eventually(t, 20*time.Second, "an answer", u.answers)
	}
	u.must("down")
}

// While there is no room for the state, no pipeline runs with other stages than it was given, nor
// without the time of -confirm, and a change of stages fails.
func TestUpDiskFull(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	before := u.looks()
	u.state = tmpfs(t, "64k")
	for pages := range 6 {
		write(t, u.state+"/full", strings.Repeat("x", 64<<10-pages*os.Getpagesize()))
		if said, status := u.run("up", "e0", "-confirm", "60s", "-in", "quotagate -quota 1PB", "-out", "quotagate -quota 1PB"); status != 1 {
			t.Errorf("with %d pages: status %d, %s\n%+v", pages, status, said, u.status())
			u.must("down")
		}
		u.same(before)
	}
	write(t, u.state+"/full", "")
	u.must("up", "e0")
	fill(t, u.state)
	change := u.host.Command("timeout", "10", u.pipeline, "change", "-in", "cat")
	change.Env = u.script().Env
	if said, status := outcome(change); status != 1 || !strings.Contains(said, "No space left") {
		t.Errorf("change: status %d, %s", status, said)
	}
	reaches(t, u.host, "10.0.0.1")
	u.must("down")
	u.same(before)
}

// The tools run as a user who is not root, without a capability and with no way to get
// one. Their files belong to that user, and the taps do not.
func TestUpUnprivileged(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
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
	reaches(t, u.router, "10.0.0.2")
	all := u.stages()
	if len(all) != 7 {
		t.Errorf("%d stages: %v", len(all), all)
	}
	for pid, line := range all {
		eventually(t, 5*time.Second, line+" with a filter", func() bool { // once its files are open
			return strings.Contains(read(t, fmt.Sprintf("/proc/%d/status", pid)), "Seccomp:\t2\n")
		})
		threads(t, pid, unprivileged(nobody, nobody)...)
		// No terminal, and nothing open that is not its own.
		_, stat, _ := strings.Cut(read(t, fmt.Sprintf("/proc/%d/stat", pid)), ") ")
		if terminal := strings.Fields(stat)[4]; terminal != "0" {
			t.Errorf("%s: terminal %s", line, terminal)
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			to, _ := os.Readlink(fd)
			n, _ := strconv.Atoi(filepath.Base(fd))
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
	for pid := range u.processes("^tundivert") {
		threads(t, pid, noCapabilities...)
	}
	c := u.host.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", bin+"/tunread", u.tap("fphost"))
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
	u := newUplink(t)
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
