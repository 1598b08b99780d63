package offload

import (
	"encoding/binary"
	"errors"

	"framepipe/internal/packet"
)

const HeaderSize = 10

type Header struct {
	Flags, GSOType                         uint8
	HdrLen, GSOSize, CsumStart, CsumOffset uint16
}

func Needed(h []byte) bool { return h[0]&1 != 0 || h[1] != 0 }

func Parse(b []byte) (h Header, err error) {
	if len(b) != 10 {
		return h, errors.New("bad length")
	}
	return Header{b[0], b[1], binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), binary.LittleEndian.Uint16(b[8:])}, nil
}

func (h Header) Super() bool { return h.GSOType&^0x80 != 0 }

func Measure(h Header, f []byte, size int, link packet.Link) (n, head, last int, err error) {
	l := packet.Dissect(f, link)
	if l.Proto == 6 && l.L4+13 <= len(f) {
		head = l.L4 + int(f[l.L4+12]>>4)*4
	} else {
		head = l.L4 + 8
	}
	if h.GSOSize == 0 {
		return 0, 0, 0, errors.New("gso size 0")
	}
	pay := size - head
	n = (pay + int(h.GSOSize) - 1) / int(h.GSOSize)
	return n, head, head + pay - (n-1)*int(h.GSOSize), nil
}

func Split(h Header, f []byte, link packet.Link) (n, head, last int, err error) {
	return Measure(h, f, len(f), link)
}

type Segmenter struct{ buf []byte }

func sum(b []byte, s uint64) uint64 {
	for len(b) >= 4 {
		s += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) > 0 {
		s += uint64(b[0]) << 8
	}
	return s
}
func fold(s uint64) uint16 {
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func (s *Segmenter) Segment(h Header, f []byte, link packet.Link, emit func([]byte) error) error {
	l := packet.Dissect(f, link)
	n, head, _, err := Measure(h, f, len(f), link)
	gso := int(h.GSOSize)
	if !h.Super() {
		n, head, gso = 1, int(h.CsumStart)+int(h.CsumOffset)+2, len(f)
		s.buf = append(s.buf[:0], f...)
		if h.Flags&1 != 0 {
			c := int(h.CsumStart) + int(h.CsumOffset)
			binary.BigEndian.PutUint16(s.buf[c:], fold(sum(s.buf[h.CsumStart:], 0)))
		}
		return emit(s.buf)
	}
	if err != nil {
		return err
	}
	seq := binary.BigEndian.Uint32(f[l.L4+4:])
	id := binary.BigEndian.Uint16(f[l.L3+4:])
	for i := range n {
		p := f[head+i*gso : min(len(f), head+(i+1)*gso)]
		s.buf = append(append(s.buf[:0], f[:head]...), p...)
		b := s.buf
		var ps uint64
		if l.Version == 4 {
			binary.BigEndian.PutUint16(b[l.L3+2:], uint16(len(b)-l.L3))
			binary.BigEndian.PutUint16(b[l.L3+4:], id+uint16(i))
			binary.BigEndian.PutUint16(b[l.L3+10:], 0)
			binary.BigEndian.PutUint16(b[l.L3+10:], fold(sum(b[l.L3:l.L4], 0)))
			ps = sum(b[l.L3+12:l.L3+20], 0)
		} else {
			binary.BigEndian.PutUint16(b[l.L3+4:], uint16(len(b)-l.L3-40))
			ps = sum(b[l.L3+8:l.L3+40], 0)
		}
		ps += uint64(l.Proto) + uint64(len(b)-l.L4)
		binary.BigEndian.PutUint32(b[l.L4+4:], seq+uint32(i*gso))
		if i < n-1 {
			b[l.L4+13] &^= 9
		}
		binary.BigEndian.PutUint16(b[l.L4+16:], 0)
		binary.BigEndian.PutUint16(b[l.L4+16:], fold(sum(b[l.L4:], ps)))
		if err := emit(b); err != nil {
			return err
		}
	}
	return nil
}
