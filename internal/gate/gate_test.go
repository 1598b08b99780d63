package gate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/fairq"

	"pgregory.net/rapid"
)

const (
	second = int64(time.Second)
	start  = 1_700_000_000 * second
)

// event is bytes that passed at a time.
type event struct {
	at    int64
	bytes int64
	flow  uint64
	wait  int64 // how long it was held
}

// source offers frames to a gate: next returns when the frame after the one at
// now comes, and the frame.
type source func(now int64) (at int64, p Packet)

// steady offers frames of a flow and a size at a rate in bytes per second.
func steady(rate float64, flow uint64, size int64) source {
	gap := int64(float64(size) / rate * 1e9)
	return func(now int64) (int64, Packet) { return now + gap, Packet{Bytes: size, Flow: flow} }
}

// mix offers the frames of several sources by time.
func mix(start int64, sources ...source) source {
	at, packets := make([]int64, len(sources)), make([]Packet, len(sources))
	for i, next := range sources {
		at[i], packets[i] = next(start)
	}
	return func(int64) (int64, Packet) {
		i := slices.Index(at, slices.Min(at))
		now, p := at[i], packets[i]
		at[i], packets[i] = sources[i](now)
		return now, p
	}
}

// release has a gate release the frames that may pass now.
func release(g *Gate, now int64, pass func(event)) {
	for h := g.Release(now); h != nil; h = g.Release(now) {
		pass(event{g.now, h.Bytes, uint64(h.Meta), g.now - h.Since})
		g.Done(h)
	}
}

// arrive has a gate decide on a frame.
func arrive(g *Gate, now int64, p *Packet, pass func(event)) {
	switch g.Arrive(now, p) {
	case Pass, Mark:
		pass(event{max(now, g.now), p.Bytes, p.Flow, 0})
	case Hold:
		g.Hold(p, p.Flow*0x9e3779b97f4a7c15>>20, 1541).Meta = int32(p.Flow)
	case Cut:
		panic("nothing here is a super-frame")
	}
}

// offer does both.
func offer(g *Gate, now int64, p *Packet, pass func(event)) {
	release(g, now, pass)
	arrive(g, now, p, pass)
}

// hold has a gate hold a frame.
func hold(t *testing.T, g *Gate, now int64, p *Packet) {
	t.Helper()
	if v := g.Arrive(now, p); v != Hold {
		t.Fatalf("verdict %d", v)
	}
	g.Hold(p, 1, 64)
}

// play runs frames of a source through a gate as quotagate does, until the
// given time, and returns what passed.
func play(g *Gate, next source, start, until int64) (passed []event) {
	pass := func(e event) { passed = append(passed, e) }
	g.tick(start)
	for now := start; now < until; {
		at, p := next(now)
		for due, ok := g.Due(g.now); ok && due <= min(at, until); due, ok = g.Due(g.now) {
			before := g.stats
			release(g, due, pass)
			if again, ok := g.Due(due); ok && again <= due && g.stats == before {
				panic("due, and nothing is released")
			}
		}
		if now = at; now < until {
			arrive(g, now, &p, pass)
		}
	}
	return passed
}

// worst returns the most bytes in any span of the given length.
func worst(events []event, length int64) (most int64) {
	sum, first := int64(0), 0
	for _, e := range events {
		sum += e.bytes
		for events[first].at <= e.at-length {
			sum -= events[first].bytes
			first++
		}
		most = max(most, sum)
	}
	return most
}

// longestWait returns how long a frame was held at most.
func longestWait(events []event) (longest time.Duration) {
	for _, e := range events {
		longest = max(longest, time.Duration(e.wait))
	}
	return longest
}

func between(events []event, from, to int64) (sum int64) {
	for _, e := range events {
		if e.at >= from && e.at < to {
			sum += e.bytes
		}
	}
	return sum
}

func of(events []event, flow uint64) []event {
	return slices.DeleteFunc(slices.Clone(events), func(e event) bool { return e.flow != flow })
}

