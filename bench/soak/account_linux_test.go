package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/nettest"
)

// whole is a run in which everything agrees: 1000 frames of 1000 bytes, of which the
// gate has cut 100 super-frames into three each, passed 1000 frames and dropped 200 of 64
// bytes; tunwrite has made one of each ten.
func whole(killed string) *run {
	r := &run{
		dir: "in", n: 1, killed: killed,
		sent:     count{1000, 1_000_000},
		received: count{100, 950_000},
		read:     counters{"frames": 1000, "bytes": 1_000_000, "ethernet_bytes": 1_012_800},
		gate: counters{
			"read": 1000, "read_bytes": 1_000_000, "in": 1200, "in_bytes": 1_012_800, "passed": 1000, "passed_bytes": 1_000_000,
			"dropped_early": 120, "dropped_early_bytes": 7680, "dropped_full": 50, "dropped_full_bytes": 3200, "dropped_quota": 30, "dropped_quota_bytes": 1920,
			"held": 0, "held_bytes": 0,
		},
		hist:    counters{"frames": 1000, "bytes": 996_000, "ethernet_bytes": 1_000_000},
		reports: counters{"frames": 1000, "bytes": 996_000, "ethernet_bytes": 1_000_000, "counts": 996_000},
		write: counters{
			"frames": 1000, "bytes": 996_000, "ethernet_bytes": 1_000_000,
			"written": 100, "written_bytes": 950_000, "written_ethernet_bytes": 999_000, "lost_ethernet_bytes": 1000,
		},
		offered: 1_012_800, charged: 1_000_000,
	}
	switch killed {
	case "tunread":
		r.read = nil
	case "quotagate":
		r.gate, r.published = nil, counters{"dropped_bytes": 12_800}
	case "bytehist":
		r.hist, r.reports = nil, nil
	case "tunwrite":
		r.write, r.before = nil, r.write
	}
	return r
}

// numbers returns all that is counted in a run, by name.
func numbers(r *run) map[string]func(int64) {
	all := map[string]func(int64){
		"sent frames": func(n int64) { r.sent.frames += n }, "sent bytes": func(n int64) { r.sent.bytes += n },
		"received frames": func(n int64) { r.received.frames += n }, "received bytes": func(n int64) { r.received.bytes += n },
		"offered": func(n int64) { r.offered += n }, "charged": func(n int64) { r.charged += n },
	}
	for name, c := range map[string]counters{"read ": r.read, "gate ": r.gate, "hist ": r.hist, "reports ": r.reports, "write ": r.write} {
		for key := range c {
			all[name+key] = func(n int64) { c[key] += n }
		}
	}
	return all
}

// In a pipeline that was drained, no counter may be off by one, up or down. In one that was not,
// hardly any may be off both ways.
func TestExact(t *testing.T) {
	bounded := map[string]string{
		"quotagate": "offered, read ethernet_bytes", // the ledger may be off
		"bytehist":  "write bytes",                  // no other count has those
		"tunwrite":  "received frames, received bytes",
	}
	for _, killed := range append([]string{""}, stages...) {
		agreed := whole(killed)
		if c := agreed.complaints(); len(c) > 0 {
			t.Errorf("%q: %s", killed, c)
		}
		for _, l := range agreed.links() {
			if !slices.Contains(places, l.what) {
				t.Errorf("%q is no place", l.what)
			}
		}
		for name := range numbers(agreed) {
			complaints := 0
			for _, by := range []int64{-1, 1} {
				r := whole(killed)
				numbers(r)[name](by)
				complaints += min(len(r.complaints()), 1)
			}
			if killed == "" && complaints < 2 || (complaints == 0) != strings.Contains(bounded[killed], name) {
				t.Errorf("%q killed: %s is off by one: %d complaints", killed, name, complaints)
			}
		}
	}
}

