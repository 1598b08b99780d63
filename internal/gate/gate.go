// Package gate decides which frames pass. It takes times and sizes and
// returns verdicts; it uses no pipes, clocks or frame contents.
//
// A window counts the bytes that passed recently (window.go). While it holds less
// than the threshold's share of the quota, all frames pass. Above the threshold,
// the policy Pace passes frames at the rate that the rest of the quota can
// sustain until old traffic leaves the window: a token bucket releases them
// from a short fair queue (queue.go), and as the queue fills, frames are dropped
// from its fullest flow with rising probability. The policy Random queues no
// frames: it drops them with a probability that rises from 0 at the
// threshold to 1 at the quota.
//
// With both policies, no frame passes that would take the window over its quota, except
// control frames, without which the link fails.
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
	Window    time.Duration // length of the window; 0 if Cycle is set
	Align     bool          // windows start on the clock instead of sliding
	Cycle     func(now int64) (start, end int64)
	Threshold float64 // share of the quota up to which all frames pass
	Policy    Policy
	Queue     time.Duration // length of the paced queue, at the paced rate
	Offered   bool          // dropped frames are charged too
	ECN       bool          // mark frames that can be marked, instead of an early drop
	Seed      uint64
	// Wall converts a time of the gate's own, monotonic clock to the wall clock. Cycle
	// and aligned windows use it. If it is nil, the two clocks are the same.
	Wall func(now int64) int64
	// Book, if set, stores the counts and shares them with other gates. It must have
	// the same Window or Cycle.
	Book Book
	// Budget, if set, decides which windows may exceed the quota. It learns
	// from the Book, whose slots must have the length of its own.
	Budget *budget.Budget
}

// maxQuota keeps sums and products of byte counts well inside an int64.
const maxQuota = 1 << 60

// MaxTime bounds times for the same reason, in nanoseconds: the year 2116. Later times
// are taken for MaxTime.
const MaxTime = 1 << 62

// Packet describes a frame to a gate.
type Packet struct {
	Bytes     int64  // size, as counted
	Flow      uint64 // hash of the flow
	Control   bool   // the link fails without it: always passes
	Unmetered bool   // neither counted nor delayed
	Super     bool   // can be cut into segments
	ECN       bool   // can carry a congestion mark
}

// Verdict says what to do with a frame.
type Verdict uint8

// The verdicts.
const (
	Pass Verdict = iota
	Mark         // pass it with a congestion mark (ECN)
	Drop
	Hold // queue it with Hold; Release returns it later
	Cut  // cut it into segments, and ask again for each
)

// Tally counts frames and their bytes.
type Tally struct{ Frames, Bytes uint64 }

func (t *Tally) add(bytes int64) {
	t.Frames++
	t.Bytes += uint64(bytes)
}

// Stats are the counts of a gate since New. In is the sum of Passed, all Dropped,
// Malformed and the held frames. Control and Unmetered frames are in Passed too.
type Stats struct {
	In, Passed         Tally
	Control, Unmetered Tally
	Marked             Tally
	DroppedEarly       Tally // to make senders slow down before the queue is full
	DroppedFull        Tally // the queue was full
	DroppedQuota       Tally // no room in the quota
	Malformed          Tally // could not be cut
}

// State describes a gate at a time.
type State struct {
	Stats
	Open       bool    // below the threshold, or in free windows, and no frames held
	Used       int64   // bytes in the window; more than Quota in free windows
	Quota      int64   // bytes
	Rate       float64 // paced rate in bytes per second, +Inf while open
	HeldFrames int
	HeldBytes  int64
	Delay      time.Duration // of the last frame that was held
	// Budget has the free windows. It is nil without a budget or while the Book fails.
	Budget *budget.Stats
}

// Gate decides which frames pass. It is not safe for concurrent use.
type Gate struct {
	cfg       Config
	win       window
	book      booked // win, if its counts are in a Book
	threshold int64
	known     int64 // quota from which threshold was computed
	now       int64
	rng       *rand.Rand
	q         *queue

	// credit is prepaid bytes. Until a time, frames within it skip the window: most
	// frames cost one comparison, and small ones less than half of the time.
	credit int64
	until  int64
	came   int64 // bytes that arrived but are not yet counted as offered in the book

	rate    float64 // bytes per second
	renew   int64   // when to compute the rate again
	tokens  float64 // bytes; a frame passes while tokens > 0 and may take them below 0
	filled  int64   // when tokens were last added
	clamped bool
	delay   int64

	stats Stats
}

const (
	// bucket bounds the saved tokens, as a duration at the paced rate: long enough to
	// absorb a late wake-up, too short for a visible burst.
	bucket = 10 * time.Millisecond
	// renewal is the longest time a rate is kept. In a sliding window it also changes
	// with each slot.
	renewal = 20 * time.Millisecond
	// shortest is the minimum queue length, in full frames: with fewer, TCP
	// repairs a loss only after a timeout.
	shortest = 8
	// chunk bounds the credit: a gate that is killed has charged it for nothing.
	chunk = 64 << 10
	// retry is the time between attempts to use a Book that fails.
	retry = 5 * time.Second
	// earliness is the exponent of the drop probability over the fill of
	// the queue: p = fill^earliness.
	earliness = 6
)

