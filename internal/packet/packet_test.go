package packet

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"framepipe/internal/packettest"
)

func unspaced(s string) string { return strings.ReplaceAll(s, " ", "") }

func unhex(s string) []byte {
	b, err := hex.DecodeString(unspaced(s))
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
		{"nothing in Ethernet", Ethernet, macs + "0800", Layers{EtherType: 0x800, L3: 14}},
		{"nothing in PPPoE", Ethernet, macs + "8864 11 00 0001 0002 c021", Layers{EtherType: 0x8864, PPPoE: 14, L3: 22}},
		{"nothing in MPLS", Ethernet, macs + "8847 00064 1 40", Layers{EtherType: 0x8847, L3: 18}},
		{"nothing in IPv4", IP, "45 00 00 14" + v4[12:], Layers{0x800, 4, UDP, false, 0, 0, 20, 20}},
		{"nothing in IPv6", IP, "60 00 00 00 00 00 3b 40" + a6 + b6, Layers{0x86dd, 6, 59, false, 0, 0, 40, 40}},
		{"nothing in IPv6, hop-by-hop", IP, "60 00 00 00 00 08 00 40" + a6 + b6 + "3b 00 01 04 00000000",
			Layers{0x86dd, 6, 59, false, 0, 0, 48, 48}},
		{"nothing in IPv6, AH", IP, "60 00 00 00 00 08 33 40" + a6 + b6 + "3b 00 00 00 00000000",
			Layers{0x86dd, 6, 59, false, 0, 0, 48, 48}},
		{"nothing in IPv6, fragment", IP, "60 00 00 00 00 08 2c 40" + a6 + b6 + "3b 00 00 01 00000000",
			Layers{0x86dd, 6, 59, true, 0, 0, 48, 48}},
		{"IPv4 padded", Ethernet, macs + "0800" + v4 + udp + "00 00 00", Layers{0x800, 4, UDP, false, 0, 14, 34, 50}},
		{"IPv4 cut", Ethernet, macs + "0800" + v4 + udp[:6], Layers{0x800, 4, UDP, false, 0, 14, 34, 36}},
		{"IPv4 of no length", IP, "45 00 00 00" + v4[12:] + udp, Layers{0x800, 4, UDP, false, 0, 0, 20, 36}},
		{"IPv4 with options", IP, "46 00 00 28 00 01 40 00 40 11 00 00 0a 00 00 01 0a 00 00 02 01 01 01 01" + udp, Layers{0x800, 4, UDP, false, 0, 0, 24, 40}},
		{"IPv4, first fragment", IP, "45 00 00 24 00 01 20 00 40 11 00 00 0a 00 00 01 0a 00 00 02" + udp, Layers{0x800, 4, UDP, true, 0, 0, 20, 36}},
		{"IPv4, later fragment", IP, "45 00 00 24 00 01 00 08 40 11 00 00 0a 00 00 01 0a 00 00 02" + udp, Layers{0x800, 4, UDP, true, 0, 0, 20, 36}},
		{"IPv4, header longer than itself", IP, "4f" + v4[2:] + udp, Layers{EtherType: 0x800}},
		{"IPv4, header too short", IP, "44" + v4[2:] + udp, Layers{EtherType: 0x800}},
		{"IPv4, length less than the header", IP, "45 00 00 13" + v4[12:] + udp, Layers{EtherType: 0x800}},
		{"IPv6 that says it is IPv4", Ethernet, macs + "0800" + v6 + udp, Layers{EtherType: 0x800, L3: 14}},
		{"version 5", IP, "55" + v4[2:], Layers{}},
		{"IPv6 short", IP, v6[:60], Layers{EtherType: 0x86dd}},
		{"IPv6, hop-by-hop, destination, UDP", IP, "60 00 00 00 00 28 00 40" + a6 + b6 + "3c 00 01 04 00 00 00 00" + "11 01 01 04 00 00 00 00 00 00 00 00 00 00 00 00" + udp,
			Layers{0x86dd, 6, UDP, false, 0, 0, 64, 80}},
		{"IPv6, AH", IP, "60 00 00 00 00 28 33 40" + a6 + b6 + "11 04 00 00 00 00 00 01 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00" + udp,
			Layers{0x86dd, 6, UDP, false, 0, 0, 64, 80}},
		{"IPv6, first fragment", IP, "60 00 00 00 00 18 2c 40" + a6 + b6 + "11 00 00 01 00 00 00 01" + udp, Layers{0x86dd, 6, UDP, true, 0, 0, 48, 64}},
		{"IPv6, atomic fragment", IP, "60 00 00 00 00 18 2c 40" + a6 + b6 + "11 00 00 00 00 00 00 01" + udp, Layers{0x86dd, 6, UDP, false, 0, 0, 48, 64}},
		{"IPv6, fragment, and in it an atomic one", IP, "60 00 00 00 00 20 2c 40" + a6 + b6 + "2c 00 00 01 00 00 00 01" + "11 00 00 00 00 00 00 01" + udp, Layers{0x86dd, 6, UDP, true, 0, 0, 56, 72}},
		{"IPv6, extension that ends outside", IP, "60 00 00 00 00 10 00 40" + a6 + b6 + "11 09 01 04 00 00 00 00 00 00 00 00 00 00 00 00", Layers{0x86dd, 6, 0, false, 0, 0, 40, 56}},
		{"IPv6, nine extensions", IP, "60 00 00 00 00 58 2b 40" + a6 + b6 +
			"8700 01 04 00000000 8b00 01 04 00000000 8c00 01 04 00000000 3c00 01 04 00000000 2b00 01 04 00000000" +
			"8700 01 04 00000000 8b00 01 04 00000000 8c00 01 04 00000000 1100 01 04 00000000" + udp,
			Layers{0x86dd, 6, 140, false, 0, 0, 104, 128}},
		{"IPv6, fragment cut", IP, "60 00 00 00 00 10 2c 40" + a6 + b6 + "11 00 00 01 00 00 00", Layers{0x86dd, 6, 44, false, 0, 0, 40, 47}},
		{"IPv6 padded", IP, v6 + udp + "00 00 00", Layers{0x86dd, 6, UDP, false, 0, 0, 40, 56}},
		{"IPv6 of no length", IP, "60 00 00 00 00 00 11 40" + a6 + b6 + udp, Layers{0x86dd, 6, UDP, false, 0, 0, 40, 56}},
		{"older VLAN tags", Ethernet, macs + "9100 0001 9200 0064 0800" + v4 + udp, Layers{0x800, 4, UDP, false, 0, 22, 42, 58}},
		{"VLAN cut", Ethernet, macs + "8100 00", Layers{EtherType: 0x8100, L3: 14}},
		{"nine VLAN tags", Ethernet, macs + strings.Repeat("8100 0064 ", 9) + "0800" + v4 + udp, Layers{EtherType: 0x8100, L3: 46}},
		{"PPPoE of version 2", Ethernet, macs + "8864 21 00 0001 0026 0021" + v4 + udp, Layers{EtherType: 0x8864, L3: 14}},
		{"PPPoE that ends the session", Ethernet, macs + "8864 11 a7 0001 0026 0021" + v4 + udp, Layers{EtherType: 0x8864, L3: 14}},
		{"PPPoE cut", Ethernet, macs + "8864 11 00 0001 0026 00", Layers{EtherType: 0x8864, L3: 14}},
		{"LCP", Ethernet, macs + "8864 11 00 0001 000a c021 09 01 0008", Layers{EtherType: 0x8864, PPPoE: 14, L3: 22}},
		{"PPPoE in PPPoE", Ethernet, macs + "8864 11 00 0001 0026 8864 11 00 0001 0026 0021" + v4, Layers{EtherType: 0x8864, PPPoE: 14, L3: 22}},
		{"PPPoE with IPv6 that says it is IPv4", Ethernet, macs + "8864 11 00 0001 0026 0021" + v6 + udp, Layers{EtherType: 0x800, PPPoE: 14, L3: 22}},
		{"MPLS, eight labels", Ethernet, macs + "8847" + strings.Repeat("00064 0 40", 7) + "00064 1 40" + v4 + udp, Layers{0x800, 4, UDP, false, 0, 46, 66, 82}},
		{"MPLS, nine labels", Ethernet, macs + "8847" + strings.Repeat("00064 0 40", 8) + "00064 1 40" + v4 + udp, Layers{EtherType: 0x8847, L3: 46}},
		{"MPLS without an end", Ethernet, macs + "8847 00064 0 40 00064 0", Layers{EtherType: 0x8847, L3: 18}},
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
		for _, x := range []struct{ head, packet, src, dst string }{
			{e.v4, v4 + udp, "10.0.0.1", "10.0.0.2"}, {e.v6, v6 + udp, "fd00::1", "fd00::2"},
		} {
			f, p := unhex(macs+x.head+x.packet), unhex(x.packet)
			head := len(f) - len(p)
			bare, l := Dissect(p, IP), Dissect(f, Ethernet)
			want := bare
			want.PPPoE, want.L3, want.L4, want.End = e.pppoe, head, want.L4+head, want.End+head
			if l != want {
				t.Errorf("%s: %+v, want %+v", e.name, l, want)
				continue
			}
			src, dst, _ := l.Addrs(f)
			if l.Flow(f, 7) != bare.Flow(p, 7) || src.String() != x.src || dst.String() != x.dst {
				t.Errorf("%s: flow %x, from %v to %v", e.name, l.Flow(f, 7), src, dst)
			}
			f[head+1] |= 0x22 // ECT, in either version
			for n := range len(f) + 1 {
				l := check(t, slices.Clone(f[:n]), Ethernet)
				if l.Version != 0 && (n < l.L4 || l.End != n || l.L3 != head) {
					t.Errorf("%s, cut at %d: %+v", e.name, n, l)
				}
			}
		}
	}
}

