package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/gate"
	"framepipe/internal/ledger"
	"framepipe/internal/packettest"
	"framepipe/internal/recorded"
)

// wall is a clock that is set by hand: so much more than the gate's.
type wall struct{ now, more int64 }

func (w *wall) clock() *wallClock {
	return &wallClock{show: func(int64) int64 { return w.now + w.more }}
}

// open opens a ledger as quotagate does, and a gate that counts in it.
func open(t testing.TB, c config, cfg gate.Config, clock *wallClock) (*book, *gate.Gate) {
	t.Helper()
	c.gate = cfg
	c.gate.Wall = clock.at
	b, err := c.open(clock, func(string, ...any) {}) // it is told for longer than a test lasts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	g, err := gate.New(c.gate)
	if err != nil {
		t.Fatal(err)
	}
	return b, g
}

// monthly is the flags of a gate with free windows of a month.
func monthly(t testing.TB, name string) config {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return config{ledger: t.TempDir() + "/ledger", calendar: calendar.Calendar{Day: 1, Zone: zone}, percentile: 95e9, whole: true}
}

var fiveMinutes = gate.Config{Quota: 60e6, Window: 5 * time.Minute, Threshold: 0.75}

// The clock on the wall is set by an hour and by a month, to and fro, and goes over
// the end of a month and of summer time: bytes are counted in the slots of what it
// shows, and all of them are there. So they are for a gate that is started then.
func TestClockIsSet(t *testing.T) {
	c := monthly(t, "Europe/Berlin")
	w := &wall{now: time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC).UnixNano()} // an hour later there are two hours from 2 to 3
	b, g := open(t, c, fiveMinutes, w.clock())
	passed := int64(0)
	want := map[int64]int64{} // by when the slot begins
	for i, step := range []time.Duration{
		0, time.Hour, 0, -time.Hour, 0, 31 * 24 * time.Hour, 0, // the end of summer time, and another month
		7*24*time.Hour - time.Hour - 5*time.Minute, // close to the end of October
		-31 * 24 * time.Hour, 0, time.Second / 2,
	} {
		w.more = int64(step)
		for range 400 {
			w.now += int64(time.Second)
			p := gate.Packet{Bytes: 1000 + int64(i)}
			if g.Arrive(w.now, &p) != gate.Pass {
				t.Fatalf("%v: a frame does not pass", step)
			}
			g.Flush()
			passed += p.Bytes
			want[(w.now+w.more)/5e9*5e9] += p.Bytes
		}
	}
	counted, elsewhere := int64(0), int64(0)
	for _, cycle := range b.Cycles() {
		for i := range cycle.Slots {
			n := cycle.Slot(i, ledger.In).Charged.Load()
			counted += n
			elsewhere += max(n-want[cycle.Start+int64(i)*5e9], 0)
		}
	}
	// That it was set is noticed when the next slot begins.
	if counted != passed || elsewhere > 11*6*1100 {
		t.Errorf("%d bytes passed, %d are counted, %d of them in slots of another time", passed, counted, elsewhere)
	}
	if n := len(b.Cycles()); n != 3 {
		t.Errorf("%d cycles, want September, October and November", n)
	}
	_, again := open(t, c, fiveMinutes, w.clock())
	was, is := g.State(w.now), again.State(w.now)
	if is.Used < was.Used || is.Used > was.Used+was.Used/50 || is.Budget.Total != was.Budget.Total {
		t.Errorf("started again: %d bytes in the window, %+v; want %d, %+v", is.Used, is.Budget, was.Used, was.Budget)
	}
}

// What is over for one direction is over for the other by max, their sum counts by
// sum, and by separate each has its own.
func TestBillOfBoth(t *testing.T) {
	for bill, want := range map[billing][2]int64{separate: {3, 0}, larger: {3, 3}, both: {3, 3}} {
		c := monthly(t, "UTC")
		c.bill = bill
		w := &wall{now: time.Date(2026, 9, 15, 12, 0, 0, 0, time.UTC).UnixNano()}
		_, in := open(t, c, fiveMinutes, w.clock())
		c.dir = ledger.Out
		_, out := open(t, c, fiveMinutes, w.clock())
		// Ten minutes at five times the quota come in.
		for range 600 {
			w.now += int64(time.Second)
			for range 10 {
				in.Arrive(w.now, &gate.Packet{Bytes: 100e3})
			}
		}
		w.now += int64(time.Minute)
		x, y := in.State(w.now), out.State(w.now)
		if used := [2]int64{x.Budget.Used, y.Budget.Used}; used != want {
			t.Errorf("%v: in and out have used %d free windows, want %d", bill, used, want)
		}
		if share := float64(x.Passed.Bytes) / float64(x.In.Bytes); share < 0.95 {
			t.Errorf("%v: %.2f of a burst passed that was free", bill, share)
		}
	}
}