// Quota returns the number of bytes a window may hold: quota, or if that is 0, rate (in
// bytes a second) times length.
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
		return nil, fmt.Errorf("threshold %v: must be between 0 and 1", cfg.Threshold)
	}
	if (cfg.Quota > 0) == (cfg.Rate > 0) {
		return nil, fmt.Errorf("either a quota or a rate must be positive, not both")
	}
	limit := func(start, end int64) int64 { return Quota(cfg.Quota, cfg.Rate, time.Duration(end-start)) }
	switch {
	case cfg.Budget != nil && (cfg.Book == nil || cfg.Cycle != nil || cfg.Align):
		return nil, fmt.Errorf("a budget needs a sliding window and a Book")
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
			return nil, fmt.Errorf("the quota is less than a byte in %v", cfg.Window)
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
		return nil, fmt.Errorf("aligned windows cannot use a Book")
	}
	return g, nil
}

// tick moves to now. Time does not go back: an earlier now is taken for the
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

// Settle returns unused credit to the window. Call it before a wait: without it, the
// credit would take room from other gates until the next frame.
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

// prepay charges credit in advance, if the window stays below the threshold with all
// of it.
func (g *Gate) prepay() {
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

// Err returns the error of the Book, nil if it works. While it fails, the gate
// counts alone and tries the Book again every few seconds.
func (g *Gate) Err() error {
	if g.book == nil {
		return nil
	}
	return g.book.failed()
}

// Admit is Arrive for a frame that passes at once. For any other frame it returns false
// and counts nothing: pass the frame to Arrive then.
func (g *Gate) Admit(now int64, p *Packet) bool {
	if g.prepaid(now, p) {
		return true
	}
	if !p.Unmetered && !p.Control {
		g.tick(now)
		if g.q.frames > 0 || g.win.used() >= g.threshold || g.win.used()+p.Bytes > g.win.quota() {
			return false
		}
		if g.cfg.Offered { // charged on arrival; take does not charge it again
			g.win.add(p.Bytes)
		}
		if !g.take(p.Bytes) {
			return false
		}
		g.stats.In.add(p.Bytes)
		g.came += p.Bytes
		g.clamped = false
		g.prepay()
		return true
	}
	return g.Arrive(now, p) == Pass // always true
}

// prepaid passes a frame if there is credit for it.
func (g *Gate) prepaid(now int64, p *Packet) bool {
	if p.Bytes > g.credit || now >= g.until || p.Control || p.Unmetered {
		return false
	}
	g.credit -= p.Bytes
	g.came += p.Bytes
	g.stats.In.add(p.Bytes)
	g.stats.Passed.add(p.Bytes)
	return true
}

// Arrive decides on a frame that arrives now. After the verdict Cut the frame is not
// counted; after Hold, call Hold with it.
func (g *Gate) Arrive(now int64, p *Packet) Verdict {
	if g.prepaid(now, p) {
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
	case p.Bytes > g.win.quota(): // it would wait forever
		g.stats.DroppedQuota.add(p.Bytes)
		return Drop
	case open && fits:
		g.clamped = false
		if g.take(p.Bytes) {
			g.prepay()
			return Pass
		}
	case g.cfg.Policy == Random:
		return g.random(p, used, fits)
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

// take passes bytes for which the window had room before. As another gate may have used
// the room since, take adds, checks, and undoes the add on overshoot. If two gates add at
// once, at least one sees the bytes of both.
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

// random decides by the policy Random.
func (g *Gate) random(p *Packet, used int64, fits bool) Verdict {
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

// refill updates the rate and the tokens.
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

// Hold queues a frame and returns it with room for size bytes, which the caller fills.
// Release returns it later. Hold drops queued frames to make room.
func (g *Gate) Hold(p *Packet, hash uint64, size int) *Held {
	limit := max(int64(g.rate*g.cfg.Queue.Seconds()), shortest*quantum)
	if g.win.used() < g.threshold && g.win.used()+p.Bytes <= g.win.quota() {
		limit = maxHeld // about to be released
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

// early marks or drops a frame of the fullest flow, so that its sender slows down.
func (g *Gate) early(p *Packet) {
	f := g.q.fattest()
	if f == nil {
		return
	}
	if h := f.head; g.cfg.ECN && h.ECN {
		h.Marked = true // counted when it passes
		return
	}
	g.discard(f, &g.stats.DroppedEarly)
}

func (g *Gate) discard(f *flow, why *Tally) {
	h := g.q.unlink(f)
	why.add(h.Bytes)
	g.q.free(h)
}

// Release returns the next held frame that may pass now, nil if there is none. The frame
// is valid until it is returned with Done.
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
		return g.win.used() <= g.win.quota() // charged on arrival
	}
	return g.win.used()+h.Bytes <= g.win.quota()
}

// carried reports whether a frame was charged on arrival to an aligned window that has
// ended since. It is charged to the current window too.
func (g *Gate) carried(h *Held) bool {
	return g.cfg.Offered && h.Since < g.win.begun()
}

// Abandon drops all held frames.
func (g *Gate) Abandon() {
	for g.q.frames > 0 {
		g.discard(g.q.fattest(), &g.stats.DroppedQuota)
	}
}

// Done returns a released frame to the queue's memory.
func (g *Gate) Done(h *Held) { g.q.free(h) }

// Due returns when to call Release again: when the next held frame may pass, or when
// that time may have changed. ok is false if no frame is held.
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

// Reject counts a frame that is dropped because it could not be cut.
func (g *Gate) Reject(bytes int64) {
	g.stats.In.add(bytes)
	g.stats.Malformed.add(bytes)
}

// State returns the state of the gate now.
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
