//go:build !linux

package fdio

import (
	"time"

	"golang.org/x/sys/unix"
)

func prepare(fd int) kind {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && uint32(st.Mode)&unix.S_IFMT == unix.S_IFREG {
		return regular
	}
	return plain
}

// Grow does nothing: these systems grow their pipes automatically.
func Grow(int) {}

// Read is read(2).
func Read(fd int, p []byte) (int, error) {
	n, err := unix.Read(fd, p)
	return max(n, 0), err
}

// Write is write(2).
func Write(fd int, p []byte) (int, error) {
	n, err := unix.Write(fd, p)
	return max(n, 0), err
}

func (out *Output) tryWritev(spans [][]byte) (int, error) { return out.tryWrite(spans[0]) }

// These are available on Linux only.
func splice(in, out, n int) (int, error) { return 0, unix.EINVAL }
func tee(in, out, n int) (int, error)    { return 0, unix.EINVAL }

// IsPipe reports whether Splice works on fd: never on these systems.
func IsPipe(int) bool { return false }

// Wait waits until one of fds is ready, at most for timeout (Forever for no
// limit), and returns how many are.
func Wait(fds []PollFd, timeout time.Duration) (int, error) {
	ms := -1
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.Poll(fds, ms)
	for err == unix.EINTR && ms < 0 {
		n, err = unix.Poll(fds, ms)
	}
	if err == unix.EINTR {
		return 0, nil
	}
	return n, err
}

// Watch is available on Linux only.
func (out *Output) Watch(time.Duration) {}

// Steady does nothing: waits are not hidden from the scheduler on these systems.
func Steady() {}
