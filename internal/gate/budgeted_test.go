package gate

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/pollertest"

	"pgregory.net/rapid"
)

// spending returns a gate with a budget, in cycles of a day if not told otherwise.
func spending(t rapid.TB, cfg Config, b budget.Config) *Gate {
	t.Helper()
	b.Quota, b.Window, b.Poller = cfg.Quota, cfg.Window, cfg.Poller
	b.Percentile = cmp.Or(b.Percentile, 95e9)
	if b.Cycle == nil {
		b.Cycle = calendar.Calendar{Length: 24 * time.Hour}.Bounds
	}
	var err error
	if cfg.Budget, err = budget.New(b); err != nil {
		t.Fatal(err)
	}
	return must(t, cfg)
}

// nothing has no free windows.
var nothing = budget.Config{Percentile: budget.Hundred}

// midnight is when a cycle of a day begins.
const midnight = 1000 * 24 * int64(time.Hour)

// Frames through gates that share a ledger and its budget: in every cycle no poller bills
// more than the quota, of any phase and kind. The phases are finer than the slots; gates
// are started anew, and lag behind now and then.
func TestBudgetPromise(t *testing.T) {
	slots := int64(1500)
	if testing.Short() {
		slots = 400
	}
	beyond := false
	rapid.Check(t, func(t *rapid.T) {
		const fine = 5
		slot := rapid.Int64Range(1, 1000).Draw(t, "slot") * fine * 1e6
		per := rapid.SampledFrom([]int64{budget.Slots, 50, 16, 10}).Draw(t, "per window")
		window := time.Duration(slot * per)
		quota := rapid.Int64Range(50e3, 1e6).Draw(t, "quota")
		seed := rapid.Uint64().Draw(t, "seed")
		rng := rand.New(rand.NewPCG(seed, 7))
		length := time.Duration(slot * rapid.SampledFrom([]int64{100, 300, 777, 2000}).Draw(t, "cycle"))
		lanes := rapid.SampledFrom([][][]int64{{{0}}, {{0}, {1}}, {{0, 1}}}).Draw(t, "lanes")
		start := rapid.Int64Range(1000, 5000).Draw(t, "start") * slot
		jitter := window / rapid.SampledFrom([]time.Duration{30, 150, 1e18}).Draw(t, "jitter")
		spend := budget.Config{
			Lanes:      len(lanes),
			Slots:      int(per),
			Percentile: rapid.SampledFrom([]budget.Percentile{budget.Hundred, 95e9, 85e9, 60e9}).Draw(t, "percentile"),
			Cycle:      calendar.Calendar{Length: length}.Bounds,
			Policy:     rapid.SampledFrom([]budget.Policy{budget.Weighed, budget.Greedy}).Draw(t, "spend"),
		}
		cfg := Config{
			Quota: quota, Window: window, Queue: time.Duration(slot / 20), Seed: seed,
			Policy:    rapid.SampledFrom([]Policy{Pace, Random}).Draw(t, "policy"),
			Threshold: rapid.SampledFrom([]float64{0.5, 0.75, 1}).Draw(t, "threshold"),
			Poller:    budget.Poller{Jitter: jitter},
		}
		shared := newBook(window+2*jitter, per)
		shared.slot, shared.begin = slot, start
		dirs := [2]int64{0, int64(max(len(lanes), len(lanes[0])) - 1)}
		made := func(i int) *Gate {
			own := *shared
			own.dir, own.lanes = dirs[i], slices.Clone(lanes)
			if dirs[i] == 1 {
				slices.Reverse(own.lanes)
			}
			cfg.Book = &own
			return spending(t, cfg, spend)
		}
		gates := []*Gate{made(0), made(1)}
		var sent [2][]event // by direction
		level := [2]float64{}
		last, end := start, start+slots*slot
		for now := start; ; {
			for i := range level {
				if rng.IntN(200) == 0 {
					level[i] = []float64{0, 0.3, 0.9, 1.5, 4, 12}[rng.IntN(6)]
				}
			}
			now += int64(rng.ExpFloat64() * float64(slot) / 6)
			if now >= end {
				break
			}
			i := rng.IntN(2)
			if rng.IntN(800) == 0 {
				gates[i] = made(i)
			}
			at := now
			if rng.IntN(20) == 0 { // it read the clock a while ago
				at = max(last, now-slot/3)
			}
			last = now
			pass := func(e event) { sent[dirs[i]] = append(sent[dirs[i]], e) }
			release(gates[i], at, pass)
			bytes := level[i] * float64(quota) / float64(per) / 3 * rng.Float64()
			p := Packet{Bytes: int64(bytes), Flow: rng.Uint64N(9)}
			if p.Bytes >= 64 {
				arrive(gates[i], at, &p, pass)
			}
		}
		var counters []func(int64) float64
		for _, dirs := range lanes {
			var events []event
			for _, d := range dirs {
				events = append(events, sent[d]...)
			}
			counters = append(counters, counterOf(events))
			beyond = beyond || worst(events, int64(window)) > quota
		}
		pollers := slices.DeleteFunc(pollertest.Kinds(jitter), func(k pollertest.Kind) bool { return k.Late > 0 })
		for phase := time.Duration(0); phase < window; phase += time.Duration(slot / fine) {
			pollers = append(pollers, pollertest.Kind{Known: true, Phase: phase})
		}
		for at := start; at < end; {
			from, to := spend.Cycle(at)
			for _, k := range pollers {
				polls, _ := k.Polls(rng, from, to, window)
				bill := pollertest.Bill(polls, from, to, window, spend.Percentile, counters...)
				if bill > float64(quota)*(1+1e-9) {
					t.Fatalf("jitter %v, %+v: billed %.4f of the quota", jitter, k, bill/float64(quota))
				}
			}
			at = to
		}
	})
	if !beyond && !testing.Short() {
		t.Error("no window ever was over, and so nothing was tested")
	}
}

