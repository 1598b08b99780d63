package gate

import (
	"math"
	"time"

	"framepipe/internal/budget"
)

// Cell is the byte count of a slot. Other gates read it and add to it concurrently. The
// sum of all cells of a window never overflows.
type Cell interface {
	Add(bytes int64)
	Load() int64
}

// Flag is the mark of a slot. Other gates read and set it concurrently; no gate clears it.
type Flag interface {
	Set()
	Load() bool
}

// Slot describes the slot of a time, and the earlier slots in its window.
type Slot struct {
	Charged, Offered Cell // of this gate
	Marked           Flag // set if bytes passed only because windows are free
	// Now are the charged counts of all gates that share the quota, in this slot and
	// the next: another gate's clock may be ahead, and its bytes in the next slot
	// leave this gate less room.
	Now        []Cell
	Start, End int64  // of the slot, by the gate's clock
	Shift      int64  // the Book's clock minus the gate's
	Past       []Past // nearest first
}

// Past is a slot that has ended. Another gate whose clock is behind
// may still count in it.
type Past struct {
	Cells []Cell
	End   int64 // by the gate's clock
}

// Book stores the counts of slots outside the gate, in a ledger. It uses the wall
// clock, which may be set; the gate's clock is monotonic.
type Book interface {
	// Slot returns the slot of a time, and the earlier slots that end less than a
	// window before it starts.
	Slot(now int64) (Slot, error)
	// Before returns the bytes charged in the cycle of a slot before that slot.
	Before(s *Slot) int64
	// Counts calls do with the counts of each lane, for each slot in [from, to) by
	// the Book's clock, oldest first. If from is 0, it begins with the first slot
	// that a budget needs. Only a gate with a budget calls it.
	Counts(from, to int64, do func(lane int, start, offered, charged int64, marked bool))
}

// booked is a window whose counts are in a Book. While the Book fails, the window counts
// alone and tries the Book again every retry.
type booked interface {
	window
	offer(bytes int64)
	failed() error // of the last attempt
}

// shared is a sliding window whose counts are in a Book. It bounds the bytes of all
// gates that count there.
//
// Like sliding, it counts all slots that a span of the window's length can touch, but
// the slots are the Book's. It counts this gate's own bytes by the monotonic clock in a
// sliding window, whose slots are finer. So a single gate uses as much of the quota with
// a Book as without, and continues if the Book fails.
type shared struct {
	limit  int64
	length int64
	book   Book
	slot   Slot
	old    int64 // bytes of other gates in slot.Past[1:]
	err    error

	fine  *sliding
	own   map[int64]int64 // this gate's part of a slot's count, by its end on the Book's clock
	past  []int64         // the same for slot.Past
	added int64           // the same for the current slot
}

func newShared(fine *sliding, length time.Duration, book Book) *shared {
	return &shared{limit: fine.limit, length: int64(length), book: book, fine: fine, own: map[int64]int64{}}
}

func (s *shared) quota() int64   { return s.limit }
func (s *shared) refresh() int64 { return min(s.slot.End, s.fine.end) }
func (s *shared) begun() int64    { return 0 }
func (s *shared) failed() error  { return s.err }

func (s *shared) advance(now int64) { s.step(now) }

// step moves to now, and reports whether a new slot began.
func (s *shared) step(now int64) bool {
	s.fine.advance(now)
	if now < s.slot.End {
		return false
	}
	if s.added != 0 {
		s.own[s.slot.End+s.slot.Shift] += s.added
		s.added = 0
	}
	slot, err := s.book.Slot(now)
	s.err = err
	s.slot, s.old, s.past = slot, 0, s.past[:0]
	if err != nil {
		s.slot = Slot{End: now + int64(retry)}
		return true
	}
	keep := make(map[int64]int64, len(s.own))
	for i, p := range slot.Past {
		at := p.End + slot.Shift
		n := s.own[at]
		if n != 0 {
			keep[at] = n
		}
		s.past = append(s.past, n)
		if i > 0 {
			s.old += s.others(i)
		}
	}
	// A Book whose clock was set back may return to an earlier slot.
	s.added = s.own[slot.End+slot.Shift]
	s.own = keep
	return true
}

func (s *shared) used() int64 {
	n := s.old + max(sum(s.slot.Now)-s.added, 0) + s.fine.used()
	if len(s.slot.Past) > 0 {
		n += s.others(0)
	}
	return n
}

