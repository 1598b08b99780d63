package budget

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// Slots is the number of slots in a window, in a ledger too. A window counts one slot
// more than this, because a sample may begin inside a slot; this costs 1/60 of the quota.
const Slots = 60

// span is the number of slots a window can touch: one more than its own, as it
// may begin inside a slot.
const span = Slots + 1

// late is the number of slots before the current one that may still change: other
// gates count in them, by other clocks and when the scheduler runs them.
const late = 2

// kept is the number of slots remembered, a power of two.
const kept = 128

// lanes is the maximum number of lanes.
const lanes = 2

// unlimited is the number of bytes that may pass where there is no limit.
const unlimited = math.MaxInt64

// Ratio is a share, Num/Den.
type Ratio struct{ Num, Den int64 }

// Config configures a budget. Times are nanoseconds since the Unix epoch.
type Config struct {
	Quota  int64         // bytes that a window of a lane may hold: the commit times the window
	Lanes  int           // 1 if 0, or 2, see Budget
	Window time.Duration // the provider's samples; 5m if 0
	// Free is the share of samples that the provider discards: {5, 100} for
	// the 95th percentile, {25, 1000} for 97.5.
	Free Ratio
	// Cycle returns the billing cycle of a time, from start to just
	// before end. Cycles follow each other without a gap.
	Cycle func(now int64) (start, end int64)
	// Reserve is the number of free windows of a cycle that are never used, for a
	// provider that loses samples.
	Reserve int64
	// Policy decides which bursts may exceed the quota.
	Policy Policy
}

// Policy decides how free windows are spent.
type Policy uint8

// The policies. Use Weighed; the others are for comparison.
const (
	Weighed Policy = iota // where they are expected to let most bytes pass
	Greedy                // first come, first served
	Never                 // not at all
)

// allowance holds the free windows of one billing cycle.
type allowance struct {
	start, end int64
	total      int64 // free windows of each phase
	used       [Slots]int64
	worst      int64 // the maximum of used
}

// Budget counts the windows over quota. It is not safe for concurrent use.
//
// A lane is traffic with a quota of its own: one direction, or
// the sum of both. A window is over if one of its lanes is.
type Budget struct {
	cfg  Config
	slot int64 // nanoseconds

	lane  [lanes]lane
	t     int64 // the current slot's number
	begun bool

	// over[at(k)] is set if window k was counted as over quota, and allowed[at(k)] if
	// it was free then. Windows are numbered by the slot they begin in. Of two
	// windows that contain the current slot, the earlier one holds more. All windows
	// before first are over and were free. first is not over, or was not
	// free: then it makes no room for more bytes.
	over, allowed [kept]bool
	first         int64

	cycles [3]allowance // the previous cycle, the current one and the next

	free    bool  // the verdict of this slot
	limit   int64 // the earliest window from first on that must not be over; t+1 if none
	learned learned
}

// lane holds cumulative sums of bytes, up to and including each of the last slots,
// so that the bytes between two slots are a difference.
type lane struct {
	cum, offered [kept]int64
	sum, arrived int64 // totals
}

// New makes a budget.
func New(cfg Config) (*Budget, error) {
	if cfg.Window == 0 {
		cfg.Window = 5 * time.Minute
	}
	switch {
	case cfg.Quota < 1 || cfg.Quota > 1<<60:
		return nil, fmt.Errorf("quota of %d bytes: must be between 1 and 2^60", cfg.Quota)
	case cfg.Window < time.Millisecond || cfg.Window%Slots != 0:
		return nil, fmt.Errorf("window of %v: must be a millisecond or more and divisible by %d", cfg.Window, Slots)
	case cfg.Lanes < 0 || cfg.Lanes > lanes:
		return nil, fmt.Errorf("%d lanes: must be 1 or 2", cfg.Lanes)
	}
	cfg.Lanes = max(cfg.Lanes, 1)
	return &Budget{cfg: cfg, slot: int64(cfg.Window) / Slots}, nil
}

// FreeWindows returns how many windows of a cycle of the given length may go
// over, whatever the phase of the provider's poller: ⌊n·share⌋, where n is the
// least number of whole windows that fit.
//
// A window fits if it begins between the cycle's start and one window before
// its end. That closed span is length-window long and contains at least
// ⌊length/window⌋-1 of the poller's instants. A provider that also counts windows that
// straddle an edge of the cycle has more samples, and discards no fewer.
func FreeWindows(length, window int64, share Ratio) int64 {
	n := length/window - 1
	if n <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(n), uint64(share.Num))
	q, _ := bits.Div64(hi, lo, uint64(share.Den)) // share ≤ 1, so that it fits
	return int64(q)
}

func (b *Budget) cycleAt(now int64) allowance {
	start, end := b.cfg.Cycle(now)
	c := allowance{start: start, end: end}
	if start <= now && now < end {
		c.total = max(FreeWindows(end-start, int64(b.cfg.Window), b.cfg.Free)-b.cfg.Reserve, 0)
	}
	return c
}

