package fdio

import (
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// brief is how long a wait stays hidden from Go's scheduler. It is longer than a
// second, so that a ping a second never needs a visible wait: a system call that
// the scheduler sees starts the runtime's monitor thread, which then wakes up some
// fifty times in the next milliseconds, in each process of the pipeline.
const brief = time.Second + 100*time.Millisecond

// A hidden wait yields to the scheduler after firstSlice, and later at least every
// slice, which bounds how long a signal that arrives between two waits can remain
// unhandled. The slices are short at first: after 10 ms the runtime tries to preempt
// the goroutine, and that delays the next frame by 15 µs in each stage.
const (
	slice      = 50 * time.Millisecond
	firstSlice = 4 * time.Millisecond
)

// prepare returns the kind of fd. A pipe is opened anew, and the new open file description,
// which is non-blocking, takes the place of the inherited one at the number fd: proc_pid_fd(5).
func prepare(fd int) kind {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return plain
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFBLK:
		return regular
	case unix.S_IFIFO:
	default:
		return plain
	}
	status, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0) // it is open, so these cannot fail
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	own, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), status&unix.O_ACCMODE|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return plain
	}
	defer unix.Close(own)
	if unix.Dup3(own, fd, 0) != nil {
		return plain
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
	return private
}

// Grow asks for a pipe buffer of PipeSize bytes. It ignores a refusal and a
// descriptor that is not a pipe: the stream works without.
func Grow(fd int) {
	if size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil && size < PipeSize {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, PipeSize)
	}
}

// result converts the results of a system call. An errno of less than 256 becomes an error
// without an allocation.
func result(n, _ uintptr, e syscall.Errno) (int, error) {
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// Read is read(2) on a descriptor that does not block.
func Read(fd int, p []byte) (int, error) {
	return result(syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))))
}

// Write is write(2) on a descriptor that does not block.
func Write(fd int, p []byte) (int, error) {
	return result(syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))))
}

func (out *Output) tryWritev(spans [][]byte) (n int, err error) {
	if len(spans) == 1 { // a tenth faster than writev
		return out.tryWrite(spans[0])
	}
	for _, s := range spans {
		if len(s) > 0 && n < len(out.iov) {
			out.iov[n].Base = &s[0]
			out.iov[n].SetLen(len(s)) // of 32 bits on some systems
			n++
		}
	}
	if out.kind == private {
		n, err = result(syscall.RawSyscall(unix.SYS_WRITEV, uintptr(out.fd), uintptr(unsafe.Pointer(&out.iov[0])), uintptr(n)))
	} else {
		n, err = result(syscall.Syscall(unix.SYS_WRITEV, uintptr(out.fd), uintptr(unsafe.Pointer(&out.iov[0])), uintptr(n)))
	}
	out.written += int64(n)
	return n, err
}

// splice moves at most n bytes from one pipe to another without copying them.
// It does not block: the error is EAGAIN if in is empty or out is full.
func splice(in, out, n int) (int, error) {
	return result(syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(in), 0, uintptr(out), 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE))
}

// tee duplicates at most n bytes from one pipe to another without copying or
// consuming them. It does not block: the error is EAGAIN if in is empty or out
// is full.
func tee(in, out, n int) (int, error) {
	return result(syscall.RawSyscall6(unix.SYS_TEE, uintptr(in), uintptr(out), uintptr(n), unix.SPLICE_F_NONBLOCK, 0, 0))
}

// IsPipe reports whether fd is a pipe, which Splice needs.
func IsPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// poll is Wait without a look at the next stage.
func poll(fds []PollFd, timeout time.Duration) (int, error) {
	hidden := brief
	if timeout >= 0 {
		hidden = min(timeout, brief)
	}
	for turn, left := firstSlice, hidden; ; turn = min(max(firstSlice, (hidden-left)/32), slice) {
		n, err := ppoll(fds, min(left, turn), false)
		if err == unix.EINTR { // let the goroutine that handles the signal run
			if timeout < 0 {
				break
			}
			return wait(fds, min(left, slice))
		}
		if n > 0 || err != nil {
			return n, err
		}
		if left -= turn; left <= 0 {
			break
		}
		runtime.Gosched()
		setupThread()
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

// wait is an ordinary wait, visible to the scheduler. It returns 0 at a signal.
func wait(fds []PollFd, timeout time.Duration) (int, error) {
	n, err := ppoll(fds, timeout, true)
	setupThread()
	if err == unix.EINTR {
		err = nil
	}
	return n, err
}

// preemption is a kernel sigset_t that holds SIGURG.
var preemption = uint64(1) << (unix.SIGURG - 1)

func ppoll(fds []PollFd, timeout time.Duration, schedule bool) (int, error) {
	var limit *unix.Timespec
	if timeout >= 0 {
		ts := unix.NsecToTimespec(int64(timeout))
		limit = &ts
	}
	p := unsafe.Pointer(unsafe.SliceData(fds))
	if schedule {
		return result(syscall.Syscall6(unix.SYS_PPOLL, uintptr(p), uintptr(len(fds)), uintptr(unsafe.Pointer(limit)), 0, 0, 0))
	}
	return result(syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(p), uintptr(len(fds)), uintptr(unsafe.Pointer(limit)),
		uintptr(unsafe.Pointer(&preemption)), unsafe.Sizeof(preemption), 0))
}

// Steady prepares for a loop of short waits. It asks the kernel to end them on
// time: by default they end 50 µs late, as long as the waits themselves
// (PR_SET_TIMERSLACK). It also blocks the runtime's preemption signal on the
// thread that runs the loop. The runtime sends this signal to a goroutine that has
// kept its P for 10 ms, as a hidden wait does. Delivered at the end of the wait,
// the signal would delay each frame of a slow stream by 15 µs in each stage. The
// runtime also sets a flag, which the next function call checks.
//
// Steady leaves the process one P, which the loop releases only in a long wait. With
// a second, idle P, the runtime would wake a thread to look for work each time it
// preempts the loop, which is at each frame of a slow stream. Other goroutines run
// when a signal interrupts the wait, or when the loop yields.
func Steady() {
	runtime.GOMAXPROCS(1)
	steady = true
	setupThread()
	batch()
}

// batch makes this process SCHED_BATCH, if it is SCHED_OTHER: a write to its pipe then does
// not preempt the writer (wakeup_preempt_fair in kernel/sched/fair.c). The writer goes on until
// it waits, and this process finds more frames at once. Otherwise the two stages take turns on
// each frame.
func batch() {
	attr, err := unix.SchedGetAttr(0, 0) // keeps the nice value
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return
	}
	attr.Policy = unix.SCHED_BATCH
	// On all threads: the runtime may move the loop from one to another.
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(attr)), 0)
}

// steady is set once, before the loop.
var steady bool

// setupThread applies the settings of Steady to the current thread. It must run
// again after each call of the scheduler, which may move the goroutine to another
// thread.
func setupThread() {
	if steady {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&preemption)), 0, unsafe.Sizeof(preemption), 0, 0)
	}
}