// others returns the bytes of other gates in a past slot. If the slot's cycle has lost its
// table, the count may be less than this gate's own bytes.
func (s *shared) others(i int) int64 { return max(sum(s.slot.Past[i].Cells)-s.past[i], 0) }

func (s *shared) add(bytes int64) {
	s.fine.add(bytes)
	if s.err == nil {
		s.added += bytes
		count(s.slot.Charged, bytes)
	}
}

func (s *shared) offer(bytes int64) { count(s.slot.Offered, bytes) }

// sustainable works like that of sliding. This gate's bytes leave the window with their
// fine slots; the bytes of other gates leave a window after the end of their slots. Each
// of these times bounds the rate.
func (s *shared) sustainable(now int64) float64 {
	if s.err != nil {
		return s.fine.sustainable(now)
	}
	rest := s.used()
	rate := -1.0
	bound := func(leaves int64) bool {
		if r := float64(s.limit-rest) / float64(max(leaves-now, 1)) * 1e9; rate < 0 || r < rate {
			rate = r
		}
		return rate > 0
	}
	// The oldest bytes leave first.
	n := int64(len(s.fine.ring))
	j, i := s.fine.now-n+1, len(s.slot.Past)-1
	for j <= s.fine.now || i >= -1 {
		leaves := int64(math.MaxInt64)
		if i >= 0 {
			leaves = s.slot.Past[i].End + s.length
		} else if i == -1 {
			leaves = s.slot.End + s.length
		}
		if j <= s.fine.now && (j+n)*s.fine.slot <= leaves {
			if !bound((j + n) * s.fine.slot) {
				return 0
			}
			if j >= 0 {
				rest -= s.fine.ring[j%n]
			}
			j++
			continue
		}
		if !bound(leaves) {
			return 0
		}
		if i >= 0 {
			rest -= s.others(i)
		}
		i--
	}
	return rate
}

// budgeted is a shared window that may exceed the quota in windows that the provider does
// not bill: a frame passes if it fits into the window or into the budget's window.
//
// The budget's window begins with the earliest slot whose provider sample must not
// exceed the quota (budget.Limit). It is never longer than the window, and is empty while
// a burst may run. The gate passes, paces and stops by the one of the two that holds
// less, so after the free windows are spent, traffic slows down gradually as without them.
type budgeted struct {
	*shared
	budget  *budget.Budget
	fed     int64 // end of the counts passed to the budget, by the Book's clock
	now     int64
	alone   int64 // no window is free until then: the Book failed, or its clock was set
	limited bool
	depth   int   // number of past slots in the budget's window
	older   int64 // bytes in those, without the nearest
	marked  bool
}

func (w *budgeted) advance(now int64) {
	w.now = now
	shift, failed := w.slot.Shift, w.err != nil
	if !w.step(now) {
		return
	}
	w.marked = false
	if w.err != nil {
		w.alone = math.MaxInt64
		return
	}
	if failed || w.fed != 0 && w.slot.Shift != shift {
		// The slots do not have the bytes of the last window, or have them at another
		// time.
		w.alone = now + w.length
	}
	at := w.slot.Start + w.slot.Shift
	length := w.slot.End - w.slot.Start
	from := w.fed - late*length
	if w.fed == 0 || at < w.fed || at-w.fed > longest*length {
		// The gate started, or the clock was set back or far ahead: start again.
		w.budget.Reset()
		from = 0
	}
	w.book.Counts(from, at, w.budget.Count)
	w.fed = at
	k, limited := w.budget.Limit(at)
	w.limited = limited
	w.depth = min(max(int(at/length-k), 0), len(w.slot.Past))
	w.older = 0
	for i := 1; i < w.depth; i++ {
		w.older += sum(w.slot.Past[i].Cells)
	}
}

// late is the number of past slots that are read again: other gates may have counted
// in them since.
const late = 2

// longest is the maximum number of slots passed to a budget one by one: four months.
const longest = 1 << 21

// free returns the bytes in the budget's window.
func (w *budgeted) free() int64 {
	if !w.limited {
		return 0
	}
	n := w.older + sum(w.slot.Now)
	if w.depth > 0 {
		n += sum(w.slot.Past[0].Cells)
	}
	return n
}

