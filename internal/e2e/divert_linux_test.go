package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/nettest"
	"framepipe/internal/ping"
	"framepipe/internal/process"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// diversion is a host whose interface eth0 is diverted, and a peer before it.
//
//	namespace peer                       namespace host
//	10.9.0.2, fd09::2 ─ wire ══════ eth0 ─ 10.9.0.1, fd09::1
//	                  in:   tunread net  | tunwrite host
//	                  out:  tunread host | tunwrite net
type diversion struct {
	t          *testing.T
	peer, host *nettest.Namespace
	in, out    []*stage
}

func newDiversion(t *testing.T) *diversion {
	t.Helper()
	nettest.Need(t)
	d := &diversion{t: t, peer: nettest.New(t), host: nettest.New(t)}
	d.wire("eth0")
	d.addresses("eth0")
	d.taps()
	return d
}

// wire makes an interface of the host, whose other end is the peer's.
func (d *diversion) wire(name string) {
	d.t.Helper()
	d.host.Veth(name, d.peer, "wire")
	d.peer.Batch("addr add 10.9.0.2/24 dev wire", "addr add fd09::2/64 dev wire")
}

// addresses gives an interface those of the host.
func (d *diversion) addresses(name string) {
	d.t.Helper()
	d.host.Batch("addr add 10.9.0.1/24 dev "+name, "addr add fd09::1/64 dev "+name)
}

// tap makes one that sends nothing of its own.
func (d *diversion) tap(name string) {
	d.t.Helper()
	d.host.Batch("tuntap add dev " + name + " mode tap multi_queue vnet_hdr")
	d.host.Sysctl("ipv6/conf/"+name+"/disable_ipv6", "1")
	d.host.Batch("link set " + name + " up")
}

// taps makes both, and the pipelines between them.
func (d *diversion) taps() {
	d.t.Helper()
	d.tap("net")
	d.tap("host")
	d.pipelines()
}

func (d *diversion) pipelines() {
	d.t.Helper()
	d.in, d.out = d.pipeline("net", "host"), d.pipeline("host", "net")
}

func (d *diversion) pipeline(from, to string) []*stage {
	d.t.Helper()
	all := pipeline(d.t, nil, nil, d.host.Command("tunread", from), d.host.Command("tunwrite", to))
	d.t.Cleanup(func() { // before they are killed
		for _, s := range all {
			if d.t.Failed() && s.Said.String() != "" {
				d.t.Logf("%v: %s", s.Args[4:], &s.Said)
			}
		}
	})
	return all
}

// diverter is a running tundivert.
type diverter struct {
	*stage
	t      *testing.T
	stdout *os.File
}

// start runs tundivert, and waits until it says that it diverts.
func (d *diversion) start(args ...string) *diverter {
	d.t.Helper()
	v := d.run(append([]string{"tundivert"}, args...)...)
	if line := v.line(); line != "diverting\n" {
		d.t.Fatalf("%q; it says %s", line, v.Said.String())
	}
	return v
}

// run runs a command that may come to divert.
func (d *diversion) run(words ...string) *diverter {
	d.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	defer w.Close()
	v := &diverter{pipeline(d.t, nil, w, d.host.Command(words[0], words[1:]...))[0], d.t, r}
	d.t.Cleanup(func() {
		r.Close()
		if d.t.Failed() {
			d.t.Logf("%v: %s", v.Args[4:], v.Said.String())
		}
	})
	return v
}

// line returns its line on stdout, or nothing if it ends before.
func (v *diverter) line() string {
	_ = v.stdout.SetReadDeadline(time.Now().Add(20 * time.Second))
	line, _ := bufio.NewReader(v.stdout).ReadString('\n')
	return line
}

// tells waits until it has said something n times.
func (v *diverter) tells(what string, n int) {
	v.t.Helper()
	eventually(v.t, 15*time.Second, fmt.Sprintf("it says %q", what), func() bool { return strings.Count(v.Said.String(), what) >= n })
}

