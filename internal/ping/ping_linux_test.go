package ping_test

import (
	"testing"
	"time"

	"framepipe/internal/nettest"
	"framepipe/internal/ping"
)

var both = []string{"127.0.0.1", "::1"}

func TestAnswers(t *testing.T) {
	nettest.Need(t)
	n := nettest.New(t)
	for _, addr := range both {
		// Two at once do not take each other's answers.
		other := n.StartPing(addr, ping.Config{Every: time.Millisecond})
		r := n.Ping(addr, 50, 2*time.Millisecond)
		if r.Sent != 50 || r.Lost() != 0 || len(r.RTTs) != 50 || r.Gap != 0 || r.Err != nil {
			t.Errorf("%s: %v", addr, r)
		}
		if r.Median() <= 0 || r.Slowest() < r.Median() {
			t.Errorf("%s: %v, %v", addr, r, r.RTTs)
		}
		if r := other.Stop(); r.Sent < 2 || r.Lost() != 0 {
			t.Errorf("%s: %v", addr, r)
		}
		if !n.Reaches(addr, 10*time.Second) {
			t.Errorf("%s is not reached", addr)
		}
	}
}

// Echoes sent while the device is down are lost, and the gap is as long as that.
func TestGap(t *testing.T) {
	nettest.Need(t)
	n := nettest.New(t)
	for _, addr := range both {
		p := n.StartPing(addr, ping.Config{Every: 5 * time.Millisecond, Wait: 100 * time.Millisecond})
		if !p.Answered(10 * time.Second) {
			t.Fatalf("%s: no answer", addr)
		}
		n.Run("ip", "link", "set", "lo", "down")
		down := time.Now()
		if p.Answered(300 * time.Millisecond) {
			t.Errorf("%s: an answer while lo is down", addr)
		}
		if n.Reaches(addr, 100*time.Millisecond) {
			t.Errorf("%s is reached while lo is down", addr)
		}
		took := time.Since(down)
		n.Run("ip", "link", "set", "lo", "up")
		if !p.Answered(10 * time.Second) {
			t.Errorf("%s: no answer afterwards", addr)
		}
		r := p.Stop()
		if r.Lost() == 0 || r.Received == 0 || r.Gap < took/2 {
			t.Errorf("%s: down for %v: %v", addr, took, r)
		}
	}
}

// Echoes have the size asked for, and need fragments above the MTU.
func TestSize(t *testing.T) {
	nettest.Need(t)
	n := nettest.New(t)
	n.Run("ip", "link", "set", "lo", "mtu", "1500")
	for _, addr := range both {
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
