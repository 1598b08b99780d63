package budget

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"framepipe/internal/calendar"
)

const (
	// Slots is the usual number of slots in a window, and the greatest.
	Slots = calendar.Slots
	// Late is the number of slots before the current one that may still change: other
	// gates count in them, by other clocks and when the scheduler runs them.
	Late = 2

	kept      = 128           // slots remembered, a power of two
	lanes     = 2             // the most of a budget
	unlimited = math.MaxInt64 // bytes that may pass where there is no limit
)

// Config configures a budget. Times are nanoseconds since the Unix epoch.
type Config struct {
	Quota  int64         // bytes that a window of a lane may hold: the commit times the window
	Lanes  int           // 1 if 0, or 2, see Budget
	Window time.Duration // of the provider's samples; 5m if 0
	Slots  int           // of a window; 60 if 0
	// Percentile is billed: the provider discards the samples above it.
	Percentile Percentile
	// Cycle returns the billing cycle of a time, from start to just
	// before end. Cycles follow each other without a gap.
	Cycle func(now int64) (start, end int64)
	// Reserve is the number of free windows of a cycle that are never used, for a
	// provider that loses samples.
	Reserve int64
	// Separate means that the second lane only has a bill of its own, of which the larger
	// is billed: it is not held to the quota.
	Separate bool
	// Hard holds to the quota even if more will be billed in any case.
	Hard bool
	// Whole means that the provider bills the whole of the first cycle. Otherwise
	// it has the share of free windows that is left when the budget begins.
	Whole  bool
	Poller Poller
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
	total      int64 // free windows
	used       int64 // of these, by windows that can no more change
	next       int64 // the first window that does not overlap the last one used
}

// Budget counts the windows over quota. It is not safe for concurrent use.
//
// A lane is traffic with a quota of its own: one direction, or
// the sum of both. A window is over if one of its lanes is.
type Budget struct {
	terms
	t     int64 // the current slot's number
	begun bool
	since int64 // when the first slot began

	passed, offered [lanes]sums

	// over[at(k)] is set if window k was counted as over quota, and allowed[at(k)] if
	// it was free then. Windows are numbered by the slot they begin in. Of two
	// windows that contain the current slot, the earlier one holds more. All windows
	// before first are over and were free. first is not over, or was not
	// free: then it makes no room for more bytes.
	over, allowed [kept]bool
	first         int64

	cycles [3]allowance // the previous cycle, the current one and the next

	free    bool  // the verdict of this slot
	limit   int64 // the earliest window that must not be over; t+1 if none
	learned learned
	spent   [lanes]spent
}

// terms are fixed by New.
type terms struct {
	cfg   Config
	held  int   // lanes that are held to the quota
	slots int64 // in a window
	slot  int64 // nanoseconds
	quota int64 // bytes that the slots of a window may hold
	span  int64 // slots that a sample may touch
	gap   int64 // slots between the first ones of two samples, at least
}

// sums holds the bytes of a lane up to and including each of the last slots.
type sums [kept]int64

// at returns the ring index of slot i.
func at(i int64) int64 { return i & (kept - 1) }

// in returns the bytes in the slots first to last.
func (s *sums) in(first, last int64) int64 { return s[at(last)] - s[at(first-1)] }

// set sets the bytes of slot i; t is the current one.
func (s *sums) set(i, t, bytes int64) {
	for more := bytes - s.in(i, i); i <= t; i++ {
		s[at(i)] += more
	}
}

// New makes a budget.
func New(cfg Config) (*Budget, error) {
	cfg.Window = cmp.Or(cfg.Window, 5*time.Minute)
	cfg.Slots, cfg.Lanes = cmp.Or(cfg.Slots, Slots), cmp.Or(cfg.Lanes, 1)
	switch {
	case cfg.Quota < 1 || cfg.Quota > 1<<60:
		return nil, fmt.Errorf("quota of %d bytes: must be between 1 and 2^60", cfg.Quota)
	case cfg.Slots < 1 || cfg.Slots > Slots:
		return nil, fmt.Errorf("%d slots: must be 1 to %d", cfg.Slots, Slots)
	case cfg.Window < time.Millisecond || cfg.Window%time.Duration(cfg.Slots) != 0:
		return nil, fmt.Errorf("window of %v: must be a millisecond or more and divisible by %d", cfg.Window, cfg.Slots)
	}
	if err := cfg.Poller.Check(cfg.Window); err != nil {
		return nil, err
	}
	x := terms{cfg: cfg, slots: int64(cfg.Slots), slot: int64(cfg.Window) / int64(cfg.Slots), held: cfg.Lanes}
	if cfg.Separate {
		x.held = 1
	}
	shortest, longest, quota := cfg.Poller.Samples(cfg.Window, cfg.Quota)
	x.quota = quota
	x.span = (int64(longest)-1)/x.slot + 2
	x.gap = int64(shortest) / x.slot
	return &Budget{terms: x}, nil
}

