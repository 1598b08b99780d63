package gate

import (
	"math"
	"time"
)

// window counts bytes and compares them with a quota. Times are nanoseconds since the
// Unix epoch and never go back.
type window interface {
	// advance moves to now. Bytes that have left the window no longer count.
	advance(now int64)
	// add charges bytes at the time last advanced to. A negative number undoes an
	// earlier charge at that time.
	add(bytes int64)
	// used returns the bytes in the window.
	used() int64
	// quota returns the number of bytes the window may hold.
	quota() int64
	// outlook returns the rate, in bytes per second, that can be kept up from now until all
	// bytes have left, without exceeding the quota; and the time when the room for bytes is
	// more than need, if no more come.
	outlook(now, need int64) (rate float64, opens int64)
	// refresh returns the time from which any of these may change without a call of add.
	refresh() int64
	// mean returns the rate, in bytes per second, that uses up the quota in a window's
	// length.
	mean() float64
	// offer counts bytes as offered in the Book, if there is one.
	offer(bytes int64)
	// failed returns the error of the last use of the Book, nil if it works or if there is
	// none. After an error the window counts alone, and tries the Book again every retry.
	failed() error
}

// newWindow returns the window of a gate.
func newWindow(cfg *Config) window {
	if cfg.Cycle != nil {
		a := aligned{base: base{cfg: cfg}, left: map[int64]int64{}}
		if cfg.Book == nil {
			return &a
		}
		return &sharedCycle{aligned: a}
	}
	s := newSliding(cfg)
	if cfg.Book == nil {
		return s
	}
	length := int64(cfg.Window + 2*cfg.Poller.Jitter)
	w := &shared{sliding: s, length: length, own: map[int64]int64{}}
	if cfg.Budget == nil {
		return w
	}
	return &budgeted{shared: w, commit: w.limit}
}

// base is the part that all windows have.
type base struct {
	cfg  *Config
	view View  // of the Book, if there is one
	err  error // of the last View
}

func (b *base) failed() error { return b.err }

func (b *base) offer(bytes int64) {
	if b.view.Offered != nil {
		b.view.Offered.Add(bytes)
	}
}

// slope finds the steepest straight line of future traffic that stays under a quota, in
// bytes per second, while earlier bytes leave the window.
//
// Just before some bytes leave, the window holds these, the ones that leave later, and the
// bytes from now on. So room / (leaves - now) bounds the rate each time, and the least of
// these bounds is the rate. At that rate the window reaches the quota just when the bytes
// of that bound leave.
type slope struct {
	now, room, need int64
	rate            float64
	opens           int64 // when room became more than need, 0 before
}

func newSlope(now, room, need int64) slope {
	s := slope{now: now, room: room, need: need, rate: math.Inf(1)}
	if room > need {
		s.opens = now
	}
	return s
}

// leave has bytes leave the window. The times must not go back.
func (s *slope) leave(at, bytes int64) {
	s.rate = min(s.rate, max(float64(s.room)/float64(max(at-s.now, 1))*1e9, 0))
	s.room += bytes
	if s.opens == 0 && s.room > s.need {
		s.opens = at
	}
}

// slotsPerWindow is the number of slots of a sliding window. It counts one slot more
// than the window (see sliding), which costs 1/500 of the quota.
const slotsPerWindow = 500

// sliding limits every span of the window's length, at any phase, and every longer one up to
// the longest sample of a poller (see budget.Poller).
//
// Time is divided into slots of length/500, and the window counts the current
// slot and the 500 before it: 501 slots. A span of the window's length that
// begins anywhere inside a slot touches at most 501 slots, so if no 501
// consecutive slots hold more than the limit, no such span does. The longest sample
// touches all slots of the ring, which may hold more by the difference of the two limits.
type sliding struct {
	base
	limit  int64
	more   int64   // bytes that the ring may hold over limit
	slot   int64   // nanoseconds
	ring   []int64 // bytes of slot i at ring[i%len(ring)]
	now    int64   // number of the current slot
	end    int64   // end of the current slot
	sum    int64   // bytes of the ring
	recent int64   // bytes of the window
}

func newSliding(cfg *Config) *sliding {
	s := &sliding{base: base{cfg: cfg}, slot: (int64(cfg.Window) + slotsPerWindow - 1) / slotsPerWindow}
	s.hold(cfg.Bytes(cfg.Window))
	longer := 2 * int64(cfg.Poller.Jitter) // than the window is the longest sample
	s.ring = make([]int64, slotsPerWindow+1+(longer+s.slot-1)/s.slot)
	return s
}

