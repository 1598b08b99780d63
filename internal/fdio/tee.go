package fdio

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// TeeStream is a Stream that passes on every byte before Read returns it. Between
// pipes the kernel passes on references to its pages (tee(2)): 64 KiB cost 0.9 µs,
// compared with 15 µs for a write.
type TeeStream struct {
	*Stream
	out  *Output
	null *Output // takes the bytes that are not read; nil if not between pipes
	owed int     // bytes passed on by tee and not yet read
}

// NewTeeStream returns a TeeStream from in to out. Between pipes it opens /dev/null, for Skip.
func NewTeeStream(in int, out *Output) *TeeStream {
	t := &TeeStream{Stream: NewStream(in, out.fd), out: out}
	if IsPipe(in) && IsPipe(out.fd) {
		if fd, err := unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			t.null = NewOutput(fd)
		}
	}
	return t
}

// Read is Stream's Read. It passes on the data unchanged before it returns.
func (t *TeeStream) Read(p []byte) (int, error) {
	if t.null == nil {
		n, err := t.Stream.Read(p)
		if n > 0 {
			if _, err := t.out.Write(p[:n]); err != nil {
				return 0, err
			}
		}
		return n, err
	}
	if err := t.pass(t.Timeout); err != nil {
		return 0, err
	}
	n, err := t.Stream.Read(p[:min(len(p), t.owed)])
	t.owed -= n
	return n, err
}

// pass duplicates the available data to the output, once all that was duplicated before has been
// read: tee does not consume it, and would duplicate it again.
func (t *TeeStream) pass(timeout time.Duration) (err error) {
	if t.owed == 0 {
		t.owed, err = t.move(tee, t.out, PipeSize, timeout)
	}
	return err
}

// Skips reports whether Skip is available, which is cheaper than Read.
func (t *TeeStream) Skips() bool { return t.null != nil }

// Skip passes on the next n bytes without reading them. The error is io.EOF if the input ends
// before.
func (t *TeeStream) Skip(n int) error {
	for n > 0 {
		if err := t.pass(Forever); err != nil {
			return err
		}
		m := min(n, t.owed)
		if err := t.Splice(t.null, m); err != nil {
			return err
		}
		n -= m
		t.owed -= m
	}
	return nil
}