func must(t rapid.TB, cfg Config) *Gate {
	t.Helper()
	if cfg.Threshold == 0 {
		cfg.Threshold = 0.75
	}
	if cfg.Queue == 0 {
		cfg.Queue = 100 * time.Millisecond
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// The promise of the default policy: a flow that would fill ten times the quota gets three
// quarters of it at once, and is then never under a fifth of the sustained rate, while the
// quota is used to the full.
func TestPaceNeverDark(t *testing.T) {
	for _, quota := range []int64{2e6, 100e6} {
		g := must(t, Config{Quota: quota, Window: 5 * time.Second})
		sustained := float64(quota) / 5
		passed := play(g, steady(10*sustained, 1, 1538), start, start+30*second)
		if w := worst(passed, 5*second); w > quota {
			t.Errorf("a window of 5 s holds %d bytes, quota %d", w, quota)
		}
		if first := between(passed, start, start+second); first < quota*74/100 {
			t.Errorf("quota %d: only %d bytes passed in the first second", quota, first)
		}
		for s := start; s < start+29*second; s += second / 10 {
			if n := float64(between(passed, s, s+second)); n < 0.23*sustained {
				t.Errorf("quota %d: %.2f of the sustained rate at %v", quota, n/sustained, time.Duration(s-start))
			}
		}
		if n := float64(between(passed, start, start+20*second)) / 4 / float64(quota); n < 0.98 {
			t.Errorf("%.3f of the quota %d was used over 20 s", n, quota)
		}
	}
}

// Four flows of unlike appetite fill the queue and get alike. A frame now and then is not held
// up by them, and not dropped.
func TestFlows(t *testing.T) {
	const ping = 5
	g := must(t, Config{Quota: 50e6, Window: 5 * time.Second})
	n := 0
	heavy := func(now int64) (int64, Packet) {
		n++
		flow := uint64([]int{1, 1, 1, 1, 2, 1, 2, 1, 3, 2, 1, 4, 1, 1, 2, 3}[n%16])
		return now + 10_000, Packet{Bytes: 1538, Flow: flow}
	}
	passed := play(g, mix(start, heavy, steady(10_200, ping, 102)), start, start+25*second)
	pings := of(passed, ping)
	if len(pings) < 2499*99/100 {
		t.Errorf("%d of 2499 sparse frames passed", len(pings))
	}
	if m := longestWait(pings); m > 20*time.Millisecond {
		t.Errorf("a sparse frame waited %v", m)
	}
	shares := make([]int64, ping)
	for _, e := range passed {
		if e.at > start+5*second && e.wait > 0 {
			shares[e.flow%ping] += e.bytes
		}
	}
	if shares = shares[1:]; slices.Min(shares) < slices.Max(shares)*8/10 {
		t.Errorf("shares %v", shares)
	}
}

// The drop probability of Random rises from 0 at the threshold to 1 at the quota.
func TestRandomCurve(t *testing.T) {
	const tries = 50_000
	g := must(t, Config{Quota: 1e9, Window: 5 * time.Second, Policy: Random, Threshold: 0.5, Seed: 1})
	p := Packet{Bytes: 1000}
	for range 100 {
		passed := 0.0
		for range tries {
			if g.Arrive(second, &p) == Pass {
				passed++
			}
		}
		// 0.02 is many standard deviations, and 0.06 the change of the curve within the tries.
		used := float64(g.State(second).Used) / 1e9
		want := min((1-used)/0.5, 1)
		if got := passed / tries; got < want-0.02 || got > want+0.06 {
			t.Errorf("at %.2f of the quota %.3f passed, want about %.3f", used, got, want)
		}
	}
}

// No window holds more than the quota, for any traffic, any configuration and any phase.
func TestNoWindowOverQuota(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			Quota:     rapid.Int64Range(1, 3e6).Draw(t, "quota"),
			Window:    time.Duration(rapid.Int64Range(1e6, 10e9).Draw(t, "window")),
			Threshold: rapid.Float64Range(0, 1).Draw(t, "threshold"),
			Queue:     time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "queue")),
			Policy:    Policy(rapid.IntRange(0, 1).Draw(t, "policy")),
			Offered:   rapid.Bool().Draw(t, "offered"),
			Align:     rapid.Bool().Draw(t, "align"),
			ECN:       rapid.Bool().Draw(t, "ecn"),
			Seed:      rapid.Uint64().Draw(t, "seed"),
		}
		rng := rand.New(rand.NewPCG(cfg.Seed, 1))
		g, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		start := rapid.Int64Range(0, 2e18).Draw(t, "start")
		load := rapid.Float64Range(0.01, 100).Draw(t, "load")
		gap := 700 / (load * float64(cfg.Quota) / cfg.Window.Seconds()) * 1e9
		n, control := 0, int64(0)
		passed := play(g, func(now int64) (int64, Packet) {
			if n++; n > 4000 {
				return 1 << 62, Packet{}
			}
			p := Packet{Bytes: 64 + rng.Int64N(1454), Flow: rng.Uint64N(20), ECN: rng.IntN(2) == 0}
			if p.Control = rng.IntN(100) == 0; p.Control {
				control += p.Bytes
			}
			if rng.IntN(50) == 0 {
				return now, p // several at once
			}
			if rng.IntN(500) == 0 {
				return now + rng.Int64N(2*int64(cfg.Window)), p
			}
			return now + int64(rng.ExpFloat64()*gap), p
		}, start, 1<<61)
		s := g.State(1 << 61)
		if m := longestWait(passed); m > time.Duration(g.longest()) {
			t.Fatalf("a frame waited %v, the queue is %v long", m, time.Duration(g.longest()))
		}
		if cfg.Offered && cfg.Policy == Pace {
			// The floor is paced, with what the bucket saves and a frame.
			control += int64(floor*float64(cfg.Quota)*(1+bucket.Seconds()/cfg.Window.Seconds())) + 2*fairq.Quantum
			// Held frames were charged when they arrived, in an earlier window if it is
			// shorter than the queue, and may come out together.
			control += max(int64(float64(cfg.Quota)*cfg.Queue.Seconds()/cfg.Window.Seconds()), shortest*fairq.Quantum)
		}
		most := worst(passed, int64(cfg.Window))
		if cfg.Align {
			sums := map[int64]int64{}
			most = 0
			for _, e := range passed {
				sums[e.at/int64(cfg.Window)] += e.bytes
				most = max(most, sums[e.at/int64(cfg.Window)])
			}
		}
		if most > cfg.Quota+control {
			t.Fatalf("a window holds %d bytes, quota %d, control %d", most, cfg.Quota, control)
		}
		dropped := s.DroppedEarly.Frames + s.DroppedFull.Frames + s.DroppedQuota.Frames
		if s.Passed.Frames+dropped+uint64(s.HeldFrames) != s.In.Frames {
			t.Fatalf("frames are missing in %+v", s)
		}
		if s.HeldFrames > 0 && !cfg.Offered {
			t.Fatalf("%d frames still held at the end of time", s.HeldFrames)
		}
	})
}