// ends waits for its end, and returns its status.
func (v *diverter) ends(within time.Duration) int {
	v.t.Helper()
	if err := v.End(within); err != nil {
		v.t.Fatal(err)
	}
	return v.ProcessState.ExitCode()
}

// reaches checks that hosts answer each other, by IPv4 and IPv6 addresses.
func reaches(t *testing.T, from *nettest.Namespace, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		if !from.Reaches(addr, 10*time.Second) {
			t.Errorf("no answer from %s", addr)
		}
	}
}

// counted returns what a stage has counted, as soon as that is so.
func counted(t *testing.T, s *stage, what string, so func(map[string]int) bool) map[string]int {
	t.Helper()
	var last map[string]int
	had := strings.Count(s.Said.String(), "\n") // lines that are older than this
	eventually(t, 10*time.Second, s.Args[len(s.Args)-2]+": "+what, func() bool {
		_ = s.Process.Signal(unix.SIGUSR1)
		time.Sleep(20 * time.Millisecond)
		last = keys(s)
		return strings.Count(s.Said.String(), "\n") > had && so(last)
	})
	return last
}

// counts returns what a stage has counted.
func counts(t *testing.T, s *stage) map[string]int {
	t.Helper()
	return counted(t, s, "counters", func(map[string]int) bool { return true })
}

// goesThrough checks that what hosts send each other goes through both pipelines.
func (d *diversion) goesThrough() {
	d.t.Helper()
	before := make([]int, 2)
	for i, s := range []*stage{d.in[0], d.out[0]} {
		before[i] = counts(d.t, s)["frames"]
	}
	d.peer.StartPing("10.9.0.1", ping.Config{Count: 3, Every: 10 * time.Millisecond}).Wait()
	for i, s := range []*stage{d.in[0], d.out[0]} {
		counted(d.t, s, "frames of the pings", func(c map[string]int) bool { return c["frames"] >= before[i]+3 })
	}
}

// programs counts the programs of tundivert that are left at interfaces of the host.
func (d *diversion) programs(names ...string) (n int) {
	d.t.Helper()
	d.host.Do(func() {
		for _, name := range names {
			index, err := nettest.Index(name)
			if err != nil { // it has gone, and they with it
				continue
			}
			for _, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				found, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: hook})
				if err != nil {
					d.t.Errorf("the programs of %s: %v", name, err)
					continue
				}
				n += len(found.Programs)
			}
		}
	})
	return n
}

