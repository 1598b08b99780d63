package main

import (
	"errors"
	"time"
)

// clock is the flag -clock.
type clock uint8

const (
	ofWall clock = iota
	streamClock
)

func (c clock) String() string { return [...]string{"wall", "stream"}[c] }

// Set implements flag.Value.
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

// steady returns a monotonic clock, in nanoseconds since the Unix epoch. It starts at
// the current time and ignores later changes of the wall clock.
func steady() func() int64 {
	start := time.Now()
	base := start.UnixNano()
	return func() int64 { return base + int64(time.Since(start)) }
}

// wallClock tracks how far the wall clock is ahead of a steady one. It ignores
// differences of less than a second: only a clock that was set has larger ones.
type wallClock struct {
	more int64
	show func() int64
}

const off = int64(time.Second)

func newWallClock() *wallClock {
	return &wallClock{show: func() int64 { return time.Now().UnixNano() }}
}

// shift returns how far the wall clock is ahead of the steady clock, which reads now.
func (w *wallClock) shift(now int64) int64 {
	if d := w.show() - now - w.more; d >= off || d <= -off {
		w.more += d
	}
	return w.more
}

// at returns the time on the wall clock.
func (w *wallClock) at(now int64) int64 { return now + w.shift(now) }
