package main

import (
	"time"

	"framepipe/internal/gate"
)

// steady returns a monotonic clock, in nanoseconds since the Unix epoch. It starts at
// the current time and ignores later changes of the wall clock.
func steady() func() int64 {
	start := time.Now()
	base := start.UnixNano()
	return func() int64 { return base + int64(time.Since(start)) }
}

// wallClock tracks how far the wall clock is ahead of the gate's, which is monotonic. It
// ignores differences of less than a second: only a clock that was set has larger ones.
type wallClock struct {
	ahead int64
	show  func(now int64) int64 // the wall clock when the gate's clock shows now
}

const off = int64(time.Second)

func newWallClock() *wallClock {
	return &wallClock{show: func(int64) int64 { return time.Now().UnixNano() }}
}

// shift returns how far the wall clock is ahead of the gate's clock, which shows now.
func (w *wallClock) shift(now int64) int64 {
	if d := w.show(now) - now - w.ahead; d >= off || d <= -off {
		w.ahead += d
	}
	return w.ahead
}

// at returns the time on the wall clock.
func (w *wallClock) at(now int64) int64 { return now + w.shift(now) }

// recordClock is the gate's clock with -clock stream: it advances with the times of the
// records, and never goes back. Times are nanoseconds since the Unix epoch.
//
// A record whose time is out of line counts as simultaneous with the one before, and the
// next record decides. If that is nearer to the time before, the record alone was wrong,
// and the clock goes on as if it had not been there. If not, time has moved: forward was a
// pause, by which the clock advances; back was another capture or a clock that was set,
// and the clock goes on from where it is.
type recordClock struct {
	now     int64
	last    int64 // time of the latest record in line, 0 before the first
	strayed int64 // time of the last record if it is out of line, else 0
	strays  int   // records out of line; pauses are not
}

const (
	// disorder is how far a record in line may be before the last one. Records of
	// several queues, and of merged captures, are out of order by less.
	disorder = int64(time.Second)
	// silence is how far a record in line may be after the last one. Longer silence is
	// so rare, as hosts solicit neighbours and renew leases, that one record more after
	// it does not matter; and a wrong time within it moves the clock by no more.
	silence = int64(time.Minute)
)

// read returns the gate's time for the time of the next record.
func (c *recordClock) read(time uint64) int64 {
	t := int64(max(min(time, gate.MaxTime), 1))
	if c.strayed != 0 {
		goesOn := distance(t, c.strayed) < distance(t, c.last)
		if goesOn && c.strayed > c.last {
			c.now = min(c.now+c.strayed-c.last, gate.MaxTime)
		} else {
			c.strays++
		}
		if goesOn {
			c.last = c.strayed
		}
		c.strayed = 0
	}
	switch step := t - c.last; {
	case c.last == 0:
		c.now, c.last = t, t
	case step < -disorder || step > silence:
		c.strayed = t
	case step > 0:
		c.now = min(c.now+step, gate.MaxTime)
		c.last = t
	}
	return c.now
}

// wall returns the time of records when the gate's clock shows now.
func (c *recordClock) wall(now int64) int64 { return now + c.last - c.now }

func distance(a, b int64) int64 { return max(a-b, b-a) }
