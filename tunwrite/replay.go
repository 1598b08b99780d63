package main

import (
	"errors"
	"math"
	"strconv"
	"time"

	"framepipe/internal/fdio"
)

// speed is the speed of a replay, as a multiple of the recorded speed.
type speed float64

// Set parses the flag.
func (s *speed) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v < 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return errors.New("want a number, such as 1 or 10")
	}
	*s = speed(v)
	return nil
}

// replay delays frames to their recorded times.
type replay struct {
	speed  speed
	device int // a descriptor

	begun bool
	from  uint64    // time of the reference record, nanoseconds
	at    time.Time // when the reference record was due
	last  uint64    // time of the previous record
}

// due returns how long the frame of a record must wait. A record earlier than the
// previous one becomes the new reference and does not wait.
func (p *replay) due(record uint64, now time.Time) time.Duration {
	if !p.begun || record < p.last {
		p.begun, p.from, p.at = true, record, now
	}
	p.last = record
	ns := float64(record-p.from) / float64(p.speed)
	// Records may be centuries apart: cap the wait, so that it fits a Duration.
	return p.at.Add(time.Duration(min(ns, float64(math.MaxInt64/2)))).Sub(now)
}

// again makes the next record the new reference.
func (p *replay) again() { p.begun = false }

// wait waits for d, or until the device is gone.
func (p *replay) wait(d time.Duration) error {
	fds := [1]fdio.PollFd{{Fd: int32(p.device)}}
	for end := time.Now().Add(d); d > 0; d = time.Until(end) {
		if _, err := fdio.Wait(fds[:], d); err != nil {
			return err
		}
		if fdio.Broken(fds[0]) {
			return fdio.ErrReaderGone
		}
	}
	return nil
}
