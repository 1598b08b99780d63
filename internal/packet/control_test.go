package packet

import (
	"fmt"
	"strings"
	"testing"
)

// station, everyone, and the addresses of IPv6 packets in these tests.
const (
	station  = "020000000002"
	everyone = "ffffffffffff"
	from     = "020000000001"
	linkA    = "fe80000000000000 0000000000000001"
	linkB    = "fe80000000000000 0000000000000002"
	globalA  = "20010db800000001 0000000000000001"
	globalB  = "20010db800000001 0000000000000002"
	afar     = "20010db800000002 0000000000000002"
	nodes    = "ff02000000000000 0000000000000001"
	routers  = "ff02000000000000 0000000000000002"
	reports  = "ff02000000000000 0000000000000016"
	groupOfB = "ff02000000000000 00000001ff000002"
	noOne    = "0000000000000000 0000000000000000"

	globalGroup = "ff0e000000000000 0000000000000016"
)

// icmp6 is an Ethernet frame with a packet of ICMPv6.
func icmp6(hops, src, dst, message string) string { return ip6("3a"+hops, src, dst, message) }

// mld is the same with a router alert.
func mld(hops, src, dst, message string) string {
	return ip6("00"+hops, src, dst, "3a00 0502 0000 0100"+message)
}

func ip6(nextHops, src, dst, rest string) string {
	return fmt.Sprintf("333300000001%s86dd 60000000 %04x %s", from, len(unhex(rest)), nextHops) + src + dst + rest
}

const (
	arpRequest = everyone + from + "0806 0001 0800 06 04 0001 " + from + "0a000001 000000000000 0a000002"
	sllAddress = "0101" + from
	tllAddress = "0201" + from
)