// Inbound, dropped frames are billed too. Under a flood of any size, pings and a
// flow that obeys go on beside it, and nothing comes out of the queue late.
func TestFloor(t *testing.T) {
	const rate, carries = 20e6 / 8, floor * 20e6 / 8 / 4
	const ping, tcp = 10, 11
	flood := func(rate float64) source { return steady(rate, 1, 1538) }
	burst := func(now int64) (int64, Packet) {
		if now < start+2*second {
			return flood(1.5 * 30 / 2 * rate)(now)
		}
		return flood(1000)(now)
	}
	for i, tt := range []struct {
		align  bool
		window time.Duration
		flood  source
	}{
		{false, 5 * time.Second, flood(1.2 * rate)},
		{true, 5 * time.Second, flood(1.2 * rate)},
		{false, 5 * time.Second, flood(20 * rate)},
		{false, 30 * time.Second, burst},
	} {
		g := must(t, Config{Rate: rate, Window: tt.window, Align: tt.align, Offered: true})
		traffic := mix(start, tt.flood, steady(204, ping, 102), steady(carries, tcp, 1538))
		passed := play(g, traffic, start, start+30*second)
		if m := longestWait(passed); m > 100*time.Millisecond {
			t.Errorf("flood %d: a frame waited %v", i, m)
		}
		if n := len(of(passed, ping)); n != 59 {
			t.Errorf("flood %d: %d of 59 pings passed", i, n)
		}
		carried := of(passed, tcp)
		for s := start; s < start+29*second; s += second {
			if n := between(carried, s, s+second); float64(n) < carries-2*1538 {
				t.Errorf("flood %d: the flow carried %d bytes of %.0f in a second", i, n, carries)
			}
		}
	}
}