// used returns the lesser of the two. In a marked slot, all bytes count as beyond the
// window, so only the budget's window limits them, unless control frames have taken
// that over the quota.
func (w *budgeted) used() int64 {
	if w.now < w.alone {
		return w.shared.used()
	}
	free := w.free()
	if w.isMarked() && free <= w.limit {
		return free
	}
	return min(w.shared.used(), free)
}

func (w *budgeted) isMarked() bool {
	w.marked = w.marked || w.slot.Marked != nil && w.slot.Marked.Load()
	return w.marked
}

// add marks the slot before it counts bytes that exceed the window. Without the mark,
// other gates, and this one after a restart, would not count windows as over.
func (w *budgeted) add(bytes int64) {
	if bytes <= 0 { // undo
		w.shared.add(bytes)
		return
	}
	over := w.shared.used()+bytes > w.limit
	w.mark(over)
	w.shared.add(bytes)
	if !over { // other gates count too
		w.mark(w.shared.used() > w.limit)
	}
}

func (w *budgeted) mark(over bool) {
	if over && !w.marked && w.slot.Marked != nil {
		w.marked = true
		w.slot.Marked.Set()
	}
}

func (w *budgeted) sustainable(now int64) float64 {
	switch {
	case now < w.alone:
		return w.shared.sustainable(now)
	case !w.limited:
		return maxQuota
	}
	rest, rate := w.free(), math.Inf(1)
	bound := func(leaves int64) {
		rate = min(rate, float64(w.limit-rest)/float64(max(leaves-now, 1))*1e9)
	}
	for i := w.depth - 1; i >= 0; i-- { // the oldest bytes leave first
		p := w.slot.Past[i]
		bound(p.End + w.length)
		rest -= sum(p.Cells)
	}
	bound(w.slot.End + w.length)
	return max(rate, w.shared.sustainable(now), 0)
}

// sharedCycle is an aligned window whose counts are in a Book: a transfer cap.
//
// While the Book fails, its last count still uses up the cap, unless that cycle
// has ended since. Bytes that pass meanwhile use it up too. They are charged to the
// Book as soon as it works again, in the slot of that time: only the sum matters for a cap.
type sharedCycle struct {
	aligned
	book Book
	slot Slot
	old  int64 // bytes of the cycle before the slot
	end  int64 // of the cycle, by the wall clock
	err  error
	// Bytes counted while the Book fails.
	charged, offered memory
}

// memory is a Cell in memory.
type memory int64

func (m *memory) Add(bytes int64) { *m += memory(bytes) }
func (m *memory) Load() int64     { return int64(*m) }

func newSharedCycle(a *aligned, book Book) *sharedCycle {
	return &sharedCycle{aligned: *a, book: book}
}

func (s *sharedCycle) used() int64       { return s.old + sum(s.slot.Now) }
func (s *sharedCycle) add(bytes int64)   { count(s.slot.Charged, bytes) }
func (s *sharedCycle) offer(bytes int64) { count(s.slot.Offered, bytes) }
func (s *sharedCycle) failed() error     { return s.err }
func (s *sharedCycle) refresh() int64    { return min(s.check, s.slot.End) }

func (s *sharedCycle) advance(now int64) {
	s.aligned.advance(now)
	if now < s.slot.End {
		return
	}
	was := s.err
	slot, err := s.book.Slot(now)
	s.err = err
	if err != nil {
		if was == nil {
			s.old = s.used()
		}
		if s.start == s.end {
			s.old = 0
		}
		s.slot = Slot{Charged: &s.charged, Offered: &s.offered, Now: []Cell{&s.charged}, End: now + int64(retry)}
		return
	}
	if was != nil {
		count(slot.Charged, int64(s.charged))
		count(slot.Offered, int64(s.offered))
		s.charged, s.offered = 0, 0
	}
	s.slot, s.old = slot, s.book.Before(&slot)
	_, s.end = s.bounds(slot.Start + slot.Shift)
}

func (s *sharedCycle) sustainable(now int64) float64 {
	return max(float64(s.most-s.used())/float64(max(s.until-now, 1))*1e9, 0)
}

func count(c Cell, bytes int64) {
	if c != nil {
		c.Add(bytes)
	}
}

func sum(cells []Cell) (n int64) {
	for _, c := range cells {
		n += c.Load()
	}
	return n
}