func TestBounds(t *testing.T) {
	charge := func(n int64) func(*run) {
		return func(r *run) { r.charged += n; r.offered += n; r.read["ethernet_bytes"] += n }
	}
	pass := func(n int64) func(*run) { return func(r *run) { r.gate["passed"] += n; r.gate["in"] += n } }
	for _, tt := range []struct {
		killed string
		change func(r *run)
		want   string // in the complaint, "" if there is to be none
	}{
		// What tunread had gathered is lost.
		{"tunread", func(r *run) { r.sent = count{1100, 1_150_000} }, ""},
		{"tunread", func(r *run) { r.sent.bytes += source + behind + 1 }, "past a killed tunread"},
		{"tunread", func(r *run) { r.sent.frames += (source+behind)/least + 1 }, "past a killed tunread"},
		{"tunread", func(r *run) { r.sent.frames-- }, "past a killed tunread"},
		{"tunread", func(r *run) { // so are the frames that its queue dropped
			r.before, r.sent = counters{"dropped": 9000, "dropped_bytes": 9_000_000}, count{10_000, 10_000_000}
		}, ""},
		// The gate passes a frame that ends in the middle, and no other stage counts it.
		{"tunread", func(r *run) { r.hist["frames"]--; r.write["frames"]--; r.reports["frames"]-- }, ""},
		{"tunread", func(r *run) { r.hist["frames"] -= 2; r.write["frames"] -= 2; r.reports["frames"] -= 2 }, "behind a killed tunread"},
		{"tunread", func(r *run) { r.charged-- }, "charged in the ledger"},
		{"tunread", func(r *run) { r.charged++ }, "charged in the ledger"},
		// On the way to the gate that was killed, and in it.
		{"quotagate", func(r *run) { r.read["ethernet_bytes"] += up }, ""},
		{"quotagate", func(r *run) { r.read["ethernet_bytes"] += wire(up) + behind + 1 }, "offered in the ledger of a killed gate"},
		{"quotagate", charge(inHand), ""},
		{"quotagate", charge(inHand + 1), "counted by bytehist"},
		{"quotagate", func(r *run) { r.charged-- }, "charged in the ledger of a killed gate, counted by bytehist"},
		{"quotagate", func(r *run) { r.offered += 10 << 20; r.read["ethernet_bytes"] += 10 << 20 }, ""}, // dropped since the metrics
		{"quotagate", func(r *run) { r.published["dropped_bytes"] += behind + 1 }, "dropped before by a killed gate"},
		{"quotagate", func(r *run) { r.received.frames++ }, "received by the kernel"},
		// Through bytehist, and before it.
		{"bytehist", pass(700), ""},
		{"bytehist", pass(tees/least + 1), "through a killed bytehist"},
		{"bytehist", func(r *run) { r.gate["held"] += 3; r.gate["in"] += 3 }, ""},
		{"bytehist", func(r *run) { r.gate["held"]++ }, "passed, dropped and held"},
		{"bytehist", func(r *run) { r.read["frames"] += 100; r.sent.frames += 100 }, ""},
		{"bytehist", func(r *run) { r.read["frames"] += up/least + 1; r.sent.frames += up/least + 1 }, "read by tunread, come to the gate"},
		{"bytehist", func(r *run) { r.charged++ }, "charged in the ledger"},
		// Behind tunwrite the kernel counts.
		{"tunwrite", func(r *run) { pass(1000)(r); r.hist["frames"] += 1000; r.reports["frames"] += 1000 }, ""},
		{"tunwrite", func(r *run) { r.received.bytes -= last + 1 }, "behind a killed tunwrite"},
		{"tunwrite", func(r *run) { r.received.bytes += joined + 1 }, "behind a killed tunwrite"},
		{"tunwrite", func(r *run) { r.before["segmented"] = 1; r.received.bytes -= wire(last) + 1 }, "behind a killed tunwrite"},
		// This should not happen at all.
		{"", func(r *run) { r.gate["held"]++; r.gate["in"]++ }, "has come to its end"},
		{"", func(r *run) { r.hist["left_out"] = 1; r.reports["frames"] = 0 }, ""},
		{"tunwrite", func(r *run) { r.faults = []string{"bytehist said: no"} }, "in 1, tunwrite killed: bytehist said: no"},
	} {
		r := whole(tt.killed)
		tt.change(r)
		all := strings.Join(r.complaints(), "\n")
		if (all == "") != (tt.want == "") || !strings.Contains(all, tt.want) {
			t.Errorf("%q killed: %q, want %q", tt.killed, all, tt.want)
		}
	}
}

