package gate

import (
	"maps"
	"math"
	"time"

	"framepipe/internal/budget"
)

// Counter is the byte count of a slot. Other gates read it and add to it concurrently. The
// sum of all counters of a window never overflows.
type Counter interface {
	Add(bytes int64)
	Load() int64
}

// Flag is the mark of a slot. Other gates read and set it concurrently; no gate clears it.
type Flag interface {
	Set()
	Load() bool
}

// View has the counters of a slot, and of the earlier slots in its window.
type View struct {
	Charged, Offered Counter // of this gate
	Marked           Flag    // set if bytes passed only because windows are free
	// Now are the charged counts of all gates that share the quota, in this slot and
	// the next: another gate's clock may be ahead, and its bytes in the next slot
	// leave this gate less room.
	Now        []Counter
	Start, End int64  // of the slot, by the gate's clock
	Shift      int64  // the Book's clock minus the gate's
	Past       []Past // nearest first
}

// Past is a slot that has ended. Another gate whose clock is behind
// may still count in it.
type Past struct {
	Charged []Counter // of all gates that share the quota
	End     int64     // by the gate's clock
}

// Book stores the counts of slots outside the gate, in a ledger. It uses the wall
// clock, which may be set; the gate's clock is monotonic.
type Book interface {
	// View returns the slot of a time, and the earlier slots that end less than the
	// longest sample of the poller before it starts.
	View(now int64) (View, error)
	// Before returns the bytes charged in the cycle of a View before its slot.
	Before(v *View) int64
	// Counts calls do with the counts of each lane, for each slot in [from, to) by
	// the Book's clock, oldest first. If from is 0, it begins with the first slot
	// that a budget needs. Only a gate with a budget calls it.
	Counts(from, to int64, do func(lane int, start, offered, charged int64, marked bool))
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
	view   View
	old    int64 // bytes of other gates in view.Past[1:]
	err    error

	fine  *sliding
	own   map[int64]int64 // this gate's part of a slot's count, by its end on the Book's clock
	past  []int64         // the same for view.Past
	added int64           // the same for the current slot

	leaving []departure // of outlook
}

// newShared returns a shared window. length is that of the longest sample.
func newShared(fine *sliding, length time.Duration, book Book) *shared {
	return &shared{limit: fine.limit, length: int64(length), book: book, fine: fine, own: map[int64]int64{}}
}

func (s *shared) quota() int64   { return s.limit }
func (s *shared) refresh() int64 { return min(s.view.End, s.fine.end) }
func (s *shared) mean() float64  { return s.fine.mean() }
func (s *shared) failed() error  { return s.err }

func (s *shared) advance(now int64) { s.step(now) }

// step moves to now, and reports whether a new slot began.
func (s *shared) step(now int64) bool {
	s.fine.advance(now)
	if now < s.view.End {
		return false
	}
	if s.err == nil {
		s.own[s.view.End+s.view.Shift] = s.added
	}
	view, err := s.book.View(now)
	s.view, s.err, s.old, s.past = view, err, 0, s.past[:0]
	if err != nil {
		s.view = View{End: now + int64(retry)}
		return true
	}
	// A Book whose clock was set back may return to an earlier slot.
	s.added = s.own[view.End+view.Shift]
	for i, p := range view.Past {
		s.past = append(s.past, s.own[p.End+view.Shift])
		if i > 0 {
			s.old += s.others(i)
		}
	}
	at := view.Start + view.Shift
	maps.DeleteFunc(s.own, func(end, _ int64) bool { return end <= at-s.length })
	return true
}

func (s *shared) used() int64 { return s.foreign() + s.fine.used() }

// foreign returns the bytes of other gates in the window.
func (s *shared) foreign() int64 {
	n := s.old + max(sum(s.view.Now)-s.added, 0)
	if len(s.view.Past) > 0 {
		n += s.others(0)
	}
	return n
}

// others returns the bytes of other gates in a past slot. If the slot's cycle has lost its
// table, the count may be less than this gate's own bytes.
func (s *shared) others(i int) int64 { return max(sum(s.view.Past[i].Charged)-s.past[i], 0) }

func (s *shared) add(bytes int64) {
	s.fine.add(bytes)
	if s.err == nil {
		s.added += bytes
		s.view.Charged.Add(bytes)
	}
}

func (s *shared) offer(bytes int64) {
	if s.err == nil {
		s.view.Offered.Add(bytes)
	}
}

// outlook works like that of sliding. This gate's bytes leave the window with their
// fine slots; the bytes of other gates leave a window after the end of their slots.
func (s *shared) outlook(now, need int64) (rate float64, opens int64) {
	if s.err != nil {
		return s.fine.outlook(now, need)
	}
	s.leaving = s.leaving[:0]
	for i := len(s.view.Past) - 1; i >= 0; i-- {
		s.leaving = append(s.leaving, departure{s.view.Past[i].End + s.length, s.others(i)})
	}
	s.leaving = append(s.leaving, departure{s.view.End + s.length, 0})
	return s.fine.beside(now, need, s.foreign(), s.leaving)
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
	counted int64 // end of the counts passed to the budget, by the Book's clock
	now     int64
	flat    int64 // no window is free until then: the Book failed, or its clock was set
	limited bool
	depth   int   // number of past slots in the budget's window
	older   int64 // bytes in those, without the nearest
	limits  func(quota int64) (limit int64)
	base    int64 // the limit of the commit
}

