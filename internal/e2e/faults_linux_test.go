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
	"strings"
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

// flow has frames cross a pipeline for a while.
func flow(t testing.TB, in, out *os.File, d time.Duration) {
	t.Helper()
	for start := time.Now(); time.Since(start) < d; time.Sleep(time.Millisecond) {
		cross(t, in, out)
	}
}

// While the disk is full the traffic goes on, and each tool says it once. The metrics are the
// old ones or the new ones, reports have no halves in the middle, and both go on when there is
// room again. A capture has ended, and the traffic that it watched goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "tee", "bash")
	dir := tmpfs(t, "2m")
	all, in, out := between(t,
		tool("quotagate", "-quota", "1GB", "-window", "1m", "-cycle", "1h", "-ledger", dir+"/bill", "-dir", "out", "-metrics", dir+"/gate.prom"),
		tool("bytehist", "-every", "20ms", "-format", "json", "-o", dir+"/hist.json"),
		exec.Command("bash", "-c", "tee "+dir+"/day.frames >(framepcap >"+dir+"/day.pcap; cat >/dev/null)"))
	metrics := func() string {
		t.Helper()
		s := read(t, dir+"/gate.prom")
		if !regexp.MustCompile(`(?s)^# HELP quotagate_read_frames_total .*\nquotagate_delay_seconds\S* \S+\n$`).MatchString(s) {
			t.Fatal(s)
		}
		return s
	}
	flow(t, in, out, 1500*time.Millisecond)
	free := fill(t, dir)
	was := metrics()
	for range 15 {
		flow(t, in, out, 100*time.Millisecond)
		if metrics() != was {
			t.Fatal("metrics are written where there is no room")
		}
	}
	free()
	flow(t, in, out, 1300*time.Millisecond)
	if metrics() == was {
		t.Error("there is room again, and the metrics are the old ones")
	}
	in.Close()
	for i, want := range []string{
		`tunread: fd:3: the device has gone away\n`,
		`quotagate: \S+ \S+/.gate.prom.\d+: no space left on device\n`,
		`bytehist: write \S+/hist.json: no space left on device; reports are left out until that is over\n`,
		`(?s)(tee: [^\n]*day.frames[^\n]*\n|framepcap: stdout: no space left on device\n){2}`,
		``,
	} {
		if err := all[i].End(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		if got := all[i].Said.String(); !regexp.MustCompile("^" + want + "$").MatchString(got) {
			t.Errorf("%v says\n%s", all[i].Args, got)
		}
	}
	reports := 0
	for line := range strings.Lines(read(t, dir+"/hist.json")) {
		if !json.Valid([]byte(line)) {
			t.Errorf("half a report: %q", line)
		}
		reports++
	}
	if reports < 50 {
		t.Errorf("%d reports", reports)
	}
}

// A program that watches a copy may end, and the traffic goes on.
func TestWatcherLeaves(t *testing.T) {
	left := t.TempDir() + "/left"
	_, in, out := between(t, exec.Command("bash", "-c", "tee >(framepcap | head -c 100 >/dev/null; touch "+left+"; cat >/dev/null)"))
	eventually(t, 10*time.Second, "head leaves", func() bool {
		cross(t, in, out)
		return exists(left)
	})
	for range 1000 {
		cross(t, in, out)
	}
}

// A fifo for reports that nobody reads, or that is read too slowly, does not hold the
// stream up; and it has them as soon as a process reads.
func TestFifo(t *testing.T) {
	t.Parallel()
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	all, in, out := between(t, tool("bytehist", "-every", "20ms", "-format", "json", "-o", fifo))
	flow(t, in, out, 1200*time.Millisecond) // nobody reads
	f, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, 4096)
	_ = f.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, _ = io.ReadAll(f)
	flow(t, in, out, 2500*time.Millisecond) // the fifo has a reader
	_ = f.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := io.ReadFull(f, make([]byte, 100)); err != nil {
		t.Errorf("%d bytes in the fifo, %v", n, err)
	}
	signal(t, all[:1], unix.SIGTERM)
	if ended(t, all...); all[1].Said.String() != "" {
		t.Errorf("it says %s", &all[1].Said)
	}
}

