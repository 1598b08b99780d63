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
	"pgregory.net/rapid"
)

// ends are the two ends of something that bytes flow through.
type ends struct{ r, w int }

// failer is what testing.T and rapid.T have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func pipe(t failer) ends {
	t.Helper()
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		t.Fatal(err)
	}
	return ends{p[0], p[1]}
}

func socket(t failer) ends {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ends{p[0], p[1]}
}

// fifo is a named pipe, which on Linux takes other calls than pipe(2)'s.
func fifo(t *testing.T) ends {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	// Non-blocking so that open does not wait for the other side.
	r, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := unix.Open(name, unix.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(r, false); err != nil {
		t.Fatal(err)
	}
	return ends{r, w}
}

func nonblocking(t failer, e ends) ends {
	t.Helper()
	for _, fd := range []int{e.r, e.w} {
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// closeBoth closes what has not been closed and set to -1.
func (e *ends) closeBoth() { closeFd(&e.r); closeFd(&e.w) }

func closeFd(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}

// makers are all that bytes flow through.
var makers = []struct {
	name string
	make func(t *testing.T) ends
}{
	{"pipe", func(t *testing.T) ends { return pipe(t) }},
	{"non-blocking pipe", func(t *testing.T) ends { return nonblocking(t, pipe(t)) }},
	{"socket", func(t *testing.T) ends { return socket(t) }},
	{"non-blocking socket", func(t *testing.T) ends { return nonblocking(t, socket(t)) }},
	{"fifo", fifo},
}

// kinds runs a test over each of them.
func kinds(t *testing.T, test func(t *testing.T, e *ends)) {
	for _, k := range makers {
		t.Run(k.name, func(t *testing.T) {
			e := k.make(t)
			t.Cleanup(e.closeBoth)
			test(t, &e)
		})
	}
}

// pairs runs a test over every two of them.
func pairs(t *testing.T, test func(t *testing.T, in, out *ends)) {
	for _, k := range makers {
		kinds(t, func(t *testing.T, out *ends) {
			t.Run("from "+k.name, func(t *testing.T) {
				in := k.make(t)
				t.Cleanup(in.closeBoth)
				test(t, &in, out)
			})
		})
	}
}

// unchanged notes the flags of descriptors that another process shares. What it returns
// fails the test if they have changed.
func unchanged(t *testing.T, fds ...int) (check func()) {
	t.Helper()
	flags := func(fd int) int {
		f, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	var other, before []int
	for _, fd := range fds {
		d, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		other, before = append(other, d), append(before, flags(fd))
	}
	return func() {
		t.Helper()
		for i, d := range other {
			if after := flags(d); after != before[i] {
				t.Errorf("the flags are %x, were %x", after, before[i])
			}
			unix.Close(d)
		}
	}
}

// within runs f and fails if it takes longer than a second or two.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		t.Fatalf("%s: not done after 3 s", what)
	}
}

// drain reads all of fd, slowly: a few bytes at first, with pauses.
func drain(fd int) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		var all []byte
		b := make([]byte, 50000)
		for i := 0; ; i++ {
			p := b
			if i < 20 {
				p = b[:1+i*37]
				time.Sleep(time.Millisecond)
			}
			n, err := unix.Read(fd, p)
			if err == unix.EAGAIN || err == unix.EINTR {
				time.Sleep(100 * time.Microsecond)
				continue
			}
			if n <= 0 {
				got <- all
				return
			}
			all = append(all, p[:n]...)
		}
	}()
	return got
}

func TestRoundTrip(t *testing.T) {
	want := packettest.Bytes(3 << 20) // more than any of them holds
	kinds(t, func(t *testing.T, e *ends) {
		check := unchanged(t, e.r)
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
		go func() {
			n, err := out.Write(want)
			if n != len(want) || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			unix.Close(w)
		}()
		var got []byte
		var err error
		within(t, "reading", func() { got, err = io.ReadAll(s) })
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes and %v, want %d", len(got), err, len(want))
		}
		e.w = -1
		for _, s.Timeout = range []time.Duration{0, Forever} {
			if n, err := s.Read(make([]byte, 10)); n != 0 || err != io.EOF {
				t.Errorf("Read at the end: %d, %v", n, err)
			}
		}
		check()
	})
}

