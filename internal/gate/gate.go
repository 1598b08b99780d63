// Package gate decides which frames pass. It is given times and sizes and
// returns verdicts; it knows nothing of pipes, clocks or the bytes of a frame.
//
// A window counts the bytes that passed lately (window.go). While it holds less
// than the threshold's share of the quota, everything passes. From there on,
// with the policy Pace, frames pass at the rate that the rest of the quota can
// sustain until old traffic leaves the window: a token bucket lets them out
// of a short fair queue (queue.go), and as the queue fills, frames are dropped
// from its fullest flow with rising probability. With the policy Random nothing
// waits: frames are dropped with a probability that rises from 0 at the
// threshold to 1 at the quota.
//
// In both, no frame passes that would take the window over its quota, except
// those the link needs to live.
package gate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"framepipe/internal/budget"
)

// Config describes a gate. Exactly one of Quota and Rate is positive.
type Config struct {
	Quota     int64         // bytes a window
	Rate      float64       // bytes a second; the quota is this times the window
	Window    time.Duration // its length; 0 if Cycle is set
	Align     bool          // windows start on the clock instead of sliding
	Cycle     func(now int64) (start, end int64)
	Threshold float64 // share of the quota up to which everything passes
	Policy    Policy
	Queue     time.Duration // length of the paced queue, at the paced rate
	Offered   bool          // dropped frames are charged too
	ECN       bool          // mark frames that can be marked, instead of an early drop
	Seed      uint64
	// Wall returns the time on the wall clock at a time of the gate's own clock, which
	// goes steadily. Cycle and aligned windows use it. nil: the two are the same.
	Wall func(now int64) int64
	// Book, if set, keeps the counts, for other gates too. It must have the same
	// Window or Cycle.
	Book Book
	// Budget, if set, knows which windows may hold more than the quota. It learns
	// from the Book, whose slots must be as long as its own.
	Budget *budget.Budget
}

// maxQuota keeps sums and products of byte counts well inside an int64.
const maxQuota = 1 << 60

// MaxTime bounds times likewise, in nanoseconds: the year 2116. The gate takes later
// times for this one.
const MaxTime = 1 << 62

// Packet describes a frame to a gate.
type Packet struct {
	Bytes     int64  // its size, as counted
	Flow      uint64 // a hash of its flow
	Control   bool   // the link needs it to live: passes always
	Unmetered bool   // neither counted nor held up
	Super     bool   // can be cut into smaller frames
	ECN       bool   // can be marked
}

// Verdict says what to do with a frame.
type Verdict uint8

// The verdicts.
const (
	Pass Verdict = iota
	Mark         // pass it with a congestion mark
	Drop
	Hold // hand it to Hold, and get it back from Release
	Cut  // cut it into segments, and ask again for each
)

// Tally counts frames and their bytes.
type Tally struct{ Frames, Bytes uint64 }

func (t *Tally) add(bytes int64) {
	t.Frames++
	t.Bytes += uint64(bytes)
}

// Stats are the counts of a gate since it was made. In is the sum of Passed, the
// Dropped, and the frames it holds. Control and Unmetered frames are in Passed too.
type Stats struct {
	In, Passed         Tally
	Control, Unmetered Tally
	Marked             Tally
	DroppedEarly       Tally // to make senders slow down before the queue is full
	DroppedFull        Tally // the queue was full
	DroppedQuota       Tally // the quota was used up
	Malformed          Tally // could not be cut
}

// State describes a gate at a time.
type State struct {
	Stats
	Open       bool    // below the threshold, or free to exceed it, and nothing held
	Used       int64   // bytes in the window; more than Quota where that was free
	Quota      int64   // bytes
	Rate       float64 // bytes per second that are let out, +Inf while open
	HeldFrames int
	HeldBytes  int64
	Delay      time.Duration // of the last frame that was held
	// Budget has the free windows, nil without a budget, or while the Book fails.
	Budget *budget.Stats
}

// Gate decides. It is not safe for concurrent use.
type Gate struct {
	cfg       Config
	win       window
	book      booked // win, if its counts are in a Book
	threshold int64
	known     int64 // quota that threshold was made of
	now       int64
	rng       *rand.Rand
	q         *queue

	// credit is prepaid bytes. Until a time, frames within it skip the window: most
	// frames cost one comparison, and small ones less than half of the time.
	credit int64
	until  int64
	came   int64 // bytes that arrived and were not offered to the book yet

	rate    float64 // bytes per second
	renew   int64   // when to find the rate anew
	tokens  float64 // bytes; may be negative: a frame passes on credit
	filled  int64   // when tokens were last added
	clamped bool
	delay   int64

	stats Stats
}

