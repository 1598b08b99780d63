// Package fdio reads, writes and waits on the descriptors a stage was born
// with: pipes as a rule, sometimes a file, a socket or a tap.
//
// Such a descriptor is shared: the shell, the neighbour stage and other
// children of the same parent hold the same open file description, and
// O_NONBLOCK is a flag of the description, not of the descriptor. So this
// package never sets it. Where the system can be asked per call not to block
// (preadv2 with RWF_NOWAIT on Linux), it is; elsewhere a poll comes first.
//
// On Linux the calls that cannot block are made without telling Go's
// scheduler (syscall.RawSyscall), and waiting is done in ppoll the same way
// for the first second. A pipeline of processes that wake each other
// thousands of times a second otherwise spends a third of its time in
// entersyscall, exitsyscall and the monitor thread that takes the processor
// away from a goroutine in a system call; and a ping through eight idle
// stages takes five times as long. A wait that lasts longer goes on as an
// ordinary system call, so that a stage without traffic costs nothing.
//
// A goroutine that waits so holds on to its P, one of GOMAXPROCS, and the
// signal by which the runtime preempts goroutines (SIGURG) is blocked, which
// would interrupt the wait every 10 ms. It gives others a turn twenty times a
// second: so long the collector, which has little to do here, may have to wait.
package fdio

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// PipeSize is what Grow asks for: 1 MiB, the most an unprivileged process may
// have (fs.pipe-max-size). Four 256 KiB batches fit.
const PipeSize = 1 << 20

// ErrReaderGone says that the other end of the output is closed. That is how a pipeline
// ends from downstream, and not a fault.
var ErrReaderGone = errors.New("the reader of the output has gone away")

// WriteError is the error of a write that waiting does not mend.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return e.Err.Error() }

// Unwrap returns the system's error.
func (e *WriteError) Unwrap() error { return e.Err }

// Forever is the timeout of a wait without one.
const Forever = time.Duration(-1)

// PollFd is one descriptor to wait for, as poll(2) has it.
type PollFd = unix.PollFd

// Input is a descriptor to read a stream from.
type Input struct {
	fd   int
	kind kind
}

type kind uint8

const (
	plain   kind = iota // a poll is needed before a read
	nowait              // takes RWF_NOWAIT
	regular             // a file: never blocks for long, and poll says nothing
)

// NewInput prepares fd for reading. It changes nothing about the descriptor.
func NewInput(fd int) *Input { return &Input{fd: fd, kind: inputKind(fd)} }

// NewDevice is NewInput for a character device. A read finds out whether its driver
// takes RWF_NOWAIT.
func NewDevice(fd int) *Input { return &Input{fd: fd, kind: deviceKind} }

// Fd returns the descriptor.
func (in *Input) Fd() int { return in.fd }

// Regular reports whether the input is a file on disk, which is read to its
// end without ever waiting.
func (in *Input) Regular() bool { return in.kind == regular }

// Output is a descriptor to write a stream to.
type Output struct {
	fd   int
	kind kind
	poll [1]PollFd
}

// NewOutput prepares fd for writing. It changes nothing about the descriptor.
func NewOutput(fd int) *Output { return &Output{fd: fd, kind: outputKind(fd)} }

// Fd returns the descriptor.
func (out *Output) Fd() int { return out.fd }

// Write writes all of p and blocks until it has. The error is ErrReaderGone
// when the other end is closed.
func (out *Output) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := out.tryWrite(p[done:])
		if err != nil {
			if err = out.blocked(err); err != nil {
				return done, err
			}
			continue
		}
		done += n
	}
	return done, nil
}

// Try writes as much of p as there is room for. The error says why it ended early:
// unix.EAGAIN if there is no more room. A fifo has to be open for non-blocking writing.
func (out *Output) Try(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var some int
		if some, err = out.tryWrite(p[n:]); err == unix.EINTR {
			err = nil
		}
		n += max(some, 0)
	}
	return n, err
}

// Writev writes the spans one after the other, as Write would their
// concatenation. The slice of spans is used up.
func (out *Output) Writev(spans [][]byte) error {
	for len(spans) > 0 {
		if len(spans[0]) == 0 {
			spans = spans[1:]
			continue
		}
		if len(spans) == 1 {
			_, err := out.Write(spans[0])
			return err
		}
		n, err := out.tryWritev(spans)
		if err != nil {
			if err = out.blocked(err); err != nil {
				return err
			}
			continue
		}
		for n > 0 && n >= len(spans[0]) {
			n -= len(spans[0])
			spans = spans[1:]
		}
		if n > 0 {
			spans[0] = spans[0][n:]
		}
	}
	return nil
}

// blocked waits for a descriptor that was full, and returns any other error of a write.
func (out *Output) blocked(err error) error {
	switch err {
	case unix.EINTR:
		return nil
	case unix.EAGAIN:
		out.poll[0] = PollFd{Fd: int32(out.fd), Events: unix.POLLOUT}
		_, err := Wait(out.poll[:], Forever)
		return err
	case unix.EPIPE, unix.ECONNRESET:
		return ErrReaderGone
	}
	return &WriteError{err}
}

// Regular reports whether the output is a file on disk.
func (out *Output) Regular() bool { return out.kind == regular }

// Stream is an Input that waits: an io.Reader that also notices, while no data comes,
// that the reader of the output has gone.
type Stream struct {
	*Input
	// Timeout is how long a Read waits for data, Forever as a rule.
	Timeout time.Duration

	fds [2]PollFd
}

// NewStream returns a Stream over in. out is the descriptor whose reader is
// watched, or -1.
func NewStream(in *Input, out int) *Stream {
	s := &Stream{Input: in, Timeout: Forever}
	s.fds[0] = PollFd{Fd: int32(in.fd), Events: unix.POLLIN}
	s.fds[1] = PollFd{Fd: int32(out)} // a negative one is passed over by poll
	return s
}

// Read waits until there is data and reads it. The error is io.EOF at the end
// of the input, ErrReaderGone if the output's reader left first, and
// os.ErrDeadlineExceeded when the timeout is over.
func (s *Stream) Read(p []byte) (int, error) {
	for {
		var n int
		var err error
		if s.kind == plain && s.Timeout != 0 { // it would poll first: let that be the wait
			if len(p) == 0 {
				return 0, unix.EINVAL
			}
			if ready, err := s.Wait(s.Timeout); err != nil || !ready {
				return 0, late(err)
			}
			n, err = s.readReady(p)
		} else {
			n, err = s.TryRead(p)
		}
		switch err {
		case nil:
			if n == 0 {
				return 0, io.EOF
			}
			return n, nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
		default:
			return 0, err
		}
		if ready, err := s.Wait(s.Timeout); err != nil || !ready {
			return 0, late(err)
		}
	}
}

// late is the error of a wait that found nothing.
func late(err error) error {
	if err == nil {
		err = os.ErrDeadlineExceeded
	}
	return err
}

// Wait waits until the input is readable or has ended, at most for timeout,
// and reports whether it is.
func (s *Stream) Wait(timeout time.Duration) (ready bool, err error) {
	if _, err := Wait(s.fds[:], timeout); err != nil {
		return false, err
	}
	// An output can break while there is input, which then has nowhere to go.
	if Broken(s.fds[1]) {
		return false, ErrReaderGone
	}
	return s.fds[0].Revents != 0, nil
}

// Broken reports whether the wait found the other end of an output closed.
func Broken(p PollFd) bool {
	return p.Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 && p.Fd >= 0
}