func TestFlow(t *testing.T) {
	flow := func(s string, seed uint64) uint64 {
		f := unhex(s)
		l := Dissect(f, Ethernet)
		return l.Flow(f, seed)
	}
	// ip4 is a UDP packet with one part replaced by another.
	ip4 := func(part, other string) string { return macs + "0800" + strings.Replace(v4+udp, part, other, 1) }
	base := flow(ip4("", ""), 7)
	for name, f := range map[string]string{"payload": ip4("61", "7a"), "identification": ip4("00 01", "77 77")} {
		if flow(f, 7) != base {
			t.Errorf("another %s: another flow", name)
		}
	}
	seen := map[uint64]string{base: "the first", flow(ip4("", ""), 8): "another seed"}
	for name, f := range map[string]string{
		"another source":       ip4("0a 00 00 01", "0a 00 00 03"),
		"another destination":  ip4("0a 00 00 02", "0a 00 00 03"),
		"the way back":         ip4("0a 00 00 01  0a 00 00 02", "0a 00 00 02  0a 00 00 01"),
		"another port":         ip4("10 00", "10 01"),
		"another protocol":     ip4("40 11", "40 06"),
		"a fragment":           ip4("40 00", "20 00"),
		"ARP":                  macs + "0806 0001",
		"nothing":              "",
		"IPv6":                 macs + "86dd" + v6 + udp,
		"IPv6, other port":     macs + "86dd" + v6 + strings.Replace(udp, "10 00", "10 01", 1),
		"ESP":                  strings.Replace(ip4("", ""), "40 11", "40 32", 1),
		"ESP with another SPI": strings.Replace(ip4("10 00", "10 01"), "40 11", "40 32", 1),
		"an echo":              strings.Replace(ip4(udp, "08 00 00 00 00 01 00 01"), "40 11", "40 01", 1),
		"another echo":         strings.Replace(ip4(udp, "08 00 00 00 00 02 00 01"), "40 11", "40 01", 1),
	} {
		h := flow(f, 7)
		if other, ok := seen[h]; ok {
			t.Errorf("%s: the same flow as %s", name, other)
		}
		seen[h] = name
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

// A mark leaves the checksum right, which check compares.
func TestSetCE(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		f := unhex(v4 + udp)
		f[1], f[4], f[5] = byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())
		binary.BigEndian.PutUint16(f[10:], ^packettest.Sum(f[:20]))
		if l := Dissect(f, IP); l.ECT(f) != (f[1]&3 != 0) {
			t.Fatalf("tos %02x: ECT %v", f[1], l.ECT(f))
		}
		check(t, f, IP)
	}
	f := unhex(v6 + udp)
	if l := Dissect(f, IP); l.ECT(f) {
		t.Error("ECT of traffic class 0")
	}
}

