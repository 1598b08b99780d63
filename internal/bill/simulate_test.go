package bill

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/nettest"

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

func gates(m Method, length time.Duration) Gates {
	return Gates{
		Terms: Terms{Method: m, Percentile: 95e9, Window: 5 * time.Minute}, Calendar: calendar.Calendar{Zone: time.UTC, Length: length}, Threshold: 0.75,
	}
}

func simulate(t testing.TB, s *Samples, at int64, g Gates, commit int64) *Simulated {
	t.Helper()
	c, err := NewScenario(s, g.At(at), g)
	if err != nil {
		t.Fatal(err)
	}
	x, err := c.Simulate(commit)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// worstOf bills every phase of slots the slow way: all windows that begin in the
// cycle, the highest 5% thrown away.
func worstOf(x *Simulated, m Method) (worst int64) {
	for phase := range budget.Slots {
		var values []int64
		for i := phase; x.Bill.passed.at(i) < x.Cycle.End; i += budget.Slots {
			in, out := int64(0), int64(0)
			for j := i; j < min(i+budget.Slots, len(x.Bill.passed.In)); j++ {
				in, out = in+x.Bill.passed.In[j], out+x.Bill.passed.Out[j]
			}
			values = append(values, m.Value(in, out))
		}
		worst = max(worst, percentile(values, x.Percentile.String(), Floor))
	}
	return worst
}

// What passed is billed at the commit or under it, whatever the phase; the sums are
// those of the slots, and those of budgets that are run by hand.
func TestSimulate(t *testing.T) {
	const length = 24 * time.Hour
	for _, m := range []Method{Separate, Max, Sum, In, Out} {
		for _, sample := range []time.Duration{time.Second, 5 * time.Second, 12 * time.Second, time.Minute, 5 * time.Minute} {
			r := rand.New(rand.NewPCG(uint64(m), uint64(sample)))
			s := bursty(r, day(2026, 3, 1)+int64(length)/3/int64(sample)*int64(sample), sample, int(2*length/sample))
			g := gates(m, length)
			if sample == time.Minute {
				g.Patience = 20 * time.Minute
			}
			x := simulate(t, samplesOf(t, s), day(2026, 3, 2), g, 1e6)
			name := fmt.Sprintf("%v, samples of %v", m, sample)

			for _, of := range map[Method][]Method{Separate: {In, Out}, Max: {Max}, Sum: {Sum}, In: {In}, Out: {Out}}[m] {
				if worst := worstOf(x, of); worst > 1e6 || m != Separate && worst != x.Bill.WorstBilled {
					t.Errorf("%s: %d are billed, and %d at the worst of %v", name, x.Bill.WorstBilled, worst, of)
				}
			}
			if x.Bill.WorstBilled > 1e6 || x.Bill.Billed > x.Bill.WorstBilled || x.Bill.WorstUsed > x.Bill.FreeTotal || x.Bill.FreeTotal != 14 {
				t.Errorf("%s: %+v", name, x.Bill)
			}

			// The demand of the cycle is that of the samples that begin in it.
			natural, err := fromSeries(s, x.Cycle, time.UTC, g.Terms)
			if err != nil {
				t.Fatal(err)
			}
			offered := int64(0)
			if m != Out {
				offered += natural.InBytes
			}
			if m != In {
				offered += natural.OutBytes
			}
			if x.Offered != offered || x.Natural.Billed != natural.Billed {
				t.Errorf("%s: %d offered and %d billed, want %d and %d", name, x.Offered, x.Natural.Billed, offered, natural.Billed)
			}
			if x.Offered != x.Passed+x.Lost || x.Lost <= 0 || x.Flat >= x.Passed {
				t.Errorf("%s: %d offered, %d passed, %d lost, %d flat", name, x.Offered, x.Passed, x.Lost, x.Flat)
			}
			if x.Delayed > 0 != (g.Patience > 0) || x.Longest > g.Patience {
				t.Errorf("%s: %d delayed, %v", name, x.Delayed, x.Longest)
			}
			sums := [2]int64{}
			for i, c := range []*Series{x.Bill.offered, x.Bill.passed} {
				for j := range c.In {
					if c.at(j) < x.Cycle.End {
						sums[i] += c.In[j] + c.Out[j]
					}
				}
			}
			if sums != [2]int64{x.Offered, x.Passed} {
				t.Errorf("%s: the slots have %d, want %d and %d", name, sums, x.Offered, x.Passed)
			}
			if sample == 5*time.Minute {
				byHand(t, name, s, x)
			}
		}
	}
}

// byHand runs budgets over samples of 5 minutes.
func byHand(t *testing.T, name string, s *Series, x *Simulated) {
	t.Helper()
	sum := make([]int64, len(s.In))
	for i := range sum {
		sum[i] = s.In[i] + s.Out[i]
	}
	passed := int64(0)
	for _, lanes := range map[Method][][][]int64{
		Separate: {{s.In}, {s.Out}}, Max: {{s.In, s.Out}}, Sum: {{sum}}, In: {{s.In}}, Out: {{s.Out}},
	}[x.Method] {
		d := budget.Demand{Start: s.Start, Sample: s.Slot, Lanes: lanes}
		b := budget.Simulation{Threshold: 0.75, Config: budget.Config{Quota: x.Commit, Free: budget.Ratio{Num: 5, Den: 100}, Cycle: func(now int64) (int64, int64) {
			start := now - now%day(1970, 1, 2)
			return start, start + day(1970, 1, 2)
		}}}
		b.Slot = func(_ int, start, _, p int64) {
			if start >= x.Cycle.Start && start < x.Cycle.End {
				passed += p
			}
		}
		if _, err := b.Run(d); err != nil {
			t.Fatal(err)
		}
	}
	if passed != x.Passed {
		t.Errorf("%s: %d passed, and %d by hand", name, x.Passed, passed)
	}
}

// Slots are those of the cycle, and say the same as the report.
func TestSimulatedSlots(t *testing.T) {
	s := bursty(rand.New(rand.NewPCG(1, 2)), day(2026, 3, 1), time.Minute, 2000)
	for _, m := range []Method{Sum, Out} {
		x := simulate(t, samplesOf(t, s), day(2026, 3, 1), gates(m, 24*time.Hour), 1e6)
		var w bytes.Buffer
		if err := x.Bill.Slots(&w); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(w.String()), "\n")
		offered, passed := int64(0), int64(0)
		for _, line := range lines[1:] {
			var at string
			var in, out, inOffered, outOffered int64
			if _, err := fmt.Sscanf(strings.ReplaceAll(line, ",", " "), "%s %d %d %d %d", &at, &in, &out, &inOffered, &outOffered); err != nil {
				t.Fatal(err)
			}
			offered, passed = offered+inOffered+outOffered, passed+in+out
		}
		if lines[0] != "time,in,out,offered_in,offered_out" || len(lines) != 1+17280 || offered != x.Offered || passed != x.Passed {
			t.Errorf("%v: %d lines, %d and %d bytes, want %d and %d", m, len(lines), offered, passed, x.Offered, x.Passed)
		}
	}
}

