package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/calendar"
	"framepipe/internal/fdio"
	"framepipe/internal/ledger"
	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/ping"

	"golang.org/x/sys/unix"
)

// tmpfs mounts a small file system for the time of the test.
func tmpfs(t *testing.T, size string) (dir string) {
	t.Helper()
	nettest.Need(t)
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		nettest.Skip(t, "needs to mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill takes all the room that there is, and returns what gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.Create(dir + "/filler")
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	f.Close()
	return func() {
		if err := os.Remove(dir + "/filler"); err != nil {
			t.Fatal(err)
		}
	}
}

// While the disk is full or read-only the traffic goes on, and each tool says it
// once. The metrics are the old ones or the new ones, captures and reports have no
// halves in the middle, and all of it goes on when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "tee", "bash")
	full, ro := tmpfs(t, "2m"), tmpfs(t, "64k")
	in, farIn := wire(t)
	out, farOut := wire(t)
	read, write := tool("tunread", "fd:3"), tool("tunwrite", "fd:3")
	read.ExtraFiles, write.ExtraFiles = []*os.File{farIn}, []*os.File{farOut}
	all := pipeline(t, nil, nil, read,
		tool("quotagate", "-quota", "1GB", "-window", "1m", "-cycle", "1h", "-ledger", full+"/bill", "-dir", "out", "-metrics", full+"/gate.prom"),
		tool("quotagate", "-quota", "1GB", "-metrics", ro+"/gate.prom"),
		tool("bytehist", "-every", "20ms", "-format", "json", "-o", full+"/hist.json"),
		exec.Command("bash", "-c", "tee "+full+"/day.frames >(framepcap >"+full+"/day.pcap)"), write)
	farIn.Close()
	farOut.Close()
	crossed := 0
	flow := func(d time.Duration) {
		t.Helper()
		for start := time.Now(); time.Since(start) < d; time.Sleep(time.Millisecond) {
			cross(t, in, out)
			crossed++
		}
	}
	metrics := func(dir string) string {
		t.Helper()
		b, err := os.ReadFile(dir + "/gate.prom")
		if err != nil || !regexp.MustCompile(`(?s)^# TYPE quotagate_read_frames_total counter\n.*\nquotagate_delay_seconds \S+\n$`).Match(b) {
			t.Fatalf("%s, %v", b, err)
		}
		return string(b)
	}
	flow(1500 * time.Millisecond)
	free := fill(t, full)
	if err := unix.Mount("", ro, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	was := [2]string{metrics(full), metrics(ro)}
	for range 15 {
		flow(100 * time.Millisecond)
		if metrics(full) != was[0] || metrics(ro) != was[1] {
			t.Fatal("metrics are written where there is no room")
		}
	}
	free()
	if err := unix.Mount("", ro, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	flow(1300 * time.Millisecond)
	if metrics(full) == was[0] || metrics(ro) == was[1] {
		t.Error("there is room again, and the metrics are the old ones")
	}
	in.Close()
	for i, want := range []string{
		`tunread: fd:3: the device has gone away\n`,
		`quotagate: \S+ \S+/.gate.prom.\d+: no space left on device\n`,
		`quotagate: \S+ \S+/.gate.prom.\d+: read-only file system\n`,
		`bytehist: write \S+/hist.json: no space left on device; reports are left out until that is over\n`,
		`framepcap: stdout: no space left on device; packets are left out until that is over\n`,
		``,
	} {
		if err := all[i].wait(t, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		got := all[i].stderr.String()
		if i == 4 {
			if n := strings.Count(got, "day.frames"); n != 1 {
				t.Errorf("tee says\n%s", got)
			}
			got = regexp.MustCompile(`(?m)^tee: .*\n|^framepcap: stdout: \d+ packets were left out\n`).ReplaceAllString(got, "")
		}
		if !regexp.MustCompile("^" + want + "$").MatchString(got) {
			t.Errorf("%v says\n%s", all[i].Args, got)
		}
	}
	reports := 0
	b, err := os.ReadFile(full + "/hist.json")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("half a report: %q", line)
		}
		reports++
	}
	if b, err = os.ReadFile(full + "/day.pcap"); err != nil {
		t.Fatal(err)
	}
	_, packets := readCapture(t, b)
	t.Logf("%d frames, %d of them captured; %d reports", crossed, len(packets), reports)
	if len(packets) < crossed/2 || len(packets) >= crossed || reports < 100 {
		t.Errorf("%d frames crossed, %d are captured; %d reports", crossed, len(packets), reports)
	}
}

// Whoever watches a copy may leave, and the traffic goes on.
func TestWatcherLeaves(t *testing.T) {
	dir := t.TempDir()
	_, in, out := watched(t, "tee >(framepcap | head -c 100 >/dev/null; touch "+dir+"/left; cat >/dev/null)")
	for start := time.Now(); ; {
		cross(t, in, out)
		if _, err := os.Stat(dir + "/left"); err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("head does not leave")
		}
	}
	for range 1000 {
		cross(t, in, out)
	}
}

