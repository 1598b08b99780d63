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
	for _, p := range append(programs, "ip") {
		if _, err := exec.LookPath(p); err != nil {
			Skip(t, "needs %s", p)
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

// Namespace is a named network namespace.
type Namespace struct {
	t    testing.TB
	Name string
}

// New makes a network namespace with a name of its own, which is deleted when
// the test ends.
func New(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{t, fmt.Sprintf("fp%d-%d", os.Getpid(), namespaces.Add(1))}
	Run(t, "ip", "netns", "add", n.Name)
	t.Cleanup(func() {
		_ = exec.Command("ip", "netns", "del", n.Name).Run()
	})
	n.Run("ip", "link", "set", "lo", "up")
	return n
}

// Sysctl sets a variable of the namespace, such as ipv6/conf/all/forwarding.
func (n *Namespace) Sysctl(name, value string) {
	n.t.Helper()
	n.Do(func() {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			n.t.Error(err)
		}
	})
}

// Processes returns the numbers of those that are in the namespace.
func (n *Namespace) Processes() (pids []int) {
	n.t.Helper()
	ns, err := os.Stat("/run/netns/" + n.Name)
	if err != nil {
		n.t.Fatal(err)
	}
	names, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, name := range names {
		if theirs, err := os.Stat(name); err == nil && os.SameFile(ns, theirs) {
			pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// Batch runs the lines as commands of ip inside the namespace.
func (n *Namespace) Batch(lines ...string) {
	n.t.Helper()
	c := n.Command("ip", "-batch", "-")
	c.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	run(n.t, c)
}

// Command is exec.Command inside the namespace.
func (n *Namespace) Command(name string, args ...string) *exec.Cmd {
	if name == "ip" { // one process instead of two, and no view of /sys of its own
		return exec.Command("ip", append([]string{"-n", n.Name}, args...)...)
	}
	return exec.Command("ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
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
