package fdio

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rwfNowait makes one read or write return EAGAIN instead of blocking
// (include/uapi/linux/fs.h). The two ends of pipe(2) take it since Linux 6.4,
// a named FIFO does not, and an end loses it for good when it is spliced from
// or to (pipe_clear_nowait in fs/splice.c); tee leaves it.
const rwfNowait = 0x8

// brief is how long a wait is hidden from Go's scheduler: long enough that a
// ping a second does not leave it. A system call that the scheduler knows of
// starts the runtime's monitor thread, which then wakes up some fifty times in
// the next milliseconds, in each process of the pipeline.
const brief = time.Second + 100*time.Millisecond

// slice is how long the scheduler waits, at the most, for a turn in that time:
// so much later a signal may be dealt with that came while nothing waited. The
// turns come more often at first, as a P that is not given away for 10 ms is
// asked for by the runtime, and that delays the next frame by 15 µs in each stage.
const (
	slice      = 50 * time.Millisecond
	firstSlice = 4 * time.Millisecond
)

const deviceKind = nowait

func inputKind(fd int) kind { return kindOf(fd) }

func outputKind(fd int) kind { return kindOf(fd) }

func kindOf(fd int) kind {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return plain
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFBLK:
		return regular
	case unix.S_IFIFO, unix.S_IFSOCK:
		return nowait
	}
	return plain
}

// Grow asks for a pipe buffer of PipeSize bytes. A refusal, or a descriptor
// that is no pipe, is no error: the stream flows all the same.
func Grow(fd int) {
	if size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil && size < PipeSize {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, PipeSize)
	}
}

// TryRead reads what is there. n = 0 without an error is the end of the
// input; EAGAIN means that nothing is there yet.
func (in *Input) TryRead(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, unix.EINVAL
	}
	switch in.kind {
	case nowait:
		iov := iovec(p)
		r, _, e := syscall.RawSyscall6(unix.SYS_PREADV2, uintptr(in.fd), uintptr(unsafe.Pointer(&iov)), 1, ^uintptr(0), ^uintptr(0), rwfNowait)
		if e == unix.EOPNOTSUPP {
			in.kind = plain
			return in.TryRead(p)
		}
		if e != 0 {
			return 0, errno(e)
		}
		return int(r), nil
	case plain:
		// A terminal, a character device, an old kernel's pipe: ask first.
		fds := [1]PollFd{{Fd: int32(in.fd), Events: unix.POLLIN}}
		if ready, err := Wait(fds[:], 0); err != nil || ready == 0 {
			if err == nil {
				err = unix.EAGAIN
			}
			return 0, err
		}
		return in.readReady(p)
	}
	n, err = unix.Read(in.fd, p)
	return max(n, 0), err
}

