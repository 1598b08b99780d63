package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/ping"
	"framepipe/internal/traffic"

	"golang.org/x/sys/unix"
)

// full makes the tests of the quota as long as the figures in the README, and others
// thorough.
var full = flag.Bool("full", false, "test the quota with 100 MB in 5 s for 20 s each, and all that is only tried here and there otherwise")

// The network of these tests: two hosts that see each other by no other way
// than a pipeline in each direction.
//
//	namespace a                                        namespace b
//	10.0.0.1, fd00::1 ─ tap0 ─── in: a → b ───── tap1 ─ 10.0.0.2, fd00::2
//	                        ╰─── out: b → a ────╯
type network struct {
	t    testing.TB
	a, b *nettest.Namespace
	in   []*stage
	out  []*stage
}

// setup says how the taps and the pipelines are made.
type setup struct {
	plain bool   // taps without offload headers, with one queue for each direction
	read  string // flags of tunread
	write string // of tunwrite
	mtu   int
	in    []string // stages of the direction a → b
	out   []string
}

func newNetwork(t testing.TB, s setup) *network {
	t.Helper()
	nettest.Need(t)
	n := &network{t: t, a: nettest.New(t), b: nettest.New(t)}
	for _, x := range []struct {
		ns   *nettest.Namespace
		tap  string
		host int
	}{{n.a, "tap0", 1}, {n.b, "tap1", 2}} {
		x.ns.Taps(x.tap)
		x.ns.Batch(fmt.Sprintf("addr add 10.0.0.%d/24 dev %s", x.host, x.tap), fmt.Sprintf("addr add fd00::%d/64 dev %s", x.host, x.tap))
		if s.mtu > 0 {
			x.ns.Batch(fmt.Sprintf("link set %s mtu %d", x.tap, s.mtu))
		}
		if s.plain {
			// A process that has it without offload headers keeps all others
			// from having it with them.
			hold(t, x.ns, x.tap)
		}
	}
	n.in = n.pipeline(n.a, "tap0", n.b, "tap1", s, s.in)
	n.out = n.pipeline(n.b, "tap1", n.a, "tap0", s, s.out)
	t.Cleanup(func() {
		for _, s := range slices.Concat(n.in, n.out) {
			if t.Failed() {
				t.Logf("%v: %s", s.Args, &s.Said)
			}
		}
	})
	// The neighbours know each other from now on: a burst to one that is not
	// known yet would lose its beginning, in the kernel's queue for him.
	for _, addr := range []string{"10.0.0.2", "fd00::2"} {
		if !n.a.Reaches(addr, 50*time.Second) {
			t.Fatal("no answer through the pipelines")
		}
	}
	return n
}

// hold attaches a detached queue without offload headers to a tap.
func hold(t testing.TB, ns *nettest.Namespace, name string) {
	ns.Do(func() {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { unix.Close(fd) })
		ifr, _ := unix.NewIfreq(name)
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_MULTI_QUEUE)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		ifr.SetUint16(unix.IFF_DETACH_QUEUE)
		if err = errors.Join(err, unix.IoctlIfreq(fd, unix.TUNSETQUEUE, ifr)); err != nil {
			t.Error(err)
		}
	})
}

func (n *network) pipeline(from *nettest.Namespace, tap0 string, to *nettest.Namespace, tap1 string, s setup, stages []string) []*stage {
	cmds := []*exec.Cmd{from.Command("tunread", append(strings.Fields(s.read), tap0)...)}
	for _, line := range stages {
		words := strings.Fields(line)
		cmds = append(cmds, exec.Command(words[0], words[1:]...))
	}
	cmds = append(cmds, to.Command("tunwrite", append(strings.Fields(s.write), tap1)...))
	return pipeline(n.t, nil, nil, cmds...)
}

// stop ends both pipelines from their sources.
func (n *network) stop() {
	n.t.Helper()
	for _, p := range [][]*stage{n.in, n.out} {
		_ = p[0].Process.Signal(unix.SIGTERM)
	}
	ended(n.t, slices.Concat(n.in, n.out)...)
}

// variants are the ways in which offload is dealt with.
var variants = []struct {
	name string
	setup
}{
	{"offload", setup{}},
	{"segmented by tunwrite", setup{write: "-offload=off"}},
	{"without offload", setup{read: "-offload=false", write: "-offload=off"}},
	{"taps without it", setup{plain: true}},
}

var stages = []string{"quotagate -quota 1PB", "bytehist -o /dev/null"}