func TestFlat(t *testing.T) {
	const warm = 5 * time.Second
	make := func(n int, memory func(i int) int64, files func(i int) int) (l life) {
		for i := range n {
			l = append(l, sample{time.Duration(i) * time.Second, memory(i), files(i)})
		}
		return l
	}
	still := func(v int64) func(int) int64 { return func(int) int64 { return v } }
	nine := func(int) int { return 9 }
	for _, tt := range []struct {
		what, name string
		lives      []life
		want       string
	}{
		{"nothing happens", "tunread", []life{make(100, still(2<<20), nine)}, ""},
		{"a start from nothing", "tunread", []life{make(100, func(i int) int64 { return min(int64(i), 4) << 20 }, nine)}, ""},
		{"a queue that grew", "quotagate", []life{make(100, func(i int) int64 { return 3<<20 + int64(i/50)*queue }, nine)}, ""},
		{"the same, where there is none", "bytehist", []life{make(100, func(i int) int64 { return 3<<20 + int64(i/50)*queue }, nine)}, "memory grew from 3.0 to 11.0 MB"},
		{"100 kB a second", "tunwrite", []life{make(100, func(i int) int64 { return 2<<20 + int64(i)*100<<10 }, nine)}, "life 1: memory grew"},
		{"from life to life", "tunwrite", []life{make(20, still(2<<20), nine), make(20, still(5<<20), nine), make(20, still(8<<20), nine)}, "all its lives: memory grew"},
		{"too much", "tunread", []life{make(100, still(40<<20), nine)}, "40 MB of memory"},
		{"a descriptor a minute", "tunread", []life{make(100, still(2<<20), func(i int) int { return 9 + i/60 })}, "descriptors grew from 9 to 10"},
		{"a descriptor in each life", "tunread", []life{make(20, still(2<<20), nine), make(20, still(2<<20), nine), make(20, still(2<<20), func(int) int { return 10 })}, "descriptors grew"},
		{"files that come and go", "quotagate", []life{make(100, still(2<<20), func(i int) int { return 9 + i%7/6*2 })}, ""},
		{"many of them", "quotagate", []life{make(100, still(2<<20), func(i int) int { return 9 + i%7/6*3 })}, "12 descriptors, and 9 as a rule"},
		{"lives of a second", "tunread", []life{make(2, still(2<<20), nine), make(2, still(50<<20), nine)}, ""},
	} {
		f := flat(tt.name, tt.lives, warm)
		all := strings.Join(f.complaints, "\n")
		if (all == "") != (tt.want == "") || !strings.Contains(all, tt.want) {
			t.Errorf("%s: %q, want %q", tt.what, all, tt.want)
		}
	}
}

// A process that has not opened its files yet is not held against what it is later.
func TestFootprint(t *testing.T) {
	nettest.Need(t, "setpriv")
	for _, line := range []string{"sleep 9", "setpriv --no-new-privs sleep 9"} {
		args := strings.Fields(line)
		begun := args[0] == "setpriv"
		c := exec.Command(args[0], args[1:]...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		memory, files, err := footprint(c.Process.Pid)
		for end := time.Now().Add(5 * time.Second); begun && err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			memory, files, err = footprint(c.Process.Pid)
		}
		_ = c.Process.Kill()
		_ = c.Wait()
		if begun != (err == nil) || begun && (memory == 0 || files < 3) {
			t.Errorf("%s: %d bytes, %d descriptors, %v", line, memory, files, err)
		}
	}
}
