package fdio

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"framepipe/internal/packettest"

	"golang.org/x/sys/unix"
)

// ends are the two ends of something that bytes flow through, -1 once they are closed.
type ends struct{ r, w int }

// opened returns ends that are closed after the test.
func opened(t *testing.T, r, w int) *ends {
	e := &ends{r, w}
	t.Cleanup(func() { closeFd(&e.r); closeFd(&e.w) })
	return e
}

func closeFd(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}

// closeSoon closes an end while the test goes on.
func closeSoon(fd *int) {
	n := *fd
	*fd = -1
	time.AfterFunc(10*time.Millisecond, func() { unix.Close(n) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pipe(t *testing.T) *ends {
	t.Helper()
	var p [2]int
	must(t, unix.Pipe(p[:]))
	return opened(t, p[0], p[1])
}

func socket(t *testing.T) *ends {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	return opened(t, p[0], p[1])
}

// fifo is a named pipe, which on Linux takes other calls than pipe(2)'s.
func fifo(t *testing.T) *ends {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(name, 0o600))
	// Non-blocking so that open does not wait for the other side.
	r, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, err)
	w, err := unix.Open(name, unix.O_WRONLY, 0)
	must(t, err)
	must(t, unix.SetNonblock(r, false))
	return opened(t, r, w)
}

func nonblocking(of func(*testing.T) *ends) func(*testing.T) *ends {
	return func(t *testing.T) *ends {
		e := of(t)
		must(t, unix.SetNonblock(e.r, true))
		must(t, unix.SetNonblock(e.w, true))
		return e
	}
}

// makers are all that bytes flow through.
var makers = []struct {
	name string
	open func(t *testing.T) *ends
}{
	{"pipe", pipe},
	{"non-blocking pipe", nonblocking(pipe)},
	{"socket", socket},
	{"non-blocking socket", nonblocking(socket)},
	{"fifo", fifo},
}

// kinds runs a test over each of them.
func kinds(t *testing.T, test func(t *testing.T, e *ends)) {
	for _, k := range makers {
		t.Run(k.name, func(t *testing.T) { test(t, k.open(t)) })
	}
}

// pairs runs a test over every two of them.
func pairs(t *testing.T, test func(t *testing.T, in, out *ends)) {
	for _, k := range makers {
		t.Run("from "+k.name, func(t *testing.T) {
			kinds(t, func(t *testing.T, out *ends) { test(t, k.open(t), out) })
		})
	}
}

func fcntl(t *testing.T, fd, cmd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), cmd, 0)
	must(t, err)
	return n
}

// unchanged fails the test at its end if the flags of descriptors have changed for another
// process, which keeps them open until then.
func unchanged(t *testing.T, fds ...int) {
	t.Helper()
	for _, fd := range fds {
		other, err := unix.Dup(fd)
		must(t, err)
		before := fcntl(t, fd, unix.F_GETFL)
		t.Cleanup(func() {
			if after := fcntl(t, other, unix.F_GETFL); after != before {
				t.Errorf("the flags are %x, were %x", after, before)
			}
			unix.Close(other)
		})
	}
}

// send writes as the other process would.
func send(t *testing.T, fd int, s string) {
	t.Helper()
	_, err := unix.Write(fd, []byte(s))
	must(t, err)
}

// tryRead reads without waiting.
func tryRead(fd int, p []byte) (int, error) {
	s := NewStream(fd, -1)
	s.Timeout = 0
	return s.Read(p)
}

// drain reads all of fd.
func drain(fd int) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(NewStream(fd, -1))
		got <- b
	}()
	return got
}

// stuff fills a pipe and returns how much went in.
func stuff(t *testing.T, fd int) (total int) {
	t.Helper()
	must(t, unix.SetNonblock(fd, true))
	for {
		n, err := unix.Write(fd, make([]byte, 4096))
		if err == unix.EAGAIN {
			break
		}
		must(t, err)
		total += n
	}
	must(t, unix.SetNonblock(fd, false))
	return total
}

func TestRoundTrip(t *testing.T) {
	want := packettest.Bytes(3 << 20) // more than any of them holds
	kinds(t, func(t *testing.T, e *ends) {
		unchanged(t, e.r)
		s, out := NewStream(e.r, -1), NewOutput(e.w)
		Grow(e.r)
		Grow(e.w)
		if s.Fd() != e.r || out.Fd() != e.w || s.Regular() {
			t.Error("the descriptors are others")
		}
		for _, s.Timeout = range []time.Duration{0, time.Millisecond} {
			if n, err := s.Read(make([]byte, 10)); n != 0 || err != os.ErrDeadlineExceeded {
				t.Errorf("Read of nothing: %d, %v", n, err)
			}
		}
		s.Timeout = Forever
		w := e.w
		e.w = -1
		go func() {
			const half = 1 << 20
			n, err := out.Write(want[:half])
			if n != half || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			if err := out.Writev([][]byte{want[half : half+1], nil, want[half+1 : 2*half], want[2*half:]}); err != nil {
				t.Errorf("Writev: %v", err)
			}
			unix.Close(w)
		}()
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes and %v, want %d", len(got), err, len(want))
		}
		for _, s.Timeout = range []time.Duration{0, Forever} {
			if n, err := s.Read(make([]byte, 10)); n != 0 || err != io.EOF {
				t.Errorf("Read at the end: %d, %v", n, err)
			}
		}
	})
}

