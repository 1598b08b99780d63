package gate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/fairq"

	"pgregory.net/rapid"
)

const second = int64(time.Second)

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

// play runs frames of a source through a gate as quotagate does, until the
// given time, and returns what passed.
func play(g *Gate, next source, start, until int64) (passed []event) {
	release := func(to int64) {
		for {
			at, ok := g.Due(g.now)
			if !ok || at > to {
				return
			}
			h := g.Release(at)
			if h == nil {
				if again, ok := g.Due(at); ok && again <= at {
					panic("due, and nothing is released")
				}
				continue
			}
			passed = append(passed, event{at, h.Bytes, uint64(h.Meta), at - h.Since})
			g.Done(h)
		}
	}
	g.tick(start)
	at, p := next(start)
	for at < until {
		release(at)
		switch g.Arrive(at, &p) {
		case Pass, Mark:
			passed = append(passed, event{at, p.Bytes, p.Flow, 0})
		case Hold:
			g.Hold(&p, p.Flow*0x9e3779b97f4a7c15>>20, 64).Meta = int32(p.Flow)
		case Cut:
			panic("nothing here is a super-frame")
		}
		at, p = next(at)
	}
	release(until)
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

func between(events []event, from, to int64) (sum int64) {
	for _, e := range events {
		if e.at >= from && e.at < to {
			sum += e.bytes
		}
	}
	return sum
}

// steady offers full frames of one flow at a rate in bytes per second.
func steady(rate float64, flow uint64) source {
	gap := int64(1538 / rate * 1e9)
	return func(now int64) (int64, Packet) { return now + gap, Packet{Bytes: 1538, Flow: flow} }
}

func must(t testing.TB, cfg Config) *Gate {
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

// TestPaceNeverDark is the promise of the default policy: a flow that would
// fill ten times the quota gets three quarters of it at once, and is then never
// under a fifth of the sustained rate, while the quota is used to the full.
func TestPaceNeverDark(t *testing.T) {
	for _, quota := range []int64{2e6, 100e6} {
		t.Run(fmt.Sprint(quota), func(t *testing.T) {
			const start = 1_700_000_000 * second
			g := must(t, Config{Quota: quota, Window: 5 * time.Second})
			sustained := float64(quota) / 5
			passed := play(g, steady(10*sustained, 1), start, start+30*second)
			if w := worst(passed, 5*second); w > quota {
				t.Errorf("a window of 5 s holds %d bytes, quota %d", w, quota)
			}
			if first := between(passed, start, start+second); first < quota*74/100 {
				t.Errorf("only %d bytes passed in the first second", first)
			}
			for s := start; s < start+30*second; s += second / 10 {
				if n := between(passed, s, s+second); s < start+29*second && float64(n) < 0.23*sustained {
					t.Errorf("at %.1f s: %d bytes in a second, %.0f %% of the sustained rate", float64(s-start)/1e9, n, 100*float64(n)/sustained)
				}
			}
			if n := between(passed, start, start+20*second); float64(n) < 0.98*4*float64(quota) {
				t.Errorf("%.1f %% of the quota was used over 20 s", 100*float64(n)/4/float64(quota))
			}
		})
	}
}

// TestSparseFlowsGoFirst: a frame now and then is not held up by a flow that
// fills the queue, and not dropped.
func TestSparseFlowsGoFirst(t *testing.T) {
	const start = 1_700_000_000 * second
	g := must(t, Config{Quota: 20e6, Window: 5 * time.Second})
	heavy, count := steady(40e6, 1), 0
	var ping int64 = start
	passed := play(g, func(now int64) (int64, Packet) {
		at, p := heavy(now)
		if at > ping {
			count++
			ping += second / 100
			return max(now, ping-second/100), Packet{Bytes: 102, Flow: 2}
		}
		return at, p
	}, start, start+20*second)
	var waits []int64
	for _, e := range passed {
		if e.flow == 2 {
			waits = append(waits, e.wait)
		}
	}
	slices.Sort(waits)
	if len(waits) < count*99/100 {
		t.Errorf("%d of %d sparse frames passed", len(waits), count)
	}
	if m := waits[len(waits)-1]; m > 20e6 {
		t.Errorf("a sparse frame waited %v", time.Duration(m))
	}
}

// TestFlowsShare: four flows of unlike appetite get alike.
func TestFlowsShare(t *testing.T) {
	const start = 1_700_000_000 * second
	g := must(t, Config{Quota: 50e6, Window: 5 * time.Second})
	n := 0
	passed := play(g, func(now int64) (int64, Packet) {
		n++
		flow := uint64([]int{1, 1, 1, 1, 2, 1, 2, 1, 3, 2, 1, 4, 1, 1, 2, 3}[n%16])
		return now + 10_000, Packet{Bytes: 1538, Flow: flow}
	}, start, start+25*second)
	share := map[uint64]int64{}
	for _, e := range passed {
		if e.at > start+5*second && e.wait > 0 {
			share[e.flow] += e.bytes
		}
	}
	least, most := share[1], share[1]
	for _, s := range share {
		least, most = min(least, s), max(most, s)
	}
	if len(share) != 4 || least < most*8/10 {
		t.Errorf("shares %v", share)
	}
}

// TestRandomCurve: the original's drop probability, measured.
func TestRandomCurve(t *testing.T) {
	g := must(t, Config{Quota: 1e9, Window: 5 * time.Second, Policy: Random, Threshold: 0.5, Seed: 1})
	passed := 0
	at, try := int64(second), 0
	for used := int64(0); used < 1e9; {
		p := Packet{Bytes: 1000}
		v := g.Arrive(at, &p)
		try++
		if v == Pass {
			passed++
			used += 1000
		}
		if try%50000 == 0 {
			want := 1.0
			if u := float64(used) / 1e9; u > 0.5 {
				want = (1 - u) / 0.5
			}
			// 50,000 tries: 0.02 is many standard deviations and the drift
			// of the curve within the batch.
			if got := float64(passed) / 50000; got < want-0.02 || got > want+0.06 {
				t.Errorf("at %.2f of the quota %.3f passed, want about %.3f", float64(used)/1e9, got, want)
			}
			if passed == 0 {
				break
			}
			passed = 0
		}
		if try > 5e6 {
			break
		}
	}
}

// TestNoWindowOverQuota holds the promise for any traffic, any configuration
// and any phase.
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
		for _, e := range passed {
			if e.wait > g.longest() {
				t.Fatalf("a frame waited %v, the queue is %v long", time.Duration(e.wait), time.Duration(g.longest()))
			}
		}
		if cfg.Offered && cfg.Policy == Pace {
			// The floor is paced, with what the bucket saves and a frame.
			control += int64(floor*float64(cfg.Quota)*(1+bucket.Seconds()/cfg.Window.Seconds())) + 2*fairq.Quantum
			// Held frames were charged when they arrived, in an earlier window if it is
			// shorter than the queue, and may come out together.
			control += max(int64(float64(cfg.Quota)*cfg.Queue.Seconds()/cfg.Window.Seconds()), shortest*fairq.Quantum)
		}
		if cfg.Align {
			sums := map[int64]int64{}
			for _, e := range passed {
				sums[e.at/int64(cfg.Window)] += e.bytes
			}
			for _, n := range sums {
				if n > cfg.Quota+control {
					t.Fatalf("a window holds %d bytes, quota %d, control %d", n, cfg.Quota, control)
				}
			}
		} else if w := worst(passed, int64(cfg.Window)); w > cfg.Quota+control {
			t.Fatalf("a window holds %d bytes, quota %d, control %d", w, cfg.Quota, control)
		}
		// Nothing is lost sight of.
		sum := s.Passed.Frames + s.DroppedEarly.Frames + s.DroppedFull.Frames + s.DroppedQuota.Frames + uint64(s.HeldFrames)
		if sum != s.In.Frames {
			t.Fatalf("%d frames in, %d accounted for: %+v", s.In.Frames, sum, s)
		}
		if s.HeldFrames > 0 && !(cfg.Offered) {
			t.Fatalf("%d frames still held at the end of time", s.HeldFrames)
		}
	})
}

