package packet

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

const (
	macs = "02 00 00 00 00 02  02 00 00 00 00 01 "
	v4   = "45 00 00 24  00 01 40 00  40 11 00 00  0a 00 00 01  0a 00 00 02 "
	v6   = "60 00 00 00  00 10 11 40 " + a6 + b6
	a6   = "fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 "
	b6   = "fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02 "
	udp  = "10 00 20 00  00 10 00 00  61 62 63 64 65 66 67 68 "
	nd   = "60 00 00 00  00 08 3a ff " + a6 + b6
)

func TestDissect(t *testing.T) {
	for _, tt := range []struct {
		name string
		link Link
		f    string
		want Layers
	}{
		{"nothing", Ethernet, "", Layers{}},
		{"short", Ethernet, macs + "08", Layers{}},
		{"IPv4", Ethernet, macs + "0800" + v4 + udp, Layers{0x800, 4, UDP, false, 0, 14, 34, 50}},
		{"IPv4 padded", Ethernet, macs + "0800" + v4 + udp + "00 00 00", Layers{0x800, 4, UDP, false, 0, 14, 34, 50}},
		{"IPv4 cut", Ethernet, macs + "0800" + v4 + udp[:6], Layers{0x800, 4, UDP, false, 0, 14, 34, 36}},
		{"IPv4 alone", IP, v4 + udp, Layers{0x800, 4, UDP, false, 0, 0, 20, 36}},
		{"IPv4 of no length", IP, "45 00 00 00" + v4[12:] + udp, Layers{0x800, 4, UDP, false, 0, 0, 20, 36}},
		{"IPv4 with options", IP, "46 00 00 28 00 01 40 00 40 11 00 00 0a 00 00 01 0a 00 00 02 01 01 01 01" + udp, Layers{0x800, 4, UDP, false, 0, 0, 24, 40}},
		{"IPv4, first fragment", IP, "45 00 00 24 00 01 20 00 40 11 00 00 0a 00 00 01 0a 00 00 02" + udp, Layers{0x800, 4, UDP, true, 0, 0, 20, 36}},
		{"IPv4, later fragment", IP, "45 00 00 24 00 01 00 08 40 11 00 00 0a 00 00 01 0a 00 00 02" + udp, Layers{0x800, 4, UDP, true, 0, 0, 20, 36}},
		{"IPv4, header longer than itself", IP, "4f" + v4[2:] + udp, Layers{EtherType: 0x800}},
		{"IPv4, header too short", IP, "44" + v4[2:] + udp, Layers{EtherType: 0x800}},
		{"IPv4, length less than the header", IP, "45 00 00 13" + v4[12:] + udp, Layers{EtherType: 0x800}},
		{"IPv6 that says it is IPv4", Ethernet, macs + "0800" + v6 + udp, Layers{EtherType: 0x800, L3: 14}},
		{"version 5", IP, "55" + v4[2:], Layers{}},
		{"IPv6", Ethernet, macs + "86dd" + v6 + udp, Layers{0x86dd, 6, UDP, false, 0, 14, 54, 70}},
		{"IPv6 alone", IP, v6 + udp, Layers{0x86dd, 6, UDP, false, 0, 0, 40, 56}},
		{"IPv6 short", IP, v6[:60], Layers{EtherType: 0x86dd}},
		{"IPv6, hop-by-hop, destination, UDP", IP, "60 00 00 00 00 28 00 40" + a6 + b6 + "3c 00 01 04 00 00 00 00" + "11 01 01 04 00 00 00 00 00 00 00 00 00 00 00 00" + udp,
			Layers{0x86dd, 6, UDP, false, 0, 0, 64, 80}},
		{"IPv6, AH", IP, "60 00 00 00 00 28 33 40" + a6 + b6 + "11 04 00 00 00 00 00 01 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00" + udp,
			Layers{0x86dd, 6, UDP, false, 0, 0, 64, 80}},
		{"IPv6, first fragment", IP, "60 00 00 00 00 18 2c 40" + a6 + b6 + "11 00 00 01 00 00 00 01" + udp, Layers{0x86dd, 6, UDP, true, 0, 0, 48, 64}},
		{"IPv6, atomic fragment", IP, "60 00 00 00 00 18 2c 40" + a6 + b6 + "11 00 00 00 00 00 00 01" + udp, Layers{0x86dd, 6, UDP, false, 0, 0, 48, 64}},
		{"IPv6, fragment, and in it an atomic one", IP, "60 00 00 00 00 20 2c 40" + a6 + b6 + "2c 00 00 01 00 00 00 01" + "11 00 00 00 00 00 00 01" + udp, Layers{0x86dd, 6, UDP, true, 0, 0, 56, 72}},
		{"IPv6, extension that ends outside", IP, "60 00 00 00 00 10 00 40" + a6 + b6 + "11 09 01 04 00 00 00 00 00 00 00 00 00 00 00 00", Layers{0x86dd, 6, 0, false, 0, 0, 40, 56}},
		{"VLAN", Ethernet, macs + "8100 0064 0800" + v4 + udp, Layers{0x800, 4, UDP, false, 0, 18, 38, 54}},
		{"QinQ", Ethernet, macs + "88a8 0001 8100 0064 86dd" + v6 + udp, Layers{0x86dd, 6, UDP, false, 0, 22, 62, 78}},
		{"VLAN cut", Ethernet, macs + "8100 00", Layers{EtherType: 0x8100, L3: 14}},
		{"nine VLAN tags", Ethernet, macs + strings.Repeat("8100 0064 ", 9) + "0800" + v4 + udp, Layers{EtherType: 0x8100, L3: 46}},
		{"PPPoE", Ethernet, macs + "8864 11 00 0001 0026 0021" + v4 + udp, Layers{0x800, 4, UDP, false, 14, 22, 42, 58}},
		{"PPPoE of version 2", Ethernet, macs + "8864 21 00 0001 0026 0021" + v4 + udp, Layers{EtherType: 0x8864, L3: 14}},
		{"PPPoE that ends the session", Ethernet, macs + "8864 11 a7 0001 0026 0021" + v4 + udp, Layers{EtherType: 0x8864, L3: 14}},
		{"PPPoE cut", Ethernet, macs + "8864 11 00 0001 0026 00", Layers{EtherType: 0x8864, L3: 14}},
		{"LCP", Ethernet, macs + "8864 11 00 0001 000a c021 09 01 0008", Layers{EtherType: 0x8864, PPPoE: 14, L3: 22}},
		{"PPPoE in PPPoE", Ethernet, macs + "8864 11 00 0001 0026 8864 11 00 0001 0026 0021" + v4, Layers{EtherType: 0x8864, PPPoE: 14, L3: 22}},
		{"PPPoE with IPv6 that says it is IPv4", Ethernet, macs + "8864 11 00 0001 0026 0021" + v6 + udp, Layers{EtherType: 0x800, PPPoE: 14, L3: 22}},
		{"MPLS, eight labels", Ethernet, macs + "8847" + strings.Repeat("00064 0 40", 7) + "00064 1 40" + v4 + udp, Layers{0x800, 4, UDP, false, 0, 46, 66, 82}},
		{"MPLS, nine labels", Ethernet, macs + "8847" + strings.Repeat("00064 0 40", 8) + "00064 1 40" + v4 + udp, Layers{EtherType: 0x8847, L3: 46}},
		{"MPLS without an end", Ethernet, macs + "8847 00064 0 40 00064 0", Layers{EtherType: 0x8847, L3: 18}},
		{"MPLS with nothing in it", Ethernet, macs + "8847 00064 1 40", Layers{EtherType: 0x8847, L3: 18}},
		{"MPLS, a pseudowire", Ethernet, macs + "8847 00064 1 40 0000 0000" + macs + "0800" + v4 + udp, Layers{EtherType: 0x8847, L3: 18}},
		{"LLC", Ethernet, macs + "0026 42 42 03", Layers{EtherType: 0x26, L3: 14}},
	} {
		f := unhex(tt.f)
		if got := Dissect(f, tt.link); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// encapsulations are headers in front of an IPv4 packet or an IPv6 packet, with the place
// of their PPPoE header.
var encapsulations = []struct {
	name   string
	v4, v6 string
	pppoe  int
}{
	{"Ethernet", "0800", "86dd", 0},
	{"VLAN", "8100 0064 0800", "8100 0064 86dd", 0},
	{"QinQ", "88a8 0001 8100 0064 0800", "88a8 0001 8100 0064 86dd", 0},
	{"three tags", "88a8 0001 8100 0064 8100 0065 0800", "88a8 0001 8100 0064 8100 0065 86dd", 0},
	{"PPPoE", "8864 11 00 0001 0026 0021", "8864 11 00 0001 003a 0057", 14},
	{"PPPoE, compressed", "8864 11 00 0001 0025 21", "8864 11 00 0001 0039 57", 14},
	{"PPPoE in QinQ", "88a8 0001 8100 0064 8864 11 00 0001 0026 0021", "88a8 0001 8100 0064 8864 11 00 0001 003a 0057", 22},
	{"MPLS", "8847 00064 1 40", "8847 00002 1 40", 0},
	{"MPLS, multicast", "8848 00064 1 40", "8848 00064 1 40", 0},
	{"MPLS, three labels", "8847 00064 0 40 00007 0 40 00008 1 00", "8847 00064 0 40 00007 0 40 00008 1 00", 0},
	{"MPLS in a VLAN", "8100 0064 8847 00064 1 40", "8100 0064 8847 00064 1 40", 0},
	{"MPLS in PPPoE", "8864 11 00 0001 002a 0281 00064 1 40", "8864 11 00 0001 003e 0281 00064 1 40", 14},
	{"MPLS in PPPoE, multicast", "8864 11 00 0001 002a 0283 00064 1 40", "8864 11 00 0001 003e 0283 00064 1 40", 14},
}

// The packet, its flow and its addresses are the same in each encapsulation. A frame that
// is cut in front of its packet's end has no packet, or less of one.
func TestEncapsulations(t *testing.T) {
	for _, e := range encapsulations {
		for version, x := range map[uint8][2]string{4: {e.v4, v4 + udp}, 6: {e.v6, v6 + udp}} {
			f, p := unhex(macs+x[0]+x[1]), unhex(x[1])
			head := len(f) - len(p)
			want := Dissect(p, IP)
			want.PPPoE, want.L3, want.L4, want.End = e.pppoe, head, want.L4+head, want.End+head
			l := Dissect(f, Ethernet)
			if l != want {
				t.Errorf("%s: %+v, want %+v", e.name, l, want)
				continue
			}
			bare := Dissect(p, IP)
			src, dst, ok := l.Addrs(f)
			wantSrc, wantDst, _ := bare.Addrs(p)
			if l.Flow(f, 7) != bare.Flow(p, 7) || !ok || src != wantSrc || dst != wantDst || l.Control(f) != NoControl {
				t.Errorf("%s, IPv%d: flow %x, from %v to %v, control %v", e.name, version, l.Flow(f, 7), src, dst, l.Control(f))
			}
			marked := slices.Clone(f)
			marked[head+1] |= 0x22 // ECT, in either version
			check(t, marked, Ethernet)
			for n := range f {
				check(t, slices.Clone(f[:n]), Ethernet)
				if l := Dissect(f[:n], Ethernet); l.Version != 0 && (n < l.L4 || l.End != n || l.L3 != head) {
					t.Errorf("%s, IPv%d, cut at %d: %+v", e.name, version, n, l)
				}
			}
		}
	}
}

func TestFlow(t *testing.T) {
	flow := func(s string, link Link) uint64 {
		f := unhex(s)
		l := Dissect(f, link)
		return l.Flow(f, 7)
	}
	base := flow(macs+"0800"+v4+udp, Ethernet)
	same := map[string]string{
		"another payload": macs + "0800" + v4 + strings.Replace(udp, "61", "7a", 1),
		"another id":      macs + "0800" + strings.Replace(v4, "00 01", "77 77", 1) + udp,
		"in a VLAN":       macs + "8100 0064 0800" + v4 + udp,
	}
	for name, f := range same {
		if flow(f, Ethernet) != base {
			t.Errorf("%s: another flow", name)
		}
	}
	others := map[string]string{
		"another source":       macs + "0800" + strings.Replace(v4, "0a 00 00 01", "0a 00 00 03", 1) + udp,
		"another destination":  macs + "0800" + strings.Replace(v4, "0a 00 00 02", "0a 00 00 03", 1) + udp,
		"the way back":         macs + "0800" + strings.Replace(v4, "0a 00 00 01  0a 00 00 02", "0a 00 00 02  0a 00 00 01", 1) + udp,
		"another port":         macs + "0800" + v4 + strings.Replace(udp, "10 00", "10 01", 1),
		"another protocol":     macs + "0800" + strings.Replace(v4, "40 11", "40 06", 1) + udp,
		"a fragment":           macs + "0800" + strings.Replace(v4, "40 00", "20 00", 1) + udp,
		"ARP":                  macs + "0806 0001",
		"nothing":              "",
		"IPv6":                 macs + "86dd" + v6 + udp,
		"IPv6, other port":     macs + "86dd" + v6 + strings.Replace(udp, "10 00", "10 01", 1),
		"ESP":                  macs + "0800" + strings.Replace(v4, "40 11", "40 32", 1) + udp,
		"ESP with another SPI": macs + "0800" + strings.Replace(v4, "40 11", "40 32", 1) + strings.Replace(udp, "10 00", "10 01", 1),
		"an echo":              macs + "0800" + strings.Replace(v4, "40 11", "40 01", 1) + "08 00 00 00 00 01 00 01",
		"another echo":         macs + "0800" + strings.Replace(v4, "40 11", "40 01", 1) + "08 00 00 00 00 02 00 01",
	}
	seen := map[uint64]string{base: "the first"}
	for name, f := range others {
		h := flow(f, Ethernet)
		if other, ok := seen[h]; ok {
			t.Errorf("%s: the same flow as %s", name, other)
		}
		seen[h] = name
	}
	b := unhex(macs + "0800" + v4 + udp)
	if l := Dissect(b, Ethernet); l.Flow(b, 8) == base {
		t.Error("the seed makes no difference")
	}
	// The hash must spread well over the few bits that a queue takes of it.
	counts := make([]int, 64)
	f := unhex(v4 + udp)
	for port := range 6400 {
		binary.BigEndian.PutUint16(f[20:], uint16(port))
		l := Dissect(f, IP)
		counts[l.Flow(f, 1)%64]++
	}
	if most := slices.Max(counts); most > 160 {
		t.Errorf("of 6400 flows %d fell in one of 64 places", most)
	}
}

func TestAddrs(t *testing.T) {
	for s, want := range map[string][2]string{v4 + udp: {"10.0.0.1", "10.0.0.2"}, v6 + udp: {"fd00::1", "fd00::2"}} {
		f := unhex(s)
		l := Dissect(f, IP)
		src, dst, ok := l.Addrs(f)
		if !ok || src != netip.MustParseAddr(want[0]) || dst != netip.MustParseAddr(want[1]) {
			t.Errorf("%v %v %v, want %v", src, dst, ok, want)
		}
	}
	var l Layers
	if _, _, ok := l.Addrs(nil); ok {
		t.Error("addresses of nothing")
	}
}

// headerSum is the plain sum of RFC 791, which is 0 of a good header.
func headerSum(h []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(h); i += 2 {
		sum += uint32(h[i])<<8 | uint32(h[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func TestSetCE(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		f := unhex(v4 + udp)
		f[1], f[4], f[5] = byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())
		binary.BigEndian.PutUint16(f[10:], headerSum(f[:20]))
		l := Dissect(f, IP)
		if l.ECT(f) != (f[1]&3 != 0) {
			t.Fatalf("tos %02x: ECT %v", f[1], l.ECT(f))
		}
		dscp := f[1] &^ 3
		l.SetCE(f)
		if f[1] != dscp|3 || headerSum(f[:20]) != 0 {
			t.Fatalf("tos %02x, sum %04x: % x", f[1], headerSum(f[:20]), f[:20])
		}
	}
	f := unhex(v6 + udp)
	l := Dissect(f, IP)
	if l.ECT(f) {
		t.Error("ECT of traffic class 0")
	}
	f[1] = 0x2f // ECT(0), and some of the flow label
	if !l.ECT(f) {
		t.Error("ECT(0) not seen")
	}
	l.SetCE(f)
	if f[0] != 0x60 || f[1] != 0x3f {
		t.Errorf("% x", f[:4])
	}
}

// plain finds the layers once more, header by header and with bounds looked at for each
// byte: ok is false behind the end of the frame.
type plain struct {
	f   []byte
	end int
}

func (p plain) number(at, size int) (n int, ok bool) {
	for i := at; i < at+size; i++ {
		if i >= p.end {
			return 0, false
		}
		n = n<<8 | int(p.f[i])
	}
	return n, true
}

func (p plain) dissect(link Link) (l Layers) {
	p.end = len(p.f)
	if link == IP {
		first, _ := p.number(0, 1)
		l.EtherType = map[int]uint16{4: 0x0800, 6: 0x86dd}[first>>4]
	} else {
		kind, ok := p.number(12, 2)
		if !ok {
			return l
		}
		for l.L3 = 14; l.L3 < 14+8*4; l.L3 += 4 {
			next, ok := p.number(l.L3+2, 2)
			if !ok || kind != 0x8100 && kind != 0x88a8 && kind != 0x9100 && kind != 0x9200 {
				break
			}
			kind = next
		}
		l.EtherType = uint16(kind)
		session, ok := p.number(l.L3, 2)
		proto, whole := p.number(l.L3+6, 2)
		if kind == 0x8864 && ok && whole && session == 0x1100 {
			l.PPPoE, l.L3 = l.L3, l.L3+8
			if proto>>8&1 == 1 {
				proto >>= 8
				l.L3--
			}
			if kind = proto; kind == 0x21 || kind == 0x57 {
				l.EtherType = map[int]uint16{0x21: 0x0800, 0x57: 0x86dd}[kind]
			}
		}
		if l.PPPoE == 0 && (kind == 0x8847 || kind == 0x8848) || l.PPPoE > 0 && (kind == 0x281 || kind == 0x283) {
			label := 0
			for n := 0; n < 8 && ok && label>>8&1 == 0; n++ {
				if label, ok = p.number(l.L3, 4); ok {
					l.L3 += 4
				}
			}
			first, _ := p.number(l.L3, 1)
			if t := map[int]uint16{4: 0x0800, 6: 0x86dd}[first>>4]; label>>8&1 == 1 && t != 0 {
				l.EtherType = t
			}
		}
	}
	at := l.L3
	first, _ := p.number(at, 1)
	switch {
	case l.EtherType == 0x0800 && first>>4 == 4:
		head := first & 15 * 4
		total, ok1 := p.number(at+2, 2)
		fragment, _ := p.number(at+6, 2)
		proto, _ := p.number(at+9, 1)
		_, ok2 := p.number(at, max(head, 20))
		if total == 0 {
			total = len(p.f) - at
		}
		if !ok1 || !ok2 || head < 20 || total < head {
			return l
		}
		l.Version, l.Proto, l.Fragment = 4, uint8(proto), fragment%0x4000 != 0
		l.L4, l.End = at+head, min(at+total, len(p.f))
	case l.EtherType == 0x86dd && first>>4 == 6:
		total, _ := p.number(at+4, 2)
		next, _ := p.number(at+6, 1)
		if _, ok := p.number(at, 40); !ok {
			return l
		}
		if total > 0 {
			p.end = min(at+40+total, len(p.f))
		}
		l.Version, l.L4, l.End = 6, at+40, p.end
		for range 8 {
			after, _ := p.number(l.L4, 1)
			size, ok := p.number(l.L4+1, 1)
			switch next {
			case 0, 43, 60, 135, 139, 140:
				size = size*8 + 8
			case 51:
				size = size*4 + 8
			case 44:
				size = 8
			default:
				ok = false
			}
			if _, whole := p.number(l.L4, max(size, 8)); !ok || !whole {
				break
			}
			if next == 44 {
				rest, _ := p.number(l.L4+2, 2)
				l.Fragment = l.Fragment || rest&0xfff9 != 0
			}
			next = after
			l.L4 += size
		}
		l.Proto = uint8(next)
	}
	return l
}

// check holds what was found in a frame against plain, and what is made of it against
// what must not matter: bytes behind the transport's header.
func check(t *testing.T, f []byte, link Link) {
	l := Dissect(f, link)
	if want := (plain{f: f}).dissect(link); l != want {
		t.Fatalf("%+v, want %+v, of %d bytes % x", l, want, len(f), f[:min(len(f), 80)])
	}
	if l.L3 > len(f) || l.Version != 0 && (l.L4 < l.L3+20 || l.L4 > l.End || l.End > len(f)) {
		t.Fatalf("%+v of %d bytes % x", l, len(f), f[:min(len(f), 80)])
	}
	flow, control := l.Flow(f, 1), l.Control(f)
	src, dst, ok := l.Addrs(f)
	if ok != (l.Version != 0) || ok && (src.Is4() != (l.Version == 4) || dst.Is4() != src.Is4()) {
		t.Fatalf("%v, %v, %v: %+v", src, dst, ok, l)
	}
	if control != NoControl && l.Version == 4 {
		t.Fatalf("control of kind %d: % x", control, f)
	}
	if l.Version == 0 {
		return
	}
	other := slices.Clone(f)
	for i := min(l.L4+6, len(f)); i < len(f); i++ {
		other[i]++
	}
	if m := Dissect(other, link); m != l || m.Flow(other, 1) != flow {
		t.Fatalf("another payload, and another flow: %+v, was %+v", m, l)
	}
	if !l.ECT(f) {
		return
	}
	was := slices.Clone(f)
	l.SetCE(f)
	if l.Version == 6 {
		was[l.L3+1] |= 0x30
	} else {
		if headerSum(was[l.L3:l.L4])%0xffff != headerSum(f[l.L3:l.L4])%0xffff {
			t.Fatalf("marked, and with another sum: % x, was % x", f, was)
		}
		was[l.L3+1] |= 3
		copy(was[l.L3+10:], f[l.L3+10:l.L3+12])
	}
	if m := Dissect(f, link); !slices.Equal(f, was) || m != l || m.Flow(f, 1) != flow {
		t.Fatalf("marked to % x", f)
	}
}

// FuzzDissect: whatever the frame, its layers are those that a plain reading finds, and a
// mark changes nothing else.
func FuzzDissect(f *testing.F) {
	for _, s := range []string{
		arpRequest, icmp6("ff", linkA, groupOfB, "8700 0000 00000000"+globalB+sllAddress), mld("01", linkA, routers, "8400 0000 0000 0000"+groupOfB),
		v4 + udp, v6 + udp, nd + "87 00", macs + "8100 0064 0800" + v4 + udp, macs + "0026 aa aa 03 00 00 00 08 06",
		macs + strings.Repeat("8100 0064 88a8 0001 ", 5) + "0800" + v4 + udp,
		macs + "0800 46 03 00 28 00 01 20 00 40 11 ff ff 0a 00 00 01 0a 00 00 02 01 01 01 01" + udp,
		macs + "86dd 60 20 00 00 00 78 00 40" + a6 + b6 + strings.Repeat("00 00 01 04 00 00 00 00 2b 00 01 04 00 00 00 00 2c 00 01 04 00 00 00 00 33 00 00 00 00 00 00 01 3c 01 00 00 00 00 00 01", 3) + udp,
	} {
		f.Add(unhex(s))
	}
	for _, e := range encapsulations {
		f.Add(unhex(macs + e.v4 + v4 + udp))
		f.Add(unhex(macs + e.v6 + v6 + udp))
	}
	files, _ := filepath.Glob("../../../shared/pcap/*.pcap")
	for _, b := range captured(f, files) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, link := range []Link{Ethernet, IP} {
			check(t, slices.Clone(b), link)
		}
	})
}

func captured(t testing.TB, files []string) (all [][]byte) {
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var order binary.ByteOrder = binary.LittleEndian
		if b[0] == 0xa1 {
			order = binary.BigEndian
		}
		if order.Uint32(b[20:])&0xffff != 1 { // Ethernet
			continue
		}
		for b = b[24:]; len(b) >= 16; {
			size := int(order.Uint32(b[8:]))
			all = append(all, slices.Clone(b[16:16+size]))
			b = b[16+size:]
		}
	}
	return all
}

func BenchmarkDissect(b *testing.B) {
	f := unhex(macs + "0800" + v4 + udp)
	for b.Loop() {
		l := Dissect(f, Ethernet)
		sink = l.Flow(f, 1)
	}
}

var sink uint64
