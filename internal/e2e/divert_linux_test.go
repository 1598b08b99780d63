package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/ping"

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

// behind is another host on a cable to the diverted one's interface eth1.
func (d *diversion) behind() *nettest.Namespace {
	d.t.Helper()
	n := nettest.New(d.t)
	d.host.Veth("eth1", n, "wire")
	return n
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
	v := d.startNot(args...)
	if line := v.line(); line != "diverting\n" {
		d.t.Fatalf("%q; it says %s", line, v.says())
	}
	return v
}

// startNot runs tundivert, which may not come to divert.
func (d *diversion) startNot(args ...string) *diverter {
	d.t.Helper()
	return d.run(d.host.Command("tundivert", args...))
}

func (d *diversion) run(c *exec.Cmd) *diverter {
	d.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	defer w.Close()
	v := &diverter{pipeline(d.t, nil, w, c)[0], d.t, r}
	d.t.Cleanup(func() {
		r.Close()
		if d.t.Failed() {
			d.t.Logf("%v: %s", v.Args[4:], v.says())
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

// says returns its messages so far.
func (v *diverter) says() string { return v.Said.String() }

// tells waits until it has said something n times.
func (v *diverter) tells(what string, n int) {
	v.t.Helper()
	eventually(v.t, 15*time.Second, fmt.Sprintf("it says %q", what), func() bool { return strings.Count(v.says(), what) >= n })
}

// ends waits for its end, and returns its status.
func (v *diverter) ends(within time.Duration) int {
	v.t.Helper()
	if err := v.End(within); err != nil {
		v.t.Fatal(err)
	}
	return v.ProcessState.ExitCode()
}

func (v *diverter) signal(s os.Signal) {
	v.t.Helper()
	if err := v.Process.Signal(s); err != nil {
		v.t.Error(err)
	}
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

// goesThrough checks that what hosts send each other goes through both pipelines.
func (d *diversion) goesThrough() {
	d.t.Helper()
	before := make([]int, 2)
	for i, s := range []*stage{d.in[0], d.out[0]} {
		before[i] = counted(d.t, s, "counters", func(c map[string]int) bool { _, ok := c["frames"]; return ok })["frames"]
	}
	d.peer.Ping("10.9.0.1", 3, 10*time.Millisecond)
	for i, s := range []*stage{d.in[0], d.out[0]} {
		counted(d.t, s, "frames of the pings", func(c map[string]int) bool { return c["frames"] >= before[i]+3 })
	}
}

// converse keeps a TCP connection busy in both directions: a server sends back what it
// is sent, some of it each few milliseconds. The function that it returns ends that, and
// checks that all has come back.
func converse(t *testing.T, from, to *nettest.Namespace, addr string) (end func()) {
	t.Helper()
	c := echoing(t, from, to, addr)
	stop, sent := make(chan struct{}), make(chan []byte, 1)
	go func() {
		sum, b := sha256.New(), packettest.Bytes(20000)
		defer func() { sent <- sum.Sum(nil) }()
		for {
			select {
			case <-stop:
				_ = c.(*net.TCPConn).CloseWrite()
				return
			case <-time.After(5 * time.Millisecond):
			}
			b[0]++
			if _, err := io.MultiWriter(c, sum).Write(b); err != nil {
				return
			}
		}
	}()
	got := make(chan []byte, 1)
	go func() {
		sum := sha256.New()
		if _, err := io.Copy(sum, c); err != nil {
			t.Errorf("the connection: %v", err)
		}
		got <- sum.Sum(nil)
	}()
	return sync.OnceFunc(func() {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		close(stop)
		if !bytes.Equal(<-sent, <-got) {
			t.Error("the connection has not brought back what was sent")
		}
	})
}

// programsOf returns the names of the programs of tundivert that are left in the host.
func (d *diversion) programsOf(names ...string) (left []string) {
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
				for _, p := range found.Programs {
					if program, err := ebpf.NewProgramFromID(p.ID); err == nil {
						if info, err := program.Info(); err == nil {
							left = append(left, name+" "+info.Name)
						}
						program.Close()
					}
				}
			}
		}
	})
	return left
}

// checksums has an interface leave the checksums of outgoing frames to the device, or not
// (SIOCETHTOOL of linux/ethtool.h).
func checksums(t *testing.T, ns *nettest.Namespace, name string, left uint32) {
	t.Helper()
	ns.Do(func() {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(s)
		value := struct{ cmd, data uint32 }{unix.ETHTOOL_STXCSUM, left}
		var ifr struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(ifr.name[:], name)
		ifr.data = unsafe.Pointer(&value)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); e != 0 {
			t.Errorf("%s: %v", name, e)
		}
	})
}