// Everything that a host receives and sends goes through the taps, and arrives as it
// was sent: TCP as super-frames, multicast of both IP versions, frames of all sizes and with
// VLAN tags. Nothing passes by.
func TestDivertHost(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "ethtool")
	d := newDiversion(t)
	// While the interface is down nothing comes, and its counters can be held against
	// those of the taps.
	d.host.Batch("link set eth0 down")
	d.start("eth0", "net", "host")
	begin := d.host.Statistics("eth0")
	d.host.Batch("link set eth0 mtu 9216 up", "addr replace fd09::1/64 dev eth0")
	d.peer.Batch("link set wire mtu 9216")

	reaches(t, d.host, "10.9.0.2", "fd09::2")
	d.host.Batch("neigh flush dev eth0")
	d.peer.Batch("neigh flush dev wire")
	reaches(t, d.peer, "10.9.0.1", "fd09::1")
	d.host.Batch("route add 224.0.0.0/4 dev eth0")
	d.peer.Batch("route add 224.0.0.0/4 dev wire")
	for _, n := range [][2]*nettest.Namespace{{d.peer, d.host}, {d.host, d.peer}} { // the sender does not answer itself
		n[1].Sysctl("ipv4/icmp_echo_ignore_broadcasts", "0")
		reaches(t, n[0], "224.0.0.1")
		n[1].Sysctl("ipv4/icmp_echo_ignore_broadcasts", "1")
	}
	all := func() {
		transfer(t, d.peer, d.host, "10.9.0.1:7", 20e6)
		transfer(t, d.host, d.peer, "10.9.0.2:7", 20e6)
		transfer(t, d.peer, d.host, "[fd09::1]:7", 5e6)
		transfer(t, d.host, d.peer, "[fd09::2]:7", 5e6)
	}
	all()
	for _, s := range []*stage{d.in[0], d.out[0]} {
		counted(t, s, "super-frames", func(c map[string]int) bool { return c["offloaded"] > 0 })
	}
	datagrams(t, d.peer, d.host, "10.9.0.1:9")
	datagrams(t, d.host, d.peer, "[fd09::2]:9")

	// All frames that the interface received went into the tap on the side of the network, or
	// were dropped there, and all that it sent came from there. It is the same for the host.
	alike(t, func() []equation {
		signal(t, slices.Concat(d.in, d.out), unix.SIGUSR1)
		time.Sleep(100 * time.Millisecond)
		eth0, toNet, toHost := d.host.Statistics("eth0"), d.host.Statistics("net"), d.host.Statistics("host")
		return []equation{
			{"what came in by eth0, and what went to tap net", eth0["rx_packets"] - begin["rx_packets"], toNet["tx_packets"] + toNet["tx_dropped"]},
			{"what went to tap net, and what was read there", toNet["tx_packets"], keys(d.in[0])["frames"]},
			{"what was read from tap net, and what was written to tap host", keys(d.in[0])["frames"], keys(d.in[1])["frames"]},
			{"what went to tap host, and what was read there", toHost["tx_packets"], keys(d.out[0])["frames"]},
			{"what was read from tap host, and what was written to tap net", keys(d.out[0])["frames"], keys(d.out[1])["frames"]},
			{"what was written to tap net, and what left by eth0", keys(d.out[1])["frames"], eth0["tx_packets"] - begin["tx_packets"]},
		}
	})

	// A packet socket on the interface sees an incoming frame twice, before and after the taps, and an
	// outgoing frame once.
	host, peer := packetSocket(t, d.host, "eth0"), packetSocket(t, d.peer, "wire")
	taggedFrames(t, peer, host, 2)
	taggedFrames(t, host, peer, 1)

	// The sums are right also where they are finished before the frames leave. Then the
	// kernel parts super-frames behind the taps, which is why this comes last.
	d.host.Run("ethtool", "-K", "eth0", "tx", "off")
	d.peer.Run("ethtool", "-K", "wire", "tx", "off")
	all()
}

