// Package gate decides which frames pass. It takes times and sizes and
// returns verdicts; it uses no pipes, clocks or frame contents.
//
// A window counts the bytes that passed recently (window.go). While it holds less
// than the threshold's share of the quota, all frames pass. Above the threshold,
// the policy Pace passes frames at the rate that the rest of the quota can
// sustain until old traffic leaves the window: a token bucket releases them
// from a short fair queue (package fairq), and as the queue fills, frames are dropped
// from its fullest flow with rising probability. The policy Random queues no
// frames: it drops them with a probability that rises from 0 at the
// threshold to 1 at the quota.
//
// With both policies, no frame passes that would take the window over its quota, except
// control frames, without which the link fails. The caller bounds these.
//
// Bytes that are billed before they arrive (Config.Offered) use up the quota even if they
// are dropped, so the provider bills a flood anyway, and to drop all else too would gain
// nothing. There Pace passes at least the share floor of the quota's mean rate
// whatever the window holds, and the fair queue gives it to sparse flows first.
package gate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/fairq"
)

// Config describes a gate. Exactly one of Quota and Rate is positive. A Book needs a sliding
// window or a Cycle, and a Budget needs a Book and a sliding window.
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
	Floor     bool          // Pace passes the share floor of the mean rate over the quota; Offered implies it
	ECN       bool          // mark frames that can be marked, instead of an early drop
	Seed      uint64
	// Wall converts a time of the gate's own, monotonic clock to the wall clock. Cycle
	// and aligned windows use it. If it is nil, the two clocks are the same.
	Wall func(now int64) int64
	// Book, if set, stores the counts and shares them with other gates. It must have
	// the same Window or Cycle.
	Book Book
	// Poller is the poller of the provider: spans of the lengths of its samples are held
	// to the quota too, if the window slides. It is that of Budget.
	Poller budget.Poller
	// Budget, if set, decides which windows may exceed the quota. It learns
	// from the Book, whose slots must have the length of its own.
	Budget *budget.Budget
}

// Bytes returns the bytes that a window of a length may hold.
func (cfg *Config) Bytes(length time.Duration) int64 {
	if cfg.Quota > 0 {
		return min(cfg.Quota, maxQuota)
	}
	return int64(min(cfg.Rate*float64(length)/1e9, maxQuota))
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
	Control   bool   // the link fails without it: always passes; the caller bounds these
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

// Counts are a number of frames and their bytes.
type Counts struct{ Frames, Bytes uint64 }

// Add counts a frame.
func (c *Counts) Add(bytes int64) {
	c.Frames++
	c.Bytes += uint64(bytes)
}

// Stats are the counts of a gate since New. In is the sum of Passed, all Dropped,
// Malformed and the held frames. Control and Unmetered frames are in Passed too.
type Stats struct {
	In, Passed         Counts
	Control, Unmetered Counts
	Marked             Counts
	DroppedEarly       Counts // to make senders slow down before the queue is full
	DroppedFull        Counts // the queue was full, or they waited for longer than it is long
	DroppedQuota       Counts // no room in the quota
	Malformed          Counts // could not be cut
}

// State describes a gate at a time.
type State struct {
	Stats
	Open       bool          // below the threshold, or in free windows, and no frames held
	Used       int64         // bytes in the window; more than Quota in free windows
	Quota      int64         // bytes
	Rate       float64       // paced rate in bytes per second, +Inf while open
	Opens      time.Duration // how long the gate is not open, if no more frames come
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
	threshold int64
	now       int64
	rng       *rand.Rand
	q         fairq.Queue

	// credit is prepaid bytes. Until a time, frames within it skip the window: most
	// frames cost one comparison, and small ones less than half of the time.
	credit  int64
	until   int64
	arrived int64 // bytes not yet counted as offered in the Book

	rate    float64 // bytes per second
	rateEnd int64   // when to compute the rate again
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
	// rateTime is the longest time a rate is kept. In a sliding window it also changes
	// with each slot.
	rateTime = 20 * time.Millisecond
	// shortest is the minimum queue length, in full frames: with fewer, TCP
	// repairs a loss only after a timeout.
	shortest = 8
	// floor is the share of the quota's mean rate that passes over the quota. It is enough
	// for TCP and interactive flows of a link that is used as its quota is meant. It is
	// also the most that senders who obey can add to the bill meanwhile, so it is small.
	floor = 1.0 / 16
	// chunk bounds the credit: a gate that is killed has charged it for nothing.
	chunk = 64 << 10
	// retry is the time between attempts to use a Book that fails.
	retry = 5 * time.Second
	// earliness is the exponent of the drop probability over the fill of
	// the queue: p = fill^earliness.
	earliness = 6
)

// New makes a gate.
func New(cfg Config) (*Gate, error) {
	cfg.Floor = cfg.Floor || cfg.Offered
	switch {
	case cfg.Cycle != nil:
	case cfg.Window < time.Millisecond:
		return nil, fmt.Errorf("the window %v is shorter than a millisecond", cfg.Window)
	case cfg.Bytes(cfg.Window) < 1:
		return nil, fmt.Errorf("the quota is less than a byte in %v", cfg.Window)
	case cfg.Align:
		cfg.Cycle = calendar.Calendar{Length: cfg.Window}.Bounds
	}
	g := &Gate{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15))}
	g.win = newWindow(&g.cfg)
	return g, nil
}

