package budget

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// Slots is how many slots a window has, in a ledger too. As one more than the window
// counts, 1/60 of the quota is given away for the phases between slots.
const Slots = 60

// span is how many slots a window can touch: its own and, as it may begin
// inside a slot, one more.
const span = Slots + 1

// late is how many slots before the current one may still change: others count
// in them whose clocks, or turns on the processor, are not ours.
const late = 2

// kept is how many slots are remembered, a power of two.
const kept = 128

// lanes is how many there are at the most.
const lanes = 2

// unlimited is what may pass where nothing limits.
const unlimited = math.MaxInt64

// Ratio is a share, Num/Den.
type Ratio struct{ Num, Den int64 }

// Config is what a budget is made of. Times are nanoseconds since the Unix
// epoch.
type Config struct {
	Quota  int64         // bytes that a window of a lane may hold: the commit times the window
	Lanes  int           // 1 if 0, or 2, see Budget
	Window time.Duration // the provider's samples; 5m if 0
	// Free is the share of samples that the provider throws away: {5, 100} for
	// the 95th percentile, {25, 1000} for 97.5.
	Free Ratio
	// Cycle gives the billing cycle that a time lies in, from start to just
	// before end. Cycles follow each other without a gap.
	Cycle func(now int64) (start, end int64)
	// Reserve is how many free windows of a cycle are never used, for a
	// provider who loses samples.
	Reserve int64
	// Policy says which bursts may run on.
	Policy Policy
}

// Policy is how free windows are spent.
type Policy uint8

// The policies. Weighed is the one to use; the others are there to be compared
// with it.
const (
	Weighed Policy = iota // where they let most pass, as far as can be told
	Greedy                // first come, first served
	Never                 // not at all
)

// cycle is what is known of one billing cycle.
type cycle struct {
	start, end int64
	total      int64 // free windows of each phase
	used       [Slots]int64
	worst      int64 // the most of used
}

// Budget keeps count of windows. It is not safe for concurrent use.
//
// A lane is what is held against the quota by itself: one direction of traffic, or
// the sum of both. A window is over if one of its lanes is.
type Budget struct {
	cfg  Config
	slot int64 // nanoseconds

	lane  [lanes]lane
	t     int64 // the current slot's number
	begun bool

	// over[at(k)] says that window k was counted as over quota. Windows are
	// numbered by the slot they begin in. Of two windows that contain the current
	// slot the one that began earlier holds more. The ones before first are over,
	// and were free to be; first is not, or was not: nothing is gained by its
	// being over.
	over, allowed [kept]bool
	first         int64

	prev, cur, next cycle

	free    bool  // the verdict of this slot
	limit   int64 // the earliest window from first on that may not be over; t+1 if none
	learned learned
}

// lane is what was counted, as sums of all slots up to and with each of the last,
// so that what lies between two is a difference.
type lane struct {
	cum, offered [kept]int64
	sum, arrived int64 // all so far
}

// New makes a budget.
func New(cfg Config) (*Budget, error) {
	if cfg.Window == 0 {
		cfg.Window = 5 * time.Minute
	}
	switch {
	case cfg.Quota < 1 || cfg.Quota > 1<<60:
		return nil, fmt.Errorf("the quota of %d bytes is not between 1 and 2^60", cfg.Quota)
	case cfg.Window < time.Millisecond || cfg.Window%Slots != 0:
		return nil, fmt.Errorf("the window %v cannot be divided by %d", cfg.Window, Slots)
	case cfg.Free.Den < 1 || cfg.Free.Num < 0 || cfg.Free.Num > cfg.Free.Den:
		return nil, fmt.Errorf("the share %d/%d is not between 0 and 1", cfg.Free.Num, cfg.Free.Den)
	case cfg.Cycle == nil:
		return nil, fmt.Errorf("a billing cycle is needed")
	case cfg.Reserve < 0:
		return nil, fmt.Errorf("the reserve %d is negative", cfg.Reserve)
	case cfg.Lanes < 0 || cfg.Lanes > lanes:
		return nil, fmt.Errorf("%d lanes are not 1 or 2", cfg.Lanes)
	}
	cfg.Lanes = max(cfg.Lanes, 1)
	return &Budget{cfg: cfg, slot: int64(cfg.Window) / Slots}, nil
}

