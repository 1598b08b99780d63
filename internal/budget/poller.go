package budget

import (
	"fmt"
	"math/bits"
	"time"
)

// Poller describes the polls of a provider, of which every two bound a sample.
type Poller struct {
	// Jitter bounds how far a poll is from an even grid whose interval is the window. If
	// the interval differs by d, polls may be up to Jitter-d/2 from the grid.
	Jitter time.Duration
	// Known says that the grid is Phase after the multiples of the window since the Unix
	// epoch. If not, polls may be at any time.
	Known bool
	Phase time.Duration
}

// maxJitter is the number of jitters that a window must hold.
const maxJitter = 10

// NewPoller returns a poller of any phase with the usual jitter.
func NewPoller(window time.Duration) Poller {
	return Poller{Jitter: min(2*time.Second, window/maxJitter)}
}

// Check returns an error for a poller that does not fit a window.
func (p Poller) Check(window time.Duration) error {
	switch {
	case p.Jitter < 0 || p.Jitter > window/maxJitter:
		return fmt.Errorf("jitter of %v: must be between 0 and a tenth of the window, %v", p.Jitter, window/maxJitter)
	case p.Phase < 0 || p.Phase >= window:
		return fmt.Errorf("phase of %v: must be less than the window, %v", p.Phase, window)
	}
	return nil
}

// Samples returns the lengths of the shortest and the longest sample, and the bytes
// that no sample may exceed. A provider may divide the bytes of the shortest one by its
// length, so that fewer than the quota would be over it.
func (p Poller) Samples(window time.Duration, quota int64) (shortest, longest time.Duration, bytes int64) {
	shortest, longest = window-2*p.Jitter, window+2*p.Jitter
	return shortest, longest, max(muldiv(quota, int64(shortest), int64(window)), 1)
}

// polls reports whether a poll may be in the slot that begins at start.
func (p Poller) polls(start, slot int64, window time.Duration) bool {
	early := int64(p.Jitter)
	after := start - int64(p.Phase) + early // since the earliest poll of the grid
	after -= FloorDiv(after, int64(window)) * int64(window)
	return !p.Known || after <= 2*early || after > int64(window)-slot
}

// muldiv returns x·num/den, rounded down. x must not be negative, and num at most den or
// the result small enough.
func muldiv(x, num, den int64) int64 {
	hi, lo := bits.Mul64(uint64(x), uint64(num))
	q, _ := bits.Div64(hi, lo, uint64(den))
	return int64(q)
}
