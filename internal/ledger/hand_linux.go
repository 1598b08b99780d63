package ledger

import (
	"os"

	"golang.org/x/sys/unix"
)

// bootID tells one start of the machine from another.
func bootID() uint64 {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return hash(b)
}

// region is the lock of a hand: one of the open file, not of the process, so that it
// ends with that and with nothing else (fcntl(2), F_OFD_SETLK).
func region(i int, how int16) *unix.Flock_t {
	return &unix.Flock_t{Type: how, Start: int64(handsAt + i*handSize), Len: 1}
}

func (l *Ledger) lock(i int) bool {
	return unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, region(i, unix.F_WRLCK)) == nil
}

func (l *Ledger) unlock(i int) {
	_ = unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, region(i, unix.F_UNLCK))
}

// locked reports whether somebody has the lock, or it is not known.
func (l *Ledger) locked(i int) bool {
	r := region(i, unix.F_WRLCK)
	return unix.FcntlFlock(l.file.Fd(), unix.F_OFD_GETLK, r) != nil || r.Type != unix.F_UNLCK
}