// counterOf returns the bytes of events up to a time. It sorts them.
func counterOf(events []event) func(at int64) float64 {
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	sums := make([]float64, len(events)+1)
	for i, e := range events {
		sums[i+1] = sums[i] + float64(e.bytes)
	}
	return func(at int64) float64 {
		return sums[sort.Search(len(events), func(i int) bool { return events[i].at > at })]
	}
}

// A burst that may run on does at full speed, one that has used up what was free
// is paced and not cut off, and one that may not is as without a budget.
func TestBudgetBurst(t *testing.T) {
	const quota, length = int64(600e6), 2001 * 5 * time.Minute // 2 MB/s
	const begin = 2*int64(length) + 3000*second
	const end = begin + 1200*second
	for _, tt := range []struct {
		free budget.Percentile // windows of 2000
		want float64           // quotas in the fullest window
	}{{0, 1}, {3, 20}, {50, 20}} {
		b := newBook(5*time.Minute, 60)
		b.begin = 2 * int64(length)
		g := spending(t, Config{Quota: quota, Window: 5 * time.Minute, Book: b}, budget.Config{
			Percentile: budget.Hundred - tt.free*budget.Hundred/2000, Policy: budget.Greedy,
			Cycle: calendar.Calendar{Length: length}.Bounds,
		})
		passed := play(g, steady(40e6, 1, 60e3), begin, end) // twenty times the quota
		most := float64(worst(passed, 300*second)) / float64(quota)
		if most < 0.98*tt.want || most > 1.01*tt.want+0.01 {
			t.Errorf("%d free: the fullest window has %.3f of the quota", tt.free, most)
		}
		if s := g.State(end).Budget; s.Left < 0 || tt.free == 3 && s.Left != 0 || s.Free != (s.Left > 0) {
			t.Errorf("%d free: %+v", tt.free, s)
		}
		for at := begin; at < end-10*second; at += 10 * second {
			if n := between(passed, at, at+10*second); n < 1e6 {
				t.Errorf("%d free: ten seconds have %d bytes", tt.free, n)
			}
		}
	}
}

// flooded returns a book in which inbound has five times 600 MB in each window of the first n.
func flooded(n int64) *book {
	b := newBook(5*time.Minute, 60)
	b.lanes, b.begin = [][]int64{{0}, {1}}, midnight
	for i := range n * 60 {
		p := b.page(1, midnight/b.slot+i)
		p.charged.Add(50e6)
		p.marked.Set()
	}
	return b
}

