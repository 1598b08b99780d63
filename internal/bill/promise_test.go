package bill

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/pollertest"

	"pgregory.net/rapid"
)

// Months of all kinds of demand, through gates and then billed: no phase of the
// poller bills more than the commit, over the hour that daylight saving takes or
// gives, ends of months, samples that are missing, and bursts where they hurt.
func TestPromiseOfMonths(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"}
	over := 0
	rapid.Check(t, func(t *rapid.T) {
		zone := must(time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone")))
		day := rapid.SampledFrom([]int{1, 5, 25, 29, 31}).Draw(t, "day")
		month := time.Month(rapid.SampledFrom([]int{2, 3, 4, 9, 10, 11}).Draw(t, "month"))
		kind := rapid.IntRange(0, 5).Draw(t, "kind")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 8))
		const window = time.Hour
		g := Gates{
			Terms: Terms{
				Method:     Method(rapid.IntRange(0, 4).Draw(t, "method")),
				Percentile: budget.Percentile(rapid.SampledFrom([]int64{95e9, 90e9, 99.5e9, 60e9}).Draw(t, "percentile")), Window: window,
			},
			Calendar:  calendar.Calendar{Day: day, Zone: zone},
			Threshold: rapid.SampledFrom([]float64{0.5, 0.75, 1}).Draw(t, "threshold"),
			Patience:  time.Duration(rapid.IntRange(0, 6).Draw(t, "patience")) * window / 2,
		}
		this := g.At(time.Date(2026, month, 15, 12, 0, 0, 0, zone).UnixNano())
		before := g.At(this.Start - 1)
		const sample, commit = 5 * time.Minute, 12_000_000
		n := int((this.End + int64(window) - before.Start) / int64(sample))
		level, until := 0.0, 0
		s := series(before.Start, sample, n, func(i int) (int64, int64) {
			at := before.Start + int64(i)*int64(sample)
			edge := min(this.End-at, at-before.Start, max(at-this.Start, this.Start-at)) < 6*int64(time.Hour)
			if i >= until {
				until = i + 1 + r.IntN(40)
				level = []float64{
					1.5,                                         // always too much
					float64(r.IntN(2)) * 5,                      // on and off
					0.3 * math.Pow(1-r.Float64(), -1/1.3),       // heavy-tailed
					math.Exp(4*float64(i)/float64(n)) - 1,       // growing, against a rule that spends
					math.Exp(3 - 5*float64(i)/float64(n)),       // shrinking, against one that waits
					map[bool]float64{true: 9, false: 0.9}[edge], // at the ends of cycles
				}[kind]
			}
			v := level * commit / 12
			return int64(v * r.Float64()), int64(v)
		})
		for i := range s.Known {
			if s.Known[i] = r.IntN(30) > 0; !s.Known[i] {
				s.In[i], s.Out[i] = 0, 0
			}
		}
		cycle := rapid.SampledFrom([]calendar.Cycle{before, this}).Draw(t, "billed")
		x := must(scenario(samplesOf(s), cycle.Start, g).Simulate(commit))
		if worst := worstOf(x); worst > commit || x.Bill.WorstBilled > commit {
			t.Fatalf("%s: the worst phase bills %d, and by hand %d", cycle.Name, x.Bill.WorstBilled, worst)
		}
		if x.Offered != x.Passed+x.Lost || x.Delayed > x.Passed {
			t.Fatalf("%s: %d offered, %d passed, %d delayed, %d lost", cycle.Name, x.Offered, x.Passed, x.Delayed, x.Lost)
		}
		over += x.Bill.WorstUsed
	})
	if over == 0 {
		t.Error("no window was over, and so nothing was tested")
	}
}

// No poller bills more than the commit: of any phase or a known one, with jitter, with a
// longer or shorter interval, with polls that are late, for which two free windows each are
// reserved, and whether it divides by the time between two polls or by the window.
func TestPromiseForPollers(t *testing.T) {
	for _, jitter := range []time.Duration{2 * time.Second, 10 * time.Second} {
		for m := Separate; m <= Out; m++ {
			t.Run(fmt.Sprintf("%v, jitter %v", m, jitter), func(t *testing.T) {
				t.Parallel()
				promiseForPollers(t, m, jitter)
			})
		}
	}
}

func promiseForPollers(t *testing.T, m Method, jitter time.Duration) {
	const length, commit, late, pollers = 48 * time.Hour, 600_000_000, 20, 170 // times 30
	r := rand.New(rand.NewPCG(uint64(m), uint64(jitter)))
	start := day(2026, 3, 1)
	s := crowded(r, start, int(2*length/(5*time.Minute)), commit)
	kinds := pollertest.Kinds(jitter)
	last := len(kinds) - 1
	phase := time.Duration(r.Int64N(int64(5 * time.Minute)))
	known := []pollertest.Kind{{Name: "known phase", Jitter: jitter, Known: true, Phase: phase}}
	for _, kinds := range [][]pollertest.Kind{kinds[:last], kinds[last:], known} {
		g := gates(m, length)
		g.Poller = budget.Poller{Jitter: jitter, Known: kinds[0].Known, Phase: kinds[0].Phase}
		if kinds[0].Late > 0 {
			g.Reserve = 2 * late
		}
		x := must(scenario(samplesOf(s), start+int64(length), g).Simulate(commit))
		bill := polled(x)
		for i := range pollers {
			k := kinds[i%len(kinds)]
			polls, n := k.Polls(r, x.Cycle.Start, x.Cycle.End, g.Window)
			if n > late {
				t.Fatalf("%d polls are late", n)
			}
			if b := bill(polls); b > commit*(1+1e-9)+2 {
				t.Errorf("%s: billed %.5f of the commit", k.Name, b/commit)
			}
		}
	}
}

// crowded is demand that keeps a gate full, in bursts of all lengths.
func crowded(r *rand.Rand, start int64, n int, commit float64) *Series {
	var level [2]float64
	return series(start, 5*time.Minute, n, func(int) (int64, int64) {
		for i := range level {
			if r.IntN(4) == 0 {
				level[i] = []float64{0, 0.9, 1.2, 4}[r.IntN(4)] * r.ExpFloat64()
			}
		}
		return int64(commit * level[0]), int64(commit * level[1])
	})
}

// polled returns a function that bills the bytes that passed, spread evenly over each slot.
func polled(x *Simulated) func(polls []int64) float64 {
	s := x.Bill.passed
	var bills [][]func(int64) float64
	for _, gates := range x.Method.budgets() {
		var counters []func(int64) float64
		for _, m := range gates {
			c := newCounter(s, m)
			counters = append(counters, func(at int64) float64 { return c.upTo(min(max(at, s.Start), s.at(len(s.In))-1)) })
		}
		bills = append(bills, counters)
	}
	return func(polls []int64) (worst float64) {
		for _, counters := range bills {
			worst = max(worst, pollertest.Bill(polls, x.Cycle.Start, x.Cycle.End, x.Window, x.Percentile, counters...))
		}
		return worst
	}
}
