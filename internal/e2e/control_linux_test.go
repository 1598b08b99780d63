package e2e

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"framepipe/internal/nettest"
	"framepipe/internal/packettest"

	"golang.org/x/sys/unix"
)

// A flood that looks like control traffic gets no more than the quota and the budget of
// its kinds, and neighbours still find each other.
func TestFloodOfControl(t *testing.T) {
	const (
		quota  = 1_000_000
		rate   = 40e6 / 8 // bytes a second
		length = 4 * time.Second
		// Of the eight budgets of these kinds and those that the hosts need beside.
		budget = 8 * (16_000 + 1000*6)
	)
	n := newNetwork(t, setup{in: []string{"quotagate -quota 1MB -window 10s"}, out: stages})
	s := packetSocket(t, n.a, "tap0")
	src, near, afar := netip.MustParseAddr("fd00::99"), netip.MustParseAddr("fd00::98"), netip.MustParseAddr("2001:db8::1")
	lldp := append([]byte("\x01\x80\xc2\x00\x00\x0e\x02\x00\x00\x00\x00\x09\x88\xcc\x02\x07\x04"), make([]byte, 1497)...)
	frames := [][]byte{
		packettest.ARP(99),
		packettest.Solicitation(src, afar, afar), // which a router would forward
		packettest.Solicitation(src, netip.MustParseAddr("ff02::1:ff00:98"), near),
		lldp, lldp,
	}
	size := len(slices.Concat(frames...))
	before := n.b.Statistics("tap1")["rx_bytes"]
	sent := make(chan int)
	go func() {
		bytes := 0
		for start := time.Now(); time.Since(start) < length; time.Sleep(5 * time.Millisecond) {
			// Catch up slowly after a pause, or a burst fills the tap's queue.
			for i := 0; i < 30 && float64(bytes) < rate*time.Since(start).Seconds(); i++ {
				for _, f := range frames {
					_ = unix.Send(s, f, 0)
				}
				bytes += size
			}
		}
		sent <- bytes
	}()
	time.Sleep(length / 2) // the window is full
	for addr, from := range map[string]*nettest.Namespace{"10.0.0.2": n.a, "fd00::2": n.a, "10.0.0.1": n.b, "fd00::1": n.b} {
		from.Run("ip", "neigh", "flush", "all")
		if !from.Reaches(addr, 5*time.Second) {
			t.Errorf("%s does not answer", addr)
		}
	}
	total := <-sent
	passed := n.b.Statistics("tap1")["rx_bytes"] - before
	t.Logf("%d bytes sent, %d passed", total, passed)
	if total < 3*(quota+budget) || passed > quota+budget || passed < quota/2 {
		t.Errorf("%d bytes sent and %d passed, want up to %d", total, passed, quota+budget)
	}
}
