package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/nettest"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/packettest"

	"golang.org/x/sys/unix"
)

// inside runs f where it may make interfaces.
func inside(t *testing.T, f func()) {
	t.Helper()
	nettest.Need(t)
	nettest.Inside(t, f)
}

func ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, args := range commands {
		nettest.Run(t, "ip", strings.Fields(args)...)
	}
}

// addTap makes a tap that is up, and to which the kernel sends nothing by itself.
func addTap(t *testing.T, name string) {
	t.Helper()
	ip(t, "tuntap add dev "+name+" mode tap multi_queue vnet_hdr")
	nettest.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6")
	ip(t, "link set "+name+" up")
}

func packetSocket(t *testing.T, name string) int {
	t.Helper()
	s := nettest.PacketSocket(t, name)
	t.Cleanup(func() { unix.Close(s) })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a device, which is closed after the test.
func open(t *testing.T, cfg Config) *Device {
	t.Helper()
	d, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// readFrame waits for a frame, for a second at most, and returns it with what
// stands in front of it.
func readFrame(t *testing.T, d *Device) (header, f []byte) {
	t.Helper()
	buf := make([]byte, 100000)
	for deadline := time.Now().Add(time.Second); ; {
		n, err := d.Read(buf, Headroom)
		if err == nil {
			return buf[Headroom-offload.HeaderSize : Headroom], buf[Headroom : Headroom+n]
		}
		if err != unix.EAGAIN || time.Now().After(deadline) {
			t.Fatalf("no frame: %v", err)
		}
		fds := []fdio.PollFd{{Fd: int32(d.Fd()), Events: unix.POLLIN}}
		if _, err := fdio.Wait(fds, 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

func writeFrame(d *Device, f []byte) error {
	return d.Write(append(make([]byte, Headroom), f...), Headroom, len(f))
}

// test frames have a local experimental EtherType, so that nobody answers.
func testFrame(i int) []byte {
	f := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}
	return binary.BigEndian.AppendUint32(append(f, make([]byte, 60)...), uint32(i))
}

// Two processes on one tap, in either order, however many: all that the kernel
// sends comes to the reader, none to the writers.
func TestReaderAndWriters(t *testing.T) {
	for _, order := range []string{"rww", "wrw", "wwr"} {
		t.Run(order, func(t *testing.T) {
			inside(t, func() {
				addTap(t, "tap0")
				var r *Device
				var ws []*Device
				for _, c := range order {
					if c == 'r' {
						r = open(t, Config{Name: "tap0", Offload: On})
					} else {
						ws = append(ws, open(t, Config{Name: "tap0", Write: true}))
					}
				}
				if !r.Offload() || !ws[0].Offload() || !r.VNetHdr() {
					t.Errorf("%v, %v", r, ws[0])
				}
				nettest.Running(t, "tap0")
				// Into the kernel, and by a packet socket out of it again.
				s := packetSocket(t, "tap0")
				for i := range 200 {
					must(t, unix.Send(s, testFrame(i), 0))
					if _, f := readFrame(t, r); !bytes.Equal(f, testFrame(i)) {
						t.Fatalf("frame %d came as % x", i, f)
					}
				}
				for i, w := range ws {
					must(t, writeFrame(w, testFrame(1000+i)))
					if f := receive(t, s); !bytes.Equal(f, testFrame(1000+i)) {
						t.Fatalf("written, and received as % x", f)
					}
				}
			})
		})
	}
}

func receive(t *testing.T, s int) []byte {
	t.Helper()
	b := make([]byte, 100000)
	for {
		n, from, err := unix.Recvfrom(s, b, 0)
		if err != nil {
			t.Fatal("nothing received: ", err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
			return b[:n]
		}
	}
}

// What cannot be opened says why and what to do.
func TestOpenErrors(t *testing.T) {
	inside(t, func() {
		ip(t, "tuntap add dev single mode tap", "tuntap add dev many mode tap multi_queue",
			"tuntap add dev tun0 mode tun multi_queue", "link add veth0 type veth peer name veth1")
		open(t, Config{Name: "single"})
		null, _ := os.Open(os.DevNull)
		defer null.Close()
		file, _ := os.Open(os.Args[0])
		defer file.Close()
		tun, _ := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		defer tun.Close()
		p, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		for _, tt := range []struct {
			cfg  Config
			want string
		}{
			{Config{Name: "tap7"}, "tap7: no such network interface; ip tuntap add dev tap7 mode tap multi_queue vnet_hdr && ip link set tap7 up"},
			{Config{Name: "tun7", L3: true}, "tun7: no such network interface; ip tuntap add dev tun7 mode tun"},
			{Config{Name: "single", Write: true}, "single: in use by another process, and it has only one queue; create it with several queues: ip link del single; ip tuntap add dev single"},
			{Config{Name: "veth0"}, "veth0: not a tap device; a tun needs -l3; create one: ip tuntap add dev tap0 mode tap"},
			{Config{Name: "lo"}, "lo: not a tap device"},
			{Config{Name: "tun0"}, "tun0: not a tap device; a tun needs -l3"},
			{Config{Name: "many", L3: true}, "many: not a tun device; a tap must not have -l3"},
			{Config{Name: "averylongnameforaninterface"}, "not a name of a network interface"},
			{Config{Name: ""}, "not a name"},
			{Config{Name: "/dev/null"}, "/dev/null: not a tap or tun device"},
			{Config{Name: "/dev/tap9999"}, "/dev/tap9999: no such file or directory"},
			{Config{Name: "/etc/passwd"}, "/etc/passwd: not a device"},
			{Config{Name: "fd:x"}, "fd:x: want fd:N, the number"},
			{Config{Name: "fd:999"}, "fd:999: the descriptor is not open"},
			{Config{Name: fmt.Sprintf("fd:%d", null.Fd())}, "not a tap or tun device"},
			{Config{Name: fmt.Sprintf("fd:%d", file.Fd())}, "neither a device nor a socket"},
			{Config{Name: fmt.Sprintf("fd:%d", tun.Fd())}, "not attached to an interface"},
			{Config{Name: fmt.Sprintf("fd:%d", p[0])}, "want SOCK_DGRAM or SOCK_SEQPACKET"},
		} {
			d, err := Open(tt.cfg)
			if err == nil {
				d.Close()
				t.Errorf("%+v: opened", tt.cfg)
				continue
			}
			msg := err.Error()
			if h := cli.HintOf(err); h != "" {
				msg += "; " + h
			}
			if !strings.Contains(msg, tt.want) {
				t.Errorf("%+v: %q, want %q", tt.cfg, msg, tt.want)
			}
		}
		// Nothing was made on the way.
		if out := nettest.Run(t, "ip", "-o", "link"); strings.Count(out, "\n") != 6 {
			t.Errorf("there are other interfaces now:\n%s", out)
		}
	})
}

// However a device was made, it has offload headers, but one that another process
// has without is used without.
func TestWithoutVNetHdr(t *testing.T) {
	inside(t, func() {
		ip(t, "tuntap add dev tap0 mode tap multi_queue", "link set tap0 up")
		for _, write := range []bool{false, true} {
			d := open(t, Config{Name: "tap0", Write: write})
			if !d.VNetHdr() || !d.Offload() {
				t.Errorf("%v", d)
			}
			d.Close()
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
		must(t, err)
		defer unix.Close(fd)
		ifr, _ := unix.NewIfreq("tap0")
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_MULTI_QUEUE)
		must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
		w := open(t, Config{Name: "tap0", Write: true})
		if w.VNetHdr() || w.Offload() {
			t.Errorf("%v", w)
		}
		s := packetSocket(t, "tap0")
		must(t, writeFrame(w, testFrame(5)))
		if f := receive(t, s); !bytes.Equal(f, testFrame(5)) {
			t.Errorf("received % x", f)
		}
		_, err = Open(Config{Name: "tap0", Write: true, Offload: On})
		if err == nil || !strings.Contains(err.Error(), "does not support super-frames") {
			t.Errorf("%v", err)
		}
	})
}

// Down, a device refuses frames; deleted, it is gone, and a wait ends.
func TestDeviceGoes(t *testing.T) {
	inside(t, func() {
		ip(t, "tuntap add dev tap0 mode tap multi_queue vnet_hdr")
		r := open(t, Config{Name: "tap0", Offload: On})
		w := open(t, Config{Name: "tap0", Write: true})
		if err := writeFrame(w, testFrame(1)); err != unix.EIO {
			t.Errorf("down: %v", err)
		}
		ip(t, "link set tap0 up")
		if err := writeFrame(w, testFrame(1)); err != nil {
			t.Errorf("up: %v", err)
		}
		if err := writeFrame(w, make([]byte, 5)); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("a frame of 5 bytes: %v", err)
		}
		ip(t, "link del tap0")
		for _, d := range []*Device{r, w} {
			fds := []fdio.PollFd{{Fd: int32(d.Fd())}}
			if n, err := fdio.Wait(fds, time.Second); n != 1 || err != nil || !fdio.Broken(fds[0]) {
				t.Errorf("deleted, but a wait says %d, %v", n, err)
			}
		}
		if _, err := r.Read(make([]byte, 100), Headroom); !errors.Is(err, ErrGone) {
			t.Errorf("deleted, Read: %v", err)
		}
		if err := writeFrame(w, testFrame(1)); !errors.Is(err, ErrGone) {
			t.Errorf("deleted, Write: %v", err)
		}
	})
}

func TestTun(t *testing.T) {
	inside(t, func() {
		ip(t, "tuntap add dev tun0 mode tun multi_queue vnet_hdr", "addr add 10.9.0.1/24 dev tun0", "link set tun0 up")
		r := open(t, Config{Name: "tun0", L3: true, Offload: Off})
		nettest.Running(t, "tun0")
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		must(t, err)
		defer unix.Close(s)
		must(t, unix.Sendto(s, []byte("hello"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 9, 0, 2}}))
		h, f := ours(t, r, packet.IP)
		if l := packet.Dissect(f, packet.IP); string(f[l.L4+8:]) != "hello" || offload.Needed(h) {
			t.Errorf("% x | % x", h, f)
		}
	})
}

// A macvtap is opened by its path, and by a descriptor of a shell's.
func TestMacvtap(t *testing.T) {
	inside(t, func() {
		ip(t, "link add veth0 type veth peer name veth1", "link set veth1 up",
			"link add link veth0 name mvt type macvtap mode passthru", "link set mvt up", "link set veth0 up")
		// udev would make the node; in a namespace nobody does.
		sys := t.TempDir() // of this thread's namespace
		must(t, unix.Mount("sysfs", sys, "sysfs", 0, ""))
		names, _ := filepath.Glob(sys + "/devices/virtual/net/mvt/tap*/dev")
		numbers, err := os.ReadFile(strings.Join(names, ""))
		must(t, errors.Join(err, unix.Unmount(sys, unix.MNT_DETACH)))
		var major, minor uint32
		_, err = fmt.Sscanf(string(numbers), "%d:%d", &major, &minor)
		must(t, err)
		node := t.TempDir() + "/tap"
		must(t, unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor))))
		other := packetSocket(t, "veth1")
		nettest.Running(t, "veth0", "veth1", "mvt")
		for _, shell := range []bool{false, true} {
			name := node
			if shell {
				f, err := os.OpenFile(node, os.O_RDWR, 0)
				must(t, err)
				defer f.Close()
				name = fmt.Sprintf("fd:%d", f.Fd())
			}
			r := open(t, Config{Name: name, Offload: On})
			w := open(t, Config{Name: name, Write: true})
			must(t, writeFrame(w, testFrame(3)))
			for !bytes.Equal(receive(t, other), testFrame(3)) { // the interfaces send, too
			}
			// Each flow has its queue, by a hash that is another one after each boot.
			for port := range uint16(16) {
				want := packettest.Spec{UDP: true, Port: 1000 + port}.Frame()
				must(t, unix.Send(other, want, 0))
				for {
					if _, f := readFrame(t, r); bytes.Equal(f, want) {
						break
					}
				}
			}
			r.Close()
			w.Close()
		}
	})
}

