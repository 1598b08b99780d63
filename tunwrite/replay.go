package main

import (
	"errors"
	"math"
	"strconv"
	"time"

	"framepipe/internal/fdio"
)

// speed is how much faster than recorded a replay is.
type speed float64

// Set reads the flag.
func (s *speed) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v < 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return errors.New("want a number, such as 1 or 10")
	}
	*s = speed(v)
	return nil
}

// replay has frames wait for their time.
type replay struct {
	speed  speed
	device int // a descriptor

	begun bool
	from  uint64    // the time of a record, nanoseconds
	at    time.Time // when that one was due
	last  uint64
}

// due returns how long the frame of a record has to wait. One whose time lies
// before that of the last begins anew.
func (p *replay) due(record uint64, now time.Time) time.Duration {
	if !p.begun || record < p.last {
		p.begun, p.from, p.at = true, record, now
	}
	p.last = record
	ns := float64(record-p.from) / float64(p.speed)
	// What was recorded years apart is not waited for any longer than this.
	return p.at.Add(time.Duration(min(ns, float64(math.MaxInt64/2)))).Sub(now)
}

// again has the next frame begin anew.
func (p *replay) again() { p.begun = false }

// wait waits for so long, or until the device has gone.
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
