package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"framepipe/internal/ledger"
	"framepipe/internal/nettest"

	"golang.org/x/sys/unix"
)

// Two pipelines in each direction, on taps with two queues: flows are spread over
// them and stay in order, all four gates keep one quota, and the ledger has what
// passed.
//
//	namespace a        pipeline.sh run -queues 2        namespace b
//	10.0.0.1 ─ tap0 ═══ in0, in1 ▶   ◀ out0, out1 ═══ tap1 ─ 10.0.0.2
func TestQueues(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "bash")
	const quota, window, flows = 12_000_000, 2 * time.Second, 12 // all in one queue: once in 2048 times
	dir := t.TempDir()
	n := &network{t: t, a: nettest.New(t), b: nettest.New(t)}
	n.a.Taps("tap0", "tap1")
	stages := func(d string) string {
		return fmt.Sprintf("quotagate -quota 12MB -window 2s -cycle 1h -ledger %s/ledger -bill sum -charge passed -dir %s | %s", dir, d, meterStage(t, dir+"/"+d+".$QUEUE"))
	}
	script := pipeline(t, nil, nil, n.a.Command("../../pipeline.sh", "run", "tap0", "tap1", "-queues", "2", "-in", stages("in"), "-out", stages("out")))[0]
	t.Cleanup(func() { t.Logf("it said: %s", &script.Said) })
	eventually(t, 20*time.Second, "the pipelines", func() bool { return len(tools(t, n.a)) == 4*3 })
	time.Sleep(300 * time.Millisecond)
	// The processes keep a device that moves to another namespace.
	n.a.Batch("link set tap1 netns "+n.b.Name, "addr add 10.0.0.1/24 dev tap0")
	n.b.Batch("addr add 10.0.0.2/24 dev tap1", "link set tap1 up")
	if !n.b.Reaches("10.0.0.1", 5*time.Second) {
		t.Fatal("no answer through the pipelines")
	}

	for port := range flows { // each flow stays in order
		server, client := n.udp(fmt.Sprint("10.0.0.2:", 100+port))
		windowed(t, server, client, 64, 200, func(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) })
		server.Close()
	}
	var ends []net.Conn
	for range flows {
		near, far := connection(t, n.b, n.a, "10.0.0.1:0")
		ends = append(ends, near, far)
	}
	start := time.Now()
	for _, c := range ends {
		go func() { _, _ = io.Copy(c, &noise{}) }()
		go func() { _, _ = io.Copy(io.Discard, c) }()
	}
	time.Sleep(5 * time.Second)
	length := time.Since(start)
	_ = script.Process.Signal(unix.SIGTERM)
	ended(t, script)

	var queues [4]uint64
	sum := uint64(0)
	for d, name := range []string{"in", "out"} {
		passed := uint64(0)
		for q := range 2 {
			m := readMeter(t, fmt.Sprintf("%s/%s.%d", dir, name, q))
			queues[2*d+q] = m.total()
			passed += m.total()
		}
		if got := charged(t, dir+"/ledger", ledger.Direction(d)); got != int64(passed) {
			t.Errorf("%s: %d passed, and the ledger has %d", name, passed, got)
		}
		sum += passed
	}
	most := 0.0
	for _, c := range worstPhases(t, dir+"/ledger", "-quota 12MB -percentile 100 -method sum") {
		most = max(most, c.BPS/c.Commit)
	}
	used := float64(sum) / (quota * length.Seconds() / window.Seconds())
	t.Logf("fullest window %.4f of the quota; %.3f of it used; in and out %d bytes", most, used, queues)
	if most > 1.002 || slices.Min(queues[:]) < quota/50 { // ARP and the like pass in any case
		t.Errorf("a window holds %.4f of the quota; through the queues %d bytes", most, queues)
	}
	if used < 0.75 {
		t.Errorf("%.3f of the quota is used", used)
	}
}

// What does not come to an end by itself is killed, many pipelines as soon as two.
func TestQueuesStopped(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "bash")
	ns := nettest.New(t)
	ns.Taps("tap0", "tap1")
	script := pipeline(t, nil, nil, ns.Command("../../pipeline.sh", "run", "tap0", "tap1", "-queues", "6", "-in", "cat; sleep 100", "-out", "cat; sleep 100"))[0]
	eventually(t, 20*time.Second, "the pipelines", func() bool { return len(tools(t, ns)) == 4*6 })
	time.Sleep(300 * time.Millisecond)
	start := time.Now()
	signal(t, []*stage{script}, unix.SIGTERM)
	ended(t, script)
	if took := time.Since(start); took > 9*time.Second { // six of two seconds each would take 12
		t.Errorf("stopped after %v", took)
	}
}
