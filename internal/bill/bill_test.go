package bill

import (
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
	"framepipe/internal/metrics"
	"framepipe/internal/metrics/metricstest"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

var months = calendar.Calendar{Day: 1, Zone: time.UTC}

// five returns the terms of most providers, with a commit in bytes of a window.
func five(commit int64) Terms {
	return Terms{Percentile: 95e9, Window: 5 * time.Minute, Commit: commit}
}

// month bills the month in which a series begins.
func month(s *Series, c Terms) *Bill {
	return newBill(s, months.At(s.Start), time.UTC, c, nil)
}

func series(start int64, slot time.Duration, n int, value func(i int) (in, out int64)) *Series {
	s := newSeries(start, slot, int64(n))
	for i := range n {
		s.In[i], s.Out[i] = value(i)
		s.Known[i] = true
	}
	return s
}

// must returns a result that cannot have an error.
func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

// samplesOf returns the known slots of series as samples.
func samplesOf(all ...*Series) *Samples {
	var list []Sample
	for _, s := range all {
		for i, known := range s.Known {
			if known {
				list = append(list, Sample{At: s.at(i), In: s.In[i], Out: s.Out[i]})
			}
		}
	}
	return must(NewSamples(list, all[0].Slot))
}

func day(y int, m time.Month, d int) int64 {
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).UnixNano()
}

func sum(values []int64) (n int64) {
	for _, v := range values {
		n += v
	}
	return n
}

func drawn(t testing.TB, draw func(io.Writer) error) string {
	t.Helper()
	var w strings.Builder
	if err := draw(&w); err != nil {
		t.Fatal(err)
	}
	return w.String()
}

func textOf(t testing.TB, x interface{ Text(io.Writer, Style) error }, s Style) string {
	return drawn(t, func(w io.Writer) error { return x.Text(w, s) })
}

// picture returns an SVG that needs no other file.
func picture(t testing.TB, draw func(io.Writer) error) string {
	t.Helper()
	svg := drawn(t, draw)
	if err := xml.Unmarshal([]byte(svg), &struct{}{}); err != nil {
		t.Fatal(err)
	}
	if bad := regexp.MustCompile(`NaN|Inf|%!|href|url\(`).FindString(svg); bad != "" {
		t.Errorf("the picture has %q", bad)
	}
	return svg
}

// index is the rule in its words: discard the highest, or count from the lowest.
func index(r Rank, p budget.Percentile, n int) int64 {
	floor := func(x *big.Rat) int64 { return new(big.Int).Quo(x.Num(), x.Denom()).Int64() }
	all := big.NewRat(int64(n), 1)
	share := new(big.Rat).Mul(all, big.NewRat(int64(p), 100e9))
	if r == Floor {
		return int64(n) - 1 - floor(all.Sub(all, share))
	}
	return max(floor(share.Add(share, big.NewRat(1, 2))), 1) - 1
}

func percentile(values []int64, p budget.Percentile, r Rank) int64 {
	if len(values) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(values))[index(r, p, len(values))]
}

// The index of any rank is exact.
func TestRank(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := budget.Percentile(rapid.Int64Range(1, int64(budget.Hundred)).Draw(rt, "p"))
		n := rapid.IntRange(1, 1<<40).Draw(rt, "n")
		for _, r := range []Rank{Floor, Nearest} {
			if got, want := r.index(p, n), index(r, p, n); int64(got) != want {
				rt.Fatalf("%v, %v of %d: %d, want %d", r, p, n, got, want)
			}
		}
	})
}

