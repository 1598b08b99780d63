package gate

import (
	"math"
	"time"

	"framepipe/internal/budget"
)

// Cell is the count of a slot, in bytes, that other gates may read and add to
// at the same time. Whatever they write there, it is not so much that the sum of all
// the slots of a window overflows.
type Cell interface {
	Add(bytes int64)
	Load() int64
}

// Flag is a mark of a slot that others may set and read. It is never taken back.
type Flag interface {
	Set()
	Load() bool
}

// Slot is what a Book knows of the slot in which a time lies, and of those
// before it that the window reaches back to.
type Slot struct {
	Charged, Offered Cell // where this gate counts
	Marked           Flag // that something passed only because its windows are free
	// Now are the counts of the slot, of all gates that share the quota, and those of
	// the one after it: a gate that read the clock a while ago is not to pass what
	// others have no room left for.
	Now        []Cell
	Start, End int64 // of the slot, by the gate's clock
	Shift      int64 // what the Book's clock shows more than the gate's
	Past       []Past
}

// Past is a slot that is over, the nearest first. Clocks differ, so that others
// may still count in it.
type Past struct {
	Cells []Cell
	End   int64 // by the gate's clock
}

// Book keeps the counts of slots outside of the gate: in a ledger. It has a clock
// of its own, which others may set; the gate's goes steadily.
type Book interface {
	// Turn returns the slot in which a time lies, and those before it that end
	// less than a window before it starts.
	Turn(now int64) (Slot, error)
	// Cycle returns what was charged in the cycle of a slot before that slot.
	Cycle(s *Slot) int64
	// Counts calls do with what was counted, lane by lane, in each of the slots
	// from one time to before another, by the Book's clock, the oldest first. If
	// from is 0 these are all that a budget wants to know of. It is asked only
	// if there is a budget.
	Counts(from, to int64, do func(lane int, start, offered, charged int64, marked bool))
	// Gone reports whether what was counted before is lost: nothing may be taken for
	// free. It may turn out as the counts are read.
	Gone() bool
}

// booked is a window whose counts are in a Book.
type booked interface {
	window
	offer(bytes int64)
	failed() error // of the last try to turn to a slot
}