const (
	// bucket bounds how much of the paced rate is saved up: long enough to ride
	// out a late wake-up, too short to look like a burst.
	bucket = 10 * time.Millisecond
	// renewal bounds how long a rate holds. In a sliding window it also changes
	// with each slot.
	renewal = 20 * time.Millisecond
	// shortest is the least length of the queue, in full frames: with fewer, TCP
	// repairs a loss only after a timeout.
	shortest = 8
	// chunk bounds the credit, which a gate that is killed has charged in vain.
	chunk = 64 << 10
	// retry is the time between two tries of a Book that fails.
	retry = 5 * time.Second
	// earliness is how steeply the drop probability rises with the fill of
	// the queue: p = fill^earliness.
	earliness = 6
)

// Quota returns how many bytes a window may hold: quota, or if that is 0, a rate in
// bytes a second times its length.
func Quota(quota int64, rate float64, length time.Duration) int64 {
	if quota > 0 {
		return min(quota, maxQuota)
	}
	return int64(min(rate*float64(length)/1e9, maxQuota))
}

// New makes a gate.
func New(cfg Config) (*Gate, error) {
	g := &Gate{cfg: cfg, q: new(queue), rng: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15))}
	if !(cfg.Threshold >= 0 && cfg.Threshold <= 1) {
		return nil, fmt.Errorf("the threshold %v is not between 0 and 1", cfg.Threshold)
	}
	if (cfg.Quota > 0) == (cfg.Rate > 0) {
		return nil, fmt.Errorf("either a quota or a rate is needed")
	}
	limit := func(start, end int64) int64 { return Quota(cfg.Quota, cfg.Rate, time.Duration(end-start)) }
	switch {
	case cfg.Budget != nil && (cfg.Book == nil || cfg.Cycle != nil || cfg.Align):
		return nil, fmt.Errorf("a budget is for sliding windows with a Book")
	case cfg.Cycle != nil:
		a := newAligned(limit, cfg.Cycle, cfg.Wall)
		g.win = a
		if cfg.Book != nil {
			g.book = newSharedCycle(a, cfg.Book)
		}
	case cfg.Window < time.Millisecond:
		return nil, fmt.Errorf("the window %v is shorter than a millisecond", cfg.Window)
	case cfg.Align:
		g.win = newAligned(limit, Every(cfg.Window), cfg.Wall)
	default:
		quota := limit(0, int64(cfg.Window))
		if quota < 1 {
			return nil, fmt.Errorf("the quota comes to less than a byte in %v", cfg.Window)
		}
		s := newSliding(quota, cfg.Window)
		g.win = s
		if cfg.Book != nil {
			w := newShared(s, cfg.Window, cfg.Book)
			g.book = w
			if cfg.Budget != nil {
				g.book = &budgeted{shared: w, budget: cfg.Budget}
			}
		}
	}
	if g.book != nil {
		g.win = g.book
	} else if cfg.Book != nil {
		return nil, fmt.Errorf("windows that begin on the clock are not shared")
	}
	return g, nil
}

// tick moves to now. Time does not go back: an earlier now is the same as the
// latest.
func (g *Gate) tick(now int64) {
	g.Settle()
	g.now = max(g.now, min(now, MaxTime))
	g.win.advance(g.now)
	if q := g.win.quota(); q != g.known {
		g.known = q
		g.threshold = int64(g.cfg.Threshold * float64(q))
	}
}

// Settle takes back the credit. Call it before a wait, which may be long: other gates
// may need the bytes.
func (g *Gate) Settle() {
	if g.credit > 0 {
		g.win.add(-g.credit)
		g.credit = 0
	}
	if g.came > 0 {
		if g.book != nil {
			g.book.offer(g.came)
		}
		g.came = 0
	}
}

// borrow charges some bytes ahead, if the window is so far from the threshold that all
// of them could pass.
func (g *Gate) borrow() {
	n := min(chunk, g.threshold>>10)
	if n == 0 || g.win.used()+n >= g.threshold {
		return
	}
	g.win.add(n)
	if g.win.used() >= g.threshold {
		g.win.add(-n)
		return
	}
	g.credit, g.until = n, g.win.refresh()
}

// Err returns why the Book cannot be used, nil if it can. While it cannot, the gate
// counts by itself, and tries again every few seconds.
func (g *Gate) Err() error {
	if g.book == nil {
		return nil
	}
	return g.book.failed()
}

// Admit is Arrive for a frame that passes at once. For any other it returns false and
// changes nothing: the frame has not arrived yet.
func (g *Gate) Admit(now int64, p *Packet) bool {
	if g.paid(now, p) {
		return true
	}
	if !p.Unmetered && !p.Control {
		g.tick(now)
		if g.q.frames > 0 || g.win.used() >= g.threshold || g.win.used()+p.Bytes > g.win.quota() {
			return false
		}
		if g.cfg.Offered { // charged when it comes; take is not in its way then
			g.win.add(p.Bytes)
		}
		if !g.take(p.Bytes) {
			return false
		}
		g.stats.In.add(p.Bytes)
		g.came += p.Bytes
		g.clamped = false
		g.borrow()
		return true
	}
	return g.Arrive(now, p) == Pass // it does
}