// freeWindows returns how many windows of a cycle of the given length may go
// over, whatever the phase of the provider's poller: those above the percentile of the
// least number of whole windows that fit.
//
// A window fits if it begins between the cycle's start and one window before
// its end. That closed span is length-window long and contains at least
// ⌊length/window⌋-1 of the poller's instants. A provider that also counts windows that
// straddle an edge of the cycle has more samples, and discards no fewer.
func freeWindows(length, window int64, p Percentile) int64 {
	return int64(p.Free(int(max(length/window-1, 0))))
}

func (b *Budget) cycleAt(now int64) allowance {
	start, end := b.cfg.Cycle(now)
	c := allowance{start: start, end: end, next: math.MinInt64}
	if !b.cfg.Whole {
		start = max(start, b.since)
	}
	c.total = max(freeWindows(end-start, int64(b.cfg.Window+b.cfg.Poller.Jitter), b.cfg.Percentile)-b.cfg.Reserve, 0)
	return c
}

// counts reports whether window k may be a sample of the provider in the cycle.
func (b *Budget) counts(c *allowance, k int64) bool {
	return k*b.slot < c.end && (k+b.span)*b.slot > c.start && b.cfg.Poller.polls(k*b.slot, b.slot, b.cfg.Window)
}

// chain returns how many windows of a cycle are used, by those that are over, and if
// all is set, by those that may yet go over. limit is the first of these that is not free,
// t+1 if there is none.
func (b *Budget) chain(c *allowance, all bool) (n, limit int64) {
	n, limit = c.used, b.t+1
	first := b.final()
	switch {
	case first*b.slot >= c.end || (b.t+b.span)*b.slot <= c.start: // the usual case, of two of the cycles
		return n, limit
	case n > c.total:
		limit = first
	}
	for k := max(c.next, first); k <= b.t; k++ {
		if (all || b.over[at(k)]) && b.counts(c, k) {
			if n++; n > c.total {
				limit = min(limit, k)
			}
			k += b.gap - 1
		}
	}
	return n, limit
}

// final returns the first window that may yet go over.
func (b *Budget) final() int64 { return b.t - b.span + 1 - Late }

// countOver counts window k as over.
func (b *Budget) countOver(k int64) {
	b.over[at(k)], b.allowed[at(k)] = true, true
	for i := range b.cycles {
		if c := &b.cycles[i]; b.counts(c, k) {
			n, _ := b.chain(c, false)
			b.allowed[at(k)] = b.allowed[at(k)] && n <= c.total
		}
	}
}

// Reset forgets everything.
func (b *Budget) Reset() { *b = Budget{terms: b.terms} }

// Advance moves to now and finds the verdict for its slot. Time
// does not go back: an earlier now is taken for the latest.
func (b *Budget) Advance(now int64) {
	if !b.step(FloorDiv(now, b.slot)) {
		return
	}
	b.limit = b.t + 1
	if b.free = b.worth(); !b.free {
		return
	}
	for i := range b.cycles {
		_, limit := b.chain(&b.cycles[i], true)
		b.limit = min(b.limit, limit)
	}
}

// Longest is the maximum number of slots without a call: four months. After that the
// budget forgets everything.
const Longest = 1 << 21

