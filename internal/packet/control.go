package packet

import (
	"encoding/binary"
	"net/netip"
)

// Control is a kind of control traffic, without which a link fails.
type Control uint8

// The kinds.
const (
	NoControl     Control = iota
	ARP                   // RFC 826; also RARP, which tells switches that a virtual machine has moved
	Neighbour             // neighbour solicitations and advertisements (RFC 4861)
	Router                // router solicitations and advertisements, and redirects
	Listener              // multicast listener discovery (RFC 2710, RFC 3810)
	SpanningTree          // IEEE 802.1D
	Aggregation           // LACP and its marker protocol (IEEE 802.1AX)
	EAPOL                 // IEEE 802.1X
	LLDP                  // IEEE 802.1AB
	Registration          // MVRP and MMRP (IEEE 802.1Q)
	Cisco                 // CDP, UDLD, PAgP, VTP, DTP and PVST
	SessionSetup          // PPPoE discovery (RFC 2516)
	SessionUpkeep         // LCP and the other control protocols of PPP (RFC 1661)
	Controls              // number of kinds
)

// EtherTypes of control traffic.
const (
	typeARP            = 0x0806
	typeRARP           = 0x8035
	typeSlow           = 0x8809
	typePPPoEDiscovery = 0x8863
	typeEAPOL          = 0x888e
	typeLLDP           = 0x88cc
	typeMVRP           = 0x88f5
	typeMMRP           = 0x88f6
)

// Group addresses that no bridge forwards, except Cisco's.
const (
	groupBridges         = 0x0180c2000000
	groupSlow            = 0x0180c2000002
	groupPAE             = 0x0180c2000003
	groupProviderBridges = 0x0180c2000008
	groupNearest         = 0x0180c200000e
	groupMMRP            = 0x0180c2000020
	groupMVRP            = 0x0180c2000021
	groupCisco           = 0x01000ccccccc
	groupPVST            = 0x01000ccccccd
)

const (
	minPayload = 46   // a shorter one is padded to it
	maxPayload = 1500 // no control frame has more
)

// Group reports whether a frame goes to a group of stations, by its Ethernet header.
func (l *Layers) Group(f []byte) bool { return l.L3 >= etherHeader && f[0]&1 != 0 }

// Control returns the kind of control traffic that a whole frame is, NoControl if it is
// none. It accepts only the form that the kind's standard prescribes: everything else can
// go through a router, or has no effect, and is traffic like any other.
func (l *Layers) Control(f []byte) Control {
	switch {
	case l.Version == 6:
		return l.icmpv6(f)
	case l.Version == 4 || l.L3 < etherHeader || len(f)-l.L3 > maxPayload:
		return NoControl
	}
	kind, ok := NoControl, false
	p, dst := f[l.L3:], binary.BigEndian.Uint64(f)>>16
	switch {
	case l.PPPoE > 0:
		kind, ok = SessionUpkeep, l.upkeep(f)
	case l.EtherType < 0x600:
		return llc(p, dst, int(l.EtherType))
	case l.EtherType == typeARP:
		kind, ok = ARP, arp(p, 1)
	case l.EtherType == typeRARP:
		kind, ok = ARP, arp(p, 3)
	case l.EtherType == typeSlow:
		kind, ok = Aggregation, dst == groupSlow && filled(p, 110) && (p[0] == 1 || p[0] == 2)
	case l.EtherType == typeEAPOL:
		kind = EAPOL
		ok = (dst == groupPAE || !l.Group(f)) && len(p) >= 4 && filled(p, 4+int(binary.BigEndian.Uint16(p[2:])))
	case l.EtherType == typeLLDP:
		// It begins with the chassis, in at least 2 bytes.
		nearest := dst == groupNearest || dst == groupPAE || dst == groupBridges
		kind, ok = LLDP, nearest && len(p) >= 4 && p[0] == 2 && p[1] >= 2
	case l.EtherType == typeMVRP:
		kind, ok = Registration, dst == groupMVRP && len(p) > 0 && p[0] == 0
	case l.EtherType == typeMMRP:
		kind, ok = Registration, dst == groupMMRP && len(p) > 0 && p[0] == 0
	case l.EtherType == typePPPoEDiscovery:
		kind, ok = SessionSetup, setup(p)
	}
	if !ok {
		return NoControl
	}
	return kind
}

