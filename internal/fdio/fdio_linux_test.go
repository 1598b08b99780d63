package fdio

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"framepipe/internal/packettest"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestGrow(t *testing.T) {
	e := pipe(t)
	Grow(e.r)
	switch size := fcntl(t, e.w, unix.F_GETPIPE_SZ); {
	case size < 4096:
		t.Errorf("the pipe has %d bytes", size)
	case size != PipeSize:
		t.Logf("NOT GROWN: the pipe has %d bytes; over fs.pipe-user-pages-soft?", size)
	}
	// One that is larger stays so. Only root may have it.
	if big, err := unix.FcntlInt(uintptr(e.w), unix.F_SETPIPE_SZ, 2*PipeSize); err == nil {
		Grow(e.w)
		if size := fcntl(t, e.w, unix.F_GETPIPE_SZ); size != big {
			t.Errorf("a pipe of %d bytes has %d after Grow", big, size)
		}
	}
}

// A pipe is opened anew, once: the other process's description stays as it is, and what the
// descriptor is open for, and inherited for, stays, too.
func TestPrivate(t *testing.T) {
	kinds(t, func(t *testing.T, e *ends) {
		unix.CloseOnExec(e.w)
		unchanged(t, e.r, e.w)
		in, out := NewStream(e.r, -1), NewOutput(e.w)
		for _, tt := range []struct {
			fd, mode, inherited int
			kind                kind
		}{{e.r, unix.O_RDONLY, 0, in.kind}, {e.w, unix.O_WRONLY, unix.FD_CLOEXEC, out.kind}} {
			f := fcntl(t, tt.fd, unix.F_GETFL) & (unix.O_NONBLOCK | unix.O_ACCMODE)
			switch {
			case strings.Contains(t.Name(), "socket"):
				if tt.kind != plain {
					t.Errorf("kind %d", tt.kind)
				}
			case tt.kind != private || f != unix.O_NONBLOCK|tt.mode:
				t.Errorf("kind %d, flags %x", tt.kind, f)
			}
			if f := fcntl(t, tt.fd, unix.F_GETFD); f != tt.inherited {
				t.Errorf("descriptor flags %x, want %x", f, tt.inherited)
			}
		}
	})
	// A fifo for both directions, as of the shell's <>, does not end when others close it.
	name := t.TempDir() + "/fifo"
	must(t, unix.Mkfifo(name, 0o600))
	fd, err := unix.Open(name, unix.O_RDWR, 0)
	must(t, err)
	defer unix.Close(fd)
	if n, err := tryRead(fd, make([]byte, 1)); n != 0 || err != os.ErrDeadlineExceeded {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := NewOutput(fd).Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// Writev writes its spans one after the other, however few bytes go at once.
func TestWritev(t *testing.T) {
	all := packettest.Bytes(1 << 20)
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 5000), rapid.IntRange(0, 20000))
		sizes := rapid.SliceOfN(size, 0, 150).Draw(rt, "sizes")
		e := pipe(t)
		_, _ = unix.FcntlInt(uintptr(e.w), unix.F_SETPIPE_SZ, 4096) // as small as it gets, so that writes are cut
		got := drain(e.r)
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
		closeFd(&e.r)
	})
}

// Splice and Skip move bytes past the reader, up to the end of the input.
func TestSpliceSkip(t *testing.T) {
	in, out := pipe(t), pipe(t)
	to := NewOutput(out.w)
	s := NewTeeStream(in.r, to)
	send(t, in.w, "hello, world")
	must(t, s.Splice(to, 7))
	must(t, s.Skip(3))
	p := make([]byte, 100)
	for fd, want := range map[io.Reader]string{s: "ld", NewStream(out.r, -1): "hello, world"} {
		if n, err := fd.Read(p); string(p[:n]) != want || err != nil {
			t.Errorf("%q, %v, want %q", p[:n], err, want)
		}
	}
	stuff(t, out.w)
	send(t, in.w, "x")
	closeSoon(&out.r)
	if err := s.Splice(to, 1); err != ErrReaderGone {
		t.Errorf("Splice into a full pipe, whose reader goes: %v", err)
	}
	out = pipe(t)
	s = NewTeeStream(in.r, NewOutput(out.w))
	must(t, s.Skip(1))
	closeFd(&in.w)
	if a, b := s.Skip(1), s.Splice(NewOutput(out.w), 1); a != io.EOF || b != io.EOF {
		t.Errorf("at the end: %v, %v", a, b)
	}
	if !IsPipe(in.r) || IsPipe(socket(t).r) {
		t.Error("IsPipe")
	}
}
