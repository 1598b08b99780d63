package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/calendar"
	"framepipe/internal/ledger"
	"framepipe/internal/nettest"
	"framepipe/internal/packettest"

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
// once. The metrics are the old ones or the new ones, reports have no halves in the middle,
// and both go on when there is room again. A capture has ended.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "tee", "bash")
	full, ro := tmpfs(t, "2m"), tmpfs(t, "64k")
	all, in, out := between(t,
		tool("quotagate", "-quota", "1GB", "-window", "1m", "-cycle", "1h", "-ledger", full+"/bill", "-dir", "out", "-metrics", full+"/gate.prom"),
		tool("quotagate", "-quota", "1GB", "-metrics", ro+"/gate.prom"),
		tool("bytehist", "-every", "20ms", "-format", "json", "-o", full+"/hist.json"),
		exec.Command("bash", "-c", "tee "+full+"/day.frames >(framepcap >"+full+"/day.pcap; cat >/dev/null)"))
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
		if err != nil || !regexp.MustCompile(`(?s)^# HELP quotagate_read_frames_total .*\nquotagate_delay_seconds\S* \S+\n$`).Match(b) {
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
		`framepcap: stdout: no space left on device\n`,
		``,
	} {
		if err := all[i].End(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		got := all[i].Said.String()
		if i == 4 {
			if n := strings.Count(got, "day.frames"); n != 1 {
				t.Errorf("tee says\n%s", got)
			}
			got = regexp.MustCompile(`(?m)^tee: .*\n`).ReplaceAllString(got, "")
		}
		if !regexp.MustCompile("^" + want + "$").MatchString(got) {
			t.Errorf("%v says\n%s", all[i].Args, got)
		}
	}
	reports := 0
	for line := range strings.Lines(read(t, full+"/hist.json")) {
		if !json.Valid([]byte(line)) {
			t.Errorf("half a report: %q", line)
		}
		reports++
	}
	if t.Logf("%d frames, %d reports", crossed, reports); reports < 50 {
		t.Errorf("%d reports", reports)
	}
}

// A program that watches a copy may end, and the traffic goes on.
func TestWatcherLeaves(t *testing.T) {
	dir := t.TempDir()
	_, in, out := watched(t, "tee >(framepcap | head -c 100 >/dev/null; touch "+dir+"/left; cat >/dev/null)")
	eventually(t, 10*time.Second, "head leaves", func() bool {
		cross(t, in, out)
		return exists(dir + "/left")
	})
	for range 1000 {
		cross(t, in, out)
	}
}