// filled reports whether a payload consists of n bytes, and padding if these are few.
func filled(p []byte, n int) bool { return n <= len(p) && len(p) <= max(n, minPayload) }

// arp reports whether p is a request or reply for IPv4 addresses in Ethernet. Requests have
// the given number, and replies the next.
func arp(p []byte, request uint16) bool {
	if !filled(p, 28) || binary.BigEndian.Uint64(p)>>16 != 0x0001_0800_0604 {
		return false
	}
	return binary.BigEndian.Uint16(p[6:])-request <= 1
}

// setup reports whether p is a packet of PPPoE discovery.
func setup(p []byte) bool {
	if len(p) < 6 || p[0] != 0x11 || !filled(p, 6+int(binary.BigEndian.Uint16(p[4:]))) {
		return false
	}
	session := binary.BigEndian.Uint16(p[2:])
	switch p[1] {
	case 0x09, 0x07, 0x19: // PADI, PADO, PADR
		return session == 0
	case 0x65, 0xa7: // PADS, which refuses with session 0; PADT
		return true
	}
	return false
}

// upkeep reports whether a frame of a PPPoE session has a packet of a control protocol of
// PPP. These have numbers from 8000 on (RFC 1661, section 2), and the packet's length in it.
func (l *Layers) upkeep(f []byte) bool {
	session, p := f[l.PPPoE:], f[l.L3:]
	if l.Group(f) || session[6]&0x81 != 0x80 || len(p) < 4 {
		return false
	}
	n, size := int(binary.BigEndian.Uint16(session[4:])), int(binary.BigEndian.Uint16(p[2:]))
	return filled(session, 6+n) && size >= 4 && size <= n-2
}

// llc returns the kind of an IEEE 802.3 frame, which has a length of n instead of a type.
func llc(p []byte, dst uint64, n int) Control {
	if n < 8 || !filled(p, n) {
		return NoControl
	}
	head := binary.BigEndian.Uint64(p)
	switch {
	case (dst == groupBridges || dst == groupProviderBridges) && head>>24 == 0x42_42_03_0000:
		return SpanningTree
	case (dst == groupCisco || dst == groupPVST) && head>>16 == 0xaa_aa_03_00000c: // SNAP
		return Cisco
	}
	return NoControl
}

const (
	icmpHeader   = 8
	maxDiscovery = 1280 // bytes of an IPv6 packet that every link takes whole
)

var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allRouters  = netip.MustParseAddr("ff02::2")
	unspecified = netip.IPv6Unspecified()
)

// icmpv6 returns the kind of a packet of neighbour discovery or of multicast listener
// discovery, without which a switch may not deliver neighbour discovery.
//
// Neighbour discovery must come from this link: its hop limit is 255 (RFC 4861), and it is
// not fragmented (RFC 6980). It must also stay on it. A router forwards neither link-local
// addresses nor groups of the link, but it would forward a packet to a global address.
func (l *Layers) icmpv6(f []byte) Control {
	ip := f[l.L3:]
	if l.Proto != ICMPv6 || l.labelled(f) || len(ip) > maxDiscovery ||
		int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
		return NoControl
	}
	src, dst, _ := l.Addrs(f)
	m := f[l.L4:]
	if len(m) < icmpHeader || m[1] != 0 || src.IsMulticast() {
		return NoControl
	}
	if m[0] == 130 || m[0] == 131 || m[0] == 132 || m[0] == 143 {
		if !listener(ip, m, src, dst) {
			return NoControl
		}
		return Listener
	}
	if ip[7] != 255 || l.L4 != l.L3+40 {
		return NoControl
	}
	kind, ok, head := Router, false, 0
	switch m[0] {
	case 133: // router solicitation
		head, ok = 8, (src.IsLinkLocalUnicast() || src == unspecified) && dst == allRouters
	case 134: // router advertisement
		head, ok = 16, src.IsLinkLocalUnicast() && (dst == allNodes || dst.IsLinkLocalUnicast())
	case 135:
		kind, head = Neighbour, 24
		ok = len(m) >= head && solicitation(m, src, dst)
	case 136:
		kind, head = Neighbour, 24
		ok = len(m) >= head && advertisement(m, src, dst)
	case 137:
		head = 40
		ok = len(m) >= head && redirect(m, src, dst)
	}
	if !ok || len(m) < head || !options(m[head:]) {
		return NoControl
	}
	return kind
}