// The interface may be a port of a bridge, the bridge itself, a VLAN, or have VLANs on it; and the
// host may forward, also where it translates addresses: what the host and a machine behind it
// receive and send goes through the taps.
func TestDivertPlaces(t *testing.T) {
	nettest.Need(t)
	bridge := []string{"link add br0 type bridge", "link set eth0 master br0", "link set eth1 master br0", "link set br0 up"}
	router := []string{"addr add 10.8.0.1/24 dev eth1", "addr add fd08::1/64 dev eth1"}
	near := []string{"addr add 10.9.0.3/24 dev wire", "addr add fd09::3/64 dev wire"}
	far := []string{"addr add 10.8.0.2/24 dev wire", "addr add fd08::2/64 dev wire", "route add default via 10.8.0.1", "route add default via fd08::1"}
	vlan := []string{"link add link eth0 name eth0.5 type vlan id 5", "link set eth0.5 up"}
	for _, tt := range []struct {
		name, iface, address string   // the interface that is diverted, and that with the host's address
		host, behind         []string // commands of ip
		far                  string   // the address of the machine behind, if it can be reached
	}{
		{"bridge port", "eth0", "br0", bridge, near, "10.9.0.3"},
		{"bridge", "br0", "br0", bridge, near, "10.9.0.3"},
		{"router", "eth0", "eth0", router, far, "10.8.0.2"},
		{"translation", "eth0", "eth0", router, far, ""},
		{"VLAN", "eth0.5", "eth0.5", vlan, nil, ""},
		{"below a VLAN", "eth0", "eth0.5", vlan, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &diversion{t: t, peer: nettest.New(t), host: nettest.New(t)}
			if tt.behind == nil {
				needVLAN(t)
				d.host.Veth("eth0", d.peer, "wire0")
				d.peer.Batch("link add link wire0 name wire type vlan id 5", "link set wire up", "addr add 10.9.0.2/24 dev wire", "addr add fd09::2/64 dev wire")
			} else {
				d.wire("eth0")
			}
			behind := nettest.New(t)
			d.host.Veth("eth1", behind, "wire")
			d.host.Batch(tt.host...)
			d.addresses(tt.address)
			behind.Batch(tt.behind...)
			switch tt.name {
			case "router":
				d.peer.Batch("route add 10.8.0.0/24 via 10.9.0.1", "route add fd08::/64 via fd09::1")
			case "translation":
				nettest.Need(t, "nft")
				d.host.Run("nft", `add table inet n; add chain inet n post { type nat hook postrouting priority 100; }; add rule inet n post oifname "eth0" masquerade`)
			}
			d.host.Sysctl("ipv4/ip_forward", "1")
			d.host.Sysctl("ipv6/conf/all/forwarding", "1")
			d.taps()
			d.start(tt.iface, "net", "host")
			reaches(t, d.peer, "10.9.0.1", "fd09::1")
			transfer(t, d.peer, d.host, "10.9.0.1:7", 20e6)
			transfer(t, d.host, d.peer, "[fd09::2]:7", 20e6)
			d.goesThrough()
			if tt.behind == nil {
				return
			}
			before := counts(t, d.out[0])
			reaches(t, behind, "10.9.0.2", "fd09::2")
			transfer(t, behind, d.peer, "10.9.0.2:7", 20e6)
			transfer(t, behind, d.peer, "[fd09::2]:7", 20e6)
			if tt.far != "" {
				reaches(t, d.peer, tt.far)
				transfer(t, d.peer, behind, tt.far+":7", 20e6)
			}
			if tt.iface == "eth0" { // between the ports nothing comes to the bridge itself
				counted(t, d.out[0], "what was sent", func(c map[string]int) bool { return c["bytes"] > before["bytes"]+40e6 && c["offloaded"] > 0 })
			}
			d.goesThrough()
		})
	}
}

// needVLAN skips a test if the kernel has no VLANs. It is no failure where nothing else may be
// skipped: no package brings them.
func needVLAN(t *testing.T) {
	t.Helper()
	out, err := nettest.New(t).Command("ip", "link", "add", "link", "lo", "name", "v", "type", "vlan", "id", "5").CombinedOutput()
	if err != nil && strings.Contains(string(out), "Unknown device type") {
		fmt.Fprintf(os.Stderr, "SKIPPED %s: this kernel has no VLANs\n", t.Name())
		t.Skip("this kernel has no VLANs")
	}
}

