package bill

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/metrics"
	"framepipe/internal/metrics/metricstest"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// percentile is the rule in its words: sort, throw away, take.
func percentile(values []int64, p string, r Rank) int64 {
	if len(values) == 0 {
		return 0
	}
	v := append([]int64(nil), values...)
	slices.Sort(v)
	slices.Reverse(v) // the highest first
	share, _ := new(big.Rat).SetString(p)
	n := big.NewRat(int64(len(v)), 1)
	if r == Floor {
		away := new(big.Rat).Sub(big.NewRat(100, 1), share)
		away.Mul(away, n).Quo(away, big.NewRat(100, 1))
		return v[new(big.Int).Quo(away.Num(), away.Denom()).Int64()]
	}
	rank := share.Mul(share, n)
	rank.Quo(rank, big.NewRat(100, 1)).Add(rank, big.NewRat(1, 2))
	at := max(new(big.Int).Quo(rank.Num(), rank.Denom()).Int64(), 1) // from below, the first is 1
	return v[int64(len(v))-at]
}

// plain bills a file the slow, obvious way: a map from minute to bytes, and a walk
// over the times of the cycle.
func plain(at map[int64][3]int64, first, last, start, end, window int64, m Method, p string, r Rank, rule Missing) (billed, in, out int64, n int) {
	var ins, outs, maxes, sums []int64
	for t := first; t <= last; t += window {
		x, ok := at[t]
		if t < start || t >= end || !ok && rule == Skip {
			continue
		}
		ins, outs = append(ins, x[1]), append(outs, x[2])
		maxes, sums = append(maxes, max(x[1], x[2])), append(sums, x[1]+x[2])
	}
	in, out = percentile(ins, p, r), percentile(outs, p, r)
	switch m {
	case Separate:
		billed = max(in, out)
	case In:
		billed = in
	case Out:
		billed = out
	case Max:
		billed = percentile(maxes, p, r)
	case Sum:
		billed = percentile(sums, p, r)
	}
	return billed, in, out, len(ins)
}

const minutes = int64(time.Minute)

func csvOf(list [][3]int64) string {
	var b strings.Builder
	b.WriteString("time,in,out\n")
	for _, x := range list {
		fmt.Fprintf(&b, "%s,%d,%d\n", time.Unix(0, x[0]).UTC().Format(time.DateTime), x[1], x[2])
	}
	return b.String()
}

func p(t testing.TB, s string) budget.Percentile {
	t.Helper()
	var x budget.Percentile
	if err := x.Set(s); err != nil {
		t.Fatal(err)
	}
	return x
}

// plainData returns samples, sorted by time: each its time, and the bytes in and out.
func plainData(t *testing.T) map[string][][3]int64 {
	t.Helper()
	start := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	rng := rand.New(rand.NewPCG(1, 2))
	generated := func(n int, value func(i int) (int64, int64), missing float64) (list [][3]int64) {
		for i := range n {
			if i > 0 && i < n-1 && rng.Float64() < missing {
				continue
			}
			in, out := value(i)
			list = append(list, [3]int64{start + int64(i)*5*minutes, in, out})
		}
		return list
	}
	noise := func(int) (int64, int64) { return rng.Int64N(1e12), rng.Int64N(1e12) }
	data := map[string][][3]int64{
		"all equal": generated(100, func(int) (int64, int64) { return 7, 7 }, 0),
		"idle":      generated(50, func(int) (int64, int64) { return 0, 0 }, 0.2),
		"two months": generated(13001, func(i int) (int64, int64) {
			return int64(1e9 * (1 + math.Sin(float64(i)/46))), rng.Int64N(2e9)
		}, 0.03),
	}
	for _, n := range []int{1, 2, 3, 7, 19, 20, 21, 30, 39, 40, 41, 50, 99, 100, 101, 8640, 8928, 8927} {
		data[fmt.Sprintf("%d", n)] = generated(n, noise, 0)
		data[fmt.Sprintf("%d with gaps", n)] = generated(n, noise, 0.1)
	}
	for _, name := range []string{"eu-isp-2005", "ec2-257a54"} {
		b, err := os.ReadFile("../../../shared/data/" + name + ".csv")
		if err != nil {
			t.Logf("%s is not there", name)
			continue
		}
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
			f := strings.Split(line, ",")
			at, err := time.Parse(time.DateTime, f[0])
			if err != nil {
				t.Fatal(err)
			}
			var x [2]int64
			for i := range x {
				if _, err := fmt.Sscan(f[i+1], &x[i]); err != nil {
					t.Fatal(err)
				}
			}
			data[name] = append(data[name], [3]int64{at.UnixNano(), x[0], x[1]})
		}
	}
	return data
}

