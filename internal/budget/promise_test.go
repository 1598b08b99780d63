package budget_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/pollertest"

	"pgregory.net/rapid"
)

const (
	slot   = int64(5e9)
	window = 5 * time.Minute
	cycle  = int64(12 * time.Hour)
	start  = 10 * cycle
)

// history is the bytes up to each slot, from start on.
type history []int64

func (h *history) add(bytes int64) { *h = append(*h, (*h)[len(*h)-1]+bytes) }

// last returns the bytes of the last window.
func (h history) last() int64 { return h[len(h)-1] - h[max(len(h)-1-budget.Slots, 0)] }

// until returns the bytes up to an instant. Those of a slot are spread evenly over it.
func (h history) until(at int64) float64 {
	slots := min(max(float64(at-start)/float64(slot), 0), float64(len(h)-1))
	i := min(int(slots), len(h)-2)
	return float64(h[i]) + float64(h[i+1]-h[i])*(slots-float64(i))
}

// A gate that holds to the spent level does not raise the bill. The bill is at most the commit, or the
// bill of the other traffic alone, for pollers of any phase, with their jitter.
func TestSpentPromise(t *testing.T) {
	held := 0
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 9))
		jitter := rapid.SampledFrom([]time.Duration{0, 2e9, 10e9}).Draw(t, "jitter")
		kind := rapid.SampledFrom(pollertest.Kinds(jitter)[:2]).Draw(t, "kind")
		kind.Phase = time.Duration(rapid.Int64Range(0, 299).Draw(t, "phase")) * time.Second
		kind.Known = rapid.Bool().Draw(t, "known")
		p := budget.Percentile(rapid.Int64Range(80, 99).Draw(t, "percentile") * 1e9)
		lanes := rapid.IntRange(1, 2).Draw(t, "lanes")
		cfg := budget.Config{
			Quota: 600e6, Whole: true, Percentile: p,
			Lanes: lanes, Separate: lanes == 2 && rapid.Bool().Draw(t, "separate"),
			Poller: budget.Poller{Jitter: kind.Jitter, Known: kind.Known, Phase: kind.Phase},
			Policy: budget.Policy(rapid.IntRange(0, 2).Draw(t, "policy")),
			Cycle:  func(at int64) (int64, int64) { return at / cycle * cycle, (at/cycle + 1) * cycle },
		}
		b, err := budget.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, _, limit := cfg.Poller.Samples(window, cfg.Quota)
		g := budget.NewGate(b, 0.75)
		begins := rapid.Int64Range(0, cycle/slot).Draw(t, "begins")
		with, alone := []history{{0}, {0}}[:lanes], []history{{0}, {0}}[:lanes]
		rate := [2]float64{}
		for i := range cycle/slot + 60 {
			for l := range lanes {
				if r.IntN(100) == 0 {
					rate[l] = 50e6 * r.Float64() * r.Float64()
				}
				bytes := int64(rate[l] * (0.7 + 0.6*r.Float64()))
				other := bytes
				if l == 0 && i >= begins {
					bytes = g.Slot(0, start/slot+i, bytes)
					other = bytes
					if b.Quota(start+i*slot) > cfg.Quota {
						other = 0
						held++
					}
				}
				with[l].add(bytes)
				alone[l].add(other)
				if l > 0 || i < begins {
					b.Count(l, start+i*slot, bytes, bytes, with[l].last() > limit)
				}
			}
		}
		polls, _ := kind.Polls(r, start, start+cycle, window)
		bills := func(of []history) (all [4]float64) {
			if !cfg.Separate {
				return pollertest.Bills(polls, start, start+cycle, window, p, of[0].until, of[lanes-1].until)
			}
			for _, h := range of {
				for i, bill := range pollertest.Bills(polls, start, start+cycle, window, p, h.until) {
					all[i] = max(all[i], bill)
				}
			}
			return all
		}
		got, want := bills(with), bills(alone)
		for i := range got {
			if share := got[i] / max(want[i], float64(cfg.Quota)); share > 1.0001 {
				t.Fatalf("bill %d of %v: %.1f MB, %.4f of what is billed without", i, kind, got[i]/1e6, share)
			}
		}
	})
	if held == 0 {
		t.Error("no gate ever held to a level, and so nothing was tested")
	}
}