// FreeWindows returns how many windows of a cycle of the given length may go
// over, whatever the phase of the provider's poller: ⌊n·share⌋, where n is the
// least number of whole windows that fit.
//
// A window fits if it begins between the cycle's begin and one window before
// its end. In that closed span, length-window long, lie ⌊length/window⌋-1 of
// the poller's instants at least. A provider who also puts windows that
// straddle an edge into the cycle has more of them, and throws no fewer away.
func FreeWindows(length, window int64, share Ratio) int64 {
	n := length/window - 1
	if n <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(n), uint64(share.Num))
	q, _ := bits.Div64(hi, lo, uint64(share.Den)) // share ≤ 1, so that it fits
	return int64(q)
}

func (b *Budget) cycleAt(now int64) cycle {
	start, end := b.cfg.Cycle(now)
	c := cycle{start: start, end: end}
	if start <= now && now < end {
		c.total = max(FreeWindows(end-start, int64(b.cfg.Window), b.cfg.Free)-b.cfg.Reserve, 0)
	}
	return c
}

// touches reports whether the provider may put window k into the cycle.
func (b *Budget) touches(c *cycle, k int64) bool {
	return k*b.slot < c.end && (k+span)*b.slot > c.start
}

// may reports whether window k can go over without breaking the promise, after
// so many others of its phase.
func (b *Budget) may(k, others int64) bool {
	for _, c := range [...]*cycle{&b.prev, &b.cur, &b.next} {
		if b.touches(c, k) && c.used[phase(k)]+others >= c.total {
			return false
		}
	}
	return true
}

func phase(k int64) int64 { return ((k % Slots) + Slots) % Slots }

// concede counts window k as over.
func (b *Budget) concede(k int64) {
	b.over[at(k)], b.allowed[at(k)] = true, b.may(k, 0)
	p := phase(k)
	for _, c := range [...]*cycle{&b.prev, &b.cur, &b.next} {
		if b.touches(c, k) {
			c.used[p]++
			c.worst = max(c.worst, c.used[p])
		}
	}
}

// at is where slot i is kept.
func at(i int64) int64 { return i & (kept - 1) }

// upTo is the sum of bytes up to and with slot i, one of the last.
func (l *lane) upTo(i int64) int64 { return l.cum[at(i)] }

// held is what the slots from k on hold.
func (l *lane) held(k int64) int64 { return l.sum - l.upTo(k-1) }

// Held returns what a lane's slots from number i to j hold, which are among the
// last sixty or so.
func (b *Budget) Held(lane int, i, j int64) int64 {
	l := &b.lane[lane]
	return l.upTo(min(j, b.t)) - l.upTo(i-1)
}

// Reset forgets everything.
func (b *Budget) Reset() { *b = Budget{cfg: b.cfg, slot: b.slot} }

// Advance moves to now, and finds the verdict for the slot that now lies in. Time
// does not go back: an earlier now is the same as the latest.
func (b *Budget) Advance(now int64) {
	if b.step(floorDiv(now, b.slot)) {
		b.decide()
	}
}

// step makes slot number to the current one, and reports whether it was not.
func (b *Budget) step(to int64) bool {
	all := b.lane[:b.cfg.Lanes]
	switch {
	case b.begun && to <= b.t:
		return false
	case !b.begun:
		b.begun = true
		b.t, b.first = to, to-Slots
		b.settle(b.t * b.slot)
	case to-b.t >= kept:
		b.learn()
		for l := range all {
			x := &all[l]
			for i := range int64(kept) { // a window's length in which nothing came
				x.cum[i], x.offered[i] = x.sum, x.arrived
			}
		}
		clear(b.over[:])
		b.learned.idle(to - b.t - 1)
		b.t = to
	default:
		for b.t < to {
			b.learn()
			b.t++
			for l := range all {
				x := &all[l]
				x.cum[at(b.t)], x.offered[at(b.t)] = x.sum, x.arrived
			}
			b.over[at(b.t)] = false
		}
	}
	b.first = max(b.first, b.t-Slots)
	b.turn()
	return true
}

