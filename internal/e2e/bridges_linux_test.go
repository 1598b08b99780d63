package e2e

import (
	"os"
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
			transfer(t, router, inner, tt.far+":7", 20e6)
			_ = script.Process.Signal(unix.SIGTERM)
			ended(t, script)
			if r.Received < 190 {
				t.Error(r)
			}
			if info, err := os.Stat(c.Dir + "/hist.in"); err != nil || info.Size() == 0 {
				t.Errorf("the count of bytes: %v", err)
			}
			if router.Reaches(tt.far, time.Second) {
				t.Error("an answer after the end of the pipelines")
			}
			host.Run("bash", "-ec", tt.back)
			// The link-local address takes a moment.
			if !process.Until(5*time.Second, func() bool { return looks() == before }) {
				t.Errorf("now\n%sand before\n%s", looks(), before)
			}
			if tt.name == "endpoint" && !host.Reaches("10.0.0.1", 5*time.Second) {
				t.Error("no answer after")
			}
		})
	}
}
