package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"framepipe/internal/netns"

	"golang.org/x/sys/unix"
)

// Need skips a test that cannot have root, taps and the named programs.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		Skip(t, "needs taps: %v", err)
	}
	Programs(t, append(programs, "ip")...)
}

// Programs skips a test that cannot have the named programs.
func Programs(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Skip(t, "needs %s", name)
		}
	}
}

// Inside runs f in a network namespace that is new and empty but for lo, and
// is gone afterwards. Only what f does on its own goroutine is inside, and the
// commands it runs.
func Inside(t testing.TB, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		f()
	}()
	<-done
}

var namespaces atomic.Int32

// Namespace is a network namespace of a test.
type Namespace struct {
	netns.Namespace
	t testing.TB
}

// New makes a network namespace with a name of its own, which is deleted when
// the test ends.
func New(t testing.TB) *Namespace {
	t.Helper()
	n, err := netns.New(fmt.Sprintf("fp%d-%d", os.Getpid(), namespaces.Add(1)))
	t.Cleanup(n.Delete)
	if err != nil {
		t.Fatal(err)
	}
	return &Namespace{n, t}
}

func (n *Namespace) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// Do runs f inside the namespace, on its own goroutine. Sockets that f makes
// stay inside.
func (n *Namespace) Do(f func()) {
	n.t.Helper()
	if err := n.Namespace.Do(func() error { f(); return nil }); err != nil {
		n.t.Error(err)
	}
}

// Sysctl sets a variable of the namespace, such as ipv6/conf/all/forwarding.
func (n *Namespace) Sysctl(name, value string) {
	n.t.Helper()
	n.must(n.Namespace.Sysctl(name, value))
}

// Batch runs the lines as commands of ip inside the namespace.
func (n *Namespace) Batch(lines ...string) {
	n.t.Helper()
	n.must(n.Namespace.Batch(lines...))
}

// Statistics returns the kernel's counters of an interface: rx_packets, tx_dropped and
// the like.
func (n *Namespace) Statistics(name string) map[string]int {
	n.t.Helper()
	all, err := n.Namespace.Statistics(name)
	n.must(err)
	return all
}

// Taps makes taps that are up, and that two processes can use.
func (n *Namespace) Taps(names ...string) {
	n.t.Helper()
	for _, name := range names {
		n.Batch("tuntap add dev "+name+" mode tap multi_queue vnet_hdr", "link set "+name+" up")
	}
}

// Veth makes an interface whose other end is in another namespace. Both are up.
func (n *Namespace) Veth(name string, other *Namespace, peer string) {
	n.t.Helper()
	n.Batch(fmt.Sprintf("link add %s type veth peer name %s netns %s", name, peer, other.Name), "link set "+name+" up")
	other.Batch("link set " + peer + " up")
}

// Processes returns the numbers of those that are in the namespace.
func (n *Namespace) Processes() (pids []int) {
	n.t.Helper()
	ns, err := os.Stat("/run/netns/" + n.Name)
	n.must(err)
	names, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, name := range names {
		if theirs, err := os.Stat(name); err == nil && os.SameFile(ns, theirs) {
			pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// Run runs a command inside the namespace, and fails the test if it fails.
func (n *Namespace) Run(name string, args ...string) string {
	n.t.Helper()
	return run(n.t, n.Command(name, args...))
}

// Run runs a command, and fails the test if it fails.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return run(t, exec.Command(name, args...))
}

func run(t testing.TB, c *exec.Cmd) string {
	t.Helper()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(c.Args, " "), err, out)
	}
	return string(out)
}
