package main

import "time"

// steady returns a monotonic clock, in nanoseconds since the Unix epoch. It starts at
// the current time and ignores later changes of the wall clock.
func steady() func() int64 {
	start := time.Now()
	return func() int64 { return start.UnixNano() + int64(time.Since(start)) }
}

// wallClock tracks how far the wall clock is ahead of the gate's, which is monotonic. It
// ignores differences of less than a second: only a clock that was set has larger ones.
type wallClock struct {
	ahead int64
	show  func(now int64) int64 // the wall clock when the gate's clock shows now
}

// shift returns how far the wall clock is ahead of the gate's clock, which shows now.
func (w *wallClock) shift(now int64) int64 {
	if d := w.show(now) - now - w.ahead; max(d, -d) >= int64(time.Second) {
		w.ahead += d
	}
	return w.ahead
}

// at returns the time on the wall clock.
func (w *wallClock) at(now int64) int64 { return now + w.shift(now) }
