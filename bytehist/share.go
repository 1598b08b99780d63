package main

import (
	"math/rand/v2"
	"time"
)

// cheap is the number of bytes a second that may be counted. To read and count a gigabyte takes
// half a second of a processor; with 64 MiB/s, a TCP flow through all stages was an eighth slower.
const cheap = 16 << 20

// share chooses the frames whose bytes are counted. Each frame has the same chance, whatever
// the rate of its moment: within a report the share only becomes smaller, and then the counts
// so far become smaller, too.
type share struct {
	every int   // one of so many frames in turn; 0: as many as cost little, at random
	cheap int64 // bytes a second that may be counted

	skip  int
	shift int   // log2 of the frames of which one is counted
	bytes int64 // counted since start, by the share of now
	start time.Time
	rng   *rand.PCG
}

func newShare(every int, now time.Time) *share {
	return &share{every: every, cheap: cheap, start: now, rng: rand.NewPCG(rand.Uint64(), rand.Uint64())}
}

// take reports whether to count the bytes of the next frame.
func (s *share) take() bool {
	if s.every > 0 {
		s.skip = (s.skip + 1) % s.every
		return s.skip == 0
	}
	return s.shift == 0 || s.rng.Uint64()>>(64-s.shift) == 0
}

// of returns the number of frames of which one is counted.
func (s *share) of() int { return max(s.every, 1<<s.shift) }

// allowed returns the bytes that may be counted in a report until now. A second more may be, so
// that slow traffic in bursts is counted whole.
func (s *share) allowed(now time.Time) int64 {
	return int64(float64(s.cheap) * (now.Sub(s.start) + time.Second).Seconds())
}

// costly halves the share if it costs too much, and reports whether it has: then the counts
// are to be halved.
func (s *share) costly(now time.Time) bool {
	if s.every > 0 || s.bytes <= s.allowed(now) {
		return false
	}
	s.shift++
	s.bytes /= 2
	return true
}

// restart begins a report, with the share that the last one could have had.
func (s *share) restart(now time.Time) {
	for s.shift > 0 && 2*s.bytes <= s.allowed(now) {
		s.shift--
		s.bytes *= 2
	}
	s.bytes, s.start = 0, now
}
