// Package packet parses the headers of a frame, as far as the other packages need
// them: the offset of the IP packet, its flow and addresses, and the kind of control traffic
// of the link that it is. It does not trust the headers.
package packet

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Link is the first header of a stream's frames.
type Link uint8

// The links.
const (
	Ethernet Link = iota // an Ethernet header
	IP                   // the IP packet itself
)

func (l Link) String() string { return [...]string{"ethernet", "ip"}[l] }

// LinkOf returns the link that the reader of a stream names: frame.LinkIP is IP, and the
// only other that there is, Ethernet.
func LinkOf(name string) Link {
	if name == IP.String() {
		return IP
	}
	return Ethernet
}

// Numbers of protocols (IANA).
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	AH     = 51
	ESP    = 50
	ICMPv6 = 58
)

const (
	etherHeader = 14
	tagSize     = 4 // a VLAN tag, or an MPLS label
	maxTags     = 8 // of each
	maxHeaders  = 8 // IPv6 extension headers
)

// Layers describes the headers of a frame. Positions are offsets in the frame.
type Layers struct {
	EtherType uint16 // the innermost; below 0x600 it is a length, and LLC follows
	Version   uint8  // 4 or 6, or 0 without a valid IP header
	Proto     uint8  // protocol of the header at L4
	Fragment  bool   // any fragment of a larger packet, including the first
	PPPoE     int    // the header of a PPPoE session, 0 without one
	L3, L4    int    // the network header; the header after it and its extensions
	End       int    // of the IP packet, which padding may follow
}

// Dissect finds the layers of a frame, which may be truncated.
func Dissect(f []byte, link Link) (l Layers) {
	if link == IP {
		l.EtherType = ipType(f)
	} else {
		l.network(f)
	}
	switch l.EtherType {
	case typeIPv4:
		l.ipv4(f)
	case typeIPv6:
		l.ipv6(f)
	}
	return l
}

// network finds the network header of an Ethernet frame: behind VLAN tags and the header
// of a PPPoE session, as the kernel's flow dissector does (net/core/flow_dissector.c), and
// behind MPLS labels.
func (l *Layers) network(f []byte) {
	if len(f) < etherHeader {
		return
	}
	l.EtherType, l.L3 = binary.BigEndian.Uint16(f[12:]), etherHeader
	for range maxTags {
		if !isTag(l.EtherType) || len(f) < l.L3+tagSize {
			break
		}
		l.EtherType = binary.BigEndian.Uint16(f[l.L3+2:])
		l.L3 += tagSize
	}
	switch l.EtherType {
	case typePPPoE:
		l.session(f)
	case typeMPLS, typeMPLSMulticast:
		l.labels(f)
	}
}

// session parses the headers of a PPPoE session (RFC 2516) and of PPP in it.
func (l *Layers) session(f []byte) {
	p := f[l.L3:]
	if len(p) < 8 || p[0] != 0x11 || p[1] != 0 { // version 1, type 1, code of a session
		return
	}
	size, proto := 8, binary.BigEndian.Uint16(p[6:])
	if proto&0x100 != 0 { // one byte, compressed (RFC 1661, section 6.5)
		size, proto = 7, proto>>8
	}
	l.PPPoE = l.L3
	l.L3 += size
	switch proto {
	case 0x0021:
		l.EtherType = typeIPv4
	case 0x0057:
		l.EtherType = typeIPv6
	case 0x0281, 0x0283: // MPLS
		l.labels(f)
	}
}

// labels skips MPLS labels (RFC 3032). Nothing says what follows the last one: a first
// nibble of 4 or 6 is taken for that of an IP packet, as routers do (RFC 4928).
func (l *Layers) labels(f []byte) {
	for range maxTags {
		if len(f) < l.L3+tagSize {
			return
		}
		l.L3 += tagSize
		if f[l.L3-2]&1 != 0 { // the last
			if t := ipType(f[l.L3:]); t != 0 {
				l.EtherType = t
			}
			return
		}
	}
}

// ipType returns the EtherType of an IP packet by its version, or 0 if it is not one.
func ipType(p []byte) uint16 {
	if len(p) > 0 {
		switch p[0] >> 4 {
		case 4:
			return typeIPv4
		case 6:
			return typeIPv6
		}
	}
	return 0
}

// ipv4 parses the header of RFC 791.
func (l *Layers) ipv4(f []byte) {
	p := f[l.L3:]
	if len(p) < 20 || p[0]>>4 != 4 {
		return
	}
	head, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	if total == 0 { // a super-frame too long for the field
		total = len(p)
	}
	if head < 20 || total < head || len(p) < head {
		return
	}
	l.Version, l.Proto = 4, p[9]
	l.Fragment = binary.BigEndian.Uint16(p[6:])&0x3fff != 0
	l.L4 = l.L3 + head
	l.End = l.L3 + min(total, len(p))
}