// A write that is larger than what fits, to a reader that is slow.
func TestWriteSlowReader(t *testing.T) {
	want := packettest.Bytes(300000)
	kinds(t, func(t *testing.T, e *ends) {
		check := unchanged(t, e.w)
		got := drain(e.r)
		out := NewOutput(e.w)
		within(t, "writing", func() {
			if n, err := out.Write(want[:200000]); n != 200000 || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			if err := out.Writev([][]byte{want[200000:200001], nil, want[200001:290000], want[290000:]}); err != nil {
				t.Errorf("Writev: %v", err)
			}
		})
		check()
		closeFd(&e.w)
		if b := <-got; !bytes.Equal(b, want) {
			t.Errorf("%d bytes arrived, want %d", len(b), len(want))
		}
	})
}

// Writev writes its spans one after the other, however few bytes go at once.
func TestWritev(t *testing.T) {
	all := packettest.Bytes(1 << 20)
	rapid.Check(t, func(rt *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 5000), rapid.IntRange(0, 20000)), 0, 150).Draw(rt, "sizes")
		e := pipe(rt)
		defer e.closeBoth()
		shrink(e.w)
		got := drainFast(e.r)
		var spans [][]byte
		n := 0
		for _, size := range sizes {
			size = min(size, len(all)-n)
			spans = append(spans, all[n:n+size])
			n += size
		}
		if err := NewOutput(e.w).Writev(spans); err != nil {
			rt.Fatal(err)
		}
		closeFd(&e.w)
		if b := <-got; !bytes.Equal(b, all[:n]) {
			rt.Fatalf("%d bytes arrived, want %d", len(b), n)
		}
	})
}

// tryRead reads without waiting.
func tryRead(fd int, p []byte) (int, error) {
	s := NewStream(fd, -1)
	s.Timeout = 0
	return s.Read(p)
}

func drainFast(fd int) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		var all []byte
		b := make([]byte, 3000)
		for {
			n, err := unix.Read(fd, b)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				got <- all
				return
			}
			all = append(all, b[:n]...)
		}
	}()
	return got
}

