package bill

import (
	"flag"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"framepipe/internal/budget"

	"pgregory.net/rapid"
)

func TestMoney(t *testing.T) {
	for text, want := range map[string]string{
		"2": "2.00", "2.5": "2.50", "0.000001": "0.000001", "1234.56": "1234.56", "0.125": "0.125", "999999999": "999999999.00",
		"": "", "-1": "", ".5": "", "1.": "", "1,5": "", "1e3": "", "0.0000001": "", "1000000000": "", "+1": "", "1.+5": "", "2 EUR": "",
	} {
		var m Money
		err := m.Set(text)
		if err == nil && m.String() != want || (err == nil) != (want != "") {
			t.Errorf("%q: %v, %v; want %q", text, m, err, want)
		}
	}
}

// Whatever text is taken for an amount or a percentile is that number exactly.
func FuzzMoney(f *testing.F) {
	for _, s := range []string{"2.50", "0.000001", "999999999.999999", "95", "99.9%", "1_0", "0x1", "+1", "٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var m Money
		var p budget.Percentile
		for value, unit := range map[flag.Value]int64{&m: 1e6, &p: 1e9} {
			if value.Set(s) != nil {
				continue
			}
			exact, ok := new(big.Rat).SetString(strings.TrimSuffix(s, "%"))
			n := map[flag.Value]int64{&m: int64(m), &p: int64(p)}[value]
			if !ok || exact.Cmp(big.NewRat(n, unit)) != 0 {
				t.Errorf("%T: %q is taken for %v", value, s, value)
			}
		}
	})
}

// Costs are those of exact fractions, rounded once.
func TestCost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		amount := func(name string) Money { return Money(rapid.Int64Range(0, 1e15-1).Draw(rt, name)) }
		rate := func(name string) int64 { return rapid.Int64Range(0, 1<<62).Draw(rt, name) }
		p := Prices{Commit: amount("price"), Overage: amount("overage"), Whole: rapid.Bool().Draw(rt, "whole"), Minimum: amount("minimum")}
		commit, billed := rate("commit"), rate("billed")
		over, price := max(billed-commit, 0), p.Overage
		if p.Whole {
			over = (over + 999_999) / 1e6 * 1e6
		}
		if commit == 0 {
			price = p.Commit
		}
		exact := func(m Money, rate int64) Money { // ⌊m·rate/1e6/1e4 + 1/2⌋ hundredths
			n := new(big.Int).Mul(big.NewInt(int64(m)), big.NewInt(rate))
			n.Div(n.Add(n, big.NewInt(5e9)), big.NewInt(1e10))
			const most = math.MaxInt64 / 10_000
			if n.Cmp(big.NewInt(most)) > 0 {
				n.SetInt64(most)
			}
			return Money(n.Int64()) * 1e4
		}
		c := p.Of(commit, billed)
		want := Cost{Over: over, Commit: exact(p.Commit, commit), Overage: exact(price, over)}
		want.Total = max(want.Commit+want.Overage, p.Minimum)
		if want.Commit+want.Overage < 0 {
			want.Total = math.MaxInt64
		}
		if c != want {
			rt.Fatalf("%+v, want %+v", c, want)
		}
	})
	// A commit is charged as it was given, not as whole bytes of a window.
	rapid.Check(t, func(rt *rapid.T) {
		rate, window := rapid.Int64Range(1, 1<<45).Draw(rt, "rate"), time.Duration(rapid.Int64Range(8e9, 86400e9).Draw(rt, "window"))
		if n, err := Bytes(rate, window); err != nil || BitRate(n, window) != rate {
			rt.Fatalf("%d bytes, %d bit/s: %v", n, BitRate(n, window), err)
		}
	})
}

// priced returns terms with prices.
func priced(commit int64) Terms {
	terms := five(commit)
	terms.Prices = Prices{Commit: 9_500000, Overage: 14_000000, Currency: "EUR"}
	return terms
}

// lines returns the lines of a bill that begin with a name and of those under them.
func lines(t *testing.T, b *Bill, name string) string {
	t.Helper()
	found, in := "", false
	for line := range strings.Lines(textOf(t, b, Style{})) {
		if !strings.HasPrefix(line, " ") {
			in = strings.HasPrefix(line, name+" ")
		}
		if in {
			found += "\n" + strings.Join(strings.Fields(line), " ")
		}
	}
	return strings.TrimPrefix(found, "\n")
}

func TestCostText(t *testing.T) {
	minimum := priced(4e9)
	minimum.Prices.Minimum = 2000_000000
	for _, tt := range []struct {
		until int
		terms Terms
		want  string
	}{
		{8928, priced(6e9), "cost 1520.00 EUR 1520.00 for the commit"},
		{8928, priced(4e9), "cost 1406.04 EUR 1013.33 for the commit, 392.71 for 28.1 Mbit/s over it"},
		{8928, minimum, "cost 2000.00 EUR the minimum"},
		{8928, priced(0), "cost 1279.82 EUR 135 Mbit/s"},
		{100, priced(4e9), "cost 1013.33 EUR at least: 1013.33 for the commit"},
		{6500, priced(4e9), "cost 1355.53 EUR at least: 1013.33 for the commit, 342.20 for 24.4 Mbit/s over it\n" +
			"1405.87 EUR by the forecast, from 1355.53 EUR to 1500.16 EUR"},
	} {
		if got := lines(t, month(demand(tt.until), tt.terms), "cost"); got != tt.want {
			t.Errorf("%d: %q\nwant %q", tt.until, got, tt.want)
		}
	}
}