// Everything that a host receives and sends goes through the taps, and arrives as it
// was sent: TCP as super-frames, IPv6 with its neighbours, multicast, frames of all
// sizes. Nothing passes by.
func TestDivertHost(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	// While the interface is down nothing comes, and its counters can be held against
	// those of the taps.
	d.host.Run("ip", "link", "set", "eth0", "down")
	d.start("eth0", "net", "host")
	begin := d.host.Statistics("eth0")
	d.host.Run("ip", "link", "set", "eth0", "mtu", "9000")
	d.peer.Run("ip", "link", "set", "wire", "mtu", "9000")
	d.host.Run("ip", "link", "set", "eth0", "up")
	d.host.Run("ip", "addr", "replace", "fd09::1/64", "dev", "eth0")

	reaches(t, d.host, "10.9.0.2", "fd09::2")
	d.host.Batch("neigh flush dev eth0")
	d.peer.Batch("neigh flush dev wire")
	reaches(t, d.peer, "10.9.0.1", "fd09::1")
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
	for _, group := range []string{"239.9.9.9", "ff02::9999"} {
		multicast(t, d.host, "eth0", d.peer, "wire", group)
		multicast(t, d.peer, "wire", d.host, "eth0", group)
	}

	// All frames that the interface received went into the tap on the side of the network, or
	// were dropped there, and all that it sent came from there. It is the same for the host.
	differ := "?"
	for tries := 0; differ != "" && tries < 20; tries++ {
		signal(t, slices.Concat(d.in, d.out), unix.SIGUSR1)
		time.Sleep(100 * time.Millisecond)
		eth0, toNet, toHost := d.host.Statistics("eth0"), d.host.Statistics("net"), d.host.Statistics("host")
		differ = ""
		for _, eq := range []struct {
			what string
			a, b int
		}{
			{"what came in by eth0, and what went to tap net", eth0["rx_packets"] - begin["rx_packets"], toNet["tx_packets"] + toNet["tx_dropped"]},
			{"what went to tap net, and what was read there", toNet["tx_packets"], keys(d.in[0])["frames"]},
			{"what was read from tap net, and what was written to tap host", keys(d.in[0])["frames"], keys(d.in[1])["frames"]},
			{"what went to tap host, and what was read there", toHost["tx_packets"], keys(d.out[0])["frames"]},
			{"what was read from tap host, and what was written to tap net", keys(d.out[0])["frames"], keys(d.out[1])["frames"]},
			{"what was written to tap net, and what left by eth0", keys(d.out[1])["frames"], eth0["tx_packets"] - begin["tx_packets"]},
		} {
			if eq.a != eq.b || eq.a == 0 {
				differ += fmt.Sprintf("%s: %d and %d\n", eq.what, eq.a, eq.b)
			}
		}
	}
	if differ != "" {
		t.Errorf("%s%s\n%s", differ, d.host.Run("ip", "-s", "link"), d.host.Run("cat", "/proc/net/softnet_stat"))
	}

	// The sums are right also where they are finished before the frames leave. Then the
	// kernel parts super-frames behind the taps, which is why this comes last.
	checksums(t, d.host, "eth0", 0)
	checksums(t, d.peer, "wire", 0)
	all()
}