// hold sets the quota.
func (s *sliding) hold(quota int64) {
	_, _, s.limit = s.cfg.Poller.Samples(s.cfg.Window, quota)
	s.more = quota - s.limit
}

func (s *sliding) quota() int64   { return s.limit }
func (s *sliding) used() int64    { return max(s.recent, s.sum-s.more) }
func (s *sliding) refresh() int64 { return s.end }
func (s *sliding) mean() float64  { return float64(s.limit) / float64(s.slot*slotsPerWindow) * 1e9 }

func (s *sliding) add(bytes int64) {
	s.ring[s.now%int64(len(s.ring))] += bytes
	s.sum += bytes
	s.recent += bytes
}

func (s *sliding) advance(now int64) {
	if now < s.end {
		return
	}
	to, n := now/s.slot, int64(len(s.ring))
	if to-s.now >= n {
		clear(s.ring)
		s.sum, s.recent, s.now = 0, 0, to
	}
	for s.now < to {
		s.now++
		s.recent -= s.ring[(s.now+n-slotsPerWindow-1)%n]
		s.sum -= s.ring[s.now%n]
		s.ring[s.now%n] = 0
	}
	s.end = (s.now + 1) * s.slot
}

func (s *sliding) outlook(now, need int64) (rate float64, opens int64) {
	return s.beside(now, need, 0, nil)
}

// departure is when bytes of other gates leave the window.
type departure struct{ at, bytes int64 }

// beside returns the outlook beside bytes of other gates, which leave in order.
func (s *sliding) beside(now, need, others int64, leaving []departure) (rate float64, opens int64) {
	n := int64(len(s.ring))
	within := func(room, slots int64) slope {
		steepest, i := newSlope(now, room, need), 0
		for j := max(s.now-slots+1, 0); j <= s.now; j++ {
			at := (j + slots) * s.slot
			for ; i < len(leaving) && leaving[i].at < at; i++ {
				steepest.leave(leaving[i].at, leaving[i].bytes)
			}
			steepest.leave(at, s.ring[j%n])
		}
		for _, d := range leaving[i:] {
			steepest.leave(d.at, d.bytes)
		}
		return steepest
	}
	window := within(s.limit-s.recent-others, slotsPerWindow+1)
	if s.more <= 0 {
		return window.rate, window.opens
	}
	longest := within(s.limit+s.more-s.sum-others, n)
	return min(window.rate, longest.rate), max(window.opens, longest.opens)
}

// aligned is a window that begins at fixed times: on the clock, or with a billing cycle.
//
// Those times are by the wall clock, which may be set; the gate's clock is monotonic.
// If the wall clock returns to an earlier window, its count continues.
type aligned struct {
	base
	most   int64
	length int64 // of the window
	until  int64 // when the window ends
	check  int64 // when to read the wall clock again
	sum    int64
	start  int64           // of the window, by the wall clock
	left   map[int64]int64 // sums of earlier windows, by start
}

// recheck is the interval at which the wall clock is read within a longer window.
const recheck = int64(10 * time.Second)

// remembered is the number of earlier windows whose sums are kept.
const remembered = 8

func (a *aligned) quota() int64    { return a.most }
func (a *aligned) used() int64     { return a.sum }
func (a *aligned) add(bytes int64) { a.sum += bytes }
func (a *aligned) refresh() int64  { return a.check }
func (a *aligned) mean() float64   { return float64(a.most) / float64(a.length) * 1e9 }

func (a *aligned) advance(now int64) {
	if now < a.check {
		return
	}
	wall := now
	if a.cfg.Wall != nil {
		wall = a.cfg.Wall(now)
	}
	start, end := a.cfg.Cycle(wall)
	a.most, a.length, a.until = a.cfg.Bytes(time.Duration(end-start)), end-start, now+end-wall
	a.check = min(a.until, now+recheck)
	if start == a.start {
		return
	}
	if len(a.left) >= remembered {
		clear(a.left)
	}
	a.left[a.start] = a.sum
	a.start, a.sum = start, a.left[start]
}

func (a *aligned) outlook(now, need int64) (rate float64, opens int64) {
	return a.pace(now, need, a.sum)
}

// pace returns the rate that uses up the rest of the quota by the end of the window.
func (a *aligned) pace(now, need, used int64) (rate float64, opens int64) {
	steepest := newSlope(now, a.most-used, need)
	steepest.leave(a.until, used)
	return steepest.rate, steepest.opens
}