// It begins and ends without the loss of a frame, with status 0. It need not wait for the
// pipelines where they end, too; after a second signal; without a reader of its stdout; or where
// they never began. Killed, it leaves nothing behind, and the traffic goes on.
func TestDivertEnds(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	restored := func(v *diverter, within time.Duration, says string) {
		t.Helper()
		if status := v.ends(within); status != 0 || v.Said.String() != says {
			t.Errorf("status %d: %s", status, v.Said.String())
		}
		if left := d.programs("eth0", "net", "host"); left > 0 {
			t.Errorf("%d programs are left", left)
		}
	}
	const begun = "tundivert: eth0 goes through net and host\n"
	p := d.peer.StartPing("10.9.0.1", ping.Config{Every: 5 * time.Millisecond, Wait: 2 * time.Second})
	p.Answered(5 * time.Second)
	v := d.start("eth0", "net", "host")
	d.goesThrough()
	signal(t, []*stage{v.stage}, unix.SIGTERM)
	restored(v, 10*time.Second, begun)
	for range 100 {
		p.Answered(5 * time.Second)
	}
	if r := p.Stop(); r.Lost() > 0 || r.Sent < 200 {
		t.Error(r)
	}

	for what, end := range map[string]func(v *diverter){
		"two signals": func(v *diverter) {
			for range 2 {
				signal(t, []*stage{v.stage}, unix.SIGTERM)
				time.Sleep(50 * time.Millisecond)
			}
		},
		"no reader": func(v *diverter) { v.stdout.Close() },
	} {
		var times []time.Duration
		for len(times) < 5 && (len(times) == 0 || slices.Min(times) > 500*time.Millisecond) { // others are busy
			v := d.start("eth0", "net", "host")
			asked := time.Now()
			end(v)
			restored(v, 10*time.Second, begun)
			times = append(times, time.Since(asked))
		}
		// Otherwise it would wait a second for the pipelines.
		if t.Log(what, times); slices.Min(times) > 500*time.Millisecond {
			t.Errorf("%s: it ended after %v", what, times)
		}
	}

	v = d.start("eth0", "net", "host")
	if n := d.programs("eth0", "net", "host"); n != 4 {
		t.Errorf("%d programs", n)
	}
	reaches(t, d.peer, "10.9.0.1")
	process.Kill([]*stage{v.stage})
	eventually(t, 5*time.Second, "the programs are gone", func() bool { return d.programs("eth0", "net", "host") == 0 })
	frames := counts(t, d.in[0])["frames"]
	reaches(t, d.peer, "10.9.0.1", "fd09::1")
	if now := counts(t, d.in[0])["frames"]; frames == 0 || now > frames {
		t.Errorf("%d frames had come to the tap, and are %d now", frames, now)
	}

	d.tap("idle")
	v = d.run("tundivert", "eth0", "net", "idle")
	eventually(t, 4*time.Second, "it waits", func() bool {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", v.Process.Pid))
		return slices.ContainsFunc(fds, func(fd string) bool { to, _ := os.Readlink(fd); return to == "anon_inode:bpf-prog" })
	})
	signal(t, []*stage{v.stage}, unix.SIGTERM)
	restored(v, 4*time.Second, "")

	v = d.start("eth0", "net", "host")
	signal(t, []*stage{v.stage}, unix.SIGTERM)
	signal(t, []*stage{d.in[0], d.out[0]}, unix.SIGTERM)
	restored(v, 10*time.Second, begun)
}

// Once it has attached it has no capability, and is held by the sandbox. So it follows
// an interface that is deleted and made again, however often.
func TestDivertRemade(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	d := newDiversion(t)
	v := d.start("eth0", "net", "host")
	threads(t, v.Process.Pid, append(noCapabilities, held...)...)
	remade := func() {
		t.Helper()
		d.wire("eth0")
		d.addresses("eth0")
		reaches(t, d.peer, "10.9.0.1", "fd09::1")
		d.goesThrough()
	}
	for i := range 2 {
		d.host.Batch("link del eth0")
		v.tells("tundivert: eth0 is gone; it is diverted again when it is back\n", i+1)
		remade()
		v.tells("tundivert: eth0 is back, and diverted again\n", i+1)
	}
	signal(t, []*stage{v.stage}, unix.SIGUSR1)
	v.tells("tundivert: state=diverting opened=0 attached=3\n", 1)

	// It is deleted and made faster than one can look.
	d.host.Batch("link del eth0")
	d.host.Batch(slices.Repeat([]string{"link add eth0 type veth peer name eth1", "link del eth0"}, 50)...)
	remade()

	// Something else of this name is not diverted.
	d.host.Batch("link del eth0", "tuntap add dev eth0 mode tun")
	if status := v.ends(10 * time.Second); status != 1 || !strings.HasSuffix(v.Said.String(), "tundivert: eth0: another device has this name now\n") {
		t.Errorf("status %d: %s", status, v.Said.String())
	}
}

