package gate

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"framepipe/internal/calendar"

	"pgregory.net/rapid"
)

type cell struct{ atomic.Int64 }

func (c *cell) Add(n int64) { c.Int64.Add(n) }

type mark struct{ atomic.Bool }

func (m *mark) Set() { m.Store(true) }

// page has the counts of a direction in a slot.
type page struct {
	charged, offered cell
	marked           mark
}

// book is a Book in memory, as a gate of one direction has it.
type book struct {
	slot, window int64
	pages        map[[2]int64]*page // by direction and slot
	dir          int64
	lanes        [][]int64 // directions that share a quota, this gate's first
	shift        int64     // its clock minus the gate's
	begin        int64     // where a budget begins to look
	cycle        func(at int64) (start, end int64)
	err          error
}

func newBook(window time.Duration, slots int64) *book {
	return &book{
		slot: int64(window) / slots, window: int64(window),
		pages: map[[2]int64]*page{}, lanes: [][]int64{{0}},
	}
}

func (b *book) page(dir, slot int64) *page {
	k := [2]int64{dir, slot}
	if b.pages[k] == nil {
		b.pages[k] = &page{}
	}
	return b.pages[k]
}

// sums returns the bytes of all slots.
func (b *book) sums() (charged, offered int64) {
	for _, p := range b.pages {
		charged += p.charged.Load()
		offered += p.offered.Load()
	}
	return charged, offered
}

func (b *book) View(now int64) (View, error) {
	i := (now + b.shift) / b.slot
	start := func(i int64) int64 { return i*b.slot - b.shift }
	p := b.page(b.dir, i)
	v := View{
		Charged: &p.charged, Offered: &p.offered, Marked: &p.marked,
		Start: start(i), End: start(i + 1), Shift: b.shift,
	}
	for _, dir := range b.lanes[0] {
		v.Now = append(v.Now, &b.page(dir, i).charged, &b.page(dir, i+1).charged)
	}
	for j := i; start(j) > v.Start-b.window; j-- {
		past := Past{End: start(j)}
		for _, dir := range b.lanes[0] {
			past.Charged = append(past.Charged, &b.page(dir, j-1).charged)
		}
		v.Past = append(v.Past, past)
	}
	return v, b.err
}

func (b *book) Before(v *View) (sum int64) {
	at := v.Start + v.Shift
	start, _ := b.cycle(at)
	for k, p := range b.pages {
		if start <= k[1]*b.slot && k[1]*b.slot < at {
			sum += p.charged.Load()
		}
	}
	return sum
}

func (b *book) Counts(from, to int64, do func(lane int, start, offered, charged int64, marked bool)) {
	if from == 0 {
		from = b.begin
	}
	for i := from / b.slot; i*b.slot < to; i++ {
		for lane, dirs := range b.lanes {
			var offered, charged int64
			marked := false
			for _, dir := range dirs {
				p := b.page(dir, i)
				offered += p.offered.Load()
				charged += p.charged.Load()
				marked = marked || p.marked.Load()
			}
			do(lane, i*b.slot, offered, charged, marked)
		}
	}
}

// fill offers a hundred frames of 1000 bytes, and returns the bytes that pass.
func fill(g *Gate, now int64) int64 {
	before := g.stats.Passed.Bytes
	for range 100 {
		g.Arrive(now, &Packet{Bytes: 1000})
	}
	return int64(g.stats.Passed.Bytes - before)
}

