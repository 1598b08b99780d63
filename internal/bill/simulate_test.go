package bill

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"

	"pgregory.net/rapid"
)

// bursty is demand about a commit of a million bytes in 5 minutes, in samples of
// any length.
func bursty(r *rand.Rand, start int64, sample time.Duration, n int) *Series {
	window := 5 * time.Minute
	level := [2]float64{}
	return series(start, sample, n, func(int) (int64, int64) {
		for i := range level {
			if r.IntN(1+int(window/sample)) == 0 {
				level[i] = 0.8
				if r.IntN(6) == 0 {
					level[i] = 4 * r.ExpFloat64()
				}
			}
		}
		scale := 1e6 * float64(sample) / float64(window)
		return int64(scale * level[0] * 0.7), int64(scale * level[1])
	})
}

// gates are those of cycles of a length, or of months if it is 0.
func gates(m Method, length time.Duration) Gates {
	terms := Terms{Method: m, Percentile: 95e9, Window: 5 * time.Minute}
	return Gates{Terms: terms, Calendar: calendar.Calendar{Day: 1, Zone: time.UTC, Length: length}, Threshold: 0.75}
}

// scenario offers the cycle around a time to gates.
func scenario(s *Samples, at int64, g Gates) *Scenario { return must(NewScenario(s, g.At(at), g)) }

// worstOf bills what passed the slow way: of all phases of slots, the worst.
func worstOf(x *Simulated) (worst int64) {
	s := x.Bill.passed
	slots := int(ceilDiv(x.Cycle.End-s.Start, int64(s.Slot)))
	for phase := range budget.Slots {
		worst = max(worst, plain(s, phase, slots, budget.Slots, x.Terms, 0).billed)
	}
	return worst
}

// What passed is billed at the commit or under it, whatever the phase; the sums are
// those of the slots.
func TestSimulate(t *testing.T) {
	const length = 24 * time.Hour
	for m := Separate; m <= Out; m++ {
		for _, sample := range []time.Duration{time.Second, 5 * time.Second, 12 * time.Second, time.Minute, 5 * time.Minute} {
			r := rand.New(rand.NewPCG(uint64(m), uint64(sample)))
			s := bursty(r, day(2026, 3, 1)+int64(length)/3/int64(sample)*int64(sample), sample, int(2*length/sample))
			g := gates(m, length)
			if sample == time.Minute {
				g.Patience = 20 * time.Minute
			}
			x := must(scenario(samplesOf(s), day(2026, 3, 2), g).Simulate(1e6))
			name := fmt.Sprintf("%v, samples of %v", m, sample)

			b, worst := x.Bill, worstOf(x)
			if worst > 1e6 || b.WorstBilled != worst || b.Billed > worst || b.WorstUsed > b.FreeTotal || b.FreeTotal != 14 {
				t.Errorf("%s: the worst is %d: %+v", name, worst, b)
			}
			// The demand of the cycle is that of the samples that begin in it.
			natural := newBill(s, x.Cycle, time.UTC, g.Terms, nil)
			in, out := natural.InBytes, natural.OutBytes
			offered := cmp.Or(map[Method]int64{In: in, Out: out}[m], in+out)
			if x.Offered != offered || x.Natural.Billed != natural.Billed {
				t.Errorf("%s: %d offered and %d billed, want %d and %d", name, x.Offered, x.Natural.Billed, offered, natural.Billed)
			}
			if x.Offered != x.Passed+x.Lost || x.Lost <= 0 || x.Flat >= x.Passed {
				t.Errorf("%s: %d offered, %d passed, %d lost, %d flat", name, x.Offered, x.Passed, x.Lost, x.Flat)
			}
			if x.Delayed > 0 != (g.Patience > 0) || x.Longest > g.Patience {
				t.Errorf("%s: %d delayed, %v", name, x.Delayed, x.Longest)
			}
			if sample == time.Minute {
				slotsOf(t, name, x)
			}
		}
	}
}

