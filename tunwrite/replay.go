package main

import (
	"errors"
	"math"
	"strconv"
	"time"

	"framepipe/internal/recorded"
)

// speed parses the speed of a replay, a multiple of the recorded speed.
func speed(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v < 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0, errors.New("want a number, such as 1 or 10")
	}
	return v, nil
}

// pause is the longest pause of a recording that is kept. A longer one is probably a wrong time.
const pause = 24 * time.Hour

// replay delays frames to their recorded times.
type replay struct {
	speed  float64
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
	return p.at.Add(time.Duration(min(float64(at-p.from)/p.speed, math.MaxInt64/2))).Sub(now)
}