// The bill equals the plain one for all methods, ranks, percentiles and missing rules.
func TestPlain(t *testing.T) {
	for name, list := range plainData(t) {
		if testing.Short() && len(list) > 1000 && name != "8928 with gaps" {
			continue
		}
		s, err := read(csvOf(list), time.UTC, 5*time.Minute)
		if err != nil {
			t.Fatal(name, err)
		}
		at := map[int64][3]int64{}
		first, last := int64(math.MaxInt64), int64(math.MinInt64)
		for _, x := range list {
			at[x[0]] = x
			first, last = min(first, x[0]), max(last, x[0])
		}
		for _, cycle := range s.Cycles(calendar.Calendar{Day: 1, Zone: time.UTC}) {
			for k, share := range []string{"95", "90", "99.9", "97.5", "100", "1.001"} {
				if k > 1 && len(list) > 1000 || k > 0 && len(list) > 1000 && testing.Short() { // sorting them takes its time
					break
				}
				for i := range 5 * 2 * 2 {
					m, r, rule := Method(i%5), Rank(i/5%2), Missing(i/10)
					terms := Terms{Method: m, Percentile: p(t, share), Rank: r, Missing: rule, Window: 5 * time.Minute}
					b, err := New(s, cycle, time.UTC, terms)
					if err != nil {
						t.Fatal(name, err)
					}
					billed, in, out, n := plain(at, first, last, cycle.Start, cycle.End, 5*minutes, m, share, r, rule)
					if b.Billed != billed || b.In != in || b.Out != out || b.Samples != n || b.WorstBilled != billed {
						t.Fatalf("%s %s: %v %s %v %v: %d (in %d, out %d, of %d samples), want %d (%d, %d, %d)",
							name, cycle.Name, m, share, r, rule, b.Billed, b.In, b.Out, b.Samples, billed, in, out, n)
					}
				}
			}
		}
	}
}

// What others compute, in their own arithmetic, floating point and all.
func TestOthers(t *testing.T) {
	// LibreNMS/Billing.php, get95thIn: round($measurements / 100 * 95) - 1, from below; PHP
	// rounds a half away from zero.
	libreNMS := func(n int) int { return max(int(math.Round(float64(n)/100*95)), 1) - 1 }
	// vnStat, src/percentile.c: lrint(datainfo.count * (float)0.95) - 1, which rounds a
	// half to even.
	vnStat := func(n int) int { return int(math.RoundToEven(float64(float32(n)*float32(0.95)))) - 1 }
	// Cacti, lib/graph_variables.php, cacti_stats_calc: ceil($elements * 0.05), from above.
	cacti := func(n int) int { return n - 1 - int(math.Ceil(float64(n)*0.05)) }
	p95 := p(t, "95")
	for n := 1; n < 20000; n++ {
		floor, nearest := Floor.index(p95, n), Nearest.index(p95, n)
		// Its floating point loses the half of some, and PHP before 8.4 finds it again.
		if d := nearest - libreNMS(n); d != 0 && (d != 1 || n%20 != 10) {
			t.Errorf("%d samples: nearest is %d, LibreNMS's %d", n, nearest, libreNMS(n))
		}
		want := vnStat(n)
		if n%40 == 30 {
			want++
		}
		if nearest != want {
			t.Errorf("%d samples: nearest is %d, vnStat's %d", n, nearest, vnStat(n))
		}
		want = cacti(n)
		if n%20 != 0 {
			want++
		}
		if floor != want {
			t.Errorf("%d samples: floor is %d, Cacti's %d", n, floor, cacti(n))
		}
	}
	// The months: 28, 29, 30 and 31 days of five minutes.
	for n, want := range map[int][2]int{8064: {403, 403}, 8352: {417, 418}, 8640: {432, 432}, 8928: {446, 446}} {
		away := [2]int{n - 1 - Floor.index(p95, n), n - 1 - Nearest.index(p95, n)}
		if away != want || p95.Free(n) != want[0] {
			t.Errorf("%d samples: %v are thrown away, want %v", n, away, want)
		}
	}
	// Cacti's for other percentiles: 1 - 98/100 is more than 0.02.
	n, share := 100.0, 98.0
	if got := int(math.Ceil(n * (1 - share/100))); got != 3 || p(t, "98").Free(100) != 2 {
		t.Errorf("Cacti throws away %d", got)
	}
}

