package pcap

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
)

// A pcapng file is a sequence of blocks. A block is its type, its length, a body, and its length
// again; the lengths count all of these. A section header begins a section and sets the byte
// order of its blocks. Packets refer by number to the interface descriptions in their section.
// Blocks of other types are skipped.

// Types of blocks.
const (
	blockSection   = 0x0a0d0d0a // the same in both byte orders
	blockInterface = 1
	blockObsolete  = 2 // a packet, before there were enhanced ones
	blockSimple    = 3
	blockEnhanced  = 6
)

const (
	byteOrder = 0x1a2b3c4d

	leastBlock = 12
	mostBlock  = 16 << 20 // as in libpcap; a longer one is damage
	mostIfaces = 1 << 16

	sectionHead   = 16 // bytes of a block up to the version
	interfaceHead = 16 // bytes of a block in front of its options
	simpleHead    = 12 // bytes in front of a packet
	packetHead    = 28
)

// Options of an interface description.
const (
	optionEnd        = 0
	optionResolution = 9
	optionFCS        = 13
	optionOffset     = 14
)

var optionSizes = map[uint16]int{optionResolution: 1, optionFCS: 1, optionOffset: 8}

// block reads a block, and reports whether it has filled p with a packet. Without p, it counts
// packets as odd: there is no interface yet.
func (r *Reader) block(p *Packet) (ok bool, err error) {
	if err := r.endBlock(); err != nil {
		return false, err
	}
	b, err := r.peek(leastBlock, "a block")
	if err != nil {
		return false, err
	}
	if binary.BigEndian.Uint32(b) == blockSection {
		r.order = binary.LittleEndian
		if binary.BigEndian.Uint32(b[8:]) == byteOrder {
			r.order = binary.BigEndian
		}
	}
	kind, size := r.order.Uint32(b), r.order.Uint32(b[4:])
	if size < leastBlock || size > mostBlock || size%4 != 0 {
		return false, r.damaged("a block of %d bytes, want a multiple of 4 of at most %d", size, mostBlock)
	}
	r.size = size
	switch kind {
	case blockSection:
		return false, r.beginSection()
	case blockInterface:
		return false, r.describe()
	case blockEnhanced, blockObsolete, blockSimple:
		r.packets++
		return r.packet(kind, p)
	}
	return false, nil
}

// endBlock steps over the block at offset, whose length must be the same at its end.
func (r *Reader) endBlock() error {
	if r.size == 0 {
		return nil
	}
	n, err := r.src.Discard(int(r.size) - 4)
	b, more := r.src.Peek(4)
	if err = cmp.Or(err, more); err == io.EOF {
		return r.ends(fmt.Sprintf("a block of %d bytes", r.size), n+len(b))
	}
	if err != nil {
		return err
	}
	if again := r.order.Uint32(b); again != r.size {
		return r.damaged("a block of %d bytes that says %d at its end", r.size, again)
	}
	_, _ = r.src.Discard(4)
	r.offset += int64(r.size)
	r.size = 0
	return nil
}

func (r *Reader) beginSection() error {
	b, err := r.peek(sectionHead, "a section header")
	if err != nil {
		return err
	}
	if order := r.order.Uint32(b[8:]); order != byteOrder || r.size < sectionHead+leastBlock {
		return r.damaged("an invalid section header: % x", b)
	}
	if major := r.order.Uint16(b[12:]); major != 1 {
		return r.damaged("a capture of pcapng version %d, want 1", major)
	}
	r.ifaces = r.ifaces[:0]
	return nil
}

