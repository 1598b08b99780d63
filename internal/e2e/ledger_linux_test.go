package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
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
			sum += c.Slot(i, d).Charged.Load()
		}
	}
	return sum
}

// inHand is what a gate that is killed may have charged and not passed, besides its
// queue.
const inHand = 1 << 20

// A gate that is killed never has passed more than the ledger says, and hardly less: with
// gates of both directions killed at any moment, with small frames and with super-frames,
// which the kernel moves; open, and while they hold frames back, cut and drop them.
func TestLedgerKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inputs := [2]string{dir + "/small", dir + "/super"}
	for i, b := range [][]byte{stream(20_000, 1000, 0), stream(3000, 0, 0)} {
		write(t, inputs[i], b)
	}
	for name, flags := range map[string][]string{
		"open":    {"-quota", "1PB", "-window", "5m", "-percentile", "95"},
		"paced":   {"-rate", "4Gbit/s", "-window", "1s", "-charge", "passed"},
		"offered": {"-rate", "4Gbit/s", "-window", "1s", "-charge", "offered"}, // with what is dropped
	} {
		t.Run(name, func(t *testing.T) { ledgerKilled(t, dir+"/"+name, inputs, flags) })
	}
}

func ledgerKilled(t *testing.T, file string, inputs [2]string, flags []string) {
	const kills = 100
	var before [2]int64
	midway, most := 0, int64(0)
	for i := range kills {
		d := ledger.Direction(i % 2)
		cat := exec.Command("cat", inputs[i/2%2]) // a pipe, from which super-frames are spliced
		c := exec.Command("quotagate", append([]string{"-cycle", "1h", "-ledger", file, "-dir", []string{"in", "out"}[d],
			"-charge", "passed", "-bill", []string{"sum", "max", "separate"}[i%3]}, flags...)...)
		after := time.Duration(rand.IntN(8000)) * time.Microsecond
		if i == 0 {
			after = time.Minute // it makes the ledger
		}
		passed, whole := killed(t, cat, c, after, i%5 > 0)
		if passed > 0 && !whole {
			midway++
		}
		now := charged(t, file, d)
		more := now - before[d] - passed
		before[d] = now
		if whole && more == 0 {
			continue
		}
		most = max(most, more)
		if more < 0 || more > inHand && !slices.Contains(flags, "offered") {
			t.Errorf("kill %d: %d passed, and the ledger has %d more", i, passed, more)
		}
	}
	t.Logf("%d of %d were killed midway; %d bytes are charged; at the most %d of a gate did not pass", midway, kills, before[0]+before[1], most)
	if midway < kills/4 {
		t.Errorf("%d of %d were killed midway", midway, kills)
	}
}

// killed runs feeder | gate and kills the gate after a while, from its start on or from
// its first frame. It returns what came out, as switches count, and whether that was
// all.
func killed(t *testing.T, feeder, gate *exec.Cmd, after time.Duration, flowing bool) (passed int64, whole bool) {
	t.Helper()
	out, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	all := pipeline(t, nil, stdout, feeder, gate)
	stdout.Close()
	kill := sync.OnceFunc(func() { time.AfterFunc(after, func() { _ = gate.Process.Kill() }) })
	if !flowing {
		kill()
	}
	r := frame.NewReader(out)
	var rec frame.Record
	for err = r.Next(&rec); err == nil; err = r.Next(&rec) {
		kill()
		if rec.IsAnnotation() {
			continue
		}
		passed += int64(len(rec.Frame)) + 4
		if len(rec.Offload) > 0 {
			const headers, segment = 54, 1460
			passed += int64((len(rec.Frame)-headers+segment-1)/segment-1) * (headers + 4)
		}
	}
	gone(t, all)
	return passed, gate.ProcessState.Success()
}