// Nearest never bills more than Floor, and at most one sample less.
func TestRank(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := budget.Percentile(rapid.Int64Range(1, int64(budget.Hundred)).Draw(rt, "p"))
		n := rapid.IntRange(1, 1<<40).Draw(rt, "n")
		for _, r := range []Rank{Floor, Nearest} {
			if i := r.index(x, n); i < 0 || i >= n {
				rt.Fatalf("%v of %d: %d", x, n, i)
			}
		}
		if d := Floor.index(x, n) - Nearest.index(x, n); d < 0 || d > 1 {
			rt.Fatalf("%v of %d: they differ by %d", x, n, d)
		}
	})
}

func series(start int64, slot time.Duration, n int, value func(i int) (in, out int64)) *Series {
	s := &Series{Start: start, Slot: slot, In: make([]int64, n), Out: make([]int64, n), Known: make([]bool, n)}
	for i := range n {
		s.In[i], s.Out[i] = value(i)
		s.Known[i] = true
	}
	return s
}

// samplesOf returns the known slots of series as samples.
func samplesOf(t rapid.TB, all ...*Series) *Samples {
	t.Helper()
	var list []Sample
	for _, s := range all {
		for i, known := range s.Known {
			if known {
				list = append(list, Sample{At: s.at(i), In: s.In[i], Out: s.Out[i]})
			}
		}
	}
	s, err := NewSamples(list, all[0].Slot)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every phase is the bill of the plain sums of windows that begin so.
func TestPhases(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		per := rapid.IntRange(1, 12).Draw(rt, "slots in a window")
		slot := 5 * time.Minute / time.Duration(per)
		if slot*time.Duration(per) != 5*time.Minute {
			return
		}
		n := rapid.IntRange(1, 40*per).Draw(rt, "slots")
		begin := rapid.IntRange(0, 10*per).Draw(rt, "before the cycle")
		length := rapid.IntRange(per, 40*per).Draw(rt, "slots of the cycle")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		s := series(0, slot, n, func(int) (int64, int64) { return rng.Int64N(100), rng.Int64N(100) })
		for i := range n {
			if s.Known[i] = rng.IntN(4) > 0; !s.Known[i] {
				s.In[i], s.Out[i] = 0, 0
			}
		}
		c := Terms{
			Method: Method(rng.IntN(5)), Percentile: 80e9, Rank: Rank(rng.IntN(2)), Missing: Missing(rng.IntN(2)), Window: 5 * time.Minute,
			Commit: int64(rapid.IntRange(0, 800).Draw(rt, "commit")),
		}
		cycle := calendar.Cycle{Start: int64(begin) * int64(slot), End: int64(begin+length) * int64(slot)}
		b, err := fromSeries(s, cycle, time.UTC, c)
		if err != nil {
			rt.Fatal(err)
		}
		worst, used, offset := int64(0), 0, time.Duration(0)
		for phase := range per {
			var ins, outs, ones []int64
			for i := begin + phase; i < begin+length; i += per {
				var in, out int64
				known := false
				if i+per > n {
					break
				}
				for j := i; j < i+per; j++ {
					in, out, known = in+s.In[j], out+s.Out[j], known || s.Known[j]
				}
				if !known && c.Missing == Skip {
					continue
				}
				ins, outs, ones = append(ins, in), append(outs, out), append(ones, c.Method.Value(in, out))
			}
			over := func(all []int64, line int64) (k int) {
				for _, v := range all {
					if v > line {
						k++
					}
				}
				return k
			}
			billed := percentile(ones, "80", c.Rank)
			if c.Method == Separate {
				billed = max(percentile(ins, "80", c.Rank), percentile(outs, "80", c.Rank))
			}
			k := over(ones, b.Line())
			if c.Method == Separate {
				k = max(over(ins, b.Line()), over(outs, b.Line()))
			}
			if phase == 0 && (b.Billed != billed || b.Samples != len(ins) || b.FreeUsed != k) {
				rt.Fatalf("billed %d of %d, %d used; want %d of %d, %d", b.Billed, b.Samples, b.FreeUsed, billed, len(ins), k)
			}
			if used = max(used, k); billed > worst {
				worst, offset = billed, time.Duration(phase)*slot
			}
		}
		if b.WorstBilled != worst || b.WorstUsed != used || b.WorstOffset != offset {
			rt.Fatalf("worst %d at %v, %d used; want %d at %v, %d", b.WorstBilled, b.WorstOffset, b.WorstUsed, worst, offset, used)
		}
		// With the commit's free windows used up by no phase, none is billed over it.
		if c.Commit > 0 && c.Rank == Floor && b.Closed() && b.FreeUsed <= c.Percentile.Free(b.Samples) && b.Billed > c.Commit {
			rt.Fatalf("billed %d over the commit of %d, with %d free windows used of %d", b.Billed, c.Commit, b.FreeUsed, b.FreeTotal)
		}
	})
}

