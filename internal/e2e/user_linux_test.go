package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"framepipe/internal/nettest"
	"framepipe/internal/packettest"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// shut runs a command in the namespace with a /dev/net/tun that is root's alone, as
// nothing else on this machine sees it.
func shut(ns *nettest.Namespace, dir string, words ...string) *exec.Cmd {
	const script = `mount -t tmpfs none "$0" && mknod -m 600 "$0/tun" c 10 200 && mount --bind "$0/tun" /dev/net/tun && exec "$@"`
	return ns.Command("unshare", append([]string{"-m", "sh", "-c", script, dir}, words...)...)
}

// tapOf returns which descriptor of a process is its tap.
func tapOf(t *testing.T, s *stage) string {
	t.Helper()
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.Process.Pid))
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); to == "/dev/net/tun" {
			return filepath.Base(fd)
		}
	}
	t.Fatalf("%s has no tap: %v, %s", s.Args[0], fds, &s.Said)
	return ""
}

// intruder is the environment variable that makes this program a process of nobody that
// tries to get at the tap of another.
const intruder = "FRAMEPIPE_INTRUDER"

// intrude TAP PID FD prints how the attempts end.
func intrude(args []string) int {
	// Its ids are changed as any program changes them, by other means than -user.
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		fmt.Println(err)
		return 1
	}
	runtime.LockOSThread() // a tracer is a thread
	pid, err1 := strconv.Atoi(args[1])
	target, err2 := strconv.Atoi(args[2])
	dir := "/proc/" + args[1]
	pidfd, err3 := unix.PidfdOpen(pid, 0)
	if err := errors.Join(err1, err2, err3); err != nil {
		fmt.Println(err)
		return 1
	}
	open := func(name string) error {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	for _, try := range []struct {
		name string
		do   func() error
	}{
		{"attach", func() error {
			fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK, 0)
			if err != nil {
				return fmt.Errorf("/dev/net/tun: %w", err) // no answer to the question
			}
			defer unix.Close(fd)
			ifr, _ := unix.NewIfreq(args[0])
			ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
			return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}},
		{"pidfd_getfd", func() error { _, err := unix.PidfdGetfd(pidfd, target, 0); return err }},
		{"list", func() error { _, err := os.ReadDir(dir + "/fd"); return errors.Unwrap(err) }},
		{"open", func() error { return open(dir + "/fd/" + args[2]) }},
		{"memory", func() error { return open(dir + "/mem") }},
		{"trace", func() error { return unix.PtraceSeize(pid) }},
	} {
		err := try.do()
		result := "done"
		if err != nil {
			result = err.Error()
		}
		fmt.Println(try.name + ": " + result)
	}
	return 0
}