// multicast checks that what is sent to a group arrives at who has joined it.
func multicast(t *testing.T, from *nettest.Namespace, by string, to *nettest.Namespace, at, group string) {
	t.Helper()
	addr := &net.UDPAddr{IP: net.ParseIP(group), Port: 99}
	server := inside(t, to, func() (*net.UDPConn, error) {
		ifi, err := net.InterfaceByName(at)
		if err != nil {
			return nil, err
		}
		return net.ListenMulticastUDP("udp", ifi, addr)
	})
	defer server.Close()
	if addr.IP.To4() != nil {
		from.Batch("route replace 239.0.0.0/8 dev " + by)
	}
	client := inside(t, from, func() (*net.UDPConn, error) {
		dest := *addr
		if addr.IP.To4() == nil { // by number: package net keeps the names of one namespace
			index, err := nettest.Index(by)
			if err != nil {
				return nil, err
			}
			dest.Zone = strconv.Itoa(index)
		}
		return net.DialUDP("udp", nil, &dest)
	})
	defer client.Close()
	b := make([]byte, 100)
	for tries := 0; ; tries++ {
		if _, err := client.Write([]byte("to all")); err != nil {
			t.Fatal(err)
		}
		_ = server.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := server.ReadFromUDP(b)
		if err == nil && string(b[:n]) == "to all" {
			return
		}
		if tries == 10 {
			t.Errorf("%s from %s: %v", group, by, err)
			return
		}
	}
}

// Frames cross byte by byte, with VLAN tags and of sizes up to jumbo. A packet socket
// on the interface has what comes in twice, before the taps and behind them, and what
// leaves once.
func TestDivertFrames(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	d.host.Run("ip", "link", "set", "eth0", "mtu", "9216")
	d.peer.Run("ip", "link", "set", "wire", "mtu", "9216")
	d.start("eth0", "net", "host")
	var host, peer int
	d.host.Do(func() { host = nettest.PacketSocket(t, "eth0") })
	d.peer.Do(func() { peer = nettest.PacketSocket(t, "wire") })
	defer unix.Close(host)
	defer unix.Close(peer)
	taggedFrames(t, peer, host, 2)
	taggedFrames(t, host, peer, 1)
}

// The interface may be a port of a bridge: the host on the bridge and a machine behind
// another port are reached through the taps. So it may be the bridge itself.
func TestDivertBridge(t *testing.T) {
	for _, iface := range []string{"eth0", "br0"} {
		t.Run(iface, func(t *testing.T) {
			t.Parallel()
			nettest.Need(t)
			d := &diversion{t: t, peer: nettest.New(t), host: nettest.New(t)}
			d.wire("eth0")
			behind := d.behind()
			behind.Batch("addr add 10.9.0.3/24 dev wire", "addr add fd09::3/64 dev wire")
			d.host.Batch("link add br0 type bridge", "link set eth0 master br0", "link set eth1 master br0", "link set br0 up")
			d.addresses("br0")
			d.taps()
			d.start(iface, "net", "host")
			reaches(t, d.peer, "10.9.0.1", "fd09::1", "10.9.0.3", "fd09::3")
			reaches(t, behind, "10.9.0.1", "fd09::2")
			transfer(t, d.peer, d.host, "10.9.0.1:7", 20e6)
			transfer(t, d.host, d.peer, "[fd09::2]:7", 20e6)
			d.goesThrough()
			before := counted(t, d.in[0], "counters", func(c map[string]int) bool { return c["bytes"] > 0 })
			transfer(t, d.peer, behind, "10.9.0.3:7", 20e6)
			transfer(t, behind, d.peer, "[fd09::2]:7", 20e6)
			if iface == "eth0" { // between the ports nothing comes to the bridge itself
				counted(t, d.in[0], "what went to the machine behind", func(c map[string]int) bool { return c["bytes"] > before["bytes"]+20e6 })
			}
		})
	}
}

