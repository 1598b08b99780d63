package gate

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"sync/atomic"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/pollertest"

	"pgregory.net/rapid"
)

// folio is what a ledger is, in memory: slots of two directions.
type folio struct {
	slot, window int64
	pages        map[[2]int64]*page
}

func newFolio(slot int64) *folio {
	return &folio{slot: slot, window: budget.Slots * slot, pages: map[[2]int64]*page{}}
}

type page struct {
	charged, offered cell
	marked           atomic.Bool
}

// Set and Load are Flag's.
func (p *page) Set()       { p.marked.Store(true) }
func (p *page) Load() bool { return p.marked.Load() }

func (f *folio) page(dir, slot int64) *page {
	k := [2]int64{dir, slot}
	if f.pages[k] == nil {
		f.pages[k] = &page{}
	}
	return f.pages[k]
}

// desk is a folio as a gate of one direction has it.
type desk struct {
	*folio
	dir   int64
	lanes [][]int64
	shift int64
	begin int64 // where the budget begins to look
	err   error
}

func (d *desk) View(now int64) (View, error) {
	i := (now + d.shift) / d.slot
	p := d.page(d.dir, i)
	s := View{Charged: &p.charged, Offered: &p.offered, Marked: p, Start: i*d.slot - d.shift, End: (i+1)*d.slot - d.shift, Shift: d.shift}
	for _, x := range d.lanes[0] {
		s.Now = append(s.Now, &d.page(x, i).charged, &d.page(x, i+1).charged)
	}
	for j := i - 1; (j+1)*d.slot > i*d.slot-d.window; j-- {
		past := Past{End: (j+1)*d.slot - d.shift}
		for _, x := range d.lanes[0] {
			past.Charged = append(past.Charged, &d.page(x, j).charged)
		}
		s.Past = append(s.Past, past)
	}
	return s, d.err
}

func (d *desk) Before(*View) int64 { panic("no cycle") }

func (d *desk) Counts(from, to int64, do func(lane int, start, offered, charged int64, marked bool)) {
	if from == 0 {
		from = d.begin
	}
	for i := from / d.slot; i*d.slot < to; i++ {
		for lane, dirs := range d.lanes {
			var offered, charged int64
			marked := false
			for _, x := range dirs {
				p := d.page(x, i)
				offered, charged, marked = offered+p.offered.Load(), charged+p.charged.Load(), marked || p.marked.Load()
			}
			do(lane, i*d.slot, offered, charged, marked)
		}
	}
}