// Ranks of other programs, in their own arithmetic, floating point and all.
func TestOthers(t *testing.T) {
	// LibreNMS/Billing.php, get95thIn: round($measurements / 100 * 95) - 1, from below; PHP
	// rounds a half away from zero.
	libreNMS := func(n int) int { return max(int(math.Round(float64(n)/100*95)), 1) - 1 }
	// vnStat, src/percentile.c: lrint(datainfo.count * (float)0.95) - 1, which rounds a
	// half to even.
	vnStat := func(n int) int { return int(math.RoundToEven(float64(float32(n)*float32(0.95)))) - 1 }
	// Cacti, lib/graph_variables.php, cacti_stats_calc: ceil($elements * 0.05), from above.
	cacti := func(n int) int { return n - 1 - int(math.Ceil(float64(n)*0.05)) }
	one := map[bool]int{true: 1}
	for n := 1; n < 20000; n++ {
		floor, nearest := Floor.index(95e9, n), Nearest.index(95e9, n)
		// Its floating point loses the half of some, and PHP before 8.4 finds it again.
		if d := nearest - libreNMS(n); d != 0 && (d != 1 || n%20 != 10) {
			t.Errorf("%d samples: nearest is %d, LibreNMS's %d", n, nearest, libreNMS(n))
		}
		if nearest-vnStat(n) != one[n%40 == 30] || floor-cacti(n) != one[n%20 != 0] {
			t.Errorf("%d samples: nearest is %d, vnStat's %d; floor %d, Cacti's %d", n, nearest, vnStat(n), floor, cacti(n))
		}
	}
}

// figures are those of a phase of the poller.
type figures struct {
	billed, in, out int64
	samples, used   int
}

// plain bills the windows that begin with every per-th slot, the slow way.
func plain(s *Series, from, to, per int, c Terms, line int64) (f figures) {
	values := map[Method][]int64{}
	for i := from; i < to && i+per <= len(s.In); i += per {
		if i < 0 || c.Missing == Skip && !slices.Contains(s.Known[i:i+per], true) {
			continue
		}
		in, out := sum(s.In[i:i+per]), sum(s.Out[i:i+per])
		for m, v := range map[Method]int64{Max: max(in, out), Sum: in + out, In: in, Out: out} {
			values[m] = append(values[m], v)
		}
		f.samples++
	}
	methods := []Method{c.Method}
	if c.Method == Separate {
		methods = []Method{In, Out}
	}
	for _, m := range methods {
		over := 0
		for _, v := range values[m] {
			if v > line {
				over++
			}
		}
		f.billed, f.used = max(f.billed, percentile(values[m], c.Percentile, c.Rank)), max(f.used, over)
	}
	f.in, f.out = percentile(values[In], c.Percentile, c.Rank), percentile(values[Out], c.Percentile, c.Rank)
	return f
}

// The bill is that of the first phase of the poller, and the worst is that of all phases.
func TestBill(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		per := rapid.SampledFrom([]int{1, 2, 3, 4, 5, 6, 8, 10, 12}).Draw(rt, "slots in a window")
		slot := 5 * time.Minute / time.Duration(per)
		n := rapid.IntRange(1, 40*per).Draw(rt, "slots")
		length := rapid.IntRange(per, 40*per).Draw(rt, "slots of the cycle")
		begin := rapid.IntRange(1-length, n-1).Draw(rt, "before the cycle")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		s := series(0, slot, n, func(int) (int64, int64) { return rng.Int64N(100), rng.Int64N(100) })
		for i := range n {
			if s.Known[i] = rng.IntN(4) > 0; !s.Known[i] {
				s.In[i], s.Out[i] = 0, 0
			}
		}
		c := five(int64(rapid.IntRange(0, 800).Draw(rt, "commit")))
		c.Method, c.Rank, c.Missing = Method(rng.IntN(5)), Rank(rng.IntN(2)), Missing(rng.IntN(2))
		c.Percentile = budget.Percentile(rapid.SampledFrom([]int64{80e9, 95e9, 99.9e9, 100e9, 1.001e9}).Draw(rt, "percentile"))
		cycle := calendar.Cycle{Start: int64(begin) * int64(slot), End: int64(begin+length) * int64(slot)}
		b := newBill(s, cycle, time.UTC, c, nil)
		worst, used, offset := int64(0), 0, time.Duration(0)
		for phase := range per {
			want := plain(s, begin+phase, begin+length, per, c, b.Line())
			if got := (figures{b.Billed, b.In, b.Out, b.Samples, b.FreeUsed}); phase == 0 && got != want {
				rt.Fatalf("%+v, want %+v", got, want)
			}
			if used = max(used, want.used); want.billed > worst {
				worst, offset = want.billed, time.Duration(phase)*slot
			}
		}
		if b.WorstBilled != worst || b.WorstUsed != used || b.WorstOffset != offset {
			rt.Fatalf("worst %d at %v, %d used; want %d at %v, %d", b.WorstBilled, b.WorstOffset, b.WorstUsed, worst, offset, used)
		}
	})
}

