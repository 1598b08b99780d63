package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"framepipe/internal/process"

	"golang.org/x/sys/unix"
)

// equation says that two counts are the same.
type equation struct {
	what string
	a, b int
}

// alike wants counts to be the same, and some: now and then a frame of the neighbours comes while
// they are asked.
func alike(t testing.TB, count func() []equation) {
	t.Helper()
	differ := ""
	if process.Until(15*time.Second, func() bool {
		differ = ""
		for _, eq := range count() {
			if eq.a != eq.b || eq.a == 0 {
				differ += fmt.Sprintf("%s: %d and %d\n", eq.what, eq.a, eq.b)
			}
		}
		return differ == ""
	}) {
		return
	}
	t.Error(differ)
}

// Every frame that is lost is in a counter: of the tap's queue, tunread, the gate or tunwrite.
// man/debugging.md says so. A stage that is stopped, and told to go on soon, loses none.
func TestEveryLossIsCounted(t *testing.T) {
	n := newNetwork(t, setup{write: "-offload=off", in: []string{"quotagate -quota 3MB -window 1s", "bytehist -o /dev/null"}, out: stages})
	n.a.Batch("link set tap0 txqueuelen 64")
	server, client := n.udp("10.0.0.2:9")
	defer server.Close()
	roomy(t, server)
	body, frames := make([]byte, 1000), 0
	send := func() { // more than the pipes and tunread's queue hold
		t.Helper()
		for i := range 6000 {
			if _, err := client.Write(body); err != nil {
				t.Fatal(err)
			}
			if frames++; i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	send()
	for i := range n.in { // one stage after the other does nothing for a while
		signal(t, n.in[i:i+1], unix.SIGSTOP)
		send()
		signal(t, n.in[i:i+1], unix.SIGCONT)
		time.Sleep(200 * time.Millisecond)
	}
	n.b.Batch("link set tap1 down") // the device refuses
	send()
	time.Sleep(200 * time.Millisecond)
	n.b.Batch("link set tap1 up")
	send()
	time.Sleep(2500 * time.Millisecond) // the gate's queue is empty, and its numbers are out
	var tap0, tap1, read, gate, write map[string]int
	var dropped int
	alike(t, func() []equation {
		signal(t, n.in, unix.SIGUSR1)
		time.Sleep(300 * time.Millisecond)
		tap0, tap1 = n.a.Statistics("tap0"), n.b.Statistics("tap1")
		read, gate, write = keys(n.in[0]), keys(n.in[1]), keys(n.in[3])
		hist := keys(n.in[2])
		dropped = gate["dropped_early"] + gate["dropped_full"] + gate["dropped_quota"] + gate["dropped_malformed"]
		return []equation{
			{"what left tap0, and what tunread counts", tap0["tx_packets"], read["frames"]},
			{"what tunread counts, and what came to the gate", read["frames"] - read["dropped"], gate["in"]},
			{"what came to the gate, and what it passed, dropped and holds", gate["in"], gate["passed"] + dropped + gate["held"]},
			{"what the gate passed, and what bytehist counts", gate["passed"], hist["frames"]},
			{"what bytehist counts, and what tunwrite counts", hist["frames"], write["frames"]},
			{"what tunwrite counts and was not refused, and what came into tap1", write["frames"] - write["refused"] - write["malformed"], tap1["rx_packets"]},
		}
	})
	got := 0
	_ = server.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	for {
		if _, _, err := server.ReadFrom(body); err != nil {
			break
		}
		got++
	}
	t.Logf("%d sent, %d came; queue of tap0 dropped %d, tunread %d; gate dropped %d; tunwrite refused %d",
		frames, got, tap0["tx_dropped"], read["dropped"], dropped, write["refused"])
	// At the two ends other frames come in: neighbour discovery and the like.
	const others = 200
	if n := tap0["tx_packets"] + tap0["tx_dropped"]; n < frames || n > frames+others {
		t.Errorf("%d datagrams were sent, and %d frames came to the tap", frames, n)
	}
	// The tap counts what it refused as dropped, too.
	out := tap1["rx_packets"] - (tap1["rx_dropped"] - write["refused"])
	if got > out || got < out-others {
		t.Errorf("%d frames came out of the tap, and %d datagrams to the socket", out, got)
	}
	for what, lost := range map[string]int{"the tap": tap0["tx_dropped"], "tunread": read["dropped"], "the gate": dropped, "tunwrite": write["refused"]} {
		if lost == 0 {
			t.Errorf("%s has lost nothing, which was the point", what)
		}
	}
}

// keys returns the numbers of the last line of counters that a stage has printed.
func keys(s *stage) map[string]int {
	all := map[string]int{}
	for _, m := range regexp.MustCompile(`(\w+)=(\d+)\b`).FindAllStringSubmatch(s.Said.String(), -1) {
		all[m[1]], _ = strconv.Atoi(m[2])
	}
	return all
}