func TestWait(t *testing.T) {
	e := pipe(t)
	fds := []PollFd{{Fd: int32(e.r), Events: unix.POLLIN}}
	for _, µs := range []time.Duration{0, 1, 300, 1000, 5000, 40000} {
		d := µs * time.Microsecond
		start := time.Now()
		n, err := Wait(fds, d)
		// A signal may end it early; that must be rare, so here it counts.
		if took := time.Since(start); n != 0 || err != nil || took < d/2 || took > d+time.Second {
			t.Errorf("Wait %v: %d, %v after %v", d, n, err, took)
		}
	}
	for _, d := range []time.Duration{Forever, time.Hour, 100 * time.Millisecond} {
		time.AfterFunc(5*time.Millisecond, func() { send(t, e.w, "x") })
		if n, err := Wait(fds, d); n != 1 || err != nil || fds[0].Revents != unix.POLLIN {
			t.Errorf("Wait %v: %d, %v, %x", d, n, err, fds[0].Revents)
		}
		if _, err := unix.Read(e.r, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := Wait(nil, time.Millisecond); n != 0 || err != nil {
		t.Errorf("Wait for nothing: %d, %v", n, err)
	}
}

// A wait lets go of its P after a while, so that the collector and other
// goroutines of the process have their turn.
func TestWaitYields(t *testing.T) {
	e := pipe(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the hardest case
	done := make(chan error, 1)
	go func() {
		_, err := Wait([]PollFd{{Fd: int32(e.r), Events: unix.POLLIN}}, Forever)
		done <- err
	}()
	time.Sleep(2 * time.Millisecond)
	start := time.Now()
	for range 3 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("three collections took %v beside a wait", d)
	}
	send(t, e.w, "x")
	must(t, <-done)
}

// The reader of the output leaves: noticed by a read that waits for input, by one that has
// some, and by a write.
func TestReaderGone(t *testing.T) {
	pairs(t, func(t *testing.T, in, out *ends) {
		o := NewOutput(out.w)
		tee := NewTeeStream(in.r, o)
		closeSoon(&out.r)
		b := make([]byte, 10)
		for _, s := range []io.Reader{tee, NewStream(in.r, out.w)} {
			if n, err := s.Read(b); n != 0 || err != ErrReaderGone {
				t.Errorf("Read of %T: %d, %v", s, n, err)
			}
		}
		send(t, in.w, "hello")
		if n, err := tee.Read(b); n != 0 || err != ErrReaderGone {
			t.Errorf("Read with input: %d, %v", n, err)
		}
		for _, o := range []*Output{o, NewOutput(out.w)} {
			if n, err := o.Write([]byte("x")); n != 0 || err != ErrReaderGone {
				t.Errorf("Write: %d, %v", n, err)
			}
			if err := o.Writev([][]byte{[]byte("x"), []byte("y")}); err != ErrReaderGone {
				t.Errorf("Writev: %v", err)
			}
		}
	})
}

func TestRegularFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	must(t, err)
	defer f.Close()
	want := packettest.Bytes(200000)
	out, s := NewOutput(int(f.Fd())), NewStream(int(f.Fd()), -1)
	_, err = out.Write(want[:100000])
	must(t, errors.Join(err, out.Writev([][]byte{want[100000:150000], want[150000:]})))
	_, err = f.Seek(0, io.SeekStart)
	must(t, err)
	if got, err := io.ReadAll(s); err != nil || !s.Regular() || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v, regular %v", len(got), err, s.Regular())
	}
}

func TestAllocates(t *testing.T) {
	kinds(t, func(t *testing.T, e *ends) {
		out, s := NewOutput(e.w), NewStream(e.r, e.w)
		b, c, v := make([]byte, 100), make([]byte, 1000), make([][]byte, 2)
		n := testing.AllocsPerRun(200, func() {
			v[0], v[1] = b, b
			_, err := out.Write(b)
			must(t, err)
			must(t, out.Writev(v))
			for m := 0; m < 300; {
				n, err := s.Read(c)
				must(t, err)
				m += n
			}
			s.Timeout = 0
			if _, err := s.Read(c); err != os.ErrDeadlineExceeded {
				t.Fatal(err)
			}
			s.Timeout = Forever
		})
		if n != 0 {
			t.Errorf("%v allocations a round", n)
		}
	})
}