// While a tap has no reader, or is gone, nothing passes; open, the traffic passes by at once, and
// is diverted again about a second after the pipelines are back.
func TestDivertFails(t *testing.T) {
	for _, mode := range []string{"closed", "open"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			d := newDiversion(t)
			v := d.start("-fail", mode, "eth0", "net", "host")
			var gaps, settled []time.Duration
			late := slack()
			for i, lacks := range []string{"net has no reader", "host has no reader", "net is gone", "host is gone"} {
				reaches(t, d.peer, "10.9.0.1", "fd09::1")
				d.goesThrough()
				said := strings.Count(v.Said.String(), lacks)
				p := d.peer.StartPing("10.9.0.1", ping.Config{Every: 5 * time.Millisecond})
				p.Answered(5 * time.Second)
				tap, gone := strings.CutSuffix(lacks, " is gone")
				switch {
				case gone:
					d.host.Batch("link del " + tap)
				case i == 0:
					process.Kill(d.in[:1])
				default:
					process.Kill(d.out[:1])
				}
				v.tells(lacks, said+1)
				if passes := p.Answered(time.Second); passes != (mode == "open") {
					t.Errorf("%s: frames pass: %v", lacks, passes)
				}
				gaps = append(gaps, p.Stop().Gap)
				process.Kill(slices.Concat(d.in, d.out))
				if gone {
					d.tap(tap)
				}
				back := time.Now()
				d.pipelines()
				if mode == "open" {
					v.tells("tundivert: closed: the frames of eth0 go through the taps again\n", i+1)
					settled = append(settled, time.Since(back))
				}
			}
			reaches(t, d.peer, "10.9.0.1", "fd09::1")
			d.goesThrough()
			signal(t, []*stage{v.stage}, unix.SIGUSR1)
			if mode == "closed" {
				v.tells("tundivert: state=diverting opened=0 attached=1\n", 1)
				v.tells("; frames of eth0 are lost there\n", 4)
				return
			}
			v.tells("tundivert: state=diverting opened=4 attached=1\n", 1)
			v.tells("tundivert: open: ", 4)
			slices.Sort(gaps)
			slices.Sort(settled)
			if t.Log(gaps, settled); gaps[1] > time.Second+late() || settled[0] < time.Second {
				t.Errorf("dark for %v, diverted again after %v", gaps, settled)
			}
		})
	}
}

