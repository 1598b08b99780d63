package budget

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// simulate returns the result of a simulation from a time on. If check is set, it checks the promise.
func simulate(t rapid.TB, cfg Config, d Demand, from int64, check bool) Result {
	t.Helper()
	var slots []int64
	s := Simulation{Config: cfg, Threshold: 0.75, From: from, To: math.MaxInt64}
	s.Slot = func(_ int, _, _, passed int64) { slots = append(slots, passed) }
	r, err := s.Run(d)
	if err != nil {
		t.Fatal(err)
	}
	if check {
		checkPromise(t, cfg, d.Start, slots)
	}
	return r
}

// checkPromise counts, the slow and obvious way, the windows over quota of every phase
// that begins with a third of a slot, in every cycle, and holds them against the
// floor rule. The bytes are those that passed in the slots from a time on.
func checkPromise(t rapid.TB, cfg Config, from int64, bytes []int64) {
	t.Helper()
	const parts = 3
	width := parts * int64(cmp.Or(cfg.Slots, Slots))
	part := int64(cfg.Window) / width
	begin, n := FloorDiv(from, part*parts)*parts, int64(len(bytes))*parts
	sums := make([]int64, n+1) // in thirds of a byte
	for i := range n {
		sums[i+1] = sums[i] + bytes[i/parts]
	}
	until := func(k int64) int64 { return sums[min(max(k-begin, 0), n)] }
	for at := begin * part; at < (begin+n)*part; {
		start, stop := cfg.Cycle(at)
		for phase := range width {
			over, whole := int64(0), int64(0)
			for k := FloorDiv(start, part) - phase; k*part < stop; k += width {
				if k*part >= start && (k+width)*part <= stop {
					whole++
				}
				if (k+width)*part > start && until(k+width)-until(k) > cfg.Quota*parts {
					over++
				}
			}
			if free := int64(cfg.Percentile.Free(int(whole))); over > free {
				t.Fatalf("cycle from %v to %v, phase %d: %d windows over, %d of %d free",
					time.Unix(0, start).UTC(), time.Unix(0, stop).UTC(), phase, over, free, whole)
			}
		}
		at = stop
	}
}

// cycles returns cycles of a length, one of which begins at start.
func cycles(start, length int64) func(int64) (int64, int64) {
	return func(now int64) (int64, int64) {
		begin := start + FloorDiv(now-start, length)*length
		return begin, begin + length
	}
}

func fixed(length int64) func(int64) (int64, int64) { return cycles(0, length) }

const day = 24 * int64(time.Hour)

// demand is a kind of demand. share returns the share of the quota that is offered in sample
// i of n; x is a random number of the series.
type demand struct {
	name  string
	share func(r *rand.Rand, x, i, n int) float64
}

var demands = []demand{
	{"steady", func(*rand.Rand, int, int, int) float64 { return 1.5 }},
	{"on and off", func(_ *rand.Rand, x, i, _ int) float64 {
		on, off := 1+x%20, 1+x/20%40
		if i%(on+off) < on {
			return 4
		}
		return 0
	}},
	{"a huge burst a day", func(_ *rand.Rand, x, i, _ int) float64 {
		if d := i%288 - x%288; d >= 0 && d < 6 {
			return 50
		}
		return 0.6
	}},
	{"a burst at the end", func(r *rand.Rand, _, i, n int) float64 {
		if i > n-n/15 {
			return 5
		}
		return 0.8 + 0.4*r.Float64()
	}},
	{"growing", func(_ *rand.Rand, _, i, n int) float64 { // against a rule that spends
		return math.Exp(4*float64(i)/float64(n)) * float64(i/6%2)
	}},
	{"shrinking", func(_ *rand.Rand, _, i, n int) float64 { // against one that waits
		return math.Exp(3-4*float64(i)/float64(n)) * float64(i/6%2)
	}},
	{"heavy-tailed", func(r *rand.Rand, _, _, _ int) float64 { return 0.3 * math.Pow(1-r.Float64(), -1/1.3) }},
}

// make returns n samples for a quota.
func (d demand) make(r *rand.Rand, n int, quota float64) []int64 {
	x := r.IntN(1 << 20)
	samples := make([]int64, n)
	for i := range samples {
		samples[i] = int64(min(quota*d.share(r, x, i, n), 1<<50))
	}
	return samples
}

// The promise, for every phase, on all kinds of demand, over several cycles.
func TestPromise(t *testing.T) {
	for _, d := range demands {
		t.Run(d.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
				length := rapid.Int64Range(int64(time.Minute), day/3).Draw(t, "cycle")
				slots := rapid.SampledFrom([]int{Slots, 50, 16, 10}).Draw(t, "slots")
				if rapid.Bool().Draw(t, "cycles of slots") {
					length -= length % (300e9 / int64(slots))
				}
				cfg := Config{
					Quota:      rapid.Int64Range(100, 1e9).Draw(t, "quota"),
					Window:     5 * time.Minute,
					Slots:      slots,
					Percentile: Hundred - Percentile(rapid.Int64Range(0, 400).Draw(t, "free")*1e8),
					Cycle:      fixed(length),
					Policy:     Policy(rapid.IntRange(0, 1).Draw(t, "policy")),
				}
				start := rapid.Int64Range(0, 3*day).Draw(t, "start")
				samples := d.make(r, 110, float64(cfg.Quota))
				simulate(t, cfg, Demand{start, cfg.Window, [][]int64{samples}}, 0, true)
			})
		})
	}
}