// A transfer cap holds whatever the clock shows for a moment, where the ledger has no
// room for that: all that passes in a month is at or under it, and in the ledger when
// the clock is right again.
func TestCapClockIsWrong(t *testing.T) {
	const quota, year = 1_000_000, 365 * 24 * int64(time.Hour)
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := &wall{}
		c := monthly(t, "Europe/Berlin")
		c.percentile = 0
		cfg, zone := gate.Config{Quota: quota, Cycle: c.calendar.Bounds, Threshold: 1, Policy: gate.Random}, c.calendar.Zone
		b, g := open(t, c, cfg, w.clock())
		for month := time.May; month <= time.December; month++ {
			w.now = time.Date(2026, month, 1, 12, 0, 0, 0, zone).UnixNano()
			passed := int64(0)
			for range 1 + rng.IntN(30) {
				if month > time.August { // the ledger is full
					w.more = []int64{0, 0, 2 * year, 30*year - w.now, 1e9 - w.now}[rng.IntN(5)]
				}
				for range 1 + rng.IntN(50) {
					w.now += int64(time.Second)
					p := gate.Packet{Bytes: 1500}
					if g.Arrive(w.now, &p) == gate.Pass {
						passed += p.Bytes
					}
				}
			}
			w.more = 0
			for range 20 { // it is looked at every five seconds
				w.now += int64(time.Second)
				g.State(w.now)
			}
			_, end := cfg.Cycle(w.now)
			if got := b.Charged(end-1, ledger.In); got != passed || passed > quota {
				t.Fatalf("%v: %d bytes passed, and %d are in the ledger, of %d", month, passed, got, quota)
			}
		}
	}
}

// A capture goes through in parts, one gate after the other on the same ledger. No window
// of the ledger holds more than the quota; with -percentile, as many of each phase as are
// free.
func TestParts(t *testing.T) {
	const start, size, quota, cycle = 1_700_006_400 * int64(time.Second), 1500, 6000, 60 // windows
	for _, window := range []time.Duration{1200 * time.Millisecond, 6 * time.Second} {
		rng := rand.New(rand.NewPCG(3, uint64(window)))
		var parts [30][]byte
		f := packettest.Spec{UDP: true, Payload: make([]byte, size-4-42)}.Frame()
		const each = cycle / 30
		for i := range parts {
			level := []float64{0.2, 0.5, 0.8, 0.8, 3, 15}[rng.IntN(6)] // of the quota
			for at := 0.0; at < each; at += rng.ExpFloat64() * size / quota / level {
				now := start + int64((float64(i*each)+at)*float64(window))
				parts[i] = (&frame.Record{Time: uint64(now), Frame: f}).Append(parts[i])
			}
		}
		for percentile, free := range map[budget.Percentile]int{0: 0, 95e9: (cycle - 1) * 5 / 100} {
			c := config{ledger: t.TempDir() + "/ledger", calendar: calendar.Calendar{Length: cycle * window}, percentile: percentile}
			cfg := gate.Config{Quota: quota, Window: window, Threshold: 0.75, Queue: 100 * time.Millisecond, Seed: 1}
			var b *book
			for _, part := range parts {
				records, g := &recorded.Clock{}, (*gate.Gate)(nil)
				b, g = open(t, c, cfg, &wallClock{show: records.Wall})
				_, _, err := through(t, cfg, part, func(f *filter) {
					f.gate, f.records, f.cfg.Book = g, records, b
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			sum, over, slots := int64(0), [budget.Slots]int{}, b.Cycles()[0]
			for i := range slots.Slots {
				if sum += slots.Slot(i, ledger.In).Charged.Load(); i >= budget.Slots {
					sum -= slots.Slot(i-budget.Slots, ledger.In).Charged.Load()
				}
				if sum > quota {
					over[i%budget.Slots]++
				}
			}
			if n := slices.Max(over[:]); n > free || free > 0 && n == 0 {
				t.Errorf("windows of %v, percentile %v: %d of a phase are over the quota, %d are free", window, &percentile, n, free)
			}
		}
	}
}
