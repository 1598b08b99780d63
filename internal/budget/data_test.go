package budget

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"framepipe/internal/nettest"
)

// load returns the bytes of a trace beside the project, missing samples as 0, and when it begins.
func load(t testing.TB, name string) (start int64, samples []int64) {
	text, err := os.ReadFile(nettest.Shared(t, "data/"+name+".csv")[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range strings.Fields(strings.ReplaceAll(string(text), " ", "T"))[1:] {
		column := strings.Split(row, ",")
		at, e1 := time.Parse("2006-01-02T15:04:05", column[0])
		n, e2 := strconv.ParseInt(column[2], 10, 64)
		if err := errors.Join(e1, e2); err != nil {
			t.Fatal(err)
		}
		if samples == nil {
			start = at.UnixNano()
		}
		missing := (at.UnixNano()-start)/minutes5 - int64(len(samples))
		samples = append(append(samples, make([]int64, missing)...), n)
	}
	return start, samples
}

const minutes5 = int64(300e9)

func percentile95(s []int64) int64 {
	s = slices.Clone(s)
	slices.Sort(s)
	return s[len(s)-1-len(s)*5/100]
}

// Real demand, the second half of it, against the all-knowing scheduler, with
// the first half as history and without; the promise is checked in the same
// runs. The natural percentile is that of all demand, or of the second half.
func TestData(t *testing.T) {
	for _, tt := range []struct {
		name   string
		poller Poller
		check  bool // the promise, which takes long
		least  float64
	}{
		{"jitter 2s", Poller{Jitter: 2 * time.Second}, true, 0.987},
		{"jitter 0", Poller{}, false, 0.992},
		{"jitter 0, known phase", Poller{Known: true}, false, 0.9925},
	} {
		var history, first []float64
		for _, name := range []string{"eu-isp-2005", "ec2-257a54"} {
			start, all := load(t, name)
			half := all[len(all)/2:]
			from := start + int64(len(all)/2)*minutes5
			for i := range 6 {
				natural, percent := [][]int64{all, half}[i/3], int64(50+25*(i%3))
				cfg := Config{
					Quota: percentile95(natural) * percent / 100, Percentile: 95e9,
					Cycle: cycles(from, int64(len(half))*minutes5), Window: 5 * time.Minute, Poller: tt.poller,
				}
				best := float64(allKnowing(cfg.Quota, cfg.Percentile, half))
				share := func(p Policy, start int64, samples []int64) float64 {
					cfg.Policy = p
					demand := Demand{start, 5 * time.Minute, [][]int64{samples}}
					return float64(simulate(t, cfg, demand, from, tt.check).Passed) / best
				}
				history = append(history, share(Weighed, start, all))
				first = append(first, share(Weighed, from, half))
				row := fmt.Sprintf("weighed %.4f, first cycle %.4f", history[len(history)-1], first[len(first)-1])
				if tt.check {
					row += fmt.Sprintf(", flat %.4f, greedy %.4f", share(Never, from, half), share(Greedy, from, half))
				}
				t.Logf("%s, %s, %d%%: %s", tt.name, name, percent, row)
			}
		}
		for _, shares := range [][]float64{history, first} {
			sum := 0.0
			for _, s := range shares {
				sum += s
			}
			mean := sum / float64(len(shares))
			t.Logf("%s: mean %.4f", tt.name, mean)
			if mean < tt.least || slices.Min(shares) < 0.95 {
				t.Errorf("%s: %.4f of what the all-knowing scheduler passes is too little", tt.name, shares)
			}
		}
	}
}

// allKnowing returns the bytes that a scheduler would pass if it knew all demand and the
// poller's phase: the largest samples are free, and the others pass up to the quota.
func allKnowing(quota int64, p Percentile, samples []int64) (sum int64) {
	n := len(samples) - p.Free(len(samples))
	for i, s := range slices.Sorted(slices.Values(samples)) {
		if i < n {
			s = min(s, quota)
		}
		sum += s
	}
	return sum
}