// TestOffered: what is dropped is charged as well.
func TestOffered(t *testing.T) {
	g := must(t, Config{Quota: 10e6, Window: time.Second, Offered: true, Policy: Random, Align: true})
	for i := range int64(100_000) {
		g.Arrive(second+i, &Packet{Bytes: 1000})
	}
	s := g.State(second + 100_000)
	if s.Used != 100e6 {
		t.Errorf("%d bytes charged, 100000000 were offered", s.Used)
	}
	if s.Passed.Bytes > 10e6 || s.Passed.Bytes < 7.5e6 {
		t.Errorf("%d bytes passed of a quota of 10000000", s.Passed.Bytes)
	}
}

// Inbound, dropped frames are billed too. Under a flood of any size, pings and a
// flow that obeys go on beside it, and nothing comes out of the queue late.
func TestFloor(t *testing.T) {
	const rate, start = 20e6 / 8, 1_700_000_000 * second
	for _, tt := range []struct {
		name   string
		align  bool
		window time.Duration
		flood  func(at int64) float64 // bytes per second
	}{
		{"flood", false, 5 * time.Second, func(int64) float64 { return 1.2 * rate }},
		{"aligned flood", true, 5 * time.Second, func(int64) float64 { return 1.2 * rate }},
		{"large flood", false, 5 * time.Second, func(int64) float64 { return 20 * rate }},
		{"burst", false, 30 * time.Second, func(at int64) float64 {
			if at < 2*second {
				return 1.5 * 30 / 2 * rate
			}
			return 1000
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := must(t, Config{Rate: rate, Window: tt.window, Align: tt.align, Offered: true})
			const ping, tcp = 10, 11
			next := [...]int64{start, start, start}
			pings := 0
			// The flow sends a quarter of the floor.
			passed := play(g, func(now int64) (at int64, p Packet) {
				first := 0
				for i := range next {
					if next[i] < next[first] {
						first = i
					}
				}
				at = max(next[first], now)
				switch first {
				case 0:
					p = Packet{Bytes: 1538, Flow: 1}
					next[0] += int64(1538 / tt.flood(at-start) * 1e9)
				case 1:
					if at < start+30*second {
						pings++
					}
					p = Packet{Bytes: 102, Flow: ping}
					next[1] += second / 2
				case 2:
					p = Packet{Bytes: 1538, Flow: tcp}
					next[2] += int64(1538 / (floor * rate / 4) * 1e9)
				}
				return at, p
			}, start, start+30*second)
			var echoes int
			carried := map[int64]int64{}
			for _, e := range passed {
				switch e.flow {
				case ping:
					echoes++
				case tcp:
					carried[(e.at-start)/second] += e.bytes
				}
				if e.wait > int64(100*time.Millisecond) {
					t.Fatalf("a frame waited %v", time.Duration(e.wait))
				}
			}
			if echoes != pings {
				t.Errorf("%d of %d pings passed", echoes, pings)
			}
			for s := range int64(29) {
				if float64(carried[s]) < floor*rate/4-2*1538 {
					t.Errorf("second %d: the flow carried %d bytes of %.0f", s, carried[s], floor*rate/4)
				}
			}
		})
	}
}