// hold sets the quota: the commit, or more if that will be billed in any case.
func (w *budgeted) hold(quota int64) {
	w.limit = w.limits(quota)
	w.fine.limit, w.fine.more = w.limit, quota-w.limit
}

func (w *budgeted) advance(now int64) {
	w.now = now
	shift, failed := w.view.Shift, w.err != nil
	if !w.step(now) {
		return
	}
	if w.err != nil {
		w.flat, w.limit = math.MaxInt64, w.base
		w.fine.limit = w.base
		return
	}
	if failed || w.counted != 0 && w.view.Shift != shift {
		// The slots do not have the bytes of the last window, or have them at another
		// time.
		w.flat = now + w.length
	}
	at := w.view.Start + w.view.Shift
	length := w.view.End - w.view.Start
	from := w.counted - late*length
	if w.counted == 0 || at < w.counted { // the gate started, or the clock was set back
		w.budget.Reset()
		from = 0
	}
	w.book.Counts(from, at, w.budget.Count)
	w.counted = at
	w.hold(w.budget.Quota(at))
	k, limited := w.budget.Limit(at)
	w.limited = limited
	w.depth = min(max(int(at/length-k), 0), len(w.view.Past))
	w.older = 0
	for i := 1; i < w.depth; i++ {
		w.older += sum(w.view.Past[i].Charged)
	}
}

// late is the number of past slots that are read again: other gates may have counted
// in them since.
const late = 2

// free returns the bytes in the budget's window.
func (w *budgeted) free() int64 {
	if !w.limited {
		return 0
	}
	n := w.older + sum(w.view.Now)
	if w.depth > 0 {
		n += sum(w.view.Past[0].Charged)
	}
	return n
}

// used returns the lesser of the two. In a marked slot, all bytes count as beyond the
// window, so only the budget's window limits them, unless control frames have taken
// that over the quota.
func (w *budgeted) used() int64 {
	if w.now < w.flat {
		return w.shared.used()
	}
	free := w.free()
	if free <= w.limit && w.view.Marked.Load() {
		return free
	}
	return min(w.shared.used(), free)
}

// add marks the slot before it counts bytes that exceed the window. Without the mark,
// other gates, and this one after a restart, would not count windows as over. Other gates
// may count meanwhile, so that it looks again after that.
func (w *budgeted) add(bytes int64) {
	if bytes <= 0 { // a charge is undone
		w.shared.add(bytes)
		return
	}
	w.mark(w.shared.used() + bytes)
	w.shared.add(bytes)
	w.mark(w.shared.used())
}

// mark marks the slot if the window is over the commit.
func (w *budgeted) mark(used int64) {
	if used > w.base && w.err == nil {
		w.view.Marked.Set()
	}
}

func (w *budgeted) outlook(now, need int64) (rate float64, opens int64) {
	switch {
	case now < w.flat:
		return w.shared.outlook(now, need)
	case !w.limited:
		return maxQuota, now
	}
	steepest := newSlope(now, w.limit-w.free(), need)
	for i := w.depth - 1; i >= 0; i-- { // the oldest bytes leave first
		p := w.view.Past[i]
		steepest.leave(p.End+w.length, sum(p.Charged))
	}
	steepest.leave(w.view.End+w.length, 0)
	rate, opens = w.shared.outlook(now, need)
	return max(rate, steepest.rate), min(opens, steepest.opens)
}

// sharedCycle is an aligned window whose counts are in a Book: a transfer cap.
//
// While the Book fails, its last count still uses up the cap, unless that cycle
// has ended since. Bytes that pass meanwhile use it up too. They are charged to the
// Book as soon as it works again, in the slot of that time: only the sum matters for a cap.
type sharedCycle struct {
	aligned
	book Book
	view View
	old  int64 // bytes of the cycle before the slot
	end  int64 // of the cycle, by the wall clock
	err  error
	// Bytes counted while the Book fails.
	charged, offered memory
}

// memory is a Counter in memory.
type memory int64

func (m *memory) Add(bytes int64) { *m += memory(bytes) }
func (m *memory) Load() int64     { return int64(*m) }

func (s *sharedCycle) used() int64       { return s.old + sum(s.view.Now) }
func (s *sharedCycle) add(bytes int64)   { s.view.Charged.Add(bytes) }
func (s *sharedCycle) offer(bytes int64) { s.view.Offered.Add(bytes) }
func (s *sharedCycle) failed() error     { return s.err }
func (s *sharedCycle) refresh() int64    { return min(s.check, s.view.End) }

func (s *sharedCycle) advance(now int64) {
	s.aligned.advance(now)
	if now < s.view.End {
		return
	}
	was := s.err
	view, err := s.book.View(now)
	s.err = err
	if err != nil {
		if was == nil {
			s.old = s.used()
		}
		if s.start == s.end {
			s.old = 0
		}
		s.view = View{Charged: &s.charged, Offered: &s.offered, Now: []Counter{&s.charged}, End: now + int64(retry)}
		return
	}
	if was != nil {
		view.Charged.Add(int64(s.charged))
		view.Offered.Add(int64(s.offered))
		s.charged, s.offered = 0, 0
	}
	s.view, s.old = view, s.book.Before(&view)
	_, s.end = s.bounds(view.Start + view.Shift)
}

func (s *sharedCycle) outlook(now, need int64) (rate float64, opens int64) {
	return s.pace(now, need, s.used())
}

func sum(counters []Counter) (n int64) {
	for _, c := range counters {
		n += c.Load()
	}
	return n
}