// A socket in a device's place.
func TestSocket(t *testing.T) {
	for _, kind := range []int{unix.SOCK_SEQPACKET, unix.SOCK_DGRAM} {
		p, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
		must(t, err)
		r := open(t, Config{Name: fmt.Sprintf("fd:%d", p[0])})
		w := open(t, Config{Name: fmt.Sprintf("fd:%d", p[1]), Write: true})
		buf := make([]byte, 200)
		if _, err := r.Read(buf, Headroom); err != unix.EAGAIN {
			t.Errorf("Read of nothing: %v", err)
		}
		if err := writeFrame(w, testFrame(1)); err != nil {
			t.Error(err)
		}
		if _, f := readFrame(t, r); !bytes.Equal(f, testFrame(1)) {
			t.Errorf("% x", f)
		}
		if err := writeFrame(w, nil); err != unix.EINVAL {
			t.Errorf("Write of nothing: %v", err)
		}
		if _, err := r.Read(buf, Headroom); err != unix.EAGAIN {
			t.Errorf("Read after a frame of nothing: %v", err)
		}
		for err = nil; err == nil; {
			err = writeFrame(w, testFrame(1))
		}
		if err != unix.EAGAIN {
			t.Errorf("Write to a full socket: %v", err)
		}
		r.Close()
		if err := writeFrame(w, testFrame(1)); !errors.Is(err, ErrGone) {
			t.Errorf("Write to nobody: %v", err)
		}
	}
}

