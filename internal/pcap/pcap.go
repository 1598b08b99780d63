// Package pcap reads capture files, as tcpdump and Wireshark write them, and writes those of
// the classic format (pcap-savefile(5), draft-ietf-opsawg-pcap).
//
// A classic file is a header of 24 bytes followed by packets, each with a header of 16 bytes:
// seconds and a fraction of a second since the Unix epoch, the captured length,
// and the original length. The magic number gives the byte order of
// all fields, whether the fraction is in microseconds or nanoseconds, and whether the
// header of a packet has 8 more bytes, as Kuznetzov's modified format has.
//
// The field with the file's link may also announce a frame check sequence at the end of
// each packet, which a Reader leaves out, as a stream's frames have none.
//
// A pcapng file (draft-ietf-opsawg-pcapng) is a sequence of blocks: see ng.go.
//
// A capture is untrusted input: a length over the limit is rejected, and a Reader never
// buffers more than one packet of the largest size. It reads on after a packet with
// a field out of range, and counts such packets.
package pcap

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"framepipe/frame"
)

const (
	HeaderSize = 24
	RecordSize = 16 // the header of a packet

	// MaxPacket is the longest packet a Reader accepts: the longest frame of a stream.
	MaxPacket = frame.MaxFrame
	// Snaplen is the length that AppendHeader announces and to which AppendPacket
	// truncates: libpcap's MAXIMUM_SNAPLEN. libpcap rejects a file with longer packets.
	Snaplen = 262144

	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicModified = 0xa1b2cd34 // Kuznetzov's; in microseconds

	// modifiedSize is the header of a packet of a modified file: the interface's index,
	// the protocol and the kind of packet follow the other fields.
	modifiedSize = RecordSize + 8
)

// Link types (https://www.tcpdump.org/linktypes.html).
const (
	LinkNull     = 0 // an address family in front of the packet, in host order
	LinkEthernet = 1
	LinkRawBSD   = 12 // bare IP packets, by the numbers of some systems
	LinkRawBSD2  = 14
	LinkRaw      = 101
	LinkLoop     = 108 // like LinkNull, in network order
	LinkSLL      = 113 // Linux cooked
	LinkIPv4     = 228
	LinkIPv6     = 229
	LinkSLL2     = 276
)

// Packet is a packet of a file. Its Data is valid until the next call of Next.
type Packet struct {
	Time   uint64 // nanoseconds since the Unix epoch
	Length uint32 // original length; Data may be shorter
	Data   []byte
	Link   uint16 // the link type
}

// Reader reads a file.
type Reader struct {
	// Odd is the number of packets with a field out of range. FirstOdd and FirstFault say
	// which was the first, from 1, and what is wrong with it.
	Odd        uint64
	FirstOdd   uint64
	FirstFault string

	src     *bufio.Reader
	offset  int64
	order   binary.ByteOrder
	packets uint64 // read so far, with those that were left out
	lastOdd uint64 // number of the last odd packet

	ifaces []iface // of the section
	head   uint32  // size of a packet's header in a classic file, 0 in a pcapng file
	size   uint32  // of the block at offset, 0 before its head was read
	last   uint64  // time of the last packet
}

// iface is an interface of a pcapng file, or a classic file, which is one.
type iface struct {
	link    uint16
	snaplen uint32 // 0: no limit
	fcs     uint32 // bytes of check sequence behind each packet
	units   uint64 // of time, in a second
	epoch   int64  // seconds that are added to each time
}

// NewReader returns a Reader that reads from src.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: bufio.NewReaderSize(src, packetHead+MaxPacket)}
}

// mistake guesses the kind of an input that begins with byte c and is no capture.
func mistake(c byte) string {
	switch {
	case c>>5 == 0x80>>5: // a small map or array of msgpack
		return "; streams begin so: leave out -d"
	case c == 0x1f:
		return "; compressed files begin so: zcat"
	}
	return ""
}

// Header reads the header of the file, and returns its link; of a pcapng file that of the
// first interface. It must be called before Next. The error is io.EOF for a pcapng file
// without interfaces, a *frame.FormatError if the file is not a capture, or the
// source's own.
func (r *Reader) Header() (link uint16, err error) {
	b, err := r.peek(4, "the file's header")
	if err != nil {
		return 0, err
	}
	head, i := uint32(RecordSize), iface{units: 1e6}
	magic := binary.LittleEndian.Uint32(b)
	r.order = binary.LittleEndian
	if b[0] == magicMicro>>24 {
		magic = binary.BigEndian.Uint32(b)
		r.order = binary.BigEndian
	}
	switch magic {
	case magicMicro:
	case magicNano:
		i.units = 1e9
	case magicModified:
		head = modifiedSize
	case blockSection:
		for len(r.ifaces) == 0 {
			if _, err := r.block(nil); err != nil {
				return 0, err
			}
		}
		return r.ifaces[0].link, nil
	default:
		return 0, r.damaged("not a capture: it begins with % x%s", b, mistake(b[0]))
	}
	if b, err = r.peek(HeaderSize, "the file's header"); err != nil {
		return 0, err
	}
	if major, minor := r.order.Uint16(b[4:]), r.order.Uint16(b[6:]); major != 2 || minor < 3 {
		// Before 2.3 the two lengths of a packet are in reverse order.
		return 0, r.damaged("a capture of version %d.%d, want 2.4", major, minor)
	}
	field := r.order.Uint32(b[20:])
	if field&(1<<26) != 0 {
		i.fcs = field >> 28 * 2 // in units of 16 bits
	}
	i.link, i.snaplen = uint16(field), r.order.Uint32(b[16:])
	r.head, r.ifaces = head, []iface{i}
	r.discard(HeaderSize)
	return i.link, nil
}

