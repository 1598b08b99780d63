package budget

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// When more than the free windows are over for every poller, the level that is billed in
// any case is free, in this cycle and up to a window before its end. With Hard it is not, and
// what the other direction has spent counts if it has a bill of its own.
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
		cfg.Quota, cfg.Free, cfg.Cycle, cfg.Policy = quota, Ratio{5, 100}, fixed(day), Greedy
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
		if want := flood * 296 / 5; (got.Spent != 0) != tt.spent || tt.spent && got.Spent != want {
			t.Errorf("%s: %+v, want %d", tt.name, got, want)
		}
		if k, limited := b.Limit(now); tt.spent && (!limited || k != b.t-b.span+1) {
			t.Errorf("%s: windows are free", tt.name)
		}
		for _, at := range []int64{day - 299e9, day, day + 600e9} {
			if got := b.Quota(at); got != quota {
				t.Errorf("%s: the quota is %d at %v", tt.name, got, time.Duration(at))
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
		b, err := New(Config{Quota: 1, Free: Ratio{5, 100}, Cycle: fixed(30 * day), Whole: tt.whole})
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

// lost returns the bytes that a gate loses of the samples of July. It begins after nine days, which have
// used up the free windows of the month.
func lost(t *testing.T, samples []int64, cfg Config) (lost int64) {
	const before, month = 9 * day / minutes5 * Slots, 31 * day
	cfg.Quota, cfg.Free, cfg.Whole = 10e6/8*300, Ratio{5, 100}, true
	cfg.Cycle = func(at int64) (int64, int64) {
		start := july + FloorDiv(at-july, month)*month
		return start, start + month
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := shaper{b: b, threshold: 0.75}
	for i := range int64(len(samples)) * Slots {
		bytes, slot := part(samples[i/Slots], i%Slots, Slots), july/b.slot+i
		if i < before {
			b.Count(0, slot*b.slot, bytes, bytes, samples[i/Slots] > b.quota)
		} else {
			lost += bytes - g.slot(0, slot, bytes, 0)
		}
	}
	return lost
}

var july = time.Date(2005, 7, 1, 0, 0, 0, 0, time.UTC).UnixNano()

// checkLost compares the bytes that a gate loses with those that it loses with Hard: their share may be
// most.
func checkLost(t *testing.T, name string, samples []int64, jitter time.Duration, most float64) {
	cfg := Config{Poller: Poller{Jitter: jitter}}
	level := lost(t, samples, cfg)
	cfg.Hard = true
	hard := lost(t, samples, cfg)
	t.Logf("%s, jitter %v: %.1f GB lost, %.1f with Hard", name, jitter, float64(level)/1e9, float64(hard)/1e9)
	if share := float64(level) / float64(hard); !(share <= most) {
		t.Errorf("%s, jitter %v: %.3f of what is lost for the commit, want at most %.3f", name, jitter, share, most)
	}
}

// The free windows of the month are used up before the gate begins. It then loses a small share of the
// bytes that it would lose with Hard.
func TestLost(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 10))
	checkLost(t, "synthetic", each(31*288, func(i int) float64 {
		return 4e8 * (1.2 + 0.8*math.Sin(float64(i)/288*2*math.Pi) + 0.2*r.Float64())
	}), 2*time.Second, 0.06)
}
