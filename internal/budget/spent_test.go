package budget

import (
	"testing"
	"time"
)

// When more than the free windows are over for every poller, the level that is billed in
// any case is free to the end of the cycle, but not for windows that touch the next one. With Hard
// it is not, and what the other direction has spent counts if it has a bill of its own.
func TestSpent(t *testing.T) {
	const quota, flood = int64(600e6), int64(50e6) // 600 MB in 60 slots, and 3,000 MB
	for _, tt := range []struct {
		name  string
		lane  int
		slots int64
		cfg   Config
		spent bool
	}{
		{"few windows", 0, 14 * 60, Config{}, false},
		{"many", 0, 18 * 60, Config{}, true},
		{"hard", 0, 18 * 60, Config{Hard: true}, false},
		{"the other direction", 1, 18 * 60, Config{Lanes: 2, Separate: true}, true},
		{"the larger one", 1, 18 * 60, Config{Lanes: 2}, true},
	} {
		cfg := tt.cfg
		cfg.Quota, cfg.Percentile, cfg.Cycle, cfg.Policy = quota, 95e9, fixed(day), Greedy
		cfg.Poller.Jitter = 2 * time.Second
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for i := range tt.slots {
			b.Count(0, i*5e9, 1, 1, false)
			b.Count(tt.lane, i*5e9, flood, flood, i > 10)
		}
		now := tt.slots*5e9 + 600e9
		got := b.Stats(now)
		// A poller bills 3,000 MB, or if its samples are short, those of 296 s.
		want := flood * 296 / 5
		if (got.Spent != 0) != tt.spent || tt.spent && (got.Spent != want || got.Free) {
			t.Errorf("%s: %+v, want %d", tt.name, got, want)
		}
		for _, at := range []int64{day - 306e9, day - 305e9, day - 1, day, day + 600e9} {
			quota, spent := quota, tt.spent && at < day
			if spent {
				quota = want
			}
			if got := b.Quota(at); got != quota {
				t.Errorf("%s: the quota is %d at %v", tt.name, got, time.Duration(at))
			}
			if k, limited := b.Limit(at); spent && (k != day/b.slot-b.span+1 || limited != (at >= day-305e9)) {
				t.Errorf("%s: window %d is limited: %v at %v", tt.name, k, limited, time.Duration(at))
			}
		}
	}
}

// A cycle that was not whole has its share of the free windows, unless it is billed whole.
func TestFirstCycle(t *testing.T) {
	for _, tt := range []struct {
		from  int64
		whole bool
		want  int64
	}{{0, false, 431}, {15 * day, false, 215}, {15 * day, true, 431}} {
		b, err := New(Config{Quota: 1, Percentile: 95e9, Cycle: fixed(30 * day), Whole: tt.whole})
		if err != nil {
			t.Fatal(err)
		}
		if s := b.Stats(tt.from); s.Total != tt.want {
			t.Errorf("%+v, want %d", s, tt.want)
		}
		if s := b.Stats(31 * day); s.Total != 431 {
			t.Errorf("the next cycle: %+v", s)
		}
	}
}

// lost returns the bytes that a gate loses of the samples of a month. It begins after nine days, which have
// used up the free windows of the month.
func lost(t *testing.T, month int64, samples []int64, cfg Config) (lost int64) {
	cfg.Quota, cfg.Percentile, cfg.Whole, cfg.Cycle = 10e6/8*300, 95e9, true, cycles(month, 31*day)
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := shaper{b: b, threshold: 0.75}
	for i := range int64(len(samples)) * Slots {
		bytes, slot := part(samples[i/Slots], i%Slots, Slots), month/b.slot+i
		if i*b.slot < 9*day {
			b.Count(0, slot*b.slot, bytes, bytes, samples[i/Slots] > b.quota)
		} else {
			lost += bytes - g.slot(0, slot, bytes, 0)
		}
	}
	return lost
}

// The free windows of a month are used up before the gate begins. It then loses a small share of the
// bytes that it would lose with Hard. The month of the trace is billed 23.7 Mbit/s. Holding to the commit
// of 10 Mbit/s loses 817 GB there, and holding to 23.7 Mbit/s 48 GB.
func TestLost(t *testing.T) {
	july := time.Date(2005, 7, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	start, trace := load(t, "eu-isp-2005")
	trace = trace[(july-start)/minutes5:]
	for _, tt := range []struct {
		jitter time.Duration
		most   float64 // of the bytes lost with Hard
	}{{0, 0.062}, {2 * time.Second, 0.082}} {
		cfg := Config{Poller: Poller{Jitter: tt.jitter}}
		level := lost(t, july, trace, cfg)
		cfg.Hard = true
		if hard := lost(t, july, trace, cfg); float64(level) > tt.most*float64(hard) {
			t.Errorf("%+v: %d bytes lost, %d with Hard", tt, level, hard)
		}
	}
}