// begun starts a program, of which nothing is left after the test, and returns its
// output and what it will have said.
func begun(t *testing.T, c *exec.Cmd) (out *os.File, said *bytes.Buffer) {
	t.Helper()
	said = new(bytes.Buffer)
	c.Stderr = said
	r, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	return r.(*os.File), said
}

// A fifo for reports that nobody reads, or that is read too slowly, does not hold the
// stream up; and it has them as soon as somebody reads.
func TestFifo(t *testing.T) {
	t.Parallel()
	one := stream(1, 100, 0)
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("bytehist", "-every", "20ms", "-format", "json", "-o", fifo)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, said := begun(t, c)
	flow := func(d time.Duration) {
		t.Helper()
		b := make([]byte, len(one))
		for start := time.Now(); time.Since(start) < d; time.Sleep(5 * time.Millisecond) {
			if _, err := in.Write(one); err != nil {
				t.Fatal(err)
			}
			_ = out.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadFull(out, b); err != nil {
				t.Fatalf("nothing comes out: %v, %s", err, said.String())
			}
		}
	}
	flow(1200 * time.Millisecond) // nobody reads
	f, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, 4096)
	_ = f.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, _ = io.ReadAll(f)
	flow(2500 * time.Millisecond) // somebody has it open
	_ = f.SetReadDeadline(time.Now().Add(time.Second))
	b := make([]byte, 100)
	if n, err := io.ReadFull(f, b); err != nil {
		t.Errorf("%d bytes in the fifo, %v; %s", n, err, said.String())
	}
	in.Close()
	if err := c.Wait(); err != nil || said.String() != "" {
		t.Errorf("%v, %s", err, said.String())
	}
}