// After a dark time, a gate drops the frames that waited, and passes new ones.
func TestDropByAge(t *testing.T) {
	g := must(t, Config{Quota: 1e6, Window: 2 * time.Second})
	now := 1_700_000_000 * second
	g.Arrive(now, &Packet{Bytes: 1e6, Control: true})
	p := Packet{Bytes: 1000}
	hold := func() {
		t.Helper()
		if v := g.Arrive(now, &p); v != Hold {
			t.Fatalf("verdict %d", v)
		}
		g.Hold(&p, 1, 64)
	}
	hold()
	now += 3*second - int64(50*time.Millisecond)
	hold()
	now += int64(50 * time.Millisecond)
	h := g.Release(now)
	if h == nil || now-h.Since != int64(50*time.Millisecond) || g.Release(now) != nil {
		t.Errorf("released %+v", h)
	}
	if s := g.State(now); s.DroppedFull.Frames != 1 || s.Passed.Frames != 2 {
		t.Errorf("%+v", s)
	}
}

// TestExempt: control frames pass a closed gate and are counted, unmetered ones
// are not counted either.
func TestExempt(t *testing.T) {
	g := must(t, Config{Quota: 10_000, Window: time.Second, Policy: Random})
	for range 1000 {
		g.Arrive(second, &Packet{Bytes: 1000})
	}
	before := g.State(second)
	if v := g.Arrive(second, &Packet{Bytes: 64, Control: true}); v != Pass {
		t.Errorf("control: verdict %d", v)
	}
	if s := g.State(second); s.Used != before.Used+64 || s.Control.Frames != 1 {
		t.Errorf("control: %+v", s)
	}
	if v := g.Arrive(second, &Packet{Bytes: 9000, Unmetered: true}); v != Pass {
		t.Errorf("unmetered: verdict %d", v)
	}
	if s := g.State(second); s.Used != before.Used+64 || s.Unmetered.Bytes != 9000 {
		t.Errorf("unmetered: %+v", s)
	}
}