// shared is a sliding window whose counts are in a Book. It bounds what all the
// gates have passed that count there.
//
// It counts the slots that a span of the window's length can touch, as sliding
// does, of a length that the Book decides. What this gate itself has passed it
// knows better: that is counted in the finer slots of a window of its own, and
// by a clock that nobody sets. So a gate that is alone gives away no more with a
// Book than without.
type shared struct {
	limit  int64
	length int64
	book   Book
	slot   Slot
	old    int64 // bytes of others in the slots before the last one that is over
	err    error

	fine  *sliding
	own   map[int64]int64 // by when a slot ends, on the Book's clock: what of its count is ours
	past  []int64         // the same for slot.Past
	added int64           // and for the current slot
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
	slot, err := s.book.Turn(now)
	s.err = err
	if err != nil {
		return false
	}
	if s.added != 0 {
		s.own[s.slot.End+s.slot.Shift] += s.added
	}
	s.slot, s.old, s.past = slot, 0, s.past[:0]
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

// others returns the bytes of others in a slot that is over. A Book that has lost what
// it had may know of less than our own.
func (s *shared) others(i int) int64 { return max(sum(s.slot.Past[i].Cells)-s.past[i], 0) }

func (s *shared) add(bytes int64) {
	s.fine.add(bytes)
	s.added += bytes
	count(s.slot.Charged, bytes)
}

func (s *shared) offer(bytes int64) { count(s.slot.Offered, bytes) }

// sustainable is as that of sliding: our own bytes leave with their fine slots,
// the others' a window after the end of theirs. All of these bound the rate.
func (s *shared) sustainable(now int64) float64 {
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

// budgeted is a shared window that may be exceeded where the provider does not
// bill it: a frame fits if it does into the window, or into what a budget leaves.
//
// What the budget leaves is a window, too: that of the slots from the earliest one
// on in which a provider's sample may begin that may not go over (budget.Limit).
// It is never longer, and it is none at all while a burst may run. So the gate
// lets pass, paces and stops by whichever of the two holds less, and a burst that
// has used up what was free fades as any other does.
type budgeted struct {
	*shared
	budget  *budget.Budget
	fed     int64 // up to when the budget knows what was counted, by the Book's clock
	now     int64
	alone   int64 // until when nothing is free: the Book's clock was set, or it could not be used
	limited bool
	depth   int   // how many slots of the past are in the budget's window
	older   int64 // what those hold but for the nearest
	marked  bool
}

func (w *budgeted) advance(now int64) {
	w.now = now
	shift, failed := w.slot.Shift, w.err != nil
	if !w.turn(now) {
		return
	}
	if failed || w.fed != 0 && w.slot.Shift != shift {
		// What passed lately is in no slot, or in slots of another time, where no
		// window that begins now has it.
		w.alone = now + w.length
	}
	at := w.slot.Start + w.slot.Shift
	length := w.slot.End - w.slot.Start
	from := w.fed - settle*length
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
	w.marked = false
}

// settle is how many slots that are over are read again, in which others may have
// counted since.
const settle = 2

// longest is how many slots, of four months or so, a budget is told of one by one.
const longest = 1 << 21

// free is what the budget's window holds.
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

// used is the lesser of the two. In a slot that is marked all counts as passed
// beyond the window: it is held against the budget's alone, unless that is exceeded
// already, by what passes whatever there is room for.
func (w *budgeted) used() int64 {
	if w.now < w.alone {
		return w.shared.used()
	}
	free, own := w.free(), w.shared.used()
	switch {
	case w.book.Gone():
		return own
	case w.isMarked() && free <= w.limit:
		return free
	}
	return min(own, free)
}

func (w *budgeted) isMarked() bool {
	w.marked = w.marked || w.slot.Marked != nil && w.slot.Marked.Load()
	return w.marked
}

// add marks the slot before anything is counted in it that the window has no room
// for: others, and this gate after a restart, then know that windows may have
// gone over.
func (w *budgeted) add(bytes int64) {
	if bytes <= 0 { // given back
		w.shared.add(bytes)
		return
	}
	over := w.shared.used()+bytes > w.limit
	w.mark(over)
	w.shared.add(bytes)
	if !over { // others count, too
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
	case now < w.alone || w.book.Gone():
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

// sharedCycle is an aligned window whose counts are in a Book: what may pass in a
// billing cycle.
type sharedCycle struct {
	aligned
	book Book
	slot Slot
	old  int64 // bytes of the cycle before the slot
	err  error

	// What was used as long as the Book was whole, and in which cycle.
	known, cycle int64
	lost         bool // it is not any more, and old is of what was counted since
}

func newSharedCycle(a *aligned, book Book) *sharedCycle {
	return &sharedCycle{aligned: *a, book: book}
}

func (s *sharedCycle) used() int64 {
	n := s.old + sum(s.slot.Now)
	if !s.book.Gone() {
		s.known, s.cycle = n, s.start
		return n
	}
	if !s.lost {
		s.lost, s.old = true, 0
		n = sum(s.slot.Now)
	}
	if s.cycle == s.start {
		n += s.known
	}
	return n
}

func (s *sharedCycle) add(bytes int64)   { count(s.slot.Charged, bytes) }
func (s *sharedCycle) offer(bytes int64) { count(s.slot.Offered, bytes) }
func (s *sharedCycle) failed() error     { return s.err }
func (s *sharedCycle) refresh() int64    { return min(s.check, s.slot.End) }

func (s *sharedCycle) advance(now int64) {
	s.aligned.advance(now)
	if now < s.slot.End {
		return
	}
	slot, err := s.book.Turn(now)
	if s.err = err; err == nil {
		s.slot, s.old, s.lost = slot, s.book.Cycle(&slot), s.book.Gone()
	}
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
