package main

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"framepipe/internal/hist"
	"framepipe/internal/packettest"
)

// The counts of a share, times the frames that each stands for, come to those of all frames:
// with headers unlike payloads, small frames beside large ones that come at another time of the
// report, and rates that change within it.
func TestShareConverges(t *testing.T) {
	small := make([]byte, 60)       // zeros
	large := packettest.Bytes(1500) // noise
	for i := range large[:200] {
		large[i] = 0xff // a header
	}
	frames := [][]byte{small, small, large, bytes.Repeat([]byte("payload "), 1000)}
	const runs = 40
	for _, phases := range [][]int{{1 << 24}, {1 << 20, 1 << 24}, {1 << 24, 1 << 19, 1 << 22}} { // bytes
		var whole hist.Counter
		var got [256]float64
		most, now := 1, time.Unix(1e9, 0)
		for run := range uint64(runs) {
			s := newShare(0, now)
			s.cheap, s.rng = 1<<20, rand.NewPCG(run, 1)
			var part hist.Counter
			for phase, left := range phases {
				for i := 0; left > 0; i++ {
					f := frames[(i+phase*(i%2))%len(frames)]
					left -= len(f)
					if run == 0 { // all runs have the same frames
						whole.Bytes(f)
					}
					if s.take() {
						part.Bytes(f)
						s.bytes += int64(len(f))
					}
					for i%16 == 0 && s.costly(now) {
						part.Halve()
					}
				}
				now = now.Add(time.Second / 4)
			}
			for v, n := range part.Snapshot(now).Counts {
				got[v] += float64(n) * float64(s.of())
			}
			most = max(most, s.of())
		}
		if most < 8 {
			t.Errorf("%v: one of %d at the most", phases, most)
		}
		for v, n := range whole.Snapshot(now).Counts {
			if r := got[v] / float64(n*runs); r < 0.95 || r > 1.05 {
				t.Errorf("%v: value %02x: %.4f of what it should be", phases, v, r)
			}
		}
	}
}

// Slow traffic is counted whole, a full pipe in part, and again whole when it has become slow.
func TestShareBound(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newShare(0, now)
	s.cheap = 1 << 24
	for i, tt := range []struct {
		rate        int64
		least, most int // frames of which one is counted
	}{{s.cheap / 2, 1, 1}, {20 * s.cheap, 16, 64}, {20 * s.cheap, 16, 64}, {s.cheap / 8, 1, 64}, {s.cheap / 8, 1, 1}} {
		counted := int64(0)
		for range 1000 { // 10 s
			for n := int64(0); n < tt.rate/100; n += 1 << 14 {
				if s.take() {
					s.bytes += 1 << 14
					counted += 1 << 14
				}
			}
			now = now.Add(10 * time.Millisecond)
			s.costly(now)
		}
		if of := s.of(); of < tt.least || of > tt.most || counted > 14*s.cheap {
			t.Errorf("report %d: one of %d, %d bytes counted", i, of, counted)
		}
		s.restart(now)
	}
}