// slotsOf wants slots of the cycle that say the same as the report.
func slotsOf(t *testing.T, name string, x *Simulated) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(drawn(t, x.Bill.Slots)), "\n")[1:]
	offered, passed := int64(0), int64(0)
	for _, line := range lines {
		var at string
		var in, out, inOffered, outOffered int64
		must(fmt.Sscan(strings.ReplaceAll(line, ",", " "), &at, &in, &out, &inOffered, &outOffered))
		offered, passed = offered+inOffered+outOffered, passed+in+out
	}
	if len(lines) != 17280 || offered != x.Offered || passed != x.Passed {
		t.Errorf("%s: %d slots, %d and %d bytes, want %d and %d", name, len(lines), offered, passed, x.Offered, x.Passed)
	}
}

// Earlier cycles are history, later ones are not looked at, and where a piece is
// missing nothing was offered.
func TestScenario(t *testing.T) {
	const length = 24 * time.Hour
	s := bursty(rand.New(rand.NewPCG(5, 6)), day(2026, 3, 1), 5*time.Minute, 4*288)
	g := gates(Out, length)
	all := samplesOf(s)
	second := must(scenario(all, day(2026, 3, 2), g).Simulate(1e6))
	first, _ := all.series(0, day(2026, 3, 3)+int64(g.Window))
	again := must(scenario(samplesOf(first), day(2026, 3, 2), g).Simulate(1e6))
	if again.Passed != second.Passed || again.Offered != second.Offered {
		t.Errorf("%d of %d, and %d of %d with later cycles", again.Passed, again.Offered, second.Passed, second.Offered)
	}
	tail, _ := all.series(day(2026, 3, 4), day(2026, 3, 4)+int64(length)/2)
	x := must(scenario(samplesOf(first, tail), day(2026, 3, 4), g).Simulate(1e6))
	if x.Offered != sum(tail.Out) || x.Bill.From != day(2026, 3, 4) || x.Bill.To != x.Bill.From+int64(length)/2 {
		t.Errorf("%d offered, want %d, from %d to %d", x.Offered, sum(tail.Out), x.Bill.From, x.Bill.To)
	}
	// Half a cycle has half of the free windows, for the bill of the demand too.
	if b := x.Bill; !x.Part || b.Samples != 144 || b.FreeTotal != 7 || b.Cycle != x.Natural.Cycle || x.Natural.Samples != 144 || !b.Closed() {
		t.Errorf("%d samples, %d free of cycle %v; %d of the demand", b.Samples, b.FreeTotal, b.Cycle, x.Natural.Samples)
	}
	if second.Part {
		t.Error("a whole cycle is taken for a part")
	}
	g.Reserve = 1 << 40
	if x := must(scenario(all, day(2026, 3, 2), g).Simulate(1e6)); x.Passed != x.Flat {
		t.Errorf("%d passed, %d without free windows, of which none was to be used", x.Passed, x.Flat)
	}
}

func TestScenarioRefuses(t *testing.T) {
	idle := samplesOf(series(day(2026, 3, 1), time.Minute, 100, func(int) (int64, int64) { return 0, 1 }))
	for _, tt := range []struct {
		want   string
		day    int
		window time.Duration
	}{
		{"no traffic was offered", 1, 5 * time.Minute},
		{"no data for", 5, 5 * time.Minute},
		{"cannot be divided", 1, 5*time.Minute + 1},
		{"too coarse", 1, 3 * time.Second},
	} {
		g := gates(In, 24*time.Hour)
		g.Window = tt.window
		if _, err := NewScenario(idle, g.At(day(2026, 3, tt.day)), g); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.want, err)
		}
	}
}

// Missing samples count as no traffic: what waits when a long gap begins passes in it.
func TestGap(t *testing.T) {
	burst := series(day(2026, 3, 1), 5*time.Minute, 3, func(int) (int64, int64) { return 0, 2e6 })
	last := series(day(2026, 3, 7), 5*time.Minute, 1, func(int) (int64, int64) { return 0, 1 })
	g := gates(Out, 10*24*time.Hour)
	g.Patience, g.Reserve = time.Hour, 1<<40
	if x := must(scenario(samplesOf(burst, last), burst.Start, g).Simulate(1e6)); x.Lost != 0 {
		t.Errorf("%d bytes are lost of %d", x.Lost, x.Offered)
	}
}

