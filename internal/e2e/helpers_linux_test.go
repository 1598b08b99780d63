package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/nettest"
	"framepipe/internal/process"

	"golang.org/x/sys/unix"
)

// --- processes ---------------------------------------------------------------

// stage is a running process of a pipeline.
type stage = process.Stage

// pipeline starts commands joined by pipes. A nil stdin or stdout
// stands for /dev/null. The end of the test kills the commands that still run.
func pipeline(t testing.TB, stdin io.Reader, stdout io.Writer, cmds ...*exec.Cmd) []*stage {
	t.Helper()
	cmds[0].Stdin, cmds[len(cmds)-1].Stdout = stdin, stdout
	return joined(t, os.Pipe, cmds...)
}

// piped is a pipeline that the test feeds and reads.
func piped(t testing.TB, cmds ...*exec.Cmd) (all []*stage, in, out *os.File) {
	t.Helper()
	stdin, in, err1 := os.Pipe()
	out, stdout, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	all = pipeline(t, stdin, stdout, cmds...)
	stdin.Close()
	stdout.Close()
	return all, in, out
}

// joined is pipeline with something else in the place of pipes.
func joined(t testing.TB, pipe func() (r, w *os.File, err error), cmds ...*exec.Cmd) []*stage {
	t.Helper()
	all, err := process.Start(pipe, cmds...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { process.Kill(all) })
	return all
}

// tool is a command of ours.
func tool(name string, args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(bin, name), args...)
}

// ended wants stages to end soon, with status 0.
func ended(t testing.TB, stages ...*stage) {
	t.Helper()
	gone(t, stages)
	for _, s := range stages {
		if !s.ProcessState.Success() {
			t.Errorf("%v: %v, %s", s.Args, s.ProcessState, &s.Said)
		}
	}
}

