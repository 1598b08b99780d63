package gate

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"

	"pgregory.net/rapid"
)

type cell struct{ atomic.Int64 }

func (c *cell) Add(n int64) { c.Int64.Add(n) }

// shelf is a Book in memory, of slots that begin on the clock.
type shelf struct {
	mu      sync.Mutex
	slot    int64
	window  int64
	cells   map[int64]*cell
	broken  error
	offered cell // of all slots
}

func newShelf(window time.Duration, slots int64) *shelf {
	return &shelf{slot: int64(window) / slots, window: int64(window), cells: map[int64]*cell{}}
}

func (s *shelf) cell(i int64) *cell {
	if s.cells[i] == nil {
		s.cells[i] = &cell{}
	}
	return s.cells[i]
}

func (s *shelf) View(now int64) (View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := now / s.slot
	c := s.cell(i)
	slot := View{Charged: c, Offered: &s.offered, Now: []Counter{c}, Start: i * s.slot, End: (i + 1) * s.slot}
	for j := i - 1; (j+1)*s.slot > slot.Start-s.window; j-- {
		slot.Past = append(slot.Past, Past{[]Counter{s.cell(j)}, (j + 1) * s.slot})
	}
	return slot, s.broken
}

func (s *shelf) Counts(int64, int64, func(int, int64, int64, int64, bool)) { panic("no budget") }

func (s *shelf) Before(slot *View) (sum int64) {
	for i, c := range s.cells {
		if i*s.slot < slot.Start {
			sum += c.Load()
		}
	}
	return sum
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
		policy := Policy(rapid.IntRange(0, 1).Draw(t, "policy"))
		book := newShelf(window, rapid.Int64Range(1, 60).Draw(t, "slots"))
		made := func() *Gate {
			g, err := New(Config{Quota: quota, Window: window, Threshold: 0.75, Queue: 100 * time.Millisecond, Policy: policy, Seed: seed, Book: book})
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		gates := []*Gate{made(), made()}
		rng := rand.New(rand.NewPCG(seed, 2))
		load := rapid.Float64Range(0.1, 30).Draw(t, "load")
		gap := 700 / (load * float64(quota) / window.Seconds()) * 1e9
		now := rapid.Int64Range(1e9, 2e18).Draw(t, "start")
		var passed []event
		killed := int64(0)
		for range frames {
			now += int64(rng.ExpFloat64() * gap)
			if rng.IntN(700) == 0 {
				now += rng.Int64N(2 * int64(window))
			}
			i := rng.IntN(2)
			for _, g := range gates {
				for h := g.Release(now); h != nil; h = g.Release(now) {
					passed = append(passed, event{now, h.Bytes, 0, 0})
					g.Done(h)
				}
			}
			if rng.IntN(500) == 0 { // it loses its queue, and none of its counts
				gates[i] = made()
				killed++
			}
			p := Packet{Bytes: 64 + rng.Int64N(1454), Flow: rng.Uint64N(20)}
			switch gates[i].Arrive(now, &p) {
			case Pass:
				passed = append(passed, event{now, p.Bytes, 0, 0})
			case Hold:
				gates[i].Hold(&p, p.Flow, 64)
			}
		}
		if w := worst(passed, int64(window)); w > quota {
			t.Fatalf("a window holds %d bytes, quota %d", w, quota)
		}
		if load > 2 && len(passed) == 0 {
			t.Fatal("nothing passed")
		}
		var counted, sum int64
		for _, c := range book.cells {
			counted += c.Load()
		}
		for _, e := range passed {
			sum += e.bytes
		}
		for _, g := range gates {
			counted -= g.credit
		}
		if counted < sum || counted > sum+killed*quota>>10 {
			t.Fatalf("%d passed, and %d are counted", sum, counted)
		}
	})
}

// Two at the same moment: neither the quota nor the count is ever wrong.
func TestSharedAtOnce(t *testing.T) {
	const quota = 1_000_000
	book := newShelf(time.Hour, 60)
	var passed [4]int64
	var wg sync.WaitGroup
	for i := range passed {
		g := must(t, Config{Quota: quota, Window: time.Hour, Threshold: 1, Policy: Random, Book: book})
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range int64(3000) {
				p := Packet{Bytes: 100 + j%1000}
				if g.Arrive(3600e9*1000, &p) == Pass {
					passed[i] += p.Bytes
				}
			}
			g.Flush()
		}()
	}
	wg.Wait()
	sum := int64(0)
	for _, n := range passed {
		sum += n
	}
	slot, _ := book.View(3600e9 * 1000)
	if sum > quota || sum < quota-4*1100 || slot.Charged.Load() != sum {
		t.Errorf("%d passed of %d, %d counted", sum, quota, slot.Charged.Load())
	}
}