// turn goes to the next cycle as the time comes.
func (b *Budget) turn() {
	now := b.t * b.slot
	for i := 0; now >= b.cur.end; i++ {
		b.learned.turn()
		if i == 2 { // long gone
			b.settle(now)
			return
		}
		b.prev, b.cur = b.cur, b.next
		b.next = b.cycleAt(b.cur.end)
	}
}

// settle begins in the cycle of now.
func (b *Budget) settle(now int64) {
	b.cur = b.cycleAt(now)
	b.prev = b.cycleAt(b.cur.start - 1)
	b.next = b.cycleAt(b.cur.end)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// Count says what was counted in the slot that begins at start: bytes that
// arrived, whatever became of them, and bytes that passed. beyond says that some
// of these did not fit into the caller's own sliding window. It may be said
// again, and be more, while the slot is the current one or one of the two before;
// earlier slots are left as they are, and a later one becomes the current one,
// whose verdict Advance finds.
func (b *Budget) Count(lane int, start, offered, passed int64, beyond bool) {
	i := floorDiv(start, b.slot)
	b.step(i)
	if b.t-i > late {
		return
	}
	l := &b.lane[lane]
	more := passed - (l.upTo(i) - l.upTo(i-1))
	came := max(offered, passed) - (l.offered[at(i)] - l.offered[at(i-1)])
	for j := i; j <= b.t; j++ {
		l.cum[at(j)] += more
		l.offered[at(j)] += came
	}
	l.sum += more
	l.arrived += came
	if beyond {
		b.count(l, i)
	}
}

// Offer counts bytes that arrived in a lane now, whatever becomes of them.
func (b *Budget) Offer(lane int, now, bytes int64) {
	b.Advance(now)
	l := &b.lane[lane]
	l.arrived += bytes
	l.offered[at(b.t)] = l.arrived
}

// Pass counts bytes that passed. beyond says that they did so only because
// Limit allowed it: they did not fit into the caller's own sliding window.
func (b *Budget) Pass(lane int, now, bytes int64, beyond bool) {
	b.Advance(now)
	l := &b.lane[lane]
	l.sum += bytes
	l.cum[at(b.t)] = l.sum
	if beyond {
		b.count(l, b.t)
	}
}

// count counts the windows that have gone over with what slot i holds. Windows
// that go over later do so with what fits into the caller's own window, and none
// that the provider can see is among them.
func (b *Budget) count(l *lane, i int64) {
	for k := i - Slots; k <= i; k++ {
		if b.over[at(k)] {
			continue
		}
		if l.upTo(i)-l.upTo(k-1) <= b.cfg.Quota {
			break // later ones hold less
		}
		b.concede(k)
	}
	for b.first <= b.t && b.over[at(b.first)] && b.allowed[at(b.first)] {
		b.first++
	}
}

// Limit returns the earliest window that may not go over in this slot. What the
// slots from its number on hold is to stay within the quota. limited is false if
// all windows of the slot may go over.
func (b *Budget) Limit(now int64) (k int64, limited bool) {
	b.Advance(now)
	k = b.first
	if b.free {
		k = max(b.limit, k)
	}
	return k, k <= b.t
}

// Stats is how a budget stands, for people.
type Stats struct {
	Start, End int64   // of the cycle
	Total      int64   // free windows, of any one phase
	Used       int64   // in the phase that used most
	Left       int64   // in that phase; negative if the caller passed more than allowed
	Phase      int     // which that is: the slot in a window, counted from the epoch
	Mean       float64 // of Used over all phases
	Free       bool    // bursts may run on now
}

// Stats returns how the budget stands now.
func (b *Budget) Stats(now int64) Stats {
	b.Advance(now)
	c := &b.cur
	s := Stats{Start: c.start, End: c.end, Total: c.total, Used: c.worst, Left: c.total - c.worst, Free: b.free}
	sum := int64(0)
	for p, n := range c.used {
		sum += n
		if n == c.worst && c.used[s.Phase] != c.worst {
			s.Phase = p
		}
	}
	s.Mean = float64(sum) / Slots
	return s
}
