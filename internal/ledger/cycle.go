package ledger

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// find returns the cycle of a time, and begins it if necessary.
func (l *Ledger) find(now int64) (cycle, error) {
	start, end := l.bounds(now)
	if start <= 0 || count(end-start, l.cfg.Slot) > int64(l.slots) {
		return cycle{}, fmt.Errorf("%s: there is no cycle for the time %v", l.name, time.Unix(0, now).UTC())
	}
	i := l.table(start)
	if i < 0 {
		if err := l.lock(); err != nil {
			return cycle{}, fmt.Errorf("%s: %w", l.name, err)
		}
		defer func() { _ = unix.Flock(int(l.file.Fd()), unix.LOCK_UN) }()
		if i = l.table(start); i < 0 { // no other process was faster
			if i = l.place(now, start, end); i < 0 {
				return cycle{}, fmt.Errorf("%s: no table for the time %v, which is far from the ledger's cycles: the clock may be wrong", l.name, time.Unix(0, now).UTC())
			}
			l.begin(i, start, end)
		}
	}
	return cycle{start, end, i}, nil
}

const (
	// probation is the fraction of a cycle, 1/720, for which a clock that jumped is not
	// trusted: an hour of a month.
	probation = 720
	// newJump is the number of cycles after which a later time counts as a new jump.
	newJump = 24
)

// place returns a table for a new cycle, -1 if there is none yet: an unused table,
// or the table of the oldest cycle.
//
// A clock that is wrong for a moment must not cost a cycle that is still needed. So the
// oldest cycle loses its table at once only to a newer cycle adjacent to a known one. The
// two cycles just before the new one never lose theirs, as the clock may return to them.
// After a jump of the clock, such as a year in a drawer or a boot in 2000, the clock has
// to run for a while (see probation) before the oldest cycle is lost.
func (l *Ledger) place(now, start, end int64) (oldest int) {
	before, _ := l.bounds(start - 1)
	first, _ := l.bounds(before - 1)
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
	if oldest < 0 {
		return -1 // a damaged file that has a cycle twice
	}
	if next && l.start(oldest) < start {
		return oldest
	}
	if l.jumped == 0 || now < l.jumped || now-l.jumped > newJump*(end-start) {
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
	atomic.StoreUint64(from, 0)
	// A table with an end was in use, or a process was killed while clearing the table.
	if atomic.LoadUint64(to) != 0 {
		clear(l.mem[l.tableAt(table):l.tableAt(table+1)])
	}
	atomic.StoreUint64(to, uint64(end))
	atomic.StoreUint64(from, uint64(start))
}