// A fifo for reports that nobody reads, or that is read too slowly, does not hold the
// stream up; and it has them as soon as a process reads.
func TestFifo(t *testing.T) {
	t.Parallel()
	one := stream(1, 100, 0)
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	all, in, out := piped(t, exec.Command("bytehist", "-every", "20ms", "-format", "json", "-o", fifo))
	said := &all[0].Said
	flow := func(d time.Duration) {
		t.Helper()
		b := make([]byte, len(one))
		for start := time.Now(); time.Since(start) < d; time.Sleep(5 * time.Millisecond) {
			if _, err := in.Write(one); err != nil {
				t.Fatal(err)
			}
			_ = out.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadFull(out, b); err != nil {
				t.Fatalf("nothing comes out: %v, %s", err, said)
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
	flow(2500 * time.Millisecond) // the fifo has a reader
	_ = f.SetReadDeadline(time.Now().Add(time.Second))
	b := make([]byte, 100)
	if n, err := io.ReadFull(f, b); err != nil {
		t.Errorf("%d bytes in the fifo, %v; %s", n, err, said)
	}
	in.Close()
	if ended(t, all...); said.String() != "" {
		t.Errorf("it says %s", said)
	}
}

// A ledger takes all of its room when it is made. So a full disk is an error at the
// start, which leaves nothing, and never one later; also for a copy with holes.
func TestLedgerDiskFull(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "2m")
	gate := func(name string, more ...string) (passed int, says string, status int) {
		out, says, status := through(t, stream(1000, 500, time.Millisecond), "quotagate", append([]string{"-quota", "1GB", "-ledger", dir + "/" + name, "-dir", "out"}, more...)...)
		return len(out), says, status
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
	roomy(n.t, server)
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
// no room in the queue of the tap or of tunread, which count it.
func TestStagesStopped(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, setup{in: stages, out: stages})
	n.a.Run("ip", "link", "set", "tap0", "txqueuelen", "64")
	for i, s := range n.in {
		drops := func() int {
			signal(t, n.in[:1], unix.SIGUSR1)
			time.Sleep(200 * time.Millisecond)
			return n.a.Statistics("tap0")["tx_dropped"] + keys(n.in[0])["dropped"]
		}
		before := drops()
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
		lost := drops() - before
		t.Logf("%v: %d came, the queues dropped %d", s.Args[min(4, len(s.Args)-1):], got, lost)
		// Neighbour discovery and the like are dropped, too.
		if sum := got + lost + overrun; sum < count || sum > count+5 {
			t.Errorf("stage %d: %d of %d came, the queues dropped %d, and the socket %d", i, got, count, lost, overrun)
		}
		if lost == 0 || got < 100 { // on a busy machine the queue overflows before, too
			t.Errorf("stage %d: %d came, and the queues dropped %d", i, got, lost)
		}
	}
	n.stop()
}

// byteExact sends frames of all sizes into a pipeline and wants them to come out as
// they were, in order.
func byteExact(t *testing.T, in, out *os.File, rng *rand.Rand, count int) {
	t.Helper()
	sizes := make([]int, count)
	for i := range sizes {
		sizes[i] = 60 + rng.IntN([]int{100, 1500, 9000, 66000}[rng.IntN(4)])
	}
	at := func(i int) []byte { return noiseBlock[i*61 : i*61+sizes[i]] }
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
		n, err := out.Read(got)
		if err != nil || !bytes.Equal(got[:n], at(i)) {
			t.Fatalf("frame %d of %d bytes came with %d: %v", i, sizes[i], n, err)
		}
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// links are what stages can be joined by. A neighbour may set its end to O_NONBLOCK, which
// is that of both.
var links = []struct {
	name     string
	make     func() (r, w *os.File, err error)
	nonblock bool
}{
	{"pipes", os.Pipe, false},
	{"pipes with O_NONBLOCK", os.Pipe, true},
	{"sockets", socketpair, false},
	{"sockets with O_NONBLOCK", socketpair, true},
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
	var cmds []*exec.Cmd
	for _, line := range []string{"tunread fd:3", "quotagate -quota 1PB", "bytehist -o /dev/null", "tunwrite fd:3"} {
		words := strings.Fields(line)
		if before != nil {
			words = append(before(), words...)
		}
		cmds = append(cmds, exec.Command(words[0], words[1:]...))
	}
	var ends []int
	all, in, out = betweenBy(t, func() (r, w *os.File, err error) {
		r, w, err = links[i].make()
		for _, f := range []*os.File{r, w} {
			fd, e := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			ends, err = append(ends, fd), errors.Join(err, e)
		}
		return r, w, err
	}, cmds...)
	for _, fd := range ends { // once the stages have them
		if err := unix.SetNonblock(fd, links[i].nonblock); err != nil {
			t.Error(err)
		}
		unix.Close(fd)
	}
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
		ended(t, all...)
		for k, s := range all {
			if strings.Count(s.Said.String(), "\n") < 10 {
				t.Errorf("%s, stage %d: %.200s", link.name, k, &s.Said)
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
				err := s.End(10 * time.Second)
				want := map[bool]string{true: "tunread: fd:3: the device has gone away\n"}[k == 0]
				if err != nil || (s.ProcessState.ExitCode() != 0) != (k == 0) || s.Said.String() != want && s.Said.String() != "" { // the message's write may fail, too
					t.Errorf("round %d, %s, seed %d, stage %d: %v, %v, %s", round, link.name, seed, k, err, s.ProcessState, &s.Said)
				}
			}
			if t.Failed() {
				t.Fatalf("%s, seed %d: %v", link.name, seed, all[1].Args)
			}
		}
	}
}

// Each stage does with 32 MB: with the largest frames and annotations, foreign
// encodings, lengths that are only claimed, and more flows than a queue that is as long as
// can be has room for. So does a gate with two months in its ledger, but for the pages of
// that file. (TestTransfer measures all four while they move a gigabyte.)
func TestMemory(t *testing.T) {
	t.Parallel()
	nettest.Need(t)
	const mb = 32
	ns := nettest.New(t)
	ns.Taps("tap0")
	now := time.Date(2026, 9, 20, 0, 0, 0, 0, time.UTC)

	var big, flows bytes.Buffer
	w := frame.NewWriter(&big)
	for i := range 40 {
		_ = w.Write(&frame.Record{Time: uint64(now.UnixNano()) + uint64(i), Frame: noiseBlock[:frame.MaxFrame]})
		_ = w.Annotate(map[string]any{"note": strings.Repeat("x", frame.MaxFrame-100)})
		half := append([]byte{0xc6, 0, 8, 0, 0}, noiseBlock[:1<<19]...)
		_ = w.WriteRaw(slices.Concat([]byte{0x94, 0xcf}, binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano())), []byte{0xc0}, half, half)) // with an addition
	}
	_ = w.Flush()
	w = frame.NewWriter(&flows)
	for i := range 60000 {
		s := packettest.Spec{UDP: true, V6: i%2 == 0, Port: uint16(i), Payload: noiseBlock[:10+i%1400]}
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
	for _, line := range []string{
		"quotagate -quota 20MB -window 1m -queue 1h -clock stream",
		"quotagate -rate 1Mbit/s -percentile 95 -dir out -ledger " + bill + " -queue 1h -clock stream",
		"quotagate -quota 1PB", "bytehist -o /dev/null", "framepcap", "framepcap -segment",
		"ip netns exec " + ns.Name + " tunwrite tap0", "ip netns exec " + ns.Name + " tunwrite -offload=off tap0",
	} {
		words, limit, most := strings.Fields(line), mb, 0
		if strings.Contains(line, bill) {
			limit += 35 // two months of pages of the ledger
		}
		for name, in := range map[string][]byte{
			"the largest":  big.Bytes(),
			"many flows":   flows.Bytes(),
			"super-frames": stream(1000, 0, time.Microsecond),
			"4 GB":         {0x93, 0xcf, 0, 0, 0, 0, 0, 0, 0, 1, 0xc0, 0xc6, 0xff, 0xff, 0xff, 0xff},
			"deep":         bytes.Repeat([]byte{0x91}, 10<<20),
			"wide":         append([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, make([]byte, 10<<20)...),
			"a large map":  append([]byte{0xdf, 0x00, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0xa1, 'x', 1}, 3<<20)...),
		} {
			n := resident(t, exec.Command(words[0], words[1:]...), in)
			if most = max(most, n); n >= limit {
				t.Errorf("%s, %s: %d MB resident", line, name, n)
			}
		}
		t.Logf("%s: %d MB", line, most)
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
		out, says, status := through(t, tt.input, "quotagate", "-quota", "1.2MB", "-window", "10s", "-threshold", "100%", "-clock", "stream", "-v")
		if status != 0 || len(out) < len(tt.input) {
			t.Errorf("%s: status %d, %d bytes of %d pass; %s", tt.name, status, len(out), len(tt.input), says)
		}
		said := fmt.Sprintf("; records out of line: %d\n", tt.strays)
		if strings.Contains(says, said) != (tt.strays > 0) || !strings.Contains(says, "never clamped") {
			t.Errorf("%s: %s", tt.name, says)
		}
	}
}