// tick moves to now. Time does not go back: an earlier now is taken for the
// latest.
func (g *Gate) tick(now int64) {
	g.Flush()
	g.now = max(g.now, min(now, MaxTime))
	g.win.advance(g.now)
	g.threshold = int64(g.cfg.Threshold * float64(g.win.quota()))
}

// Flush returns unused credit to the window, and counts the offered bytes in the Book. Call
// it before a wait: without it, the credit would take room from other gates until the next
// frame.
func (g *Gate) Flush() {
	if g.credit > 0 {
		g.win.add(-g.credit)
		g.credit = 0
	}
	if g.arrived > 0 {
		g.win.offer(g.arrived)
		g.arrived = 0
	}
}

// prepay charges credit in advance, if the window stays below the threshold with all
// of it.
func (g *Gate) prepay() {
	n := min(chunk, g.threshold>>10)
	g.win.add(n)
	if g.win.used() >= g.threshold {
		g.win.add(-n)
		return
	}
	g.credit, g.until = n, g.win.refresh()
}

// Err returns the error of the Book, nil if it works. While it fails, the gate
// counts alone and tries the Book again every few seconds.
func (g *Gate) Err() error { return g.win.failed() }

// Admit is Arrive for a frame that passes at once. For any other frame it returns false
// and counts nothing: pass the frame to Arrive then.
func (g *Gate) Admit(now int64, p *Packet) bool { return g.prepaid(now, p) || g.admit(now, p) }

// prepaid passes a frame if there is credit for it. It is inlined: most frames need no more.
func (g *Gate) prepaid(now int64, p *Packet) bool {
	if p.Bytes > g.credit || now >= g.until || p.Control || p.Unmetered {
		return false
	}
	g.credit -= p.Bytes
	g.arrived += p.Bytes
	g.stats.In.Add(p.Bytes)
	g.stats.Passed.Add(p.Bytes)
	return true
}

func (g *Gate) admit(now int64, p *Packet) bool {
	g.tick(now)
	switch {
	case p.Unmetered:
		g.stats.In.Add(p.Bytes)
		g.stats.Unmetered.Add(p.Bytes)
		g.stats.Passed.Add(p.Bytes)
		return true
	case p.Control:
		g.win.add(p.Bytes)
		g.stats.Control.Add(p.Bytes)
		g.stats.Passed.Add(p.Bytes)
	case g.q.Frames > 0 || g.win.used() >= g.threshold || !g.take(p.Bytes, false):
		return false
	default:
		g.clamped = false
		g.prepay()
	}
	g.stats.In.Add(p.Bytes)
	g.arrived += p.Bytes
	return true
}

