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
	Aggregation           // LACP and the other slow protocols (IEEE 802.3, annex 57A)
	EAPOL                 // IEEE 802.1X
	LLDP                  // IEEE 802.1AB
	Registration          // MVRP and MMRP (IEEE 802.1Q)
	Cisco                 // CDP, UDLD, PAgP, VTP, DTP and PVST
	SessionSetup          // PPPoE discovery (RFC 2516)
	SessionUpkeep         // LCP and the other control protocols of PPP (RFC 1661)
	Controls              // number of kinds
)

// etherTypes are the kinds that an EtherType tells.
var etherTypes = map[uint16]Control{
	0x0806: ARP,
	0x8035: ARP, // RARP
	0x8809: Aggregation,
	0x888e: EAPOL,
	0x88cc: LLDP,
	0x88f5: Registration, // MVRP
	0x88f6: Registration, // MMRP
	0x8863: SessionSetup,
}

// groups are the kinds that the destination of an IEEE 802.3 frame tells. Such a frame has a
// length in place of an EtherType.
var groups = map[uint64]Control{
	0x0180c2000000: SpanningTree,
	0x0180c2000008: SpanningTree, // of providers' bridges
	0x01000ccccccc: Cisco,
	0x01000ccccccd: Cisco, // PVST
}

// Group reports whether a frame goes to a group of stations, by its Ethernet header.
func (l *Layers) Group(f []byte) bool { return l.L3 >= etherHeader && f[0]&1 != 0 }

// Control returns the kind of control traffic that a frame is, NoControl if it is none. But for
// neighbour discovery, it does not check the form of what follows the headers: a malformed
// frame uses up the same budget as a correct one.
func (l *Layers) Control(f []byte) Control {
	switch {
	case l.Version == 6:
		return l.icmpv6(f)
	case l.Version == 4 || l.L3 < etherHeader:
	case l.PPPoE > 0:
		// The control protocols of PPP have numbers from 8000 on (RFC 1661, section 2). The
		// number is not compressed if its first byte is even.
		if f[l.PPPoE+6]&0x81 == 0x80 {
			return SessionUpkeep
		}
	case l.EtherType < 0x600:
		return groups[binary.BigEndian.Uint64(f)>>16]
	default:
		return etherTypes[l.EtherType]
	}
	return NoControl
}

// maxDiscovery is the size in bytes of an IPv6 packet that every link takes whole.
const maxDiscovery = 1280

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
	if l.Proto != ICMPv6 || len(ip) > maxDiscovery || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 || len(f) < l.L4+8 {
		return NoControl
	}
	src, dst, _ := l.Addrs(f)
	m, hops := f[l.L4:], ip[7]
	if hops == 1 && (m[0] == 130 || m[0] == 131 || m[0] == 132 || m[0] == 143) {
		return Listener // RFC 2710, RFC 3810
	}
	if m[1] != 0 || src.IsMulticast() || hops != 255 || l.L4 != l.L3+40 {
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
