package budget

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The result of a span is the sum of its slots, and nothing waits for longer than it has patience.
func TestSpan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 7))
		d := demands[rapid.IntRange(0, len(demands)-1).Draw(t, "demand")]
		in, out := d.make(r, 60, 1e6), d.make(r, 60, 1e6)
		demand := Demand{7 * day, 5 * time.Minute, [][]int64{in}}
		if rapid.Bool().Draw(t, "two lanes") {
			demand.Lanes = append(demand.Lanes, out)
		}
		s := Simulation{
			Config:    Config{Lanes: len(demand.Lanes), Quota: 1e6, Percentile: 95e9, Cycle: fixed(int64(2 * time.Hour))},
			Threshold: 0.75, Patience: time.Duration(rapid.IntRange(0, 400).Draw(t, "patience")) * 5 * time.Second,
			From: 7*day + rapid.Int64Range(-100, 400).Draw(t, "from")*5e9,
		}
		s.To = s.From + rapid.Int64Range(1, 400).Draw(t, "slots")*5e9
		var offered, passed int64
		s.Slot = func(_ int, start, o, p int64) {
			if start >= s.From && start < s.To {
				offered, passed = offered+o, passed+p
			}
		}
		got, err := s.Run(demand)
		if err != nil {
			t.Fatal(err)
		}
		if got.Offered != offered || got.Passed != passed {
			t.Fatalf("%+v, and the slots have %d and %d", got, offered, passed)
		}
		if got.Delayed < 0 || got.Delayed > got.Passed || got.Passed > got.Offered ||
			got.Longest > s.Patience || (got.Longest > 0) != (got.Delayed > 0) {
			t.Fatalf("%+v", got)
		}
		s.From, s.To = 0, math.MaxInt64
		all, err := s.Run(demand)
		if err != nil || all.Offered < got.Offered {
			t.Fatalf("%+v, %v, and a part of it is %+v", all, err, got)
		}
	})
}

// The rate that could be kept up a slot ago gives the same as a search in each slot.
func TestSustainable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 8))
		b, err := New(Config{Quota: 3000, Percentile: 95e9, Cycle: fixed(int64(24 * time.Hour)), Policy: Never})
		if err != nil {
			t.Fatal(err)
		}
		w := sliding{b: b, passed: &b.passed[0], slots: Slots, rest: rapid.Int64Range(0, b.slot-1).Draw(t, "rest"), quota: 3000}
		for slot := int64(1000); slot < 1500; slot++ {
			b.Advance(slot * b.slot)
			want := int64(r.ExpFloat64() * 60)
			again := w
			again.slot = 0
			rate, search := w.sustainable(want), again.sustainable(want)
			if min(rate, want) != min(search, want) {
				t.Fatalf("slot %d, %d bytes: %d, want %d", slot, want, rate, search)
			}
			passed := min(rate, want)
			switch r.IntN(50) {
			case 0:
				passed = want // a burst
			case 1:
				passed /= 2
			}
			b.Count(0, slot*b.slot, want, passed, false)
		}
	})
}