// A ledger takes all of its room when it is made. So a full disk is an error at the
// start, which leaves nothing, and never one later; also for a copy with holes.
func TestLedgerDiskFull(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "2m")
	gate := func(name string, more ...string) (passed int, says string, status int) {
		c := tool("quotagate", append([]string{"-quota", "1GB", "-ledger", dir + "/" + name, "-dir", "out"}, more...)...)
		var stdout, stderr bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stream(1000, 500, time.Millisecond)), &stdout, &stderr
		_ = c.Run()
		return stdout.Len(), stderr.String(), c.ProcessState.ExitCode()
	}
	const room = "quotagate: hint: make room, or put the -ledger on another disk; it never grows\n"
	if _, says, status := gate("month"); status != 1 || says != "quotagate: "+dir+"/month: making a ledger of 69.7 MB: no space left on device\n"+room {
		t.Errorf("status %d, %s", status, says)
	}
	small := []string{"-window", "1m", "-cycle", "1h"}
	whole, says, status := gate("bill", small...)
	if status != 0 || says != "" {
		t.Fatalf("status %d, %s", status, says)
	}
	b, err := os.ReadFile(dir + "/bill")
	if err == nil {
		err = errors.Join(os.WriteFile(dir+"/holes", b[:4096], 0o644), os.Truncate(dir+"/holes", int64(len(b))))
	}
	if err != nil {
		t.Fatal(err)
	}
	free := fill(t, dir)
	if n, says, status := gate("bill", small...); n != whole || status != 0 || says != "" {
		t.Errorf("one that is there: %d bytes of %d, status %d, %s", n, whole, status, says)
	}
	if n, says, status := gate("holes", small...); n != 0 || status != 1 || says != "quotagate: "+dir+"/holes: no space left on device\n"+room {
		t.Errorf("one with holes: %d bytes of %d, status %d, %s", n, whole, status, says)
	}
	free()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"another", "bill"} {
		if n, says, status := gate(name, small...); n != 0 || status != 1 || !regexp.MustCompile(`^quotagate: .*`+name+`.*: read-only file system\nquotagate: hint: -ledger needs .*\n$`).MatchString(says) {
			t.Errorf("%s, read-only: %d bytes, status %d, %s", name, n, status, says)
		}
	}
	if names, err := os.ReadDir(dir); len(names) != 2 || err != nil {
		t.Errorf("%v, %v", names, err)
	}
}

// numbered sends datagrams that carry their number, and returns how many came out
// at the other end, in order and each once, and how many its socket had no room for.
// Meanwhile it calls do with each number.
func (n *network) numbered(count, size int, do func(i int)) (got, overrun int) {
	n.t.Helper()
	server, client := n.udp("10.0.0.2:9")
	defer server.Close()
	defer client.Close()
	c, err := server.(*net.UDPConn).SyscallConn()
	if err == nil {
		err = c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	}
	if err != nil {
		n.t.Fatal(err)
	}
	before := n.counters("Udp:")["RcvbufErrors"]
	body := make([]byte, size)
	for i := range count {
		do(i)
		binary.BigEndian.PutUint32(body, uint32(i))
		if _, err := client.Write(body); err != nil {
			n.t.Fatal(err)
		}
	}
	for last := -1; ; got++ {
		_ = server.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
		if _, _, err := server.ReadFrom(body); err != nil {
			return got, n.counters("Udp:")["RcvbufErrors"] - before
		}
		i := int(binary.BigEndian.Uint32(body))
		if i <= last {
			n.t.Errorf("datagram %d comes after %d", i, last)
		}
		last = i
	}
}

// A stage that is stopped, and told to go on soon, has lost nothing but what found
// no room in the queue of the tap, which counts it.
func TestStagesStopped(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, setup{in: stages, out: stages})
	n.a.Run("ip", "link", "set", "tap0", "txqueuelen", "64")
	for i, s := range n.in {
		before := n.device(n.a, "tap0")["tx_dropped"]
		const count = 12000 // more than the pipes hold
		got, overrun := n.numbered(count, 1000, func(k int) {
			switch {
			case k == 1000:
				_ = s.Process.Signal(unix.SIGSTOP)
			case k == count-1:
				_ = s.Process.Signal(unix.SIGCONT)
			case k < 1000 && k%20 == 0: // not so fast that the queue overflows without
				time.Sleep(time.Millisecond)
			}
		})
		lost := n.device(n.a, "tap0")["tx_dropped"] - before
		t.Logf("%v: %d came, the queue dropped %d", s.Args[min(4, len(s.Args)-1):], got, lost)
		// Neighbour discovery and the like are dropped, too.
		if sum := got + lost + overrun; sum < count || sum > count+5 {
			t.Errorf("stage %d: %d of %d came, the queue dropped %d, and the socket %d", i, got, count, lost, overrun)
		}
		if lost == 0 || got < 100 { // on a busy machine the queue overflows before, too
			t.Errorf("stage %d: %d came, and the queue dropped %d", i, got, lost)
		}
	}
	n.stop()
}