func TestWait(t *testing.T) {
	e := pipe(t)
	defer e.closeBoth()
	fds := []PollFd{{Fd: int32(e.r), Events: unix.POLLIN}}
	for _, d := range []time.Duration{0, time.Microsecond, 300 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 40 * time.Millisecond} {
		start := time.Now()
		n, err := Wait(fds, d)
		took := time.Since(start)
		if n != 0 || err != nil {
			t.Errorf("Wait %v: %d, %v", d, n, err)
		}
		// A signal may end it early; that must be rare, so here it counts.
		if took < d/2 || took > d+time.Second {
			t.Errorf("Wait %v took %v", d, took)
		}
	}
	for _, d := range []time.Duration{Forever, time.Hour, 100 * time.Millisecond} {
		w := e.w
		time.AfterFunc(5*time.Millisecond, func() { _, _ = unix.Write(w, []byte("x")) })
		within(t, "waiting", func() {
			if n, err := Wait(fds, d); n != 1 || err != nil || fds[0].Revents != unix.POLLIN {
				t.Errorf("Wait %v: %d, %v, %x", d, n, err, fds[0].Revents)
			}
		})
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
	defer e.closeBoth()
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
	if _, err := unix.Write(e.w, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStreamWait(t *testing.T) {
	e, o := pipe(t), pipe(t)
	defer e.closeBoth()
	defer o.closeBoth()
	s := NewStream(e.r, o.w)
	if err := s.wait(time.Millisecond); err != os.ErrDeadlineExceeded {
		t.Errorf("nothing: %v", err)
	}
	if _, err := unix.Write(e.w, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(Forever); err != nil {
		t.Errorf("a byte: %v", err)
	}
	closeFd(&o.r)
	if err := s.wait(Forever); err != ErrReaderGone {
		t.Errorf("no reader: %v", err)
	}
}

// The reader of the output leaves: noticed by a Read that waits for input, and
// by a write.
func TestReaderGone(t *testing.T) {
	kinds(t, func(t *testing.T, out *ends) {
		in := pipe(t)
		defer in.closeBoth()
		s := NewStream(in.r, out.w)
		r := out.r
		out.r = -1
		time.AfterFunc(10*time.Millisecond, func() { unix.Close(r) })
		within(t, "Read", func() {
			if n, err := s.Read(make([]byte, 10)); n != 0 || err != ErrReaderGone {
				t.Errorf("Read: %d, %v", n, err)
			}
		})
		o := NewOutput(out.w)
		if n, err := o.Write([]byte("x")); n != 0 || err != ErrReaderGone {
			t.Errorf("Write: %d, %v", n, err)
		}
		if err := o.Writev([][]byte{[]byte("x"), []byte("y")}); err != ErrReaderGone {
			t.Errorf("Writev: %v", err)
		}
	})
}

// The same of a write that waits for room.
func TestReaderGoneWhileFull(t *testing.T) {
	kinds(t, func(t *testing.T, e *ends) {
		r := e.r
		e.r = -1
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_, _ = Wait([]PollFd{{Fd: int32(r), Events: unix.POLLIN}}, 5*time.Second)
			time.Sleep(10 * time.Millisecond) // by now it is full
			unix.Close(r)
		}()
		within(t, "Write", func() {
			if n, err := NewOutput(e.w).Write(make([]byte, 8<<20)); err != ErrReaderGone || n == 0 {
				t.Errorf("%d, %v", n, err)
			}
		})
		<-closed
	})
}

// What is there is read before the end is told, with and without a watch on
// the output.
func TestReadBeforeEnd(t *testing.T) {
	kinds(t, func(t *testing.T, e *ends) {
		o := pipe(t)
		defer o.closeBoth()
		if _, err := unix.Write(e.w, []byte("last words")); err != nil {
			t.Fatal(err)
		}
		closeFd(&e.w)
		s := NewStream(e.r, o.w)
		b := make([]byte, 100)
		if n, err := s.Read(b); string(b[:n]) != "last words" || err != nil {
			t.Errorf("%q, %v", b[:n], err)
		}
		for range 2 {
			if n, err := s.Read(b); n != 0 || err != io.EOF {
				t.Errorf("%d, %v, want the end", n, err)
			}
		}
	})
}

func TestRegularFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	w, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	want := packettest.Bytes(200000)
	out := NewOutput(int(w.Fd()))
	if n, err := out.Write(want[:100000]); n != 100000 || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	if err := out.Writev([][]byte{want[100000:150000], want[150000:]}); err != nil {
		t.Errorf("Writev: %v", err)
	}
	r, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := NewStream(int(r.Fd()), int(w.Fd()))
	if !s.Regular() {
		t.Error("not taken for a regular file")
	}
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestDevNull(t *testing.T) {
	f, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	check := unchanged(t, fd)
	Grow(fd)
	within(t, "/dev/null", func() {
		if n, err := NewStream(fd, fd).Read(make([]byte, 10)); n != 0 || err != io.EOF {
			t.Errorf("Read: %d, %v", n, err)
		}
		out := NewOutput(fd)
		if n, err := out.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil {
			t.Errorf("Write: %d, %v", n, err)
		}
		if err := out.Writev([][]byte{make([]byte, 10), make([]byte, 1<<20)}); err != nil {
			t.Errorf("Writev: %v", err)
		}
	})
	check()
}

// A descriptor that is none is an error, and nothing to wait for.
func TestBadDescriptor(t *testing.T) {
	e := pipe(t)
	fd := e.r
	e.closeBoth()
	within(t, "closed descriptors", func() {
		if _, err := NewStream(fd, -1).Read(make([]byte, 1)); !errors.Is(err, unix.EBADF) {
			t.Errorf("Read: %v", err)
		}
		if _, err := NewOutput(fd).Write([]byte("x")); !errors.Is(err, unix.EBADF) {
			t.Errorf("Write: %v", err)
		}
		if err := NewOutput(fd).Writev([][]byte{[]byte("x"), []byte("y")}); !errors.Is(err, unix.EBADF) {
			t.Errorf("Writev: %v", err)
		}
		Grow(fd)
		if IsPipe(fd) {
			t.Error("it is no pipe")
		}
	})
}

func TestAllocates(t *testing.T) {
	kinds(t, func(t *testing.T, e *ends) {
		out, s := NewOutput(e.w), NewStream(e.r, e.w)
		b, c, v := make([]byte, 100), make([]byte, 1000), make([][]byte, 2)
		n := testing.AllocsPerRun(200, func() {
			v[0], v[1] = b, b
			if _, err := out.Write(b); err != nil {
				t.Fatal(err)
			}
			if err := out.Writev(v); err != nil {
				t.Fatal(err)
			}
			for m := 0; m < 300; {
				n, err := s.Read(c)
				if err != nil {
					t.Fatal(err)
				}
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