// When inbound will be billed at five times the quota in any case, outbound may have as much, and
// with Hard no more than the quota. Its windows over the quota are marked, and while the Book
// fails the quota holds.
func TestSpent(t *testing.T) {
	const quota = int64(600e6)
	for _, hard := range []bool{false, true} {
		b := flooded(18)
		cfg := Config{Quota: quota, Window: 5 * time.Minute, Book: b, Poller: budget.Poller{Jitter: time.Second / 2}}
		g := spending(t, cfg, budget.Config{Lanes: 2, Separate: true, Hard: hard, Policy: budget.Never})
		begin := midnight + 20*300*second
		passed := play(g, steady(12e6, 1, 60e3), begin, begin+1200*second)
		got, want := float64(worst(passed, 300*second))/float64(quota), 5.0
		if hard {
			want = 1
		}
		if got < 0.97*want || got > 1.01*want {
			t.Errorf("hard %v: the fullest window has %.3f of the quota, want %v", hard, got, want)
		}
		if marked := b.page(0, g.now/b.slot-1).marked.Load(); marked == hard {
			t.Errorf("hard %v: the last slot is marked: %v", hard, marked)
		}
		b.err = errors.New("gone")
		if s := g.State(g.now + b.slot); s.Quota+g.win.(*budgeted).more != quota {
			t.Errorf("hard %v: the quota is %d without the Book", hard, s.Quota)
		}
	}
}

// At the end of a cycle in which inbound will be billed at five times the quota, outbound goes down to
// the quota: it does not go dark, and no sample that touches the next cycle is over.
func TestSpentEnds(t *testing.T) {
	const quota, jitter = int64(600e6), second / 2
	const end = midnight + 24*3600*second
	b := flooded(6)
	cfg := Config{Quota: quota, Window: 5 * time.Minute, Threshold: 0.75, Queue: time.Second / 10, Book: b, Poller: budget.Poller{Jitter: time.Duration(jitter)}}
	g := spending(t, cfg, budget.Config{Lanes: 2, Separate: true, Percentile: 99e9, Policy: budget.Never})
	// Three windows over the quota, of which two are free, and no more of that in the last one.
	passed := play(g, steady(12e6, 1, 300e3), end-1800*second, end+600*second)
	for at := end - 1800*second; at < end+600*second; at += 10 * second {
		if n := between(passed, at, at+10*second); n < quota/300*9 {
			t.Errorf("the ten seconds from %v on have %d bytes", time.Duration(at-end), n)
		}
	}
	last := slices.DeleteFunc(passed, func(e event) bool { return e.at <= end-300*second-2*jitter })
	if most := worst(last, 300*second+2*jitter); most > quota {
		t.Errorf("a sample that touches the next cycle has %d bytes", most)
	}
}

// The Book's clock is set, by an hour and by a day, back and forth: a gate keeps
// its own quota in every span, does not go dark, and forgets nothing of what was
// counted.
func TestClockSet(t *testing.T) {
	const quota, hour = int64(6e6), 3600 * second
	for _, with := range []bool{false, true} {
		b := newBook(time.Minute, 60)
		b.begin = midnight - 2*hour
		cfg := Config{Quota: quota, Window: time.Minute, Book: b}
		g := must(t, cfg)
		if with {
			g = spending(t, cfg, nothing)
		}
		var passed []event
		now := midnight
		for _, shift := range []int64{0, -hour, 0, hour, 24 * hour, 0, -24 * hour, 0} {
			b.shift = shift
			passed = append(passed, play(g, steady(5e5, 1, 1538), now, now+100*second)...)
			now += 100 * second
		}
		if w := worst(passed, 60*second); w > quota {
			t.Errorf("budget %v: a window holds %d bytes, quota %d", with, w, quota)
		}
		g.Flush()
		counted, _ := b.sums()
		if sum := between(passed, midnight, now+1); sum != counted {
			t.Errorf("budget %v: %d bytes passed, %d are counted", with, sum, counted)
		}
		for at := midnight; at < now; at += 5 * second {
			if n := between(passed, at, at+5*second); n < quota/60 {
				t.Errorf("budget %v: %d bytes in the 5 s from %v on", with, n, time.Duration(at-midnight))
			}
		}
	}
}

// asked is a book that records the largest number of slots that a call asks for.
type asked struct {
	*book
	most int64
}

func (a *asked) Counts(from, to int64, do func(lane int, start, offered, charged int64, marked bool)) {
	if from != 0 {
		a.most = max(a.most, (to-from)/a.slot)
	}
	a.book.Counts(from, to, do)
}

// A clock that is set by years does not stop the gate: it does not go through all slots in between.
func TestClockSetByYears(t *testing.T) {
	a := &asked{book: newBook(5*time.Minute, 60)}
	g := spending(t, Config{Quota: 1e6, Window: 5 * time.Minute, Book: a}, nothing)
	for i, year := range []int64{0, 1, 27, 0} {
		a.shift = year * 365 * 24 * 3600 * second
		at := midnight + int64(i)*60*second
		a.begin = at + a.shift - 3600*second
		if g.State(at); a.most > budget.Longest {
			t.Fatalf("year %d: %d slots", year, a.most)
		}
	}
}

