package budget

import (
	"encoding/csv"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

func load(t testing.TB, name string) Demand {
	f, err := os.Open("../../../shared/data/" + name + ".csv")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var d Demand
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
		if d.Start == 0 {
			d.Start = at.UnixNano()
		} else {
			for last += 300e9; last < at.UnixNano(); last += 300e9 {
				d.Bytes = append(d.Bytes, -1)
			}
		}
		last = at.UnixNano()
		d.Bytes = append(d.Bytes, n)
	}
	return d
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

func TestTable(t *testing.T) {
	for _, name := range []string{"eu-isp-2005", "ec2-257a54"} {
		d := load(t, name)
		n := len(d.Bytes)
		test := d.Bytes[n/2:]
		for nat, of := range [][]int64{d.Bytes, test} {
			for _, pc := range []int64{50, 75, 100} {
				q := percentile95(of) * pc / 100
				row := fmt.Sprintf("%-12s %d %3d%%", name, nat, pc)
				best := AllKnowing(q, Ratio{5, 100}, test)
				for _, p := range []Policy{Never, Greedy, Weighed} {
					for _, hist := range []bool{false, true} {
						s := Simulation{Config: Config{Quota: q, Free: Ratio{5, 100}, Cycle: halves(d.Start, n), Policy: p}, Threshold: 0.75}
						mid := d.Start + int64(n/2)*minutes5
						sum := int64(0)
						s.Slot = func(at, o, p int64) {
							if at >= mid {
								sum += p
							}
						}
						dd := Demand{Start: mid, Bytes: test}
						if hist {
							dd = d
						}
						r, err := s.Run(dd)
						if err != nil {
							t.Fatal(err)
						}
						row += fmt.Sprintf(" | %.4f %d/%d (%.0f)", float64(sum)/float64(best), r.Used, r.Total, r.Mean)
					}
				}
				t.Log(row)
			}
		}
	}
}
