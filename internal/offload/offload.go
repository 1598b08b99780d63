// Package offload does in software the work that a sender left to the hardware: it
// finishes checksums and cuts TCP and UDP super-frames into segments. The frame's
// struct virtio_net_hdr (include/uapi/linux/virtio_net.h) describes this work.
//
// The result is the same, byte for byte, as that of the kernel's own code
// (net/ipv4/tcp_offload.c, net/ipv4/udp_offload.c, net/core/dev.c). The header comes
// from a stream and is not trusted: it is checked against the frame before anything
// is written.
package offload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"framepipe/internal/packet"
)

// HeaderSize is the size of a virtio_net_hdr, in bytes.
const HeaderSize = 10

// Bits of Header.Flags and values of Header.GSOType.
const (
	NeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	TCPv4 = 1
	TCPv6 = 4
	UDPL4 = 5    // UDP datagrams of GSOSize bytes
	ECN   = 0x80 // with either TCP: CWR is set
)

const (
	etherHeader = 14
	tcpHeader   = 20
	tcpFlags    = 13
	flagFIN     = 0x01
	flagPSH     = 0x08
	flagCWR     = 0x80
	udpHeader   = 8
	maxSegment  = 1<<16 - 1

	// Limits of one super-frame: the datagrams that the kernel accepts
	// (UDP_MAX_SEGMENTS in include/linux/udp.h), and the TCP segments that it can
	// count (gso_segs in include/linux/skbuff.h). Segments may have one byte each,
	// and each repeats up to 16 KiB of IPv6 extension headers: without mostHeaders
	// a small frame could become a gigabyte.
	mostDatagrams = 128
	mostSegments  = 1<<16 - 1
	mostHeaders   = 16 << 20
)

// Header is a virtio_net_hdr.
type Header struct {
	Flags, GSOType        uint8
	HdrLen, GSOSize       uint16 // bytes
	CsumStart, CsumOffset uint16 // start of the summed bytes; offset from there of the checksum
}

// Parse decodes a virtio_net_hdr, which is little-endian.
func Parse(b []byte) (Header, error) {
	if len(b) != HeaderSize {
		return Header{}, fmt.Errorf("offload header of %d bytes, want %d", len(b), HeaderSize)
	}
	le := binary.LittleEndian
	return Header{b[0], b[1], le.Uint16(b[2:]), le.Uint16(b[4:]), le.Uint16(b[6:]), le.Uint16(b[8:])}, nil
}

// Put encodes the header into b.
func (h Header) Put(b []byte) {
	le := binary.LittleEndian
	b[0], b[1] = h.Flags, h.GSOType
	le.PutUint16(b[2:], h.HdrLen)
	le.PutUint16(b[4:], h.GSOSize)
	le.PutUint16(b[6:], h.CsumStart)
	le.PutUint16(b[8:], h.CsumOffset)
}

// Super reports whether the frame is a super-frame.
func (h Header) Super() bool { return h.GSOType&^ECN != 0 }

// Needed reports whether an encoded header asks for a checksum or for segmentation.
func Needed(h []byte) bool { return h[0]&NeedsCsum != 0 || h[1] != 0 }

// layout describes the segments of a frame, of which any other than a super-frame has one.
type layout struct {
	packet.Layers     // of a super-frame
	head          int // bytes in front of each segment
	start, sum    int // offsets of the summed bytes, and of the checksum, -1 if it is finished
	n             int // segments
}

// plan checks a header against its frame of size bytes, and returns the frame's layout. f must hold
// at least all headers of the frame.
func (h Header) plan(f []byte, size int, link packet.Link) (p layout, err error) {
	if h.Super() {
		return h.planSuper(f, size, link)
	}
	p = layout{start: int(h.CsumStart), sum: int(h.CsumStart) + int(h.CsumOffset), n: 1}
	switch {
	case h.Flags&NeedsCsum == 0:
		p.sum = -1
	case p.sum+2 > size:
		return p, fmt.Errorf("checksum at %d+%d of a frame of %d bytes", h.CsumStart, h.CsumOffset, size)
	}
	return p, nil
}

