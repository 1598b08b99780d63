package budget

import (
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
		// A poller bills 3,000 MB; 58 slots are certain, over up to 304 s.
		if want := 58 * flood * 300 / 304; (got.Spent != 0) != tt.spent || tt.spent && (got.Spent < want || got.Spent > 60*flood) {
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