// What is repeated week by week is forecast as it will be.
func TestForecast(t *testing.T) {
	start := day(2026, 5, 1)
	weekly := func(i int) (int64, int64) {
		at := time.Unix(0, start+int64(i)*int64(5*time.Minute)).UTC()
		h := int64(at.Weekday())*24 + int64(at.Hour())
		return h * 1000, h*h + int64(at.Minute())
	}
	terms := five(20000)
	terms.Method = Max
	of := func(windows int, value func(i int) (int64, int64)) *Bill {
		return month(series(start, 5*time.Minute, windows, value), terms)
	}
	full, b := of(288*31, weekly), of(288*10+5, weekly)
	f := b.Forecast
	// Of ten days, the first three have made the forecast of a span before.
	if f.Days != 7 || f.Trials < 2 || f.Low > f.Billed || f.High < f.Billed {
		t.Errorf("the basis is %+v", f)
	}
	f.Days, f.Trials, f.Low, f.High = 0, 0, 0, 0
	want := Forecast{Billed: full.Billed, InBytes: full.InBytes, OutBytes: full.OutBytes, FreeUsed: full.FreeUsed}
	if f != want || full.Forecast != want || b.FreeTotal != full.FreeTotal || b.Total != full.Samples {
		t.Errorf("forecast %+v, %d free of %d; it came to %+v, %d, %d", f, b.FreeTotal, b.Total, want, full.FreeTotal, full.Samples)
	}
	if !full.Closed() || b.Closed() || b.FreeUsed >= full.FreeUsed {
		t.Errorf("%d used of %d", b.FreeUsed, full.FreeUsed)
	}
	// Of three weeks, the last of which is not known: of the rest, the day 14 days before counts.
	lost := series(start, 5*time.Minute, 288*21, weekly)
	for i := 288 * 14; i < 288*20; i++ {
		lost.In[i], lost.Out[i], lost.Known[i] = 0, 0, false
	}
	all := series(start, 5*time.Minute, 288*31, weekly)
	if missing := full.InBytes - month(lost, terms).Forecast.InBytes; missing != sum(all.In[288*14:288*20]) {
		t.Errorf("%d bytes are not forecast", missing)
	}
	// Of an hour it is too early to say, and of a day each day is like it.
	for days, hours := range []int{1, 24, 71} {
		b := of(12*hours, func(i int) (int64, int64) { return int64(i), 1 })
		out, billed := int64(full.Samples), int64(273+12*(hours-24)) // 95% of a day is at or under it
		if days == 0 {
			out, billed = 12, b.Billed
		}
		if f := b.Forecast; f.Days != hours/24 || f.OutBytes != out || days < 2 && f.Billed != billed {
			t.Errorf("%d hours: %+v; want %d", hours, f, billed)
		}
	}
	// Of seconds, half a window of which is known.
	fine := month(series(start, 5*time.Second, 60*288*8+30, func(int) (int64, int64) { return 3, 5 }), terms)
	if fine.Forecast.OutBytes != 5*60*int64(full.Samples) || fine.Phases != 60 {
		t.Errorf("%+v; want %d", fine.Forecast, 5*60*full.Samples)
	}
}

