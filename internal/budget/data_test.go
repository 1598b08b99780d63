package budget

import (
	"encoding/csv"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"framepipe/internal/nettest"
)

// load reads demand that may be beside the project: that is tested in addition.
// load returns the bytes of a trace, missing samples as 0, and when it begins.
func load(t testing.TB, name string) (start int64, samples []int64) {
	f, err := os.Open(nettest.Shared(t, "data/"+name+".csv")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for _, r := range rows[1:] {
		at, err := time.Parse("2006-01-02 15:04:05", r[0])
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseInt(r[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if start == 0 {
			start = at.UnixNano()
		} else {
			for last += 300e9; last < at.UnixNano(); last += 300e9 {
				samples = append(samples, 0)
			}
		}
		last = at.UnixNano()
		samples = append(samples, n)
	}
	return start, samples
}

const minutes5 = int64(300e9)

func halves(start int64, n int) func(now int64) (int64, int64) {
	mid := start + int64(n/2)*minutes5
	end := start + int64(n)*minutes5
	return func(now int64) (int64, int64) {
		switch {
		case now < mid:
			return start, mid
		case now < end:
			return mid, end
		}
		return end, end + (end - mid)
	}
}

func percentile95(s []int64) int64 {
	s = slices.Clone(s)
	slices.Sort(s)
	return s[len(s)-1-len(s)*5/100]
}

// A real month, billed 23.7 Mbit/s. Holding to the commit of 10 Mbit/s loses 817 GB there, and
// holding to 23.7 Mbit/s 48 GB.
func checkJuly(t *testing.T) {
	start, all := load(t, "eu-isp-2005")
	checkLost(t, "July", all[(july-start)/minutes5:], 0, 0.062)
	checkLost(t, "July", all[(july-start)/minutes5:], 2*time.Second, 0.082)
}

// Real demand, the second half of it, against the all-knowing scheduler, with
// the first half as history and without; the promise is checked in the same
// runs. The natural percentile is that of all demand, or of the second half.
func TestData(t *testing.T) {
	checkJuly(t)
	free := Ratio{5, 100}
	for _, tt := range []struct {
		name        string
		poller      Poller
		mean, first float64
	}{
		{"jitter 2s", Poller{Jitter: 2 * time.Second}, 0.987, 0.987},
		{"jitter 0", Poller{}, 0.992, 0.992},
		{"jitter 0, known phase", Poller{Known: true}, 0.9925, 0.9925},
	} {
		var mean [2]float64
		rows := 0.0
		for _, name := range []string{"eu-isp-2005", "ec2-257a54"} {
			start, all := load(t, name)
			n := len(all)
			half := all[n/2:]
			d := Demand{start, 5 * time.Minute, [][]int64{all}}
			test := Demand{start + int64(n/2)*minutes5, 5 * time.Minute, [][]int64{half}}
			for i, natural := range [][]int64{all, half} {
				for _, share := range []int64{50, 75, 100} {
					cfg := Config{
						Quota: percentile95(natural) * share / 100, Free: free, Cycle: halves(start, n),
						Window: 5 * time.Minute, Poller: tt.poller,
					}
					best := float64(allKnowing(cfg.Quota, free, half))
					row := fmt.Sprintf("%-12s %s %3d%%", name, [...]string{"all ", "half"}[i], share)
					if tt.poller.Jitter > 0 {
						flat, _ := passed(t, cfg, Never, test, test.Start)
						greedy, _ := passed(t, cfg, Greedy, test, test.Start)
						row += fmt.Sprintf("  flat %.4f  greedy %.4f", flat/best, greedy/best)
					}
					for j, demand := range []Demand{d, test} {
						got, r := passed(t, cfg, Weighed, demand, test.Start)
						row += fmt.Sprintf("  %s %.4f (%d of %d)", [...]string{"weighed", "first cycle"}[j], got/best, r.Used, r.Total)
						mean[j] += got / best
						if got/best < 0.95 {
							t.Errorf("%s, %s: %d%%: %.4f of what the all-knowing scheduler passes", tt.name, name, share, got/best)
						}
					}
					rows++
					t.Log(row)
				}
			}
		}
		t.Logf("%s: mean %.4f, first cycle %.4f", tt.name, mean[0]/rows, mean[1]/rows)
		if mean[0]/rows < tt.mean || mean[1]/rows < tt.first {
			t.Errorf("%s: that is too little", tt.name)
		}
	}
}

// passed returns the bytes that pass from a time on, and checks the promise.
func passed(t *testing.T, cfg Config, p Policy, demand Demand, from int64) (float64, Result) {
	h := history{parts: 2}
	s := Simulation{Config: cfg, Threshold: 0.75}
	s.Policy = p
	sum := int64(0)
	s.Slot = func(_ int, at, _, passed int64) {
		if h.bytes == nil {
			h.base = at / 5e9
		}
		h.bytes = append(h.bytes, passed, passed) // in halves of a byte
		if at >= from {
			sum += passed
		}
	}
	r, err := s.Run(demand)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Quota *= h.parts
	if cfg.Poller.Jitter > 0 { // TestPromise has the others; this takes long
		h.check(t, cfg)
	}
	return float64(sum), r
}

// allKnowing returns the bytes that a scheduler would pass if it knew all demand and the
// poller's phase: each sample up to the quota, and in full the free samples that exceed it
// most. The lanes have samples of the same length, which are free together.
func allKnowing(quota int64, free Ratio, lanes ...[]int64) int64 {
	excess := make([]int64, len(lanes[0]))
	sum := int64(0)
	for _, samples := range lanes {
		for i, s := range samples {
			sum += min(s, quota)
			excess[i] += max(s-quota, 0)
		}
	}
	slices.Sort(excess)
	slices.Reverse(excess)
	n := FreeWindows(int64(len(excess)+1), 1, free)
	for _, e := range excess[:n] {
		sum += e
	}
	return sum
}