// The host may forward: what a machine behind it receives and sends goes through the
// taps, also where its address is translated.
func TestDivertRouter(t *testing.T) {
	for _, nat := range []bool{false, true} {
		t.Run(map[bool]string{false: "routed", true: "translated"}[nat], func(t *testing.T) {
			t.Parallel()
			if nat {
				nettest.Need(t, "nft")
			}
			d := newDiversion(t)
			behind := d.behind()
			d.host.Batch("addr add 10.8.0.1/24 dev eth1", "addr add fd08::1/64 dev eth1")
			behind.Batch("addr add 10.8.0.2/24 dev wire", "addr add fd08::2/64 dev wire", "route add default via 10.8.0.1", "route add default via fd08::1")
			d.host.Sysctl("ipv4/ip_forward", "1")
			d.host.Sysctl("ipv6/conf/all/forwarding", "1")
			if nat {
				d.host.Run("nft", `add table inet n; add chain inet n post { type nat hook postrouting priority 100; }; add rule inet n post oifname "eth0" masquerade`)
			} else {
				d.peer.Batch("route add 10.8.0.0/24 via 10.9.0.1", "route add fd08::/64 via fd09::1")
			}
			d.start("eth0", "net", "host")
			reaches(t, behind, "10.9.0.2", "fd09::2")
			transfer(t, behind, d.peer, "10.9.0.2:7", 20e6)
			transfer(t, behind, d.peer, "[fd09::2]:7", 20e6)
			for _, s := range []*stage{d.in[0], d.out[0]} {
				counted(t, s, "frames", func(c map[string]int) bool { return c["frames"] > 100 })
			}
			counted(t, d.out[0], "all that was sent", func(c map[string]int) bool { return c["bytes"] > 40e6 && c["offloaded"] > 0 })
			if !nat {
				transfer(t, d.peer, behind, "10.8.0.2:7", 20e6)
			}
			d.goesThrough()
		})
	}
}

// The interface may be a VLAN, or have VLANs on it.
func TestDivertVLAN(t *testing.T) {
	nettest.Need(t)
	if out, err := nettest.New(t).Command("ip", "link", "add", "link", "lo", "name", "v", "type", "vlan", "id", "5").CombinedOutput(); err != nil && strings.Contains(string(out), "Unknown device type") {
		fmt.Fprintf(os.Stderr, "SKIPPED %s: this kernel has no VLANs\n", t.Name())
		t.Skip("this kernel has no VLANs") // no failure where nothing else may be skipped: no package brings them
	}
	for _, iface := range []string{"eth0", "eth0.5"} {
		t.Run(iface, func(t *testing.T) {
			t.Parallel()
			d := &diversion{t: t, peer: nettest.New(t), host: nettest.New(t)}
			d.host.Veth("eth0", d.peer, "wire0")
			d.host.Batch("link add link eth0 name eth0.5 type vlan id 5", "link set eth0.5 up")
			d.peer.Batch("link add link wire0 name wire type vlan id 5", "link set wire up", "addr add 10.9.0.2/24 dev wire", "addr add fd09::2/64 dev wire")
			d.addresses("eth0.5")
			d.taps()
			d.start(iface, "net", "host")
			reaches(t, d.peer, "10.9.0.1", "fd09::1")
			transfer(t, d.peer, d.host, "10.9.0.1:7", 20e6)
			transfer(t, d.host, d.peer, "[fd09::2]:7", 20e6)
			d.goesThrough()
		})
	}
}

// under runs something while pings go, 5 ms apart, and a connection is busy. The pings
// go on for a second afterwards.
func (d *diversion) under(do func()) ping.Result {
	d.t.Helper()
	reaches(d.t, d.peer, "10.9.0.1")
	end := converse(d.t, d.peer, d.host, "10.9.0.1:7")
	p := d.peer.StartPing("10.9.0.1", ping.Config{Every: 5 * time.Millisecond, Wait: 2 * time.Second})
	p.Answered(5 * time.Second)
	do()
	for range 100 {
		p.Answered(5 * time.Second)
	}
	end()
	r := p.Stop()
	d.t.Log(r)
	return r
}

