// Package packet parses the headers of a frame, as far as the other packages need
// them: the offset of the IP packet, its flow and addresses, and whether it is control
// traffic of the link. It does not trust the headers.
package packet

import (
	"encoding/binary"
	"fmt"
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

// ParseLink is the reverse of String.
func ParseLink(s string) (Link, error) {
	for _, l := range [...]Link{Ethernet, IP} {
		if s == l.String() {
			return l, nil
		}
	}
	return 0, fmt.Errorf("the link %q is neither ethernet nor ip", s)
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
	vlanTag     = 4
	maxTags     = 8 // nested VLAN tags
	maxHeaders  = 8 // IPv6 extension headers
)

// Layers describes the headers of a frame. Positions are offsets in the frame.
type Layers struct {
	L2Len     int    // bytes of the Ethernet header, VLAN tags included
	EtherType uint16 // the innermost; below 0x600 it is a length, and LLC follows
	Version   uint8  // 4 or 6, or 0 without a valid IP header
	Proto     uint8  // protocol of the header at L4
	Fragment  bool   // any fragment of a larger packet, including the first
	L3, L4    int    // the IP header; the header after it and its extensions
	End       int    // of the IP packet, which padding may follow
}

// Dissect finds the layers of a frame, which may be truncated.
func Dissect(f []byte, link Link) (l Layers) {
	if link == IP {
		if len(f) > 0 {
			switch f[0] >> 4 {
			case 4:
				l.EtherType = typeIPv4
			case 6:
				l.EtherType = typeIPv6
			}
		}
	} else {
		if len(f) < etherHeader {
			return l
		}
		l.EtherType = binary.BigEndian.Uint16(f[12:])
		l.L2Len = etherHeader
		for range maxTags {
			if !isTag(l.EtherType) || len(f) < l.L2Len+vlanTag {
				break
			}
			l.EtherType = binary.BigEndian.Uint16(f[l.L2Len+2:])
			l.L2Len += vlanTag
		}
	}
	switch l.EtherType {
	case typeIPv4:
		l.ipv4(f)
	case typeIPv6:
		l.ipv6(f)
	}
	return l
}

// ipv4 parses the header of RFC 791.
func (l *Layers) ipv4(f []byte) {
	p := f[l.L2Len:]
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
	l.L3, l.L4 = l.L2Len, l.L2Len+head
	l.End = l.L2Len + min(total, len(p))
}

// ipv6 parses the header of RFC 8200 and skips its extensions.
func (l *Layers) ipv6(f []byte) {
	p := f[l.L2Len:]
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
	l.L3, l.L4 = l.L2Len, l.L2Len+at
	l.End = l.L2Len + total
}

// EtherTypes.
const (
	typeIPv4 = 0x0800
	typeIPv6 = 0x86dd
)

func isTag(t uint16) bool {
	switch t {
	case 0x8100, 0x88a8, 0x9100, 0x9200: // 802.1Q, 802.1ad and its predecessors
		return true
	}
	return false
}

// Control reports whether the frame is control traffic, without which the link
// fails: address resolution, spanning tree, aggregation, discovery, and the like.
// Frames that carry other packets, such as MPLS or a PPPoE session, are not.
func (l *Layers) Control(f []byte) bool {
	switch l.Version {
	case 4:
		return false
	case 6:
		return l.neighbour(f)
	}
	if l.EtherType < 0x600 {
		return l.llc(f)
	}
	return controlType(l.EtherType)
}

func controlType(t uint16) bool {
	switch t {
	case 0x0806, // ARP
		0x8035, // RARP
		0x8808, // pause frames
		0x8809, // LACP and other slow protocols
		0x8863, // PPPoE discovery
		0x888e, // 802.1X
		0x88cc, // LLDP
		0x88f5, // MVRP
		0x88f6, // MMRP
		0x88f7, // PTP
		0x8902, // connectivity fault management
		0x9000: // loopback, for switches to find loops
		return true
	}
	return false
}

// neighbour reports whether the packet belongs to neighbour discovery (RFC 4861,
// which requires a hop limit of 255, and RFC 6980, which forbids fragments) or to
// multicast listener discovery, without which a switch may not deliver neighbour
// discovery (RFC 2710, RFC 3810).
func (l *Layers) neighbour(f []byte) bool {
	if l.Proto != ICMPv6 || l.Fragment || l.L4 >= l.End {
		return false
	}
	switch hops := f[l.L3+7]; f[l.L4] {
	case 133, 134, 135, 136, 137:
		return hops == 255
	case 130, 131, 132, 143:
		return hops == 1
	}
	return false
}

// llc reports whether an IEEE 802.3 frame, with a length instead of a type, is
// control traffic: spanning tree, IS-IS, or a vendor's discovery protocol.
func (l *Layers) llc(f []byte) bool {
	if l.L2Len == 0 || len(f) < l.L2Len+3 {
		return false
	}
	switch dst := binary.BigEndian.Uint64(f) >> 16; {
	case dst&^0xf == 0x0180c2000000, // to the bridges (802.1D), never forwarded
		dst&^1 == 0x01000ccccccc: // to Cisco's: CDP, VTP, PVST
		return true
	}
	p := f[l.L2Len:]
	switch p[0] {
	case 0x42, 0xfe: // spanning tree; IS-IS
		return p[1] == p[0]
	case 0xaa: // SNAP with an EtherType
		return len(p) >= 8 && p[1] == 0xaa && p[3]|p[4]|p[5] == 0 && controlType(binary.BigEndian.Uint16(p[6:]))
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
		if l.L2Len >= etherHeader {
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
