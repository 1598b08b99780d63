package fdio

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"framepipe/internal/packettest"

	"golang.org/x/sys/unix"
)

// Every byte has been passed on when Read returns it, all of them arrive, and
// the flags stay.
func TestTeeStream(t *testing.T) {
	want := packettest.Bytes(1 << 20)
	pairs(t, func(t *testing.T, in, out *ends) {
		check := unchanged(t, in.r, out.w, out.r)
		feed := in.w
		in.w = -1
		go func() {
			defer unix.Close(feed)
			_, _ = NewOutput(feed).Write(want)
		}()
		passed := drain(out.r)
		s := NewTeeStream(in.r, NewOutput(out.w))
		var got []byte
		var err error
		within(t, "reading", func() { got, err = io.ReadAll(s) })
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes and %v, want %d", len(got), err, len(want))
		}
		check()
		closeFd(&out.w)
		if p := <-passed; !bytes.Equal(p, want) {
			t.Errorf("passed on %d bytes, want %d", len(p), len(want))
		}
	})
}

// It is passed on first.
func TestTeeStreamOrder(t *testing.T) {
	kinds(t, func(t *testing.T, in *ends) {
		out := pipe(t)
		defer out.closeBoth()
		s := NewTeeStream(in.r, NewOutput(out.w))
		if _, err := unix.Write(in.w, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 3) // less than there is
		total := 0
		for total < 5 {
			n, err := s.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			total += n
			c := make([]byte, 10)
			m, err := tryRead(out.r, c)
			if err == os.ErrDeadlineExceeded {
				m = 0 // it had come with the first
			} else if err != nil {
				t.Fatal(err)
			}
			if total == n && m < n {
				t.Errorf("%d bytes read, %d passed on", n, m)
			}
		}
	})
}

func TestTeeStreamEnds(t *testing.T) {
	kinds(t, func(t *testing.T, in *ends) {
		out := pipe(t)
		defer out.closeBoth()
		s := NewTeeStream(in.r, NewOutput(out.w))
		r := out.r
		out.r = -1
		time.AfterFunc(10*time.Millisecond, func() { unix.Close(r) })
		within(t, "Read without a reader of the output", func() {
			if n, err := s.Read(make([]byte, 10)); n != 0 || err != ErrReaderGone {
				t.Errorf("%d, %v", n, err)
			}
		})
		if _, err := unix.Write(in.w, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(make([]byte, 10)); n != 0 || err != ErrReaderGone {
			t.Errorf("with input: %d, %v", n, err)
		}
	})
	kinds(t, func(t *testing.T, in *ends) {
		out := pipe(t)
		defer out.closeBoth()
		s := NewTeeStream(in.r, NewOutput(out.w))
		fd := in.w
		in.w = -1
		time.AfterFunc(10*time.Millisecond, func() { unix.Close(fd) })
		within(t, "Read at the end of the input", func() {
			if n, err := s.Read(make([]byte, 10)); n != 0 || err != io.EOF {
				t.Errorf("%d, %v", n, err)
			}
		})
	})
}

// With the output full, the end of its reader is noticed, and so is room.
func TestTeeStreamFull(t *testing.T) {
	in, out := pipe(t), pipe(t)
	defer in.closeBoth()
	defer out.closeBoth()
	if _, err := unix.Write(in.w, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	full := stuff(t, out.w)
	s := NewTeeStream(in.r, NewOutput(out.w))
	r := out.r
	time.AfterFunc(10*time.Millisecond, func() { _, _ = unix.Read(r, make([]byte, full)) })
	b := make([]byte, 10)
	within(t, "Read with the output full", func() {
		if n, err := s.Read(b); string(b[:n]) != "hello" || err != nil {
			t.Errorf("%q, %v", b[:n], err)
		}
	})
	stuff(t, out.w)
	if _, err := unix.Write(in.w, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	out.r = -1
	time.AfterFunc(10*time.Millisecond, func() { unix.Close(r) })
	within(t, "Read with the output full and its reader leaving", func() {
		if n, err := s.Read(b); n != 0 || err != ErrReaderGone {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// stuff fills a pipe and returns how much went in.
func stuff(t *testing.T, fd int) int {
	t.Helper()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	total := 0
	b := make([]byte, 4096)
	for {
		n, err := unix.Write(fd, b)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	return total
}