// Killed, it leaves nothing behind, and the traffic goes on.
func TestDivertKilled(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	v := d.start("eth0", "net", "host")
	if got := d.programsOf("eth0", "net", "host"); len(got) != 4 {
		t.Errorf("programs: %v", got)
	}
	late := slack()
	r := d.under(func() {
		v.signal(unix.SIGKILL)
		v.ends(5 * time.Second)
	})
	// What is lost was in the pipelines.
	if most := 500*time.Millisecond + late(); r.Received < 50 || r.Gap > most {
		t.Errorf("%v, and %v may be the gap", r, most)
	}
	eventually(t, 5*time.Second, "the programs are gone", func() bool { return len(d.programsOf("eth0", "net", "host")) == 0 })
	any := func(map[string]int) bool { return true }
	frames := counted(t, d.in[0], "counters", any)["frames"]
	reaches(t, d.peer, "10.9.0.1", "fd09::1")
	if now := counted(t, d.in[0], "counters", any)["frames"]; frames == 0 || now > frames {
		t.Errorf("%d frames had come to the tap, and are %d now", frames, now)
	}
}

// It begins and ends without the loss of a frame, with status 0.
func TestDivertStopped(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	r := d.under(func() {
		v := d.start("eth0", "net", "host")
		d.goesThrough()
		v.signal(unix.SIGTERM)
		if status := v.ends(10 * time.Second); status != 0 {
			t.Errorf("status %d: %s", status, v.says())
		}
		if says := v.says(); says != "tundivert: eth0 goes through net and host\n" {
			t.Errorf("it says %s", says)
		}
	})
	if r.Lost() > 0 || r.Sent < 200 {
		t.Error(r)
	}
	if left := d.programsOf("eth0", "net", "host"); len(left) > 0 {
		t.Errorf("programs are left: %v", left)
	}

	// Where the pipelines end, too, it need not wait for them.
	v := d.start("eth0", "net", "host")
	v.signal(unix.SIGTERM)
	signal(t, []*stage{d.in[0], d.out[0]}, unix.SIGTERM)
	if status := v.ends(10 * time.Second); status != 0 {
		t.Errorf("status %d: %s", status, v.says())
	}
}

// A second signal ends it at once, and so does the end of the reader of its stdout.
func TestDivertAtOnce(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	for what, end := range map[string]func(v *diverter){
		"two signals": func(v *diverter) {
			v.signal(unix.SIGTERM)
			time.Sleep(50 * time.Millisecond)
			v.signal(unix.SIGTERM)
		},
		"no reader": func(v *diverter) { v.stdout.Close() },
	} {
		var times []time.Duration
		for len(times) < 5 && (len(times) == 0 || slices.Min(times) > 500*time.Millisecond) { // others are busy
			v := d.start("eth0", "net", "host")
			asked := time.Now()
			end(v)
			if status := v.ends(10 * time.Second); status != 0 {
				t.Errorf("%s: status %d: %s", what, status, v.says())
			}
			times = append(times, time.Since(asked))
		}
		// Otherwise it would wait a second for the pipelines.
		if t.Log(what, times); slices.Min(times) > 500*time.Millisecond {
			t.Errorf("%s: it ended after %v", what, times)
		}
		if left := d.programsOf("eth0", "net", "host"); len(left) > 0 {
			t.Errorf("%s: programs are left: %v", what, left)
		}
	}
}

// It ends at once, too, while it waits for the pipelines.
func TestDivertStoppedEarly(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	d.tap("idle")
	v := d.startNot("eth0", "net", "idle")
	loaded := func() bool {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", v.Process.Pid))
		return slices.ContainsFunc(fds, func(fd string) bool { to, _ := os.Readlink(fd); return to == "anon_inode:bpf-prog" })
	}
	eventually(t, 4*time.Second, "it waits", loaded)
	v.signal(unix.SIGTERM)
	if status := v.ends(4 * time.Second); status != 0 || v.says() != "" {
		t.Errorf("status %d: %s", status, v.says())
	}
}

