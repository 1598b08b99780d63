package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/ledger"
	"framepipe/internal/pollertest"
)

// overs counts, for each phase that a provider's poller can have, the windows of
// each cycle that hold more than the quota, and compares them with how many are
// free. Slots are those of several lanes, which are over each by itself.
func overs(t testing.TB, what string, start, slot int64, perWindow int, cycle int64, lanes [][]int64, quota int64, percent int) (most, free int) {
	t.Helper()
	n := len(lanes[0])
	sums := make([][]int64, len(lanes))
	for l := range lanes {
		sums[l] = make([]int64, n+1)
		for i, b := range lanes[l] {
			sums[l][i+1] = sums[l][i] + b
		}
	}
	for from := start - start%cycle; from < start+int64(n)*slot; from += cycle {
		for phase := range perWindow {
			over, whole := 0, 0
			for at := from + int64(phase)*slot; at+int64(perWindow)*slot <= from+cycle; at += int64(perWindow) * slot {
				whole++
				i := min(max((at-start)/slot, 0), int64(n))
				j := min(max((at-start)/slot+int64(perWindow), 0), int64(n))
				for l := range sums {
					if sums[l][j]-sums[l][i] > quota {
						over++
						break
					}
				}
			}
			free = whole * (100 - percent) / 100
			if most = max(most, over); over > free {
				t.Errorf("%s: phase %d: %d windows of %d over the quota, %d free", what, phase, over, whole, free)
			}
		}
	}
	return most, free
}

// Half a day of frames through a gate, by the time of the records, with the
// process started anew ten times: no phase of the poller sees more windows over
// the quota than are free, and most of them are used. With this policy nothing
// waits, so that the time of a record is that at which it passed.
func TestBudgetReplay(t *testing.T) {
	t.Parallel()
	const (
		length, quota = 12 * time.Hour, 300_000 // 5 kB a second
		cycle, window = 2 * time.Hour, time.Minute
		start         = int64(1_700_006_400) * 1e9 // a multiple of the cycle
		size          = 1500
	)
	rng := rand.New(rand.NewPCG(3, 4))
	var parts [10]bytes.Buffer
	f := make([]byte, size)
	for i := range f {
		f[i] = byte(i)
	}
	f[12], f[13] = 8, 0
	level, until := 0.0, int64(0)
	offered := 0
	for at := start; at < start+int64(length); {
		if at >= until {
			level = []float64{0.2, 0.5, 0.8, 0.8, 3, 15}[rng.IntN(6)]
			until = at + int64(rng.ExpFloat64()*float64(4*time.Minute)/(1+level))
		}
		at += int64(rng.ExpFloat64() * size / (level * quota / window.Seconds()) * 1e9)
		if at >= start+int64(length) {
			break
		}
		p := &parts[int(at-start)*len(parts)/int(length)]
		r := frame.Record{Time: uint64(at), Frame: f}
		p.Write(r.Append(nil))
		offered++
	}
	dir := t.TempDir()
	lane := make([]int64, length/(window/60))
	passed := 0
	var times []int64
	for i := range parts {
		out, said, status := through(t, parts[i].Bytes(), "quotagate", "-quota", fmt.Sprint(quota, "B"), "-window", window.String(), "-cycle", cycle.String(), "-ledger", dir+"/ledger", "-dir", "out",
			"-percentile", "95", "-policy", "random", "-count", "frame", "-clock", "stream")
		if status != 0 {
			t.Fatal(status, said)
		}
		for _, rec := range records(t, out) {
			lane[(int64(rec.Time)-start)/int64(window/60)] += int64(len(rec.Frame))
			times = append(times, int64(rec.Time))
			passed++
		}
	}
	most, free := overs(t, "replay", start, int64(window/60), 60, int64(cycle), [][]int64{lane}, quota, 95)
	t.Logf("%d of %d frames passed; %d of %d free windows used in some phase", passed, offered, most, free)
	if most < free-1 {
		t.Errorf("%d of %d free windows were used, in a demand that wants all", most, free)
	}
	slices.Sort(times)
	counter := func(at int64) float64 {
		i, _ := slices.BinarySearch(times, at+1)
		return float64(i) * size
	}
	for _, k := range pollertest.Kinds(2 * time.Second) {
		for at := start; k.Late == 0 && at < start+int64(length); at += int64(cycle) {
			for range 20 {
				polls, _ := k.Polls(rng, at, at+int64(cycle), window)
				if b := pollertest.Bill(polls, at, at+int64(cycle), window, 95e9, counter); b > quota {
					t.Errorf("%s: billed %.4f of the quota", k.Name, b/quota)
				}
			}
		}
	}
	// The ledger has four of the six cycles.
	same := 0
	for i, n := range slots(t, dir+"/ledger", ledger.Out, start, len(lane)) {
		if n == lane[i] {
			same++
		} else if n != 0 {
			t.Fatalf("slot %d: %d bytes passed, and the ledger has %d", i, lane[i], n)
		}
	}
	if same < len(lane)*4/6 {
		t.Errorf("%d of %d slots are as in the ledger", same, len(lane))
	}
}

// slots reads the slots of a ledger from a time on.
func slots(t testing.TB, name string, d ledger.Direction, start int64, n int) []int64 {
	t.Helper()
	l, err := ledger.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	all := make([]int64, n)
	for _, c := range l.Cycles() {
		for i := range c.Slots {
			if at := (c.Start - start) / int64(l.Config().Slot); at+int64(i) >= 0 && at+int64(i) < int64(n) {
				all[at+int64(i)] = c.Bytes(d, false, i)
			}
		}
	}
	return all
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
			both := pair(t, n)
			begin := time.Now().UnixNano()
			stop := time.Now().Add(length)
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
			time.Sleep(time.Until(stop))
			n.stop()
			from := begin - begin%int64(cycle) - int64(cycle)
			count := int((time.Now().UnixNano() - from) / int64(slot))
			lanes := make([][]int64, 2)
			for i, d := range []ledger.Direction{ledger.In, ledger.Out} {
				lanes[i] = slots(t, dir+"/ledger", d, from, count)
				m := readMeter(t, meters[i])
				passed := int64(m.total())
				if sum := charged(t, dir+"/ledger", d); passed != sum {
					t.Errorf("direction %d: %d bytes passed, and the ledger has %d", i, passed, sum)
				}
				t.Logf("direction %d: %.1f MB passed in %v, the quota sustains %.1f", i, float64(passed)/1e6, length, float64(quota)*length.Seconds()/window.Seconds()/1e6)
			}
			if bill == "sum" {
				for i, b := range lanes[1] {
					lanes[0][i] += b
				}
				lanes = lanes[:1]
			}
			most, free := overs(t, bill, from, int64(slot), int(window/slot), int64(cycle), lanes, quota, 70)
			t.Logf("%d of %d free windows used in some phase", most, free)
			if most == 0 {
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