// A gigabyte of TCP arrives as it was sent, in all variants with -full.
func TestTransfer(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			s := v.setup
			s.in, s.out = stages, stages
			n := newNetwork(t, s)
			size := int64(1 << 30)
			if v.name != "offload" && !*full {
				size = 1 << 27
			}
			start := time.Now()
			transfer(t, n.a, n.b, "10.0.0.2:7", size)
			t.Logf("%.2f Gbit/s", 8*float64(size)/time.Since(start).Seconds()/1e9)
			if v.name == "segmented by tunwrite" {
				counted(t, n.in[3], "segments", func(c map[string]int) bool { return c["segmented"] > 0 })
			}
			for _, s := range slices.Concat(n.in, n.out) {
				if mb := residentNow(t, s.Process.Pid); mb >= 32 {
					t.Errorf("%v: %d MB resident", s.Args, mb)
				}
			}
			n.stop()
		})
	}
}

// residentNow is the most memory that a process has had so far, in MB.
func residentNow(t testing.TB, pid int) (mb int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(rest, &mb); err != nil {
		t.Fatal(err)
	}
	return mb / 1024
}

// noise is what no two blocks of are the same.
type noise struct{ blocks uint64 }

var noiseBlock = packettest.Bytes(1 << 20)

func (x *noise) Read(p []byte) (int, error) {
	n := copy(p, noiseBlock)
	x.blocks++
	copy(p[:n], binary.LittleEndian.AppendUint64(nil, x.blocks))
	return n, nil
}

// transfer sends bytes over TCP, and checks that they arrive as they were sent.
func transfer(t *testing.T, from, to *nettest.Namespace, addr string, size int64) {
	t.Helper()
	near, far := connection(t, from, to, addr)
	for _, c := range []net.Conn{near, far} {
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	}
	sent, got := sha256.New(), sha256.New()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(got, far)
		done <- err
	}()
	_, err := io.Copy(io.MultiWriter(near, sent), io.LimitReader(&noise{}, size))
	if err := errors.Join(err, near.Close(), <-done); err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%s: what was sent arrived as something else", addr)
	}
}

// Datagrams of all sizes arrive as they were sent, in IPv4 and IPv6, in frames
// of 1500 and 9000 bytes. Without -full, those of more than two frames of 1500 bytes
// only of one size in seven.
func TestDatagrams(t *testing.T) {
	for _, v := range variants {
		for _, mtu := range []int{1500, 9216} {
			t.Run(fmt.Sprintf("%s, mtu %d", v.name, mtu), func(t *testing.T) {
				s := v.setup
				s.in, s.out, s.mtu = stages, stages, mtu
				n := newNetwork(t, s)
				datagrams(t, n.a, n.b, "10.0.0.2:9")
				datagrams(t, n.a, n.b, "[fd00::2]:9")
				n.stop()
			})
		}
	}
}

// udp returns a socket in b that receives at addr, and one in a that sends there.
func (n *network) udp(addr string) (server net.PacketConn, client net.Conn) {
	n.t.Helper()
	return datagramSockets(n.t, n.a, n.b, addr)
}

func datagrams(t *testing.T, from, to *nettest.Namespace, addr string) {
	t.Helper()
	server, client := datagramSockets(t, from, to, addr)
	defer server.Close()
	// What waits in the receiver's socket must fit there: by default, 200 KB,
	// of which a datagram of 9000 bytes may take 20.
	const most, window = 9000, 8
	body := packettest.Bytes(most)
	var sizes []int
	for size := range most + 1 {
		if size < 3100 || size%7 == 0 || size == most || *full {
			sizes = append(sizes, size)
		}
	}
	windowed(t, server, client, window, len(sizes), func(i int) []byte {
		return body[most-sizes[i]:] // the places of the bytes depend on the size
	})
}