// Once it has attached it has no capability, and is held by the sandbox. So it follows
// an interface that is deleted and made again, however often.
func TestDivertRemade(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	d := newDiversion(t)
	v := d.start("eth0", "net", "host")
	threads(t, v.Process.Pid, append(noCapabilities, held...)...)
	for i := range 2 {
		d.host.Run("ip", "link", "del", "eth0")
		v.tells("tundivert: eth0 is gone; it is diverted again when it is back\n", i+1)
		d.wire("eth0")
		d.addresses("eth0")
		v.tells("tundivert: eth0 is back, and diverted again\n", i+1)
		reaches(t, d.peer, "10.9.0.1", "fd09::1")
		d.goesThrough()
	}
	v.signal(unix.SIGUSR1)
	v.tells("tundivert: state=diverting opened=0 attached=3\n", 1)

	// It is deleted and made faster than one can look.
	d.host.Run("ip", "link", "del", "eth0")
	var lines []string
	for range 50 {
		lines = append(lines, "link add eth0 type veth peer name eth1", "link del eth0")
	}
	d.host.Batch(lines...)
	d.wire("eth0")
	d.addresses("eth0")
	reaches(t, d.peer, "10.9.0.1", "fd09::1")
	d.goesThrough()

	// Something else of this name is not diverted.
	d.host.Run("ip", "link", "del", "eth0")
	d.host.Run("ip", "tuntap", "add", "dev", "eth0", "mode", "tun")
	if status := v.ends(10 * time.Second); status != 1 || !strings.HasSuffix(v.says(), "tundivert: eth0: another device has this name now\n") {
		t.Errorf("status %d: %s", status, v.says())
	}
}

// A tap that is deleted takes the traffic with it, or the traffic passes by; and where
// it is made again the traffic goes through it again.
func TestDivertTapRemade(t *testing.T) {
	for _, mode := range []string{"closed", "open"} {
		for _, tap := range []string{"net", "host"} {
			t.Run(mode+" "+tap, func(t *testing.T) {
				t.Parallel()
				d := newDiversion(t)
				v := d.start("-fail", mode, "eth0", "net", "host")
				reaches(t, d.peer, "10.9.0.1")
				d.host.Run("ip", "link", "del", tap)
				// The other tap is without a reader or a writer as soon as the pipelines
				// have ended.
				if mode == "open" {
					v.tells("tundivert: open: ", 1)
					reaches(t, d.peer, "10.9.0.1", "fd09::1")
				} else {
					v.tells(tap+" is gone", 1)
					if r := d.peer.Ping("10.9.0.1", 20, 10*time.Millisecond); r.Received > 0 {
						t.Errorf("frames pass: %v", r)
					}
				}
				gone(t, slices.Concat(d.in, d.out))
				d.tap(tap)
				d.pipelines()
				if mode == "open" {
					v.tells("tundivert: closed: the frames of eth0 go through the taps again\n", 1)
				}
				reaches(t, d.peer, "10.9.0.1", "fd09::1")
				d.goesThrough()
			})
		}
	}
}