// ipv6 parses the header of RFC 8200 and skips its extensions.
func (l *Layers) ipv6(f []byte) {
	p := f[l.L3:]
	if len(p) < 40 || p[0]>>4 != 6 {
		return
	}
	total := 40 + int(binary.BigEndian.Uint16(p[4:]))
	if total == 40 { // a jumbogram, a super-frame too long for the field, or an empty packet
		total = len(p)
	}
	total = min(total, len(p))
	next, at := p[6], 40
	for range maxHeaders {
		size := 0
		switch next {
		case 0, 43, 60, 135, 139, 140: // hop-by-hop, routing, destination, mobility, HIP, shim6
			if total >= at+8 {
				size = (int(p[at+1]) + 1) * 8
			}
		case AH: // RFC 4302, in units of 4
			if total >= at+8 {
				size = (int(p[at+1]) + 2) * 4
			}
		case 44:
			size = 8
			l.Fragment = l.Fragment || total >= at+8 && binary.BigEndian.Uint16(p[at+2:])&0xfff9 != 0
		}
		if size == 0 || total < at+size {
			break
		}
		next = p[at]
		at += size
	}
	l.Version, l.Proto = 6, next
	l.L4 = l.L3 + at
	l.End = l.L3 + total
}

// EtherTypes.
const (
	typeIPv4          = 0x0800
	typeIPv6          = 0x86dd
	typeMPLS          = 0x8847
	typeMPLSMulticast = 0x8848
	typePPPoE         = 0x8864 // a session; discovery has its own
)

func isTag(t uint16) bool {
	switch t {
	case 0x8100, 0x88a8, 0x9100, 0x9200: // 802.1Q, 802.1ad and its predecessors
		return true
	}
	return false
}

// transport reports whether an unfragmented packet has n bytes of transport header.
func (l *Layers) transport(n int) bool { return !l.Fragment && l.L4+n <= l.End }

// Flow returns a hash of the frame's flow: of its addresses, protocol and ports, as
// far as it has them. The seed must be secret: with it, a sender could choose flows
// that collide.
func (l *Layers) Flow(f []byte, seed uint64) uint64 {
	h := seed
	switch l.Version {
	case 4:
		h = mix(h, binary.BigEndian.Uint64(f[l.L3+12:]))
	case 6:
		for i := 8; i < 40; i += 8 {
			h = mix(h, binary.BigEndian.Uint64(f[l.L3+i:]))
		}
	default:
		if l.L3 >= etherHeader {
			h = mix(h, binary.BigEndian.Uint64(f))
			h = mix(h, uint64(binary.BigEndian.Uint32(f[8:]))<<16|uint64(l.EtherType))
		}
		return mix(h, 0)
	}
	h = mix(h, uint64(l.Proto))
	switch l.Proto {
	case TCP, UDP, 33, 132, 136, ESP: // DCCP, SCTP and UDP-Lite begin with ports, too; ESP with the SPI
		if l.transport(4) {
			h = mix(h, uint64(binary.BigEndian.Uint32(f[l.L4:])))
		}
	case ICMP, ICMPv6:
		if l.transport(6) { // the identifier of an echo
			h = mix(h, uint64(f[l.L4])<<16|uint64(binary.BigEndian.Uint16(f[l.L4+4:])))
		}
	}
	return mix(h, 0)
}

// mix folds the 128-bit product, after wyhash.
func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^v^0xa0761d6478bd642f, h+0xe7037ed1a0b428db)
	return hi ^ lo ^ v
}

// Addrs returns the addresses of an IP packet.
func (l *Layers) Addrs(f []byte) (src, dst netip.Addr, ok bool) {
	switch l.Version {
	case 4:
		p := f[l.L3:]
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), true
	case 6:
		p := f[l.L3:]
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return src, dst, false
}

// ECT reports whether an IP packet may be marked instead of dropped: it has ECT set
// by its sender (RFC 3168), or CE by another router.
func (l *Layers) ECT(f []byte) bool {
	switch l.Version {
	case 4:
		return f[l.L3+1]&3 != 0
	case 6:
		return f[l.L3+1]>>4&3 != 0
	}
	return false
}

// SetCE marks a packet with CE. ECT must be true for the packet.
func (l *Layers) SetCE(f []byte) {
	switch l.Version {
	case 4:
		p := f[l.L3:]
		old := binary.BigEndian.Uint16(p)
		p[1] |= 3
		// RFC 1624: HC' = ~(~HC + ~m + m').
		sum := uint32(^binary.BigEndian.Uint16(p[10:])) + uint32(^old) + uint32(binary.BigEndian.Uint16(p))
		sum = sum&0xffff + sum>>16
		sum = sum&0xffff + sum>>16
		binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	case 6:
		f[l.L3+1] |= 3 << 4
	}
}