// tundivert refuses an interface that it cannot divert, with status 1 and a hint. It also refuses one that is
// diverted already: two diversions would send frames in a circle.
func TestDivertErrors(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "setpriv")
	d := newDiversion(t)
	d.tap("idle")
	d.tap("tap0")
	d.host.Batch("tuntap add dev tun0 mode tun", "link add br0 type bridge", "link add veth0 type veth peer name veth1")
	_ = pipeline(t, nil, nil, d.host.Command("tunread", "tap0"), exec.Command("cat"))
	d.start("eth0", "net", "host")
	hint := func(tap string) string {
		return strings.ReplaceAll("tundivert: hint: ip tuntap add dev % mode tap user root multi_queue vnet_hdr && ip link set % up\n", "%", tap)
	}
	tests := []struct{ args, want string }{
		{"nosuch tap0 idle", "tundivert: nosuch: no such interface\ntundivert: hint: ip link shows those that there are\n"},
		{"lo tap0 idle", "tundivert: lo is not an Ethernet interface\n"},
		{"br0 nosuch idle", "tundivert: nosuch: no such interface\n" + hint("nosuch")},
		{"br0 veth0 idle", "tundivert: veth0 is not a tap\n" + hint("tap0")},
		{"br0 tap0 tun0", "tundivert: tun0 is a tun: it carries IP packets, not Ethernet frames\ntundivert: hint: ip tuntap del dev tun0 mode tun; " + strings.TrimPrefix(hint("tun0"), "tundivert: hint: ")},
		{"br0 tap0 tap0", "tundivert: an interface and two taps are wanted, and tap0 is two of them\n"},
		{"eth0 tap0 idle", "tundivert: eth0 is diverted already\ntundivert: hint: end the other tundivert, or pipeline.sh down; bpftool net shows its program tundivert_in\n"},
		{"br0 net idle", "tundivert: net is diverted already\n"},
		{"br0 idle tap0", "tundivert: idle has no reader and tap0 has no writer\ntundivert: hint: tunread idle | tunwrite tap0 & tunread tap0 | tunwrite idle &\n"},
		{"-fail open br0 tap0 idle", "tundivert: tap0 has no writer and idle has no reader\n"},
	}
	var all []*diverter
	for _, tt := range tests { // some wait for a reader and a writer
		all = append(all, d.run(strings.Fields("tundivert "+tt.args)...))
	}
	for i, tt := range tests {
		if status, says := all[i].ends(20*time.Second), all[i].Said.String(); status != 1 || !strings.HasPrefix(says, tt.want) {
			t.Errorf("%s: status %d: %q, want %q", tt.args, status, says, tt.want)
		}
	}

	// Who may not is told what it takes.
	for _, who := range []string{"--reuid=65534 --regid=65534 --clear-groups", "--bounding-set=-net_admin,-sys_admin", "--bounding-set=-bpf,-sys_admin"} {
		out, status := outcome(d.host.Command("setpriv", append(strings.Fields(who), "tundivert", "br0", "tap0", "idle")...))
		const want = "tundivert: bpf: operation not permitted\ntundivert: hint: run as root; a container needs CAP_BPF, CAP_NET_ADMIN and CAP_SETPCAP"
		if status != 1 || !strings.HasPrefix(out, want) {
			t.Errorf("%s: status %d: %s, want %s", who, status, out, want)
		}
	}
	if left, others := d.programs("br0", "tap0", "idle", "lo", "tun0"), d.programs("eth0", "net", "host"); left > 0 || others != 4 {
		t.Errorf("%d programs are left, and the other diversion has %d", left, others)
	}
	reaches(t, d.peer, "10.9.0.1")
	d.goesThrough()
}

// With the capabilities that the page names, and no other, it diverts. Of two that begin at the same
// time at most one stays.
func TestDivertTwo(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "setpriv")
	d := newDiversion(t)
	set := "-all"
	for _, name := range matches(`CAP_([A-Z_]+)`, section(pages(t)["tundivert.1"], ".Sh SECURITY CONSIDERATIONS")) {
		set += ",+" + strings.ToLower(name)
	}
	v := d.run("setpriv", "--bounding-set="+set, "tundivert", "eth0", "net", "host")
	if line := v.line(); line != "diverting\n" {
		t.Fatalf("with %s: %q", set, line)
	}
	reaches(t, d.peer, "10.9.0.1")
	d.goesThrough()

	process.Kill([]*stage{v.stage})
	d.tap("net2")
	d.tap("host2")
	d.pipeline("net2", "host2")
	d.pipeline("host2", "net2")
	for range 5 {
		failed, both := 0, []*diverter{d.run("tundivert", "eth0", "net", "host"), d.run("tundivert", "eth0", "net2", "host2")}
		for _, v := range both {
			if v.line() == "" {
				failed++
				if status := v.ends(10 * time.Second); status != 1 || !strings.Contains(v.Said.String(), " is diverted already\n") {
					t.Errorf("status %d: %s", status, v.Said.String())
				}
			}
		}
		if failed == 0 {
			t.Error("both divert")
		}
		process.Kill([]*stage{both[0].stage, both[1].stage})
	}
}
