package offload

import (
	"bytes"
	"encoding/binary"
	"slices"

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
	n    int           // datagrams
	lay  packet.Layers // of the first
	size int           // of its payload
}

// Len returns the number of gathered datagrams.
func (m *Merger) Len() int { return m.n }

// Reset discards the gathered datagrams.
func (m *Merger) Reset() { m.n = 0 }

// Add gathers a frame with its offload header, which may be nil, and reports
// whether the frame fits. A refused frame may be the first of the next super-frame,
// after Reset.
func (m *Merger) Add(offload, f []byte, link packet.Link) bool {
	l := &m.lay
	if m.n == 0 {
		*l = packet.Dissect(f, link) // once: frames that follow have the same layout
	} else if m.n == mostMerged || !m.follows(f) {
		return false
	}
	if !datagram(f, l) || !complete(offload, f, l) {
		return false
	}
	head := l.L4 + udpHeader
	if m.n == 0 {
		m.size = len(f) - head
		m.buf = append(slices.Grow(m.buf[:0], m.Headroom+head+mostPayload)[:m.Headroom], f...)
	} else {
		m.buf = append(m.buf, f[head:]...)
	}
	m.n++
	return true
}

// datagram reports whether a frame with this layout is a UDP datagram that can be merged: it is
// not a fragment, and has no IPv4 options, IPv6 extensions, encapsulation or padding.
func datagram(f []byte, l *packet.Layers) bool {
	if l.Proto != packet.UDP || l.Fragment || l.L3 > etherHeader || len(f) <= l.L4+udpHeader {
		return false
	}
	head, length := 20, int(binary.BigEndian.Uint16(f[l.L3+2:]))
	if l.Version == 6 {
		head, length = 40, 40+int(binary.BigEndian.Uint16(f[l.L3+4:]))
	}
	return l.L4 == l.L3+head && length == len(f)-l.L3 && int(binary.BigEndian.Uint16(f[l.L4+4:])) == len(f)-l.L4
}

// complete reports whether the checksums are correct or left unfinished. Otherwise
// recomputed checksums would change the datagram and hide damage.
func complete(offload, f []byte, l *packet.Layers) bool {
	if l.Version == 4 && Fold(Sum(f[l.L3:l.L4], 0)) != 0xffff {
		return false
	}
	sum := pseudo(f, l) + uint64(len(f)-l.L4)
	field := binary.BigEndian.Uint16(f[l.L4+6:])
	if offload != nil { // the field holds the sum of the pseudo-header
		h, err := Parse(offload)
		return err == nil && h.Flags == NeedsCsum && h.GSOType == 0 && int(h.CsumStart) == l.L4 && h.CsumOffset == 6 && field == Fold(sum)
	}
	return field != 0 && Fold(Sum(f[l.L4:], sum)) == 0xffff
}

// follows reports whether a frame has room behind the others, of which none is shorter than the
// first, and whether its headers equal those of the first, and so have the same layout, except for
// the fields that differ between segments of a super-frame.
func (m *Merger) follows(f []byte) bool {
	first, l, be := m.buf[m.Headroom:], &m.lay, binary.BigEndian
	head := l.L4 + udpHeader
	size, gathered := len(f)-head, len(first)-head
	if size <= 0 || size > m.size || gathered < m.n*m.size || gathered+size > mostPayload {
		return false
	}
	same := func(from, to int) bool { return bytes.Equal(f[from:to], first[from:to]) }
	if !same(0, l.L3+2) || !same(l.L4, l.L4+4) { // the version, TOS and ports
		return false
	}
	if l.Version == 4 { // then DF, TTL and protocol; then the addresses
		return be.Uint16(f[l.L3+4:]) == be.Uint16(first[l.L3+4:])+uint16(m.n) && same(l.L3+6, l.L3+10) && same(l.L3+12, l.L4)
	}
	return same(l.L3+2, l.L3+4) && same(l.L3+6, l.L4)
}

// Take returns the super-frame after Headroom bytes, with its offload header, and
// resets the Merger. The slice is valid until the next Add.
func (m *Merger) Take() (h Header, room []byte) {
	f, l, be := m.buf[m.Headroom:], &m.lay, binary.BigEndian
	if l.Version == 4 {
		ip := f[l.L3:l.L4]
		be.PutUint16(ip[2:], uint16(len(f)-l.L3))
		ip[10], ip[11] = 0, 0
		be.PutUint16(ip[10:], ^Fold(Sum(ip, 0)))
	} else {
		be.PutUint16(f[l.L3+4:], uint16(len(f)-l.L4))
	}
	be.PutUint16(f[l.L4+4:], uint16(len(f)-l.L4))
	be.PutUint16(f[l.L4+6:], Fold(pseudo(f, l)+uint64(len(f)-l.L4)))
	h = Header{
		Flags: NeedsCsum, GSOType: UDPL4, HdrLen: uint16(l.L4 + udpHeader), GSOSize: uint16(m.size),
		CsumStart: uint16(l.L4), CsumOffset: 6,
	}
	m.n = 0
	return h, m.buf
}