// Whatever two gates do that count in one Book, no window holds more than the
// quota of what both have passed, also when one of them is started again.
func TestSharedQuota(t *testing.T) {
	frames := 2000
	if testing.Short() {
		frames = 300
	}
	rapid.Check(t, func(t *rapid.T) {
		window := time.Duration(rapid.Int64Range(1e8, 10e9).Draw(t, "window"))
		quota := rapid.Int64Range(20e3, 3e6).Draw(t, "quota")
		seed := rapid.Uint64().Draw(t, "seed")
		book := newBook(window, rapid.Int64Range(1, 60).Draw(t, "slots"))
		policy := Policy(rapid.IntRange(0, 1).Draw(t, "policy"))
		cfg := Config{Quota: quota, Window: window, Policy: policy, Seed: seed, Book: book}
		gates := []*Gate{must(t, cfg), must(t, cfg)}
		rng := rand.New(rand.NewPCG(seed, 2))
		load := rapid.Float64Range(0.1, 30).Draw(t, "load")
		gap := 700 / (load * float64(quota) / window.Seconds()) * 1e9
		now := rapid.Int64Range(1e9, 2e18).Draw(t, "start")
		var passed []event
		pass := func(e event) { passed = append(passed, e) }
		killed := int64(0)
		for range frames {
			now += int64(rng.ExpFloat64() * gap)
			if rng.IntN(700) == 0 {
				now += rng.Int64N(2 * int64(window))
			}
			i := rng.IntN(2)
			for _, g := range gates {
				release(g, now, pass)
			}
			if rng.IntN(500) == 0 { // it loses its queue, and none of its counts
				gates[i] = must(t, cfg)
				killed++
			}
			arrive(gates[i], now, &Packet{Bytes: 64 + rng.Int64N(1454), Flow: rng.Uint64N(20)}, pass)
		}
		if w := worst(passed, int64(window)); w > quota {
			t.Fatalf("a window holds %d bytes, quota %d", w, quota)
		}
		if load > 2 && len(passed) == 0 {
			t.Fatal("nothing passed")
		}
		counted, _ := book.sums()
		sum := between(passed, 0, now+1)
		for _, g := range gates {
			counted -= g.credit
		}
		if counted < sum || counted > sum+killed*quota>>10 {
			t.Fatalf("%d passed, and %d are counted", sum, counted)
		}
	})
}

// Gates at the same moment: neither the quota nor the count is ever wrong.
func TestSharedAtOnce(t *testing.T) {
	const quota = 1_000_000
	book := newBook(time.Hour, 60)
	var gates [4]*Gate
	for i := range gates {
		gates[i] = must(t, Config{Quota: quota, Window: time.Hour, Threshold: 1, Policy: Random, Book: book})
		gates[i].State(start)
	}
	var wg sync.WaitGroup
	for _, g := range gates {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range int64(3000) {
				g.Arrive(start, &Packet{Bytes: 100 + j%1000})
			}
			g.Flush()
		}()
	}
	wg.Wait()
	sum := int64(0)
	for _, g := range gates {
		sum += int64(g.stats.Passed.Bytes)
	}
	if charged, _ := book.sums(); sum > quota || sum < quota-4*1100 || charged != sum {
		t.Errorf("%d passed of %d, %d counted", sum, quota, charged)
	}
}

// A window of a cycle goes on where it was, too, and its rest is paced over the rest of the cycle.
func TestSharedCycle(t *testing.T) {
	book := newBook(time.Minute, 60)
	book.cycle = func(int64) (int64, int64) { return 0, 1e15 }
	cfg := Config{Quota: 1e6, Cycle: book.cycle, Policy: Random, Threshold: 1, Book: book}
	now, passed := int64(5e14), int64(0)
	for i := range 12 {
		g := must(t, cfg)
		now += 10 * second
		passed += fill(g, now)
		s := g.State(now)
		if want := min(int64(i+1)*100e3, 1e6); s.Used != want || passed != want || s.Quota != 1e6 {
			t.Errorf("%d used, and %d passed, want %d", s.Used, passed, want)
		}
		if r, _ := g.win.outlook(now, 0); i == 4 && (r < 0.999 || r > 1.001) {
			t.Errorf("%.3f bytes a second, want 1: 500 kB for 500,000 s", r)
		}
	}
}

