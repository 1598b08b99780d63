package bill

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"framepipe/internal/calendar"
)

// hundred is the bill of a cycle of a hundred windows, of which the last is not known yet. In
// Mbit/s, 3 come in; 8 go out, then 12 in 15 windows, then 18 in 4, which are free. So 12 are
// billed, of a commit of 10.
func hundred() *Bill {
	const mega = 1e6 / 8 * 300
	s := series(day(2026, 3, 1), 5*time.Minute, 99, func(i int) (int64, int64) {
		return 3 * mega, map[bool]int64{true: 8, false: 12}[i < 80]*mega + map[bool]int64{true: 6 * mega}[i >= 95]
	})
	cycle := calendar.Cycle{Start: s.Start, End: s.Start + int64(500*time.Minute), Name: "2026-03-01"}
	b := newBill(s, cycle, time.UTC, five(10*mega), nil)
	b.Source = `<script>alert("&")</script> · Zürich 東京`
	return b
}

// A page needs nothing but itself, and shows names as they are.
func TestPage(t *testing.T) {
	page := drawn(t, hundred().HTML)
	page = strings.ReplaceAll(page, `xmlns="http://www.w3.org/2000/svg"`, "")
	if bad := regexp.MustCompile(`<script|<link|<img|src=|href=|url\(|@import|\x1b|://`).FindString(page); bad != "" {
		t.Errorf("the page has %q", bad)
	}
	for _, want := range []string{
		"<title>&lt;script&gt;alert(&#34;&amp;&#34;)&lt;/script&gt; · Zürich 東京 · 2026-03-01</title>",
		`<tr><td><i class="dim">billed      </i></td><td><i class="bold">12.0 Mbit/s</i></td><td>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q\n%s", want, page)
		}
	}
}

// The lines of a text are rows: name, figure and remark, or a sentence in place of both.
func TestPageRows(t *testing.T) {
	p := newPage(Style{Colour: true, cells: true})
	p.line("a&b", "%s  %s", p.bold("1 bit/s"), "of <2")
	p.remark("more")
	p.line("c", "too early")
	p.table([]string{"d\te", "f\t" + p.paint(colourOver, "g")})
	want := []string{
		`<td><i class="dim">a&amp;b         </i></td><td><i class="bold">1 bit/s</i></td><td>of &lt;2</td>`,
		`<td></td><td></td><td><i class="dim">more</i></td>`,
		`<td><i class="dim">c           </i></td><td colspan="2">too early</td>`,
		`<td>d</td><td colspan="2">e</td>`,
		`<td>f</td><td colspan="2"><i class="over">g</i></td>`,
	}
	for i, line := range strings.Split(strings.TrimSpace(p.String()), "\n") {
		if got := row(line); got != want[i] {
			t.Errorf("%s\nwant %s", got, want[i])
		}
	}
}

// The picture of a cap says when it runs out or ran out.
func TestCap(t *testing.T) {
	s := series(day(2026, 3, 1), time.Hour, 240, func(int) (int64, int64) { return 1e9, 2e9 }) // ten days
	for size, want := range map[int64][]string{
		500e9:  {"96.0% of 500 GB", "runs out Wed 11 Mar at the mean", `<circle class="over" cx="273.7"`},
		240e9:  {"200.0% of 240 GB", "ran out Fri 6 Mar 01:00", `<circle class="over" cx="161.4"`, "240 GB too much"},
		1e15:   {">left<", ">1.00 PB<", "lasts to the end"},
		1 << 6: {"ran out Sun 1 Mar 01:00"},
	} {
		svg := picture(t, month(s, Terms{Percentile: 95e9, Window: time.Hour, Cap: size}).SVG)
		for _, text := range append(want, "a transfer cap, the direction that has more<") {
			if !strings.Contains(svg, text) {
				t.Errorf("a cap of %d: no %q", size, text)
			}
		}
		if strings.Contains(svg, "free windows") || strings.Contains(svg, `class="line billed"`) {
			t.Errorf("a cap of %d has a percentile", size)
		}
	}
}

// A picture has the cost if there are prices: so far, and by the forecast where there is one.
func TestCostTile(t *testing.T) {
	prices := Prices{Commit: 2e6, Overage: 3e6, Currency: "EUR"}
	for _, tt := range []struct {
		hours  int
		prices Prices
		want   string
	}{
		{12, prices, "cost so far,20.00 EUR,"},
		{240, prices, "cost so far,20.00 EUR,forecast 26.00 EUR"},
		{744, prices, "cost,26.00 EUR,"},
		{240, Prices{}, ""},
	} {
		s := series(day(2026, 3, 1), time.Hour, tt.hours, func(i int) (int64, int64) {
			return 0, map[bool]int64{false: 8e6, true: 12e6}[i%168 >= 138] / 8 * 3600 // a day of each week is busy
		})
		svg := picture(t, month(s, Terms{Percentile: 95e9, Window: time.Hour, Commit: 10e6 / 8 * 3600, Prices: tt.prices}).SVG)
		texts := regexp.MustCompile(`<text[^>]*>(cost[^<]*)</text>\n<text[^>]*>([^<]*)</text>\n<text[^>]*>([^<]*)<`)
		tile := append(texts.FindStringSubmatch(svg), "")[1:]
		if got := strings.TrimSuffix(strings.Join(tile, ","), ","); got != tt.want {
			t.Errorf("after %d hours: %q, want %q", tt.hours, got, tt.want)
		}
	}
}

// Each method draws the directions that it compares with the commit, and the others.
func TestLanes(t *testing.T) {
	for _, tt := range []struct {
		method  Method
		in, out int64
		lanes   string
		curves  int
	}{
		{Separate, 1, 1, "[out in]", 2}, {Max, 1, 1, "[out in]", 2}, {Sum, 1, 1, "[sum]", 1},
		{In, 1, 1, "[in out]", 2}, {Out, 1, 1, "[out in]", 2}, {Separate, 0, 1, "[out]", 1},
		{Separate, 1, 0, "[in]", 1}, {Max, 0, 0, "[out]", 1},
	} {
		s := series(day(2026, 3, 1), time.Hour, 700, func(i int) (int64, int64) {
			return (1e6 + int64(i%50)) * tt.in * 3, (2e6 + int64(i%50)) * tt.out
		})
		b := month(s, Terms{Method: tt.method, Percentile: 95e9, Window: time.Hour})
		svg := picture(t, b.SVG)
		billed, curves := strings.Count(svg, `class="line billed"`), len(regexp.MustCompile(`class="line (out|in|sum)"`).FindAllString(svg, -1))
		if got := fmt.Sprint(b.lanes()); got != tt.lanes || billed != 2 || curves != tt.curves {
			t.Errorf("%v, in %d, out %d: %s with %d lines and %d curves", tt.method, tt.in, tt.out, got, billed, curves)
		}
	}
}

// The picture of a plan has a dot for each value, and a mark at the knee; the page has it, the
// demand and a row for each commit.
func TestPlanPicture(t *testing.T) {
	s := series(day(2026, 3, 1), 5*time.Minute, 144, func(i int) (int64, int64) {
		return 0, int64(1e8 + 1e8*(i%12))
	})
	samples := samplesOf(s)
	samples.Source = "<&>"
	c := scenario(samples, s.Start, gates(Separate, 12*time.Hour)) // nothing comes in
	p := must(c.Plan(0))
	svg, page := picture(t, p.SVG), drawn(t, p.HTML)
	if n := strings.Count(svg, "<circle"); n != 4*len(p) {
		t.Errorf("%d dots for %d commits", n, len(p))
	}
	best, _, _ := p.best()
	knee := "knee: " + c.Natural.rate(best.Commit)
	if n := strings.Count(svg, `class="line commit"`); n != 2 || !strings.Contains(svg, knee) {
		t.Errorf("%d marks of the %s", n, knee)
	}
	if strings.Contains(svg, "Cost") || !strings.Contains(svg, "&lt;&amp;&gt; · ") {
		t.Error("a cost without prices, or no title")
	}
	rows := regexp.MustCompile(`<tr><td>[^<]*bit/s</td>`).FindAllString(page, -1)
	if pictures := strings.Count(page, "<svg"); pictures != 2 || len(rows) != len(p) {
		t.Errorf("%d pictures in the page, and %d rows for %d commits", pictures, len(rows), len(p))
	}
}
