package e2e

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/ledger"

	"golang.org/x/sys/unix"
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
	sum := together(m[:]...)
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
		passed := m[i].total()
		if got := charged(t, dir+"/ledger", d); got != int64(passed) {
			t.Errorf("direction %d: %d passed, and the ledger has %d", i, passed, got)
		}
	}
}

// What passed is what the ledger has, to the byte, also after kill -9 of the gates of
// both directions at any moment: of frames that they read and write and of
// super-frames, which the kernel moves; of gates that are open, and of such as hold
// frames back, cut and drop them; while the ledger is written to the disk.
func TestLedgerKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inputs := [2]string{dir + "/small", dir + "/super"}
	for i, b := range [][]byte{stream(20_000, 1000, 0), stream(3000, 0, 0)} {
		if err := os.WriteFile(inputs[i], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, flags := range map[string][]string{
		"open":  {"-quota", "1PB", "-window", "5m", "-percentile", "95"},
		"paced": {"-rate", "4Gbit/s", "-window", "1s", "-charge", "passed"},
	} {
		t.Run(name, func(t *testing.T) { ledgerKilled(t, dir+"/"+name, inputs, flags) })
	}
}

// A ledger that is cut off while the gate waits for its reader stops nothing.
func TestLedgerCutOff(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{"small": stream(20_000, 1000, 0), "super": stream(400, 0, 0)} {
		file := t.TempDir() + "/bill"
		c := exec.Command("quotagate", "-quota", "1PB", "-ledger", file, "-dir", "out")
		c.Stdin = bytes.NewReader(b)
		out, said := begun(t, c)
		stuck(t, out)
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %d of %d bytes came out, %v", name, len(got), len(b), err)
		}
		if want := "quotagate: " + file + ": it was cut off, or its file system fails; counting goes on in memory, and for this direction alone\n"; said.String() != want {
			t.Errorf("%s: it says %s", name, said.String())
		}
	}
}

// stuck waits until a gate waits for who reads its output.
func stuck(t *testing.T, out *os.File) {
	t.Helper()
	waiting, last := 0, -1
	eventually(t, 10*time.Second, "a gate that waits", func() bool {
		n, err := unix.IoctlGetInt(int(out.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 && n == last {
			waiting++
		} else {
			waiting, last = 0, n
		}
		return waiting == 10
	})
}

// A gate that can use its ledger only after a while counts there to the byte from then
// on, also when it is killed.
func TestLedgerLate(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{"passed": nil, "offered": {"-charge", "offered"}} {
		t.Run(name, func(t *testing.T) {
			file := t.TempDir() + "/bill"
			c := exec.Command("quotagate", append([]string{"-quota", "1PB", "-cycle", "1h", "-clock", "stream", "-ledger", file, "-dir", "out"}, flags...)...)
			in, err := c.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, said := begun(t, c)
			for _, b := range [][]byte{
				streamFrom(1e9, 500, 1000, time.Millisecond), // in January 1970 there is no cycle
				streamFrom(1e18, 1, 996, 0),
			} {
				if _, err := in.Write(b); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(out, make([]byte, len(b))); err != nil {
					t.Fatal(err)
				}
			}
			go func() { _, _ = in.Write(streamFrom(1e18, 20_000, 1000, 0)) }()
			stuck(t, out)
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			passed := int64(1000)
			r := frame.NewReader(out)
			var rec frame.Record
			for err = r.Next(&rec); err == nil; err = r.Next(&rec) {
				if !rec.IsAnnotation() {
					passed += 1004
				}
			}
			_ = c.Wait() // by a signal
			if got := charged(t, file, ledger.Out); got != passed || passed < 64<<10 {
				t.Errorf("%d passed, and the ledger has %d", passed, got)
			}
			if !strings.Contains(said.String(), "there is no cycle for the time 1970-01-01") {
				t.Errorf("it says %s", said)
			}
		})
	}
}

func ledgerKilled(t *testing.T, file string, inputs [2]string, flags []string) {
	kills := 100
	if *full {
		kills = 500
	}
	var before [2]int64
	midway, off := 0, 0
	for i := range kills {
		d := ledger.Direction(i % 2)
		cat := exec.Command("cat", inputs[i/2%2]) // a pipe, from which super-frames are spliced
		c := exec.Command("quotagate", append([]string{"-cycle", "1h", "-ledger", file, "-dir", []string{"in", "out"}[d],
			"-bill", []string{"sum", "max", "separate"}[i%3]}, flags...)...)
		after := time.Duration(rand.IntN(8000)) * time.Microsecond
		if i == 0 {
			after = time.Minute // it makes the ledger
		}
		passed, whole := killed(t, cat, c, after, i%5 > 0)
		if passed > 0 && !whole {
			midway++
		}
		if i == 0 {
			writtenBack(t, file)
		}
		now := charged(t, file, d)
		switch more := now - before[d] - passed; {
		case more < 0:
			t.Errorf("kill %d: %d passed, and the ledger has %d less", i, passed, -more)
		case more > 0: // killed between a count and its note, or in a write that could not be noted
			off++
			t.Logf("kill %d: %d passed, and the ledger has %d more", i, passed, more)
			if more > 512<<10 {
				t.Errorf("%d is more than was counted and written at once", more)
			}
		}
		before[d] = now
	}
	t.Logf("%d of %d were killed midway; %d bytes passed", midway, kills, before[0]+before[1])
	if off > 1+kills/50 || midway < kills/4 {
		t.Errorf("%d of %d were killed midway, and of %d the ledger has too much", midway, kills, off)
	}
}

// writtenBack has the kernel write a file to the disk all the time, which makes its pages
// read-only, until the test is over.
func writtenBack(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	over, done := make(chan bool), make(chan error)
	go func() {
		var err error
		for err == nil {
			select {
			case <-over:
				close(done)
				return
			default:
				err = unix.SyncFileRange(int(f.Fd()), 0, 1<<20, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
			}
		}
		done <- err
	}()
	t.Cleanup(func() {
		close(over)
		if err := <-done; err != nil {
			t.Error(err)
		}
		f.Close()
	})
}

// killed runs feeder | gate and kills the gate after a while, from its start on or from
// its first frame. It returns what came out, as switches count, and whether that was
// all.
func killed(t *testing.T, feeder, gate *exec.Cmd, after time.Duration, flowing bool) (passed int64, whole bool) {
	t.Helper()
	in, err := feeder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	gate.Stdin = in
	out, err := gate.StdoutPipe()
	if err == nil {
		err = feeder.Start()
	}
	if err == nil {
		err = gate.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
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
	whole = gate.Wait() == nil
	_ = feeder.Wait()
	return passed, whole
}
