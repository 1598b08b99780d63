package fdio

import (
	"io"
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
	tee  bool
	null *Output // takes the bytes that are not read
	owed int     // bytes passed on by tee and not yet read
}

// NewTeeStream returns a TeeStream from in to out. Between pipes it opens /dev/null, for Skip.
func NewTeeStream(in int, out *Output) *TeeStream {
	t := &TeeStream{Stream: NewStream(in, out.fd), out: out, tee: IsPipe(in) && IsPipe(out.fd)}
	if t.tee {
		if fd, err := unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			t.null = NewOutput(fd)
		}
	}
	return t
}

// Read is Stream's Read. It passes on the data unchanged before it returns.
func (t *TeeStream) Read(p []byte) (int, error) {
	if !t.tee {
		n, err := t.Stream.Read(p)
		if n > 0 {
			if _, err := t.out.Write(p[:n]); err != nil {
				return 0, err
			}
		}
		return n, err
	}
	if t.owed == 0 {
		if err := t.pass(); err != nil {
			return 0, err
		}
	}
	n, err := t.Stream.Read(p[:min(len(p), t.owed)])
	t.owed -= n
	return n, err
}

// pass duplicates the available data to the output. All of the data must be read
// before the next call: tee does not consume it, and would duplicate it again.
func (t *TeeStream) pass() error {
	for waited := false; ; waited = !waited {
		n, err := Tee(t.fd, t.out.fd, PipeSize)
		switch {
		case err == nil && n > 0:
			t.owed = n
			t.out.written += int64(n)
			return nil
		case err == nil:
			return io.EOF
		case err == unix.EINTR:
			waited = !waited
			continue
		case err == unix.EPIPE:
			return ErrReaderGone
		case err != unix.EAGAIN:
			return err
		}
		// The input is empty or the output full. Wait for the input first: a wait
		// for room on an empty input would miss the end of the input.
		if !waited {
			if err := t.wait(t.Timeout); err != nil {
				return err
			}
			continue
		}
		if err := t.out.await(); err != nil {
			return err
		}
	}
}

// Skips reports whether Skip is cheaper than Read.
func (t *TeeStream) Skips() bool { return t.tee && t.null != nil }

// Skip passes on the next n bytes without reading them. The error is io.ErrUnexpectedEOF if
// the input ends before.
func (t *TeeStream) Skip(n int) error {
	defer func(timeout time.Duration) { t.Timeout = timeout }(t.Timeout)
	t.Timeout = Forever
	for n > 0 {
		if t.owed == 0 {
			err := t.pass()
			if err == io.EOF {
				return io.ErrUnexpectedEOF
			}
			if err != nil {
				return err
			}
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