// The demand is that of the samples before a time, in slots that fit.
func TestDemand(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sample := time.Duration(rapid.Int64Range(1, 20).Draw(rt, "sample"))
		slot := time.Duration(rapid.Int64Range(1, 20).Draw(rt, "slot"))
		at, n := rapid.Int64Range(0, 1000).Draw(rt, "start"), rapid.IntRange(1, 50).Draw(rt, "n")
		first := series(at, sample, n, func(i int) (int64, int64) { return int64(i), 1 })
		apart := rapid.SampledFrom([]int64{0, 1, 100}).Draw(rt, "gap")
		second := series(first.at(n)+apart*int64(sample), sample, n, func(int) (int64, int64) { return 0, 100 })
		end := second.at(n / 2)
		x := samplesOf(first, second).demand(0, end, slot)
		if x.Start%int64(x.Slot) >= int64(sample) || x.Slot%slot != 0 || x.Slot%sample != 0 || (x.Start-first.Start)%int64(sample) != 0 ||
			x.at(len(x.In)) >= end+int64(x.Slot) {
			rt.Fatalf("%+v, of samples of %v and slots of %v", x, sample, slot)
		}
		if in, out := sum(first.In), sum(first.Out)+100*int64(n/2); sum(x.In) != in || sum(x.Out) != out {
			rt.Fatalf("%d and %d, want %d and %d", sum(x.In), sum(x.Out), in, out)
		}
		if x.Start > at || at-x.Start >= int64(x.Slot) || x.In[0] > sum(first.In[:min(n, int(x.Slot/sample))]) {
			rt.Fatalf("%+v, of %+v", x, first)
		}
	})
}

// A plan has a dozen round commits or so, and its knee is the first at which
// 99.9% passes. Its rows have the costs of each commit, with gates and without.
func TestPlan(t *testing.T) {
	s := bursty(rand.New(rand.NewPCG(8, 9)), day(2026, 3, 1), 5*time.Minute, 2*288)
	g := gates(Separate, 24*time.Hour)
	g.Patience = time.Hour
	g.Prices = Prices{Commit: 10e6, Overage: 20e6, Currency: "EUR"}
	c := scenario(samplesOf(s), day(2026, 3, 2), g)
	p := must(c.Plan(12345))
	if len(p) < 8 || len(p) > 16 || p[0].Commit != 12345 {
		t.Errorf("%d commits, the first %d", len(p), p[0].Commit)
	}
	best, _, _ := p.best()
	knee := slices.Index(p, best)
	if knee < 1 || p[knee].Passed*1000 < p[knee].Offered*999 || p[knee-1].Passed*1000 >= p[knee-1].Offered*999 {
		t.Errorf("the knee is %d", knee)
	}
	for i, j := range p.JSON() {
		x := p[i]
		if x.Bill.WorstBilled > x.Commit || i > 0 && x.Commit <= p[i-1].Commit {
			t.Errorf("%d: %d, billed %d", i, x.Commit, x.Bill.WorstBilled)
		}
		if alone := must(c.Simulate(x.Commit)); alone.Passed != x.Passed || alone.Bill.Billed != x.Bill.Billed {
			t.Errorf("%d passed alone, %d in the plan", alone.Passed, x.Passed)
		}
		if j["knee"] != (i == knee) || j["commit_bps"] != c.Natural.BPS(x.Commit) {
			t.Errorf("%d: %v", i, j)
		}
		rate, natural := BitRate(x.Commit, c.Window), BitRate(c.Natural.Billed, c.Window)
		if x.held() != g.Prices.Of(rate, 0).Total || x.paid() != g.Prices.Of(rate, natural).Total {
			t.Errorf("%d costs %v, or %v", rate, x.held(), x.paid())
		}
	}
	for overage, want := range map[Money][2]string{20e6: {"cheapest", "\nCheapest: "}, 1e5: {"pay", "\nIt is cheapest to pay: "}} {
		for _, x := range p {
			x.Bill.Prices.Overage = overage
		}
		_, mark := p.marked()
		if text := textOf(t, p, Style{}); mark != want[0] || !strings.Contains(text, want[1]) {
			t.Errorf("marked %q, want %q\n%s", mark, want[0], text)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		c := &Scenario{Gates: g}
		c.Natural = &Bill{Terms: g.Terms, Billed: rapid.Int64Range(1000, 1<<50).Draw(t, "natural")}
		all, err := c.commits()
		if err != nil || len(all) < 7 || len(all) > planMost+1 || float64(all[0]) < planFrom*float64(c.Natural.Billed)*0.99 {
			t.Fatalf("%d: %v, %v", c.Natural.Billed, all, err)
		}
	})
	if _, err := (&Scenario{Gates: g, Natural: &Bill{Terms: g.Terms}}).Plan(1); err == nil {
		t.Error("commits about nothing")
	}
}

