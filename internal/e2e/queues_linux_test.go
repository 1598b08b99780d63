package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
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
	const quota, window, length, flows = 12_000_000, 2 * time.Second, 5 * time.Second, 12 // all in one queue: once in 2048 times
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &network{t: t, a: nettest.New(t), b: nettest.New(t)}
	twoTaps(n.a)
	stages := func(d string) string {
		return fmt.Sprintf("quotagate -quota 12MB -window 2s -cycle 1h -ledger %s/ledger -bill sum -charge passed -dir %s | env %s=%s/%s.$QUEUE %s", dir, d, meterFile, dir, d, self)
	}
	script := pipeline(t, nil, nil, n.a.Command("../../pipeline.sh", "run", "tap0", "tap1", "-queues", "2", "-in", stages("in"), "-out", stages("out")))[0]
	t.Cleanup(func() { t.Logf("it said: %s", &script.stderr) })
	for start := time.Now(); len(tools(t, n.a)) < 4*3; {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the pipelines do not come up")
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	// The processes keep a device that moves to another namespace.
	n.a.Run("ip", "link", "set", "tap1", "netns", n.b.Name)
	n.a.Run("sh", "-c", "ip addr add 10.0.0.1/24 dev tap0; ip link set tap0 up")
	n.b.Run("sh", "-c", "ip addr add 10.0.0.2/24 dev tap1; ip link set tap1 up")
	if !n.b.Reaches("10.0.0.1", 5*time.Second) {
		t.Fatal("no answer through the pipelines")
	}

	inOrder(t, n)

	var conns [][2]net.Conn
	for range flows {
		conns = append(conns, pair(t, n))
	}
	start := time.Now()
	for _, both := range conns {
		for _, c := range both {
			go func() { _, _ = io.Copy(c, noise{}) }()
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	}
	time.Sleep(length)
	_ = script.Process.Signal(unix.SIGTERM)
	if err := script.wait(t, 5*time.Second); err != nil {
		t.Fatal(err)
	}

	var all []metered
	for d, name := range []string{"in", "out"} {
		passed := uint64(0)
		for q := range 2 {
			m, err := readMeter(fmt.Sprintf("%s/%s.%d", dir, name, q))
			if err != nil {
				t.Fatal(err)
			}
			if m.total() < quota/50 {
				t.Errorf("%s, queue %d: %d bytes", name, q, m.total())
			}
			passed += m.total()
			all = append(all, m)
		}
		if got := charged(t, dir+"/ledger", ledger.Direction(d)); got != int64(passed) {
			t.Errorf("%s: %d passed, and the ledger has %d", name, passed, got)
		}
	}
	sum := together(all...)
	most := float64(sum.most(window)) / quota
	used := float64(sum.between(start, 0, length)) / (quota * length.Seconds() / window.Seconds())
	t.Logf("fullest window %.4f of the quota; %.3f of it used; in %d and %d, out %d and %d bytes", most, used, all[0].total(), all[1].total(), all[2].total(), all[3].total())
	if most > 1.01 {
		t.Errorf("a window holds %.4f of the quota", most)
	}
	if used < 0.75 {
		t.Errorf("%.3f of the quota is used", used)
	}
}

// inOrder sends numbered datagrams of several flows, and wants each flow's in order.
func inOrder(t *testing.T, n *network) {
	t.Helper()
	const flows, each = 12, 200
	var to net.PacketConn
	var err error
	n.a.Do(func() { to, err = net.ListenPacket("udp", "10.0.0.1:9") })
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	// All of them have a place in the socket, should its reader have to wait.
	raw, err := to.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	if err != nil {
		t.Fatal(err)
	}
	n.b.Do(func() {
		for f := range flows {
			c, e := net.Dial("udp", "10.0.0.1:9")
			if e != nil {
				err = errors.Join(err, e)
				return
			}
			go func() {
				defer c.Close()
				for i := range uint32(each) {
					_, _ = c.Write(binary.BigEndian.AppendUint32(nil, i))
					if i%10 == 9 {
						time.Sleep(time.Duration(1+f%3) * time.Millisecond)
					}
				}
			}()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	last, got := map[string]uint32{}, 0
	buf := make([]byte, 100)
	_ = to.SetReadDeadline(time.Now().Add(5 * time.Second))
	for got < flows*each {
		k, from, err := to.ReadFrom(buf)
		if err != nil {
			t.Fatalf("%d of %d datagrams: %v", got, flows*each, err)
		}
		i := binary.BigEndian.Uint32(buf[:k])
		if before, ok := last[from.String()]; ok && i != before+1 {
			t.Fatalf("flow %v: %d after %d", from, i, before)
		}
		last[from.String()] = i
		got++
	}
}

// What does not come to an end by itself is killed, many pipelines as soon as two.
func TestQueuesStopped(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "bash")
	ns := nettest.New(t)
	twoTaps(ns)
	var took [2]time.Duration
	for i, queues := range []int{1, 6} {
		script := pipeline(t, nil, nil, ns.Command("../../pipeline.sh", "run", "tap0", "tap1", "-queues", fmt.Sprint(queues), "-in", "cat; sleep 100", "-out", "cat; sleep 100"))[0]
		eventually(t, 20*time.Second, "the pipelines", func() bool { return len(tools(t, ns)) == 4*queues })
		time.Sleep(300 * time.Millisecond)
		start := time.Now()
		if err := script.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case <-script.done:
		case <-time.After(time.Minute):
			t.Fatalf("%d queues do not stop", queues)
		}
		if s := script.ProcessState.ExitCode(); s != 0 {
			t.Errorf("%d queues: status %d, %s", queues, s, &script.stderr)
		}
		took[i] = time.Since(start)
	}
	t.Logf("stopped after %v and %v", took[0], took[1])
	if took[1] > 2*took[0]+time.Second {
		t.Errorf("6 queues take %v to stop, one %v", took[1], took[0])
	}
}

// Several gates without a ledger would keep a quota each.
func TestQueuesRefused(t *testing.T) {
	const alone = "each gate would keep a quota of its own"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-queues"}, "-queues wants a value"},
		{[]string{"-queues", "0"}, "-queues wants a number from 1 to 128"},
		{[]string{"-queues", "129"}, "-queues wants a number from 1 to 128"},
		{[]string{"-queues", "2x"}, "-queues wants a number from 1 to 128"},
		{[]string{"-queues", "2", "-in", "quotagate -rate 1Mbit/s"}, alone},
		{[]string{"-queues", "2", "-in", "quotagate -rate 1Mbit/s -ledger x", "-out", "cat | quotagate -rate 1Mbit/s"}, alone},
	} {
		c := exec.Command("../../pipeline.sh", append([]string{"run", "tap0", "tap1"}, tt.args...)...)
		out, _ := c.CombinedOutput()
		if c.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), tt.want) {
			t.Errorf("%q: %v, %s", tt.args, c.ProcessState, out)
		}
	}
	// With a ledger, and with one queue, the taps come next.
	for _, args := range [][]string{{"-queues", "2", "-in", "quotagate -rate 1Mbit/s -ledger x -dir in"}, {"-queues", "1", "-in", "quotagate -rate 1Mbit/s"}} {
		c := exec.Command(bin+"/pipeline.sh", append([]string{"run", "no0", "no1"}, args...)...)
		c.Dir = t.TempDir()
		if out, _ := c.CombinedOutput(); !strings.Contains(string(out), "no0") {
			t.Errorf("%q: %s", args, out)
		}
	}
}