// planSuper is plan for super-frames.
func (h Header) planSuper(f []byte, size int, link packet.Link) (p layout, err error) {
	p.Layers = packet.Dissect(f, link)
	version, proto := p.Version, uint8(packet.TCP)
	switch h.GSOType {
	case TCPv4, TCPv4 | ECN:
		version = 4
	case TCPv6, TCPv6 | ECN:
		version = 6
	case UDPL4:
		proto = packet.UDP
	default:
		return p, fmt.Errorf("super-frame of unknown type %d", h.GSOType)
	}
	switch {
	case p.Version == 0 || p.Version != version || p.Proto != proto:
		return p, fmt.Errorf("super-frame of type %d, but IP version %d and protocol %d", h.GSOType, p.Version, p.Proto)
	case p.Fragment:
		return p, errors.New("super-frame is a fragment")
	}
	p.start = p.L4
	if proto == packet.UDP {
		p.head, p.sum = p.L4+udpHeader, p.L4+6
	} else {
		p.head, p.sum = p.L4+tcpHeader, p.L4+16
	}
	if p.head > p.End {
		return p, fmt.Errorf("super-frame without the whole header of protocol %d", proto)
	}
	if proto == packet.TCP {
		p.head = p.L4 + int(f[p.L4+12]>>4)*4
		if p.head < p.L4+tcpHeader || p.head > p.End {
			return p, fmt.Errorf("super-frame with a TCP header of %d bytes", p.head-p.L4)
		}
	}
	switch {
	case h.Flags&NeedsCsum != 0 && (int(h.CsumStart) != p.L4 || int(h.CsumStart)+int(h.CsumOffset) != p.sum):
		return p, fmt.Errorf("super-frame with its checksum at %d+%d, want %d+%d", h.CsumStart, h.CsumOffset, p.L4, p.sum-p.L4)
	case h.GSOSize == 0 || p.head-p.L3+int(h.GSOSize) > maxSegment:
		return p, fmt.Errorf("super-frame with segments of %d bytes", h.GSOSize)
	}
	p.n = max((size-p.head+int(h.GSOSize)-1)/int(h.GSOSize), 1)
	if p.n > mostSegments || p.n > mostDatagrams && proto == packet.UDP || p.n*p.head > mostHeaders {
		return p, fmt.Errorf("super-frame of %d segments with %d bytes of headers", p.n, p.head)
	}
	return p, nil
}

// Measure returns the segments of a frame of size bytes. f holds its beginning with all headers.
// There are n segments, each with head bytes in front of GSOSize bytes, except for the last, which
// has last bytes in all. An error says why the header is invalid; the frame then counts as one.
func Measure(h Header, f []byte, size int, link packet.Link) (n, head, last int, err error) {
	p, err := h.plan(f, size, link)
	if err != nil {
		return 1, 0, size, err
	}
	return p.n, p.head, size - (p.n-1)*int(h.GSOSize), nil
}

// OnWire returns the number of frames on the wire that a frame of size bytes becomes,
// and their bytes as a switch counts them: padded to 60 and with 4 of check sequence.
// f holds the beginning of the frame with all headers; header is its offload header,
// or nil. IP packets count as if they were in Ethernet. The result does not change when
// frames are segmented or merged. An error says why the header is invalid; the frame then
// counts as one.
func OnWire(header, f []byte, size int, link packet.Link) (frames, bytes int, err error) {
	if len(header) < 2 || !Needed(header) { // most frames
		return 1, ethernet(size, link), nil
	}
	h, err := Parse(header)
	if err != nil {
		return 1, ethernet(size, link), err
	}
	n, head, last, err := Measure(h, f, size, link)
	return n, (n-1)*ethernet(head+int(h.GSOSize), link) + ethernet(last, link), err
}

