package fdio

import (
	"bytes"
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

// What is asked with RWF_NOWAIT, and what is not.
func TestKinds(t *testing.T) {
	want := map[string]kind{"pipe": nowait, "non-blocking pipe": nowait, "socket": nowait, "non-blocking socket": nowait, "fifo": plain}
	kinds(t, func(t *testing.T, e *ends) {
		in, out := NewInput(e.r), NewOutput(e.w)
		if _, err := in.TryRead(make([]byte, 1)); err != unix.EAGAIN {
			t.Errorf("TryRead: %v", err)
		}
		if _, err := out.Write([]byte("x")); err != nil {
			t.Errorf("Write: %v", err)
		}
		b := make([]byte, 2)
		if n, err := in.TryRead(b); n != 1 || b[0] != 'x' || err != nil {
			t.Errorf("TryRead: %d, %v", n, err)
		}
		for name, k := range want {
			if t.Name() == "TestKinds/"+name || t.Name() == "TestKinds/"+rewritten(name) {
				if in.kind != k || out.kind != k {
					t.Logf("kinds %d and %d, want %d: a kernel before 6.4?", in.kind, out.kind, k)
				}
			}
		}
	})
}

func rewritten(name string) string {
	return string(bytes.ReplaceAll([]byte(name), []byte(" "), []byte("_")))
}

func TestSpliceTee(t *testing.T) {
	a, b, c := pipe(t), pipe(t), pipe(t)
	defer a.closeBoth()
	defer b.closeBoth()
	defer c.closeBoth()
	before := flags(t, a.r, a.w, b.r, b.w, c.r, c.w)
	for name, f := range map[string]func(in, out, n int) (int, error){"Splice": Splice, "Tee": Tee} {
		if n, err := f(a.r, b.w, 100); n != 0 || err != unix.EAGAIN {
			t.Errorf("%s of nothing: %d, %v", name, n, err)
		}
	}
	if _, err := unix.Write(a.w, []byte("hello, world")); err != nil {
		t.Fatal(err)
	}
	if n, err := Tee(a.r, c.w, 5); n != 5 || err != nil {
		t.Errorf("Tee: %d, %v", n, err)
	}
	if n, err := Splice(a.r, b.w, 7); n != 7 || err != nil {
		t.Errorf("Splice: %d, %v", n, err)
	}
	// An end that was spliced takes RWF_NOWAIT no more; Input and Output find
	// another way.
	for _, tt := range []struct {
		fd   int
		want string
	}{{a.r, "world"}, {b.r, "hello, "}, {c.r, "hello"}} {
		p := make([]byte, 100)
		in := NewInput(tt.fd)
		if n, err := in.TryRead(p); string(p[:n]) != tt.want || err != nil {
			t.Errorf("%q, %v, want %q", p[:n], err, tt.want)
		}
		if n, err := in.TryRead(p); n != 0 || err != unix.EAGAIN {
			t.Errorf("then %d, %v", n, err)
		}
	}
	if n, err := NewOutput(b.w).Write([]byte("more")); n != 4 || err != nil {
		t.Errorf("Write after Splice: %d, %v", n, err)
	}
	if after := flags(t, a.r, a.w, b.r, b.w, c.r, c.w); len(after) != 6 {
		t.Error(after)
	} else {
		for i := range after {
			if after[i] != before[i] {
				t.Errorf("the flags are %x, were %x", after, before)
			}
		}
	}

	full := stuff(t, c.w)
	if _, err := unix.Write(a.w, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(in, out, n int) (int, error){"Splice": Splice, "Tee": Tee} {
		if n, err := f(a.r, c.w, 100); n != 0 || err != unix.EAGAIN {
			t.Errorf("%s into a full pipe: %d, %v", name, n, err)
		}
	}
	closeFd(&b.r)
	for name, f := range map[string]func(in, out, n int) (int, error){"Splice": Splice, "Tee": Tee} {
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
	for name, f := range map[string]func(in, out, n int) (int, error){"Splice": Splice, "Tee": Tee} {
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