// Frames through gates that share a ledger and its budget: for every phase of the
// provider's poller, and in every cycle, no more windows hold more than the quota
// than are free, and no poller of any kind bills more. The phases are finer than the
// slots; gates are started anew, and lag behind now and then.
func TestBudgetPromise(t *testing.T) {
	slots := int64(1500)
	if testing.Short() {
		slots = 400
	}
	beyond := 0
	rapid.Check(t, func(t *rapid.T) {
		const fine = 5
		slot := rapid.Int64Range(1, 1000).Draw(t, "slot") * fine * 1e6
		window := slot * budget.Slots
		quota := rapid.Int64Range(50e3, 1e6).Draw(t, "quota")
		seed := rapid.Uint64().Draw(t, "seed")
		rng := rand.New(rand.NewPCG(seed, 7))
		cycle := calendar.Calendar{Length: time.Duration(slot * rapid.SampledFrom([]int64{100, 300, 777, 2000}).Draw(t, "cycle"))}.Bounds
		free := budget.Ratio{Num: rapid.SampledFrom([]int64{0, 50, 150, 400}).Draw(t, "free"), Den: 1000}
		lanes := rapid.SampledFrom([][][]int64{{{0}}, {{0}, {1}}, {{0, 1}}}).Draw(t, "lanes")
		spend := rapid.SampledFrom([]budget.Policy{budget.Weighed, budget.Greedy}).Draw(t, "spend")
		policy := rapid.SampledFrom([]Policy{Pace, Random}).Draw(t, "policy")
		threshold := rapid.SampledFrom([]float64{0.5, 0.75, 1}).Draw(t, "threshold")
		start := rapid.Int64Range(1000, 5000).Draw(t, "start") * slot
		poller := budget.Poller{Jitter: time.Duration(window) / rapid.SampledFrom([]time.Duration{30, 150, 1e18}).Draw(t, "jitter")}
		f := newFolio(slot)
		f.window += 2 * int64(poller.Jitter)
		dirs := []int64{0, 0}
		if len(lanes) > 1 || len(lanes[0]) > 1 {
			dirs[1] = 1
		}
		made := func(i int) *Gate {
			own := append([][]int64(nil), lanes...)
			if len(own) > 1 && dirs[i] == 1 {
				own[0], own[1] = own[1], own[0]
			}
			b, err := budget.New(budget.Config{Quota: quota, Lanes: len(lanes), Window: time.Duration(window), Free: free, Cycle: cycle, Policy: spend, Poller: poller})
			if err != nil {
				t.Fatal(err)
			}
			g, err := New(Config{Quota: quota, Window: time.Duration(window), Threshold: threshold, Queue: time.Duration(slot / 20), Policy: policy, Seed: seed, Poller: poller,
				Book: &desk{folio: f, dir: dirs[i], lanes: own, begin: start}, Budget: b})
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		gates := []*Gate{made(0), made(1)}
		// passed holds the bytes of each direction in fine slots, sent those at each time.
		var passed [2][]int64
		var sent [2][]event
		for d := range passed {
			passed[d] = make([]int64, slots*fine)
		}
		pass := func(i int, now, bytes int64) {
			passed[dirs[i]][(now-start)/(slot/fine)] += bytes
			sent[dirs[i]] = append(sent[dirs[i]], event{at: now, bytes: bytes})
		}
		level := [2]float64{}
		last := start
		for now := start; ; {
			for i := range level {
				if rng.IntN(200) == 0 {
					level[i] = []float64{0, 0.3, 0.9, 1.5, 4, 12}[rng.IntN(6)]
				}
			}
			now += int64(rng.ExpFloat64() * float64(slot) / 6)
			if now >= start+slots*slot {
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
			g := gates[i]
			for h := g.Release(at); h != nil; h = g.Release(at) {
				pass(i, g.now, h.Bytes)
				g.Done(h)
			}
			p := Packet{Bytes: int64(level[i] * float64(quota) / budget.Slots / 3 * rng.Float64()), Flow: rng.Uint64N(9)}
			if p.Bytes < 64 {
				continue
			}
			switch g.Arrive(at, &p) {
			case Pass:
				pass(i, max(at, g.now), p.Bytes)
			case Hold:
				g.Hold(&p, p.Flow, 64)
			}
		}
		width := int64(budget.Slots * fine)
		part := slot / fine
		sums := make([][]int64, len(lanes))
		for l, dirs := range lanes {
			sums[l] = make([]int64, slots*fine+1)
			for i := range slots * fine {
				sums[l][i+1] = sums[l][i]
				for _, d := range dirs {
					sums[l][i+1] += passed[d][i]
				}
			}
		}
		if len(lanes) == 1 && len(lanes[0]) == 1 && dirs[1] != 0 {
			t.Fatal("a direction that nobody looks at")
		}
		var counters []func(int64) float64
		for _, dirs := range lanes {
			var events []event
			for _, d := range dirs {
				events = append(events, sent[d]...)
			}
			counters = append(counters, counterOf(events))
		}
		for _, k := range pollertest.Kinds(poller.Jitter) {
			for at := start; k.Late == 0 && at < start+slots*slot; {
				from, to := cycle(at)
				polls, _ := k.Polls(rng, from, to, time.Duration(window))
				p := budget.Hundred - budget.Hundred*budget.Percentile(free.Num)/budget.Percentile(free.Den)
				if b := pollertest.Bill(polls, from, to, time.Duration(window), p, counters...); b > float64(quota)*(1+1e-9) {
					t.Fatalf("jitter %v, %s: billed %.4f of the quota", poller.Jitter, k.Name, b/float64(quota))
				}
				at = to
			}
		}
		begin := start / part
		for at := start; at < start+slots*slot; {
			from, to := cycle(at)
			over, whole := make([]int64, width), make([]int64, width)
			for k := from/part - width; k*part < to; k++ {
				p := (k%width + width) % width
				if k*part >= from && k*part+window <= to {
					whole[p]++
				}
				i, j := min(max(k-begin, 0), slots*fine), min(max(k+width-begin, 0), slots*fine)
				for l := range sums {
					if sums[l][j]-sums[l][i] > quota && k*part+window > from {
						over[p]++
						break
					}
				}
			}
			for p := range over {
				if over[p] > whole[p]*free.Num/free.Den {
					t.Fatalf("phase %d: %d windows over, of %d, %d free", p, over[p], whole[p], whole[p]*free.Num/free.Den)
				}
				beyond += int(over[p])
			}
			at = to
		}
	})
	if beyond == 0 && !testing.Short() {
		t.Error("no window ever was over, and so nothing was tested")
	}
}

// counterOf returns the bytes of events up to a time.
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
	const slot, quota = int64(5e9), int64(600e6) // 2 MB/s
	for _, tt := range []struct {
		free int64 // windows
		want float64
	}{
		{0, 1}, {3, 4}, {50, 20},
	} {
		t.Run(fmt.Sprint(tt.free, " free"), func(t *testing.T) {
			f := newFolio(slot)
			const begin = 1000 * 300 * int64(time.Second)
			cycle := func(now int64) (int64, int64) {
				if now < begin {
					return 0, begin
				}
				n := (now - begin) / (2001 * 60 * slot)
				return begin + n*2001*60*slot, begin + (n+1)*2001*60*slot
			}
			b, err := budget.New(budget.Config{Quota: quota, Free: budget.Ratio{Num: tt.free, Den: 2000}, Cycle: cycle, Policy: budget.Greedy})
			if err != nil {
				t.Fatal(err)
			}
			g := must(t, Config{Quota: quota, Window: 5 * time.Minute, Threshold: 0.75, Queue: 100 * time.Millisecond,
				Book: &desk{folio: f, lanes: [][]int64{{0}}, begin: begin}, Budget: b})
			start := begin + 600*slot
			const full = 40e6 // bytes a second, twenty times the quota
			passed := play(g, func(now int64) (int64, Packet) {
				return now + 60e3*1e9/full, Packet{Bytes: 60e3, Flow: 1}
			}, start, start+int64(20*time.Minute))
			most := float64(worst(passed, 60*slot)) / float64(quota)
			if most < 0.98*tt.want || most > 1.01*tt.want+0.01 {
				// Of few windows a burst has all only if it ends with one.
				if tt.free != 3 || most < 2 {
					t.Errorf("the fullest window has %.3f of the quota, want %v", most, tt.want)
				}
			}
			s := b.Stats(0)
			if s.Left < 0 || tt.free == 3 && s.Left != 0 {
				t.Errorf("%+v", s)
			}
			// Never dark: each ten seconds have something.
			least := int64(1 << 62)
			for at := start; at+int64(10*time.Second) < start+int64(20*time.Minute); at += int64(10 * time.Second) {
				least = min(least, between(passed, at, at+int64(10*time.Second)))
			}
			t.Logf("fullest window %.3f, least ten seconds %.3f MB of 20, %+v", most, float64(least)/1e6, s)
			if least < 1e6 {
				t.Errorf("ten seconds have %d bytes", least)
			}
		})
	}
}

// When inbound will be billed at five times the quota in any case, outbound may have as much, and
// with Hard no more than the quota. Its windows over the quota are marked, and while the Book
// fails the quota holds.
func TestSpent(t *testing.T) {
	const slot, quota, flood = int64(5e9), int64(600e6), int64(50e6)
	for _, hard := range []bool{false, true} {
		f := newFolio(slot)
		start := 1000 * 24 * int64(time.Hour)
		for i := range int64(18 * 60) {
			p := f.page(1, start/slot+i)
			p.charged.Add(flood)
			p.Set()
		}
		b, err := budget.New(budget.Config{
			Quota: quota, Lanes: 2, Separate: true, Hard: hard, Free: budget.Ratio{Num: 5, Den: 100},
			Cycle: calendar.Calendar{Length: 24 * time.Hour}.Bounds, Policy: budget.Never,
		})
		if err != nil {
			t.Fatal(err)
		}
		d := &desk{folio: f, lanes: [][]int64{{0}, {1}}, begin: start}
		g := must(t, Config{Quota: quota, Window: 5 * time.Minute, Threshold: 0.75, Queue: 100 * time.Millisecond, Book: d, Budget: b})
		from := start + 20*60*slot
		passed := play(g, func(now int64) (int64, Packet) {
			return now + 5e6, Packet{Bytes: 60e3, Flow: 1}
		}, from, from+int64(20*time.Minute))
		got, want := float64(worst(passed, 60*slot))/float64(quota), 5.0
		if hard {
			want = 1
		}
		if got < 0.97*want || got > 1.01*want {
			t.Errorf("hard %v: the fullest window has %.3f of the quota, want %v", hard, got, want)
		}
		if marked := f.page(0, g.now/slot-1).Load(); marked == hard {
			t.Errorf("hard %v: the last slot is marked: %v", hard, marked)
		}
		d.err = errors.New("gone")
		if s := g.State(g.now + slot); s.Quota != quota {
			t.Errorf("hard %v: the quota is %d without the Book", hard, s.Quota)
		}
	}
}

// The Book's clock is set, by an hour and by a month, back and forth: a gate keeps
// its own quota in every span, does not go dark, and forgets nothing of what was
// counted.
func TestClockSet(t *testing.T) {
	const slot, quota = int64(1e9), int64(6e6)
	for _, with := range []bool{false, true} {
		f := newFolio(slot)
		const month = 24 * int64(time.Hour)
		start := 10 * month
		d := &desk{folio: f, lanes: [][]int64{{0}}, begin: start - 2*int64(time.Hour)}
		cfg := Config{Quota: quota, Window: time.Minute, Threshold: 0.75, Queue: 100 * time.Millisecond, Book: d}
		if with {
			b, err := budget.New(budget.Config{Quota: quota, Window: time.Minute, Free: budget.Ratio{Num: 0, Den: 1}, Cycle: calendar.Calendar{Length: time.Duration(month)}.Bounds})
			if err != nil {
				t.Fatal(err)
			}
			cfg.Budget = b
		}
		g := must(t, cfg)
		var passed []event
		from := start
		for _, shift := range []int64{0, -int64(time.Hour), 0, int64(time.Hour), month, 0, -month, 0} {
			d.shift = shift
			to := from + int64(100*time.Second)
			passed = append(passed, play(g, steady(5e5, 1), from, to)...)
			from = to
		}
		if w := worst(passed, 60*slot); w > quota {
			t.Errorf("budget %v: a window holds %d bytes, quota %d", with, w, quota)
		}
		g.Flush()
		sum, counted := int64(0), int64(0)
		for _, e := range passed {
			sum += e.bytes
		}
		for _, p := range f.pages {
			counted += p.charged.Load()
		}
		if sum != counted {
			t.Errorf("budget %v: %d bytes passed, %d are counted", with, sum, counted)
		}
		for at := start; at+5*slot <= from; at += 5 * slot {
			if n := between(passed, at, at+5*slot); n < quota/60 {
				t.Errorf("budget %v: %d bytes in the 5 s from %v on", with, n, time.Duration(at-start))
			}
		}
	}
}

// Bytes that pass while the Book cannot be used are held against the quota as others are.
func TestBudgetFails(t *testing.T) {
	const slot, quota = int64(1e9), int64(60e6)
	begin := 10 * int64(24*time.Hour)
	for _, name := range []string{"from the start", "later"} {
		f := newFolio(slot)
		b, err := budget.New(budget.Config{Quota: quota, Window: time.Minute, Free: budget.Ratio{Num: 0, Den: 1}, Cycle: calendar.Calendar{Length: 24 * time.Hour}.Bounds})
		if err != nil {
			t.Fatal(err)
		}
		d := &desk{folio: f, lanes: [][]int64{{0}}, begin: begin - 3600e9}
		g := must(t, Config{Quota: quota, Window: time.Minute, Threshold: 0.75, Queue: 100 * time.Millisecond, Book: d, Budget: b})
		at := begin
		go10 := func() (passed []event) {
			at += 10e9
			return play(g, steady(20e6, 1), at-10e9, at)
		}
		var passed []event
		if name != "from the start" {
			passed = append(passed, play(g, steady(1e5, 1), at, at+10e9)...)
			at += 10e9
		}
		d.err = errors.New("1970")
		passed = append(passed, go10()...)
		d.err = nil
		for range 3 {
			passed = append(passed, go10()...)
		}
		if w := worst(passed, 60*slot); w > quota || w < quota/2 {
			t.Errorf("%s: a window holds %d bytes, quota %d", name, w, quota)
		}
	}
}

// When the Book's clock is set back to a slot in which the gate has counted, its bytes there
// are its own still, and count once.
func TestClockSetBackBySlot(t *testing.T) {
	const slot = int64(1e9)
	d := &desk{folio: newFolio(slot), lanes: [][]int64{{0}}}
	g := must(t, Config{Quota: 10e3, Window: time.Minute, Threshold: 1, Book: d})
	at := 1000 * slot
	for _, shift := range []int64{0, 0, -slot, -slot, -20 * slot, 0, 0} {
		d.shift = shift
		if g.Arrive(at, &Packet{Bytes: 1000}) != Pass {
			t.Fatal("a frame does not pass")
		}
		at += slot
	}
	if s := g.State(at); s.Used != 7000 {
		t.Errorf("%d bytes are in the window, want 7000", s.Used)
	}
	for range 200 {
		at += slot
		g.State(at)
	}
	if n := len(g.win.(*shared).own); n > budget.Slots+2 {
		t.Errorf("%d slots are remembered", n)
	}
}

// Bytes that another gate counts up to two slots late use up free windows.
func TestCountedLate(t *testing.T) {
	const slot, start = int64(5e9), 1000 * 24 * int64(time.Hour)
	for late := range int64(4) {
		f := newFolio(slot)
		b, err := budget.New(budget.Config{Quota: 1e6, Lanes: 2, Free: budget.Ratio{Num: 5, Den: 100}, Cycle: calendar.Calendar{Length: 24 * time.Hour}.Bounds})
		if err != nil {
			t.Fatal(err)
		}
		g := must(t, Config{Quota: 1e6, Window: 5 * time.Minute, Book: &desk{folio: f, lanes: [][]int64{{0}, {1}}, begin: start}, Budget: b})
		at := start + 100*slot
		g.State(at)
		p := f.page(1, at/slot-late)
		p.charged.Add(2e6)
		p.Set()
		if s := g.State(at + slot).Budget; (s.Used > 0) != (late <= 2) {
			t.Errorf("%d slots late: %d free windows are used", late, s.Used)
		}
	}
}

// The budget's window has each byte of its slots once, and a slot is marked from the first
// byte over the quota on.
func TestBudgetWindow(t *testing.T) {
	const slot, start = int64(5e9), 1000 * 24 * int64(time.Hour)
	f := newFolio(slot)
	b, err := budget.New(budget.Config{Quota: 700, Free: budget.Ratio{Num: 5, Den: 100}, Policy: budget.Never, Cycle: calendar.Calendar{Length: 24 * time.Hour}.Bounds})
	if err != nil {
		t.Fatal(err)
	}
	g := must(t, Config{Quota: 700, Window: 5 * time.Minute, Threshold: 1, Book: &desk{folio: f, lanes: [][]int64{{0}}, begin: start}, Budget: b})
	w := g.win.(*budgeted)
	for i := range int64(9) {
		g.Arrive(start+i*slot, &Packet{Bytes: 100, Control: true})
		if got := w.free(); got != 100*(i+1) {
			t.Errorf("slot %d: %d bytes", i, got)
		}
		if got := f.page(0, start/slot+i).Load(); got != (i >= 7) {
			t.Errorf("slot %d: marked %v", i, got)
		}
	}
	w.depth, w.older = 0, 0 // the window begins with this slot
	if rate, _ := w.outlook(g.now, 0); rate < 1 || rate > 3 {
		t.Errorf("%v bytes a second, want 600 in 300 to 305 s", rate)
	}
}

// In a marked slot all bytes count as beyond the gate's own window, so that room there lets
// none pass which the budget's window has no room for.
func TestMarkedSlot(t *testing.T) {
	const slot, start = int64(1e9), 1000 * int64(60e9)
	for _, marked := range []bool{false, true} {
		f := newFolio(slot)
		b, err := budget.New(budget.Config{Quota: 10e3, Window: time.Minute, Free: budget.Ratio{Num: 0, Den: 1}, Cycle: calendar.Calendar{Length: 24 * time.Hour}.Bounds})
		if err != nil {
			t.Fatal(err)
		}
		g := must(t, Config{Quota: 10e3, Window: time.Minute, Threshold: 1, Book: &desk{folio: f, lanes: [][]int64{{0}}, begin: start}, Budget: b})
		pass := func(at, bytes int64) Verdict { return g.Arrive(at, &Packet{Bytes: bytes}) }
		if pass(start, 6000) != Pass || pass(start+30*slot, 3000) != Pass {
			t.Fatal("an empty window lets nothing pass")
		}
		// The first frame has left the gate's window, and its slot not yet the budget's.
		at := start + 60*slot + slot*9/10
		if marked {
			f.page(0, at/slot).Set()
		}
		if v := pass(at, 2000); (v == Pass) == marked {
			t.Errorf("marked %v: verdict %d", marked, v)
		}
		w := g.win.(*budgeted)
		with, _ := w.outlook(at, 0)
		without, _ := w.shared.outlook(at, 0)
		if with < without || without == 0 {
			t.Errorf("%v bytes a second, and %v without a budget", with, without)
		}
	}
}

// Where the ledger has lost the table of a cycle, and with it bytes of this gate, those
// are still held against the quota.
func TestCountsLost(t *testing.T) {
	const slot = int64(1e9)
	d := &desk{folio: newFolio(slot), lanes: [][]int64{{0}}}
	g := must(t, Config{Quota: 10e3, Window: time.Minute, Threshold: 1, Book: d})
	at := 1000 * slot
	for range 2 {
		if g.Arrive(at, &Packet{Bytes: 2000}) != Pass {
			t.Fatal("a frame does not pass")
		}
		at += slot
	}
	for _, p := range d.pages {
		p.charged.Store(0)
	}
	for _, now := range []int64{at - 1, at, at + 5*slot} {
		if s := g.State(now); s.Used != 4000 {
			t.Errorf("%d bytes are in the window, want 4000", s.Used)
		}
	}
}
