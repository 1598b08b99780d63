// Package pollertest simulates the pollers of providers, for tests.
package pollertest

import (
	"math/rand/v2"
	"slices"
	"time"

	"framepipe/internal/budget"
)

// Kind is a kind of poller. Its polls are on a grid with a random phase, some early or late.
type Kind struct {
	Name   string
	Jitter time.Duration // a poll is up to this early or late
	Drift  time.Duration // how much longer the interval of the grid is than a window
	Late   float64       // the share of polls that are late by 20 to 120 seconds
	Known  bool          // the phase is Phase
	Phase  time.Duration
}

// Kinds returns the pollers that a jitter covers, the last with polls that are late.
func Kinds(jitter time.Duration) []Kind {
	return []Kind{
		{Name: "fixed phase"},
		{Name: "jitter", Jitter: jitter},
		{Name: "fast", Drift: -jitter},
		{Name: "slow", Drift: jitter},
		{Name: "fast, with jitter", Drift: -jitter / 2, Jitter: jitter * 3 / 4},
		{Name: "slow, with jitter", Drift: jitter / 2, Jitter: jitter * 3 / 4},
		{Name: "late", Jitter: jitter, Late: 0.01},
	}
}

// Polls returns the times of polls, from a window before from to a window after to, and
// how many of them are late.
func (k Kind) Polls(r *rand.Rand, from, to int64, window time.Duration) (polls []int64, late int) {
	n := int64(window)
	phase := r.Int64N(n)
	if k.Known {
		phase = from%n + n - int64(k.Phase)
	}
	for at := from - n - phase; at < to+2*n; at += n + int64(k.Drift) {
		t := at + r.Int64N(2*int64(k.Jitter)+1) - int64(k.Jitter)
		if r.Float64() < k.Late {
			t += int64(20*time.Second) + r.Int64N(int64(100*time.Second))
			late++
		}
		polls = append(polls, t)
	}
	return polls, late
}

// Bill returns the largest of Bills.
func Bill(polls []int64, start, end int64, window time.Duration, p budget.Percentile, counters ...func(at int64) float64) float64 {
	bills := Bills(polls, start, end, window, p, counters...)
	return slices.Max(bills[:])
}

// Bills returns what the provider bills for a cycle, in bytes of a window. Of each
// sample it takes the largest of some counters, each given as its bytes up to a time.
// It may divide by the time between two polls or by the window, and put
// a sample into the cycle in which it begins or ends: these are four bills.
func Bills(polls []int64, start, end int64, window time.Duration, p budget.Percentile, counters ...func(at int64) float64) (billed [4]float64) {
	var bills [4][]float64
	for i, to := range polls[1:] {
		from, bytes := polls[i], 0.0
		for _, c := range counters {
			bytes = max(bytes, c(to)-c(from))
		}
		rate := bytes * float64(window) / float64(to-from)
		if start <= from && from < end {
			bills[0], bills[1] = append(bills[0], bytes), append(bills[1], rate)
		}
		if start < to && to <= end {
			bills[2], bills[3] = append(bills[2], bytes), append(bills[3], rate)
		}
	}
	for i, b := range bills {
		slices.Sort(b)
		billed[i] = b[len(b)-1-p.Free(len(b))]
	}
	return billed
}
