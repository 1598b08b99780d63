package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"framepipe/internal/nettest"

	"golang.org/x/sys/unix"
)

const nobody = 65534

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
	pid, _ := strconv.Atoi(args[1])
	target, _ := strconv.Atoi(args[2])
	dir := "/proc/" + args[1]
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
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

const kept = `attach: operation not permitted
pidfd_getfd: operation not permitted
list: permission denied
open: permission denied
memory: permission denied
trace: operation not permitted
`

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
				if got := intrusion(t, ns, []string{"tap0", "tap1"}[i], s); got != kept {
					t.Errorf("%s: a process of nobody\n%swant\n%s", s.Args[0], got, kept)
				}
			}
			taggedFrames(t, in, out, 1)
			signal(t, all[:1], unix.SIGTERM)
			ended(t, all...)
			for _, s := range all {
				if says := s.Said.String(); says != "" {
					t.Errorf("%s: %s", s.Args[0], says)
				}
			}
		})
	}
	// What fails there can be done to a tap that belongs to the user: it is not the attempts that
	// are wrong.
	ns := nettest.New(t)
	ns.Batch("tuntap add mode tap multi_queue vnet_hdr dev tap0 user nobody", "link set tap0 up")
	read := ns.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "tunread", "tap0")
	read.Env = append(os.Environ(), "FRAMEPIPE_NO_SANDBOX=1")
	s := pipeline(t, nil, nil, read, exec.Command("cat"))[0]
	ns.Do(func() { nettest.Running(t, "tap0") })
	got, want := intrusion(t, ns, "tap0", s), regexp.MustCompile(`(?m): .*$`).ReplaceAllString(kept, ": done")
	// Others are refused where Yama guards (Documentation/admin-guide/LSM/Yama.rst). A
	// descriptor of /dev/net/tun that is opened anew is no tap's yet.
	yama, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if regexp.MustCompile(`^[1-3]`).Match(yama) {
		got, _, _ = strings.Cut(got, "\n")
		want = "attach: done"
	}
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