// A window of a cycle goes on where it was, too.
func TestSharedCycle(t *testing.T) {
	book := newShelf(time.Minute, 60)
	cfg := Config{Quota: 1e6, Cycle: func(now int64) (int64, int64) { return 0, 1e15 }, Policy: Random, Threshold: 1, Book: book}
	now, passed := int64(1e12), int64(0)
	for range 5 {
		g := must(t, cfg)
		for range 300 {
			now += 1e8
			if g.Arrive(now, &Packet{Bytes: 1000}) == Pass {
				passed += 1000
			}
		}
		if s := g.State(now); s.Used != passed || s.Quota != 1e6 {
			t.Errorf("%d used, and %d passed", s.Used, passed)
		}
	}
	if passed != 1e6 {
		t.Errorf("%d passed", passed)
	}
	// The rest is paced over the rest of the cycle.
	book = newShelf(time.Minute, 60)
	cfg.Book = book
	g := must(t, cfg)
	g.Arrive(5e14, &Packet{Bytes: 500e3})
	g.Flush()
	if r, _ := g.win.outlook(5e14, 0); r < 0.999 || r > 1.001 {
		t.Errorf("%.3f bytes a second, want 1: 500 kB for 500,000 s", r)
	}
}

// While a Book cannot be used, a transfer cap holds the bytes that it had and those that
// pass, and the Book has all of them as soon as it can be used. The time before the first
// cycle counts for it.
func TestSharedCycleFails(t *testing.T) {
	const day = int64(24 * time.Hour)
	book := newShelf(time.Minute, 60)
	shift := int64(0)
	g := must(t, Config{Quota: 1e6, Cycle: calendar.Calendar{Length: 24 * time.Hour}.Bounds, Policy: Random, Threshold: 1, Book: book,
		Wall: func(now int64) int64 { return now + shift }})
	now, arrived := 1000*day+day/2, int64(0)
	pass := func(most int64) (passed int64) {
		for end := now + 20e9; now < end; now += 1e8 {
			if passed < most {
				arrived += 10e3
				if g.Arrive(now, &Packet{Bytes: 10e3}) == Pass {
					passed += 10e3
				}
			}
		}
		g.Flush()
		return passed
	}
	counted := func() (sum int64) {
		for _, c := range book.cells {
			sum += c.Load()
		}
		return sum
	}
	check := func(what string, got, want, inBook int64) {
		t.Helper()
		if n := counted(); got != want || n != inBook || (g.Err() == nil) != (book.broken == nil) {
			t.Errorf("%s: %d passed, want %d; %d in the book, want %d; %v", what, got, want, n, inBook, g.Err())
		}
	}
	book.broken, shift = errors.New("1970"), -1000*day
	check("at boot", pass(100e3), 100e3, 0)
	book.broken, shift = nil, 0
	check("the clock is set", pass(200e3), 200e3, 300e3)
	book.broken, shift = errors.New("2000"), -500*day
	check("another year", pass(300e3), 300e3, 300e3)
	book.broken, shift = nil, 0
	check("back again", pass(1e9), 400e3, 1e6)
	if n := book.offered.Load(); n != arrived {
		t.Errorf("%d bytes are offered in the book, %d arrived", n, arrived)
	}
}

// minutes is a shelf with cycles of a minute.
type minutes struct{ *shelf }

func (m minutes) Before(slot *View) (sum int64) {
	for i, c := range m.cells {
		if at := i * m.slot; at < slot.Start && at/int64(time.Minute) == slot.Start/int64(time.Minute) {
			sum += c.Load()
		}
	}
	return sum
}

