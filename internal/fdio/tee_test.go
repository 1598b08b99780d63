package fdio

import (
	"bytes"
	"io"
	"testing"
	"time"

	"framepipe/internal/packettest"

	"golang.org/x/sys/unix"
)

// All bytes are read and passed on.
func TestTeeStream(t *testing.T) {
	want := packettest.Bytes(1 << 20)
	pairs(t, func(t *testing.T, in, out *ends) {
		unchanged(t, in.r)
		feed := in.w
		in.w = -1
		go func() {
			defer unix.Close(feed)
			_, _ = NewOutput(feed).Write(want)
		}()
		passed := drain(out.r)
		got, err := io.ReadAll(NewTeeStream(in.r, NewOutput(out.w)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes and %v, want %d", len(got), err, len(want))
		}
		closeFd(&out.w)
		if p := <-passed; !bytes.Equal(p, want) {
			t.Errorf("passed on %d bytes, want %d", len(p), len(want))
		}
	})
}

// Every byte has been passed on when Read returns it.
func TestTeeStreamOrder(t *testing.T) {
	pairs(t, func(t *testing.T, in, out *ends) {
		s := NewTeeStream(in.r, NewOutput(out.w))
		send(t, in.w, "hello")
		passed := 0
		for total := 0; total < 5; {
			n, err := s.Read(make([]byte, 3)) // less than there is
			must(t, err)
			total += n
			m, _ := tryRead(out.r, make([]byte, 10))
			if passed += m; passed < total {
				t.Errorf("%d bytes read, %d passed on", total, passed)
			}
		}
	})
}

// With the output full, room is noticed.
func TestTeeStreamFull(t *testing.T) {
	in, out := pipe(t), pipe(t)
	send(t, in.w, "hello")
	full := stuff(t, out.w)
	s := NewTeeStream(in.r, NewOutput(out.w))
	r := out.r
	time.AfterFunc(10*time.Millisecond, func() { _, _ = unix.Read(r, make([]byte, full)) })
	b := make([]byte, 10)
	if n, err := s.Read(b); string(b[:n]) != "hello" || err != nil {
		t.Errorf("%q, %v", b[:n], err)
	}
}
