package packet

import "encoding/binary"

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

// messages are the kinds of ICMPv6, and the hop limit that each must have.
var messages = map[byte]struct {
	kind Control
	hops byte
}{
	133: {Router, 255}, 134: {Router, 255}, 137: {Router, 255},
	135: {Neighbour, 255}, 136: {Neighbour, 255},
	130: {Listener, 1}, 131: {Listener, 1}, 132: {Listener, 1}, 143: {Listener, 1},
}

// Group reports whether a frame goes to a group of stations, by its Ethernet header.
func (l *Layers) Group(f []byte) bool { return l.L3 >= etherHeader && f[0]&1 != 0 }

// Control returns the kind of control traffic that a frame is, NoControl if it is none. It
// does not check the form of what follows the headers: a malformed frame uses up the same
// budget as a correct one.
func (l *Layers) Control(f []byte) Control {
	switch {
	case l.Version == 6:
		if l.Proto == ICMPv6 && l.transport(1) {
			if m := messages[f[l.L4]]; f[l.L3+7] == m.hops {
				return m.kind
			}
		}
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
