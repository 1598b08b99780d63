// Package fdio reads, writes and waits on the descriptors that a stage
// inherits: usually pipes, sometimes a file, a socket or a tap.
//
// Such a descriptor is shared: the shell, the neighbour stage and other
// children of the same parent hold the same open file description, and
// O_NONBLOCK is a flag of the description, not of the descriptor. So this
// package never sets it there. On Linux it opens a pipe anew by /proc/self/fd,
// which gives a description of our own. Where that fails, as for the pipe of
// another user, and on other systems, a poll comes before each read.
//
// On Linux this package hides calls that cannot block from Go's scheduler
// (syscall.RawSyscall), and the first second of each wait in ppoll, too. A
// pipeline of processes that wake each other thousands of times a second
// otherwise spends a third of its time in entersyscall, exitsyscall and the
// monitor thread that retakes the P of a goroutine in a system call; and a
// ping through eight idle stages takes five times as long. A longer wait
// continues as an ordinary system call, so that an idle stage costs nothing.
//
// A hidden wait keeps its P, one of GOMAXPROCS, and blocks the signal by which
// the runtime preempts goroutines (SIGURG), which would interrupt the wait every
// 10 ms. It yields to the scheduler twenty times a second. The garbage collector,
// which has little to do here, may have to wait that long.
package fdio

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// PipeSize is the buffer size that Grow asks for, for two batches of 256 KiB. With 1 MiB, the
// default limit of an unprivileged process (fs.pipe-max-size), a ping beside four TCP flows
// takes a third longer, and nothing is faster; with 256 KiB, TCP is a sixth slower.
const PipeSize = 512 << 10

// ErrReaderGone reports that the other end of the output is closed. A pipeline normally
// ends this way from downstream.
var ErrReaderGone = errors.New("the reader of the output has gone away")

// WriteError is a permanent error of a write.
type WriteError struct{ error }

// Unwrap returns the system's error.
func (e *WriteError) Unwrap() error { return e.error }

// Forever is the timeout of a wait without a time limit.
const Forever = time.Duration(-1)

// PollFd is the struct pollfd of poll(2).
type PollFd = unix.PollFd

type kind uint8

const (
	plain   kind = iota // needs a poll before a read, and blocks in a write
	private             // in non-blocking mode, which no other process sees
	regular             // a file: never blocks for long; poll always reports it ready
)

// Output is a descriptor to write a stream to.
type Output struct {
	fd      int
	kind    kind
	iov     [64]unix.Iovec
	written int64 // bytes
}

// NewOutput prepares fd for writing. If it is a pipe, it becomes non-blocking in this
// process; in others that share it, nothing changes.
func NewOutput(fd int) *Output { return &Output{fd: fd, kind: prepare(fd)} }

// Fd returns the descriptor.
func (out *Output) Fd() int { return out.fd }

// Write blocks until it has written all of p. The error is ErrReaderGone
// when the other end is closed.
func (out *Output) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = out.tryWrite(p[n:])
		n += m
		err = out.blocked(err)
	}
	return n, err
}

// Writev writes the concatenation of the spans, as Write does. It overwrites the
// elements of spans.
func (out *Output) Writev(spans [][]byte) (err error) {
	for n := 0; err == nil; {
		for len(spans) > 0 && n >= len(spans[0]) {
			n -= len(spans[0])
			spans = spans[1:]
		}
		if len(spans) == 0 {
			return nil
		}
		spans[0] = spans[0][n:]
		n, err = out.tryWritev(spans)
		err = out.blocked(err)
	}
	return err
}

func (out *Output) tryWrite(p []byte) (n int, err error) {
	if out.kind == private {
		n, err = Write(out.fd, p)
	} else {
		n, err = unix.Write(out.fd, p)
	}
	n = max(n, 0)
	out.written += int64(n)
	return n, err
}

// blocked waits for room if a write failed with EAGAIN, and returns other errors.
func (out *Output) blocked(err error) error {
	if err == unix.EAGAIN {
		return out.await()
	}
	return reason(err)
}