// In front of a stage that is too slow the pipes and the queue of the tap fill up,
// and no more: what is lost is lost there, and a ping waits as long as what they
// hold takes.
func TestSlowStage(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "perl")
	slow := t.TempDir() + "/slow"
	const piece, queue = 2000, 64 // 16 Mbit/s or less
	if err := os.WriteFile(slow, []byte("#!/usr/bin/perl\nwhile (sysread(STDIN, $b, "+strconv.Itoa(piece)+")) { syswrite(STDOUT, $b); select(undef, undef, undef, 0.001) }\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := newNetwork(t, setup{write: "-offload=off", in: []string{slow}, out: stages})
	n.a.Run("ip", "link", "set", "tap0", "txqueuelen", strconv.Itoa(queue))
	was, wasOut := n.device(n.a, "tap0"), n.device(n.b, "tap1")
	echoes := n.a.StartPing("10.0.0.2", ping.Config{Count: 80, Every: 50 * time.Millisecond, Wait: 4 * time.Second})
	const count, size = 15000, 1000
	start := time.Now()
	var rate float64
	got, overrun := n.numbered(count, size, func(k int) {
		if k%5 == 0 {
			time.Sleep(time.Millisecond) // 40 Mbit/s or less
		}
		if k == count-1 {
			rate = float64(n.device(n.b, "tap1")["rx_packets"]-wasOut["rx_packets"]) * (size + 42) / time.Since(start).Seconds()
		}
	})
	pings := echoes.Wait()
	for i := 0; ; i++ {
		signal(t, n.in[:1], unix.SIGUSR1)
		signal(t, n.in[2:], unix.SIGUSR1)
		time.Sleep(300 * time.Millisecond)
		tap0, tap1 := n.device(n.a, "tap0"), n.device(n.b, "tap1")
		read, write := keys(n.in[0]), keys(n.in[2])
		if tap0["tx_packets"] == read["frames"] && read["frames"] == write["frames"] && tap1["rx_packets"] == write["frames"] {
			break
		}
		if i == 5 {
			t.Fatalf("tap0 %v, tunread %v, tunwrite %v, tap1 %v", tap0, read, write, tap1)
		}
	}
	tap0, tap1 := n.device(n.a, "tap0"), n.device(n.b, "tap1")
	lost, came := tap0["tx_dropped"]-was["tx_dropped"], tap1["rx_packets"]-wasOut["rx_packets"]
	const others = 20 // neighbour discovery and the like
	if sent := pings.Sent; lost == 0 || came+lost < count+sent || came+lost > count+sent+others || got+overrun > came || got+overrun < came-sent-others {
		t.Errorf("%d datagrams and %d pings: %d frames and %d datagrams came, the queue dropped %d, the socket %d", count, sent, came, got, lost, overrun)
	}
	if pings.Received == 0 {
		t.Fatal(pings)
	}
	// A pipe of 1 MiB on either side, as tools make them, what tunread holds when
	// its pipe is full, and the queue.
	holds := float64(2*fdio.PipeSize + 256<<10 + queue*(size+42))
	bound := holds / rate
	t.Logf("%.1f Mbit/s; %d of %d came, the queue dropped %d; %v, bound %.3f s", 8*rate/1e6, got, count, lost, pings, bound)
	if most := pings.Slowest().Seconds(); most > bound+0.2 {
		t.Errorf("a ping took %.3f s, and what is in front of the stage takes %.3f s", most, bound)
	}
	n.stop()
}

// Sixty-four stages in a pipeline: TCP goes through, and when one in the middle
// dies all end within a second.
func TestManyStages(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 62 {
		many = append(many, []string{"quotagate -quota 1PB", "bytehist -o /dev/null", "quotagate -rate 100Gbit/s"}[i%3])
	}
	n := newNetwork(t, setup{in: many, out: stages})
	both := pair(t, n)
	const size = 20 << 20
	start := time.Now()
	go func() { _, _ = io.CopyN(both[1], noise{}, size) }()
	_ = both[0].SetDeadline(time.Now().Add(30 * time.Second))
	if m, err := io.CopyN(io.Discard, both[0], size); err != nil {
		t.Fatalf("%d bytes came, %v", m, err)
	}
	t.Logf("%.2f Gbit/s, %v", 8*size/time.Since(start).Seconds()/1e9, n.a.Ping("10.0.0.2", 5, 100*time.Millisecond))
	var times []time.Duration
	start = time.Now()
	if err := n.in[30].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for i, s := range n.in {
		if err := s.wait(t, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		times = append(times, s.ended.Sub(start))
		if status := s.ProcessState.ExitCode(); status != 0 && i != 30 {
			t.Errorf("stage %d: status %d, %s", i, status, &s.stderr)
		}
	}
	last := slices.Max(times)
	t.Logf("the last ended after %v", last)
	if slices.Sort(times); times[len(times)/2] > time.Second || last > 3*time.Second { // the machine has other things to do
		t.Errorf("they ended after %v", times)
	}
}

// byteExact sends frames of all sizes into a pipeline and wants them to come out as
// they were, in order.
func byteExact(t *testing.T, in, out *os.File, rng *rand.Rand, count int) {
	t.Helper()
	sizes := make([]int, count)
	for i := range sizes {
		sizes[i] = 60 + rng.IntN([]int{100, 1500, 9000, 66000}[rng.IntN(4)])
	}
	at := func(i int) []byte { return noiseFrames[i*61 : i*61+sizes[i]] }
	failed := make(chan error, 1)
	go func() {
		for i := range sizes {
			if _, err := in.Write(at(i)); err != nil {
				failed <- err
				return
			}
			if i%50 == 0 {
				time.Sleep(time.Millisecond) // a wait now and then
			}
		}
		failed <- nil
	}()
	got := make([]byte, 1<<17)
	for i := range sizes {
		_ = unix.SetsockoptTimeval(int(out.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
		n, err := out.Read(got)
		if err != nil || !bytes.Equal(got[:n], at(i)) {
			t.Fatalf("frame %d of %d bytes came with %d: %v", i, sizes[i], n, err)
		}
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

var noiseFrames = packettest.Bytes(1 << 20)

// links are what stages can be joined by. shared is told of both ends once the stages
// have them.
var links = []struct {
	name   string
	make   func() (r, w *os.File, err error)
	shared func(t *testing.T, fd int)
}{
	{"pipes", os.Pipe, nil},
	{"pipes that a neighbour sets to O_NONBLOCK", os.Pipe, func(t *testing.T, fd int) {
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Error(err)
		}
	}},
	{"sockets", socketpair, nil},
	{"sockets that a neighbour sets to O_NONBLOCK", socketpair, func(t *testing.T, fd int) {
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Error(err)
		}
	}},
}

// socketpair has little room, so that what is written is taken in parts.
func socketpair() (r, w *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetsockoptInt(p[1], unix.SOL_SOCKET, unix.SO_SNDBUF, 5000)
	}
	return os.NewFile(uintptr(p[0]), "socket"), os.NewFile(uintptr(p[1]), "socket"), err
}

// faulty is a pipeline of all four tools between two sockets, joined by links.
// before, if there is one, is put before each command.
func faulty(t *testing.T, i int, before func() []string) (all []*stage, in, out *os.File) {
	t.Helper()
	in, farIn := wire(t)
	out, farOut := wire(t)
	var cmds []*exec.Cmd
	for _, line := range []string{"tunread fd:3", "quotagate -quota 1PB", "bytehist -o /dev/null", "tunwrite fd:3"} {
		words := strings.Fields(line)
		if before != nil {
			words = append(before(), words...)
		}
		cmds = append(cmds, exec.Command(words[0], words[1:]...))
	}
	cmds[0].ExtraFiles, cmds[3].ExtraFiles = []*os.File{farIn}, []*os.File{farOut}
	var ends []int
	all = joined(t, func() (r, w *os.File, err error) {
		r, w, err = links[i].make()
		if links[i].shared != nil && err == nil {
			for _, f := range []*os.File{r, w} {
				fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				ends = append(ends, fd)
			}
		}
		return r, w, err
	}, nil, nil, cmds...)
	for _, fd := range ends {
		links[i].shared(t, fd)
		unix.Close(fd)
	}
	farIn.Close()
	farOut.Close()
	return all, in, out
}

// Whatever joins the stages, and however many signals arrive meanwhile, the frames
// come out as they went in.
func TestLinks(t *testing.T) {
	t.Parallel()
	for i, link := range links {
		all, in, out := faulty(t, i, nil)
		cross(t, in, out)
		done := make(chan struct{})
		var signals sync.WaitGroup
		signals.Add(1)
		go func() {
			defer signals.Done()
			for {
				for _, s := range all {
					_ = s.Process.Signal(unix.SIGUSR1)
				}
				select {
				case <-done:
					return
				case <-time.After(100 * time.Microsecond):
				}
			}
		}()
		byteExact(t, in, out, rand.New(rand.NewPCG(uint64(i), 1)), 6000)
		close(done)
		signals.Wait()
		signal(t, all, unix.SIGTERM)
		for k, s := range all {
			if err := s.wait(t, 5*time.Second); err != nil || s.ProcessState.ExitCode() != 0 || strings.Count(s.stderr.String(), "\n") < 10 {
				t.Errorf("%s, stage %d: %v, %v, %.200s", link.name, k, err, s.ProcessState, &s.stderr)
			}
		}
	}
}

// System calls fail with EINTR and EAGAIN at random, all that move frames and wait:
// the frames come out as they went in.
func TestCallsFail(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "strace")
	rounds := 1
	if *full {
		rounds = 10
	}
	for round := range rounds {
		for i, link := range links {
			seed := uint64(time.Now().UnixNano())
			rng := rand.New(rand.NewPCG(seed, 0))
			all, in, out := faulty(t, i, func() []string {
				const calls = "preadv2,pwritev2,ppoll,tee,splice,recvfrom,sendto,read,write,writev"
				words := strings.Fields("strace -f -qqq --signal=none -o /dev/null -e trace=" + calls)
				for call := range strings.SplitSeq(calls, ",") {
					err := []string{"EINTR", "EAGAIN"}[rng.IntN(2)]
					if call == "ppoll" { // which does not fail otherwise
						err = "EINTR"
					}
					words = append(words, "-e", "inject="+call+":error="+err+":when="+strconv.Itoa(20+rng.IntN(10))+"+"+strconv.Itoa(2+rng.IntN(6)))
				}
				return words
			})
			byteExact(t, in, out, rng, 600)
			in.Close()
			for k, s := range all {
				err := s.wait(t, 10*time.Second)
				want := map[bool]string{true: "tunread: fd:3: the device has gone away\n"}[k == 0]
				if err != nil || (s.ProcessState.ExitCode() != 0) != (k == 0) || s.stderr.String() != want {
					t.Errorf("round %d, %s, seed %d, stage %d: %v, %v, %s", round, link.name, seed, k, err, s.ProcessState, &s.stderr)
				}
			}
			if t.Failed() {
				t.Fatalf("%s, seed %d: %v", link.name, seed, all[1].Args)
			}
		}
	}
}

// cage is a script that runs a command with so much memory, and no more, where the
// machine has a control group for it.
func cage(t *testing.T, mb int) (script string) {
	t.Helper()
	script = t.TempDir() + "/cage"
	text := `exec "$@"`
	for _, v := range []struct{ root, most string }{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}} {
		dir := fmt.Sprintf("%s/framepipe-%d", v.root, os.Getpid())
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			err = os.WriteFile(dir+"/"+v.most, []byte(strconv.Itoa(mb<<20)), 0)
			t.Cleanup(func() {
				all, _ := filepath.Glob(dir + "*")
				for _, dir := range all {
					_ = os.Remove(dir)
				}
			})
		}
		if err == nil {
			text = fmt.Sprintf(`d=%s-$$; mkdir $d && echo %d >$d/%s && echo $$ >$d/cgroup.procs && `, dir, mb<<20, v.most) + text
			break
		}
	}
	if text[0] != 'd' {
		t.Log("no control groups here: what is measured has to do")
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return script
}

// Each stage does with 32 MB: with the largest frames and annotations, foreign
// encodings, and more flows than a queue that is as long as can be has room for. So
// does a gate with two months in its ledger, whose pages are the file's. (TestTransfer
// measures all four while they move a gigabyte, and TestMemory what is only claimed.)
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	nettest.Need(t)
	const mb = 32
	script := cage(t, mb)
	ns := nettest.New(t)
	ns.Run("ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "multi_queue", "vnet_hdr")
	ns.Run("ip", "link", "set", "tap0", "up")
	now := time.Date(2026, 9, 20, 0, 0, 0, 0, time.UTC)

	var big, flows bytes.Buffer
	w := frame.NewWriter(&big)
	for i := range 40 {
		_ = w.Write(&frame.Record{Time: uint64(now.UnixNano()) + uint64(i), Frame: noiseFrames[:frame.MaxFrame]})
		_ = w.Annotate(map[string]any{"note": strings.Repeat("x", frame.MaxFrame-100)})
		half := append([]byte{0xc6, 0, 8, 0, 0}, noiseFrames[:1<<19]...)
		_ = w.WriteRaw(slices.Concat([]byte{0x94, 0xcf}, binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano())), []byte{0xc0}, half, half)) // with an addition
	}
	_ = w.Flush()
	w = frame.NewWriter(&flows)
	for i := range 60000 {
		s := packettest.Spec{UDP: true, V6: i%2 == 0, Port: uint16(i), Payload: noiseFrames[:10+i%1400]}
		_ = w.Write(&frame.Record{Time: uint64(now.UnixNano()) + uint64(i), Frame: s.Frame()})
	}
	_ = w.Flush()

	bill := t.TempDir() + "/bill"
	l, err := ledger.Open(bill, ledger.Config{Slot: 5 * time.Second, CycleDay: 1, Zone: time.UTC}, calendar.Calendar{Day: 1, Zone: time.UTC}.Bounds)
	if err != nil {
		t.Fatal(err)
	}
	for at := now.AddDate(0, -2, 0); at.Before(now); at = at.Add(5 * time.Second) {
		s, err := l.At(at.UnixNano(), ledger.Out)
		if err != nil {
			t.Fatal(err)
		}
		s.Charged.Add(1000)
		s.Offered.Add(1000)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(bill)
	if err == nil {
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // it is to be charged to the gate
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"quotagate -quota 20MB -window 1m -queue 1h -clock stream",
		"quotagate -rate 1Mbit/s -percentile 95 -dir out -ledger " + bill + " -queue 1h -clock stream",
		"quotagate -quota 1PB", "bytehist -o /dev/null", "framepcap", "framepcap -segment",
		"ip netns exec " + ns.Name + " tunwrite tap0", "ip netns exec " + ns.Name + " tunwrite -offload=off tap0",
	} {
		var most int
		for name, in := range map[string][]byte{"the largest": big.Bytes(), "many flows": flows.Bytes(), "super-frames": stream(1000, 0, time.Microsecond)} {
			n := resident(t, exec.Command(script, strings.Fields(line)...), in)
			if most = max(most, n); n >= mb && !strings.Contains(line, bill) {
				t.Errorf("%s, %s: %d MB resident", line, name, n)
			}
		}
		t.Logf("%s: %d MB", line, most)
	}
}