// While a Book cannot be used, a transfer cap holds the bytes that it had and those that
// pass, and the Book has all of them as soon as it can be used. The time before the first
// cycle counts for it.
func TestSharedCycleFails(t *testing.T) {
	const day = int64(24 * time.Hour)
	book, shift := newBook(time.Minute, 60), int64(0)
	book.cycle = calendar.Calendar{Length: 24 * time.Hour}.Bounds
	g := must(t, Config{Quota: 1e6, Cycle: book.cycle, Policy: Random, Threshold: 1, Book: book,
		Wall: func(now int64) int64 { return now + shift }})
	now := 1000*day + day/2
	for _, tt := range []struct {
		name                       string
		fails                      bool
		shift, offer, pass, inBook int64
	}{
		{"at boot", true, -1000 * day, 100e3, 100e3, 0},
		{"the clock is set", false, 0, 200e3, 200e3, 300e3},
		{"another year", true, -500 * day, 300e3, 300e3, 300e3},
		{"back again", false, 0, 500e3, 400e3, 1e6},
	} {
		book.err, shift = nil, tt.shift
		if tt.fails {
			book.err = errors.New(tt.name)
		}
		passed := int64(0)
		for range tt.offer / 100e3 {
			passed += fill(g, now)
			now += second
		}
		now += 20 * second
		g.Flush()
		if n, _ := book.sums(); passed != tt.pass || n != tt.inBook || g.Err() != book.err {
			t.Errorf("%+v: %d passed, %d in the book; %v", tt, passed, n, g.Err())
		}
	}
	if _, offered := book.sums(); offered != 1100e3 {
		t.Errorf("%d bytes are offered in the book, 1100000 arrived", offered)
	}
}

// A frame that is offered in one aligned window and passes in the next is charged once, in
// the window in which it was billed, with a Book and without.
func TestCarried(t *testing.T) {
	book := newBook(time.Minute, 60)
	book.cycle = calendar.Calendar{Length: time.Minute}.Bounds
	for name, cfg := range map[string]Config{
		"aligned": {Window: time.Minute, Align: true},
		"cycle":   {Cycle: book.cycle},
		"Book":    {Cycle: book.cycle, Book: book},
	} {
		cfg.Quota, cfg.Offered, cfg.Threshold = 10e3, true, 1
		g := must(t, cfg)
		const end = 1000 * 60 * second
		p := Packet{Bytes: 6000}
		g.Arrive(end-1, &p)
		hold(t, g, end-1, &p)
		if s := g.State(end - 1); s.Used != 2*p.Bytes {
			t.Errorf("%s: %d bytes are charged, want %d", name, s.Used, 2*p.Bytes)
		}
		if h := g.Release(end); h == nil {
			t.Errorf("%s: the frame is held in the next window", name)
		}
		if s := g.State(end); s.Used != 0 {
			t.Errorf("%s: %d bytes are charged to the next window", name, s.Used)
		}
	}
}

// A flood inbound uses up a quota that both directions share. Outbound keeps its floor, and
// none where that is not allowed. Frames that are held or dropped are offered, too.
func TestSharedFloor(t *testing.T) {
	const quota, window = 5_000_000, 5 * second
	const least = floor * quota / 5.0
	for _, allowed := range []bool{true, false} {
		book := newBook(5*time.Second, 60)
		in := must(t, Config{Quota: quota, Window: 5 * time.Second, Offered: true, Book: book})
		out := must(t, Config{Quota: quota, Window: 5 * time.Second, Floor: allowed, Book: book})
		var passed []event
		for now := start; now < start+4*window; now += 1e6 {
			if now >= start+window { // outbound had most of the quota before
				offer(in, now, &Packet{Bytes: 5000}, func(event) {})
			}
			offer(out, now, &Packet{Bytes: 800}, func(e event) { passed = append(passed, e) })
		}
		for at := start + window + second; at < start+4*window; at += second {
			n := float64(between(passed, at, at+second))
			if allowed && (n < 0.9*least || n > 1.1*least) || !allowed && n > 0 {
				t.Errorf("floor %v: second %d has %.0f bytes, the floor is %.0f", allowed, (at-start)/second, n, least)
			}
		}
		if m := longestWait(passed); m > time.Duration(out.longest()) {
			t.Errorf("a frame waited %v", m)
		}
		in.Flush()
		out.Flush()
		want := in.stats.In.Bytes + out.stats.In.Bytes
		if _, offered := book.sums(); uint64(offered) != want {
			t.Errorf("%d bytes are offered in the book, %d arrived", offered, want)
		}
	}
}

