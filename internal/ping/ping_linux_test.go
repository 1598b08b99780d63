package ping_test

import (
	"testing"
	"time"

	"framepipe/internal/nettest"
	"framepipe/internal/ping"
)

func TestPing(t *testing.T) {
	nettest.Need(t)
	n := nettest.New(t)
	n.Run("ip", "link", "set", "lo", "mtu", "1500")
	for _, addr := range []string{"127.0.0.1", "::1"} {
		answers(t, n, addr)
		gap(t, n, addr)
		// Echoes have the size asked for, and need fragments above the MTU.
		for _, size := range []int{8, 9, 1400, 8000} {
			for _, whole := range []bool{false, true} {
				r := n.StartPing(addr, ping.Config{Count: 3, Every: time.Millisecond, Size: size, Whole: whole}).Wait()
				if want := !whole || size < 1500; r.Sent != 3 || (r.Lost() == 0) != want || (r.Err == nil) != want {
					t.Errorf("%s, %d bytes, whole %v: %v", addr, size, whole, r)
				}
			}
		}
	}
}

// Two at once do not take each other's answers.
func answers(t *testing.T, n *nettest.Namespace, addr string) {
	other := n.StartPing(addr, ping.Config{Every: time.Millisecond})
	r := n.StartPing(addr, ping.Config{Count: 50, Every: 2 * time.Millisecond}).Wait()
	if r.Sent != 50 || r.Lost() != 0 || len(r.RTTs) != 50 || r.Gap != 0 || r.Err != nil || r.Median() <= 0 || r.Slowest() < r.Median() {
		t.Errorf("%s: %v, %v", addr, r, r.RTTs)
	}
	if r := other.Stop(); r.Sent < 2 || r.Lost() != 0 {
		t.Errorf("%s: %v", addr, r)
	}
	if !n.Reaches(addr, 10*time.Second) {
		t.Errorf("%s is not reached", addr)
	}
}

// Echoes sent while the device is down are lost, and the gap is as long as that.
func gap(t *testing.T, n *nettest.Namespace, addr string) {
	p := n.StartPing(addr, ping.Config{Every: 5 * time.Millisecond, Wait: 100 * time.Millisecond})
	before := p.Answered(10 * time.Second)
	n.Run("ip", "link", "set", "lo", "down")
	down := time.Now()
	if p.Answered(300*time.Millisecond) || n.Reaches(addr, 100*time.Millisecond) {
		t.Errorf("%s: an answer while lo is down", addr)
	}
	took := time.Since(down)
	n.Run("ip", "link", "set", "lo", "up")
	after := p.Answered(10 * time.Second)
	if r := p.Stop(); !before || !after || r.Lost() == 0 || r.Received == 0 || r.Gap < took/2 {
		t.Errorf("%s: answered before %v and after %v; down for %v: %v", addr, before, after, took, r)
	}
}