// Next reads the next packet. The error is io.EOF at the end of the file, a
// *frame.FormatError if it is damaged or ends inside a packet, or the source's own.
func (r *Reader) Next(p *Packet) error {
	for r.head == 0 {
		if ok, err := r.block(p); ok || err != nil {
			return err
		}
	}
	i := &r.ifaces[0]
	b, err := r.peek(int(r.head), "a packet")
	if err != nil {
		return err
	}
	fraction, size := r.order.Uint32(b[4:]), r.order.Uint32(b[8:])
	if size > MaxPacket {
		return r.damaged("a packet of %d bytes, the most is %d", size, MaxPacket)
	}
	if b, err = r.peek(int(r.head+size), "a packet"); err != nil {
		return err
	}
	r.packets++
	if uint64(fraction) >= i.units {
		r.odd("%d of %d parts of a second", fraction, i.units)
	}
	p.Time = uint64(r.order.Uint32(b))*1e9 + uint64(fraction)*(1e9/i.units)
	r.fill(p, i, r.order.Uint32(b[12:]), b[r.head:])
	r.discard(len(b))
	return nil
}

// fill sets the fields of a packet but for its time.
func (r *Reader) fill(p *Packet, i *iface, length uint32, data []byte) {
	size := uint32(len(data))
	if i.snaplen > 0 && size > i.snaplen {
		r.odd("%d bytes were captured, and the most is %d", size, i.snaplen)
	}
	p.Link, p.Length, p.Data = i.link, length, data
	if i.fcs > 0 {
		p.Length -= min(p.Length, i.fcs)
		p.Data = p.Data[:min(size, p.Length)]
	}
}

// odd counts the packet as one with a field out of range.
func (r *Reader) odd(format string, args ...any) {
	if r.lastOdd == r.packets {
		return
	}
	if r.lastOdd == 0 {
		r.FirstOdd, r.FirstFault = r.packets, fmt.Sprintf(format, args...)
	}
	r.Odd++
	r.lastOdd = r.packets
}

// peek returns the next n bytes of the file, without a step forward. what says whose they
// are: only packets may be missing at its end.
func (r *Reader) peek(n int, what string) ([]byte, error) {
	b, err := r.src.Peek(n)
	if err == io.EOF && (len(b) > 0 || r.offset == 0) {
		err = r.ends(what, len(b))
	}
	return b, err
}

// ends returns the error for an input that ends n bytes into something at offset.
func (r *Reader) ends(what string, n int) error {
	what = fmt.Sprintf("the input ends inside %s, after %d bytes of it", what, n)
	return &frame.FormatError{Offset: r.offset, What: what, Err: io.ErrUnexpectedEOF}
}

// discard steps over bytes that peek has returned.
func (r *Reader) discard(n int) {
	_, _ = r.src.Discard(n)
	r.offset += int64(n)
}

func (r *Reader) damaged(format string, args ...any) error {
	return &frame.FormatError{Offset: r.offset, What: fmt.Sprintf(format, args...)}
}

// AppendHeader appends the header of a file with nanoseconds to b, in the byte
// order of AppendPacket.
func AppendHeader(b []byte, link uint16) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, magicNano)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = le.AppendUint64(b, 0) // two fields that are always 0
	b = le.AppendUint32(b, Snaplen)
	return le.AppendUint32(b, uint32(link))
}

// AppendPacket appends a packet to b. Its data is the concatenation of parts,
// truncated to Snaplen. A time after the year 2106 becomes the latest time
// that a file can hold.
func AppendPacket(b []byte, time uint64, length uint32, parts ...[]byte) []byte {
	le := binary.LittleEndian
	seconds, fraction := time/1e9, time%1e9
	if seconds > 1<<32-1 {
		seconds, fraction = 1<<32-1, 1e9-1
	}
	b = le.AppendUint32(b, uint32(seconds))
	b = le.AppendUint32(b, uint32(fraction))
	at := len(b)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, length)
	for _, p := range parts {
		b = append(b, p...)
	}
	if most := at + 8 + Snaplen; len(b) > most {
		b = b[:most]
	}
	le.PutUint32(b[at:], uint32(len(b)-at-8))
	return b
}