// A stream whose clock is set by an hour and by a month, to and fro: what passes is
// counted, nothing waits for a time that was, and no window at the new time holds
// more than the quota.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	const second, size = 100, 1000 // frames in each
	for _, load := range []struct {
		name  string
		quota int     // bytes in five minutes
		least float64 // share that passes
	}{
		{"under the quota", 20e6, 1},
		{"over the quota", 1e6, 0.05},
	} {
		name := t.TempDir() + "/bill"
		var b bytes.Buffer
		w := frame.NewWriter(&b)
		f := packettest.Spec{UDP: true, Payload: noiseFrames[:size-4-42]}.Frame()
		at := time.Date(2026, 9, 15, 12, 0, 0, 0, time.UTC)
		frames := 0
		for _, step := range []time.Duration{0, time.Hour, -time.Hour, 31 * 24 * time.Hour, -31 * 24 * time.Hour, -time.Hour, time.Hour} {
			at = at.Add(step)
			for range 20 * second {
				at = at.Add(time.Second / second)
				_ = w.Write(&frame.Record{Time: uint64(at.UnixNano()), Frame: f})
				frames++
			}
		}
		_ = w.Flush()
		c := tool("quotagate", "-quota", strconv.Itoa(load.quota)+"B", "-window", "5m", "-ledger", name, "-dir", "out", "-clock", "stream")
		var out, stderr bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = &b, &out, &stderr
		if err := c.Run(); err != nil || stderr.Len() > 0 {
			t.Fatalf("%s: %v, %s", load.name, err, &stderr)
		}
		r := frame.NewReader(&out)
		var rec frame.Record
		passed, since := 0, map[int64]int{}
		for r.Next(&rec) == nil {
			passed++
			since[int64(rec.Time)/int64(5*time.Minute)]++
		}
		if got := charged(t, name, ledger.Out); got != int64(passed)*size {
			t.Errorf("%s: %d bytes passed, and %d are counted", load.name, passed*size, got)
		}
		for _, n := range since {
			if n*size > load.quota {
				t.Errorf("%s: %d bytes of five minutes passed", load.name, n*size)
			}
		}
		t.Logf("%s: %d of %d passed, in %d spans", load.name, passed, frames, len(since))
		if float64(passed) < load.least*float64(frames) {
			t.Errorf("%s: %d of %d passed", load.name, passed, frames)
		}
	}
}

