package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/ledger"
	"framepipe/internal/packettest"
)

// bursts is a stream of 20 hours with bursts of a frame of 1000 bytes a second, which is over 4 kbit/s.
func bursts(seed uint64, start time.Time) []byte {
	var b bytes.Buffer
	w := frame.NewWriter(&b)
	_ = w.Header(frame.LinkEthernet, "tap0")
	r := rand.New(rand.NewPCG(seed, 0))
	frames := packettest.Spec{UDP: true, Payload: packettest.Bytes(958)}
	send := func(second int) {
		_ = w.Write(&frame.Record{Time: uint64(start.Add(time.Duration(second) * time.Second).UnixNano()), Frame: frames.Frame()})
	}
	for at := 1800; at < 20*3600; at += r.IntN(7200) {
		for end := at + r.IntN(1500); at < end; at++ {
			send(at)
		}
	}
	send(22 * 3600)
	_ = w.Flush()
	return b.Bytes()
}

// freeWindows returns the counts of free windows in a metrics file.
func freeWindows(t testing.TB, file, tool string) (total, used string) {
	t.Helper()
	find := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + tool + `_free_windows_` + name + `\{.*\} (\d+)$`).FindStringSubmatch(read(t, file))
		if m == nil {
			t.Fatalf("no %s in\n%s", name, read(t, file))
		}
		return m[1]
	}
	return find("total"), find("used")
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

// A gate that starts in the midst of a month with the samples until then in its ledger knows the free windows that
// are used, and the bytes.
func TestFreeWindowsInto(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begin := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	file, bytes := "time,in,out\n", int64(0)
	for i := range 14 * 288 {
		out := 1500
		if i%400 == 50 || i%400 == 51 { // runs of two, of which a poller of any phase may have three
			out = 4003
		}
		file, bytes = fmt.Sprintf("%s%s,%d,%d\n", file, begin.Add(time.Duration(i)*5*time.Minute).Format(time.DateTime), 700, out), bytes+int64(out)
	}
	write(t, dir+"/samples", file)
	fill := exec.Command("quotabill", "-csv", dir+"/samples", "-quota", "2kB", "-into", dir+"/ledger")
	output(t, fill)
	if in, out := charged(t, dir+"/ledger", ledger.In), charged(t, dir+"/ledger", ledger.Out); in != 14*288*700 || out != bytes {
		t.Errorf("%d bytes in and %d out, want %d and %d", in, out, 14*288*700, bytes)
	}
	if _, says, status := through(t, nil, "quotabill", fill.Args[1:]...); status != 1 || !strings.Contains(says, dir+"/ledger has bytes at 2026-10-01 00:00:00") {
		t.Errorf("once more: status %d, %s", status, says)
	}
	if left, _ := filepath.Glob(dir + "/.quotabill*"); left != nil {
		t.Error(left)
	}
	in := streamFrom(uint64(begin.AddDate(0, 0, 14).Add(time.Hour).UnixNano()), 2, 100, time.Hour)
	args := strings.Fields("-quota 2kB -percentile 95 -dir out -clock stream -ledger " + dir + "/ledger -metrics " + dir + "/gate")
	if _, says, status := through(t, in, "quotagate", args...); status != 0 {
		t.Fatal(says)
	}
	if total, used := freeWindows(t, dir+"/gate", "quotagate"); total != "443" || used != "30" {
		t.Errorf("%s of %s free windows are used, want 30 of 443: three for each of ten runs", used, total)
	}
}