// step moves to slot to, and reports whether that is a new slot.
func (b *Budget) step(to int64) bool {
	if b.begun && to <= b.t {
		return false
	}
	if to-b.t > Longest {
		b.Reset()
	}
	if !b.begun {
		b.begun = true
		b.t, b.first, b.since = to, to-b.span+1, to*b.slot
		b.cycles[1] = b.cycleAt(b.since)
		b.begin()
		b.cycles[0], b.cycles[2] = b.cycleAt(b.cycles[1].start-1), b.cycleAt(b.cycles[1].end)
	}
	for b.t < to {
		b.learn()
		b.t++
		for l := range b.cfg.Lanes {
			b.passed[l][at(b.t)], b.offered[l][at(b.t)] = b.passed[l][at(b.t-1)], b.offered[l][at(b.t-1)]
		}
		b.over[at(b.t)] = false
		k := b.final() - 1
		b.settle(k)
		b.observe(k)
	}
	b.first = max(b.first, b.t-b.span+1)
	for b.t*b.slot >= b.cycles[1].end {
		b.learned.last, b.learned.this = b.learned.this, past{}
		b.cycles[0], b.cycles[1] = b.cycles[1], b.cycles[2]
		b.cycles[2] = b.cycleAt(b.cycles[1].end)
		b.begin()
	}
	return true
}

// begin begins a cycle of which nothing is spent. A provider may discard one sample more than
// are free here, as the windows at both ends count.
func (b *Budget) begin() {
	length := b.cycles[1].end - b.cycles[1].start + 2*int64(b.cfg.Window)
	free := freeWindows(length, int64(b.cfg.Window-b.cfg.Poller.Jitter), b.cfg.Percentile)
	for i := range b.spent {
		s := &b.spent[i]
		s.most = int(free) + 1
		for j := range s.phases {
			s.phases[j] = s.phases[j][:0]
		}
	}
}

// settle counts window k, which can no longer change.
func (b *Budget) settle(k int64) {
	if !b.over[at(k)] {
		return
	}
	for i := range b.cycles {
		if c := &b.cycles[i]; k >= c.next && b.counts(c, k) {
			c.used++
			c.next = k + b.gap
		}
	}
}

// FloorDiv is a/b, rounded down.
func FloorDiv(a, b int64) int64 {
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
// Earlier slots are left as they are. A later slot becomes the current one, with the verdict of
// the one before: call Advance first.
func (b *Budget) Count(lane int, start, offered, passed int64, beyond bool) {
	i := FloorDiv(start, b.slot)
	b.step(i)
	if b.t-i > Late {
		return
	}
	x := &b.passed[lane]
	x.set(i, b.t, passed)
	b.offered[lane].set(i, b.t, max(offered, passed))
	if !beyond || lane >= b.held {
		return
	}
	// The bytes take windows over quota. Windows that go over later do so with bytes that fit into
	// the caller's own window; no sample of the provider is over because of these (see the package comment).
	for k := i - b.span + 1; k <= i && (b.over[at(k)] || x.in(k, i) > b.quota); k++ { // later ones hold less
		if !b.over[at(k)] {
			b.countOver(k)
		}
	}
	for b.first <= b.t && b.over[at(b.first)] && b.allowed[at(b.first)] {
		b.first++
	}
}

// Limit returns the earliest window k that must not go over in this slot: the slots
// from k on must together stay within Config.Quota. limited is false if
// all windows of the slot may go over.
//
// While Quota is more than Config.Quota, windows may go over up to there, but none that touches
// the next cycle: k is the first of these.
func (b *Budget) Limit(now int64) (k int64, limited bool) {
	spent := b.Quota(now) > b.cfg.Quota
	k = b.first
	switch {
	case spent:
		k = max(k, FloorDiv(b.cycles[1].end, b.slot)-b.span+1)
	case b.free:
		k = max(b.limit, k)
	}
	return k, k <= b.t
}

// Stats describes the state of a budget, for people.
type Stats struct {
	End   int64 // of the cycle
	Total int64 // free windows
	Used  int64 // of these, by the poller for which most windows are over
	Left  int64 // negative if the caller passed more than allowed
	Free  bool  // bursts may exceed the quota now
	Spent int64 // bytes of a window that are billed in any case; 0 if within the quota
}

// Stats returns the state of the budget now.
func (b *Budget) Stats(now int64) Stats {
	quota, c := b.Quota(now), &b.cycles[1]
	used, _ := b.chain(c, false)
	_, limited := b.Limit(now)
	s := Stats{End: c.end, Total: c.total, Used: used, Left: c.total - used, Free: !limited}
	if quota > b.cfg.Quota {
		s.Spent, s.Free = quota, false
	}
	return s
}