// busy bills the first windows of July, of which some are over the commit of 50 each day.
func busy(t *testing.T, windows, over int, c Terms) *Bill {
	t.Helper()
	c.Percentile, c.Window = 95e9, 5*time.Minute
	return month(series(day(2026, 7, 1), 5*time.Minute, windows, func(i int) (int64, int64) {
		return 0, map[bool]int64{true: 100, false: 10}[i%288 < over]
	}), c)
}

// In the first hours the text neither forecasts nor contradicts itself.
func TestEarly(t *testing.T) {
	commit := Terms{Commit: 50}
	one := busy(t, 1, 35, commit)
	if list := one.Warnings([]float64{0.75}); list != nil || one.JSON()[0]["forecast_bps"] != nil {
		t.Errorf("one sample: %q", list)
	}
	for _, tt := range []struct {
		windows    int
		terms      Terms
		name, want string
	}{
		{1, commit, "forecast", "forecast " + tooEarly},
		// On 2 July, the percentile of the day before is over the commit.
		{288, commit, "out", "out 2.67 bit/s 6.03 kB"},
		{288, commit, "commit", "commit 1.33 bit/s kept so far"},
		{288, commit, "free", "free █░░░░░░░░░░░ 35 of 446 windows over the commit, 411 left"},
		{13 * 288, commit, "commit", "commit 1.33 bit/s over by at least 1.33 bit/s"},
		{13 * 288, commit, "free", "free ████████████ 455 of 446 windows over the commit, 9 too many"},
		{8928, Terms{}, "free", "free 446 of 8928 windows: the highest cost nothing"},
		{20, Terms{Cap: 1e9}, "expected", "expected " + tooEarly},
	} {
		if got := lines(t, busy(t, tt.windows, 35, tt.terms), tt.name); got != tt.want {
			t.Errorf("%d windows: %q\nwant %q", tt.windows, got, tt.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		days, over int // windows over the commit each day
		terms      Terms
		want       string
	}{
		{2, 10, Terms{Commit: 50}, ""},
		{20, 14, Terms{Commit: 50}, ""},
		{25, 14, Terms{Commit: 50}, "75% of the free windows reached: 350 of 446 used"},
		{29, 14, Terms{Commit: 50}, "90% of the free windows reached: 406 of 446 used"},
		{5, 20, Terms{Commit: 50}, "2.67 bit/s will be billed by the forecast, over the commit of 1.33 bit/s"},
		{5, 20, Terms{Commit: 50, Held: true}, ""},
		{25, 20, Terms{Commit: 50, Held: true}, "90% of the free windows reached: 500 of 446 used\n" +
			"at least 2.67 bit/s will be billed, over the commit of 1.33 bit/s"},
		{25, 0, Terms{Cap: 100e3}, "75% of the transfer cap reached: 76.0 kB of 100 kB used\n" +
			"200 kB of the transfer cap of 100 kB will be used, by the forecast"},
	} {
		b := busy(t, tt.days*288, tt.over, tt.terms)
		if tt.terms.Cap > 0 {
			b.Transfer.Used, b.Transfer.Forecast = 76e3, 200e3
		}
		if got := strings.Join(b.Warnings([]float64{0.9, 0.75}), "\n"); got != tt.want {
			t.Errorf("%d days, %d a day: %q\nwant %q", tt.days, tt.over, got, tt.want)
		}
	}
}

// Most bills are within the range of the forecast made ten days into a cycle, of demand whose days differ at random.
func TestForecastRange(t *testing.T) {
	const all = 20
	inside := 0
	for seed := range uint64(all) {
		rng := rand.New(rand.NewPCG(seed, 1))
		level, days := 1.0, []float64(nil)
		for range 90 {
			level = 0.8*level + 0.4*rng.Float64()
			days = append(days, level)
		}
		s := samplesOf(series(day(2026, 1, 1), time.Hour, 90*24, func(i int) (int64, int64) {
			return 0, int64(1e6 * days[i/24] * (1 + rng.Float64()) * float64(1+i%24))
		}))
		bill := func(s *Samples) *Bill {
			return must(New(s, months.At(day(2026, 3, 1)), time.UTC, Terms{Percentile: 95e9, Window: time.Hour}))
		}
		part, _ := s.series(0, day(2026, 3, 11))
		f, billed := bill(samplesOf(part)).Forecast, bill(s).Billed
		if f.Trials != trials || f.Low > f.Billed || f.High < f.Billed {
			t.Fatalf("%+v", f)
		}
		if f.Low <= billed && billed <= f.High {
			inside++
		}
	}
	if inside*10 < all*7 {
		t.Errorf("%d of %d bills are in the range", inside, all)
	}
}