// TestSuper: whole while the gate is open, in pieces when not.
func TestSuper(t *testing.T) {
	g := must(t, Config{Quota: 1e6, Window: time.Second})
	super := Packet{Bytes: 66_000, Super: true}
	n := 0
	for g.Arrive(second, &super) == Pass {
		n++
	}
	if want := 12; n != want { // the twelfth crosses 750,000
		t.Errorf("%d super-frames passed, want %d", n, want)
	}
	if in := g.State(second).In.Frames; in != uint64(n) {
		t.Errorf("%d frames in, want %d: one to be cut has not arrived", in, n)
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
		for _, m := range []struct {
			mode Counting
			want int64
		}{{Frame, c.frame}, {IP, c.ipB}, {Ethernet, c.ether}, {Wire, c.onAir}} {
			if got := m.mode.Bytes(c.size, c.l2, c.ip); got != m.want {
				t.Errorf("%v of %d bytes: %d, want %d", m.mode, c.size, got, m.want)
			}
		}
	}
}

// TestNoAllocation: a gate in full swing takes no memory.
func TestNoAllocation(t *testing.T) {
	for _, policy := range []Policy{Pace, Random} {
		g := must(t, Config{Quota: 20e6, Window: time.Second, Policy: policy})
		now := second
		step := func() {
			for range 100 {
				now += 10_000
				for h := g.Release(now); h != nil; h = g.Release(now) {
					g.Done(h)
				}
				p := Packet{Bytes: 1538, Flow: uint64(now / 10_000 % 5)}
				if g.Arrive(now, &p) == Hold {
					g.Hold(&p, p.Flow, 1541)
				}
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

func BenchmarkArriveOpen(b *testing.B) {
	for _, with := range []string{"alone", "ledger", "budget"} {
		b.Run(with, func(b *testing.B) {
			cfg := Config{Quota: 1e18, Window: 5 * time.Minute, Threshold: 0.75}
			now := int64(1e18)
			if with != "alone" {
				cfg.Book = &desk{folio: newFolio(5e9), lanes: [][]int64{{0}}, begin: now}
			}
			if with == "budget" {
				cfg.Budget, _ = budget.New(budget.Config{Quota: cfg.Quota, Free: budget.Ratio{Num: 5, Den: 100}, Cycle: calendar.Calendar{Length: 30 * 24 * time.Hour}.Bounds})
			}
			g := must(b, cfg)
			p := Packet{Bytes: 1518}
			for b.Loop() {
				now += 1200
				g.Arrive(now, &p)
			}
		})
	}
}

func BenchmarkArrivePaced(b *testing.B) {
	g := must(b, Config{Quota: 100e6, Window: 5 * time.Second})
	now := int64(1e18)
	p := Packet{Bytes: 1518}
	for b.Loop() {
		now += 12000
		for h := g.Release(now); h != nil; h = g.Release(now) {
			g.Done(h)
		}
		if g.Arrive(now, &p) == Hold {
			g.Hold(&p, 7, 1541)
		}
	}
}

// The memory of the queue is bounded, whatever its length and the size of its frames.
func TestQueueMemory(t *testing.T) {
	g := must(t, Config{Quota: 1e12, Window: time.Second, Queue: time.Second})
	g.tick(1_700_000_000 * second)
	g.win.add(g.threshold)
	g.rate, g.clamped = 1e12, true
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
	g := must(t, Config{Quota: 10e3, Window: time.Hour, Align: true, Threshold: 1, Wall: func(now int64) int64 { return now + shift }})
	for _, tt := range []struct{ shift, used int64 }{{0, 1000}, {int64(5 * time.Hour), 1000}, {0, 2000}} {
		shift = tt.shift
		at += recheck
		g.Arrive(at, &Packet{Bytes: 1000})
		if s := g.State(at); s.Used != tt.used {
			t.Errorf("the clock set by %v: %d bytes are in the window, want %d", time.Duration(tt.shift), s.Used, tt.used)
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
			if v := g.Arrive(second, &p); v != Hold {
				t.Fatalf("verdict %d", v)
			}
			g.Hold(&p, 1, 64)
		}
		if s := g.State(second); int64(s.HeldFrames) != tt.frames || s.DroppedFull.Frames == 0 {
			t.Errorf("quota %d: %d frames are held, want %d: %+v", tt.quota, s.HeldFrames, tt.frames, s)
		}
		dropped := g.stats
		for range 100 {
			if v := g.Arrive(3*second, &p); v != Hold {
				t.Fatalf("verdict %d", v)
			}
			g.Hold(&p, 1, 64)
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

// What decides at the edges: the threshold and the quota themselves.
func TestEdges(t *testing.T) {
	for _, tt := range []struct {
		used   int64 // by control frames
		packet Packet
		want   Verdict
	}{
		{749, Packet{Bytes: 1, Super: true}, Pass},
		{750, Packet{Bytes: 1, Super: true}, Cut}, // the threshold
		{740, Packet{Bytes: 260}, Pass},
		{740, Packet{Bytes: 261}, Hold},
		{1000, Packet{Bytes: 1000}, Hold}, // fits an empty window
		{1000, Packet{Bytes: 1001}, Drop},
	} {
		g := must(t, Config{Quota: 1000, Window: time.Second})
		g.Arrive(second, &Packet{Bytes: tt.used, Control: true})
		if v := g.Arrive(second, &tt.packet); v != tt.want {
			t.Errorf("%d used, %+v: verdict %d, want %d", tt.used, tt.packet, v, tt.want)
		}
	}
	// Where nothing fits, the quota drops a frame, and not chance.
	g := must(t, Config{Quota: 1000, Window: time.Second, Policy: Random})
	g.Arrive(second, &Packet{Bytes: 1000, Control: true})
	for range 20 {
		g.Arrive(second, &Packet{Bytes: 1})
	}
	if g.stats.DroppedQuota.Frames != 20 {
		t.Errorf("%+v", g.stats)
	}
	// Time does not go back, and has an end.
	for _, now := range [][2]int64{{5 * second, 5 * second}, {3 * second, 5 * second}, {MaxTime + 1, MaxTime}} {
		if g.tick(now[0]); g.now != now[1] {
			t.Errorf("at %d it is %d, want %d", now[0], g.now, now[1])
		}
	}
	// Slots are not shorter than their part of the window.
	if s := newSliding(1000, time.Millisecond+1, budget.Poller{}); s.slot != 2001 {
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
		if got := Quota(tt.quota, tt.rate, 2*time.Second); got != tt.want {
			t.Errorf("%+v: %d", tt, got)
		}
	}
}

// A frame costs about as much whether few flows fill the queue or many.
func BenchmarkArriveFull(b *testing.B) {
	for _, flows := range []uint64{4, 60_000} {
		b.Run(fmt.Sprint(flows), func(b *testing.B) {
			g := must(b, Config{Quota: 100e6, Window: 5 * time.Second})
			now := int64(1e18)
			p := Packet{Bytes: 1538}
			for i := uint64(0); b.Loop(); i++ {
				now += 8000 // ten times the sustained rate
				for h := g.Release(now); h != nil; h = g.Release(now) {
					g.Done(h)
				}
				if g.Arrive(now, &p) == Hold {
					g.Hold(&p, i%flows, 1541)
				}
			}
		})
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

// A gate that is not open opens when its state says, if nothing more comes, and not a
// moment earlier.
func TestOpens(t *testing.T) {
	for name, cfg := range map[string]Config{
		"sliding": {Window: 5 * time.Minute},
		"aligned": {Window: 5 * time.Minute, Align: true},
		"cycle":   {Cycle: func(now int64) (start, end int64) { return now - now%1e15, now - now%1e15 + 1e15 }},
		"poller":  {Window: 5 * time.Minute, Poller: budget.Poller{Jitter: 2 * time.Second}},
		"shared":  {Window: 5 * time.Minute, Book: newShelf(time.Second, 310)},
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
		if before, at := g.State(then-1), g.State(then); before.Open || !at.Open || before.Opens != 1 || at.Opens != 0 {
			t.Errorf("%s: %v before the time, %v at it", name, before, at)
		}
	}
}
