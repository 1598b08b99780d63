package main

import (
	"errors"
	"time"
)

// clock is where time comes from.
type clock uint8

const (
	ofWall clock = iota
	streamClock
)

func (c clock) String() string { return [...]string{"wall", "stream"}[c] }

// Set is flag.Value's.
func (c *clock) Set(s string) error {
	switch s {
	case "wall":
		*c = ofWall
	case "stream":
		*c = streamClock
	default:
		return errors.New("want wall or stream")
	}
	return nil
}

// steady returns a clock that shows the time now, in nanoseconds since the Unix
// epoch, and from then on goes steadily, whoever sets the one on the wall.
func steady() func() int64 {
	start := time.Now()
	base := start.UnixNano()
	return func() int64 { return base + int64(time.Since(start)) }
}

// wallClock is the clock on the wall, for what begins at a time of day. It is
// looked at now and then; what it shows more than a steady clock is taken to be the
// same until it is a second off: it was set.
type wallClock struct {
	more int64
	show func() int64
}

const off = int64(time.Second)

func newWallClock() *wallClock {
	return &wallClock{show: func() int64 { return time.Now().UnixNano() }}
}

// shift looks at the clock, and returns what it shows more than the steady one.
func (w *wallClock) shift(now int64) int64 {
	if d := w.show() - now - w.more; d >= off || d <= -off {
		w.more += d
	}
	return w.more
}

// at is shift, added.
func (w *wallClock) at(now int64) int64 { return now + w.shift(now) }