// describe reads the description of an interface.
func (r *Reader) describe() error {
	if r.size < interfaceHead+4 || r.size > MaxPacket || len(r.ifaces) == mostIfaces {
		return r.damaged("an interface description of %d bytes, number %d of the section", r.size, len(r.ifaces)+1)
	}
	b, err := r.peek(int(r.size), "an interface description")
	if err != nil {
		return err
	}
	i := iface{link: r.order.Uint16(b[8:]), snaplen: r.order.Uint32(b[12:]), units: 1e6}
	for b = b[interfaceHead : r.size-4]; len(b) >= 4; {
		code, size := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
		if code == optionEnd {
			break
		}
		b = b[4:]
		if size > len(b) {
			return r.damaged("an option of %d bytes in an interface description, and %d bytes are left", size, len(b))
		}
		if !i.option(code, b[:size], r.order) {
			return r.damaged("invalid option %d in an interface description: % x", code, b[:min(size, 16)])
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	r.ifaces = append(r.ifaces, i)
	return nil
}

// option sets what an option says, and reports whether that is valid.
func (i *iface) option(code uint16, v []byte, order binary.ByteOrder) bool {
	if want, known := optionSizes[code]; known && len(v) != want {
		return false
	}
	switch code {
	case optionResolution:
		n := int(v[0] & 0x7f)
		if v[0] != byte(n) { // a power of 2
			i.units = 1 << n
			return n < 64
		}
		i.units = 1
		for range min(n, 20) {
			i.units *= 10
		}
		return n < 20
	case optionFCS:
		i.fcs = uint32(v[0])
		if i.fcs > 8 { // bits, as the draft says; many programs write bytes, as in its example
			i.fcs /= 8
		}
	case optionOffset:
		i.epoch = int64(order.Uint64(v))
	}
	return true
}

// packet fills p with the packet of the block, and reports whether it could. If not, the packet
// is left out and counted.
func (r *Reader) packet(kind uint32, p *Packet) (bool, error) {
	head, id, captured := uint32(packetHead), uint32(0), uint32(0)
	if kind == blockSimple {
		head = simpleHead
	}
	if r.size < head+4 {
		r.odd("a block of %d bytes", r.size)
		return false, nil
	}
	b, err := r.peek(int(head), "a packet")
	if err != nil {
		return false, err
	}
	switch kind {
	case blockEnhanced:
		id, captured = r.order.Uint32(b[8:]), r.order.Uint32(b[20:])
	case blockObsolete:
		id, captured = uint32(r.order.Uint16(b[8:])), r.order.Uint32(b[20:])
	}
	if id >= uint32(len(r.ifaces)) {
		r.odd("interface %d, and the section has %d", id, len(r.ifaces))
		return false, nil
	}
	i := &r.ifaces[id]
	length := r.order.Uint32(b[head-4:])
	if kind == blockSimple {
		if captured = min(length, r.size-head-4); i.snaplen > 0 {
			captured = min(captured, i.snaplen)
		}
	}
	if captured > min(r.size-head-4, MaxPacket) {
		r.odd("%d bytes were captured, in a block of %d, and the most is %d", captured, r.size, MaxPacket)
		return false, nil
	}
	if b, err = r.peek(int(head+captured), "a packet"); err != nil {
		return false, err
	}
	if kind != blockSimple {
		t, ok := uint64(r.order.Uint32(b[12:]))<<32|uint64(r.order.Uint32(b[16:])), false
		if r.last, ok = i.time(t); !ok {
			r.odd("a time of %d/%d s, from %d s on", t, i.units, i.epoch)
		}
	}
	p.Time = r.last // a simple packet has none: it takes that of the one before
	r.fill(p, i, length, b[head:])
	return true, nil
}

// time returns the nanoseconds since the Unix epoch for a time in the interface's units. ok is
// false if they do not fit: then ns is the nearest time that does.
func (i *iface) time(t uint64) (ns uint64, ok bool) {
	const most = 1 << 61 // no time is as late, and a sum of two does not overflow
	seconds := int64(min(t/i.units, most)) + min(i.epoch, most)
	switch {
	case t/i.units >= most || seconds >= math.MaxUint64/1_000_000_000:
		return math.MaxUint64, false
	case seconds < 0:
		return 0, false
	}
	hi, lo := bits.Mul64(t%i.units, 1e9)
	ns, _ = bits.Div64(hi, lo, i.units)
	return uint64(seconds)*1e9 + ns, true
}
