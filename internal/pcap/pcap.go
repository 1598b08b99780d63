// Package pcap reads and writes classic capture files, as tcpdump does
// (pcap-savefile(5), draft-ietf-opsawg-pcap).
//
// A file is a header of 24 bytes followed by packets, each with a header of 16 bytes:
// seconds and a fraction of a second since the Unix epoch, the captured length,
// and the original length. The magic number gives the byte order of
// all fields, and whether the fraction is in microseconds or nanoseconds.
//
// A capture is untrusted input: a length over the limit is rejected before memory
// is allocated, and a Reader never buffers more than one packet of the largest size
// and one read after it.
package pcap

import (
	"encoding/binary"
	"errors"
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
	magicModified = 0xa1b2cd34 // Kuznetzov's patched libpcap
	magicNG       = 0x0a0d0d0a // a pcapng section header, the same in both byte orders

	readSize = 256 << 10
	// maxEmptyReads is how many times in a row a source may return neither data nor
	// an error, which io.Reader allows.
	maxEmptyReads = 100
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

// Header is the header of a file.
type Header struct {
	Order   binary.ByteOrder
	Nano    bool   // times are in nanoseconds, else microseconds
	Snaplen uint32 // announced by the file; packets may be longer
	Field   uint32 // the link type, and in the upper bits the length of the check sequence
	Link    uint16
	FCS     int // bytes of frame check sequence at the end of each packet
}

// FCS returns the number of bytes of frame check sequence that a Header's Field announces.
func FCS(field uint32) int {
	if field&(1<<26) == 0 {
		return 0
	}
	return int(field>>28) * 2 // in units of 16 bits
}

// Packet is a packet of a file. Its Data is valid until the next Fill.
type Packet struct {
	Time   uint64 // nanoseconds since the Unix epoch
	Length uint32 // original length; Data may be shorter
	Data   []byte
}

// ErrNG is the error for a pcapng file.
var ErrNG = errors.New("this is pcapng, not classic pcap")

// Reader reads a file.
type Reader struct {
	src    io.Reader
	buf    []byte
	r, w   int
	offset int64
	header Header
	begun  bool
	err    error
}

// NewReader returns a Reader that reads from src.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, buf: make([]byte, readSize)}
}

// Header returns the file's header. It is valid once Begun returns true.
func (r *Reader) Header() Header { return r.header }

// Begun reports whether the header has been read.
func (r *Reader) Begun() bool { return r.begun }

// Buffered sets p to the next packet if all of it has been read, and reports
// whether it did.
func (r *Reader) Buffered(p *Packet) (bool, error) {
	if r.err != nil {
		return false, r.err
	}
	if !r.begun {
		if ok, err := r.begin(); !ok || err != nil {
			return false, err
		}
	}
	b := r.buf[r.r:r.w]
	if len(b) < RecordSize {
		return false, nil
	}
	o := r.header.Order
	fraction, size := o.Uint32(b[4:]), o.Uint32(b[8:])
	if size > MaxPacket {
		return false, r.fail("a packet of %d bytes, the most is %d", size, MaxPacket)
	}
	unit, most := uint64(1000), uint32(1e6)
	if r.header.Nano {
		unit, most = 1, 1e9
	}
	if fraction >= most {
		return false, r.fail("invalid time: %d of %d parts of a second", fraction, most)
	}
	end := RecordSize + int(size)
	if len(b) < end {
		return false, nil
	}
	p.Time = uint64(o.Uint32(b))*1e9 + uint64(fraction)*unit
	p.Length = o.Uint32(b[12:])
	p.Data = b[RecordSize:end:end]
	r.r += end
	r.offset += int64(end)
	return true, nil
}

// Begins reports whether b begins with the magic number of a capture, even of a format
// that a Reader rejects.
func Begins(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	for _, magic := range []uint32{magicMicro, magicNano, magicModified, magicNG} {
		if binary.LittleEndian.Uint32(b) == magic || binary.BigEndian.Uint32(b) == magic {
			return true
		}
	}
	return false
}

// begin reads the header of the file.
func (r *Reader) begin() (bool, error) {
	b := r.buf[r.r:r.w]
	if len(b) < 4 {
		return false, nil
	}
	h := &r.header
	switch little, big := binary.LittleEndian.Uint32(b), binary.BigEndian.Uint32(b); {
	case little == magicMicro || little == magicNano:
		h.Order, h.Nano = binary.LittleEndian, little == magicNano
	case big == magicMicro || big == magicNano:
		h.Order, h.Nano = binary.BigEndian, big == magicNano
	case big == magicNG:
		r.err = ErrNG
		return false, r.err
	case little == magicModified || big == magicModified:
		return false, r.fail("a capture in Kuznetzov's modified format (magic number a1b2cd34)")
	default:
		return false, r.fail("not a capture: it begins with % x", b[:4])
	}
	if len(b) < HeaderSize {
		return false, nil
	}
	if major, minor := h.Order.Uint16(b[4:]), h.Order.Uint16(b[6:]); major != 2 || minor < 3 {
		// Before 2.3 the two lengths of a packet are in reverse order.
		return false, r.fail("a capture of version %d.%d, want 2.4", major, minor)
	}
	h.Snaplen = h.Order.Uint32(b[16:])
	h.Field = h.Order.Uint32(b[20:])
	h.Link, h.FCS = uint16(h.Field), FCS(h.Field)
	r.begun = true
	r.r += HeaderSize
	r.offset += HeaderSize
	return true, nil
}

func (r *Reader) fail(format string, args ...any) error {
	r.err = &frame.FormatError{Offset: r.offset, What: fmt.Sprintf(format, args...)}
	return r.err
}

// Fill reads once from the source, which may block. The error is io.EOF at the
// end of the file, a *frame.FormatError if it ends inside a packet or its
// header, or the source's own.
func (r *Reader) Fill() error {
	if r.err != nil {
		return r.err
	}
	have := copy(r.buf, r.buf[r.r:r.w])
	r.r, r.w = 0, have
	if have == len(r.buf) {
		buf := make([]byte, RecordSize+MaxPacket+readSize)
		copy(buf, r.buf)
		r.buf = buf
	}
	n, err := 0, error(nil)
	for tries := 0; n == 0 && err == nil; tries++ {
		if n, err = r.src.Read(r.buf[r.w:]); tries == maxEmptyReads && err == nil {
			err = io.ErrNoProgress
		}
	}
	if n > 0 {
		r.w += n
		return nil // the next Read returns any error again
	}
	if errors.Is(err, io.EOF) && (have > 0 || !r.begun) {
		what := "a packet"
		if !r.begun {
			what = "the file's header"
		}
		err = &frame.FormatError{Offset: r.offset, What: fmt.Sprintf("the input ends inside %s, after %d bytes of it", what, have), Err: io.ErrUnexpectedEOF}
	}
	r.err = err
	return err
}

// AppendHeader appends the header of a file with nanoseconds to b, in the byte
// order of AppendPacket. field is a link type, or the Field of a Header.
func AppendHeader(b []byte, field uint32) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, magicNano)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = le.AppendUint64(b, 0) // two fields that are always 0
	b = le.AppendUint32(b, Snaplen)
	return le.AppendUint32(b, field)
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

// PacketLen returns the length, with header, of the packet at the start of b, which
// AppendPacket must have written.
func PacketLen(b []byte) int { return RecordSize + int(binary.LittleEndian.Uint32(b[8:])) }
