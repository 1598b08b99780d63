// Package netns makes network namespaces, and runs functions and commands inside them, for
// tests, the bench and the long run. It needs root and iproute2.
package netns

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace that ip netns has made.
type Namespace struct {
	Name string
}

// New makes a namespace, in which lo is up. IPv6 addresses can be used at once there: the
// kernel does not look for duplicates.
func New(name string) (Namespace, error) {
	n := Namespace{name}
	if err := run(exec.Command("ip", "netns", "add", name)); err != nil {
		return n, err
	}
	if err := n.Sysctl("ipv6/conf/default/accept_dad", "0"); err != nil {
		return n, err
	}
	return n, n.Batch("link set lo up")
}

// Delete deletes the namespace. It does not end the processes inside it.
func (n Namespace) Delete() { _ = exec.Command("ip", "netns", "del", n.Name).Run() }

// Do runs f inside the namespace, on a thread of its own. Sockets that f makes stay inside.
func (n Namespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		file, err := os.Open("/run/netns/" + n.Name)
		if err == nil {
			if err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err == nil {
				err = f()
			}
			file.Close()
		}
		done <- err
	}()
	return <-done
}

// Command is exec.Command inside the namespace.
func (n Namespace) Command(name string, args ...string) *exec.Cmd {
	if name == "ip" { // one process instead of two, and no view of /sys of its own
		return exec.Command("ip", append([]string{"-n", n.Name}, args...)...)
	}
	return exec.Command("ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// Batch runs the lines as commands of ip inside the namespace.
func (n Namespace) Batch(lines ...string) error {
	c := n.Command("ip", "-batch", "-")
	c.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	if err := run(c); err != nil {
		return fmt.Errorf("%q: %w", lines, err)
	}
	return nil
}

// Sysctl sets a variable of the namespace, such as ipv6/conf/all/forwarding.
func (n Namespace) Sysctl(name, value string) error {
	return n.Do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
}

// Statistics returns the kernel's counters of an interface: rx_packets, tx_bytes,
// tx_dropped and the like. All are of one moment.
func (n Namespace) Statistics(name string) (map[string]int, error) {
	out, err := n.Command("ip", "-j", "-s", "link", "show", "dev", name).Output()
	if err != nil {
		return nil, fmt.Errorf("ip -s link show dev %s: %w", name, err)
	}
	var links []struct {
		Stats map[string]map[string]int `json:"stats64"` // by "rx" and "tx"
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		return nil, fmt.Errorf("ip says %s: %w", out, err)
	}
	all := map[string]int{}
	for way, counters := range links[0].Stats {
		for key, n := range counters {
			all[way+"_"+key] = n
		}
	}
	return all, nil
}

func run(c *exec.Cmd) error {
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, out)
	}
	return nil
}
