package budget

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"framepipe/internal/calendar"

	"pgregory.net/rapid"
)

// history is what passed in each of the slots from base on, and the passed
// bytes of a finer division, parts to a slot.
type history struct {
	base  int64 // the first slot's number
	parts int64
	bytes []int64
}

// check counts, the slow and obvious way, the windows over quota of every phase
// that begins with a part of a slot, in every cycle, and holds them against the
// floor rule.
func (h *history) check(t rapid.TB, cfg Config) {
	t.Helper()
	slots := int64(cmp.Or(cfg.Slots, Slots))
	part := int64(cfg.Window) / slots / h.parts
	width := slots * h.parts
	sums := make([]int64, len(h.bytes)+1)
	for i, n := range h.bytes {
		sums[i+1] = sums[i] + n
	}
	begin := h.base * h.parts * part
	end := begin + int64(len(h.bytes))*part
	for at := begin; at < end; {
		start, stop := cfg.Cycle(at)
		over := make([]int64, width)
		whole := make([]int64, width)
		for k := FloorDiv(start, part) - width; k*part < stop; k++ {
			p := (k%width + width) % width
			if k*part >= start && k*part+int64(cfg.Window) <= stop {
				whole[p]++
			}
			if k*part+int64(cfg.Window) <= start {
				continue
			}
			i := min(max(k-h.base*h.parts, 0), int64(len(h.bytes)))
			j := min(max(k+width-h.base*h.parts, 0), int64(len(h.bytes)))
			if sums[j]-sums[i] > cfg.Quota {
				over[p]++
			}
		}
		for p := range over {
			// A provider who looks inside the slot may have one window less.
			free := max(whole[p]*cfg.Free.Num/cfg.Free.Den, 0)
			if over[p] > free {
				t.Fatalf("cycle %v to %v, phase %d: %d windows over, %d of %d free",
					time.Unix(0, start).UTC(), time.Unix(0, stop).UTC(), p, over[p], free, whole[p])
			}
		}
		at = stop
	}
}

func fixed(length int64) func(int64) (int64, int64) {
	return func(now int64) (int64, int64) {
		n := FloorDiv(now, length)
		return n * length, (n + 1) * length
	}
}

const day = 24 * int64(time.Hour)

// demands are made of n samples about a quota of q.
var demands = []struct {
	name string
	make func(r *rand.Rand, n int, q float64) []int64
}{
	{"steady", func(r *rand.Rand, n int, q float64) []int64 {
		return each(n, func(int) float64 { return q * 1.5 })
	}},
	{"on and off", func(r *rand.Rand, n int, q float64) []int64 {
		on := 1 + r.IntN(20)
		off := 1 + r.IntN(40)
		return each(n, func(i int) float64 {
			if i%(on+off) < on {
				return q * 4
			}
			return 0
		})
	}},
	{"a huge burst a day", func(r *rand.Rand, n int, q float64) []int64 {
		at := r.IntN(288)
		return each(n, func(i int) float64 {
			if d := i%288 - at; d >= 0 && d < 6 {
				return q * 50
			}
			return q * 0.6
		})
	}},
	{"a burst at the end", func(r *rand.Rand, n int, q float64) []int64 {
		return each(n, func(i int) float64 {
			if i > n-n/15 {
				return q * 5
			}
			return q * (0.8 + 0.4*r.Float64())
		})
	}},
	{"growing", func(r *rand.Rand, n int, q float64) []int64 { // against a rule that spends
		return each(n, func(i int) float64 { return q * math.Exp(4*float64(i)/float64(n)) * float64(i/6%2) })
	}},
	{"shrinking", func(r *rand.Rand, n int, q float64) []int64 { // against one that waits
		return each(n, func(i int) float64 { return q * math.Exp(3-4*float64(i)/float64(n)) * float64(i/6%2) })
	}},
	{"heavy-tailed", func(r *rand.Rand, n int, q float64) []int64 {
		return each(n, func(int) float64 { return 0.3 * q * math.Pow(1-r.Float64(), -1/1.3) })
	}},
	{"by day and week", func(r *rand.Rand, n int, q float64) []int64 {
		return each(n, func(i int) float64 {
			d := 1 + 0.8*math.Sin(float64(i)/288*2*math.Pi)
			if i/288%7 >= 5 {
				d *= 0.5
			}
			return q * d * (0.6 + 0.4*r.Float64())
		})
	}},
	{"samples missing", func(r *rand.Rand, n int, q float64) []int64 {
		return each(n, func(int) float64 {
			if r.IntN(10) == 0 {
				return 0
			}
			return q * 1.2 * r.ExpFloat64()
		})
	}},
}

