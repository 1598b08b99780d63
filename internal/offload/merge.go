package offload

import (
	"bytes"
	"encoding/binary"

	"framepipe/internal/packet"
)

// mostMerged is the maximum of datagrams in a super-frame, as in the kernel's own
// receive offload (UDP_GRO_CNT_MAX in net/ipv4/udp_offload.c). mostPayload is the
// maximum of payload bytes.
const (
	mostMerged  = 64
	mostPayload = 60000
)

// Merger is the reverse of a Segmenter for UDP: it merges consecutive datagrams of
// one flow into a super-frame, which costs a device little more than one datagram.
// A Segmenter, or the kernel, must restore the same datagrams bit by bit. So the
// Merger accepts only datagrams with the same headers except for lengths, with an
// IPv4 identification that counts up by one, of the same size except for the
// last, and with correct or unfinished checksums.
type Merger struct {
	// Headroom is the number of free bytes that Take leaves in front of the super-frame.
	Headroom int

	buf  []byte
	n    int // datagrams
	head int // bytes in front of a payload
	l3   int // offset of the IP header
	v4   bool
	id   uint16 // IPv4 identification of the next datagram
	size int    // of a payload
	last bool   // the last datagram was shorter, so no other may follow
}

// Len returns the number of gathered datagrams.
func (m *Merger) Len() int { return m.n }

// Reset discards the gathered datagrams.
func (m *Merger) Reset() { m.n = 0 }

// Add gathers a frame with its offload header, which may be nil, and reports
// whether the frame fits. A refused frame may be the first of the next super-frame,
// after Reset.
func (m *Merger) Add(offload, f []byte, link packet.Link) bool {
	l3, l4, v4 := udpAt(f, link)
	if l4 == 0 || !complete(offload, f, l3, l4, v4) {
		return false
	}
	head := l4 + udpHeader
	size := len(f) - head
	if m.n == 0 {
		m.l3, m.head, m.v4, m.size, m.last = l3, head, v4, size, false
		if cap(m.buf) < m.Headroom+head+mostPayload {
			m.buf = make([]byte, m.Headroom, m.Headroom+head+mostPayload)
		}
		m.buf = append(m.buf[:m.Headroom], f...)
	} else {
		if m.last || m.n == mostMerged || size > m.size || len(m.buf)-m.Headroom-m.head+size > mostPayload || !m.follows(f, l3, l4, v4) {
			return false
		}
		m.last = size < m.size
		m.buf = append(m.buf, f[head:]...)
	}
	if v4 {
		m.id = binary.BigEndian.Uint16(f[l3+4:]) + 1
	}
	m.n++
	return true
}

// udpAt finds the headers of an unfragmented UDP datagram without IPv4 options,
// IPv6 extensions or VLAN tags, and without padding. For other frames l4 is 0. It
// runs for every frame, and rejects most of them early.
func udpAt(f []byte, link packet.Link) (l3, l4 int, v4 bool) {
	if link == packet.Ethernet {
		l3 = 14
	}
	if len(f) < l3+20+udpHeader+1 {
		return 0, 0, false
	}
	be := binary.BigEndian
	p := f[l3:]
	switch p[0] >> 4 {
	case 4:
		if l3 > 0 && be.Uint16(f[12:]) != 0x0800 || p[0] != 0x45 || p[9] != packet.UDP ||
			be.Uint16(p[6:])&0x3fff != 0 || int(be.Uint16(p[2:])) != len(p) {
			return 0, 0, false
		}
		l4, v4 = l3+20, true
	case 6:
		if l3 > 0 && be.Uint16(f[12:]) != 0x86dd || len(p) < 40+udpHeader+1 || p[6] != packet.UDP ||
			int(be.Uint16(p[4:])) != len(p)-40 {
			return 0, 0, false
		}
		l4 = l3 + 40
	default:
		return 0, 0, false
	}
	if int(be.Uint16(f[l4+4:])) != len(f)-l4 {
		return 0, 0, false
	}
	return l3, l4, v4
}

// complete reports whether the checksums are correct or left unfinished. Otherwise
// recomputed checksums would change the datagram and hide damage.
func complete(offload, f []byte, l3, l4 int, v4 bool) bool {
	if v4 && Fold(Sum(f[l3:l4], 0)) != 0xffff {
		return false
	}
	sum := pseudoSum(f, l3, l4, v4) + uint64(len(f)-l4)
	field := binary.BigEndian.Uint16(f[l4+6:])
	if offload != nil { // the field holds the sum of the pseudo-header
		h, err := Parse(offload)
		return err == nil && h.Flags == NeedsCsum && h.GSOType == 0 && int(h.CsumStart) == l4 && h.CsumOffset == 6 && field == Fold(sum)
	}
	return field != 0 && Fold(Sum(f[l4:], sum)) == 0xffff
}

// pseudoSum is the sum of the pseudo-header without the length.
func pseudoSum(f []byte, l3, l4 int, v4 bool) uint64 {
	if v4 {
		return pseudo(f[l3+12:l3+20], packet.UDP)
	}
	return pseudo(f[l3+8:l4], packet.UDP)
}

// follows reports whether a frame's headers equal those of the first datagram,
// except for the fields that differ between segments of a super-frame.
func (m *Merger) follows(f []byte, l3, l4 int, v4 bool) bool {
	first := m.buf[m.Headroom:]
	if v4 != m.v4 || !bytes.Equal(f[:l3+2], first[:l3+2]) || !bytes.Equal(f[l4:l4+4], first[l4:l4+4]) {
		return false
	}
	if v4 {
		return binary.BigEndian.Uint16(f[l3+4:]) == m.id && // then DF, TTL and protocol; then the addresses
			bytes.Equal(f[l3+6:l3+10], first[l3+6:l3+10]) && bytes.Equal(f[l3+12:l4], first[l3+12:l4])
	}
	return bytes.Equal(f[l3+2:l3+4], first[l3+2:l3+4]) && bytes.Equal(f[l3+6:l4], first[l3+6:l4])
}

// Take returns the super-frame after Headroom bytes, with its offload header, and
// resets the Merger. The slice is valid until the next Add.
func (m *Merger) Take() (h Header, room []byte) {
	f := m.buf[m.Headroom:]
	l4 := m.head - udpHeader
	be := binary.BigEndian
	if m.v4 {
		ip := f[m.l3:l4]
		be.PutUint16(ip[2:], uint16(len(f)-m.l3))
		ip[10], ip[11] = 0, 0
		be.PutUint16(ip[10:], ^Fold(Sum(ip, 0)))
	} else {
		be.PutUint16(f[m.l3+4:], uint16(len(f)-l4))
	}
	be.PutUint16(f[l4+4:], uint16(len(f)-l4))
	be.PutUint16(f[l4+6:], Fold(pseudoSum(f, m.l3, l4, m.v4)+uint64(len(f)-l4)))
	h = Header{
		Flags: NeedsCsum, GSOType: UDPL4, HdrLen: uint16(m.head), GSOSize: uint16(m.size),
		CsumStart: uint16(l4), CsumOffset: 6,
	}
	m.n = 0
	return h, m.buf
}
