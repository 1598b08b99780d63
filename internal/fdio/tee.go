package fdio

import (
	"io"

	"golang.org/x/sys/unix"
)

// TeeStream is a Stream whose every byte has been passed on by the time that
// Read returns it. Between pipes the kernel passes on references to its pages
// (tee(2)): 64 KiB cost 0.9 µs that way, and 15 µs written again.
type TeeStream struct {
	*Stream
	out  *Output
	tee  bool
	owed int // passed on by tee, and not read yet
}

// NewTeeStream returns a TeeStream from in to out.
func NewTeeStream(in *Input, out *Output) *TeeStream {
	return &TeeStream{Stream: NewStream(in, out.fd), out: out, tee: IsPipe(in.fd) && IsPipe(out.fd)}
}

// Read is Stream's Read, and passes on what it reads, as it is and before it
// returns.
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
		if !t.tee {
			return t.Read(p)
		}
	}
	n, err := t.Stream.Read(p[:min(len(p), t.owed)])
	t.owed -= n
	return n, err
}

// pass duplicates what is there. It must all be read before the next call,
// since tee does not consume it.
func (t *TeeStream) pass() error {
	for waited := false; ; waited = !waited {
		n, err := Tee(t.in(), t.out.fd, PipeSize)
		switch {
		case err == nil && n > 0:
			t.owed = n
			return nil
		case err == nil:
			return io.EOF
		case err == unix.EINTR:
			waited = !waited
			continue
		case err == unix.EPIPE:
			return ErrReaderGone
		case err != unix.EAGAIN:
			t.tee = false // not these pipes
			return nil
		}
		// Nothing there, or no room. To wait for room while nothing is there
		// would not hear of the end of the input.
		if !waited {
			if ready, err := t.Wait(t.Timeout); err != nil || !ready {
				return late(err)
			}
			continue
		}
		full := [1]PollFd{{Fd: int32(t.out.fd), Events: unix.POLLOUT}}
		if _, err := Wait(full[:], Forever); err != nil {
			return err
		}
		if Broken(full[0]) {
			return ErrReaderGone
		}
	}
}

func (t *TeeStream) in() int { return t.Stream.fd }