// Open, the traffic passes by when a reader is killed, and is diverted again about a
// second after the pipeline is back.
func TestDivertOpen(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	v := d.start("-fail", "open", "eth0", "net", "host")
	reaches(t, d.peer, "10.9.0.1")
	var gaps, settled []time.Duration
	late := slack()
	for i := range 3 {
		p := d.peer.StartPing("10.9.0.1", ping.Config{Every: 5 * time.Millisecond})
		if !p.Answered(5 * time.Second) {
			t.Fatal("no answer")
		}
		if err := d.in[0].Process.Kill(); err != nil {
			t.Fatal(err)
		}
		v.tells("tundivert: open: ", i+1)
		if !p.Answered(5 * time.Second) {
			t.Fatal("no frame passes by")
		}
		gaps = append(gaps, p.Stop().Gap)
		gone(t, d.in)
		back := time.Now()
		d.in = d.pipeline("net", "host")
		v.tells("tundivert: closed: the frames of eth0 go through the taps again\n", i+1)
		settled = append(settled, time.Since(back))
		d.goesThrough()
	}
	slices.Sort(gaps)
	slices.Sort(settled)
	t.Logf("dark for %v at most, median %v; diverted again after %v to %v", gaps[2], gaps[1], settled[0], settled[2])
	if gaps[1] > time.Second+late() || settled[0] < time.Second {
		t.Errorf("dark for %v, diverted again after %v", gaps, settled)
	}
	v.signal(unix.SIGUSR1)
	v.tells("tundivert: state=diverting opened=3 attached=1\n", 1)
}

// Closed, nothing passes while a tap has no reader, and all does when the pipeline is
// back.
func TestDivertClosed(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	v := d.start("eth0", "net", "host")
	for i, line := range []*[]*stage{&d.in, &d.out} {
		reaches(t, d.peer, "10.9.0.1")
		if err := (*line)[0].Process.Kill(); err != nil {
			t.Fatal(err)
		}
		v.tells([]string{"net", "host"}[i]+" has no reader", 1)
		gone(t, *line)
		if r := d.peer.Ping("10.9.0.1", 30, 10*time.Millisecond); r.Received > 0 {
			t.Errorf("frames pass: %v", r)
		}
		taps := [][]string{{"net", "host"}, {"host", "net"}}[i]
		*line = d.pipeline(taps[0], taps[1])
	}
	reaches(t, d.peer, "10.9.0.1", "fd09::1")
	d.goesThrough()
	if says := v.says(); strings.Contains(says, "open") || !strings.Contains(says, "frames of eth0 are lost there\n") {
		t.Errorf("it says %s", says)
	}
}

