package e2e

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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

// fullest returns the most bytes of both directions in so many slots of a ledger, one after
// the other. They are those of the gates' clocks, which no delay behind a gate changes.
func fullest(t testing.TB, name string, slots int) (most int64) {
	t.Helper()
	l, err := ledger.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range l.Cycles() {
		both := func(i int) int64 { return c.Bytes(ledger.In, false, i) + c.Bytes(ledger.Out, false, i) }
		sum := int64(0)
		for i := range c.Slots {
			if sum += both(i); i >= slots {
				sum -= both(i - slots)
			}
			most = max(most, sum)
		}
	}
	return most
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

// A gate whose ledger is cut off ends with an error, and passes on nothing damaged.
func TestLedgerCutOff(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{"small": stream(20_000, 1000, 0), "super": stream(400, 0, 0)} {
		file := t.TempDir() + "/bill"
		all, in, out := piped(t, exec.Command("quotagate", "-quota", "1PB", "-ledger", file, "-dir", "out"))
		go func() { _, _ = in.Write(b) }()
		stuck(t, out)
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		gone(t, all)
		if status := all[0].ProcessState.ExitCode(); status != 1 || !bytes.HasPrefix(b, got) {
			t.Errorf("%s: status %d, %d bytes of %d came out", name, status, len(got), len(b))
		}
		if want := "quotagate: " + file + ": the ledger was truncated, or its disk failed\n"; all[0].Said.String() != want {
			t.Errorf("%s: it says %s", name, &all[0].Said)
		}
		for _, args := range []string{"quotagate -quota 1PB -dir out -ledger ", "quotabill "} {
			f := strings.Fields(args + file)
			_, says, status := through(t, b, f[0], f[1:]...)
			if status != 1 || !strings.Contains(says, file+": not a ledger, or damaged: 0 bytes") || !strings.Contains(says, ": hint: ") {
				t.Errorf("%s: status %d, %s", args, status, says)
			}
		}
	}
}

// A gate of up whose ledger is cut off, or cannot be made on a full disk, is started again and
// again, and its direction is dark. Messages say why, and frames pass when it is mended.
func TestUpLedger(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	disk := tmpfs(t, "4m")
	if err := errors.Join(os.Chmod(filepath.Dir(disk), 0o755), os.Chmod(disk, 0o777)); err != nil { // for nobody
		t.Fatal(err)
	}
	bill := disk + "/bill"
	u.must("up", "e0", "-in", "quotagate -quota 1GB -window 1m -cycle 1h -ledger "+bill+" -dir in")
	dark := func(what string, says ...string) {
		t.Helper()
		eventually(t, 20*time.Second, "a pause", func() bool {
			u.answers() // the gate counts only frames that arrive
			return regexp.MustCompile(`in has ended with status 1, and is started again in \d+ s: it ended at once`).MatchString(u.log("in"))
		})
		if u.answers() {
			t.Errorf("%s: frames pass by the gate", what)
		}
		for _, want := range says {
			if !strings.Contains(u.log("in"), "quotagate: "+want) {
				t.Errorf("%s: no %q in\n%s", what, want, u.log("in"))
			}
		}
	}
	mended := func(what string) {
		t.Helper()
		eventually(t, 30*time.Second, "an answer", u.answers)
		if charged(t, bill, ledger.In) == 0 {
			t.Errorf("%s: nothing is counted in the new ledger", what)
		}
		if err := os.Truncate(u.state+"/e0/in.log", 0); err != nil {
			t.Fatal(err)
		}
	}
	mended("at first")
	const size = 5000
	if err := os.Truncate(bill, size); err != nil {
		t.Fatal(err)
	}
	dark("cut off", bill+": the ledger was truncated, or its disk failed", bill+": not a ledger, or damaged: 5000 bytes, but ",
		"hint: move the file away; quotagate then creates a new one")
	if info, err := os.Stat(bill); err != nil || info.Size() != size {
		t.Errorf("the file was touched: %v, %v", info, err)
	}
	if err := os.Remove(bill); err != nil {
		t.Fatal(err)
	}
	mended("cut off")
	// A gate that counts goes on while the disk is full; one that has no ledger yet cannot start.
	free := fill(t, disk)
	if !u.answers() {
		t.Error("a full disk stops a gate whose ledger is there")
	}
	if err := os.Rename(bill, bill+".old"); err != nil {
		t.Fatal(err)
	}
	u.kill("^quotagate", unix.SIGKILL)
	dark("full", bill+": making a ledger of ", "hint: make room, or put the -ledger on another disk; it never grows")
	free()
	mended("full")
}

// stuck waits until a gate waits for the reader of its output.
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
