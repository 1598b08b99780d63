// Package packettest makes TCP and UDP frames for tests: whole ones, and
// super-frames as a kernel hands them over. It is written plainly, with nothing
// of the code that it is to test.
package packettest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

// Spec describes a frame. Its zero value is an Ethernet frame with an empty TCP
// segment in IPv4.
type Spec struct {
	IP      bool // no Ethernet header
	Tags    int  // VLAN tags
	V6      bool
	Ext     int // an IPv6 extension header of so many times 8 bytes
	Options int // words of TCP options, or of IPv4 options if it is UDP
	UDP     bool
	Flags   byte // of TCP
	ID      uint16
	Seq     uint32
	Port    uint16 // of the source; 0 is 4096
	TOS     byte   // or traffic class
	Payload []byte
}

const (
	tcp, udp = 6, 17
	cwr      = 0x80
)

// Sum is the checksum of RFC 1071 before its complement, bytewise.
func Sum(b []byte) uint16 {
	sum := uint32(0)
	for i := range b {
		if i%2 == 0 {
			sum += uint32(b[i]) << 8
		} else {
			sum += uint32(b[i])
		}
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// headers returns the frame with its checksum field holding the sum of the
// pseudo-header, and where the transport's header and that field are.
func (s Spec) headers() (f []byte, l4, sum int) {
	be := binary.BigEndian
	if !s.IP {
		f = append(f, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1)
		for i := range s.Tags {
			f = append(f, 0x81, 0, 0, byte(100+i))
		}
		if s.V6 {
			f = append(f, 0x86, 0xdd)
		} else {
			f = append(f, 0x08, 0x00)
		}
	}
	proto, size := byte(tcp), 20+4*s.Options
	if s.UDP {
		proto, size = udp, 8
	}
	size += len(s.Payload)
	l3 := len(f)
	var pseudo []byte
	if s.V6 {
		next := proto
		if s.Ext > 0 {
			next = 60
		}
		f = append(f, 0x60|s.TOS>>4, s.TOS<<4, 0, 0, 0, 0, next, 64)
		be.PutUint16(f[l3+4:], uint16(8*s.Ext+size))
		f = append(f, "\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"...)
		pseudo = append(pseudo, f[l3+8:]...)
		if s.Ext > 0 {
			ext := make([]byte, 8*s.Ext)
			ext[0], ext[1] = proto, byte(s.Ext-1)
			ext[2], ext[3] = 1, byte(8*s.Ext-4) // PadN
			f = append(f, ext...)
		}
	} else {
		words := 5
		if s.UDP {
			words += s.Options
		}
		f = append(f, 0x40|byte(words), s.TOS, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
		pseudo = append(pseudo, f[l3+12:]...)
		f = append(f, bytes.Repeat([]byte{1}, 4*words-20)...)
		be.PutUint16(f[l3+2:], uint16(4*words+size))
		be.PutUint16(f[l3+4:], s.ID)
		be.PutUint16(f[l3+10:], ^Sum(f[l3:]))
	}
	pseudo = be.AppendUint32(append(pseudo, 0, proto), uint32(size))
	port := s.Port
	if port == 0 {
		port = 4096
	}
	l4 = len(f)
	f = be.AppendUint16(f, port)
	f = be.AppendUint16(f, 8192)
	if s.UDP {
		f = be.AppendUint16(f, uint16(size))
		sum = len(f)
		f = be.AppendUint16(f, Sum(pseudo))
	} else {
		f = be.AppendUint32(f, s.Seq)
		f = append(f, 0, 0, 0, 7, byte(5+s.Options)<<4, s.Flags, 1, 0)
		sum = len(f)
		f = be.AppendUint16(f, Sum(pseudo))
		f = append(f, 0, 0)
		f = append(f, bytes.Repeat([]byte{1}, 4*s.Options)...)
	}
	return append(f, s.Payload...), l4, sum
}

// Frame returns the frame with its checksums finished.
func (s Spec) Frame() []byte {
	f, l4, at := s.headers()
	sum := ^Sum(f[l4:])
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(f[at:], sum)
	return f
}

// Super returns it as a super-frame that is to be cut into segments of gso
// bytes, and the virtio_net_hdr that goes with it. With gso 0 only its checksum
// is still to be finished.
func (s Spec) Super(gso int) (header, frame []byte) {
	f, l4, at := s.headers()
	h := make([]byte, 10)
	h[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	if gso > 0 {
		switch {
		case s.UDP:
			h[1] = 5
		case s.V6:
			h[1] = 4
		default:
			h[1] = 1
		}
		if !s.UDP && s.Flags&cwr != 0 {
			h[1] |= 0x80
		}
	}
	le := binary.LittleEndian
	le.PutUint16(h[2:], uint16(len(f)-len(s.Payload)))
	le.PutUint16(h[4:], uint16(gso))
	le.PutUint16(h[6:], uint16(l4))
	le.PutUint16(h[8:], uint16(at-l4))
	return h, f
}

// Bytes returns n bytes that tell their place.
func Bytes(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// Odd makes a frame of a kind and a number, for fuzz tests: one of a few flows, a
// super-frame, one of which the checksum is not finished, or a part of raw bytes, alone
// or taken for a header and a frame.
func Odd(kind, x byte, raw []byte) (header, frame []byte) {
	s := Spec{
		V6: kind&8 != 0, Tags: int(kind>>4) & 1, TOS: kind >> 6, Port: 5000 + uint16(kind>>5),
		ID: uint16(x), Flags: 0x10, Payload: Bytes(5 * int(x)),
	}
	part := raw[min(int(x), len(raw)):]
	switch kind & 7 {
	case 0:
		return nil, s.Frame()
	case 1:
		s.UDP = true
		return nil, s.Frame()
	case 2, 3:
		s.UDP = kind&1 != 0
		return s.Super(1 + int(x))
	case 4:
		s.UDP = true
		return s.Super(0)
	case 5:
		return nil, part
	case 6:
		header = append(bytes.Clone(part[:min(10, len(part))]), make([]byte, max(0, 10-len(part)))...)
		return header, part
	}
	return nil, ARP(x)
}

// ARP returns a request for the address 10.0.0.x.
func ARP(x byte) []byte {
	f := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	return append(f, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, x)
}

// Solicitation returns a neighbour solicitation of IPv6, without options and with its
// checksum left out.
func Solicitation(src, dst, target netip.Addr) []byte {
	f := []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x86\xdd\x60\x00\x00\x00\x00\x18\x3a\xff")
	if to := dst.As16(); dst.IsMulticast() {
		copy(f, []byte{0x33, 0x33, to[12], to[13], to[14], to[15]})
	}
	f = append(append(f, src.AsSlice()...), dst.AsSlice()...)
	return append(append(f, 135, 0, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
}
