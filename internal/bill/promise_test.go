package bill

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"

	"pgregory.net/rapid"
)

// Months of all kinds of demand, through gates and then billed: no phase of the
// poller bills more than the commit, over the hour that daylight saving takes or
// gives, ends of months, samples that are missing, and bursts where they hurt.
func TestPromiseOfMonths(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"}
	over := 0
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
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
		c, err := NewScenario(samplesOf(t, s), cycle, g)
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Simulate(commit)
		if err != nil {
			t.Fatal(err)
		}
		methods := []Method{g.Method}
		if g.Method == Separate {
			methods = []Method{In, Out}
		}
		for _, m := range methods {
			if worst := worstOf(x, m); worst > commit || x.Bill.WorstBilled > commit {
				t.Fatalf("%s: the worst phase bills %d, and by hand %d", cycle.Name, x.Bill.WorstBilled, worst)
			}
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