// Earlier cycles are history, later ones are not looked at, and where a piece is
// missing nothing was offered.
func TestScenario(t *testing.T) {
	const length = 24 * time.Hour
	s := bursty(rand.New(rand.NewPCG(5, 6)), day(2026, 3, 1), 5*time.Minute, 4*288)
	g := gates(Out, length)
	all := samplesOf(t, s)
	second := simulate(t, all, day(2026, 3, 2), g, 1e6)
	first, _ := all.series(0, day(2026, 3, 3)+int64(g.Window))
	if again := simulate(t, samplesOf(t, first), day(2026, 3, 2), g, 1e6); again.Passed != second.Passed || again.Offered != second.Offered {
		t.Errorf("%d of %d, and %d of %d with later cycles", again.Passed, again.Offered, second.Passed, second.Offered)
	}
	tail, _ := all.series(day(2026, 3, 4), day(2026, 3, 4)+int64(length)/2)
	x := simulate(t, samplesOf(t, first, tail), day(2026, 3, 4), g, 1e6)
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
	if x := simulate(t, all, day(2026, 3, 2), g, 1e6); x.Passed != x.Flat {
		t.Errorf("%d passed, %d without free windows, of which none was to be used", x.Passed, x.Flat)
	}

	idle := samplesOf(t, series(day(2026, 3, 1), time.Minute, 100, func(int) (int64, int64) { return 0, 1 }))
	g = gates(In, length)
	for name, err := range map[string]error{
		"no traffic was offered": func() error { _, err := NewScenario(idle, g.At(day(2026, 3, 1)), g); return err }(),
		"no data for":            func() error { _, err := NewScenario(idle, g.At(day(2026, 3, 5)), g); return err }(),
		"cannot be divided": func() error {
			g := g
			g.Window++
			_, err := NewScenario(idle, g.At(day(2026, 3, 1)), g)
			return err
		}(),
		"too coarse": func() error {
			g := g
			g.Window = time.Second * 3
			_, err := NewScenario(idle, g.At(day(2026, 3, 1)), g)
			return err
		}(),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func sum(values []int64) (n int64) {
	for _, v := range values {
		n += v
	}
	return n
}

// The demand is that of the samples before a time, in slots that fit, and in pieces where
// there is a long gap.
func TestDemand(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sample := time.Duration(rapid.Int64Range(1, 20).Draw(rt, "sample"))
		slot := time.Duration(rapid.Int64Range(1, 20).Draw(rt, "slot"))
		m := Method(rapid.IntRange(0, 4).Draw(rt, "method"))
		at, n := rapid.Int64Range(0, 1000).Draw(rt, "start"), rapid.IntRange(1, 50).Draw(rt, "n")
		first := series(at, sample, n, func(i int) (int64, int64) { return int64(i), 1 })
		apart := rapid.SampledFrom([]int64{0, 1, 100, 100000}).Draw(rt, "gap")
		second := series(first.at(n)+apart*int64(sample), sample, n, func(int) (int64, int64) { return 0, 100 })
		end := second.at(n / 2)
		all := samplesOf(t, first, second).demand(0, end, slot, m)
		if pieces := 1 + map[int64]int{100000: 1}[apart]; len(all) > pieces || n > 1 && len(all) < pieces {
			rt.Fatalf("%d pieces, want %d", len(all), pieces)
		}
		got := [2]int64{}
		for _, x := range all {
			if x.Start%int64(x.Slot) >= int64(sample) {
				rt.Fatalf("slots of %d begin at %d, in the middle of one on the clock", x.Slot, x.Start)
			}
			if x.Slot%slot != 0 || x.Slot%sample != 0 || (x.Start-first.Start)%int64(sample) != 0 || x.at(len(x.In)) >= end+int64(x.Slot) {
				rt.Fatalf("%+v", x)
			}
			got[0] += sum(x.In)
			got[1] += sum(x.Out)
		}
		in, out := sum(first.In), sum(first.Out)+100*int64(n/2)
		want := map[Method][2]int64{Separate: {in, out}, Max: {in, out}, Sum: {0, in + out}, In: {in, 0}, Out: {0, out}}[m]
		if got != want {
			rt.Fatalf("%v: %v, want %v", m, got, want)
		}
		if x := all[0]; x.Start > at || at-x.Start >= int64(x.Slot) || x.In[0] > sum(first.In[:min(n, int(x.Slot/sample))]) {
			rt.Fatalf("%+v, of %+v", x, first)
		}
	})
}