// paid passes a frame if there is credit for it.
func (g *Gate) paid(now int64, p *Packet) bool {
	if p.Bytes > g.credit || now >= g.until || p.Control || p.Unmetered {
		return false
	}
	g.credit -= p.Bytes
	g.came += p.Bytes
	g.stats.In.add(p.Bytes)
	g.stats.Passed.add(p.Bytes)
	return true
}

// Arrive decides about a frame that arrives now. After Cut the frame has not arrived;
// after Hold, call Hold with it.
func (g *Gate) Arrive(now int64, p *Packet) Verdict {
	if g.paid(now, p) {
		return Pass
	}
	g.tick(now)
	if p.Unmetered {
		g.stats.In.add(p.Bytes)
		g.stats.Unmetered.add(p.Bytes)
		g.stats.Passed.add(p.Bytes)
		return Pass
	}
	used := g.win.used()
	open := used < g.threshold && g.q.frames == 0
	fits := used+p.Bytes <= g.win.quota()
	if p.Super && !p.Control && !(open && fits) {
		return Cut
	}
	g.stats.In.add(p.Bytes)
	g.came += p.Bytes
	if g.cfg.Offered {
		g.win.add(p.Bytes)
	}
	switch {
	case p.Control:
		g.stats.Control.add(p.Bytes)
		return g.pass(p.Bytes)
	case p.Bytes > g.win.quota(): // it would wait for ever
		g.stats.DroppedQuota.add(p.Bytes)
		return Drop
	case open && fits:
		g.clamped = false
		if g.take(p.Bytes) {
			g.borrow()
			return Pass
		}
	case g.cfg.Policy == Random:
		return g.toss(p, used, fits)
	case g.q.frames == 0 && fits:
		if g.refill(); g.tokens > 0 && g.take(p.Bytes) {
			g.tokens -= float64(p.Bytes)
			return Pass
		}
	}
	if g.cfg.Policy == Random {
		g.stats.DroppedQuota.add(p.Bytes)
		return Drop
	}
	return Hold
}

// take passes bytes that fitted a moment ago. Another gate may have taken the room
// since: add, check, undo on overshoot. Of two gates at once, one sees the bytes of both.
func (g *Gate) take(bytes int64) bool {
	if g.book == nil || g.cfg.Offered {
		g.pass(bytes)
		return true
	}
	g.win.add(bytes)
	if g.win.used() > g.win.quota() {
		g.win.add(-bytes)
		return false
	}
	g.stats.Passed.add(bytes)
	return true
}

func (g *Gate) pass(bytes int64) Verdict {
	if !g.cfg.Offered {
		g.win.add(bytes)
	}
	g.stats.Passed.add(bytes)
	return Pass
}

// toss is the policy Random.
func (g *Gate) toss(p *Packet, used int64, fits bool) Verdict {
	chance := 1.0
	if room := g.win.quota() - g.threshold; room > 0 {
		chance = float64(used-g.threshold) / float64(room)
	}
	switch {
	case !fits:
		g.stats.DroppedQuota.add(p.Bytes)
		return Drop
	case g.rng.Float64() >= chance:
		if g.take(p.Bytes) {
			return Pass
		}
		g.stats.DroppedQuota.add(p.Bytes)
		return Drop
	case g.cfg.ECN && p.ECN && g.take(p.Bytes):
		g.stats.Marked.add(p.Bytes)
		return Mark
	}
	g.stats.DroppedEarly.add(p.Bytes)
	return Drop
}

// refill brings the rate and the tokens up to now.
func (g *Gate) refill() {
	if !g.clamped {
		g.clamped = true
		g.tokens, g.filled, g.renew = 0, g.now, 0
	}
	if g.now >= g.renew {
		g.rate = g.win.sustainable(g.now)
		g.renew = g.now + int64(renewal)
		g.renew = min(g.renew, g.win.refresh())
	}
	g.tokens += g.rate * float64(g.now-g.filled) / 1e9
	g.tokens = min(g.tokens, max(g.rate*bucket.Seconds(), quantum))
	g.filled = g.now
}