// The cheapest is the least commit at which gates pass enough, unless it costs no more to pay.
func TestCheapest(t *testing.T) {
	for _, tt := range []struct {
		prices  Prices
		natural int64    // bit/s
		passed  [3]int64 // of a thousand bytes, at 1, 2 and 3 Mbit/s
		want    string
	}{
		{Prices{Commit: 1e6, Overage: 2e6}, 3e6, [3]int64{900, 999, 1000}, "Cheapest: 2.00 Mbit/s with gates, for 2.00; 1 B (0.10%) lost"},
		{Prices{Commit: 1e6, Overage: 2e6}, 2.1e6, [3]int64{900, 999, 1000}, "Cheapest: 2.00 Mbit/s with gates, for 2.00;"},
		{Prices{Commit: 2e6, Overage: 1e6}, 3e6, [3]int64{900, 999, 1000}, "It is cheapest to pay: 1.00 Mbit/s without gates, for 4.00:"},
		{Prices{Commit: 1e6, Overage: 2e6}, 3e6, [3]int64{900, 998, 998}, "It is cheapest to pay: 3.00 Mbit/s without gates, for 3.00:"},
		{Prices{Commit: 1e6, Overage: 2e6, Minimum: 2.5e6}, 3e6, [3]int64{999, 1000, 1000}, "Cheapest: 2.00 Mbit/s with gates, for 2.50;"},
	} {
		c := &Scenario{Natural: &Bill{Terms: Terms{Window: 8 * time.Second}, Billed: tt.natural, Zone: time.UTC}}
		c.Prices = tt.prices
		var p Plan
		for i, passed := range tt.passed {
			commit := int64(i+1) * 1e6
			b := &Bill{Terms: Terms{Window: 8 * time.Second, Commit: commit, Prices: tt.prices}}
			p = append(p, &Simulated{Scenario: c, Commit: commit, Offered: 1000, Passed: passed, Lost: 1000 - passed, Bill: b})
		}
		if text := textOf(t, p, Style{}); !strings.Contains(text, "\n\n"+tt.want) {
			t.Errorf("%s\nwant %s", text, tt.want)
		}
	}
}

// The text, without free windows, which are spent in another way now and then.
func TestSimulatedText(t *testing.T) {
	g := gates(Separate, 7*24*time.Hour)
	g.Percentile = 100e9
	for _, tt := range []struct {
		name     string
		until    int
		patience time.Duration
		style    Style
	}{
		{"simulate", 3300, time.Hour, Style{}},
		{"simulate-ascii", 2600, 0, Style{ASCII: true}},
	} {
		g.Patience = tt.patience
		c := scenario(samplesOf(demand(tt.until)), day(2026, 3, 5), g)
		x := must(c.Simulate(5e9))
		golden(t, tt.name, textOf(t, x, tt.style)+"\n"+textOf(t, must(c.Plan(0)), tt.style))
		if svg := picture(t, x.Bill.SVG); !strings.Contains(svg, ">simulated<") || strings.Contains(svg, "forecast") {
			t.Error("the picture does not say that it is simulated")
		}
	}
}
