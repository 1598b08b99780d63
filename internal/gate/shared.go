package gate

import "time"

// Cell is the count of a slot, in bytes, that other gates may read and add to
// at the same time.
type Cell interface {
	Add(bytes int64)
	Load() int64
}

// Slot is what a Book knows of the slot in which a time lies, and of those
// before it that the window reaches back to.
type Slot struct {
	Charged, Offered Cell // where this gate counts
	Now              []Cell
	Start, End       int64 // of the slot, nanoseconds since the Unix epoch
	Past             []Past
}

// Past is a slot that is over, the nearest first. Clocks differ, so that others
// may still count in it.
type Past struct {
	Cells []Cell
	End   int64
}

// Book keeps the counts of slots outside of the gate: in a ledger.
type Book interface {
	// Turn returns the slot in which a time lies, and those before it that end
	// less than a window before it starts.
	Turn(now int64) (Slot, error)
	// Cycle returns what was charged in the cycle of a slot before that slot.
	Cycle(s *Slot) int64
}

// booked is a window whose counts are in a Book.
type booked interface {
	window
	offer(bytes int64)
	failed() error
}

// shared is a sliding window whose counts are in a Book. It bounds what all the
// gates have passed that count there.
//
// It counts the slots that a span of the window's length can touch, as sliding
// does, of a length that the Book decides.
type shared struct {
	limit  int64
	length int64
	book   Book
	slot   Slot
	old    int64 // bytes of the slots before the last one that is over
	err    error
}

func newShared(quota int64, length time.Duration, book Book) *shared {
	return &shared{limit: quota, length: int64(length), book: book}
}

func (s *shared) quota() int64   { return s.limit }
func (s *shared) refresh() int64 { return s.slot.End }

func (s *shared) advance(now int64) {
	if now < s.slot.End || s.err != nil {
		return
	}
	slot, err := s.book.Turn(now)
	if err != nil {
		s.err = err
		return
	}
	s.slot, s.old = slot, 0
	for i, p := range slot.Past {
		if i > 0 {
			s.old += sum(p.Cells)
		}
	}
}

// sharedCycle is an aligned window whose counts are in a Book: what may pass in a
// billing cycle.
type sharedCycle struct {
	aligned
	book Book
	slot Slot
	old  int64 // bytes of the cycle before the slot
	err  error
}

func newSharedCycle(limit func(start, end int64) int64, bounds func(now int64) (start, end int64), book Book) *sharedCycle {
	return &sharedCycle{aligned: aligned{limit: limit, bounds: bounds}, book: book}
}

func (s *sharedCycle) used() int64 { return s.old + sum(s.slot.Now) }

func (s *sharedCycle) add(bytes int64)   { count(s.slot.Charged, bytes) }
func (s *sharedCycle) offer(bytes int64) { count(s.slot.Offered, bytes) }
func (s *sharedCycle) failed() error     { return s.err }

func (s *sharedCycle) advance(now int64) {
	s.aligned.advance(now)
	if now < s.slot.End || s.err != nil {
		return
	}
	if s.slot, s.err = s.book.Turn(now); s.err == nil {
		s.old = s.book.Cycle(&s.slot)
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

func (s *shared) used() int64 {
	n := s.old + sum(s.slot.Now)
	if len(s.slot.Past) > 0 {
		n += sum(s.slot.Past[0].Cells)
	}
	return n
}

func (s *shared) add(bytes int64)   { count(s.slot.Charged, bytes) }
func (s *shared) offer(bytes int64) { count(s.slot.Offered, bytes) }
func (s *shared) failed() error     { return s.err }

// sustainable is as that of sliding: a slot leaves when the window has passed
// since its end.
func (s *shared) sustainable(now int64) float64 {
	rest := s.used()
	room := func(leaves int64) float64 {
		return float64(s.limit-rest) / float64(max(leaves-now, 1)) * 1e9
	}
	// The oldest leaves first.
	rate := -1.0
	for i := len(s.slot.Past) - 1; i >= 0; i-- {
		p := s.slot.Past[i]
		if r := room(p.End + s.length); rate < 0 || r < rate {
			rate = r
		}
		if rate <= 0 {
			return 0
		}
		rest -= sum(p.Cells)
	}
	if r := room(s.slot.End + s.length); rate < 0 || r < rate {
		rate = r
	}
	return max(rate, 0)
}