// Arrive decides on a frame that arrives now. After the verdict Cut the frame is not
// counted; after Hold, call Hold with it.
func (g *Gate) Arrive(now int64, p *Packet) Verdict {
	if g.prepaid(now, p) || g.admit(now, p) {
		return Pass
	}
	if p.Super {
		return Cut
	}
	g.stats.In.Add(p.Bytes)
	g.arrived += p.Bytes
	verdict := Hold
	switch {
	case p.Bytes > g.win.quota(): // it would wait forever
		g.stats.DroppedQuota.Add(p.Bytes)
		verdict = Drop
	case g.cfg.Policy == Random:
		verdict = g.random(p)
	case g.q.Frames == 0:
		if g.refill(); g.tokens > 0 && g.take(p.Bytes, true) {
			g.tokens -= float64(p.Bytes)
			verdict = Pass
		}
	}
	if g.cfg.Offered && (verdict == Hold || verdict == Drop) {
		g.win.add(p.Bytes)
	}
	return verdict
}

// fits reports whether bytes may pass without taking the window over its quota.
func (g *Gate) fits(bytes int64) bool { return g.win.used()+bytes <= g.win.quota() }

// take passes bytes if they fit. As another gate may use the room meanwhile, take adds,
// checks, and undoes the add on overshoot. If two gates add at once, at least one sees the
// bytes of both. Paced bytes have tokens: with a floor they need not fit.
func (g *Gate) take(bytes int64, paced bool) bool {
	anyway := paced && g.cfg.Floor
	if !anyway && !g.fits(bytes) {
		return false
	}
	g.win.add(bytes)
	if !anyway && !g.fits(0) {
		g.win.add(-bytes)
		return false
	}
	g.stats.Passed.Add(bytes)
	return true
}

// random decides by the policy Random.
func (g *Gate) random(p *Packet) Verdict {
	chance := 1.0
	if room := g.win.quota() - g.threshold; room > 0 {
		chance = float64(g.win.used()-g.threshold) / float64(room)
	}
	verdict, dropped := Pass, &g.stats.DroppedQuota
	if g.fits(p.Bytes) && g.rng.Float64() < chance {
		verdict, dropped = Mark, &g.stats.DroppedEarly
	}
	if verdict == Mark && !(g.cfg.ECN && p.ECN) || !g.take(p.Bytes, false) {
		dropped.Add(p.Bytes)
		return Drop
	}
	if verdict == Mark {
		g.stats.Marked.Add(p.Bytes)
	}
	return verdict
}

// pace returns the rate of Pace, in bytes per second, and when the gate opens if no more
// bytes come.
func (g *Gate) pace() (rate float64, opens int64) {
	rate, opens = g.win.outlook(g.now, g.win.quota()-g.threshold)
	if g.cfg.Floor {
		rate = max(rate, floor*g.win.mean())
	}
	return rate, opens
}

// refill updates the rate and the tokens.
func (g *Gate) refill() {
	if !g.clamped {
		g.clamped = true
		g.tokens, g.filled, g.rateEnd = 0, g.now, 0
	}
	if g.now >= g.rateEnd || g.cfg.Floor && !g.fits(0) { // dropped frames may have used up the rest
		g.rate, _ = g.pace()
		g.rateEnd = min(g.now+int64(rateTime), g.win.refresh())
	}
	g.tokens += g.rate * float64(g.now-g.filled) / 1e9
	g.tokens = min(g.tokens, max(g.rate*bucket.Seconds(), fairq.Quantum))
	g.filled = g.now
}

// Hold queues a frame and returns it with room for size bytes, which the caller fills.
// Release returns it later. Hold drops queued frames to make room.
func (g *Gate) Hold(p *Packet, hash uint64, size int) *fairq.Held {
	limit := max(int64(g.rate*g.cfg.Queue.Seconds()), shortest*fairq.Quantum)
	if g.win.used() < g.threshold && g.win.used()+p.Bytes <= g.win.quota() {
		limit = fairq.MaxMemory // about to be released
	}
	fill := float64(g.q.Bytes+p.Bytes) / float64(limit)
	if fill < 1 && g.rng.Float64() < math.Pow(fill, earliness) { // have a sender slow down
		switch h := g.q.Fattest(); {
		case h == nil:
		case g.cfg.ECN && h.ECN:
			h.Marked = true // counted when it passes
		default:
			g.discard(g.q.Drop(), &g.stats.DroppedEarly)
		}
	}
	for g.q.Frames > 0 && (g.q.Bytes+p.Bytes > limit || g.q.Memory+size > fairq.MaxMemory) {
		g.discard(g.q.Drop(), &g.stats.DroppedFull)
	}
	h := g.q.Take(size)
	h.Bytes, h.Since, h.ECN = p.Bytes, g.now, p.ECN
	g.q.Push(h, hash)
	return h
}