// labelled reports whether there are MPLS labels before an IPv6 packet. Without them, its
// number is there, or PPP's; the third byte of the last label is odd, which 0x86 is not.
func (l *Layers) labelled(f []byte) bool {
	if l.PPPoE > 0 {
		return l.L3 > l.PPPoE+8
	}
	return l.L3 > 0 && f[l.L3-2] != typeIPv6>>8
}

// listener reports whether a packet is one of MLD: link-local, with a hop limit of 1 and a
// router alert (RFC 3810, section 5), to a group. While a host has no address yet, it
// reports from the unspecified one.
func listener(ip, m []byte, src, dst netip.Addr) bool {
	const routerAlert = 0x05_02_0000
	if ip[7] != 1 || ip[6] != 0 || len(ip)-len(m) != 48 || binary.BigEndian.Uint32(ip[42:]) != routerAlert {
		return false
	}
	if m[0] == 143 {
		return (src.IsLinkLocalUnicast() || src == unspecified) && dst == netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 15: 0x16})
	}
	report := m[0] == 131 || m[0] == 132
	return (src.IsLinkLocalUnicast() || src == unspecified && report) && dst.IsMulticast() && len(m) >= 24
}

// solicitation reports whether a neighbour solicitation goes to its target, or to the
// target's group.
func solicitation(m []byte, src, dst netip.Addr) bool {
	target := [16]byte(m[8:24])
	group := [16]byte{0xff, 2, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]}
	switch a := netip.AddrFrom16(target); {
	case a.IsMulticast() || a == unspecified:
		return false
	case dst == netip.AddrFrom16(group):
		return true
	default:
		return dst == a && onLink(src, dst)
	}
}

// advertisement reports whether a neighbour advertisement goes to all nodes, then without
// the flag that says it answers one, or to a node of the link.
func advertisement(m []byte, src, dst netip.Addr) bool {
	target := netip.AddrFrom16([16]byte(m[8:24]))
	if src == unspecified || target.IsMulticast() || target == unspecified {
		return false
	}
	const solicited = 0x40
	if dst == allNodes {
		return m[4]&solicited == 0
	}
	return onLink(src, dst)
}

// redirect reports whether a redirect comes from a router, and names a router or says that
// the destination is a neighbour.
func redirect(m []byte, src, dst netip.Addr) bool {
	target, destination := netip.AddrFrom16([16]byte(m[8:24])), netip.AddrFrom16([16]byte(m[24:40]))
	return src.IsLinkLocalUnicast() && !dst.IsMulticast() && !destination.IsMulticast() &&
		(target.IsLinkLocalUnicast() || target == destination)
}

// onLink reports whether a packet between two addresses stays on the link: if one is
// link-local, no router forwards it (RFC 4291, section 2.5.6), and if they share their /64,
// a router of another network has no reason to.
func onLink(src, dst netip.Addr) bool {
	if src == unspecified || dst == unspecified || dst.IsMulticast() {
		return false
	}
	if src.IsLinkLocalUnicast() || dst.IsLinkLocalUnicast() {
		return true
	}
	s, d := src.As16(), dst.As16()
	return [8]byte(s[:8]) == [8]byte(d[:8])
}

// options reports whether p is a list of options, none of which is empty.
func options(p []byte) bool {
	for len(p) >= 8 && p[1] > 0 && int(p[1])*8 <= len(p) {
		p = p[int(p[1])*8:]
	}
	return len(p) == 0
}