func each(n int, f func(i int) float64) []int64 {
	s := make([]int64, n)
	for i := range s {
		s[i] = int64(min(f(i), 1<<50))
	}
	return s
}

// The promise, for every phase, on all kinds of demand, over several cycles.
func TestPromise(t *testing.T) {
	for _, d := range demands {
		t.Run(d.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				seed := rapid.Uint64().Draw(t, "seed")
				r := rand.New(rand.NewPCG(seed, 1))
				length := rapid.Int64Range(int64(time.Minute), day/3).Draw(t, "cycle")
				if rapid.Bool().Draw(t, "slots") {
					length -= length % 5e9
				}
				cfg := Config{
					Quota:  rapid.Int64Range(100, 1e9).Draw(t, "quota"),
					Window: 5 * time.Minute,
					Free:   Ratio{rapid.Int64Range(0, 400).Draw(t, "free"), 1000},
					Cycle:  fixed(length),
					Policy: Policy(rapid.IntRange(0, 1).Draw(t, "policy")),
				}
				h := history{parts: 3}
				s := Simulation{Config: cfg, Threshold: 0.75}
				s.Slot = func(_ int, at, _, passed int64) {
					if h.bytes == nil {
						h.base = at / 5e9
					}
					for range h.parts {
						h.bytes = append(h.bytes, passed) // in parts of a byte
					}
				}
				start := rapid.Int64Range(0, 3*day).Draw(t, "start")
				if _, err := s.Run(Demand{start, cfg.Window, [][]int64{d.make(r, 110, float64(cfg.Quota))}}); err != nil {
					t.Fatal(err)
				}
				exact := cfg
				exact.Quota *= h.parts
				h.check(t, exact)
			})
		})
	}
}

// The promise between slots, where bytes come in heaps and the gate's own window
// is finer: what is passed as beyond is all that a budget knows of it. Midway it
// is made anew from what it was told.
func TestPromiseFine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		const parts = 5
		slot := int64(time.Second)
		cfg := Config{
			Quota:  rapid.Int64Range(1000, 1e6).Draw(t, "quota"),
			Slots:  rapid.SampledFrom([]int{Slots, 50, 16, 10}).Draw(t, "slots"),
			Free:   Ratio{rapid.Int64Range(1, 300).Draw(t, "free"), 1000},
			Cycle:  fixed(rapid.Int64Range(100, 4000).Draw(t, "cycle") * slot),
			Policy: Policy(rapid.IntRange(0, 1).Draw(t, "policy")),
		}
		slots := int64(cfg.Slots)
		cfg.Window = time.Duration(slots * slot)
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		type entry struct {
			at, offered, passed int64
			beyond              bool
		}
		var log []entry
		h := history{parts: parts, base: 1000}
		again := rapid.IntRange(0, 1500*parts).Draw(t, "restart")
		level, own := 0.0, int64(0)
		for i := range 1500 * parts {
			now := h.base*slot + int64(i)*(slot/parts)
			if i == again {
				b, _ = New(cfg)
				for _, e := range log {
					b.Count(0, e.at, e.offered, e.passed, e.beyond)
				}
			}
			if i%parts == 0 {
				log = append(log, entry{at: now})
				if r.IntN(30) == 0 {
					level = 4 * r.ExpFloat64() * float64(r.IntN(2))
				}
			}
			offered := int64(0)
			if r.IntN(3) == 0 {
				offered = int64(level * 3 * float64(cfg.Quota) / float64(slots) / parts * 2 * r.Float64())
				if r.IntN(500) == 0 {
					offered = cfg.Quota * 3
				}
			}
			if i := int64(i); i >= slots*parts {
				own -= h.bytes[i-slots*parts]
			}
			fits := max(cfg.Quota-own, 0)
			add(b, now, offered, 0, false)
			pass := min(offered, max(fits, room(b, now)))
			add(b, now, 0, pass, pass > fits)
			own += pass
			h.bytes = append(h.bytes, pass)
			e := &log[len(log)-1]
			e.offered += offered
			e.passed += pass
			e.beyond = e.beyond || pass > fits
		}
		h.check(t, cfg)
	})
}