// A ledger takes all of its room when it is made. So a full disk is an error at the
// start, which leaves nothing, and never one later; also for a copy with holes.
func TestLedgerDiskFull(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "2m")
	in := stream(1000, 500, time.Millisecond)
	gate := func(name, want string) {
		t.Helper()
		out, says, status := through(t, in, "quotagate", "-quota", "1GB", "-window", "1m", "-cycle", "1h", "-ledger", dir+"/"+name, "-dir", "out")
		if refused := want != ""; (status == 1) != refused || (len(out) == 0) != refused || !regexp.MustCompile("^"+want+"$").MatchString(says) {
			t.Errorf("%s: %d bytes, status %d, %s", name, len(out), status, says)
		}
	}
	gate("bill", "")
	bill := read(t, dir+"/bill")
	write(t, dir+"/holes", bill[:4096])
	if err := os.Truncate(dir+"/holes", int64(len(bill))); err != nil {
		t.Fatal(err)
	}
	free := fill(t, dir)
	const room = ": no space left on device\nquotagate: hint: make room, or put the -ledger on another disk; it never grows\n"
	gate("bill", "")
	gate("new", "quotagate: "+dir+"/new: making a ledger of 0.993 MB.*"+room)
	gate("holes", "quotagate: "+dir+"/holes"+room)
	free()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"new", "bill"} {
		gate(name, "quotagate: .*"+name+".*: read-only file system\nquotagate: hint: -ledger needs .*\n")
	}
	if names, err := os.ReadDir(dir); len(names) != 2 || err != nil {
		t.Errorf("%v, %v", names, err)
	}
}

// byteExact sends frames of all sizes into a pipeline and wants them to come out as
// they were, in order.
func byteExact(t *testing.T, in, out *os.File, rng *rand.Rand, count int) {
	t.Helper()
	frames := make([][]byte, count)
	for i := range frames {
		frames[i] = noiseBlock[i*61:][:60+rng.IntN([]int{100, 1500, 9000, 66000}[rng.IntN(4)])]
	}
	failed := make(chan error, 1)
	go func() {
		for i, f := range frames {
			if _, err := in.Write(f); err != nil {
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
	for i, f := range frames {
		if n, err := out.Read(got); err != nil || !bytes.Equal(got[:n], f) {
			t.Fatalf("frame %d of %d bytes came with %d: %v", i, len(f), n, err)
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
		stop := make(chan bool)
		go func() {
			for {
				select {
				case stop <- true:
					return
				case <-time.After(100 * time.Microsecond):
				}
				for _, s := range all {
					_ = s.Process.Signal(unix.SIGUSR1)
				}
			}
		}()
		byteExact(t, in, out, rand.New(rand.NewPCG(uint64(i), 1)), 6000)
		<-stop
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
	const calls = "preadv2,pwritev2,ppoll,tee,splice,recvfrom,sendto,read,write,writev"
	for i := range rounds * len(links) {
		i, seed := i%len(links), uint64(time.Now().UnixNano())
		rng := rand.New(rand.NewPCG(seed, 0))
		all, in, out := faulty(t, i, func() []string {
			words := strings.Fields("strace -f -qqq --signal=none -o /dev/null -e trace=" + calls)
			for call := range strings.SplitSeq(calls, ",") {
				err := []string{"EINTR", "EAGAIN"}[rng.IntN(2)]
				if call == "ppoll" { // which does not fail otherwise
					err = "EINTR"
				}
				words = append(words, "-e", fmt.Sprintf("inject=%s:error=%s:when=%d+%d", call, err, 20+rng.IntN(10), 2+rng.IntN(6)))
			}
			return words
		})
		byteExact(t, in, out, rng, 600)
		in.Close()
		for k, s := range all {
			err := s.End(10 * time.Second)
			want := map[bool]string{true: "tunread: fd:3: the device has gone away\n"}[k == 0]
			if err != nil || (s.ProcessState.ExitCode() != 0) != (k == 0) || s.Said.String() != want && s.Said.String() != "" { // the message's write may fail, too
				t.Errorf("stage %d: %v, %v, %s", k, err, s.ProcessState, &s.Said)
			}
		}
		if t.Failed() {
			t.Fatalf("%s, seed %d: %v", links[i].name, seed, all[1].Args)
		}
	}
}

// Each stage does with 32 MB: with the largest frames and annotations, foreign
// encodings, lengths that are only claimed, and more flows than a queue that is as long as
// can be has room for. So does a gate with two months in its ledger, but for the pages of
// that file. (TestNetwork measures all four while they move a gigabyte.)
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
	l, err := ledger.Open(bill, ledger.Config{Slot: 5 * time.Second, Calendar: calendar.Calendar{Day: 1, Zone: time.UTC}})
	for at := now.AddDate(0, -2, 0); err == nil && at.Before(now); at = at.Add(5 * time.Second) {
		var s ledger.Slot
		if s, err = l.At(at.UnixNano(), ledger.Out); err == nil {
			s.Charged.Add(1000)
			s.Offered.Add(1000)
		}
	}
	if err != nil || l.Close() != nil {
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