// What cannot be diverted is refused with status 1, and with what to do.
func TestDivertErrors(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "setpriv")
	d := newDiversion(t)
	d.tap("idle")
	d.tap("tap0")
	d.host.Run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
	d.host.Batch("link add br0 type bridge", "link add veth0 type veth peer name veth1")
	_ = pipeline(t, nil, nil, d.host.Command("tunread", "tap0"), exec.Command("cat"))
	d.start("eth0", "net", "host")
	const add = "tundivert: hint: ip tuntap add dev %s mode tap user root multi_queue vnet_hdr && ip link set %s up\n"
	hint := func(tap string) string { return strings.ReplaceAll(add, "%s", tap) }
	var wg sync.WaitGroup
	for _, tt := range []struct{ args, want string }{
		{"nosuch tap0 idle", "tundivert: nosuch: no such interface\ntundivert: hint: ip link shows those that there are\n"},
		{"name.of.more.than.15 tap0 idle", "tundivert: name.of.more.than.15: no such interface\ntundivert: hint: ip link shows those that there are\n"},
		{"lo tap0 idle", "tundivert: lo is not an Ethernet interface\n"},
		{"tun0 tap0 idle", "tundivert: tun0 is not an Ethernet interface\n"},
		{"br0 nosuch idle", "tundivert: nosuch: no such interface\n" + hint("nosuch")},
		{"br0 tap0 nosuch", "tundivert: nosuch: no such interface\n" + hint("nosuch")},
		{"br0 veth0 idle", "tundivert: veth0 is not a tap\n" + hint("tap0")},
		{"br0 tap0 tun0", "tundivert: tun0 is a tun: it carries IP packets, not Ethernet frames\ntundivert: hint: ip tuntap del dev tun0 mode tun; " + strings.TrimPrefix(hint("tun0"), "tundivert: hint: ")},
		{"br0 tap0 tap0", "tundivert: an interface and two taps are wanted, and tap0 is two of them\n"},
		{"eth0 tap0 idle", "tundivert: eth0 is diverted already\ntundivert: hint: end the other tundivert, or pipeline.sh down; bpftool net shows its program fp_ingress\n"},
		{"br0 net idle", "tundivert: net is diverted already\n"},
		{"tap0 tap0 idle", "tundivert: an interface and two taps are wanted, and tap0 is two of them\n"},
		{"br0 idle tap0", "tundivert: idle has no reader and tap0 has no writer\ntundivert: hint: tunread idle | tunwrite tap0 & tunread tap0 | tunwrite idle &\n"},
		{"-fail open br0 tap0 idle", "tundivert: tap0 has no writer and idle has no reader\n"},
	} {
		v := d.startNot(strings.Fields(tt.args)...)
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := v.End(20 * time.Second); err != nil {
				t.Error(err)
			} else if status, says := v.ProcessState.ExitCode(), v.says(); status != 1 || !strings.HasPrefix(says, tt.want) {
				t.Errorf("%s: status %d: %q, want %q", tt.args, status, says, tt.want)
			}
		}()
	}
	wg.Wait()

	// Who may not is told what it takes.
	for _, who := range []string{"--reuid=65534 --regid=65534 --clear-groups", "--bounding-set=-net_admin,-sys_admin", "--bounding-set=-bpf,-sys_admin"} {
		out, status := outcome(d.host.Command("setpriv", append(strings.Fields(who), "tundivert", "br0", "tap0", "idle")...))
		const want = "tundivert: bpf: operation not permitted\ntundivert: hint: run as root; a container needs CAP_BPF, CAP_NET_ADMIN and CAP_SETPCAP"
		if status != 1 || !strings.HasPrefix(out, want) {
			t.Errorf("%s: status %d: %s, want %s", who, status, out, want)
		}
	}
	if got := d.programsOf("br0", "tap0", "idle", "lo", "tun0"); len(got) > 0 {
		t.Errorf("programs are left: %v", got)
	}
	if got := d.programsOf("eth0", "net", "host"); len(got) != 4 {
		t.Errorf("the other diversion has %v", got)
	}
	reaches(t, d.peer, "10.9.0.1")
	d.goesThrough()
}

// Of two that begin at the same time at most one stays: two would lead frames in a
// circle.
func TestDivertTwo(t *testing.T) {
	t.Parallel()
	d := newDiversion(t)
	d.tap("net2")
	d.tap("host2")
	d.pipeline("net2", "host2")
	d.pipeline("host2", "net2")
	for range 5 {
		a, b := d.startNot("eth0", "net", "host"), d.startNot("eth0", "net2", "host2")
		failed := 0
		for _, v := range []*diverter{a, b} {
			if v.line() == "" {
				failed++
				if status := v.ends(10 * time.Second); status != 1 || !strings.Contains(v.says(), " is diverted already\n") {
					t.Errorf("status %d: %s", status, v.says())
				}
			}
		}
		if failed == 0 {
			t.Error("both divert")
		}
		for _, v := range []*diverter{a, b} {
			_ = v.Process.Kill()
			v.ends(10 * time.Second)
		}
	}
}

// With the capabilities that the page names, and no other, it diverts.
func TestDivertCapabilities(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "setpriv")
	d := newDiversion(t)
	names := regexp.MustCompile(`CAP_([A-Z_]+)`).FindAllStringSubmatch(section(pages(t)["tundivert.1"], ".Sh SECURITY CONSIDERATIONS"), -1)
	set := "-all"
	for _, m := range names {
		set += ",+" + strings.ToLower(m[1])
	}
	v := d.run(d.host.Command("setpriv", "--bounding-set="+set, "tundivert", "eth0", "net", "host"))
	if line := v.line(); line != "diverting\n" {
		t.Fatalf("with %s: %q", set, line)
	}
	reaches(t, d.peer, "10.9.0.1")
	d.goesThrough()
}