func TestControl(t *testing.T) {
	zeros := func(n int) string { return strings.Repeat("00", n) }
	solicit := "8700 0000 00000000" + globalB + sllAddress
	lacp := "0180c2000002" + from + "8809 01 01 01 14" + zeros(106)
	for _, tt := range []struct {
		name string
		kind Control
		f    string
		// broken are replacements of one part of the frame, after which it is not control.
		broken [][2]string
	}{
		{"ARP request", ARP, arpRequest, nil},
		{"ARP in a VLAN", ARP, strings.Replace(arpRequest, "0806", "8100 0064 0806", 1), nil},
		{"RARP", ARP, strings.NewReplacer("0806", "8035", "04 0001", "04 0003").Replace(arpRequest), nil},

		{"router solicitation", Router, icmp6("ff", linkA, routers, "8500 0000 00000000"+sllAddress), [][2]string{
			{"3aff", "3afe"}, {"8500", "8501"}, {"8500", "8a00"},
		}},
		{"router solicitation without an address", Router, icmp6("ff", noOne, routers, "8500 0000 00000000"), nil},
		{"router advertisement", Router, icmp6("ff", linkA, nodes, "8600 0000 40000708 00000000 00000000"+sllAddress), nil},
		{"redirect", Router, icmp6("ff", linkA, globalA, "8900 0000 00000000"+linkB+afar+tllAddress), [][2]string{{linkA, afar}, {linkA, noOne}}},

		{"solicitation to a group", Neighbour, icmp6("ff", globalA, groupOfB, solicit), nil},
		{"solicitation by a node without an address", Neighbour, icmp6("ff", noOne, groupOfB, solicit), nil},
		{"solicitation to a neighbour", Neighbour, icmp6("ff", globalA, globalB, solicit), [][2]string{
			{globalA, noOne}, {globalA, afar}, {globalA, nodes}, {globalA + globalB, globalA + afar}, {globalA + globalB, globalGroup + globalGroup},
		}},
		{"solicitation to a link-local address", Neighbour, icmp6("ff", globalA, linkB, solicit), nil},
		{"solicitation in a PPPoE session", Neighbour, station + from + "8864 1100 0001 0042 0057" + icmp6("ff", linkA, groupOfB, solicit)[29:], nil},
		{"advertisement from a link-local address", Neighbour, icmp6("ff", linkA, globalB, "8800 0000 60000000"+globalA+tllAddress), nil},

		{"listener report", Listener, mld("01", linkA, reports, "8f00 0000 0000 0001"+"04000000"+groupOfB), nil},
		{"query", Listener, mld("01", linkA, nodes, "8200 0000 2710 0000"+noOne+"02 7d 0000"), nil},
		{"listener report of version 1", Listener, mld("01", noOne, groupOfB, "8300 0000 0000 0000"+groupOfB), nil},
		{"listener is done", Listener, mld("01", linkA, routers, "8400 0000 0000 0000"+groupOfB), nil},

		{"spanning tree", SpanningTree, "0180c2000000" + from + "0026 424203 0000 00 00" + zeros(31), nil},
		{"spanning tree of a provider, in a VLAN", SpanningTree, "0180c2000008" + from + "88a8 0001 0027 424203 0000 02 02" + zeros(32), nil},
		{"PVST", Cisco, "01000ccccccd" + from + "0032 aaaa03 00000c 010b" + zeros(42), nil},
		{"CDP", Cisco, "01000ccccccc" + from + "0100 aaaa03 00000c 2000" + zeros(248), nil},

		{"LACP", Aggregation, lacp, nil},
		{"802.1X", EAPOL, "0180c2000003" + from + "888e 01 00 0005 0101000501", nil},
		{"LLDP", LLDP, "0180c200000e" + from + "88cc 0207 04 " + from + "0000", nil},
		{"MVRP", Registration, "0180c2000021" + from + "88f5 00 01 04", nil},
		{"MMRP", Registration, "0180c2000020" + from + "88f6 00 01 06", nil},

		{"PADI", SessionSetup, everyone + from + "8863 11 09 0000 0004 01010000", nil},
		{"echo of LCP in a VLAN", SessionUpkeep, station + from + "8100 0007 8864 1100 0001 000a c021 0901 0008 00000000", nil},
		{"IPV6CP", SessionUpkeep, station + from + "8864 1100 0001 0006 8057 0101 0004", nil},

		{"nothing", NoControl, "", nil},
		{"unknown", NoControl, station + from + "88b5 0000", nil},
		{"MPLS", NoControl, station + from + "8847 0000", nil},
		{"IPv4", NoControl, station + from + "0800" + v4 + udp, nil},
		{"IPv4 to the bridges", NoControl, "0180c2000000" + from + "0800" + v4 + udp, nil},
		{"broken IPv4", NoControl, station + from + "0800 44", nil},
		{"broken IPv4 in PPPoE", NoControl, station + from + "8864 1100 0001 0003 0021 44", nil},
		{"IPv6", NoControl, station + from + "86dd" + v6 + udp, nil},
		{"echo", NoControl, icmp6("ff", linkA, linkB, "8000 0000 00000000"), nil},
		{"ICMPv6 without a type", NoControl, icmp6("ff", linkA, linkB, ""), nil},
		{"solicitation from afar", NoControl, icmp6("fe", globalA, globalB, "8700 0000 00000000"+globalB), nil},
		{"report from afar", NoControl, mld("02", linkA, reports, "8f00 0000 0000 0000"), nil},
		{"802.3 to a station", NoControl, station + from + "0026 424203 0000 00 00", nil},
		{"compressed PPP", NoControl, station + from + "8864 1100 0001 0003 c1 0000", nil},
		{"data of PPP", NoControl, station + from + "8864 1100 0001 0006 002b 0101 0004", nil},
		{"padded solicitation", NoControl, icmp6("ff", linkA, groupOfB, "8700 0000 00000000"+globalB) + "00", nil},
		{"long solicitation", NoControl, icmp6("ff", linkA, groupOfB, "8700 0000 00000000"+globalB+strings.Repeat("0e01000000000000", 153)), nil},
		{"atomic fragment", NoControl, "333300000001" + from + "86dd 60000000 0020 2cff" + linkA + groupOfB + "3a00 0000 00000001 8700 0000 00000000" + globalB, nil},
		{"fragment", NoControl, "333300000001" + from + "86dd 60000000 0020 2cff" + linkA + groupOfB + "3a00 0001 00000001 8700 0000 00000000" + linkB, nil},
		{"SNAP with ARP", NoControl, everyone + from + "0024 aaaa03 000000 0806" + arpRequest[29:], nil},
	} {
		f := unhex(tt.f)
		if l := Dissect(f, Ethernet); l.Control(f) != tt.kind || l.Group(f) != (len(f) >= 14 && f[0]&1 != 0) {
			t.Errorf("%s: kind %d, want %d (%+v), to a group %v", tt.name, l.Control(f), tt.kind, l, l.Group(f))
		}
		if l := Dissect(f, IP); l.Control(f) != NoControl {
			t.Errorf("%s taken for an IP packet: kind %d (%+v)", tt.name, l.Control(f), l)
		}
		f = f[:min(10, len(f))]
		if l := Dissect(f, Ethernet); l.Control(f) != NoControl {
			t.Errorf("the first bytes of %s: kind %d", tt.name, l.Control(f))
		}
		for _, b := range tt.broken {
			whole, part, other := unspaced(tt.f), unspaced(b[0]), unspaced(b[1])
			f := unhex(strings.Replace(whole, part, other, 1))
			if l := Dissect(f, Ethernet); !strings.Contains(whole, part) || l.Control(f) != NoControl {
				t.Errorf("%s, %s for %s: kind %d", tt.name, b[1], b[0], l.Control(f))
			}
		}
	}
	// The packets of a tun have no Ethernet header.
	f := unhex(icmp6("ff", linkA, routers, "8500 0000 00000000"))[14:]
	if l := Dissect(f, IP); l.Control(f) != Router || l.Group(f) {
		t.Errorf("router solicitation of a tun: kind %d, to a group %v", l.Control(f), l.Group(f))
	}
}
