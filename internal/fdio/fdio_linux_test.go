package fdio

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// shrink makes a pipe as small as it gets, so that writes are cut.
func shrink(fd int) { _, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 4096) }

func TestGrow(t *testing.T) {
	e := pipe(t)
	defer e.closeBoth()
	Grow(e.r)
	size, err := unix.FcntlInt(uintptr(e.w), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	if size != PipeSize {
		t.Logf("NOT GROWN: the pipe has %d bytes; over fs.pipe-user-pages-soft?", size)
	}
	if size < 4096 {
		t.Errorf("the pipe has %d bytes", size)
	}
	// One that is larger stays so. Only root may have it.
	if big, err := unix.FcntlInt(uintptr(e.w), unix.F_SETPIPE_SZ, 2*PipeSize); err == nil {
		Grow(e.w)
		if size, err := unix.FcntlInt(uintptr(e.w), unix.F_GETPIPE_SZ, 0); size != big || err != nil {
			t.Errorf("a pipe of %d bytes has %d after Grow (%v)", big, size, err)
		}
	}
}

// A pipe is opened anew, once: the other process's description stays as it is, and what the
// descriptor is open for, and inherited for, stays, too.
func TestPrivate(t *testing.T) {
	anew := map[string]bool{"pipe": true, "non-blocking pipe": true, "fifo": true}
	for _, k := range makers {
		t.Run(k.name, func(t *testing.T) {
			e := k.make(t)
			defer e.closeBoth()
			unix.CloseOnExec(e.w)
			check := unchanged(t, e.r, e.w)
			in, out := NewStream(e.r, -1), NewOutput(e.w)
			for _, tt := range []struct {
				fd, mode, inherited int
				kind                kind
			}{{e.r, unix.O_RDONLY, 0, in.kind}, {e.w, unix.O_WRONLY, unix.FD_CLOEXEC, out.kind}} {
				if (tt.kind == private) != anew[k.name] {
					t.Errorf("kind %d", tt.kind)
				}
				f, err := unix.FcntlInt(uintptr(tt.fd), unix.F_GETFL, 0)
				if anew[k.name] && (err != nil || f&unix.O_NONBLOCK == 0 || f&unix.O_ACCMODE != tt.mode) {
					t.Errorf("flags %x, %v", f, err)
				}
				if f, err := unix.FcntlInt(uintptr(tt.fd), unix.F_GETFD, 0); f != tt.inherited || err != nil {
					t.Errorf("descriptor flags %x, want %x", f, tt.inherited)
				}
			}
			check()
		})
	}
	// A fifo for both directions, as of the shell's <>, does not end when others close it.
	name := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(name, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if n, err := tryRead(fd, make([]byte, 1)); n != 0 || err != os.ErrDeadlineExceeded {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := NewOutput(fd).Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestSpliceTee(t *testing.T) {
	a, b, c := pipe(t), pipe(t), pipe(t)
	defer a.closeBoth()
	defer b.closeBoth()
	defer c.closeBoth()
	for name, f := range map[string]func(in, out, n int) (int, error){"splice": splice, "tee": tee} {
		if n, err := f(a.r, b.w, 100); n != 0 || err != unix.EAGAIN {
			t.Errorf("%s of nothing: %d, %v", name, n, err)
		}
	}
	if _, err := unix.Write(a.w, []byte("hello, world")); err != nil {
		t.Fatal(err)
	}
	if n, err := tee(a.r, c.w, 5); n != 5 || err != nil {
		t.Errorf("tee: %d, %v", n, err)
	}
	if n, err := splice(a.r, b.w, 7); n != 7 || err != nil {
		t.Errorf("splice: %d, %v", n, err)
	}
	for _, tt := range []struct {
		fd   int
		want string
	}{{a.r, "world"}, {b.r, "hello, "}, {c.r, "hello"}} {
		p := make([]byte, 100)
		if n, err := tryRead(tt.fd, p); string(p[:n]) != tt.want || err != nil {
			t.Errorf("%q, %v, want %q", p[:n], err, tt.want)
		}
		if n, err := tryRead(tt.fd, p); n != 0 || err != os.ErrDeadlineExceeded {
			t.Errorf("then %d, %v", n, err)
		}
	}
	if n, err := NewOutput(b.w).Write([]byte("more")); n != 4 || err != nil {
		t.Errorf("Write after Splice: %d, %v", n, err)
	}
	full := stuff(t, c.w)
	if _, err := unix.Write(a.w, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(in, out, n int) (int, error){"splice": splice, "tee": tee} {
		if n, err := f(a.r, c.w, 100); n != 0 || err != unix.EAGAIN {
			t.Errorf("%s into a full pipe: %d, %v", name, n, err)
		}
	}
	closeFd(&b.r)
	for name, f := range map[string]func(in, out, n int) (int, error){"splice": splice, "tee": tee} {
		if n, err := f(a.r, b.w, 100); n != 0 || err != unix.EPIPE {
			t.Errorf("%s without a reader: %d, %v", name, n, err)
		}
	}
	// The end of the input is told where there is room in the output.
	for fd, n := range map[int]int{a.r: 1, c.r: full} {
		if _, err := unix.Read(fd, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	closeFd(&a.w)
	for name, f := range map[string]func(in, out, n int) (int, error){"splice": splice, "tee": tee} {
		if n, err := f(a.r, c.w, 100); n != 0 || err != nil {
			t.Errorf("%s at the end: %d, %v", name, n, err)
		}
	}
	s := socket(t)
	defer s.closeBoth()
	if !IsPipe(a.r) || IsPipe(s.r) {
		t.Error("IsPipe")
	}
}