func TestTransfer(t *testing.T) {
	const n = 288 * 10
	start := day(2026, 4, 1)
	s := series(start, 5*time.Minute, n, func(i int) (int64, int64) {
		return 10, map[bool]int64{false: 100, true: 300}[i >= n-288] // today is busier
	})
	used := int64(9*288*100 + 288*300)
	near := func(at int64, days float64) bool { // 0 if it lasts
		return days == 0 && at == 0 || math.Abs(float64(at-start)-days*24*float64(time.Hour)) < 1e9
	}
	for _, tt := range []struct {
		cap         int64
		today, mean float64 // days from the start; 0: lasts
	}{
		{used + 288*300, 11, 10 + 288*300/(float64(used)/10)},
		{used + 288*300*19, 29, 0},
		{used + 288*300*21, 0, 0},
		{288 * 100 * 5, 5 + 1./288, 5 + 1./288}, // it was reached long ago
		{used, 10, 10},
	} {
		x := month(s, Terms{Percentile: 95e9, Window: 5 * time.Minute, Method: Out, Cap: tt.cap}).Transfer
		if x.Used != used || x.Left != tt.cap-used || !near(x.TodayOut, tt.today) || !near(x.MeanOut, tt.mean) {
			t.Errorf("cap %d: %+v, want %v and %v days", tt.cap, x, tt.today, tt.mean)
		}
	}
	for m, want := range map[Method]int64{Sum: used + 10*n, In: 10 * n, Separate: used, Max: used} {
		x := month(s, Terms{Percentile: 95e9, Window: 5 * time.Minute, Method: m, Cap: 1e9}).Transfer
		if x.Used != want {
			t.Errorf("%v: %d, want %d", m, x.Used, want)
		}
	}
}

// The slots are those of the cycle, though the forecast looks at others; and of a window
// far over the line the text says that it is off the plot.
func TestSlotsOfCycle(t *testing.T) {
	s := samplesOf(series(day(2026, 3, 30), 5*time.Minute, 4*288, func(i int) (int64, int64) {
		return 0, 10 + int64(i/(4*288-1))*1000
	}))
	for i, cycle := range s.Cycles(months) {
		b := must(New(s, cycle, time.UTC, five(0)))
		slots, text := drawn(t, b.Slots), textOf(t, b, Style{})
		if lines := strings.Split(slots, "\n"); len(lines) != 2+2*288 || strings.Count(slots, "\n"+cycle.Name) != 2*288 ||
			lines[0] != "time,in,out,offered_in,offered_out" || !strings.HasSuffix(lines[2], "T00:05:00Z,0,10,0,10") {
			t.Errorf("%s: %d lines: %s", cycle.Name, len(lines), lines[2])
		}
		if off := strings.Contains(text, ", off the plot"); off != (i == 1) {
			t.Errorf("%s:\n%s", cycle.Name, text)
		}
		if b.JSON()[0]["commit_bps"] != nil || b.JSON()[0]["transfer"] != nil {
			t.Errorf("%v", b.JSON())
		}
	}
	for _, c := range []calendar.Cycle{{Start: day(2026, 4, 3), End: day(2026, 5, 1)}, {Start: day(2026, 3, 1), End: day(2026, 3, 30)}} {
		if _, err := New(s, c, time.UTC, five(0)); err == nil {
			t.Errorf("a bill of %v, without samples", c)
		}
	}
}

