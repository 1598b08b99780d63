package e2e

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"framepipe/internal/nettest"
	"framepipe/internal/ping"
	"framepipe/internal/process"

	"golang.org/x/sys/unix"
)

// The commands of man/bridges.md, as they are written: frames go through the pipelines and
// by no other way, at an endpoint and in the cable.
func TestBridges(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "bash", "setsid")
	page := blocks(t, "man/bridges.md", "sh")
	if len(page) != 7 {
		t.Fatalf("the page has %d blocks", len(page))
	}
	run := page[3]
	for _, tt := range []struct {
		name, far string
		setup     []string
		back      string
	}{
		{"endpoint", "10.0.0.2", page[:3], page[4]},
		{"cable", "10.0.0.3", page[5:6], page[6]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			router, host, behind := nettest.New(t), nettest.New(t), nettest.New(t)
			host.Veth("eth0", router, "e1")
			host.Veth("eth1", behind, "b0")
			router.Batch("addr add 10.0.0.1/24 dev e1")
			behind.Batch("addr add 10.0.0.3/24 dev b0")
			host.Batch("addr add 10.0.0.2/24 dev eth0", "route add default via 10.0.0.1")
			inner := host // where far is
			if tt.name == "cable" {
				inner = behind
				host.Batch("addr del 10.0.0.2/24 dev eth0")
			} else if !router.Reaches(tt.far, 5*time.Second) {
				t.Fatal("no answer before")
			}
			looks := func() string {
				return strings.ReplaceAll(host.Run("ip", "-o", "addr")+host.Run("ip", "route"), " tentative", "")
			}
			eventually(t, 10*time.Second, "link-local addresses", func() bool { return strings.Count(looks(), "inet6 fe80") == 2 })
			before := looks()
			for _, block := range tt.setup {
				host.Run("bash", "-ec", block)
			}
			if router.Reaches(tt.far, time.Second) {
				t.Fatal("an answer without pipelines")
			}
			c := host.Command("setsid", "bash", "-c", "exec "+run)
			c.Dir = t.TempDir()
			script := pipeline(t, nil, nil, c)[0]
			t.Cleanup(func() { t.Logf("it said: %s", &script.Said) })
			if !inner.Reaches("10.0.0.1", 20*time.Second) || !router.Reaches(tt.far, 5*time.Second) {
				t.Fatal("no answer through the pipelines")
			}
			r := router.StartPing(tt.far, ping.Config{Count: 200, Every: 2 * time.Millisecond}).Wait()
			const size = 20_000_000
			transfer(t, router, inner, tt.far+":7", size)
			var passed [][]string
			all := process.Until(10*time.Second, func() bool { // the gates publish once a second, each in its own time
				before := len(script.Said.String())
				for pid, name := range tools(t, host) {
					if name == "quotagate" {
						_ = unix.Kill(pid, unix.SIGUSR1)
					}
				}
				time.Sleep(500 * time.Millisecond)
				passed = regexp.MustCompile(`quotagate: .* passed=(\d+) passed_bytes=(\d+)`).FindAllStringSubmatch(script.Said.String()[before:], -1)
				frames, bytes := 0, 0
				for i, m := range passed {
					f, _ := strconv.Atoi(m[1])
					if i == 0 || f < frames {
						frames = f
					}
					b, _ := strconv.Atoi(m[2])
					bytes += b
				}
				return len(passed) == 2 && frames >= r.Received && bytes >= size
			})
			_ = script.Process.Signal(unix.SIGTERM)
			ended(t, script)
			if r.Received < 190 || !all {
				t.Fatalf("%v, and %d bytes of TCP, and the gates passed %q", r, size, passed)
			}
			if info, err := os.Stat(c.Dir + "/hist.in"); err != nil || info.Size() == 0 {
				t.Errorf("the count of bytes: %v", err)
			}
			if router.Reaches(tt.far, time.Second) {
				t.Error("an answer after the end of the pipelines")
			}
			host.Run("bash", "-ec", tt.back)
			after := ""
			if !process.Until(5*time.Second, func() bool { after = looks(); return after == before }) { // the link-local address takes a moment
				t.Errorf("now\n%sand before\n%s", after, before)
			}
			if tt.name == "endpoint" && !host.Reaches("10.0.0.1", 5*time.Second) {
				t.Error("no answer after")
			}
		})
	}
}