// A Book that fails leaves a gate with a quota of its own, of which it has used what
// it used, until the Book can be used again. Bytes that passed meanwhile count then, too.
func TestSharedFails(t *testing.T) {
	gone := errors.New("gone")
	for _, budget := range []bool{false, true} {
		b := newBook(time.Minute, 60)
		b.begin = midnight - 3600*second
		cfg := Config{Quota: 10e3, Window: time.Minute, Threshold: 1, Policy: Random, Book: b}
		g := must(t, cfg)
		if budget {
			g = spending(t, cfg, nothing)
		}
		for _, tt := range []struct {
			seconds, others int64
			err             error
			pass            int64
		}{
			{0, 0, gone, 10e3},
			{10, 0, nil, 0},
			{80, 4000, nil, 6e3},
			{90, 0, gone, 4e3},
			{100, 0, nil, 0},
		} {
			at := midnight + tt.seconds*second
			b.err = tt.err
			b.page(0, at/b.slot).charged.Add(tt.others)
			if passed := fill(g, at); passed != tt.pass || g.Err() != tt.err {
				t.Errorf("budget %v, %+v: %d passed, %v", budget, tt, passed, g.Err())
			}
		}
	}
}

// jumping is a Book in which others use up a lot after the gate has looked a few times.
type jumping struct {
	*book
	looks, after int
}

func (b *jumping) Add(int64) {}

func (b *jumping) Load() int64 {
	if b.looks++; b.looks > b.after {
		return 1e6
	}
	return 0
}

func (b *jumping) View(now int64) (View, error) {
	v, err := b.book.View(now)
	v.Now = append(v.Now, b)
	return v, err
}

// A frame that Admit does not let pass was not counted, whenever others use up the
// quota meanwhile; and one that it lets pass was counted once. It passes only if there is
// room after it was added.
func TestAdmitOnce(t *testing.T) {
	for _, offered := range []bool{false, true} {
		for after := range 12 {
			book := &jumping{book: newBook(time.Second, 60), after: after}
			g := must(t, Config{Quota: 1e6, Window: time.Second, Offered: offered, Book: book})
			p := Packet{Bytes: 40e3}
			want := Counts{}
			if after >= 3 { // for the threshold, before and after the bytes are added
				want.Add(p.Bytes)
			}
			admitted := g.Admit(second, &p)
			g.Flush()
			own, _ := book.sums()
			if admitted != (after >= 3) || g.stats.In != want || g.stats.Passed != want || own != int64(want.Bytes) {
				t.Errorf("offered %v, others after %d looks: In %v, Passed %v, %d charged, want %v",
					offered, after, g.stats.In, g.stats.Passed, own, want)
			}
		}
	}
}

// The rate that a shared window can sustain is that of a private one with the
// same slots.
func TestSharedSustainable(t *testing.T) {
	const length = slotsPerWindow * time.Millisecond
	rng := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		cfg := &Config{Quota: 1e6, Window: length, Book: newBook(length, slotsPerWindow)}
		a, b := newSliding(cfg), newWindow(cfg)
		now := int64(1e12)
		for range 100 {
			now += rng.Int64N(int64(20 * time.Millisecond))
			n := rng.Int64N(20e3)
			for _, w := range []window{a, b} {
				w.advance(now)
				w.add(n)
			}
		}
		want, opens := a.outlook(now, a.limit/4)
		got, same := b.outlook(now, b.quota()/4)
		if b.used() != a.used() || got < want*0.999999 || got > want*1.000001 || same != opens {
			t.Fatalf("used %d, %d; rate %.1f, %.1f", b.used(), a.used(), got, want)
		}
	}
}

// Two gates that pace in a long window do not use up its room long before bytes leave it.
func TestSharedNeverDark(t *testing.T) {
	const quota, slot, room = int64(3e9), 60 * second, int64(1e6)
	const window = slotsPerWindow * slot
	cfg := Config{Quota: quota, Window: time.Duration(window), Book: newBook(time.Duration(window), 60)}
	gates := []*Gate{must(t, cfg), must(t, cfg)}
	const begin = 100 * window
	for _, g := range gates {
		g.Arrive(begin, &Packet{Bytes: (quota - room) / 2, Control: true})
	}
	const end = begin + window + slot // when they leave
	var passed []event
	for now := end - 50*second; now < end; now += 10e6 {
		for i, g := range gates {
			offer(g, now, &Packet{Bytes: 1000, Flow: uint64(i)}, func(e event) { passed = append(passed, e) })
		}
	}
	for at := end - 50*second; at < end-5*second; at += second {
		if n := between(passed, at, at+second); n < 1000 {
			t.Errorf("%v before the bytes leave, a second has %d bytes", time.Duration(end-at), n)
		}
	}
}
