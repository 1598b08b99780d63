package gate

import (
	"maps"
	"math"

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
	*sliding       // this gate's bytes
	length   int64 // of the longest sample
	old      int64 // bytes of other gates in view.Past[1:]

	own   map[int64]int64 // this gate's part of a slot's count, by its end on the Book's clock
	past  []int64         // the same for view.Past
	added int64           // the same for the current slot

	leaving []departure // of outlook
}

func (s *shared) refresh() int64 { return min(s.view.End, s.end) }

func (s *shared) advance(now int64) {
	s.sliding.advance(now)
	if now < s.view.End {
		return
	}
	if s.err == nil {
		s.own[s.view.End+s.view.Shift] = s.added
	}
	view, err := s.cfg.Book.View(now)
	s.view, s.err, s.old, s.past = view, err, 0, s.past[:0]
	if err != nil {
		s.view = View{End: now + int64(retry)}
		return
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
}

func (s *shared) used() int64 { return s.foreign() + s.sliding.used() }

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
	s.sliding.add(bytes)
	if s.err == nil {
		s.added += bytes
		s.view.Charged.Add(bytes)
	}
}

// outlook works like that of sliding. This gate's bytes leave the window with their
// fine slots; the bytes of other gates leave a window after the end of their slots.
func (s *shared) outlook(now, need int64) (rate float64, opens int64) {
	if s.err != nil {
		return s.sliding.outlook(now, need)
	}
	s.leaving = s.leaving[:0]
	for i := len(s.view.Past) - 1; i >= 0; i-- {
		s.leaving = append(s.leaving, departure{s.view.Past[i].End + s.length, s.others(i)})
	}
	s.leaving = append(s.leaving, departure{s.view.End + s.length, 0})
	return s.beside(now, need, s.foreign(), s.leaving)
}

// budgeted is a shared window that may exceed the quota in windows that the provider does
// not bill: a frame passes if it fits into the window or into the budget's window.
//
// The budget's window begins with the earliest slot whose provider sample must not
// exceed the quota (budget.Limit). It is never longer than the window, and is empty while
// a burst may run. The gate passes, paces and stops by the one of the two that holds
// less, so after the free windows are spent, traffic slows down gradually as without them.
//
// While more than the quota will be billed in any case, the gate's own window holds to that. At the
// end of the cycle the budget's window begins with the first sample that touches the next cycle,
// and holds to the quota besides.
type budgeted struct {
	*shared
	commit  int64 // the limit of the budget's window; limit is more if that will be billed in any case
	counted int64 // end of the counts passed to the budget, by the Book's clock
	at      int64 // the time
	flat    int64 // no window is free until then: the Book failed, or its clock was set
	limited bool
	depth   int   // number of past slots in the budget's window
	older   int64 // bytes in those, without the nearest
}

func (w *budgeted) advance(now int64) {
	w.at = now
	was, failed := w.view, w.err != nil
	w.shared.advance(now)
	switch {
	case w.view.End == was.End:
		return
	case w.err != nil:
		w.flat = math.MaxInt64
		w.hold(w.cfg.Bytes(w.cfg.Window))
		return
	}
	if failed || w.counted != 0 && w.view.Shift != was.Shift {
		// The slots do not have the bytes of the last window, or have them at another
		// time.
		w.flat = now + w.length
	}
	at := w.view.Start + w.view.Shift
	length := w.view.End - w.view.Start
	from := w.counted - budget.Late*length
	// The gate started, or the clock was set: back, or so far ahead that the slots in between
	// take too long.
	if w.counted == 0 || at < w.counted || at-w.counted > budget.Longest*length {
		w.cfg.Budget.Reset()
		from = 0
	}
	w.cfg.Book.Counts(from, at, w.cfg.Budget.Count)
	w.counted = at
	w.hold(w.cfg.Budget.Quota(at))
	k, limited := w.cfg.Budget.Limit(at)
	w.limited = limited
	w.depth = min(max(int(at/length-k), 0), len(w.view.Past))
	w.older = 0
	for i := 1; i < w.depth; i++ {
		w.older += sum(w.view.Past[i].Charged)
	}
}

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
	own, spent := w.shared.used(), w.limit-w.commit
	switch {
	case spent > 0 && w.limited: // both must have room
		return max(own, w.free()+spent)
	case spent > 0 || w.at < w.flat:
		return own
	}
	free := w.free()
	if free <= w.commit && w.view.Marked.Load() {
		return free
	}
	return min(own, free)
}

// add marks the slot if its bytes take the window over the commit. Without the mark,
// other gates, and this one after a restart, would not count windows as over.
func (w *budgeted) add(bytes int64) {
	w.shared.add(bytes)
	if bytes > 0 && w.err == nil && w.shared.used() > w.commit {
		w.view.Marked.Set()
	}
}

func (w *budgeted) outlook(now, need int64) (rate float64, opens int64) {
	rate, opens = w.shared.outlook(now, need)
	spent := w.limit > w.commit
	switch {
	case spent && !w.limited || !spent && now < w.flat:
		return rate, opens
	case !w.limited:
		return maxQuota, now
	}
	steepest := newSlope(now, w.commit-w.free(), need)
	for i := w.depth - 1; i >= 0; i-- { // the oldest bytes leave first
		p := w.view.Past[i]
		steepest.leave(p.End+w.length, sum(p.Charged))
	}
	steepest.leave(w.view.End+w.length, sum(w.view.Now))
	if spent {
		return min(rate, steepest.rate), max(opens, steepest.opens)
	}
	return max(rate, steepest.rate), min(opens, steepest.opens)
}

// sharedCycle is an aligned window whose counts are in a Book: a transfer cap.
//
// While the Book fails, its last count still uses up the cap, unless that cycle
// has ended since. Bytes that pass meanwhile use it up too. They are charged to the
// Book as soon as it works again, in the slot of that time: only the sum matters for a cap.
type sharedCycle struct {
	aligned
	old int64 // bytes of the cycle before the slot
	end int64 // of the cycle, by the wall clock
	// Bytes counted while the Book fails, else 0.
	charged, offered memory
}

// memory is a Counter in memory.
type memory int64

func (m *memory) Add(bytes int64) { *m += memory(bytes) }
func (m *memory) Load() int64     { return int64(*m) }

func (s *sharedCycle) used() int64     { return s.old + sum(s.view.Now) + s.charged.Load() }
func (s *sharedCycle) add(bytes int64) { s.view.Charged.Add(bytes) }
func (s *sharedCycle) refresh() int64  { return min(s.check, s.view.End) }

func (s *sharedCycle) advance(now int64) {
	s.aligned.advance(now)
	if now < s.view.End {
		return
	}
	view, err := s.cfg.Book.View(now)
	if s.err = err; err != nil {
		if s.old += sum(s.view.Now); s.start == s.end {
			s.old = 0
		}
		s.view = View{Charged: &s.charged, Offered: &s.offered, End: now + int64(retry)}
		return
	}
	view.Charged.Add(s.charged.Load())
	view.Offered.Add(s.offered.Load())
	s.charged, s.offered = 0, 0
	s.view, s.old = view, s.cfg.Book.Before(&view)
	_, s.end = s.cfg.Cycle(view.Start + view.Shift)
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
