package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"framepipe/internal/nettest"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// With -user the tools carry frames between taps that are root's, as a user that has no
// privilege, and no other process of that user gets at the taps. It is so without the sandbox.
func TestUser(t *testing.T) {
	nettest.Need(t, "setpriv")
	// It is open to all, as udev has it: what keeps an intruder out is to be the tap.
	const tun = "/dev/net/tun"
	info, err := os.Stat(tun)
	if err != nil || os.Chmod(tun, 0o666) != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(tun, info.Mode().Perm()) })
	attach := func(ns *nettest.Namespace, tap string) (says string, status int) {
		return outcome(ns.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "timeout", "1", "tunread", tap))
	}
	for _, tt := range []struct {
		user     string
		uid, gid int
		off      string
		before   string // how it is run
	}{
		{user: "nobody", uid: nobody, gid: nobody},
		{user: "nobody", uid: nobody, gid: nobody, off: "1"},
		{user: "12345:23456", uid: 12345, gid: 23456, before: "setpriv --groups=1,2,3 --inh-caps=+net_admin,+net_raw --ambient-caps=+net_admin,+net_raw"},
		{user: "root", off: "1"},
	} {
		t.Run(tt.user+" "+tt.off, func(t *testing.T) {
			ns := nettest.New(t)
			var cmds []*exec.Cmd
			for i, tap := range []string{"tap0", "tap1"} {
				ns.Batch("tuntap add mode tap multi_queue vnet_hdr user root dev " + tap)
				ns.Sysctl("ipv6/conf/"+tap+"/disable_ipv6", "1")
				ns.Batch("link set " + tap + " mtu 9216 up")
				words := strings.Fields(tt.before + [...]string{" tunread", " tunwrite"}[i] + " -user " + tt.user + " " + tap)
				c := ns.Command(words[0], words[1:]...)
				c.Env = append(os.Environ(), "FRAMEPIPE_NO_SANDBOX="+tt.off)
				cmds = append(cmds, c)
			}
			all := pipeline(t, nil, nil, cmds...)
			ns.Do(func() { nettest.Running(t, "tap0", "tap1") })
			in, out := packetSocket(t, ns, "tap0"), packetSocket(t, ns, "tap1")
			taggedFrames(t, in, out, 1)
			for i, s := range all {
				threads(t, s.Process.Pid, unprivileged(tt.uid, tt.gid)...)
				if says, status := attach(ns, []string{"tap0", "tap1"}[i]); status != 1 || !strings.Contains(says, ": operation not permitted\n") {
					t.Errorf("a process of nobody attaches: status %d, %s", status, says)
				}
				// The kernel gives to root what /proc has of a process that others of its user may not
				// trace, and whose memory and descriptors they cannot have; see proc(5) and ptrace(2).
				info, err := os.Stat(fmt.Sprintf("/proc/%d/fd", s.Process.Pid))
				if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
					t.Errorf("%s can be traced: %v, %v", s.Args[0], info, err)
				}
			}
			signal(t, all[:1], unix.SIGTERM)
			ended(t, all...)
			for _, s := range all {
				if says := s.Said.String(); says != "" {
					t.Errorf("%s: %s", s.Args[0], says)
				}
			}
		})
	}
	// The same attempt succeeds at a tap of the stages' user, where /dev/net/tun is
	// open to it. Otherwise a device says so, and what to do.
	ns, node := nettest.New(t), openDir(t)+"/tap"
	ns.Batch("tuntap add mode tap multi_queue vnet_hdr dev tap0 user nobody")
	if says, status := attach(ns, "tap0"); status != 124 {
		t.Errorf("status %d, %s", status, says)
	}
	if err := errors.Join(os.Chmod(tun, 0o600), unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200)))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tap0", node} {
		says, status := attach(ns, name)
		if status != 1 || !strings.HasPrefix(says, "tunread: "+name) || !strings.Contains(says, ": permission denied\ntunread: hint: run as root") {
			t.Errorf("%s: status %d, %s", name, status, says)
		}
	}
}
