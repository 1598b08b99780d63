package e2e

import (
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/ledger"
)

// charged adds up what a ledger has.
func charged(t testing.TB, name string, d ledger.Direction) (sum int64) {
	t.Helper()
	l, err := ledger.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range l.Cycles() {
		for i := range c.Slots {
			sum += c.Bytes(d, false, i)
		}
	}
	return sum
}

// Two gates on one ledger hold the sum of both directions to the quota, with
// TCP in both.
func TestLedgerBothDirections(t *testing.T) {
	t.Parallel()
	const quota, window, length = 12_000_000, 2 * time.Second, 6 * time.Second
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	gate := "quotagate -quota 12MB -window 2s -cycle 1h -ledger " + dir + "/ledger -bill sum -charge passed -dir "
	meters := [2]string{dir + "/in", dir + "/out"}
	n := newNetwork(t, setup{
		in:  []string{gate + "in", "env " + meterFile + "=" + meters[0] + " " + self},
		out: []string{gate + "out", "env " + meterFile + "=" + meters[1] + " " + self},
	})
	both := pair(t, n)
	start := time.Now()
	for _, c := range both {
		go func() { _, _ = io.Copy(c, noise{}) }()
		go func() { _, _ = io.Copy(io.Discard, c) }()
	}
	time.Sleep(length)
	n.stop()
	var m [2]metered
	for i, name := range meters {
		if m[i], err = readMeter(name); err != nil {
			t.Fatal(err)
		}
	}
	// Both, by one clock.
	sum := metered{Start: m[0].Start, Buckets: append([]uint64(nil), m[0].Buckets...)}
	shift := int(m[1].Start.Sub(m[0].Start) / meterBucket)
	for i, b := range m[1].Buckets {
		i = max(i+shift, 0)
		for len(sum.Buckets) <= i {
			sum.Buckets = append(sum.Buckets, 0)
		}
		sum.Buckets[i] += b
	}
	most := float64(sum.most(window)) / quota
	used := float64(sum.between(start, 0, length)) / (quota * length.Seconds() / window.Seconds())
	shares := [2]float64{}
	for i := range m {
		shares[i] = float64(m[i].between(start, 0, length)) / float64(sum.between(start, 0, length))
	}
	t.Logf("fullest window %.4f of the quota; %.3f of it used; in %.2f, out %.2f of that", most, used, shares[0], shares[1])
	if most > 1.01 { // the meters' buckets are not those of the gates
		t.Errorf("a window holds %.4f of the quota", most)
	}
	if used < 0.8 || min(shares[0], shares[1]) < 0.05 {
		t.Errorf("%.3f of the quota is used, in %.2f, out %.2f", used, shares[0], shares[1])
	}
	// What passed is what the ledger has.
	for i, d := range []ledger.Direction{ledger.In, ledger.Out} {
		passed := uint64(0)
		for _, b := range m[i].Buckets {
			passed += b
		}
		if got := charged(t, dir+"/ledger", d); got != int64(passed) {
			t.Errorf("direction %d: %d passed, and the ledger has %d", i, passed, got)
		}
	}
}

// Killed at any moment, the gates of both directions have counted all that they let
// through, and no more than what they had in hand besides.
func TestLedgerKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const kills, size = 200, 1000
	in := stream(3000, size, 0)
	if err := os.WriteFile(dir+"/in", in, 0o600); err != nil {
		t.Fatal(err)
	}
	var passed [2]int64
	midway := 0
	for i := range kills {
		d := ledger.Direction(i % 2)
		c := exec.Command("quotagate", "-quota", "1PB", "-window", "5m", "-cycle", "1d", "-ledger", dir+"/ledger",
			"-dir", []string{"in", "out"}[d], "-percentile", "95", "-bill", []string{"sum", "max", "separate"}[i%3])
		f, err := os.Open(dir + "/in")
		if err != nil {
			t.Fatal(err)
		}
		c.Stdin = f
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(rand.IntN(8000))*time.Microsecond, func() { _ = c.Process.Kill() })
		r := frame.NewReader(out)
		var rec frame.Record
		n := 0
		for r.Next(&rec) == nil {
			if !rec.IsAnnotation() {
				passed[d] += int64(len(rec.Frame)) + 4
				n++
			}
		}
		_ = c.Wait()
		if n > 0 && n < 3000 {
			midway++
		}
	}
	const hand = 512 << 10 // what is read and not written yet, the frame that is cut off, and credit
	for d, passed := range passed {
		got := charged(t, dir+"/ledger", ledger.Direction(d))
		t.Logf("direction %d: %d passed, %d counted; %d of %d were killed midway", d, passed, got, midway, kills)
		if got < passed || got > passed+kills/2*hand {
			t.Errorf("direction %d: %d passed, and the ledger has %d", d, passed, got)
		}
		if passed == 0 {
			t.Error("nothing passed")
		}
	}
}