// Ten days of each demand against the all-knowing scheduler, for people to
// look at.
func TestGenerated(t *testing.T) {
	for _, d := range demands {
		const n = 10 * 288
		samples := d.make(rand.New(rand.NewPCG(3, 4)), n, 1e9)
		best := allKnowing(1e9, Ratio{5, 100}, samples)
		row := fmt.Sprintf("%-20s", d.name)
		for _, p := range []Policy{Never, Greedy, Weighed} {
			s := Simulation{Config: Config{Quota: 1e9, Free: Ratio{5, 100}, Cycle: fixed(10 * day), Policy: p}, Threshold: 0.75}
			r, err := s.Run(Demand{0, 5 * time.Minute, [][]int64{samples}})
			if err != nil {
				t.Fatal(err)
			}
			row += fmt.Sprintf("  %.4f (%d of %d)", float64(r.Passed)/float64(best), r.Used, r.Total)
		}
		t.Log(row)
	}
}

// How much worse than greedy the policy may be, without history and after a
// cycle of the same kind. Where bursts only ever get smaller, first come first
// served is best, and any rule that waits for a better one loses.
func TestAgainstGreedy(t *testing.T) {
	for _, d := range demands {
		least := 0.99
		if d.name == "shrinking" {
			least = 0.7
		}
		const n = 10 * 288
		for seed := range uint64(2) {
			before := d.make(rand.New(rand.NewPCG(seed, 5)), n, 1e9)
			samples := d.make(rand.New(rand.NewPCG(seed, 6)), n, 1e9)
			run := func(p Policy, parts ...[]int64) float64 {
				s := Simulation{Config: Config{Quota: 1e9, Free: Ratio{5, 100}, Cycle: fixed(10 * day), Policy: p}, Threshold: 0.75}
				from := int64(len(parts)-1) * 10 * day
				sum := int64(0)
				s.Slot = func(_ int, at, _, passed int64) {
					if at >= from {
						sum += passed
					}
				}
				if _, err := s.Run(Demand{0, 5 * time.Minute, [][]int64{slices.Concat(parts...)}}); err != nil {
					t.Fatal(err)
				}
				return float64(sum)
			}
			greedy := run(Greedy, samples)
			for _, got := range []float64{run(Weighed, samples), run(Weighed, before, samples)} {
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
		length time.Duration
		share  Ratio
		want   int64
	}{
		{30 * 24 * time.Hour, Ratio{5, 100}, 431},
		{30*24*time.Hour + 5*time.Minute, Ratio{5, 100}, 432},
		{31 * 24 * time.Hour, Ratio{5, 100}, 446},
		{31*24*time.Hour - time.Hour, Ratio{5, 100}, 445},
		{28 * 24 * time.Hour, Ratio{25, 1000}, 201},
		{9 * time.Minute, Ratio{1, 1}, 0},
		{10 * time.Minute, Ratio{1, 1}, 1},
		{1 << 62, Ratio{1 << 62, 1 << 62}, 1<<62/minutes5 - 1},
	} {
		if got := FreeWindows(int64(c.length), minutes5, c.share); got != c.want {
			t.Errorf("%v, %v: %d free windows, want %d", c.length, c.share, got, c.want)
		}
	}
}

// add counts bytes of the first lane in the current slot, beside those that it has.
func add(b *Budget, now, offered, passed int64, beyond bool) {
	b.Advance(now)
	l := &b.lane[0]
	offered += l.offered[at(b.t)] - l.offered[at(b.t-1)]
	passed += l.upTo(b.t) - l.upTo(b.t-1)
	b.Count(0, now, offered, passed, beyond)
}

// room is what may pass in the first lane although it does not fit into the caller's
// own window.
func room(b *Budget, now int64) int64 {
	k, limited := b.Limit(now)
	if !limited {
		return unlimited
	}
	return max(b.cfg.Quota-b.lane[0].held(k), 0)
}

// A burst of 60 slots from an idle link, three times the quota, costs two windows. The first third passes within
// the quota, so that the windows -40 to 39 are over: the chain is -40 and 20.
func TestExample(t *testing.T) {
	b, err := New(Config{Quota: 600e6, Free: Ratio{5, 100}, Cycle: fixed(30 * day), Policy: Greedy})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(60) {
		now := day + i*5e9
		add(b, now, 30e6, 0, false)
		if room(b, now) < 30e6 {
			t.Fatalf("slot %d: no room", i)
		}
		add(b, now, 0, 30e6, i >= 20)
	}
	if s := b.Stats(0); s.Used != 2 {
		t.Errorf("%+v", s)
	}
}

func TestJump(t *testing.T) {
	b, _ := New(Config{Quota: 1000, Free: Ratio{5, 100}, Cycle: fixed(day)})
	for _, now := range []int64{0, 5 * day, 3 * day, 400 * day, 401*day - 1, math.MaxInt64 / 4} {
		add(b, now, 5000, 0, false)
		if p := min(room(b, now), 5000); p > 0 {
			add(b, now, 0, p, true)
		}
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
			g, _ := New(Config{Quota: 6e8, Free: Ratio{5, 100}, Cycle: fixed(30 * day)})
			now := int64(0)
			for b.Loop() {
				now += 5e9
				g.Count(0, now, share*1e7, min(share, 1)*1e7, false)
			}
		})
	}
}

