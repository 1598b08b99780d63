package ledger

import (
	"encoding/binary"
	"hash/fnv"
	"sync/atomic"
	"unsafe"

	"framepipe/internal/fdio"
)

const (
	hands     = 16
	handsAt   = headerSize
	handSize  = 32 << 10
	handMarks = (handSize - 128) / 16
	// handful bounds what a hand can hold: what a gate reads at once, its queue
	// and credit. More is nonsense.
	handful = 64 << 20
)

// Hand is what a gate has charged and not passed on: frames that it has read and not
// written yet, and credit. It lies in the file. The gate holds a lock on it, which
// ends with the process: then whoever opens the ledger next gives it back.
//
// All of that is a step behind where it must be, so that a gate that is killed has
// never passed more than the ledger has. It has more by what was charged in the one
// instant before a kill, if that is between a count and its note.
type Hand struct {
	l *Ledger
	*page
}

// page is a hand's place in the file.
type page struct {
	// Progress is that of the gate's output.
	Progress fdio.Progress

	boot    uint64 // a hash of when the machine was started: what was on the disk before then does not fit together
	charged uint64 // bytes, in all
	dropped uint64 // bytes that were charged when they came, and stay so
	passed  uint64 // bytes that were handed to the output, written or not
	next    uint64 // mark to be written
	turns   uint64 // turn[turns%2] is in use, and the other one was before it
	turn    [2]turn

	// marks tell how much has passed when the output has come so far.
	marks [handMarks]mark
}

// turn is a slot that is counted in.
type turn struct {
	since uint64 // charged, before
	cell  uint64 // where its count is in the file
	start uint64 // of the cycle
}

type mark struct{ end, passed uint64 }

// A page is no larger than its place.
var _ [handSize - unsafe.Sizeof(page{})]byte

// Do does what touches the hand, as Progress does. f is to do the same when done again.
func (h *Hand) Do(f func()) { h.l.do(f) }

// Mark notes that a frame of so many bytes, as counted, has passed when so many have
// been written to the output. full reports that the output is to be flushed before
// there is another.
func (h *Hand) Mark(end int64, bytes int64) (full bool) {
	h.l.do(func() { full = h.mark(end, bytes) })
	return full
}

func (p *page) mark(end int64, bytes int64) (full bool) {
	p.passed += uint64(bytes)
	m := &p.marks[p.next%handMarks]
	m.end = uint64(end) // which lies ahead: it counts for nothing yet
	m.passed = p.passed
	p.next++
	return p.next%(handMarks/2) == 0
}

// Drop notes how many bytes were charged and dropped, in all, which is no reason to
// give them back.
func (h *Hand) Drop(total int64) { h.l.do(func() { h.dropped = uint64(total) }) }

// Lapse has nothing given back until Resume: what passes from now on is not charged here.
func (h *Hand) Lapse() { h.l.do(func() { h.boot = 0 }) }

// Resume ends that, when nothing is in hand and all that was marked is written.
func (h *Hand) Resume() {
	h.l.do(func() {
		h.charged = h.passed + h.dropped
		h.turn[h.turns%2].since = h.charged
		h.boot = h.l.boot
	})
}

// Count is the count of a slot for those who charge: it notes what they have.
func (h *Hand) Count(s *Slot) Charge {
	at := uintptr(unsafe.Pointer(s.Charged.p)) - uintptr(unsafe.Pointer(&h.l.mem[0]))
	h.l.do(func() {
		h.turn[(h.turns+1)%2] = turn{h.charged, uint64(at), uint64(h.l.cur.start)}
		h.turns++
	})
	return Charge{s.Charged, h}
}

// Charge is a Cell whose bytes are noted in a hand.
type Charge struct {
	Cell
	h *Hand
}