// Hold queues a frame and returns it with room for size bytes, which the caller fills
// and gets back from Release. It drops frames that have to make way.
func (g *Gate) Hold(p *Packet, hash uint64, size int) *Held {
	limit := max(int64(g.rate*g.cfg.Queue.Seconds()), shortest*quantum)
	if g.win.used() < g.threshold && g.win.used()+p.Bytes <= g.win.quota() {
		limit = maxHeld // about to be let out
	}
	fill := float64(g.q.bytes+p.Bytes) / float64(limit)
	if fill < 1 {
		if g.rng.Float64() < math.Pow(fill, earliness) {
			g.early(p)
		}
	} else {
		for g.q.frames > 0 && g.q.bytes+p.Bytes > limit {
			g.discard(g.q.fattest(), &g.stats.DroppedFull)
		}
	}
	for g.q.frames > 0 && g.q.memory+size > maxHeld {
		g.discard(g.q.fattest(), &g.stats.DroppedFull)
	}
	h := g.q.take(size)
	h.Bytes, h.Since, h.ECN = p.Bytes, g.now, p.ECN
	g.q.push(h, hash)
	return h
}

// early tells the sender of the fullest flow to slow down.
func (g *Gate) early(p *Packet) {
	f := g.q.fattest()
	if f == nil {
		return
	}
	if h := f.head; g.cfg.ECN && h.ECN {
		h.Marked = true // and counted when it passes
		return
	}
	g.discard(f, &g.stats.DroppedEarly)
}

func (g *Gate) discard(f *flow, why *Tally) {
	h := g.q.unlink(f)
	why.add(h.Bytes)
	g.q.free(h)
}

// Release returns the next frame that may pass now, nil if none may. It is
// valid until given back with Done.
func (g *Gate) Release(now int64) *Held {
	if g.q.frames == 0 {
		return nil
	}
	g.tick(now)
	h := g.q.peek()
	if !g.fits(h) {
		return nil
	}
	paced := g.win.used() >= g.threshold
	if paced {
		if g.refill(); g.tokens <= 0 {
			return nil
		}
	} else {
		g.clamped = false
	}
	if !g.take(h.Bytes) {
		return nil
	}
	if g.carried(h) {
		g.win.add(h.Bytes)
	}
	if paced {
		g.tokens -= float64(h.Bytes)
	}
	if h.Marked {
		g.stats.Marked.add(h.Bytes)
	}
	g.q.pop()
	g.delay = g.now - h.Since
	return h
}

// fits reports whether a held frame may pass without taking the window over
// its quota.
func (g *Gate) fits(h *Held) bool {
	if g.cfg.Offered && !g.carried(h) {
		return g.win.used() <= g.win.quota() // it was charged when it came
	}
	return g.win.used()+h.Bytes <= g.win.quota()
}

// carried reports whether a frame was charged when it came, to an aligned window that
// has ended since. It is charged to this window too.
func (g *Gate) carried(h *Held) bool {
	a, ok := g.win.(*aligned)
	return ok && g.cfg.Offered && h.Since < a.begun
}

// Abandon drops all held frames.
func (g *Gate) Abandon() {
	for g.q.frames > 0 {
		g.discard(g.q.fattest(), &g.stats.DroppedQuota)
	}
}

// Done gives a frame back.
func (g *Gate) Done(h *Held) { g.q.free(h) }

// Due returns when to call Release again: when the next held frame may pass, or when
// that may have changed. ok is false if none is held.
func (g *Gate) Due(now int64) (at int64, ok bool) {
	if g.q.frames == 0 {
		return 0, false
	}
	g.tick(now)
	if g.win.used() < g.threshold && g.fits(g.q.peek()) {
		return g.now, true
	}
	g.refill()
	if !g.fits(g.q.peek()) || g.rate <= 0 {
		return max(g.renew, g.now+1), true
	}
	if g.tokens > 0 {
		return g.now, true
	}
	wait := int64((1 - g.tokens) / g.rate * 1e9)
	return g.now + min(max(wait, 1), max(g.renew-g.now, 1)), true
}

// Reject counts a frame that could not be cut and is dropped.
func (g *Gate) Reject(bytes int64) {
	g.stats.In.add(bytes)
	g.stats.Malformed.add(bytes)
}

// State describes the gate now.
func (g *Gate) State(now int64) State {
	g.tick(now)
	s := State{
		Stats: g.stats, Used: g.win.used(), Quota: g.win.quota(), Rate: math.Inf(1),
		HeldFrames: g.q.frames, HeldBytes: g.q.bytes, Delay: time.Duration(g.delay),
	}
	s.Open = g.q.frames == 0 && s.Used < g.threshold
	if w, ok := g.win.(*budgeted); ok {
		s.Used = w.shared.used()
		if w.err == nil {
			b := w.budget.Stats(g.now + w.slot.Shift)
			s.Budget = &b
		}
	}
	if !s.Open && g.cfg.Policy == Pace {
		s.Rate = g.win.sustainable(g.now)
	}
	return s
}