// touches reports whether the provider may count window k in the cycle.
func (b *Budget) touches(c *allowance, k int64) bool {
	return k*b.slot < c.end && (k+span)*b.slot > c.start
}

// may reports whether window k is free, after the given number of others of its phase.
func (b *Budget) may(k, others int64) bool {
	for i := range b.cycles {
		if c := &b.cycles[i]; b.touches(c, k) && c.used[phase(k)]+others >= c.total {
			return false
		}
	}
	return true
}

func phase(k int64) int64 { return ((k % Slots) + Slots) % Slots }

// countOver counts window k as over.
func (b *Budget) countOver(k int64) {
	b.over[at(k)], b.allowed[at(k)] = true, b.may(k, 0)
	p := phase(k)
	for i := range b.cycles {
		if c := &b.cycles[i]; b.touches(c, k) {
			c.used[p]++
			c.worst = max(c.worst, c.used[p])
		}
	}
}

// at returns the ring index of slot i.
func at(i int64) int64 { return i & (kept - 1) }

// upTo returns the bytes up to and including slot i, which must be one of the last kept.
func (l *lane) upTo(i int64) int64 { return l.cum[at(i)] }

// held returns the bytes in the slots from k on.
func (l *lane) held(k int64) int64 { return l.sum - l.upTo(k-1) }

// Reset forgets everything.
func (b *Budget) Reset() { *b = Budget{cfg: b.cfg, slot: b.slot} }

// Advance moves to now and finds the verdict for its slot. Time
// does not go back: an earlier now is taken for the latest.
func (b *Budget) Advance(now int64) {
	if b.step(floorDiv(now, b.slot)) {
		b.decide()
	}
}

// longest is the maximum number of slots without a call: four months. After that the
// budget forgets everything.
const longest = 1 << 21

// step moves to slot to, and reports whether that is a new slot.
func (b *Budget) step(to int64) bool {
	if b.begun && to <= b.t {
		return false
	}
	if to-b.t > longest {
		b.Reset()
	}
	if !b.begun {
		b.begun = true
		b.t, b.first = to, to-Slots
		now := to * b.slot
		b.cycles[1] = b.cycleAt(now)
		b.cycles[0], b.cycles[2] = b.cycleAt(b.cycles[1].start-1), b.cycleAt(b.cycles[1].end)
	}
	for b.t < to {
		b.learn()
		b.t++
		for l := range b.cfg.Lanes {
			x := &b.lane[l]
			x.cum[at(b.t)], x.offered[at(b.t)] = x.sum, x.arrived
		}
		b.over[at(b.t)] = false
	}
	b.first = max(b.first, b.t-Slots)
	for b.t*b.slot >= b.cycles[1].end {
		b.learned.nextCycle()
		b.cycles[0], b.cycles[1] = b.cycles[1], b.cycles[2]
		b.cycles[2] = b.cycleAt(b.cycles[1].end)
	}
	return true
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// Count sets the counts of the slot that begins at start: bytes that arrived,
// whether or not they passed, and bytes that passed. beyond means that some
// of these did not fit into the caller's own sliding window. Count may be called
// again, with larger counts, while the slot is the current one or one of the two before.
// Earlier slots are left as they are. A later slot becomes the current one; call
// Advance for its verdict.
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

// count counts the windows that the bytes of slot i take over quota. Windows that
// go over later do so with bytes that fit into the caller's own window; no
// sample of the provider is over because of these (see the package comment).
func (b *Budget) count(l *lane, i int64) {
	for k := i - Slots; k <= i; k++ {
		if b.over[at(k)] {
			continue
		}
		if l.upTo(i)-l.upTo(k-1) <= b.cfg.Quota {
			break // later ones hold less
		}
		b.countOver(k)
	}
	for b.first <= b.t && b.over[at(b.first)] && b.allowed[at(b.first)] {
		b.first++
	}
}

// Limit returns the earliest window k that must not go over in this slot: the slots
// from k on must together stay within the quota. limited is false if
// all windows of the slot may go over.
func (b *Budget) Limit(now int64) (k int64, limited bool) {
	b.Advance(now)
	k = b.first
	if b.free {
		k = max(b.limit, k)
	}
	return k, k <= b.t
}

// Stats describes the state of a budget, for people.
type Stats struct {
	Start, End int64 // of the cycle
	Total      int64 // free windows of each phase
	Used       int64 // in the phase that used most
	Left       int64 // in that phase; negative if the caller passed more than allowed
	Free       bool  // bursts may exceed the quota now
}

// Stats returns the state of the budget now.
func (b *Budget) Stats(now int64) Stats {
	b.Advance(now)
	c := &b.cycles[1]
	return Stats{Start: c.start, End: c.end, Total: c.total, Used: c.worst, Left: c.total - c.worst, Free: b.free}
}