func day(y int, m time.Month, d int) int64 {
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).UnixNano()
}

// What is repeated week by week is forecast as it will be.
func TestForecast(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, berlin).UnixNano()
	cycle := calendar.Calendar{Day: 1, Zone: berlin}.At(start)
	weekly := func(i int) (int64, int64) {
		at := time.Unix(0, start+int64(i)*5*minutes).In(berlin)
		h := int64(at.Weekday())*24 + int64(at.Hour())
		return h * 1000, h*h + int64(at.Minute())
	}
	all := series(start, 5*time.Minute, int((cycle.End-start)/(5*minutes)), weekly)
	terms := Terms{Percentile: 95e9, Window: 5 * time.Minute, Commit: 20000, Method: Max}
	full, err := fromSeries(all, cycle, berlin, terms)
	if err != nil || !full.Closed() {
		t.Fatal(err)
	}
	part := series(start, 5*time.Minute, 12*24*10+5, weekly)
	b, err := fromSeries(part, cycle, berlin, terms)
	if err != nil {
		t.Fatal(err)
	}
	want := Forecast{Billed: full.Billed, InBytes: full.InBytes, OutBytes: full.OutBytes, FreeUsed: full.FreeUsed}
	// Of ten days, the first three have made the forecast of a span before.
	if b.Forecast.Days != 7 || b.Forecast.Trials < 2 || b.Forecast.Low > b.Forecast.Billed || b.Forecast.High < b.Forecast.Billed {
		t.Errorf("the basis is %+v", b.Forecast)
	}
	b.Forecast.Days, b.Forecast.Trials, b.Forecast.Low, b.Forecast.High = 0, 0, 0, 0
	if b.Forecast != want || full.Forecast != want || b.FreeTotal != full.FreeTotal || b.Total != full.Samples {
		t.Errorf("forecast %+v, %d free of %d; it came to %+v, %d, %d", b.Forecast, b.FreeTotal, b.Total, want, full.FreeTotal, full.Samples)
	}
	if b.Closed() || b.FreeUsed >= full.FreeUsed {
		t.Errorf("%d used of %d", b.FreeUsed, full.FreeUsed)
	}
	// Of three weeks, the last of which is not known: of the rest, the day 14 days before counts.
	lost := series(start, 5*time.Minute, 12*24*21, weekly)
	for i := 12 * 24 * 14; i < len(lost.In)-12*24; i++ {
		lost.In[i], lost.Out[i], lost.Known[i] = 0, 0, false
	}
	b, err = fromSeries(lost, cycle, berlin, terms)
	if missing := full.InBytes - b.Forecast.InBytes; err != nil || missing != sum(all.In[12*24*14:12*24*20]) {
		t.Errorf("%d bytes are not forecast, %v", missing, err)
	}
	// Of an hour it is too early to say, and of a day each day is like it.
	for days, hours := range []int{1, 24, 71} {
		b, err = fromSeries(series(start, 5*time.Minute, 12*hours, func(i int) (int64, int64) { return int64(i), 1 }), cycle, berlin, terms)
		out, billed := int64(full.Samples), int64(273+12*(hours-24)) // 95% of a day is at or under it
		if days == 0 {
			out, billed = 12, b.Billed
		}
		if f := b.Forecast; err != nil || f.Days != hours/24 || f.OutBytes != out || days < 2 && f.Billed != billed {
			t.Errorf("%d hours: %+v, %v; want %d", hours, f, err, billed)
		}
	}
	// Of seconds, half a window of which is known.
	fine := series(start, 5*time.Second, 60*12*24*8+30, func(int) (int64, int64) { return 3, 5 })
	b, err = fromSeries(fine, cycle, berlin, terms)
	if err != nil || b.Forecast.OutBytes != 5*60*int64(full.Samples) || b.Phases != 60 {
		t.Errorf("%+v, %v; want %d", b.Forecast, err, 5*60*full.Samples)
	}
}

