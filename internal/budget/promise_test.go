package budget_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/pollertest"

	"pgregory.net/rapid"
)

// history is the bytes of slots, from first on.
type history struct {
	first int64
	bytes []int64
	sums  []int64
}

const slot = int64(5e9)

func (h *history) add(bytes int64) {
	h.sums = append(h.sums, bytes+h.last(len(h.sums))-h.last(0))
	h.bytes = append(h.bytes, bytes)
}

// last returns the bytes of the last n slots.
func (h *history) last(n int) int64 {
	switch end := len(h.sums); {
	case n == 0 || end == 0:
		return 0
	case n >= end:
		return h.sums[end-1]
	default:
		return h.sums[end-1] - h.sums[end-1-n]
	}
}

// until returns the bytes up to an instant.
func (h *history) until(at int64) float64 {
	slots := min(max(float64(at-h.first*slot)/float64(slot), 0), float64(len(h.sums)))
	i := min(int(slots), len(h.sums)-1)
	return float64(h.sums[i]) - float64(h.bytes[i])*(1-slots+float64(i))
}

// A gate that holds to the spent level does not raise the bill. The bill is at most the commit, or the
// bill of the other traffic alone, for pollers of any phase, with their jitter.
func TestSpentPromise(t *testing.T) {
	const window, cycle = 5 * time.Minute, int64(12 * time.Hour)
	held, most := 0, 0.0
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 9))
		kind := rapid.SampledFrom(pollertest.Kinds(rapid.SampledFrom([]time.Duration{0, 2e9, 10e9}).Draw(t, "jitter"))[:2]).Draw(t, "kind")
		kind.Phase, kind.Known = time.Duration(rapid.Int64Range(0, 299).Draw(t, "phase"))*time.Second, rapid.Bool().Draw(t, "known")
		p := budget.Percentile(rapid.Int64Range(80, 99).Draw(t, "percentile") * 1e9)
		lanes := rapid.IntRange(1, 2).Draw(t, "lanes")
		separate := lanes == 2 && rapid.Bool().Draw(t, "separate")
		cfg := budget.Config{
			Quota: 600e6, Lanes: lanes, Separate: separate, Whole: true, Free: p.Above(),
			Poller: budget.Poller{Jitter: kind.Jitter, Known: kind.Known, Phase: kind.Phase}, Policy: budget.Policy(rapid.IntRange(0, 2).Draw(t, "policy")),
			Cycle: func(at int64) (int64, int64) { return at / cycle * cycle, (at/cycle + 1) * cycle },
		}
		b, err := budget.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, _, limit := cfg.Poller.Samples(window, cfg.Quota)
		g := budget.NewGate(b, 0.75)
		start, slots := 10*cycle, cycle/slot
		begins := rapid.Int64Range(0, slots).Draw(t, "begins")
		with, alone := make([]history, lanes), make([]history, lanes)
		for l := range lanes {
			with[l].first, alone[l].first = start/slot, start/slot
		}
		rate := [2]float64{}
		for i := range slots + 60 {
			for l := range lanes {
				if r.IntN(100) == 0 {
					rate[l] = 50e6 * r.Float64() * r.Float64()
				}
				bytes := int64(rate[l] * (0.7 + 0.6*r.Float64()))
				if l == 0 && i >= begins {
					passed := g.Slot(0, start/slot+i, bytes)
					with[l].add(passed)
					if b.Quota(start+i*slot) > cfg.Quota {
						passed, held = 0, held+1
					}
					alone[l].add(passed)
					continue
				}
				with[l].add(bytes)
				alone[l].add(bytes)
				b.Count(l, start+i*slot, bytes, bytes, with[l].last(budget.Slots) > limit)
			}
		}
		polls, _ := kind.Polls(r, start, start+cycle, window)
		bills := func(of []history) (all [4]float64) {
			if !separate {
				counters := []func(int64) float64{of[0].until, of[lanes-1].until}
				return pollertest.Bills(polls, start, start+cycle, window, p, counters...)
			}
			for _, x := range of {
				for i, bill := range pollertest.Bills(polls, start, start+cycle, window, p, x.until) {
					all[i] = max(all[i], bill)
				}
			}
			return all
		}
		got, want := bills(with), bills(alone)
		for i := range got {
			share := got[i] / max(want[i], float64(cfg.Quota))
			if most = max(most, share); share > 1.0001 {
				t.Fatalf("bill %d of %v: %.1f MB, %.4f of what is billed without", i, kind, got[i]/1e6, share)
			}
		}
	})
	t.Logf("held to a level in %d slots; the highest bill is %.4f of that without", held, most)
}