// gone waits until stages have ended, in whatever way.
func gone(t testing.TB, stages []*stage) {
	t.Helper()
	for _, s := range stages {
		if err := s.End(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
}

// signal sends signals to all stages.
func signal(t testing.TB, all []*stage, sig ...unix.Signal) {
	t.Helper()
	for _, s := range slices.Backward(all) { // the source last: with it the others end
		for _, x := range sig {
			if err := s.Process.Signal(x); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// outcome runs a command, and returns its output on stdout and stderr, and its exit status.
func outcome(c *exec.Cmd) (said string, status int) {
	out, err := c.CombinedOutput()
	if c.ProcessState == nil {
		return err.Error(), -1
	}
	return string(out), c.ProcessState.ExitCode()
}

// output returns what a command says on stdout, which does not fail.
func output(t testing.TB, c *exec.Cmd) string {
	t.Helper()
	b, err := c.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", c.Args, err, b)
	}
	return string(b)
}

// through runs one stage on a stream, and returns its output, messages and exit status.
func through(t testing.TB, in []byte, name string, args ...string) (out []byte, stderr string, status int) {
	t.Helper()
	c := exec.Command(name, args...)
	c.Stdin = bytes.NewReader(in)
	var o, e bytes.Buffer
	c.Stdout, c.Stderr = &o, &e
	if err := c.Run(); c.ProcessState == nil {
		t.Fatal(err)
	}
	return o.Bytes(), e.String(), c.ProcessState.ExitCode()
}

// records returns the frames of a stream, which is whole.
func records(t testing.TB, stream []byte) (all []frame.Record) {
	t.Helper()
	r := frame.NewReader(bytes.NewReader(stream))
	for {
		var rec frame.Record
		if err := r.Next(&rec); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if !rec.IsAnnotation() {
			rec.Frame = bytes.Clone(rec.Frame)
			all = append(all, rec)
		}
	}
}

// eventually waits until something is so.
func eventually(t testing.TB, within time.Duration, what string, so func() bool) (after time.Duration) {
	t.Helper()
	start := time.Now()
	if !process.Until(within, so) {
		t.Fatalf("%s: not in %v", what, within)
	}
	return time.Since(start)
}

// slack is for a bound in time on a machine that has other things to do. It measures how late
// a sleeper wakes, until the function is called that it returns, which returns five times
// the worst: several wake-ups are between a cause and what a test sees of it.
func slack() (five func() time.Duration) {
	const nap = time.Millisecond
	stop, worst := make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		for most, start := nap, time.Now(); ; start = time.Now() {
			select {
			case <-stop:
				worst <- 5 * most
				return
			case <-time.After(nap):
				most = max(most, time.Since(start)-nap)
			}
		}
	}()
	return func() time.Duration { close(stop); return <-worst }
}

// self is this program, which is a stage or something else where the environment says so.
func self(t testing.TB) string {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// --- files -------------------------------------------------------------------

// write makes a file that can be run, if it is a program.
func write[text string | []byte](t testing.TB, name string, b text) {
	t.Helper()
	if err := os.WriteFile(name, []byte(b), 0o755); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

// openDir is a directory that all users may enter, and whose name is short: the path of a
// socket has 107 bytes.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "framepipe-")
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err = errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// terminal returns the two ends of one.
func terminal(t testing.TB) (master, tty *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	err1 := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	n, err2 := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	tty, err3 := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	t.Cleanup(func() { master.Close(); tty.Close() })
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return master, tty
}

// wire is a socket pair in the place of a tap: what the test writes to near,
// the tools read from far as fd:3.
func wire(t testing.TB) (near, far *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	// A test that waits for ever does not say where.
	err = errors.Join(err, unix.SetsockoptTimeval(p[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	if err != nil {
		t.Fatal(err)
	}
	near, far = os.NewFile(uintptr(p[0]), "near"), os.NewFile(uintptr(p[1]), "far")
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// between is a pipeline between two sockets, with other stages between tunread and tunwrite.
func between(t testing.TB, stages ...*exec.Cmd) (all []*stage, in, out *os.File) {
	t.Helper()
	return betweenBy(t, os.Pipe, slices.Concat([]*exec.Cmd{tool("tunread", "fd:3")}, stages, []*exec.Cmd{tool("tunwrite", "fd:3")})...)
}

// betweenBy has all stages between two sockets, joined by something else than pipes.
func betweenBy(t testing.TB, pipe func() (r, w *os.File, err error), cmds ...*exec.Cmd) (all []*stage, in, out *os.File) {
	t.Helper()
	in, farIn := wire(t)
	out, farOut := wire(t)
	cmds[0].ExtraFiles, cmds[len(cmds)-1].ExtraFiles = []*os.File{farIn}, []*os.File{farOut}
	all = joined(t, pipe, cmds...)
	farIn.Close()
	farOut.Close()
	return all, in, out
}

// --- hosts -------------------------------------------------------------------

// inside runs f in a namespace, and fails the test with its error.
func inside[result any](t testing.TB, ns *nettest.Namespace, f func() (result, error)) (r result) {
	t.Helper()
	var err error
	ns.Do(func() { r, err = f() })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dial connects from a namespace until the test ends.
func dial(t testing.TB, ns *nettest.Namespace, network, addr string) net.Conn {
	t.Helper()
	c := inside(t, ns, func() (net.Conn, error) { return net.DialTimeout(network, addr, 10*time.Second) })
	t.Cleanup(func() { c.Close() })
	return c
}

// connection returns the two ends of a TCP connection, whose listener is gone. With port 0
// it is any port: a program that another test starts at this moment has the last
// connection's listener for a moment longer.
func connection(t testing.TB, from, to *nettest.Namespace, addr string) (near, far net.Conn) {
	t.Helper()
	l := inside(t, to, func() (net.Listener, error) { return net.Listen("tcp", addr) })
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	near = dial(t, from, "tcp", l.Addr().String())
	far = <-accepted
	t.Cleanup(func() { far.Close() })
	return near, far
}

// echoing is a connection on which all comes back.
func echoing(t testing.TB, from, to *nettest.Namespace, addr string) net.Conn {
	t.Helper()
	near, far := connection(t, from, to, addr)
	go func() {
		_, _ = io.Copy(far, far)
		far.Close()
	}()
	return near
}

// datagramSockets returns a socket in a namespace that receives at addr, and one in another
// that sends there.
func datagramSockets(t testing.TB, from, to *nettest.Namespace, addr string) (server net.PacketConn, client net.Conn) {
	t.Helper()
	server = inside(t, to, func() (net.PacketConn, error) { return net.ListenPacket("udp", addr) })
	t.Cleanup(func() { server.Close() })
	return server, dial(t, from, "udp", addr)
}

// roomy gives a socket room for all that a test sends.
func roomy(t testing.TB, c net.PacketConn) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// dhcp has a client get the address 10.0.0.100 from a server, over interfaces of two namespaces. It returns
// a function that counts what the client was told since: bound, renew and the like.
func dhcp(t testing.TB, server *nettest.Namespace, on string, client *nettest.Namespace, dev string) (events func(what string) int) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/leases", "")
	write(t, dir+"/events", "")
	write(t, dir+"/conf", fmt.Sprintf("start 10.0.0.100\nend 10.0.0.100\ninterface %s\nlease_file %s/leases\npidfile %[2]s/pid\n"+
		"option subnet 255.255.255.0\noption lease 10\nmin_lease 5\n", on, dir))
	write(t, dir+"/script", "#!/bin/sh\n[ \"$1\" != bound ] || ip addr add $ip/24 dev $interface\necho $1 >>"+dir+"/events\n")
	pipeline(t, nil, nil, server.Command("udhcpd", "-f", dir+"/conf"))
	pipeline(t, nil, nil, client.Command("udhcpc", "-f", "-i", dev, "-s", dir+"/script", "-t", "20", "-T", "1"))
	events = func(what string) int { return strings.Count(read(t, dir+"/events"), what) }
	eventually(t, 20*time.Second, "a lease", func() bool { return events("bound") == 1 })
	return events
}