// Add counts bytes, which may be negative. The count and its note stand side by side:
// a kill between the two leaves as many bytes counted that did not pass. So what comes
// second is written to before, lest it wait there for its page, which the kernel
// protects whenever it has written it to the disk.
func (c Charge) Add(bytes int64) {
	c.h.l.do(func() {
		before, after := c.h.charged, c.h.charged+uint64(bytes)
		if bytes < 0 {
			atomic.AddUint64(c.p, 0)
			c.h.charged = after
			lower(c.p, uint64(-bytes))
			return
		}
		atomic.StoreUint64(&c.h.charged, before)
		atomic.AddUint64(c.p, uint64(bytes))
		c.h.charged = after
	})
}

// held returns how many bytes are in the hand.
func (p *page) held(boot uint64) uint64 {
	if p.boot != boot {
		return 0
	}
	written, passed := p.Progress.Written(), uint64(0)
	for i := range p.marks {
		if m := &p.marks[i]; m.end <= written {
			passed = max(passed, m.passed)
		}
	}
	n := p.charged - p.dropped - passed
	if n > handful {
		return 0
	}
	return n
}

// give calls do with what is to be given back, and to which counts.
func (l *Ledger) give(h *page, do func(at int, bytes uint64)) {
	n := h.held(l.boot)
	for i := range uint64(2) {
		t := &h.turn[(h.turns-i)%2]
		some := n
		if i == 0 {
			some = min(n, h.charged-t.since)
		}
		if n -= some; some > 0 && l.isCell(t.cell, t.start) {
			do(int(t.cell), some)
		}
	}
}

// isCell reports whether there is a count at that place of the file, in the table of a
// cycle that begins then.
func (l *Ledger) isCell(at, start uint64) bool {
	table := l.table(int64(start))
	if table < 0 || at%8 != 0 {
		return false
	}
	first := uint64(l.tableAt(table))
	return at >= first && at < first+8*uint64(columns*l.slots)
}

// page returns the place of a hand.
func (l *Ledger) page(i int) *page {
	return (*page)(unsafe.Pointer(&l.mem[handsAt+i*handSize]))
}

// Hand takes a hand, after it has given back what is in those of processes that have
// ended. It is nil if there is none left, or the system does not know such locks: then
// what a gate has in hand stays charged when it is killed. Close gives it back.
func (l *Ledger) Hand() *Hand {
	mine := -1
	for i := range hands {
		if !l.lock(i) {
			continue
		}
		l.do(func() { l.giveBack(l.page(i)) })
		if mine < 0 {
			mine = i
		} else {
			l.unlock(i)
		}
	}
	if mine < 0 {
		return nil
	}
	l.mine = &Hand{l, l.page(mine)}
	return l.mine
}

// giveBack gives back what is in a hand, and empties it. Killed between the two, it has
// given back too little: so the pages are there by then, to be written to.
func (l *Ledger) giveBack(h *page) {
	type part struct {
		at    int
		bytes uint64
	}
	var parts []part
	l.give(h, func(at int, bytes uint64) { parts = append(parts, part{at, bytes}) })
	for _, p := range parts {
		atomic.AddUint64(l.word(p.at), 0)
	}
	h.boot = 0
	for _, p := range parts {
		lower(l.word(p.at), p.bytes)
	}
	*h = page{boot: l.boot}
}

// lower takes from a count, and not below 0.
func lower(p *uint64, bytes uint64) {
	for {
		n := atomic.LoadUint64(p)
		if atomic.CompareAndSwapUint64(p, n, n-min(n, bytes)) {
			return
		}
	}
}

// left finds what is in hands of processes that have ended, for those who only look.
func (l *Ledger) left() (m map[int]uint64) {
	l.do(func() {
		m = map[int]uint64{}
		for i := range hands {
			if !l.locked(i) {
				l.give(l.page(i), func(at int, bytes uint64) { m[at] += bytes })
			}
		}
	})
	return m
}

// hash makes a number of the name of a boot, never 0.
func hash(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return max(binary.LittleEndian.Uint64(h.Sum(nil)), 1)
}