// How much worse than greedy the policy may be, without history and after a
// cycle of the same kind. Where bursts only ever get smaller, first come first
// served is best, and any rule that waits for a better one loses.
func TestAgainstGreedy(t *testing.T) {
	const n = 10 * 288
	for _, d := range demands {
		least := 0.99
		if d.name == "shrinking" {
			least = 0.7
		}
		for seed := range uint64(2) {
			before := d.make(rand.New(rand.NewPCG(seed, 5)), n, 1e9)
			samples := d.make(rand.New(rand.NewPCG(seed, 6)), n, 1e9)
			run := func(p Policy, samples []int64) float64 {
				cfg := Config{Quota: 1e9, Percentile: 95e9, Cycle: fixed(10 * day), Policy: p}
				last := int64(len(samples)-n) * minutes5
				return float64(simulate(t, cfg, Demand{0, 5 * time.Minute, [][]int64{samples}}, last, false).Passed)
			}
			greedy := run(Greedy, samples)
			for _, got := range []float64{run(Weighed, samples), run(Weighed, append(before, samples...))} {
				if got < least*greedy {
					t.Errorf("%s: %.4f of what greedy passes, want %.2f", d.name, got/greedy, least)
				}
			}
		}
	}
}

// The hour that daylight saving takes makes a cycle shorter.
func TestCycles(t *testing.T) {
	for _, c := range []struct {
		length     time.Duration
		percentile Percentile
		want       int64
	}{
		{30 * 24 * time.Hour, 95e9, 431},
		{30*24*time.Hour + 5*time.Minute, 95e9, 432},
		{31 * 24 * time.Hour, 95e9, 446},
		{31*24*time.Hour - time.Hour, 95e9, 445},
		{28 * 24 * time.Hour, 97.5e9, 201},
		{4 * time.Minute, 0, 0},
		{9 * time.Minute, 0, 0},
		{10 * time.Minute, 0, 1},
		{1 << 62, 0, 1<<62/minutes5 - 1},
	} {
		if got := freeWindows(int64(c.length), minutes5, c.percentile); got != c.want {
			t.Errorf("%v, %v: %d free windows, want %d", c.length, c.percentile, got, c.want)
		}
	}
}

// room is what may pass in the first lane although it does not fit into the caller's
// own window.
func room(b *Budget, now int64) int64 {
	k, limited := b.Limit(now)
	if !limited {
		return unlimited
	}
	return max(b.cfg.Quota-b.passed[0].in(k, b.t), 0)
}

// A burst of 60 slots from an idle link, three times the quota, costs two windows. The first third
// passes within the quota, so that the windows -40 to 39 are over: the chain is -40 and 20.
func TestExample(t *testing.T) {
	b, err := New(Config{Quota: 600e6, Percentile: 95e9, Cycle: fixed(30 * day), Policy: Greedy})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(60) {
		now := day + i*5e9
		b.Advance(now)
		b.Count(0, now, 30e6, 0, false)
		if room(b, now) < 30e6 {
			t.Fatalf("slot %d: no room", i)
		}
		b.Count(0, now, 30e6, 30e6, i >= 20)
	}
	if s := b.Stats(0); s.Used != 2 {
		t.Errorf("%+v", s)
	}
}

func TestJump(t *testing.T) {
	b, _ := New(Config{Quota: 1000, Percentile: 95e9, Cycle: fixed(day)})
	for _, now := range []int64{0, 5 * day, 3 * day, 400 * day, 401*day - 1, math.MaxInt64 / 4} {
		b.Advance(now)
		b.Count(0, now, 5000, 0, false)
		p := min(room(b, now), 5000)
		b.Count(0, now, 5000, p, p > 0)
		if s := b.Stats(now); s.Left < 0 {
			t.Errorf("at %d: %+v", now, s)
		}
	}
}

// What a slot costs when a ledger is read back at a gate's start, under demand
// that is always over: there are a million of them in two months.
func BenchmarkReplay(b *testing.B) {
	for _, share := range []int64{0, 4} {
		b.Run(fmt.Sprintf("%d times the quota", share), func(b *testing.B) {
			g, _ := New(Config{Quota: 6e8, Percentile: 95e9, Cycle: fixed(30 * day)})
			now := int64(0)
			for b.Loop() {
				now += 5e9
				g.Count(0, now, share*1e7, min(share, 1)*1e7, false)
			}
		})
	}
}

func TestAllocations(t *testing.T) {
	b, _ := New(Config{Quota: 1000, Percentile: 95e9, Cycle: fixed(day)})
	now := int64(0)
	if n := testing.AllocsPerRun(10000, func() {
		now += 5e9
		b.Advance(now)
		b.Count(0, now, 100, 0, false)
		b.Count(0, now, 100, min(room(b, now), 100), true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