// check dissects a frame, and checks that the bytes behind the headers and a mark do not change the
// result.
func check(t *testing.T, f []byte, link Link) Layers {
	l := Dissect(f, link)
	if l.L3 > len(f) || l.Version != 0 && (l.L4 < l.L3+20 || l.L4 > l.End || l.End > len(f)) {
		t.Fatalf("%+v of %d bytes % x", l, len(f), f)
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
		return l
	}
	other := slices.Clone(f)
	for i := min(l.L4+6, len(f)); i < len(f); i++ {
		other[i]++
	}
	if m := Dissect(other, link); m != l || m.Flow(other, 1) != flow {
		t.Fatalf("another payload, and another flow: %+v, was %+v", m, l)
	}
	if !l.ECT(f) {
		return l
	}
	want := slices.Clone(f)
	l.SetCE(f)
	if l.Version == 6 {
		want[l.L3+1] |= 0x30
	} else {
		if packettest.Sum(want[l.L3:l.L4])%0xffff != packettest.Sum(f[l.L3:l.L4])%0xffff {
			t.Fatalf("marked, and with another sum: % x, was % x", f, want)
		}
		want[l.L3+1] |= 3
		copy(want[l.L3+10:], f[l.L3+10:l.L3+12])
	}
	if m := Dissect(f, link); !slices.Equal(f, want) || m != l || m.Flow(f, 1) != flow {
		t.Fatalf("marked to % x", f)
	}
	return l
}

// FuzzDissect: the layers of any frame lie inside it, and neither its payload nor a mark changes
// them.
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
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, link := range []Link{Ethernet, IP} {
			check(t, slices.Clone(b), link)
		}
	})
}

func BenchmarkDissect(b *testing.B) {
	f := unhex(macs + "0800" + v4 + udp)
	for b.Loop() {
		l := Dissect(f, Ethernet)
		sink = l.Flow(f, 1)
	}
}

var sink uint64