// discard counts a frame that was taken out of the queue to be dropped.
func (g *Gate) discard(h *fairq.Held, dropped *Counts) {
	dropped.Add(h.Bytes)
	g.q.Free(h)
}

// Release returns the next held frame that may pass now, nil if there is none. It drops
// frames that have waited for longer than the queue is long. The frame is valid until it
// is returned with Done.
func (g *Gate) Release(now int64) *fairq.Held {
	if g.q.Frames == 0 {
		return nil
	}
	g.tick(now)
	h := g.q.Peek()
	for ; g.now-h.Since > int64(g.cfg.Queue) && g.now-h.Since > g.longest(); h = g.q.Peek() {
		g.discard(g.q.Remove(), &g.stats.DroppedFull)
		if g.q.Frames == 0 {
			return nil
		}
	}
	paced := !g.due(h)
	if paced {
		if g.refill(); g.tokens <= 0 {
			return nil
		}
	}
	switch {
	case g.cfg.Offered: // it was charged on arrival
		g.stats.Passed.Add(h.Bytes)
	case !g.take(h.Bytes, paced):
		return nil
	}
	if g.clamped = paced; paced {
		g.tokens -= float64(h.Bytes)
	}
	if h.Marked {
		g.stats.Marked.Add(h.Bytes)
	}
	g.q.Pop()
	g.delay = g.now - h.Since
	return h
}

// longest returns the length of the queue, as a duration. The shortest queue takes longest
// at the floor. Frames that wait longer are dropped: their senders have sent them
// again.
func (g *Gate) longest() int64 {
	least := shortest * fairq.Quantum / (floor * g.win.mean()) * 1e9
	return max(int64(g.cfg.Queue), int64(min(least, MaxTime)))
}

// due reports whether a held frame may pass without tokens.
func (g *Gate) due(h *fairq.Held) bool {
	return g.win.used() < g.threshold && (g.cfg.Offered || g.fits(h.Bytes))
}

// Abandon drops all held frames.
func (g *Gate) Abandon() {
	for g.q.Frames > 0 {
		g.discard(g.q.Drop(), &g.stats.DroppedQuota)
	}
}

// Done returns a released frame to the queue's memory.
func (g *Gate) Done(h *fairq.Held) { g.q.Free(h) }

// Due returns when to call Release again: when the next held frame may pass, or when
// that time may have changed. ok is false if no frame is held.
func (g *Gate) Due(now int64) (at int64, ok bool) {
	if g.q.Frames == 0 {
		return 0, false
	}
	g.tick(now)
	h := g.q.Peek()
	if g.due(h) {
		return g.now, true
	}
	g.refill()
	if !g.cfg.Floor && !g.fits(h.Bytes) || g.rate <= 0 {
		return max(g.rateEnd, g.now+1), true
	}
	if g.tokens > 0 {
		return g.now, true
	}
	wait := int64((1 - g.tokens) / g.rate * 1e9)
	return g.now + min(max(wait, 1), max(g.rateEnd-g.now, 1)), true
}

// Reject counts a frame that is dropped because it could not be cut.
func (g *Gate) Reject(bytes int64) {
	g.stats.In.Add(bytes)
	g.stats.Malformed.Add(bytes)
}

// State returns the state of the gate now.
func (g *Gate) State(now int64) State {
	g.tick(now)
	s := State{
		Stats: g.stats, Used: g.win.used(), Quota: g.win.quota(), Rate: math.Inf(1),
		HeldFrames: g.q.Frames, HeldBytes: g.q.Bytes, Delay: time.Duration(g.delay),
	}
	s.Open = g.q.Frames == 0 && s.Used < g.threshold
	if w, ok := g.win.(*budgeted); ok {
		s.Used = w.shared.used()
		if w.err == nil {
			b := w.cfg.Budget.Stats(g.now + w.view.Shift)
			s.Budget = &b
		}
	}
	if !s.Open {
		rate, opens := g.pace()
		s.Opens = time.Duration(opens - g.now)
		if g.cfg.Policy == Pace {
			s.Rate = rate
		}
	}
	return s
}