// A plan has a dozen round commits or so, and its knee is the first at which
// 99.9% passes.
func TestPlan(t *testing.T) {
	s := bursty(rand.New(rand.NewPCG(8, 9)), day(2026, 3, 1), 5*time.Minute, 2*288)
	g := gates(Separate, 24*time.Hour)
	g.Patience = time.Hour
	c, err := NewScenario(samplesOf(t, s), g.At(day(2026, 3, 2)), g)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Plan(12345)
	if err != nil {
		t.Fatal(err)
	}
	if len(p) < 8 || len(p) > 16 || p[0].Commit != 12345 {
		t.Errorf("%d commits, the first %d", len(p), p[0].Commit)
	}
	for i, x := range p {
		if x.Bill.WorstBilled > x.Commit || i > 0 && x.Commit <= p[i-1].Commit {
			t.Errorf("%d: %d, billed %d", i, x.Commit, x.Bill.WorstBilled)
		}
		alone, err := c.Simulate(x.Commit)
		if err != nil || alone.Passed != x.Passed || alone.Bill.Billed != x.Bill.Billed {
			t.Errorf("%d alone: %v", x.Commit, err)
		}
	}
	knee := p.Knee()
	if knee < 1 || p[knee].Passed*1000 < p[knee].Offered*999 || p[knee-1].Passed*1000 >= p[knee-1].Offered*999 {
		t.Errorf("the knee is %d", knee)
	}
	for i, j := range p.JSON() {
		if j["knee"] != (i == knee) || j["commit_bps"] != c.Natural.BPS(p[i].Commit) {
			t.Errorf("%d: %v", i, j)
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
		c, err := NewScenario(samplesOf(t, demand(tt.until)), g.At(day(2026, 3, 5)), g)
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Simulate(5e9)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Plan(0)
		if err != nil {
			t.Fatal(err)
		}
		var w bytes.Buffer
		if err := x.Text(&w, tt.style); err != nil {
			t.Fatal(err)
		}
		w.WriteByte('\n')
		if err := p.Text(&w, tt.style); err != nil {
			t.Fatal(err)
		}
		golden(t, tt.name, w.String())
		for line := range strings.SplitSeq(w.String(), "\n") {
			if utf8.RuneCountInString(line) > 80 || strings.HasSuffix(line, " ") {
				t.Errorf("%s: %q", tt.name, line)
			}
		}
		var svg bytes.Buffer
		if err := x.Bill.SVG(&svg); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, svg.Bytes())
		if !strings.Contains(svg.String(), ">simulated<") || strings.Contains(svg.String(), "forecast") {
			t.Error("the picture does not say that it is simulated")
		}
	}
}