func ethernet(size int, link packet.Link) int {
	if link == packet.IP {
		size += etherHeader
	}
	return max(size, 60) + 4
}

// Segmenter cuts frames into segments. Its buffer is as large as the longest frame
// that it has returned.
type Segmenter struct {
	// Headroom is the number of free bytes that Next leaves in front of each frame.
	Headroom int

	buf    []byte
	f      []byte // the frame to cut
	lay    layout
	gso    int
	count  int    // of segments so far
	pseudo uint64 // sum of the pseudo-header without its length
}

// Start checks a frame against its header and begins to cut it. f must not change
// until Next has returned nil.
func (s *Segmenter) Start(h Header, f []byte, link packet.Link) error {
	s.lay.n, s.count = 0, 0
	p, err := h.plan(f, len(f), link)
	if err != nil {
		return err
	}
	s.f, s.lay, s.gso = f, p, int(h.GSOSize)
	switch {
	case p.Version == 0: // no super-frame
	case p.Version == 6 && p.L4-p.L3 > 40 && h.Flags&NeedsCsum != 0:
		// With a routing header the checksum covers another address (RFC 8200, section
		// 8.1), which only the sender knows. It has left the sum in the field.
		s.pseudo = uint64(binary.BigEndian.Uint16(f[p.sum:])) + uint64(^Fold(uint64(len(f)-p.L4)))
	default:
		s.pseudo = pseudo(f, &p.Layers)
	}
	return nil
}

// Next returns the next finished frame, after Headroom bytes, and nil after the
// last. The slice is valid until the next call.
func (s *Segmenter) Next() []byte {
	p := &s.lay
	if s.count == p.n {
		return nil
	}
	from, to := p.head+s.count*s.gso, len(s.f)
	if s.count < p.n-1 {
		to = from + s.gso
	}
	room := slices.Grow(s.buf[:0], s.Headroom+2048)[:s.Headroom] // not nil, even for an empty frame
	s.buf = append(append(room, s.f[:p.head]...), s.f[from:to]...)
	b := s.buf[s.Headroom:]
	if p.Version != 0 {
		s.headers(b)
	}
	if p.sum >= 0 {
		// The field holds the sum of the pseudo-header, and is part of the summed bytes
		// (skb_checksum_help in net/core/dev.c).
		sum := ^Fold(Sum(b[p.start:], 0))
		if sum == 0 && p.Proto != packet.TCP {
			sum = 0xffff // RFC 768: 0 means no checksum
		}
		binary.BigEndian.PutUint16(b[p.sum:], sum)
	}
	s.count++
	return s.buf
}

// headers makes the headers of a segment out of those of the super-frame.
func (s *Segmenter) headers(b []byte) {
	p, be := &s.lay, binary.BigEndian
	if p.PPPoE > 0 { // its length of what follows
		be.PutUint16(b[p.PPPoE+4:], uint16(len(b)-p.PPPoE-6))
	}
	if p.Version == 4 {
		ip := b[p.L3:p.L4]
		be.PutUint16(ip[2:], uint16(len(b)-p.L3))
		be.PutUint16(ip[4:], be.Uint16(ip[4:])+uint16(s.count))
		ip[10], ip[11] = 0, 0
		be.PutUint16(ip[10:], ^Fold(Sum(ip, 0)))
	} else {
		be.PutUint16(b[p.L3+4:], uint16(len(b)-p.L3-40))
	}
	l4 := b[p.L4:]
	if p.Proto == packet.UDP {
		be.PutUint16(l4[4:], uint16(len(l4)))
	} else {
		be.PutUint32(l4[4:], be.Uint32(l4[4:])+uint32(s.count*s.gso))
		if s.count > 0 {
			l4[tcpFlags] &^= flagCWR
		}
		if s.count < p.n-1 {
			l4[tcpFlags] &^= flagFIN | flagPSH
		}
	}
	be.PutUint16(b[p.sum:], Fold(s.pseudo+uint64(len(l4))))
}