// A gate's own bytes count once when the Book's clock is set back to a slot in which it has counted,
// and still count where the ledger has lost the table of a cycle.
func TestOwnBytes(t *testing.T) {
	b := newBook(time.Minute, 60)
	g := must(t, Config{Quota: 10e3, Window: time.Minute, Threshold: 1, Book: b})
	at := 1000 * second
	check := func() {
		t.Helper()
		if s := g.State(at); s.Used != 7000 {
			t.Errorf("%d bytes are in the window, want 7000", s.Used)
		}
	}
	for _, shift := range []int64{0, 0, -1, -1, -20, 0, 0} {
		b.shift = shift * second
		g.Arrive(at, &Packet{Bytes: 1000})
		at += second
	}
	check()
	for _, p := range b.pages {
		p.charged.Store(0)
	}
	check()
	at += 5 * second
	check()
	for range 200 {
		at += second
		g.State(at)
	}
	if n := len(g.win.(*shared).own); n > budget.Slots+2 {
		t.Errorf("%d slots are remembered", n)
	}
}

// Bytes that another gate counts up to two slots late use up free windows.
func TestCountedLate(t *testing.T) {
	for late := range int64(4) {
		b := newBook(5*time.Minute, 60)
		b.lanes, b.begin = [][]int64{{0}, {1}}, midnight
		g := spending(t, Config{Quota: 1e6, Window: 5 * time.Minute, Book: b}, budget.Config{Lanes: 2})
		at := midnight + 100*b.slot
		g.State(at)
		p := b.page(1, at/b.slot-late)
		p.charged.Add(2e6)
		p.marked.Set()
		if s := g.State(at + b.slot).Budget; (s.Used > 0) != (late <= 2) {
			t.Errorf("%d slots late: %d free windows are used", late, s.Used)
		}
	}
}

// The budget's window has each byte of its slots once, and a slot is marked from the first
// byte over the quota on.
func TestBudgetWindow(t *testing.T) {
	b := newBook(5*time.Minute, 60)
	b.begin = midnight
	cfg := Config{Quota: 700, Window: 5 * time.Minute, Threshold: 1, Book: b}
	g := spending(t, cfg, budget.Config{Policy: budget.Never})
	w := g.win.(*budgeted)
	for i := range int64(9) {
		at := midnight + i*b.slot
		g.Arrive(at, &Packet{Bytes: 100, Control: true})
		if n, marked := w.free(), b.page(0, at/b.slot).marked.Load(); n != 100*(i+1) || marked != (i >= 7) {
			t.Errorf("slot %d: %d bytes, marked %v", i, n, marked)
		}
	}
	w.depth, w.older = 0, 0 // the window begins with this slot
	if rate, opens := w.outlook(g.now, 0); rate < 1 || rate > 3 || opens != g.now {
		t.Errorf("%v bytes a second, want 600 in 300 to 305 s; opens in %d ns", rate, opens-g.now)
	}
	if _, opens := w.outlook(g.now, 650); opens <= g.now {
		t.Errorf("600 bytes are room for more than 650: opens in %d ns", opens-g.now)
	}
}

// In a marked slot all bytes count as beyond the gate's own window, so that room there lets
// none pass which the budget's window has no room for, unless control frames took that over its limit.
func TestMarkedSlot(t *testing.T) {
	for _, tt := range []struct {
		marked  bool
		control int64
		want    Verdict
	}{{false, 0, Pass}, {true, 0, Hold}, {true, 1000, Hold}, {true, 1001, Pass}} {
		b := newBook(time.Minute, 60)
		b.begin = midnight
		g := spending(t, Config{Quota: 10e3, Window: time.Minute, Threshold: 1, Book: b}, nothing)
		g.Arrive(midnight, &Packet{Bytes: 6000})
		g.Arrive(midnight+30*second, &Packet{Bytes: 3000})
		// The first frame has left the gate's window, and its slot not yet the budget's.
		at := midnight + 60*second + second*9/10
		if tt.marked {
			b.page(0, at/second).marked.Set()
		}
		g.Arrive(at, &Packet{Bytes: tt.control, Control: true})
		if v := g.Arrive(at, &Packet{Bytes: 2000}); v != tt.want {
			t.Errorf("%+v: verdict %d", tt, v)
		}
		w := g.win.(*budgeted)
		with, opens := w.outlook(at, 3000)
		without, _ := w.shared.outlook(at, 3000)
		if with < without || without == 0 || opens != at {
			t.Errorf("%+v: %v bytes a second, and %v without a budget; opens in %d ns", tt, with, without, opens-at)
		}
	}
}
