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

// wallClock returns what tells the time, in nanoseconds since the Unix epoch.
//
// For a sliding window only differences matter, and the monotonic clock is not
// set by anybody. Windows that start on the clock need the one on the wall; if
// that is set back, the gate waits where it was until it has caught up, and so
// lets nothing pass twice.
func wallClock(aligned bool) func() int64 {
	if aligned {
		return func() int64 { return time.Now().UnixNano() }
	}
	start := time.Now()
	base := start.UnixNano()
	return func() int64 { return base + int64(time.Since(start)) }
}