// A window counts in the bar in which it begins, and in those that it covers as a whole.
func TestBars(t *testing.T) {
	cycle := calendar.Cycle{Start: day(2026, 3, 1), End: day(2026, 3, 2)}
	for window, want := range map[time.Duration]string{
		time.Hour:     "[1 4 7 10 13 16 19 22] [2 5 8 11 14 17 20 23]",
		6 * time.Hour: "[0 0 1 1 2 2 3 3] [0 0 1 1 2 2 3 3]",
	} {
		s := series(cycle.Start, window, int(24*time.Hour/window), func(i int) (int64, int64) { return 0, int64(i) })
		b := newBill(s, cycle, time.UTC, Terms{Percentile: 95e9, Window: window}, nil)
		mean, most := b.bars(8, Out, 1)
		if got := fmt.Sprint(mean, most); got != want {
			t.Errorf("windows of %v: %s, want %s", window, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	s := series(0, time.Minute, 10, func(int) (int64, int64) { return 1, 1 })
	for want, tt := range map[string]Terms{
		"too coarse":        {Percentile: 1, Window: time.Second},
		"not a multiple of": {Percentile: 1, Window: 90 * time.Second},
	} {
		_, err := New(samplesOf(s), months.At(0), time.UTC, tt)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(cli.HintOf(err), "with -window") {
			t.Errorf("%v: %v", want, err)
		}
	}
	// Samples that are next to no time apart would be billed for as many phases, and as many slots of the cycle.
	fine := samplesOf(series(0, 1, 2, func(int) (int64, int64) { return 1, 0 }))
	for _, window := range []time.Duration{1, 5 * time.Minute} {
		_, err := New(fine, months.At(0), time.UTC, Terms{Percentile: 95e9, Window: window})
		if err == nil || !strings.Contains(err.Error(), "samples every 1ns are more than") {
			t.Errorf("windows of %v: %v", window, err)
		}
	}
	for _, rate := range []int64{5e14, 1 << 60} {
		if n, err := Bytes(rate, 24*time.Hour); err == nil || err.Error() != "more than 4611686018427387904 bytes in a window of 1d" {
			t.Errorf("%d bit/s for a day are %d bytes", rate, n)
		}
	}
}

// demand is a month of a link: days, a weekend, noise and a few bursts.
func demand(until int) *Series {
	rng := rand.New(rand.NewPCG(3, 4))
	return series(day(2026, 3, 1), 5*time.Minute, until, func(i int) (int64, int64) {
		hour := float64(i) / 12
		v := 3e9 + 2e9*math.Sin(2*math.Pi*(hour-9)/24)
		if d := i / 288 % 7; d == 0 || d == 6 {
			v *= 0.5
		}
		if i%2000 > 1940 {
			v *= 2.2
		}
		v *= 0.9 + 0.2*rng.Float64()
		return int64(v / 8), int64(v)
	})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = "testdata/" + name + ".golden"
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(must(os.ReadFile(name))); got != want {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

func TestText(t *testing.T) {
	transfer := Terms{Percentile: 95e9, Window: 5 * time.Minute, Method: Sum, Cap: 25e12}
	for _, tt := range []struct {
		name  string
		style Style
		until int
		terms Terms
	}{
		{"text", Style{}, 6500, five(6e9)},
		{"ascii", Style{ASCII: true}, 6500, five(6e9)},
		{"colour", Style{Colour: true, Width: 100}, 6500, five(6e9)},
		{"closed", Style{Width: 60}, 8928, five(0)},
		{"transfer", Style{}, 6500, transfer},
	} {
		golden(t, tt.name, textOf(t, month(demand(tt.until), tt.terms), tt.style))
	}
}

// Pictures and texts of any demand are complete.
func TestSVG(t *testing.T) {
	flat := func(in int64) *Series {
		return series(day(2026, 3, 1), 5*time.Minute, 300, func(int) (int64, int64) { return in, 0 })
	}
	for name, tt := range map[string]struct {
		s *Series
		c Terms
	}{
		"month": {demand(6500), five(6e9)},
		"one":   {demand(1), five(0)},
		"hours": {demand(6500), Terms{Percentile: 100e9, Window: time.Hour}},
		"idle":  {flat(0), Terms{Percentile: 50e9, Window: 5 * time.Minute, Missing: Skip}},
		"huge":  {flat(1 << 52), Terms{Percentile: 50e9, Window: 5 * time.Minute, Commit: 1}},
	} {
		b := month(tt.s, tt.c)
		b.Zone = time.FixedZone(`<"&'>`, 3600)
		svg := picture(t, b.SVG)
		if !strings.Contains(svg, "prefers-color-scheme: dark") || !strings.Contains(svg, "&lt;&#34;&amp;") {
			t.Errorf("%s: not dark, or not escaped", name)
		}
		if text := textOf(t, b, Style{Width: 1}); strings.Contains(text, "NaN") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestWrite(t *testing.T) {
	terms := five(6e9)
	terms.Cap, terms.Prices = 1e14, Prices{Commit: 1e6, Currency: "EUR"}
	b := month(demand(6500), terms)
	gauges := drawn(t, func(w io.Writer) error {
		return b.Prometheus(w, metrics.Label{Name: "ledger", Value: `/a "b"`})
	})
	metricstest.Check(t, gauges, "quotabill_", `ledger="/a \"b\""`)
	j := b.JSON()[0]
	if _, err := json.Marshal(j); err != nil || j["transfer"] == nil || j["free_left"] != b.FreeTotal-b.FreeUsed ||
		j["forecast_bps"] != b.BPS(b.Forecast.Billed) || j["forecast_low_bps"] != b.BPS(b.Forecast.Low) {
		t.Errorf("%v, %v", j, err)
	}
}

// The slots of a span are those that begin in it, from the first sample to the last. Only cycles in which samples begin
// are listed, in order.
func TestSamples(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var list []Sample
		bytes, starts := map[int64]int64{}, []int64(nil)
		at := rapid.Int64Range(0, 200).Draw(rt, "start")
		for i := range rapid.Int64Range(1, 60).Draw(rt, "samples") {
			list = append(list, Sample{At: at, In: i})
			bytes[at] = i
			starts = append(starts, at/100*100)
			at += 7 * rapid.Int64Range(1, 50).Draw(rt, "gap")
		}
		s := must(NewSamples(list, 7))
		from, to := rapid.Int64Range(-200, 5000).Draw(rt, "from"), rapid.Int64Range(-200, 5000).Draw(rt, "to")
		part := must(s.series(from, to))
		k := 0
		for at := list[0].At; at <= list[len(list)-1].At; at += 7 {
			if at < from || at >= to {
				continue
			}
			in, known := bytes[at]
			if k >= len(part.In) || part.at(k) != at || part.Known[k] != known || part.In[k] != in {
				rt.Fatalf("%+v, slot %d", part, at)
			}
			k++
		}
		if k != len(part.In) {
			rt.Fatalf("%d slots, want %d", len(part.In), k)
		}
		var got []int64
		for _, c := range s.Cycles(calendar.Calendar{Length: 100}) {
			got = append(got, c.Start)
		}
		if want := slices.Compact(starts); !slices.Equal(got, want) {
			rt.Fatalf("cycles %v, want %v", got, want)
		}
	})
}

func TestNewSamples(t *testing.T) {
	for _, tt := range []struct {
		list []Sample
		want string
	}{
		{nil, "there are no samples"},
		{[]Sample{{At: 7}, {At: 0}, {At: 7}}, "two samples begin at 1970-01-01 00:00:00"},
		{[]Sample{{At: 7}, {At: 0}, {At: 15}}, "the sample at 1970-01-01 00:00:00 is not on the grid"},
		{[]Sample{{At: 7, In: 1 << 61}, {At: 0, In: 1 << 61}, {At: 14, Out: 1}}, "the samples have more than 4 EiB, the most bytes that can be counted"},
	} {
		if _, err := NewSamples(tt.list, 7); err == nil || err.Error() != tt.want {
			t.Errorf("%v: %v, want %s", tt.list, err, tt.want)
		}
	}
}
