package ledger

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// probation is the fraction of a cycle, 1/720, for which a clock that jumped is not
	// trusted: an hour of a month.
	probation = 720
	// newJump is the number of cycles after which a later time counts as a new jump.
	newJump = 24
)

// place gives the last cycle, that of the time now, a table.
func (l *Ledger) place(now int64) error {
	c := &l.last
	if c.Start <= 0 || c.Slots > l.slots {
		return fmt.Errorf("there is no cycle for the time %v", time.Unix(0, now).UTC())
	}
	if err := l.lock(); err != nil {
		return err
	}
	defer func() { _ = unix.Flock(int(l.file.Fd()), unix.LOCK_UN) }()
	if c.table = l.table(c.Start); c.table >= 0 {
		return nil // another process was faster
	}
	if c.table = l.free(now); c.table < 0 {
		return fmt.Errorf("no table for the time %v, which is far from the ledger's cycles: the clock may be wrong", time.Unix(0, now).UTC())
	}
	l.begin(c.table, c.Start, c.End)
	return nil
}

// free returns a table for the last cycle, -1 if there is none yet: an unused table,
// or the table of the oldest cycle.
//
// A clock that is wrong for a moment must not cost a cycle that is still needed. So the
// oldest cycle loses its table at once only to a newer cycle adjacent to a known one. The
// two cycles just before the new one never lose theirs, as the clock may return to them.
// After a jump of the clock, such as a year in a drawer or a boot in 2000, the clock has
// to run for a while (see probation) before the oldest cycle is lost.
func (l *Ledger) free(now int64) int {
	start, end := l.last.Start, l.last.End
	before, _ := l.Config.Bounds(start - 1)
	first, _ := l.Config.Bounds(before - 1)
	oldest, next := -1, false
	for i := range cycles {
		s := l.start(i)
		if s == 0 {
			return i
		}
		next = next || s == before || s == end
		if s != before && s != first && (oldest < 0 || s < l.start(oldest)) {
			oldest = i
		}
	}
	switch {
	case oldest < 0: // a damaged file that has a cycle twice
		return -1
	case next && l.start(oldest) < start:
		return oldest
	case l.jumped == 0 || now < l.jumped || now-l.jumped > newJump*(end-start):
		l.jumped = now
	}
	if now-l.jumped < (end-start)/probation {
		return -1
	}
	return oldest
}

// lockTimeout bounds the wait for the lock. Any process that can read the file can lock
// it, and must not stop traffic by that.
const lockTimeout = 200 * time.Millisecond

// lock locks the file, to begin a cycle.
func (l *Ledger) lock() error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err != unix.EWOULDBLOCK:
			return err
		case time.Since(start) > lockTimeout:
			return errors.New("another process holds the lock (flock)")
		}
	}
}

// begin begins a cycle in a table.
func (l *Ledger) begin(table int, start, end int64) {
	from, to := l.word(cyclesAt+table*cycleSize), l.word(cyclesAt+table*cycleSize+8)
	atomic.StoreInt64(from, 0)
	// A table with an end was in use, or a process was killed while clearing the table.
	if atomic.LoadInt64(to) != 0 {
		clear(l.mem[l.tableAt(table):l.tableAt(table+1)])
	}
	atomic.StoreInt64(to, end)
	atomic.StoreInt64(from, start)
}
