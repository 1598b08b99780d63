package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Every frame that is lost is in a counter: of the tap's queue, tunread, the gate,
// tunwrite, or the receiver's socket. man/debugging.md says so.
func TestEveryLossIsCounted(t *testing.T) {
	n := newNetwork(t, setup{write: "-offload=off", in: []string{"quotagate -quota 3MB -window 1s", "bytehist -o /dev/null"}, out: stages})
	n.a.Run("ip", "link", "set", "tap0", "txqueuelen", "64")
	server, client := n.udp("10.0.0.2:9")
	udp := n.counters("Udp:")

	const frames = 20000
	body := make([]byte, 1000)
	for i := range frames {
		if _, err := client.Write(body); err != nil {
			t.Fatal(err)
		}
		switch i {
		case frames / 4: // a stage that does nothing for a while: tunread's queue fills
			_ = n.in[1].Process.Signal(unix.SIGSTOP)
		case frames / 2:
			_ = n.in[1].Process.Signal(unix.SIGCONT)
			time.Sleep(200 * time.Millisecond)
			n.b.Run("ip", "link", "set", "tap1", "down") // the device refuses
		case frames * 3 / 4:
			time.Sleep(200 * time.Millisecond)
			n.b.Run("ip", "link", "set", "tap1", "up")
		}
		if i%50 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	time.Sleep(2500 * time.Millisecond) // the gate's queue is empty, and its numbers are out
	var tap0, tap1, read, gate, hist, write map[string]int
	var differ string
	var dropped int
	for range 5 { // a frame of the neighbours may come while they are asked
		signal(t, n.in, unix.SIGUSR1)
		time.Sleep(300 * time.Millisecond)
		tap0, tap1 = n.a.Statistics("tap0"), n.b.Statistics("tap1")
		read, gate, hist, write = keys(n.in[0]), keys(n.in[1]), keys(n.in[2]), keys(n.in[3])
		dropped = gate["dropped_early"] + gate["dropped_full"] + gate["dropped_quota"] + gate["dropped_malformed"]
		differ = ""
		for _, eq := range []struct {
			what string
			a, b int
		}{
			{"what left tap0, and what tunread counts", tap0["tx_packets"], read["frames"]},
			{"what tunread counts, and what came to the gate", read["frames"] - read["dropped"], gate["in"]},
			{"what came to the gate, and what it passed, dropped and holds", gate["in"], gate["passed"] + dropped + gate["held"]},
			{"what the gate passed, and what bytehist counts", gate["passed"], hist["frames"]},
			{"what bytehist counts, and what tunwrite counts", hist["frames"], write["frames"]},
			{"what tunwrite counts and was not refused, and what came into tap1", write["frames"] - write["refused"] - write["malformed"], tap1["rx_packets"]},
		} {
			if eq.a != eq.b {
				differ += fmt.Sprintf("%s: %d and %d\n", eq.what, eq.a, eq.b)
			}
		}
		if differ == "" {
			break
		}
		time.Sleep(1100 * time.Millisecond)
	}
	if differ != "" {
		t.Error(differ)
	}
	_ = server.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	for { // a datagram is counted when it is read
		if _, _, err := server.ReadFrom(body); err != nil {
			break
		}
	}
	now := n.counters("Udp:")
	overrun := now["RcvbufErrors"] - udp["RcvbufErrors"]
	t.Logf("%d sent; queue of tap0 dropped %d, tunread %d; gate dropped %d; tunwrite refused %d; the socket overran by %d",
		frames, tap0["tx_dropped"], read["dropped"], dropped, write["refused"], overrun)
	// At the two ends other frames come in: neighbour discovery and the like.
	const others = 200
	if n := tap0["tx_packets"] + tap0["tx_dropped"]; n < frames || n > frames+others {
		t.Errorf("%d datagrams were sent, and %d frames came to the tap", frames, n)
	}
	// The tap counts what it refused as dropped, too.
	out := tap1["rx_packets"] - (tap1["rx_dropped"] - write["refused"])
	if got := now["InDatagrams"] - udp["InDatagrams"] + overrun; got > out || got < out-others {
		t.Errorf("%d frames came out of the tap, and %d datagrams to the socket", out, got)
	}
	for what, lost := range map[string]int{"tunread": read["dropped"], "the gate": dropped, "tunwrite": write["refused"]} {
		if lost == 0 {
			t.Errorf("%s has lost nothing, which was the point", what)
		}
	}
}

// counters returns a line of /proc/net/snmp of b.
func (n *network) counters(prefix string) map[string]int {
	n.t.Helper()
	var names []string
	all := map[string]int{}
	for line := range strings.SplitSeq(n.b.Run("cat", "/proc/net/snmp"), "\n") {
		if f := strings.Fields(line); len(f) > 0 && f[0] == prefix {
			if names == nil {
				names = f
				continue
			}
			for i, name := range names[1:] {
				all[name], _ = strconv.Atoi(f[i+1])
			}
		}
	}
	return all
}

// keys returns the numbers of the last line of counters that a stage has printed.
func keys(s *stage) map[string]int {
	all := map[string]int{}
	for _, m := range regexp.MustCompile(`(\w+)=(\d+)\b`).FindAllStringSubmatch(s.Said.String(), -1) {
		all[m[1]], _ = strconv.Atoi(m[2])
	}
	return all
}
