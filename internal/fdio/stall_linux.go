package fdio

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// checkEvery is the least time between two checks of the next stage. A wait that is longer
// is interrupted for a check, but only while the pipe has unread bytes: an idle stage sleeps.
const checkEvery = 100 * time.Millisecond

// stall detects that the next stage of a pipeline no longer reads.
type stall struct {
	out    *Output
	limit  time.Duration
	last   time.Time     // time of the last check
	unread int           // bytes in the pipe
	read   int64         // bytes that the next stage has read; only changes matter
	still  time.Duration // how long it has read nothing
}

// watched is set once, before the loop.
var watched *stall

// Watch ends waits when the next stage hangs: once out, if it is a pipe, has had unread
// bytes for the limit and none of them was read meanwhile, Wait returns a WriteError.
func (out *Output) Watch(limit time.Duration) {
	if IsPipe(out.fd) {
		watched = &stall{out: out, limit: limit, last: time.Now()}
	}
}

// check reports whether a long wait must be interrupted for another check. A moment in which
// this process did not run, as on a machine that was paused, counts as twice checkEvery at
// most: the next stage did not run, either.
func (s *stall) check() (again bool, err error) {
	now := time.Now()
	passed := now.Sub(s.last)
	if passed < checkEvery {
		return true, nil
	}
	s.last = now
	unread, _ := unix.IoctlGetUint32(s.out.fd, unix.TIOCINQ) // 0 if a filter of system calls forbids it
	read := s.out.written - int64(unread)
	if s.unread == 0 || read != s.read {
		s.still = 0
	} else {
		s.still += min(passed, 2*checkEvery)
	}
	s.unread, s.read = int(unread), read
	if s.still >= s.limit {
		return false, &WriteError{fmt.Errorf("the next stage has not read for %v s", s.limit.Seconds())}
	}
	return unread > 0, nil
}

// Wait waits until one of fds is ready, at most for timeout (Forever for no
// limit), and returns how many are. After a signal, a wait with a timeout may
// return 0 a little early: callers must check the time.
func Wait(fds []PollFd, timeout time.Duration) (int, error) {
	for watched != nil {
		again, err := watched.check()
		if err != nil {
			return 0, err
		}
		if !again || timeout >= 0 && timeout <= checkEvery {
			break
		}
		if n, err := poll(fds, checkEvery); n > 0 || err != nil {
			return n, err
		}
		if timeout > 0 {
			timeout -= checkEvery
		}
	}
	return poll(fds, timeout)
}