// readReady reads what a poll has found to be there.
func (in *Input) readReady(p []byte) (int, error) {
	r, _, e := syscall.RawSyscall(unix.SYS_READ, uintptr(in.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if e != 0 {
		return 0, errno(e)
	}
	return int(r), nil
}

func (out *Output) tryWrite(p []byte) (int, error) {
	if out.kind != nowait {
		n, err := unix.Write(out.fd, p)
		return max(n, 0), err
	}
	iov := iovec(p)
	return out.pwritev2(&iov, 1)
}

func (out *Output) tryWritev(spans [][]byte) (int, error) {
	var iov [64]unix.Iovec
	n := 0
	for _, s := range spans {
		if len(s) == 0 {
			continue
		}
		if n == len(iov) {
			break
		}
		iov[n] = iovec(s)
		n++
	}
	if n == 0 {
		return 0, nil
	}
	if out.kind != nowait {
		r, _, e := syscall.Syscall(unix.SYS_WRITEV, uintptr(out.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(n))
		if e != 0 {
			return 0, errno(e)
		}
		return int(r), nil
	}
	return out.pwritev2(&iov[0], n)
}

// iovec is a span for the kernel; its Len is 32 bits wide on some systems.
func iovec(p []byte) unix.Iovec {
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	return iov
}

func (out *Output) pwritev2(iov *unix.Iovec, n int) (int, error) {
	r, _, e := syscall.RawSyscall6(unix.SYS_PWRITEV2, uintptr(out.fd), uintptr(unsafe.Pointer(iov)), uintptr(n), ^uintptr(0), ^uintptr(0), rwfNowait)
	if e == unix.EOPNOTSUPP {
		out.kind = plain
		return 0, unix.EINTR // again, the other way
	}
	if e != 0 {
		return 0, errno(e)
	}
	return int(r), nil
}

// Splice moves at most n bytes from one pipe to another without copying them.
// It does not block: EAGAIN where the one is empty or the other full.
func Splice(in, out, n int) (int, error) {
	r, _, e := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(in), 0, uintptr(out), 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	if e != 0 {
		return 0, errno(e)
	}
	return int(r), nil
}

// Tee duplicates at most n bytes from one pipe to another without copying or
// consuming them. It does not block: EAGAIN where the one is empty or the
// other full.
func Tee(in, out, n int) (int, error) {
	r, _, e := syscall.RawSyscall6(unix.SYS_TEE, uintptr(in), uintptr(out), uintptr(n), unix.SPLICE_F_NONBLOCK, 0, 0)
	if e != 0 {
		return 0, errno(e)
	}
	return int(r), nil
}

// IsPipe reports whether fd is a pipe, which Splice and Tee need.
func IsPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// Wait waits until one of fds is ready, at most for timeout (Forever for no
// limit), and returns how many are. A signal does not end it early, except
// that a wait may return 0 a little before its time: callers look again.
func Wait(fds []PollFd, timeout time.Duration) (int, error) {
	hidden := timeout
	if timeout < 0 || timeout > brief {
		hidden = brief
	}
	for turn, left := firstSlice, hidden; ; turn = min(max(firstSlice, (hidden-left)/32), slice) {
		n, e := ppoll(fds, min(left, turn), false)
		if e != 0 && e != unix.EINTR {
			return 0, errno(e)
		}
		if n > 0 {
			return n, nil
		}
		if e == unix.EINTR { // whoever deals with the signal needs a moment
			if timeout < 0 {
				break
			}
			return wait(fds, min(left, slice))
		}
		if left -= turn; left <= 0 {
			break
		}
		runtime.Gosched()
		settle()
	}
	if timeout == hidden {
		return 0, nil
	}
	if timeout > 0 {
		timeout -= brief
	}
	for {
		n, err := wait(fds, timeout)
		if n != 0 || err != nil || timeout >= 0 {
			return n, err
		}
	}
}

// wait is a wait that the scheduler knows of. It returns 0 at a signal.
func wait(fds []PollFd, timeout time.Duration) (int, error) {
	n, e := ppoll(fds, timeout, true)
	settle()
	if e == unix.EINTR {
		return 0, nil
	}
	if e != 0 {
		return 0, errno(e)
	}
	return n, nil
}

// preemption is the signal set with SIGURG in it, as the kernel has sets.
var preemption = uint64(1) << (unix.SIGURG - 1)

func ppoll(fds []PollFd, timeout time.Duration, schedule bool) (int, syscall.Errno) {
	var ts unix.Timespec
	var tsp *unix.Timespec
	if timeout >= 0 {
		ts = unix.NsecToTimespec(int64(timeout))
		tsp = &ts
	}
	var p unsafe.Pointer
	if len(fds) > 0 {
		p = unsafe.Pointer(&fds[0])
	}
	var r uintptr
	var e syscall.Errno
	if schedule {
		r, _, e = syscall.Syscall6(unix.SYS_PPOLL, uintptr(p), uintptr(len(fds)), uintptr(unsafe.Pointer(tsp)), 0, 0, 0)
	} else {
		r, _, e = syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(p), uintptr(len(fds)), uintptr(unsafe.Pointer(tsp)), uintptr(unsafe.Pointer(&preemption)), unsafe.Sizeof(preemption), 0)
	}
	return int(r), e
}

// Steady prepares for a loop of short waits. It asks the kernel to end them on
// time (its default is to let them run 50 µs over, as long as the waits
// themselves: PR_SET_TIMERSLACK), and blocks the runtime's preemption signal on
// the thread that runs the loop. That signal is sent to whoever has had a P for
// 10 ms, which a hidden wait has; delivered as the wait ends, it would cost
// each frame of a slow stream 15 µs in each stage. The runtime asks by other
// means, too, which the next function call notices.
func Steady() {
	steady = true
	settle()
}

// steady is set once, before the loop.
var steady bool

// settle does what Steady says for the thread we are on: after the scheduler
// has had a turn, it may be another.
func settle() {
	if steady {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&preemption)), 0, unsafe.Sizeof(preemption), 0, 0)
	}
}

// errno makes the error without allocating for the common values.
func errno(e syscall.Errno) error {
	switch e {
	case unix.EAGAIN:
		return errAgain
	case unix.EINTR:
		return errIntr
	}
	return e
}

var (
	errAgain error = unix.EAGAIN
	errIntr  error = unix.EINTR
)