// Try writes some of the spans with one system call. The error is unix.EAGAIN if there is no
// room. Where the output is neither a pipe of our own nor open for non-blocking writing, it
// waits for room.
func (out *Output) Try(spans ...[]byte) (n int, err error) {
	n, err = out.tryWritev(spans)
	return n, reason(err)
}

// reason converts the error of a write.
func reason(err error) error {
	switch err {
	case nil, unix.EINTR:
		return nil
	case unix.EAGAIN:
		return err
	case unix.EPIPE, unix.ECONNRESET:
		return ErrReaderGone
	}
	return &WriteError{err}
}

// Stream reads from a descriptor. While it waits for data, it also detects that the reader
// of the output has gone.
type Stream struct {
	// Timeout is how long a Read waits for data. NewStream sets Forever.
	Timeout time.Duration

	fd   int
	kind kind
	fds  [2]PollFd
}

// NewStream prepares the descriptor in for reading, as NewOutput does for writing. out is
// the descriptor whose reader is watched, or -1.
func NewStream(in, out int) *Stream {
	s := &Stream{Timeout: Forever, fd: in, kind: prepare(in)}
	s.fds[0] = PollFd{Fd: int32(in), Events: unix.POLLIN}
	s.fds[1] = PollFd{Fd: int32(out)} // poll ignores a negative descriptor
	return s
}

// Fd returns the descriptor.
func (s *Stream) Fd() int { return s.fd }

// Regular reports whether the input is a file on disk. Reads of it never wait.
func (s *Stream) Regular() bool { return s.kind == regular }

// Read waits until there is data and reads it. The error is io.EOF at the end
// of the input, ErrReaderGone if the output's reader left first, and
// os.ErrDeadlineExceeded after the timeout.
func (s *Stream) Read(p []byte) (int, error) {
	for first := true; ; first = false {
		if !first || s.kind == plain {
			if err := s.wait(s.Timeout); err != nil {
				return 0, err
			}
		}
		read := Read
		if s.kind == regular { // a disk may take its time
			read = unix.Read
		}
		n, err := read(s.fd, p)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			continue
		case err == nil && n == 0:
			err = io.EOF
		}
		return max(n, 0), err
	}
}

// wait waits until the input is readable or has ended. The errors are those of Read.
func (s *Stream) wait(timeout time.Duration) error {
	_, err := Wait(s.fds[:], timeout)
	switch {
	case err != nil:
		return err
	case Broken(s.fds[1]): // even if there is input: it would have nowhere to go
		return ErrReaderGone
	case s.fds[0].Revents == 0:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Splice moves n bytes to the output without copying them. Both must be pipes; out may also be
// a device that takes everything. The error is io.EOF if the input ends before.
func (s *Stream) Splice(out *Output, n int) error {
	for n > 0 {
		m, err := s.move(splice, out, n, Forever)
		if err != nil {
			return err
		}
		n -= m
	}
	return nil
}

// move has the kernel pass on at most n bytes, by splice or tee, and returns how many. The errors
// are those of Read.
func (s *Stream) move(by func(in, out, n int) (int, error), out *Output, n int, timeout time.Duration) (int, error) {
	for waited := false; ; waited = !waited {
		m, err := by(s.fd, out.fd, n)
		switch {
		case err == nil && m == 0:
			return 0, io.EOF
		case err == nil:
			out.written += int64(m)
			return m, nil
		case err == unix.EPIPE:
			return 0, ErrReaderGone
		case err != unix.EAGAIN && err != unix.EINTR:
			return 0, err
		case waited:
			err = out.await()
		default:
			// The input is empty or the output full. Wait for the input first: a wait
			// for room on an empty input would miss the end of the input.
			err = s.wait(timeout)
		}
		if err != nil {
			return 0, err
		}
	}
}

// await waits until the output has room.
func (out *Output) await() error {
	fds := [1]PollFd{{Fd: int32(out.fd), Events: unix.POLLOUT}}
	if _, err := Wait(fds[:], Forever); err != nil {
		return err
	}
	if Broken(fds[0]) {
		return ErrReaderGone
	}
	return nil
}

// Broken reports whether the wait found the other end of an output closed.
func Broken(p PollFd) bool {
	return p.Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 && p.Fd >= 0
}
