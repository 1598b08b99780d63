package gate

import (
	"math"
	"time"

	"framepipe/internal/budget"
)

// Cell is the count of a slot, in bytes. Other gates read it and add to it at the same
// time. The sum of all cells of a window never overflows.
type Cell interface {
	Add(bytes int64)
	Load() int64
}

// Flag is the mark of a slot. Other gates read it and set it; none clears it.
type Flag interface {
	Set()
	Load() bool
}

// Slot describes the slot of a time, and those before it that the window reaches back
// to.
type Slot struct {
	Charged, Offered Cell // of this gate
	Marked           Flag // something passed only because its windows are free
	// Now are the charged counts of all gates that share the quota, of this slot and
	// of the next one: the clock of another gate may be ahead, and what it has passed
	// there leaves this gate less room.
	Now        []Cell
	Start, End int64 // of the slot, by the gate's clock
	Shift      int64 // how much the Book's clock is ahead of the gate's
	Past       []Past
}

// Past is a slot that is over, the nearest first. Another gate whose clock is behind
// may still count in it.
type Past struct {
	Cells []Cell
	End   int64 // by the gate's clock
}

// Book keeps the counts of slots outside of the gate: in a ledger. It goes by the clock
// on the wall, which may be set; the gate's clock goes steadily.
type Book interface {
	// Slot returns the slot of a time, and those before it that end less than a
	// window before it starts.
	Slot(now int64) (Slot, error)
	// Before returns the bytes charged in the slot's cycle before the slot.
	Before(s *Slot) int64
	// Counts calls do with the counts of each lane, for each slot from one time to
	// before another, by the Book's clock, the oldest first. If from is 0, it begins
	// where a budget has to. Only a gate with a budget calls it.
	Counts(from, to int64, do func(lane int, start, offered, charged int64, marked bool))
}

// booked is a window whose counts are in a Book. While the Book fails, it counts by
// itself and tries the Book again every retry.
type booked interface {
	window
	offer(bytes int64)
	failed() error // of the last try
}

// shared is a sliding window whose counts are in a Book. It bounds the bytes of all
// gates that count there.
//
// As sliding does, it counts all slots that a span of the window's length can touch;
// here the Book decides how long they are. This gate's own bytes it counts in the finer
// slots of a window of its own, and by a steady clock. So a gate that is alone gives
// away no more with a Book than without, and goes on if the Book fails.
type shared struct {
	limit  int64
	length int64
	book   Book
	slot   Slot
	old    int64 // bytes of others in slot.Past[1:]
	err    error

	fine  *sliding
	own   map[int64]int64 // our share of a slot's count, by its end on the Book's clock
	past  []int64         // the same for slot.Past
	added int64           // the same for the current slot
}

func newShared(fine *sliding, length time.Duration, book Book) *shared {
	return &shared{limit: fine.limit, length: int64(length), book: book, fine: fine, own: map[int64]int64{}}
}

func (s *shared) quota() int64   { return s.limit }
func (s *shared) refresh() int64 { return min(s.slot.End, s.fine.end) }
func (s *shared) failed() error  { return s.err }

func (s *shared) advance(now int64) { s.turn(now) }

// turn moves to now, and reports whether another slot began.
func (s *shared) turn(now int64) bool {
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
	// After its clock was set back, a Book may return to a slot.
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

// others returns the bytes of others in a slot that is over. Its cycle may have lost its
// table, and then it has less than our own.
func (s *shared) others(i int) int64 { return max(sum(s.slot.Past[i].Cells)-s.past[i], 0) }

func (s *shared) add(bytes int64) {
	s.fine.add(bytes)
	if s.err == nil {
		s.added += bytes
		count(s.slot.Charged, bytes)
	}
}

func (s *shared) offer(bytes int64) { count(s.slot.Offered, bytes) }

// sustainable is that of sliding: our own bytes leave with their fine slots, those of
// others a window after the end of theirs. Each of these bounds the rate.
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
	// The oldest leave first.
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

// budgeted is a shared window that may hold more than the quota where the provider
// does not bill that: a frame passes if it fits into the window or into the budget's.
//
// The budget's window holds the slots from the earliest one on in which a provider's
// sample may begin that may not go over (budget.Limit). It is never longer than the
// window, and empty while a burst may run. The gate passes, paces and stops by the one
// that holds less, so that a burst that has used up the free windows fades as any other.
type budgeted struct {
	*shared
	budget  *budget.Budget
	fed     int64 // the end of the counts that the budget knows, by the Book's clock
	now     int64
	alone   int64 // until when nothing is free: the Book's clock was set, or it failed
	limited bool
	depth   int   // how many slots of the past are in the budget's window
	older   int64 // bytes in those, but for the nearest
	marked  bool
}

func (w *budgeted) advance(now int64) {
	w.now = now
	shift, failed := w.slot.Shift, w.err != nil
	if !w.turn(now) {
		return
	}
	w.marked = false
	if w.err != nil {
		w.alone = math.MaxInt64
		return
	}
	if failed || w.fed != 0 && w.slot.Shift != shift {
		// The bytes of the last window are in no slot, or in slots of another time.
		w.alone = now + w.length
	}
	at := w.slot.Start + w.slot.Shift
	length := w.slot.End - w.slot.Start
	from := w.fed - late*length
	if w.fed == 0 || at < w.fed || at-w.fed > longest*length {
		// A start, or a clock that was set back, or years ahead: all anew.
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

// late is how many slots that are over are read again: other gates may have counted
// in them since.
const late = 2

// longest is how many slots a budget is told of one by one: those of four months.
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

// used is the lesser of the two. In a marked slot all bytes count as passed beyond the
// window: they are held against the budget's alone, unless control frames have taken
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

// add marks the slot before it counts bytes there that the window has no room for.
// Other gates, and this one after a restart, then know that windows may be over.
func (w *budgeted) add(bytes int64) {
	if bytes <= 0 { // taken back
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
	for i := w.depth - 1; i >= 0; i-- { // the oldest leave first
		p := w.slot.Past[i]
		bound(p.End + w.length)
		rest -= sum(p.Cells)
	}
	bound(w.slot.End + w.length)
	return max(rate, w.shared.sustainable(now), 0)
}

// sharedCycle is an aligned window whose counts are in a Book: a transfer cap.
//
// While the Book fails, its last count is still held against the cap, unless that cycle
// has ended since; and so are the bytes that pass meanwhile, which are charged to the
// Book as soon as it can be used: a cap is a sum, and does not care in which slot.
type sharedCycle struct {
	aligned
	book Book
	slot Slot
	old  int64 // bytes of the cycle before the slot
	end  int64 // of the cycle, on the wall
	err  error
	// Bytes that are in no Book, because it fails.
	charged, offered memory
}

// memory is a Cell without a Book.
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