func TestAllocations(t *testing.T) {
	b, _ := New(Config{Quota: 1000, Free: Ratio{5, 100}, Cycle: fixed(day)})
	now := int64(0)
	if n := testing.AllocsPerRun(10000, func() {
		now += 4e9
		add(b, now, 100, 0, false)
		add(b, now, 0, min(room(b, now), 100), true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Every cycle begins with a slot, and a window that is refused has no slots that do.
func TestDivide(t *testing.T) {
	for _, tt := range []struct {
		zone          string
		cycle, window time.Duration
		slots         int // 0 if it is refused
	}{
		{"UTC", 0, 5 * time.Minute, 60}, {"UTC", 0, 24 * time.Hour, 60}, {"UTC", 0, 48 * time.Second, 60}, {"UTC", 0, 7 * time.Minute, 56},
		{"UTC", 0, 12 * time.Second, 16}, {"UTC", 0, 10 * time.Second, 10}, {"UTC", 0, 6 * time.Second, 0}, {"UTC", 0, 61 * time.Second, 0},
		{"Europe/Berlin", 0, 15 * time.Minute, 60}, {"Asia/Kathmandu", 0, 2 * time.Hour, 48}, {"Asia/Kathmandu", 0, 24 * time.Hour, 0},
		{"UTC", time.Hour, 10 * time.Second, 50}, {"UTC", time.Hour, 1500 * time.Millisecond, 60}, {"UTC", time.Hour, 1700 * time.Millisecond, 34},
		{"UTC", 7 * time.Minute, 7 * time.Minute, 60}, {"UTC", 0, 9, 0},
	} {
		zone, err := time.LoadLocation(tt.zone)
		if err != nil {
			t.Fatal(err)
		}
		cycles := calendar.Calendar{Day: 1, Zone: zone, Length: tt.cycle}
		got, err := Divide(tt.window, cycles)
		if got != tt.slots || (err == nil) != (got > 0) {
			t.Errorf("%s, %v, %v: %d slots and %v, want %d", tt.zone, tt.cycle, tt.window, got, err, tt.slots)
		}
		fits := func(slots int64) bool {
			slot := int64(tt.window) / slots
			if slot == 0 || slot*slots != int64(tt.window) {
				return false
			}
			for at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(); at < time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).UnixNano(); {
				start, end := cycles.Bounds(at)
				if start%slot != 0 || (end-start)/slot > calendar.MaxSlots {
					return false
				}
				at = end
			}
			return true
		}
		for n := int64(max(got, 10)); n <= Slots; n++ {
			if fits(n) != (n == int64(got)) {
				t.Errorf("%s, %v, %v: %d slots: %v", tt.zone, tt.cycle, tt.window, n, fits(n))
			}
		}
	}
}