// One record of a capture has a time of another year, or the capture of a later day comes
// first: what follows passes as it would alone, and the gate says how many times were out
// of line. After a night none is.
func TestClockOfRecords(t *testing.T) {
	t.Parallel()
	minute := func(start uint64) []byte { // of 100 kB a second
		return streamFrom(start, 6000, 1000, 10*time.Millisecond)
	}
	const day = 86400e9
	for _, tt := range []struct {
		name   string
		input  []byte
		strays int
	}{
		{"a record of 2049", slices.Concat(minute(1e18), streamFrom(2.5e18, 1, 1000, 0), minute(1e18+60e9)), 1},
		{"the day before last", slices.Concat(minute(1e18+day), minute(1e18)), 1},
		{"a night between", slices.Concat(minute(1e18), minute(1e18+day/2)), 0},
	} {
		c := tool("quotagate", "-quota", "1.2MB", "-window", "10s", "-threshold", "100%", "-clock", "stream", "-v")
		var out, stderr bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(tt.input), &out, &stderr
		if err := c.Run(); err != nil {
			t.Fatalf("%s: %v, %s", tt.name, err, &stderr)
		}
		if share := float64(out.Len()) / float64(len(tt.input)); share < 1 {
			t.Errorf("%s: %.2f of the bytes pass; %s", tt.name, share, &stderr)
		}
		said := fmt.Sprintf("; records out of line: %d\n", tt.strays)
		if strings.Contains(stderr.String(), said) != (tt.strays > 0) || !strings.Contains(stderr.String(), "never clamped") {
			t.Errorf("%s: %s", tt.name, &stderr)
		}
	}
}