// intrusion has a process of nobody try what it can on a tool's tap.
func intrusion(t *testing.T, ns *nettest.Namespace, tap string, s *stage) string {
	t.Helper()
	c := ns.Command(self(t), tap, strconv.Itoa(s.Process.Pid), tapOf(t, s))
	c.Env = append(os.Environ(), intruder+"=1")
	out, err := c.Output() // under -cover, stderr has that the process may not write its coverage
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

const kept = "attach: operation not permitted\npidfd_getfd: operation not permitted\nlist: permission denied\nopen: permission denied\nmemory: permission denied\ntrace: operation not permitted\n"

// carries waits until frames go through the pipeline from one tap to the other.
func carries(t *testing.T, ns *nettest.Namespace, frames int) {
	t.Helper()
	ns.Do(func() {
		nettest.Running(t, "tap0", "tap1")
		out, in := nettest.PacketSocket(t, "tap0"), nettest.PacketSocket(t, "tap1")
		defer unix.Close(out)
		defer unix.Close(in)
		b := make([]byte, 2000)
		for i := range frames {
			f := packettest.Spec{UDP: true, ID: uint16(i), Payload: packettest.Bytes(100 + i)}.Frame()
			if err := unix.Send(out, f, 0); err != nil {
				t.Error(err)
				return
			}
			for {
				n, from, err := unix.Recvfrom(in, b, 0)
				if err == unix.EINTR { // with a timeout, a signal ends the call
					continue
				}
				if err != nil {
					t.Errorf("frame %d did not arrive: %v", i, err)
					return
				}
				if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING && bytes.Equal(b[:n], f) {
					break
				}
			}
		}
	})
}

// openTun opens /dev/net/tun to all, as udev does, for the time of a test: what keeps an
// intruder out is to be the tap.
func openTun(t *testing.T) {
	t.Helper()
	const name = "/dev/net/tun"
	info, err := os.Stat(name)
	if err == nil {
		err = os.Chmod(name, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(name, info.Mode().Perm()) })
}

// With -user the tools carry frames between taps that are root's, as a user that has no
// privilege, and no other process of that user gets at the taps. It is so without the
// sandbox, and with a /dev/net/tun that is root's.
func TestUser(t *testing.T) {
	nettest.Need(t, "setpriv", "unshare", "mount")
	openTun(t)
	for _, tt := range []struct {
		user     string
		uid, gid int
		off      string
		before   []string // how it is run
	}{
		{user: "nobody", uid: nobody, gid: nobody},
		{user: "nobody", uid: nobody, gid: nobody, off: "1"},
		{user: "12345:23456", uid: 12345, gid: 23456, before: strings.Fields("setpriv --groups=1,2,3 --inh-caps=+net_admin,+net_raw --ambient-caps=+net_admin,+net_raw")},
		{user: "root", off: "1"},
	} {
		t.Run(tt.user+" "+tt.off, func(t *testing.T) {
			ns := nettest.New(t)
			for _, tap := range []string{"tap0", "tap1"} {
				ns.Run("ip", strings.Fields("tuntap add mode tap multi_queue vnet_hdr user root dev "+tap)...)
				ns.Sysctl("ipv6/conf/"+tap+"/disable_ipv6", "1")
				ns.Run("ip", "link", "set", tap, "up")
			}
			read := shut(ns, t.TempDir(), append(tt.before, "tunread", "-user", tt.user, "tap0")...)
			write := shut(ns, t.TempDir(), append(tt.before, "tunwrite", "-user", tt.user, "tap1")...)
			read.Env = append(os.Environ(), "FRAMEPIPE_NO_SANDBOX="+tt.off)
			write.Env = read.Env
			all := pipeline(t, nil, nil, read, write)
			carries(t, ns, 100)
			for i, s := range all {
				threads(t, s.Process.Pid, unprivileged(tt.uid, tt.gid)...)
				if got := intrusion(t, ns, []string{"tap0", "tap1"}[i], s); got != kept {
					t.Errorf("%s: a process of nobody\n%swant\n%s", s.Args[0], got, kept)
				}
			}
			carries(t, ns, 100)
			signal(t, all[:1], unix.SIGTERM)
			ended(t, all...)
			for _, s := range all {
				if says := s.Said.String(); says != "" {
					t.Errorf("%s: %s", s.Args[0], says)
				}
			}
		})
	}
}

// What TestUser sees fail can be done to a tap that belongs to the user: it is not the
// attempts that are wrong.
func TestUserIntruder(t *testing.T) {
	nettest.Need(t, "setpriv")
	openTun(t)
	ns := nettest.New(t)
	ns.Run("ip", strings.Fields("tuntap add mode tap multi_queue vnet_hdr dev tap0 user nobody")...)
	ns.Run("ip", "link", "set", "tap0", "up")
	read := ns.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "tunread", "tap0")
	read.Env = append(os.Environ(), "FRAMEPIPE_NO_SANDBOX=1")
	s := pipeline(t, nil, nil, read, exec.Command("cat"))[0]
	ns.Do(func() { nettest.Running(t, "tap0") })
	got := strings.Split(intrusion(t, ns, "tap0", s), "\n")
	// Others are refused where Yama guards (Documentation/admin-guide/LSM/Yama.rst). A
	// descriptor of /dev/net/tun that is opened anew is no tap's yet.
	want := []string{"attach: done", "pidfd_getfd: done", "list: done", "open: done", "memory: done", "trace: done", ""}
	yama, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if regexp.MustCompile(`^[1-3]`).Match(yama) {
		got, want = got[:1], want[:1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
