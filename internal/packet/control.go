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

// messages are the kinds that the type of an ICMPv6 message tells. A switch may not deliver
// neighbour discovery without listener discovery.
var messages = map[byte]Control{
	130: Listener, 131: Listener, 132: Listener, 143: Listener, // RFC 2710, RFC 3810
	133: Router, 134: Router, 137: Router, // solicitations, advertisements, redirects
	135: Neighbour, 136: Neighbour, // solicitations, advertisements
}

// Group reports whether a frame goes to a group of stations, by its Ethernet header.
func (l *Layers) Group(f []byte) bool { return l.L3 >= etherHeader && f[0]&1 != 0 }

// Control returns the kind of control traffic that a frame is, NoControl if it is none. It does not
// check the form of what follows the headers: a malformed frame uses up the same budget as a correct
// one.
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

// icmpv6 returns the kind of a packet of neighbour discovery or of multicast listener
// discovery.
//
// It has at most 1280 bytes, which every link takes whole. Neighbour discovery must come from
// this link: its hop limit is 255 (RFC 4861), and it is not fragmented (RFC 6980). It must also
// stay on it.
func (l *Layers) icmpv6(f []byte) Control {
	ip := f[l.L3:]
	if l.Proto != ICMPv6 || len(ip) > 1280 || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 || len(f) < l.L4+8 {
		return NoControl
	}
	m, hops := f[l.L4:], ip[7]
	kind := messages[m[0]]
	ok := hops == 1
	if kind != Listener {
		src, dst, _ := l.Addrs(f)
		ok = hops == 255 && m[1] == 0 && l.L4 == l.L3+40 && staysOnLink(src, dst)
	}
	if !ok {
		return NoControl
	}
	return kind
}

// staysOnLink reports whether no router forwards a packet between two IPv6 addresses: if it goes to
// a group of the link, or if one address is link-local, none does (RFC 4291, section 2.5.6), and if
// they share their /64, a router of another network has no reason to.
func staysOnLink(src, dst netip.Addr) bool {
	return dst.IsLinkLocalMulticast() || src.IsLinkLocalUnicast() || dst.IsLinkLocalUnicast() ||
		dst.IsGlobalUnicast() && netip.PrefixFrom(src, 64).Contains(dst)
}
