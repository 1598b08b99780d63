package e2e

import (
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/packettest"
)

// bursts is a stream of 20 hours with bursts of a frame of 1000 bytes a second, which is over 4 kbit/s.
func bursts(seed uint64, start time.Time) []byte {
	var all []frame.Record
	r := rand.New(rand.NewPCG(seed, 0))
	f := packettest.Spec{UDP: true, Payload: packettest.Bytes(958)}.Frame()
	send := func(second int) {
		at := start.Add(time.Duration(second) * time.Second)
		all = append(all, frame.Record{Time: uint64(at.UnixNano()), Frame: f})
	}
	for at := 1800; at < 20*3600; at += r.IntN(7200) {
		for end := at + r.IntN(1500); at < end; at++ {
			send(at)
		}
	}
	send(22 * 3600)
	return streamOf(all...)
}

// freeWindows returns the counts of free windows in a metrics file.
func freeWindows(t testing.TB, file, tool string) (total, used string) {
	t.Helper()
	metrics := read(t, file)
	found := matches(tool+`_free_windows_(?:total|used)\{.*\} (\d+)\n`, metrics)
	if len(found) != 2 {
		t.Fatalf("%v in\n%s", found, metrics)
	}
	return found[0], found[1]
}

// A gate and quotabill on its ledger say the same about free windows: in a first cycle that is not whole, in
// a later one, with a jitter, a phase and a reserve, and for either bill.
func TestFreeWindowsAlike(t *testing.T) {
	t.Parallel()
	for flags, bill := range map[string]string{
		"-jitter 0":            "-method out",
		"-jitter 2s -hard":     "-method out",
		"-bill sum -reserve 3": "-method sum",
		"-bill max -phase 90s": "-method max",
	} {
		for name, begin := range map[string]time.Duration{"first": 0, "next": 4 * time.Hour} {
			dir := t.TempDir()
			in := bursts(3, time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC).Add(begin))
			args := strings.Fields("-rate 4kbit/s -percentile 80 -cycle 1d -dir out -clock stream " + flags)
			_, says, status := through(t, in, "quotagate", append(args, "-ledger", dir+"/ledger", "-metrics", dir+"/gate")...)
			if status != 0 {
				t.Fatal(says)
			}
			args = strings.Fields(bill + " -rate 4kbit/s -percentile 80")
			for _, f := range []string{"-jitter 0", "-reserve 3", "-phase 90s"} { // the gate's own
				if strings.Contains(flags, f) {
					args = append(args, strings.Fields(f)...)
				}
			}
			output(t, exec.Command("quotabill", append(args, "-prom", dir+"/bill", dir+"/ledger")...))
			total, used := freeWindows(t, dir+"/gate", "quotagate")
			if t2, u2 := freeWindows(t, dir+"/bill", "quotabill"); total != t2 || used != u2 || used == "0" {
				t.Errorf("%s, %s cycle: the gate has used %s of %s, and quotabill says %s of %s", flags, name, used, total, u2, t2)
			}
		}
	}
}