// After a dark time, a gate drops the frames that waited, and passes new ones.
func TestDropByAge(t *testing.T) {
	g := must(t, Config{Quota: 1e6, Window: 2 * time.Second})
	now := start
	g.Arrive(now, &Packet{Bytes: 1e6, Control: true})
	p := Packet{Bytes: 1000}
	hold(t, g, now, &p)
	now += 3*second - int64(50*time.Millisecond)
	hold(t, g, now, &p)
	now += int64(50 * time.Millisecond)
	h := g.Release(now)
	if h == nil || now-h.Since != int64(50*time.Millisecond) || g.Release(now) != nil {
		t.Errorf("released %+v", h)
	}
	if s := g.State(now); s.DroppedFull.Frames != 1 || s.Passed.Frames != 2 {
		t.Errorf("%+v", s)
	}
}

func TestCounting(t *testing.T) {
	for _, c := range []struct {
		size, l2, ip             int
		frame, ipB, ether, onAir int64
	}{
		{60, 14, 40, 60, 40, 64, 84}, // a padded TCP acknowledgement
		{54, 14, 40, 54, 40, 64, 84}, // the same on a tap
		{1514, 14, 1500, 1514, 1500, 1518, 1538},
		{1518, 18, 1500, 1518, 1500, 1522, 1542}, // with a VLAN tag
		{64, 18, 40, 64, 40, 68, 88},
		{1500, 0, 1500, 1500, 1500, 1518, 1538}, // from a tun
	} {
		for mode, want := range map[Counting]int64{Frame: c.frame, IP: c.ipB, Ethernet: c.ether, Wire: c.onAir} {
			if got := mode.Bytes(c.size, c.l2, c.ip); got != want {
				t.Errorf("%v of %d bytes: %d, want %d", mode, c.size, got, want)
			}
		}
	}
}

