// Package recorded has the clock of a recorded stream.
package recorded

import (
	"cmp"
	"time"
)

// Clock is a clock that advances with the times of a stream's records, and never goes back.
// Times are nanoseconds since the Unix epoch. The zero value is ready to use.
//
// A record whose time is out of line counts as simultaneous with the one before, and the
// next record decides. If that is nearer to the time before, the record alone was wrong,
// and the clock goes on as if it had not been there. If not, time has moved: forward was a
// pause, by which the clock advances; back was another capture or a clock that was set,
// and the clock goes on from where it is.
type Clock struct {
	Strays int // records out of line so far; pauses are not

	// Silence is the longest time without a record that is not out of line; 0: a minute.
	// Longer silence is so rare, as hosts solicit neighbours and renew leases, that one
	// record more after it does not matter; and a wrong time within it moves the clock by
	// no more.
	Silence time.Duration

	now     int64
	last    int64 // time of the latest record in line, 0 before the first
	strayed int64 // time of the last record if it is out of line, else 0
}

const (
	// disorder is how far a record in line may be before the last one. Records of
	// several queues, and of merged captures, are out of order by less.
	disorder = int64(time.Second)
	silence  = time.Minute
	// latest bounds times, so that sums of two do not overflow: the year 2116.
	latest = 1 << 62
)

// Read returns what the clock shows at the time of the next record.
func (c *Clock) Read(record uint64) int64 {
	t := int64(max(min(record, latest), 1))
	if c.strayed != 0 {
		goesOn := distance(t, c.strayed) < distance(t, c.last)
		if goesOn && c.strayed > c.last {
			c.now = min(c.now+c.strayed-c.last, latest)
		} else {
			c.Strays++
		}
		if goesOn {
			c.last = c.strayed
		}
		c.strayed = 0
	}
	switch step := t - c.last; {
	case c.last == 0:
		c.now, c.last = t, t
	case step < -disorder || step > int64(cmp.Or(c.Silence, silence)):
		c.strayed = t
	case step > 0:
		c.now = min(c.now+step, latest)
		c.last = t
	}
	return c.now
}

// Continues reports whether a record is in line with the last one.
func (c *Clock) Continues(record uint64) bool {
	step := int64(min(record, latest)) - c.last
	return step >= -disorder && step <= int64(silence)
}

// Wall returns the time of records when the clock shows now.
func (c *Clock) Wall(now int64) int64 { return now + c.last - c.now }

func distance(a, b int64) int64 { return max(a-b, b-a) }
