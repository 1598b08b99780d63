package e2e

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"framepipe/internal/ledger"
)

// overs counts, for each phase that a provider's poller can have, the windows of each cycle that
// hold more than the quota, and compares them with how many are free. The slots, which begin with a
// cycle, are those of several lanes, which are over each by itself.
func overs(t testing.TB, perWindow, perCycle int, lanes [][]int64, quota int64, percent int) (most int) {
	t.Helper()
	for from := 0; from < len(lanes[0]); from += perCycle {
		for phase := range perWindow {
			over, whole := 0, 0
			for i := from + phase; i+perWindow <= from+perCycle; i += perWindow {
				whole++
				if slices.ContainsFunc(lanes, func(lane []int64) bool {
					sum := int64(0)
					for _, b := range lane[min(i, len(lane)):min(i+perWindow, len(lane))] {
						sum += b
					}
					return sum > quota
				}) {
					over++
				}
			}
			free := whole * (100 - percent) / 100
			if most = max(most, over); over > free {
				t.Errorf("phase %d: %d windows of %d over the quota, %d free", phase, over, whole, free)
			}
		}
	}
	return most
}

// Real TCP in both directions, in bursts, through gates that share a ledger and
// its free windows, on scaled time: a window of 1.2 s, a cycle of 24. What they
// counted keeps the bound, and is what passed.
func TestBudgetBothDirections(t *testing.T) {
	t.Parallel()
	for _, bill := range []string{"sum", "max"} {
		t.Run(bill, func(t *testing.T) {
			t.Parallel()
			const (
				quota, window, slot = 6_000_000, 1200 * time.Millisecond, 20 * time.Millisecond
				cycle, length       = 12 * time.Second, 14 * time.Second
			)
			dir := t.TempDir()
			gate := "quotagate -quota 6MB -window 1200ms -cycle 12s -percentile 70 -jitter 0 -ledger " + dir + "/ledger -charge passed -bill " + bill + " -dir "
			meters := [2]string{dir + "/in", dir + "/out"}
			n := newNetwork(t, setup{
				in:  []string{gate + "in", meterStage(t, meters[0])},
				out: []string{gate + "out", meterStage(t, meters[1])},
			})
			begin := time.Now()
			both := pair(t, n)
			for i, c := range both {
				go func() {
					for on := range 1 << 20 {
						end := time.Now().Add(time.Duration(400+300*((on+i)%3)) * time.Millisecond)
						for time.Now().Before(end) {
							if _, err := io.CopyN(c, &noise{}, 64<<10); err != nil {
								return
							}
						}
						time.Sleep(time.Duration(700+400*i) * time.Millisecond)
					}
				}()
				go func() { _, _ = io.Copy(io.Discard, c) }()
			}
			time.Sleep(time.Until(begin.Add(length)))
			n.stop()
			from := begin.Truncate(cycle).Add(-cycle).UnixNano()
			lanes := make([][]int64, 2)
			for d := range lanes {
				lanes[d] = make([]int64, 5*cycle/slot) // more than there can be
				sum := uint64(0)
				eachSlot(t, dir+"/ledger", ledger.Direction(d), func(at, bytes int64) {
					sum += uint64(bytes)
					if at >= from && bytes > 0 {
						lanes[d][(at-from)/int64(slot)] = bytes
					}
				})
				if m := readMeter(t, meters[d]); m.total() != sum {
					t.Errorf("direction %d: %d bytes passed, and the ledger has %d", d, m.total(), sum)
				}
			}
			if bill == "sum" {
				for i, b := range lanes[1] {
					lanes[0][i] += b
				}
				lanes = lanes[:1]
			}
			if most := overs(t, int(window/slot), int(cycle/slot), lanes, quota, 70); most == 0 {
				t.Error("no window was over, and so nothing was tested")
			}
		})
	}
}

// pair connects the two ends of a network.
func pair(t testing.TB, n *network) (both [2]net.Conn) {
	t.Helper()
	both[1], both[0] = connection(t, n.b, n.a, "10.0.0.1:0")
	return both
}