// windowed sends datagrams, so many at once, and wants them to arrive in order and as they
// were sent.
func windowed(t *testing.T, server net.PacketConn, client net.Conn, window, count int, datagram func(i int) []byte) {
	t.Helper()
	free := make(chan struct{}, window)
	failed := make(chan error, 1)
	go func() {
		buf := make([]byte, 10000)
		for i := range count {
			_ = server.SetReadDeadline(time.Now().Add(3 * time.Second))
			m, _, err := server.ReadFrom(buf)
			if want := datagram(i); err != nil || !bytes.Equal(buf[:m], want) {
				failed <- fmt.Errorf("%v: datagram %d of %d bytes came with %d, or with others: %w", server.LocalAddr(), i, len(want), m, err)
				return
			}
			<-free
		}
		failed <- nil
	}()
	for i := range count {
		select {
		case free <- struct{}{}:
		case err := <-failed:
			t.Fatal(err)
		}
		if _, err := client.Write(datagram(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// Datagrams of one flow that come fast are handed to the device together, and
// arrive one by one, in order and as they were sent.
func TestMerged(t *testing.T) {
	n := newNetwork(t, setup{in: stages, out: stages})
	const count, size, window = 30000, 100, 128
	for _, addr := range []string{"10.0.0.2:9", "[fd00::2]:9"} {
		server, client := n.udp(addr)
		windowed(t, server, client, window, count, func(i int) []byte {
			return append(binary.BigEndian.AppendUint32(nil, uint32(i)), noiseBlock[i:i+size-4]...)
		})
		server.Close()
	}
	w := n.in[len(n.in)-1]
	c := counted(t, w, "datagrams that went together", func(c map[string]int) bool { return c["merged"] >= 100 })
	if n.stop(); c["refused"]+c["malformed"] > 0 {
		t.Errorf("tunwrite says %s", &w.Said)
	}
}

// Frames with VLAN tags, and of sizes up to jumbo, arrive as they were sent.
func TestVLAN(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			s := v.setup
			s.in, s.out, s.mtu = stages, stages, 9216
			n := newNetwork(t, s)
			var from, to int
			n.a.Do(func() { from = nettest.PacketSocket(t, "tap0") })
			n.b.Do(func() { to = nettest.PacketSocket(t, "tap1") })
			defer unix.Close(from)
			defer unix.Close(to)
			taggedFrames(t, from, to, 1)
			n.stop()
		})
	}
}

// taggedFrames sends frames with VLAN tags and of sizes up to jumbo from one packet socket,
// and wants them to come to the other so many times, as they were sent.
func taggedFrames(t *testing.T, from, to, copies int) {
	t.Helper()
	for tags := range 3 {
		for _, size := range []int{0, 1, 46, 1400, 1472, 8000, 9100} {
			f := packettest.Spec{UDP: true, Tags: tags, Payload: packettest.Bytes(size)}.Frame()
			if err := unix.Send(from, f, 0); err != nil {
				t.Fatal(err)
			}
			for range copies {
				if got := receiveTagged(t, to); !bytes.Equal(got, f) {
					t.Fatalf("%d tags, %d bytes: % x\nwant % x", tags, size, got[:min(len(got), 60)], f[:min(len(f), 60)])
				}
			}
		}
	}
}

// receiveTagged returns the next frame of a test that comes in. The kernel takes
// the outermost tag off and tells it beside (struct tpacket_auxdata).
func receiveTagged(t testing.TB, s int) []byte {
	t.Helper()
	b, oob := make([]byte, 10000), make([]byte, 200)
	for {
		n, m, _, from, err := unix.Recvmsg(s, b, oob, 0)
		if err != nil {
			t.Fatal("nothing received: ", err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING || string(b[:12]) != "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01" {
			continue
		}
		f := b[:n]
		messages, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil || len(messages) == 0 {
			t.Fatal("no auxiliary data", err)
		}
		aux := messages[0].Data
		if status := binary.NativeEndian.Uint32(aux); status&0x10 != 0 { // TP_STATUS_VLAN_VALID
			tag := binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(aux[18:]))
			tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(aux[16:]))
			f = slices.Concat(f[:12], tag, f[12:])
		}
		return f
	}
}

// --- the quota -------------------------------------------------------------

// scale is how long the quota is tested.
type scale struct {
	quota  uint64
	window time.Duration
	length time.Duration
}

func scaled() scale {
	if *full {
		return scale{100e6, 5 * time.Second, 20 * time.Second}
	}
	return scale{40e6, 2 * time.Second, 8 * time.Second}
}

// observed is what came of a saturating transfer through a gate.
type observed struct {
	most      float64   // of any window, over the quota
	used      float64   // of the quota, in all
	least     float64   // second after the first burst, over the sustained rate
	seconds   []float64 // bytes in each
	flows     []float64 // bytes of each
	pings     ping.Result
	late      time.Duration // slack for round trips
	sustained float64       // bytes per second
}

func (o *observed) String() string {
	s := fmt.Sprintf("most in a window %.4f of the quota, used %.3f, least second %.2f of the sustained rate, %v (slack %v); MB in each second:",
		o.most, o.used, o.least, o.pings, o.late)
	for _, b := range o.seconds {
		s += fmt.Sprintf(" %.1f", b/1e6)
	}
	return s
}

// saturate sends from a to b with TCP as fast as the gate lets it, with pings
// beside.
func saturate(t *testing.T, sc scale, congestion string, flows int, s setup, gate string) *observed {
	t.Helper()
	meterAt := t.TempDir() + "/meter"
	s.in = []string{fmt.Sprintf("quotagate -quota %dB -window %v %s", sc.quota, sc.window, gate), "bytehist -o /dev/null", meterStage(t, meterAt)}
	s.out = stages
	n := newNetwork(t, s)
	time.Sleep(sc.window) // what it took to get here has left the window
	n.serveTraffic(congestion)

	o := &observed{sustained: float64(sc.quota) / sc.window.Seconds(), flows: make([]float64, flows)}
	var wg sync.WaitGroup
	echoes := n.b.StartPing("10.0.0.1", ping.Config{Every: 10 * time.Millisecond})
	late := slack()
	start := time.Now()
	for i := range flows {
		wg.Add(1)
		go func() {
			defer wg.Done()
			n.b.Do(func() {
				bytes, err := traffic.Fetch("10.0.0.1:7", start.Add(sc.length), nil)
				if err != nil {
					t.Error(err)
				}
				o.flows[i] = float64(bytes)
			})
		}()
	}
	wg.Wait()
	o.late = late()
	o.pings = echoes.Stop()
	n.stop()
	m := readMeter(t, meterAt)
	o.most = float64(m.most(sc.window)) / float64(sc.quota)
	o.used = float64(m.between(start, 0, sc.length)) / (o.sustained * sc.length.Seconds())
	for at := time.Duration(0); at < sc.length; at += time.Second {
		o.seconds = append(o.seconds, float64(m.between(start, at, at+time.Second)))
	}
	// Any second after the first burst, not only those that begin with one.
	o.least = math.Inf(1)
	for at := time.Second; at+time.Second <= sc.length; at += 50 * time.Millisecond {
		o.least = min(o.least, float64(m.between(start, at, at+time.Second))/o.sustained)
	}
	t.Log(o)
	return o
}

// No window of what arrives is over the quota, it is used, no second is dark,
// and other traffic stays alive: with either congestion control, with offload
// and without.
//
// Without -full, these mostly wait, and are measured beside one another.
func TestQuota(t *testing.T) {
	t.Run("shared", quotaShared)
	t.Run("random", quotaRandom)
	sc := scaled()
	for _, congestion := range []string{"cubic", "bbr"} {
		for _, v := range []struct {
			name string
			setup
		}{{"offload", setup{}}, {"no offload", setup{read: "-offload=false", write: "-offload=off"}}} {
			t.Run(congestion+", "+v.name, func(t *testing.T) {
				needCongestion(t, congestion)
				beside(t)
				saturateWell(t, sc, congestion, 1, v.setup, "", func(o *observed) string {
					switch {
					case o.used < 0.92:
						return fmt.Sprintf("%.3f of the quota was used", o.used)
					case o.least < 0.20:
						return fmt.Sprintf("a second carried %.2f of the sustained rate", o.least)
					case o.pings.Lost() >= o.pings.Sent/100 || o.pings.Median() >= 20*time.Millisecond+o.late/5 || o.pings.Slowest() > 150*time.Millisecond+o.late:
						return fmt.Sprintf("%v, with a slack of %v", o.pings, o.late)
					}
					return ""
				})
			})
		}
	}
}

// saturateWell saturates three times at most, until nothing is wrong: other work on the
// machine only makes rates and round trips worse. No window may be over the quota in
// any of them.
func saturateWell(t *testing.T, sc scale, congestion string, flows int, s setup, gate string, wrong func(*observed) string) {
	t.Helper()
	complaint := ""
	for range 3 {
		o := saturate(t, sc, congestion, flows, s, gate)
		// The meter stands behind the gate, and sees a frame as late as the slowest echo.
		if late := o.pings.Slowest().Seconds() / sc.window.Seconds(); o.most > 1.01+late {
			t.Errorf("a window held %.4f of the quota, and is measured to %.4f", o.most, late)
		}
		if complaint = wrong(o); complaint == "" {
			return
		}
	}
	t.Error(complaint)
}

func beside(t *testing.T) {
	if !*full {
		t.Parallel()
	}
}

func needCongestion(t *testing.T, name string) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	if err != nil || !slices.Contains(strings.Fields(string(b)), name) {
		_ = exec.Command("modprobe", "tcp_"+name).Run()
		if b, _ = os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control"); !slices.Contains(strings.Fields(string(b)), name) {
			nettest.Skip(t, "this kernel has no %s", name)
		}
	}
}

// Four flows share a quota.
func quotaShared(t *testing.T) {
	beside(t)
	saturateWell(t, scaled(), "cubic", 4, setup{}, "", func(o *observed) string {
		sum := 0.0
		for _, b := range o.flows {
			sum += b
		}
		if least := slices.Min(o.flows) / sum; least < 0.10 || o.used < 0.92 {
			return fmt.Sprintf("a flow has %.2f of what four share; used %.3f", least, o.used)
		}
		return ""
	})
}

// The original curve spends its quota in a moment and is dark for the rest of
// the window.
func quotaRandom(t *testing.T) {
	beside(t)
	sc := scaled()
	saturateWell(t, sc, "cubic", 1, setup{}, "-policy random", func(o *observed) string {
		if first := o.seconds[0] / float64(sc.quota); o.least > 0.05 || first < 0.7 {
			return fmt.Sprintf("the first second carried %.2f of the quota, the least one %.2f of the sustained rate", first, o.least)
		}
		return ""
	})
}