func TestTransfer(t *testing.T) {
	start := day(2026, 4, 1)
	cycle := calendar.Calendar{Day: 1, Zone: time.UTC}.At(start)
	const n = 288 * 10
	value := func(i int) (int64, int64) {
		if i >= n-288 { // today is busier
			return 10, 300
		}
		return 10, 100
	}
	s := series(start, 5*time.Minute, n, value)
	used := int64(9*288*100 + 288*300)
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
		b, err := fromSeries(s, cycle, time.UTC, Terms{Percentile: 95e9, Window: 5 * time.Minute, Method: Out, Cap: tt.cap})
		if err != nil {
			t.Fatal(err)
		}
		x := b.Transfer
		when := func(days float64) int64 {
			if days == 0 {
				return 0
			}
			return start + int64(days*24*float64(time.Hour))
		}
		near := func(a, b int64) bool { return max(a-b, b-a) < int64(time.Second) }
		if x.Used != used || x.Left != tt.cap-used || !near(x.TodayOut, when(tt.today)) || !near(x.MeanOut, when(tt.mean)) {
			t.Errorf("cap %d: %+v, want %v and %v days: %v, %v", tt.cap, x, tt.today, tt.mean, time.Unix(0, x.TodayOut).UTC(), time.Unix(0, x.MeanOut).UTC())
		}
	}
	for m, want := range map[Method]int64{Sum: used + 10*n, In: 10 * n, Separate: used, Max: used} {
		b, err := fromSeries(s, cycle, time.UTC, Terms{Percentile: 95e9, Window: 5 * time.Minute, Method: m, Cap: 1e9})
		if err != nil || b.Transfer.Used != want {
			t.Errorf("%v: %d, want %d, %v", m, b.Transfer.Used, want, err)
		}
	}
}

