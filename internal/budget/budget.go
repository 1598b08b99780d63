package budget

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// Slots is how many slots a window has.
const Slots = 60

// span is how many slots a window can touch: its own and, as it may begin
// inside a slot, one more.
const span = Slots + 1

// kept is how many slots are remembered, a power of two.
const kept = 128

// Unlimited is what Room returns where nothing limits.
const Unlimited = math.MaxInt64

// Ratio is a share, Num/Den.
type Ratio struct{ Num, Den int64 }

// Config is what a budget is made of. Times are nanoseconds since the Unix
// epoch.
type Config struct {
	Quota  int64         // bytes that a window may hold: the commit times the window
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
type Budget struct {
	cfg  Config
	slot int64 // nanoseconds

	// cum[i%kept] is the sum of all bytes up to and with slot i, so that a sum
	// over slots is a difference. offered has the same of what arrived.
	cum     [kept]int64
	offered [kept]int64
	sum     int64 // all bytes so far
	arrived int64
	t       int64 // the current slot's number
	begun   bool

	// first is the earliest window that is not over quota. Windows are
	// numbered by the slot they begin in. Those before are over or in the past.
	first int64

	prev, cur, next cycle

	free    bool  // the verdict of this slot
	limit   int64 // the earliest window from first on that may not go over; t+1 if none
	learned learned
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
	}
	return &Budget{cfg: cfg, slot: int64(cfg.Window) / Slots}, nil
}

// Slot is the length of a slot.
func (b *Budget) Slot() time.Duration { return time.Duration(b.slot) }

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
	p := phase(k)
	for _, c := range [...]*cycle{&b.prev, &b.cur, &b.next} {
		if b.touches(c, k) {
			c.used[p]++
			c.worst = max(c.worst, c.used[p])
		}
	}
}

// upTo is the sum of bytes up to and with slot i, one of the last.
func (b *Budget) upTo(i int64) int64 { return b.cum[at(i)] }

// at is where slot i is kept.
func at(i int64) int64 { return i & (kept - 1) }

// held is what window k holds so far.
func (b *Budget) held(k int64) int64 { return b.sum - b.upTo(k-1) }

// Advance moves to now. Time does not go back: an earlier now is the same as
// the latest.
func (b *Budget) Advance(now int64) {
	to := floorDiv(now, b.slot)
	if b.begun && to <= b.t {
		return
	}
	switch {
	case !b.begun:
		b.begun = true
		b.t, b.first = to, to-Slots
		b.settle(b.t * b.slot)
	case to-b.t >= kept:
		b.leave()
		for i := range int64(kept) { // a window's length in which nothing came
			b.cum[i], b.offered[i] = b.sum, b.arrived
		}
		b.learned.idle(to - b.t - 1)
		b.t = to
	default:
		for b.t < to {
			b.leave()
			b.t++
			b.cum[at(b.t)] = b.sum
			b.offered[at(b.t)] = b.arrived
		}
	}
	b.first = max(b.first, b.t-Slots)
	b.turn()
	b.decide()
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

// leave ends the current slot.
func (b *Budget) leave() {
	b.learn()
}

// Offer counts bytes that arrived, whatever becomes of them.
func (b *Budget) Offer(now, bytes int64) {
	b.Advance(now)
	b.arrived += bytes
	b.offered[at(b.t)] = b.arrived
}

// Pass counts bytes that passed. beyond says that they did so only because
// Room allowed it: they did not fit into the caller's own sliding window.
func (b *Budget) Pass(now, bytes int64, beyond bool) {
	b.Advance(now)
	b.sum += bytes
	b.cum[at(b.t)] = b.sum
	if beyond {
		b.count()
	}
}

// count counts the windows that have gone over.
func (b *Budget) count() {
	for b.first <= b.t && b.held(b.first) > b.cfg.Quota {
		b.concede(b.first)
		b.first++
	}
}

// Replay does after a restart what Offer and Pass did before it, for the slot
// that begins at the given time; slots have to come in order. beyond says that
// Pass was told so in the slot. Without that knowledge give false: the slot is
// then taken for one in which bytes passed beyond the quota if the window that
// it ends is over, as the caller's own window would not have allowed that. On a
// link that is always full this counts up to a window a burst too many, and it
// cannot see a burst that exceeded the quota by less than a slot's bytes and
// was over in the same slot.
func (b *Budget) Replay(start, offered, passed int64, beyond bool) {
	b.Offer(start, max(offered, passed))
	b.Pass(start, passed, beyond || b.held(b.t-Slots+1)+passed > b.cfg.Quota)
}

// Free reports whether bursts may run on at full speed for the rest of this
// slot, as far as Room allows.
func (b *Budget) Free(now int64) bool {
	b.Advance(now)
	return b.free
}

// Room returns how many bytes may pass now although they do not fit into the
// caller's own sliding window.
func (b *Budget) Room(now int64) int64 {
	b.Advance(now)
	k := b.first
	if b.free {
		k = max(b.limit, k)
	}
	if k > b.t {
		return Unlimited
	}
	return max(b.cfg.Quota-b.held(k), 0)
}

// Used returns what the first window holds that is not to go over: what Room
// counts from while Free is false.
func (b *Budget) Used(now int64) int64 {
	b.Advance(now)
	if b.first > b.t {
		return 0
	}
	return b.held(b.first)
}

// Sustainable returns how many bytes may pass in every slot from now on without
// a further window going over.
func (b *Budget) Sustainable(now int64) int64 {
	b.Advance(now)
	return b.sustainable(b.first, span)
}

// sustainable is the least rate at which a window from k on becomes full when
// it ends.
func (b *Budget) sustainable(k, length int64) int64 {
	rate := b.cfg.Quota / length
	for ; k <= b.t; k++ {
		rate = min(rate, (b.cfg.Quota-b.held(k))/(k+length-b.t))
	}
	return max(rate, 0)
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
