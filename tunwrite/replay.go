package main

import (
	"errors"
	"math"
	"strconv"
	"time"

	"framepipe/internal/fdio"
	"framepipe/internal/recorded"
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

// pause is the longest pause of a recording that is kept. A longer one is probably a wrong time.
const pause = 24 * time.Hour

// replay delays frames to their recorded times.
type replay struct {
	speed  speed
	device int // a descriptor

	clock  recorded.Clock
	last   int64     // what the clock showed at the last record, 0 before the first
	header bool      // a header came after the last record
	from   int64     // what the clock showed at the reference record
	at     time.Time // when the reference record was due
}

// due returns how long the frame of a record must wait. A record that is out of order does not
// wait longer than the one before it, and changes nothing for those behind it. The first record
// does not wait, nor the first behind a pause of more than a day or a header, if its time does
// not continue the time before.
func (p *replay) due(record uint64, now time.Time) time.Duration {
	if p.header && !p.clock.Continues(record) {
		p.clock, p.last = recorded.Clock{}, 0
	}
	p.clock.Silence, p.header = pause, false
	at := p.clock.Read(record)
	if p.last == 0 || at-p.last > int64(pause) {
		p.from, p.at = at, now
	}
	p.last = at
	// Times may be centuries apart: cap the wait, so that it fits a Duration.
	return p.at.Add(time.Duration(min(float64(at-p.from)/float64(p.speed), math.MaxInt64/2))).Sub(now)
}

// again is told of a header: another recording may follow.
func (p *replay) again() { p.header = true }

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