// A frame that is offered in one aligned window and passes in the next is charged once, in
// the window in which it was billed, with a Book and without.
func TestCarried(t *testing.T) {
	for name, cfg := range map[string]Config{
		"aligned": {Window: time.Minute, Align: true},
		"cycle":   {Cycle: calendar.Calendar{Length: time.Minute}.Bounds},
		"Book":    {Cycle: calendar.Calendar{Length: time.Minute}.Bounds, Book: minutes{newShelf(time.Minute, 60)}},
	} {
		cfg.Quota, cfg.Offered, cfg.Threshold = 10e3, true, 1
		g := must(t, cfg)
		const end = 1000 * 60 * second
		p := Packet{Bytes: 6000}
		arrived := p.Bytes
		for g.Arrive(end-1, &p) == Pass {
			arrived += p.Bytes
		}
		g.Hold(&p, 1, 64)
		if s := g.State(end - 1); s.Used != arrived || arrived > 5*p.Bytes {
			t.Errorf("%s: %d bytes are charged, want %d", name, s.Used, arrived)
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
// none where that is not allowed.
func TestSharedFloor(t *testing.T) {
	const quota, window = 5_000_000, 5 * time.Second
	const mean = quota / 5.0
	for _, allowed := range []bool{true, false} {
		book := newShelf(window, 60)
		in := must(t, Config{Quota: quota, Window: window, Offered: true, Book: book})
		out := must(t, Config{Quota: quota, Window: window, Floor: allowed, Book: book})
		start := int64(1e12)
		var passed []event
		for now := start; now < start+4*int64(window); now += 1e6 {
			for i, g := range []*Gate{in, out} {
				for h := g.Release(now); h != nil; h = g.Release(now) {
					if i == 1 {
						passed = append(passed, event{now, h.Bytes, 0, now - h.Since})
					}
					g.Done(h)
				}
				// Outbound had most of the quota before the flood.
				bytes := []int64{5000, 800}[i]
				if i == 0 && now < start+int64(window) {
					continue
				}
				p := Packet{Bytes: bytes, Flow: uint64(i)}
				switch g.Arrive(now, &p) {
				case Pass:
					if i == 1 {
						passed = append(passed, event{now, bytes, 0, 0})
					}
				case Hold:
					g.Hold(&p, p.Flow, 64)
				}
			}
		}
		for at := start + int64(window) + second; at < start+4*int64(window); at += second {
			n := float64(between(passed, at, at+second))
			if allowed && (n < 0.9*floor*mean || n > 1.1*floor*mean) || !allowed && n > 0 {
				t.Errorf("floor %v: second %d of the flood has %.0f bytes, the floor is %.0f", allowed, (at-start-int64(window))/second, n, floor*mean)
			}
		}
		if most := slices.MaxFunc(passed, func(a, b event) int { return cmp.Compare(a.wait, b.wait) }); most.wait > out.longest() {
			t.Errorf("a frame waited %v", time.Duration(most.wait))
		}
	}
}

// A Book that fails leaves a gate with a quota of its own, of which it has used what
// it used, until the Book can be used again.
func TestSharedFails(t *testing.T) {
	book := newShelf(time.Second, 60)
	g := must(t, Config{Quota: 10e3, Window: time.Second, Threshold: 1, Policy: Random, Book: book})
	if g.Arrive(1e9, &Packet{Bytes: 1000}) != Pass || g.Err() != nil {
		t.Fatal("it does not begin well")
	}
	book.broken = errors.New("gone")
	passed := int64(0)
	for i := range int64(100) {
		if g.Arrive(2e9+i, &Packet{Bytes: 1000}) == Pass {
			passed += 1000
		}
	}
	if passed != 9e3 || g.Err() == nil {
		t.Errorf("%d passed, %v", passed, g.Err())
	}
	book.broken = nil
	book.cell((2e9 + int64(retry)) / book.slot).Add(4000) // another gate's
	passed = 0
	for i := range int64(100) {
		if g.Arrive(2e9+int64(retry)+i, &Packet{Bytes: 1000}) == Pass {
			passed += 1000
		}
	}
	if passed != 6e3 || g.Err() != nil {
		t.Errorf("%d passed when it can be used again, %v", passed, g.Err())
	}
}

// jumpy is the count of others who use up a lot at some time.
type jumpy struct{ loads, at, by int64 }

func (j *jumpy) Add(int64) {}

func (j *jumpy) Load() int64 {
	if j.loads++; j.loads > j.at {
		return j.by
	}
	return 0
}

// jumping is a Book with such a count.
type jumping struct {
	*shelf
	others *jumpy
}

func (b *jumping) View(now int64) (View, error) {
	s, err := b.shelf.View(now)
	s.Now = append(s.Now, b.others)
	return s, err
}

// A frame that Admit does not let pass was not counted, whenever others use up the
// quota meanwhile; and one that it lets pass was counted once.
func TestAdmitOnce(t *testing.T) {
	for _, offered := range []bool{false, true} {
		for at := range int64(12) {
			book := &jumping{newShelf(time.Second, 60), &jumpy{at: at, by: 1e6}}
			g := must(t, Config{Quota: 1e6, Window: time.Second, Threshold: 0.75, Offered: offered, Book: book})
			p := Packet{Bytes: 40e3}
			want := Counts{}
			if g.Admit(1e9, &p) {
				want.Add(p.Bytes)
			}
			g.Flush()
			if own := book.cell(60).Load(); g.stats.In != want || g.stats.Passed != want || own != int64(want.Bytes) {
				t.Errorf("offered %v, others after %d looks: In %v, Passed %v, %d charged, want %v", offered, at, g.stats.In, g.stats.Passed, own, want)
			}
		}
	}
}

// Frames that are held or dropped are offered, too.
func TestOfferedInBook(t *testing.T) {
	for _, policy := range []Policy{Pace, Random} {
		d := &desk{folio: newFolio(1e9), lanes: [][]int64{{0}}}
		g := must(t, Config{Quota: 10e3, Window: time.Minute, Policy: policy, Book: d})
		p := Packet{Bytes: 1000}
		for range 50 {
			if g.Arrive(600e9, &p) == Hold {
				g.Hold(&p, 1, 64)
			}
		}
		g.Flush()
		if page := d.page(0, 600); page.offered.Load() != 50e3 || page.charged.Load() != int64(g.stats.Passed.Bytes) {
			t.Errorf("policy %d: %d offered, %d charged", policy, page.offered.Load(), page.charged.Load())
		}
	}
}

// Bytes that fit are taken back if others use the room while they are added.
func TestTakenBack(t *testing.T) {
	for at, want := range []bool{false, false, true} {
		book := &jumping{newShelf(time.Second, 60), &jumpy{at: int64(at), by: 1e6}}
		g := must(t, Config{Quota: 1e6, Window: time.Second, Book: book})
		g.win.advance(1e9)
		charged := int64(0)
		if want {
			charged = 40e3
		}
		if got := g.take(40e3); got != want || book.cell(60).Load() != charged {
			t.Errorf("others after %d looks: taken %v, %d charged", at, got, book.cell(60).Load())
		}
	}
}

// The rate that a shared window can sustain is that of a private one with the
// same slots.
func TestSharedSustainable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		book := newShelf(time.Duration(slotsPerWindow)*time.Millisecond, slotsPerWindow)
		a, b := newSliding(1e6, slotsPerWindow*time.Millisecond, budget.Poller{}), newShared(newSliding(1e6, slotsPerWindow*time.Millisecond, budget.Poller{}), slotsPerWindow*time.Millisecond, book)
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
	cfg := Config{Quota: quota, Window: time.Duration(window), Book: newShelf(time.Duration(window), 60)}
	gates := []*Gate{must(t, cfg), must(t, cfg)}
	const start = 100 * window
	for _, g := range gates {
		g.Arrive(start, &Packet{Bytes: (quota - room) / 2, Control: true})
	}
	const end = start + window + slot // when they leave
	passed := [50]int64{}
	for now := end - 50*second; now < end; now += 10e6 {
		for i, g := range gates {
			count := &passed[(now-end+50*second)/second]
			for h := g.Release(now); h != nil; h = g.Release(now) {
				*count += h.Bytes
				g.Done(h)
			}
			p := Packet{Bytes: 1000, Flow: uint64(i)}
			switch g.Arrive(now, &p) {
			case Pass:
				*count += p.Bytes
			case Hold:
				g.Hold(&p, p.Flow, 64)
			}
		}
	}
	if least := slices.Min(passed[:45]); least < 1000 {
		t.Errorf("a second has %d bytes: %v", least, passed)
	}
}

// A gate that comes later gets its share, though the one that was there keeps the
// window full.
func TestSharedFair(t *testing.T) {
	const quota, window = 5_000_000, 5 * time.Second
	book := newShelf(window, 60)
	cfg := Config{Quota: quota, Window: window, Threshold: 0.75, Queue: 100 * time.Millisecond, Book: book}
	gates := []*Gate{must(t, cfg), must(t, cfg)}
	var passed []event
	shares := [2]int64{}
	start := int64(1e12)
	for now := start; now < start+8*int64(window); now += 1e6 {
		for i, g := range gates {
			count := func(bytes int64) {
				passed = append(passed, event{now, bytes, 0, 0})
				if now >= start+4*int64(window) {
					shares[i] += bytes
				}
			}
			for h := g.Release(now); h != nil; h = g.Release(now) {
				count(h.Bytes)
				g.Done(h)
			}
			if i == 1 && now < start+2*int64(window) {
				continue
			}
			for range 3 { // 4.5 MB/s, of the one that is paced
				p := Packet{Bytes: 1500, Flow: uint64(i)}
				switch g.Arrive(now, &p) {
				case Pass:
					count(p.Bytes)
				case Hold:
					g.Hold(&p, p.Flow, 64)
				}
			}
		}
	}
	if w := worst(passed, int64(window)); w > quota {
		t.Errorf("a window holds %d bytes, quota %d", w, quota)
	}
	share, used := float64(shares[1])/float64(shares[0]+shares[1]), float64(shares[0]+shares[1])/(4*quota)
	t.Logf("the later one has %.2f of what passed; %.3f of the quota is used", share, used)
	if share < 0.2 || used < 0.97 {
		t.Errorf("the later one has %.2f of what passed; %.3f of the quota is used", share, used)
	}
}