// Real demand, if there is some beside the project: a gate passes more than
// without free windows, and no phase is billed more than the commit.
func TestSimulateData(t *testing.T) {
	file, err := os.ReadFile(nettest.Shared(t, "data/eu-isp-2005.csv")[0])
	if err != nil {
		t.Fatal(err)
	}
	s, err := read(string(file), time.UTC, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	g := gates(Separate, 0)
	g.Day = 28
	c, err := NewScenario(s, g.At(day(2005, 7, 1)), g)
	if err != nil {
		t.Fatal(err)
	}
	for _, share := range []int64{50, 75, 90, 100} {
		begin := time.Now()
		x, err := c.Simulate(c.Natural.Billed * share / 100)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%3d%%: %.4f passed, %.4f flat, %d of %d free windows, in %v",
			share, x.PassedShare(), x.FlatShare(), x.Bill.FreeUsed, x.Bill.FreeTotal, time.Since(begin))
		if x.Bill.WorstBilled > x.Commit || worstOf(x, Out) != x.Bill.WorstBilled {
			t.Errorf("%d%%: %d are billed, and %d by hand", share, x.Bill.WorstBilled, worstOf(x, Out))
		}
		if x.Passed <= x.Flat {
			t.Errorf("%d%%: that is too little", share)
		}
	}
}

func BenchmarkSimulateMonth(b *testing.B) {
	s := bursty(rand.New(rand.NewPCG(1, 1)), day(2026, 3, 1), 5*time.Minute, 31*288)
	g := gates(Out, 0)
	g.Day = 1
	c, err := NewScenario(samplesOf(b, s), g.At(s.Start), g)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Simulate(1e6); err != nil {
			b.Fatal(err)
		}
	}
}