// A gate in full swing takes no memory.
func TestNoAllocation(t *testing.T) {
	for _, policy := range []Policy{Pace, Random} {
		g := must(t, Config{Quota: 20e6, Window: time.Second, Policy: policy})
		now := second
		step := func() {
			for range 100 {
				now += 10_000
				offer(g, now, &Packet{Bytes: 1538, Flow: uint64(now / 10_000 % 5)}, func(event) {})
				g.Due(now)
			}
		}
		for range 2000 {
			step()
		}
		if n := testing.AllocsPerRun(1000, step); n != 0 {
			t.Errorf("policy %d: %v allocations in 100 frames", policy, n)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, with := range []string{"alone", "ledger", "budget"} {
		b.Run(with, func(b *testing.B) {
			cfg := Config{Quota: 1e18, Window: 5 * time.Minute}
			if with != "alone" {
				book := newBook(5*time.Minute, 60)
				book.begin = 1e18
				cfg.Book = book
			}
			g := must(b, cfg)
			if with == "budget" {
				g = spending(b, cfg, budget.Config{})
			}
			now := int64(1e18)
			p := Packet{Bytes: 1518}
			for b.Loop() {
				now += 1200
				g.Arrive(now, &p)
			}
		})
	}
}

// A frame costs about as much whether few flows fill the queue or many.
func BenchmarkPaced(b *testing.B) {
	for _, flows := range []uint64{1, 4, 60_000} {
		b.Run(fmt.Sprint(flows), func(b *testing.B) {
			g := must(b, Config{Quota: 100e6, Window: 5 * time.Second})
			now, i := int64(1e18), uint64(0)
			for b.Loop() {
				i++
				now += 8000 // ten times the sustained rate
				offer(g, now, &Packet{Bytes: 1538, Flow: i % flows}, func(event) {})
			}
		})
	}
}

// The memory of the queue is bounded, whatever its length and the size of its frames.
func TestQueueMemory(t *testing.T) {
	g := must(t, Config{Quota: 1e12, Window: time.Second, Queue: time.Second})
	g.Arrive(start, &Packet{Bytes: 750e9, Control: true})
	g.refill()
	most := 0
	for size := 300; size <= 1<<20; size *= 2 {
		p := Packet{Bytes: int64(size)}
		for i := range 2 * fairq.MaxMemory / size {
			g.Hold(&p, uint64(i), size)
			most = max(most, g.q.Memory)
		}
	}
	if most > fairq.MaxMemory+1<<19 || most < fairq.MaxMemory/2 {
		t.Errorf("%d bytes are taken, of at most %d", most, fairq.MaxMemory)
	}
}

// When the wall clock is set to another window, that is noticed within ten seconds, and the
// count of the window goes on when the clock is set back.
func TestAlignedClockSet(t *testing.T) {
	shift, at := int64(0), int64(1000*time.Hour)
	wall := func(now int64) int64 { return now + shift }
	g := must(t, Config{Quota: 10e3, Window: time.Hour, Align: true, Threshold: 1, Wall: wall})
	for _, tt := range []struct{ shift, used int64 }{{0, 1000}, {int64(5 * time.Hour), 1000}, {0, 2000}} {
		shift = tt.shift
		at += recheck
		g.Arrive(at, &Packet{Bytes: 1000})
		if s := g.State(at); s.Used != tt.used {
			t.Errorf("the clock set by %v: %d bytes, want %d", time.Duration(tt.shift), s.Used, tt.used)
		}
	}
}

// When a gate begins to pace it lets out nothing at once, the second time too, and after each
// pause ten milliseconds' worth and a frame.
func TestTokensSaved(t *testing.T) {
	for _, quota := range []int64{200e3, 20e6} {
		g := must(t, Config{Quota: quota, Window: time.Second})
		p := Packet{Bytes: 1538}
		for _, now := range []int64{second, 10 * second} {
			for g.win.used() < quota*3/4 || now != g.now {
				g.Arrive(now, &p)
			}
			for i := range 3 {
				passed := int64(0)
				for g.Arrive(now, &p) == Pass {
					passed += p.Bytes
				}
				most := int64(g.rate*bucket.Seconds()) + p.Bytes
				if i == 0 {
					most = 0
				}
				if passed > most || passed < most/2 {
					t.Errorf("quota %d, burst %d: %d bytes pass at once, want at most %d", quota, i, passed, most)
				}
				now += second / 15
			}
		}
	}
}

// The queue is as long as its duration at the paced rate, and at least eight frames. Frames
// that are about to pass do not count.
func TestQueueLength(t *testing.T) {
	p := Packet{Bytes: fairq.Quantum}
	for _, tt := range []struct {
		quota, frames int64
		threshold     float64
	}{{100e3, shortest, 0.75}, {100e3, shortest, 1}, {10e6, 250_000 / fairq.Quantum, 0.75}} {
		g := must(t, Config{Quota: tt.quota, Window: time.Second, Threshold: tt.threshold})
		for g.Arrive(second, &p) == Pass {
		}
		for range 20 * tt.frames {
			hold(t, g, second, &p)
		}
		if s := g.State(second); int64(s.HeldFrames) != tt.frames || s.DroppedFull.Frames == 0 {
			t.Errorf("quota %d: %d frames are held, want %d: %+v", tt.quota, s.HeldFrames, tt.frames, s)
		}
		dropped := g.stats
		for range 100 {
			hold(t, g, 3*second, &p)
		}
		if now := g.stats; now.DroppedFull != dropped.DroppedFull || now.DroppedEarly != dropped.DroppedEarly {
			t.Errorf("quota %d: frames are dropped that have room in the window: %+v", tt.quota, now)
		}
		if s := g.State(3 * second); s.Open {
			t.Error("a gate that holds frames is open")
		}
	}
}

// While a frame waits for tokens, Due comes again before the rate may have changed.
func TestDueAgain(t *testing.T) {
	g := must(t, Config{Quota: 1e6, Window: 100 * time.Second})
	p := Packet{Bytes: 1538}
	for g.Arrive(second, &p) == Pass {
	}
	g.Hold(&p, 1, 64)
	if at, ok := g.Due(second); !ok || at <= second || at > second+int64(rateTime) {
		t.Errorf("%v, %v", time.Duration(at-second), ok)
	}
}

// The verdict on the edges of the quota, and the bytes charged.
func TestEdges(t *testing.T) {
	for _, tt := range []struct {
		cfg     Config
		control int64 // bytes of a control frame before
		packet  Packet
		want    Verdict
		used    int64
	}{
		{Config{}, 749, Packet{Bytes: 1, Super: true}, Pass, 750},
		{Config{}, 750, Packet{Bytes: 1, Super: true}, Cut, 750}, // the threshold
		{Config{}, 740, Packet{Bytes: 260}, Pass, 1000},
		{Config{}, 740, Packet{Bytes: 261}, Hold, 740},
		{Config{}, 1000, Packet{Bytes: 1000}, Hold, 1000}, // fits an empty window
		{Config{}, 1000, Packet{Bytes: 1001}, Drop, 1000},
		{Config{Policy: Random}, 1000, Packet{Bytes: 1}, Drop, 1000}, // the quota drops it, not chance
		{Config{}, 1000, Packet{Bytes: 64, Control: true}, Pass, 1064},
		{Config{}, 1000, Packet{Bytes: 9000, Unmetered: true}, Pass, 1000},
		{Config{Offered: true}, 1000, Packet{Bytes: 100}, Hold, 1100},
		{Config{Offered: true, Policy: Random, Align: true}, 1000, Packet{Bytes: 100}, Drop, 1100},
	} {
		tt.cfg.Quota, tt.cfg.Window = 1000, time.Second
		g := must(t, tt.cfg)
		g.Arrive(second, &Packet{Bytes: tt.control, Control: true})
		got := g.Arrive(second, &tt.packet)
		s := g.State(second)
		if got != tt.want || s.Used != tt.used || (s.DroppedQuota.Frames == 1) != (got == Drop) {
			t.Errorf("%+v: verdict %d, want %d, %+v", tt, got, tt.want, s)
		}
		want := Stats{}
		want.In.Add(tt.control)
		want.Control.Add(tt.control)
		if got != Cut { // a frame to be cut has not arrived
			want.In.Add(tt.packet.Bytes)
		}
		if tt.packet.Control {
			want.Control.Add(tt.packet.Bytes)
		}
		if tt.packet.Unmetered {
			want.Unmetered.Add(tt.packet.Bytes)
		}
		if s.In != want.In || s.Control != want.Control || s.Unmetered != want.Unmetered {
			t.Errorf("%+v: %+v", tt, s)
		}
	}
	g := must(t, Config{Quota: 1e9, Window: time.Second})
	// Time does not go back, and has an end.
	for _, now := range [][2]int64{{5 * second, 5 * second}, {3 * second, 5 * second}, {MaxTime + 1, MaxTime}} {
		if g.tick(now[0]); g.now != now[1] {
			t.Errorf("at %d it is %d, want %d", now[0], g.now, now[1])
		}
	}
	// Slots are not shorter than their part of the window.
	if s := newSliding(&Config{Quota: 1000, Window: time.Millisecond + 1}); s.slot != 2001 {
		t.Errorf("slots of %d ns", s.slot)
	}
	// Credit is of one slot.
	g = must(t, Config{Quota: 1e9, Window: time.Second})
	g.Arrive(second, &Packet{Bytes: 1000})
	if p := (Packet{Bytes: 1000}); g.prepaid(g.until, &p) || !g.prepaid(g.until-1, &p) {
		t.Error("credit is used in another slot")
	}
	for _, tt := range []struct {
		quota int64
		rate  float64
		want  int64
	}{{1 << 62, 0, maxQuota}, {0, 1e30, maxQuota}, {7, 0, 7}, {0, 7, 14}} {
		cfg := Config{Quota: tt.quota, Rate: tt.rate}
		if got := cfg.Bytes(2 * time.Second); got != tt.want {
			t.Errorf("%+v: %d", tt, got)
		}
	}
}

// Two bursts that a poller can take into one sample fit the quota together.
func TestLongestSample(t *testing.T) {
	const window, quota = 10 * time.Second, int64(1e6)
	poller := budget.Poller{Jitter: 999999999}
	_, longest, _ := poller.Samples(window, quota)
	g := must(t, Config{Quota: quota, Window: window, Poller: poller, Policy: Random, Threshold: 1})
	if s := g.win.(*sliding); int64(len(s.ring)-1)*s.slot < int64(longest) {
		t.Errorf("%d slots of %d ns for a sample of %v", len(s.ring), s.slot, longest)
	}
	passed := play(g, func(now int64) (int64, Packet) {
		if now += int64(time.Millisecond); now%(11*second) > second {
			now += 10 * second
		}
		return now, Packet{Bytes: 1000}
	}, 11000*second, 11060*second)
	if w := worst(passed, int64(longest)); w > quota || w < quota/2 {
		t.Errorf("a sample holds %d bytes, quota %d", w, quota)
	}
}

// The window and the longest sample both bound the rate, and both must have room when the gate opens.
func TestPollerOutlook(t *testing.T) {
	cfg := &Config{Quota: 1e6, Window: 500 * time.Second, Poller: budget.Poller{Jitter: 50 * time.Second}}
	const first = 1000 * second
	for _, tt := range []struct {
		bytes, after, need int64   // the bytes are older by after, in seconds
		rate               float64 // bytes a second
		opens              int64   // seconds later
	}{
		{600e3, 0, 300e3, 200e3 / 501.0, 501}, // the window has room for 200 kB, the sample for 400 kB
		{990e3, 550, 300e3, 10e3 / 51.0, 51},  // only the sample has them
	} {
		s := newSliding(cfg)
		s.advance(first)
		s.add(tt.bytes)
		now := first + tt.after*second
		s.advance(now)
		rate, opens := s.outlook(now, tt.need)
		if rate < tt.rate*0.9999 || rate > tt.rate*1.0001 || opens != now+tt.opens*second {
			t.Errorf("%+v: %v bytes a second, opens after %v", tt, rate, time.Duration(opens-now))
		}
	}
}

// Another seed drops other frames, and the same seed the same ones.
func TestSeed(t *testing.T) {
	for _, policy := range []Policy{Pace, Random} {
		run := func(seed uint64) []event {
			g := must(t, Config{Quota: 1e6, Window: time.Second, Policy: policy, Seed: seed})
			return play(g, mix(start, steady(2e6, 1, 1538), steady(1e6, 2, 1538)), start, start+3*second)
		}
		if one := run(1); !slices.Equal(one, run(1)) || slices.Equal(one, run(2)) {
			t.Errorf("policy %d: the seed does not decide", policy)
		}
	}
}

// A gate that is not open opens when its state says, if nothing more comes, and not a
// moment earlier.
func TestOpens(t *testing.T) {
	for name, cfg := range map[string]Config{
		"sliding": {Window: 5 * time.Minute},
		"aligned": {Window: 5 * time.Minute, Align: true},
		"cycle":   {Cycle: func(now int64) (start, end int64) { return now - now%1e15, now - now%1e15 + 1e15 }},
		"poller":  {Window: 5 * time.Minute, Poller: budget.Poller{Jitter: 2 * time.Second}},
		"shared":  {Window: 5 * time.Minute, Book: newBook(5*time.Minute, 60)},
	} {
		cfg.Quota, cfg.Threshold, cfg.Policy, cfg.Seed = 1e6, 0.75, Random, 1
		g := must(t, cfg)
		now := int64(1e15 + 1e9)
		for range 200 {
			g.Admit(now, &Packet{Bytes: 10e3})
			now += 3e8
		}
		s := g.State(now)
		if s.Open || s.Opens <= 0 {
			t.Errorf("%s: open %v, in %v", name, s.Open, s.Opens)
			continue
		}
		then := now + int64(s.Opens)
		before, at := g.State(then-1), g.State(then)
		if before.Open || !at.Open || before.Opens != 1 || at.Opens != 0 {
			t.Errorf("%s: %v before the time, %v at it", name, before, at)
		}
	}
}