// The slots are those of the cycle, though the forecast looks at others; and of a window
// far over the line the text says that it is off the plot.
func TestSlotsOfCycle(t *testing.T) {
	s := samplesOf(t, series(day(2026, 3, 30), 5*time.Minute, 4*288, func(i int) (int64, int64) {
		return 0, 10 + int64(i/(4*288-1))*1000
	}))
	for _, name := range []string{"2026-03", "2026-04"} {
		months := calendar.Calendar{Day: 1, Zone: time.UTC}
		cycle, err := months.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(s, cycle, time.UTC, Terms{Percentile: 95e9, Window: 5 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		var slots, text bytes.Buffer
		if err := errors.Join(b.Slots(&slots), b.Text(&text, Style{})); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(slots.String(), "\n"); lines != 1+2*288 || strings.Count(slots.String(), "\n"+name) != 2*288 {
			t.Errorf("%s: %d lines", name, lines)
		}
		if off := strings.Contains(text.String(), ", off the plot"); off != (name == "2026-04") {
			t.Errorf("%s:\n%s", name, text.String())
		}
		if b.JSON()[0]["commit_bps"] != nil || b.JSON()[0]["transfer"] != nil {
			t.Errorf("%v", b.JSON())
		}
	}
	for _, c := range []calendar.Cycle{{Start: day(2026, 4, 3), End: day(2026, 5, 1)}, {Start: day(2026, 3, 1), End: day(2026, 3, 30)}} {
		if _, err := New(s, c, time.UTC, Terms{Percentile: 95e9, Window: 5 * time.Minute}); err == nil {
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
		b, err := fromSeries(s, cycle, time.UTC, Terms{Percentile: 95e9, Window: window})
		if err != nil {
			t.Fatal(err)
		}
		mean, most := b.bars(8, Out, 1)
		if got := fmt.Sprint(mean, most); got != want {
			t.Errorf("windows of %v: %s, want %s", window, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	s := series(0, time.Minute, 10, func(int) (int64, int64) { return 1, 1 })
	month := calendar.Cycle{Start: 0, End: int64(24 * time.Hour)}
	for want, tt := range map[string]Terms{
		"too coarse":         {Percentile: 1, Window: time.Second},
		"not a multiple of":  {Percentile: 1, Window: 90 * time.Second},
		"invalid percentile": {Percentile: 0, Window: time.Minute},
	} {
		if _, err := fromSeries(s, month, time.UTC, tt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", want, err)
		}
	}
	// Before and after all that is known, there is nothing, and no trap.
	for _, at := range []int64{-int64(1000 * time.Hour), int64(1000 * time.Hour)} {
		b, err := fromSeries(s, calendar.Cycle{Start: at, End: at + int64(24*time.Hour)}, time.UTC, Terms{Percentile: 95e9, Window: 5 * time.Minute, Commit: 3, Cap: 10})
		if err != nil || b.Samples != 0 || b.Billed != 0 || b.InBytes != 0 {
			t.Errorf("at %d: %+v, %v", at, b, err)
		}
		for _, draw := range []func() error{func() error { return b.Text(io.Discard, Style{}) }, func() error { return b.SVG(io.Discard) }} {
			if err := draw(); err != nil {
				t.Error(err)
			}
		}
	}
	if n, err := Bytes(100e6, 5*time.Minute); n != 3750000000 || err != nil {
		t.Error(n, err)
	}
	if n, err := Bytes(7, time.Second); n != 0 || err != nil {
		t.Error(n, err)
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
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || got != string(want) {
		t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, want)
	}
}

func TestText(t *testing.T) {
	cycle := calendar.Calendar{Day: 1, Zone: time.UTC}.At(day(2026, 3, 1))
	terms := Terms{Percentile: 95e9, Window: 5 * time.Minute, Commit: 6e9}
	for _, tt := range []struct {
		name  string
		style Style
		until int
		terms Terms
	}{
		{"text", Style{}, 6500, terms},
		{"ascii", Style{ASCII: true}, 6500, terms},
		{"colour", Style{Colour: true, Width: 100}, 6500, terms},
		{"closed", Style{Width: 60}, 8928, Terms{Percentile: 95e9, Window: 5 * time.Minute}},
		{"transfer", Style{}, 6500, Terms{Percentile: 95e9, Window: 5 * time.Minute, Method: Sum, Cap: 25e12}},
	} {
		b, err := fromSeries(demand(tt.until), cycle, time.UTC, tt.terms)
		if err != nil {
			t.Fatal(err)
		}
		var w bytes.Buffer
		if err := b.Text(&w, tt.style); err != nil {
			t.Fatal(err)
		}
		golden(t, tt.name, w.String())
		width := max(tt.style.Width, 80)
		for line := range strings.SplitSeq(w.String(), "\n") {
			if !tt.style.Colour && utf8.RuneCountInString(line) > width {
				t.Errorf("%s: %q is wider than %d", tt.name, line, width)
			}
			if strings.HasSuffix(line, " ") {
				t.Errorf("%s: %q ends in a space", tt.name, line)
			}
		}
		if tt.style.ASCII && strings.ContainsFunc(w.String(), func(r rune) bool { return r > 126 }) {
			t.Error("not ASCII")
		}
		if !tt.style.Colour && strings.Contains(w.String(), "\x1b") {
			t.Errorf("%s: escape sequences", tt.name)
		}
	}
}

// wellFormed wants XML that draws nothing outside of numbers.
func wellFormed(t testing.TB, svg []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	d.Strict = true
	depth := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			depth++
			for _, a := range x.Attr {
				if strings.Contains(a.Value, "://") && a.Name.Local != "xmlns" || a.Name.Local == "href" {
					t.Errorf("%s %v is not in the file", x.Name.Local, a)
				}
			}
		case xml.EndElement:
			depth--
		}
	}
	if depth != 0 || bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) || bytes.Contains(svg, []byte("%!")) {
		t.Errorf("depth %d\n%.2000s", depth, svg)
	}
}

func TestSVG(t *testing.T) {
	zone := time.FixedZone(`<"&'>`, 3600) // whatever it is called
	for name, tt := range map[string]struct {
		s *Series
		c Terms
	}{
		"month": {demand(6500), Terms{Percentile: 95e9, Window: 5 * time.Minute, Commit: 6e9}},
		"one":   {demand(1), Terms{Percentile: 95e9, Window: 5 * time.Minute}},
		"hours": {demand(6500), Terms{Percentile: 100e9, Window: time.Hour}},
		"idle":  {series(day(2026, 3, 1), 5*time.Minute, 300, func(int) (int64, int64) { return 0, 0 }), Terms{Percentile: 50e9, Window: 5 * time.Minute, Missing: Skip}},
		"huge":  {series(day(2026, 3, 1), 5*time.Minute, 300, func(int) (int64, int64) { return 1 << 52, 0 }), Terms{Percentile: 50e9, Window: 5 * time.Minute, Commit: 1}},
	} {
		b, err := fromSeries(tt.s, calendar.Calendar{Day: 1, Zone: zone}.At(day(2026, 3, 1)), zone, tt.c)
		if err != nil {
			t.Fatal(err)
		}
		var w bytes.Buffer
		if err := b.SVG(&w); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, w.Bytes())
		if name == "month" {
			if !strings.Contains(w.String(), "prefers-color-scheme: dark") || !strings.Contains(w.String(), "&lt;&#34;&amp;") {
				t.Error("not dark, or not escaped")
			}
		}
		var text bytes.Buffer
		if err := b.Text(&text, Style{Width: 1}); err != nil || strings.Contains(text.String(), "NaN") {
			t.Errorf("%s: %v\n%s", name, err, text.String())
		}
	}
}

func TestWrite(t *testing.T) {
	s := demand(6500)
	b, err := fromSeries(s, calendar.Calendar{Day: 1, Zone: time.UTC}.At(day(2026, 3, 1)), time.UTC, Terms{Percentile: 95e9, Window: 5 * time.Minute, Commit: 6e9, Cap: 1e14})
	if err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(b.JSON()[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"billed_bps", "in_bps", "out_bps", "in_bytes", "out_bytes", "percentile", "samples", "free_total", "free_used", "worst_phase_bps"} {
		if !bytes.Contains(j, []byte(`"`+key+`":`)) {
			t.Errorf("%s is missing: %s", key, j)
		}
	}
	var gauges, slots bytes.Buffer
	if err := errors.Join(b.Prometheus(&gauges, metrics.Label{Name: "ledger", Value: `/a "b"`}), b.Slots(&slots)); err != nil {
		t.Fatal(err)
	}
	metricstest.Check(t, gauges.String(), "quotabill_", `ledger="/a \"b\""`)
	lines := strings.Split(strings.TrimSpace(slots.String()), "\n")
	if want := fmt.Sprintf("2026-03-01T00:05:00Z,%d,%d,%d,%d", s.In[1], s.Out[1], s.In[1], s.Out[1]); len(lines) != 6501 || lines[0] != "time,in,out,offered_in,offered_out" || lines[2] != want {
		t.Errorf("%d lines, %q, want %q", len(lines), lines[2], want)
	}
	// The file is read again, as the same samples.
	again, err := read(slots.String(), time.UTC, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if x, err := New(again, b.Cycle, time.UTC, b.Terms); err != nil || x.Billed != b.Billed || x.InBytes != b.InBytes {
		t.Errorf("%v: %+v", err, x)
	}
}

func BenchmarkMonthOfFiveSeconds(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	s := series(day(2026, 3, 1), 5*time.Second, 31*17280, func(int) (int64, int64) { return rng.Int64N(1e8), rng.Int64N(1e8) })
	for b.Loop() {
		if _, err := fromSeries(s, calendar.Calendar{Day: 1, Zone: time.UTC}.At(s.Start), time.UTC, Terms{Percentile: 95e9, Window: 5 * time.Minute}); err != nil {
			b.Fatal(err)
		}
	}
}

// The slots of a span are those that begin in it, up to the first and the last sample.
func TestSeries(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		start := rapid.Int64Range(-50, 50).Draw(rt, "start")
		all := series(start, 7, 20, func(i int) (int64, int64) { return int64(i), 0 })
		for i := 1; i < 19; i++ {
			all.Known[i] = rapid.Bool().Draw(rt, "known")
		}
		from, to := rapid.Int64Range(-200, 300).Draw(rt, "from"), rapid.Int64Range(-200, 300).Draw(rt, "to")
		part, err := samplesOf(t, all).series(from, to)
		if err != nil {
			rt.Fatal(err)
		}
		k := 0
		for i, known := range all.Known {
			if at := all.at(i); at < from || at >= to {
				continue
			}
			if k >= len(part.In) || part.at(k) != all.at(i) || part.Known[k] != known || known && part.In[k] != int64(i) {
				rt.Fatalf("%+v, slot %d", part, i)
			}
			k++
		}
		if k != len(part.In) {
			rt.Fatalf("%d slots, want %d", len(part.In), k)
		}
	})
}

// Only cycles in which samples begin are listed, in order.
func TestSamplesCycles(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const slot = 7
		var list []Sample
		known := map[int64]bool{}
		at := rapid.Int64Range(100, 200).Draw(rt, "start")
		for range rapid.IntRange(1, 60).Draw(rt, "samples") {
			list = append(list, Sample{At: at, In: 1})
			known[at/100*100] = true
			at += slot * rapid.Int64Range(1, 50).Draw(rt, "gap")
		}
		s, err := NewSamples(list, slot)
		if err != nil {
			rt.Fatal(err)
		}
		var starts []int64
		for _, c := range s.Cycles(calendar.Calendar{Length: 100}) {
			starts = append(starts, c.Start)
		}
		if want := slices.Sorted(maps.Keys(known)); !slices.Equal(starts, want) {
			rt.Fatalf("cycles %v, want %v", starts, want)
		}
	})
}
