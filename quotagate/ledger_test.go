package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
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

// open opens a ledger of months in a zone as quotagate does.
func open(t testing.TB, name, zone string, bill billing, dir ledger.Direction, w *wall) (*book, gate.Config) {
	t.Helper()
	c := config{ledger: name, zone: zone, cycleDay: 1, percentile: 95e9, whole: true, bill: bill, dir: uint8(dir)}
	cfg := gate.Config{Quota: 60e6, Window: 5 * time.Minute, Threshold: 0.75}
	b, err := c.open(&cfg, w.clock(), func(string, ...any) {}) // it is told for longer than a test lasts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, cfg
}

// The clock on the wall is set by an hour and by a month, to and fro, and goes over
// the end of a month and of summer time: bytes are counted in the slots of what it
// shows, and all of them are there. So they are for a gate that is started then.
func TestClockIsSet(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	name := t.TempDir() + "/ledger"
	w := &wall{now: time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC).UnixNano()} // an hour later there are two hours from 2 to 3
	b, cfg := open(t, name, "Europe/Berlin", separate, ledger.Out, w)
	g, err := gate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
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
	for _, c := range b.Cycles() {
		for i := range c.Slots {
			n := c.Bytes(ledger.Out, false, i)
			counted += n
			elsewhere += max(n-want[c.Start+int64(i)*5e9], 0)
		}
		if begin := time.Unix(0, c.Start).In(zone); begin.Day() != 1 || begin.Hour() != 0 {
			t.Errorf("a cycle begins at %v", begin)
		}
	}
	if counted != passed {
		t.Errorf("%d bytes passed, and %d are counted", passed, counted)
	}
	// That it was set is noticed when the next slot begins.
	if elsewhere > 11*6*1100 {
		t.Errorf("%d bytes are in slots of another time", elsewhere)
	}
	if n := len(b.Cycles()); n != 3 {
		t.Errorf("%d cycles, want September, October and November", n)
	}

	_, cfg = open(t, name, "Europe/Berlin", separate, ledger.Out, w)
	again, err := gate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := g.State(w.now), again.State(w.now); b.Used < a.Used || b.Used > a.Used+a.Used/50 || b.Budget.Total != a.Budget.Total {
		t.Errorf("started again: %d bytes in the window, %+v; want %d, %+v", b.Used, b.Budget, a.Used, a.Budget)
	}
}

// October has an hour more where summer time ends, and March one less: 12 windows.
func TestDaylightSaving(t *testing.T) {
	for _, tt := range []struct {
		zone  string
		month time.Month
		want  int64
	}{
		{"Europe/Berlin", 10, 446}, {"UTC", 10, 446}, {"Europe/Berlin", 3, 445}, {"Europe/Berlin", 2, 403}, {"Asia/Kathmandu", 9, 431},
	} {
		w := &wall{now: time.Date(2026, tt.month, 15, 12, 0, 0, 0, time.UTC).UnixNano()}
		_, cfg := open(t, t.TempDir()+"/ledger", tt.zone, separate, ledger.Out, w)
		g, err := gate.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s := g.State(w.now).Budget
		if n := budget.FreeWindows(s.End-s.Start, int64(5*time.Minute), budget.Ratio{Num: 5, Den: 100}); s.Total != tt.want || n != s.Total {
			t.Errorf("%s, month %d: %d free windows, want %d", tt.zone, tt.month, s.Total, tt.want)
		}
	}
}

// What is over for one direction is over for the other by max, their sum counts by
// sum, and by separate each has its own.
func TestBillOfBoth(t *testing.T) {
	for _, tt := range []struct {
		bill          billing
		used, usedOut int64
	}{
		{separate, 3, 0}, {larger, 3, 3}, {both, 3, 3},
	} {
		name := t.TempDir() + "/ledger"
		w := &wall{now: time.Date(2026, 9, 15, 12, 0, 0, 0, time.UTC).UnixNano()}
		_, in := open(t, name, "UTC", tt.bill, ledger.In, w)
		_, out := open(t, name, "UTC", tt.bill, ledger.Out, w)
		a, err1 := gate.New(in)
		b, err2 := gate.New(out)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		// Ten minutes at five times the quota come in.
		for range 600 {
			w.now += int64(time.Second)
			for range 10 {
				a.Arrive(w.now, &gate.Packet{Bytes: 100e3})
			}
		}
		w.now += int64(time.Minute)
		x, y := a.State(w.now), b.State(w.now)
		if x.Budget.Used != tt.used || y.Budget.Used != tt.usedOut {
			t.Errorf("%v: in has used %d free windows, out %d; want %d, %d", tt.bill, x.Budget.Used, y.Budget.Used, tt.used, tt.usedOut)
		}
		if share := float64(x.Passed.Bytes) / float64(x.In.Bytes); share < 0.95 {
			t.Errorf("%v: %.2f of a burst passed that was free", tt.bill, share)
		}
	}
}