// The kernel cuts the same super-frame, which must come to the same bytes:
// written into one tap with its header, it crosses a bridge into one that was
// not asked for offload.
func TestKernelSegments(t *testing.T) {
	inside(t, func() {
		ip(t, "link add br0 type bridge mcast_snooping 0", "link set br0 up")
		for _, name := range []string{"tap0", "tap1"} {
			addTap(t, name)
			ip(t, "link set "+name+" master br0 mtu 1500")
		}
		w := open(t, Config{Name: "tap0", Write: true})
		r := open(t, Config{Name: "tap1", Offload: Off})
		nettest.Running(t, "tap0", "tap1", "br0")
		for i := range 36 {
			s := packettest.Spec{V6: i&1 != 0, UDP: i&2 != 0, Tags: i >> 2 & 1, ID: 0xfffe, Seq: 0xffffff00}
			s.Flags = 0x99 // CWR, ACK, PSH, FIN
			if !s.UDP {
				s.Options = 3
			}
			s.Payload = packettest.Bytes([]int{5000, 4200, 1400, 100, 128}[i>>3])
			gso := 1400
			if i >= 32 { // what little segments were gathered to
				gso = 1
			}
			if len(s.Payload) <= gso { // the kernel would not call that a super-frame
				gso = 0
			}
			hdr, f := s.Super(gso)
			h, err := offload.Parse(hdr)
			must(t, err)
			var seg offload.Segmenter
			must(t, seg.Start(h, f, packet.Ethernet))
			room := slices.Concat(make([]byte, Headroom-len(hdr)), hdr, f)
			must(t, w.Write(room, Headroom, len(f)))
			for want := seg.Next(); want != nil; want = seg.Next() {
				if _, got := ours(t, r, packet.Ethernet); !bytes.Equal(got, want) {
					t.Errorf("v6 %v, udp %v, %d tags, %d bytes\nours     % x\nkernel's % x", s.V6, s.UDP, s.Tags,
						len(s.Payload), want[:min(len(want), 90)], got[:min(len(got), 90)])
				}
			}
		}
	})
}

// ours is the next frame that is a test's, and not neighbour discovery of an interface.
func ours(t *testing.T, r *Device, link packet.Link) (header, f []byte) {
	t.Helper()
	for {
		header, f = readFrame(t, r)
		if l := packet.Dissect(f, link); l.Version != 0 && l.Proto != packet.ICMPv6 {
			return header, f
		}
	}
}