// A transfer cap holds whatever the clock shows for a moment, where the ledger has no
// room for that: all that passes in a month is at or under it, and in the ledger when
// the clock is right again.
func TestCapClockIsWrong(t *testing.T) {
	const quota, year = 1_000_000, 365 * 24 * int64(time.Hour)
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 1))
		name := t.TempDir() + "/ledger"
		w := &wall{}
		cfg := gate.Config{Quota: quota, Cycle: calendar.Calendar{Day: 1, Zone: zone}.Bounds, Threshold: 1, Policy: gate.Random}
		c := config{ledger: name, zone: zone.String(), cycleDay: 1, dir: uint8(ledger.Out)}
		clock := w.clock()
		cfg.Wall = clock.at
		b, err := c.open(&cfg, clock, func(string, ...any) {})
		if err != nil {
			t.Fatal(err)
		}
		g, err := gate.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		charged := func(month time.Month) int64 {
			at := time.Date(2026, month, 1, 0, 0, 0, 0, zone)
			return b.Charged(at.UnixNano(), at.AddDate(0, 1, 0).UnixNano(), ledger.Out)
		}
		w.now = time.Date(2026, 5, 1, 12, 0, 0, 0, zone).UnixNano()
		before := int64(0)
		for month := time.May; month <= time.December; month++ {
			passed := int64(0)
			for range 1 + rng.IntN(30) {
				frames := 1 + rng.IntN(50)
				if month > time.August { // the ledger is full
					w.more = []int64{0, 0, 2 * year, 30*year - w.now, 1e9 - w.now}[rng.IntN(5)]
				}
				for range frames {
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
			if got := charged(month); got != passed || passed > quota {
				t.Fatalf("%v: %d bytes passed, and %d are in the ledger, of %d", month, passed, got, quota)
			}
			if n := charged(month - 1); n != before {
				t.Fatalf("%v: of the month before %d bytes are left, of %d", month, n, before)
			}
			before = passed
			w.now = time.Date(2026, month+1, 1, 12, 0, 0, 0, zone).UnixNano()
		}
		b.Close()
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
		level, until, length := 0.0, int64(0), cycle*int64(window)
		for at := int64(0); at < length; at += int64(rng.ExpFloat64() * size / quota / level * float64(window)) {
			if at >= until {
				level = []float64{0.2, 0.5, 0.8, 0.8, 3, 15}[rng.IntN(6)]
				until = at + int64(rng.ExpFloat64()*4/(1+level)*float64(window))
			}
			p := &parts[at*int64(len(parts))/length]
			*p = (&frame.Record{Time: uint64(start + at), Frame: f}).Append(*p)
		}
		for percentile, free := range map[budget.Percentile]int{0: 0, 95e9: (cycle - 1) * 5 / 100} {
			name := t.TempDir() + "/ledger"
			for _, part := range parts {
				c := config{ledger: name, cycle: cli.Duration(length), percentile: percentile, dir: uint8(ledger.Out)}
				cfg := gate.Config{Quota: quota, Window: window, Threshold: 0.75, Queue: 100 * time.Millisecond, Seed: 1}
				records, clock := &recorded.Clock{}, newWallClock()
				clock.show = records.Wall
				b, err := c.open(&cfg, clock, func(string, ...any) {})
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := through(t, cfg, part, func(f *filter) { f.records, f.ledger, f.queue = records, true, cfg.Queue }); err != nil {
					t.Fatal(err)
				}
				b.Close()
			}
			l, err := ledger.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			sum, over, slots := int64(0), [budget.Slots]int{}, l.Cycles()[0]
			for i := range slots.Slots {
				if sum += slots.Bytes(ledger.Out, false, i); i >= budget.Slots {
					sum -= slots.Bytes(ledger.Out, false, i-budget.Slots)
				}
				if sum > quota {
					over[i%budget.Slots]++
				}
			}
			if n := slices.Max(over[:]); n > free || free > 0 && n == 0 {
				t.Errorf("windows of %v, percentile %v: %d of a phase are over the quota, %d are free", window, &percentile, n, free)
			}
			l.Close()
		}
	}
}
