package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/pcap"

	"github.com/vmihailenco/msgpack/v5"
)

// gather is how many bytes of a capture are written at once at the most.
const gather = 256 << 10

// encoder writes a stream as a capture.
type encoder struct {
	r       *frame.Reader
	out     io.Writer
	segment bool
	warn    func(format string, args ...any)
	// onward leaves out packets that cannot be written: a tee in live traffic feeds the
	// encoder, and the traffic is worth more than the capture.
	onward bool

	buf   []byte
	head  int    // bytes of the file's header in buf
	rest  []byte // end of a packet that was written in part
	full  bool   // that it cannot be written was said
	begun bool   // the file's header has been written
	known bool   // the stream's header has been read
	field uint32 // the file's link, as its header has it
	link  packet.Link
	form  cooked
	fcs   int
	sum   []byte // a check sequence that was made
	seg   offload.Segmenter
	n     counters
}

// run writes until the input ends. Frames that came whole before an error have been written.
func (e *encoder) run() error {
	e.field, e.form = pcap.LinkEthernet, links[pcap.LinkEthernet]
	err := frame.Loop(e.r, e)
	e.begin() // a capture of nothing has a header, too
	if flush := e.flush(); flush != nil {
		err = flush
	}
	if err != nil {
		return err
	}
	if len(e.rest) > 0 {
		e.n.leftOut.Add(1)
	}
	if n := e.n.leftOut.Load(); n > 0 {
		return &fdio.WriteError{Err: fmt.Errorf("%d packets were left out", n)}
	}
	return nil
}

// Idle is frame.Stage's. A reader of the capture may wait for its header.
func (e *encoder) Idle() error {
	if e.known {
		e.begin()
	}
	return e.flush()
}

// Frame is frame.Stage's: it writes a frame.
func (e *encoder) Frame(rec *frame.Record) error {
	e.begin()
	if err := e.frame(rec); err != nil || len(e.buf) < gather {
		return err
	}
	return e.flush()
}

func (e *encoder) flush() error {
	b, head := e.buf, e.head
	e.buf, e.head = b[:0], 0
	if len(b) == 0 && len(e.rest) == 0 {
		return nil
	}
	n, err := e.out.Write(e.rest)
	e.rest = e.rest[n:]
	if err == nil {
		n, err = e.out.Write(b)
	} else {
		n = 0
	}
	if err == nil || !e.onward {
		e.full = e.full && err != nil
		return err
	}
	if !e.full {
		e.full = true
		e.warn("stdout: %v; packets are left out until that is over", err)
	}
	// The packet that was cut is finished first when there is room again, so that
	// the file is a capture.
	at := head
	for at < n {
		at += pcap.PacketLen(b[at:])
	}
	e.rest = append(e.rest, b[n:at]...)
	for ; at < len(b); at += pcap.PacketLen(b[at:]) {
		e.n.leftOut.Add(1)
	}
	return nil
}

// Annotation is frame.Stage's. The stream's header tells the link.
func (e *encoder) Annotation(rec *frame.Record) error {
	if !rec.IsHeader() {
		return nil
	}
	var h struct {
		Link *uint32 `msgpack:"pcap_link"`
	}
	if msgpack.Unmarshal(rec.Raw(), &h) != nil {
		h.Link = nil // not ours
	}
	e.known = true
	link, err := packet.ParseLink(e.r.Link())
	if err != nil {
		return err
	}
	if e.begun {
		if link != e.link {
			return &frame.FormatError{Offset: rec.Offset(), What: fmt.Sprintf("the stream's link changes from %v to %v, and a capture has one", e.link, link)}
		}
		return nil
	}
	e.link, e.field = link, pcap.LinkEthernet
	if link == packet.IP {
		e.field = pcap.LinkRaw
	}
	if h.Link != nil {
		if c, ok := links[uint16(*h.Link)]; ok && c.link == e.r.Link() {
			e.field = *h.Link
		}
	}
	e.form, e.fcs = links[uint16(e.field)], pcap.FCS(e.field)
	return nil
}

// begin writes the file's header, if that has not been done.
func (e *encoder) begin() {
	if !e.begun {
		e.begun = true
		e.buf = pcap.AppendHeader(e.buf, e.field)
		e.head = len(e.buf)
	}
}

// frame writes a frame, or the segments of one.
func (e *encoder) frame(rec *frame.Record) error {
	if rec.Offload == nil {
		return e.original(rec)
	}
	h, err := offload.Parse(rec.Offload)
	super := h.Super()
	if !e.segment {
		h.GSOType = 0
	}
	if err == nil {
		err = e.seg.Start(h, rec.Frame, e.link)
	}
	if err != nil {
		if e.n.malformed.Add(1); e.n.malformed.Load() == 1 {
			e.warn("offset %d: written as it is: %v; this and further ones are counted", rec.Offset(), err)
		}
		return e.original(rec)
	}
	switch {
	case e.segment && super:
		e.n.segmented.Add(1)
	case h.Flags&offload.NeedsCsum != 0:
		e.n.finished.Add(1)
	}
	part := *rec
	for part.Frame = e.seg.Next(); part.Frame != nil; part.Frame = e.seg.Next() {
		if err := e.original(&part); err != nil {
			return err
		}
	}
	return nil
}

// original writes a frame as it stood in a capture, if it came from one.
func (e *encoder) original(rec *frame.Record) error {
	o := restore(rec)
	if e.form.strip == 0 { // the file has frames as they are in the stream
		if o.head != nil {
			o = original{length: uint32(len(rec.Frame))}
		}
	} else if o.head == nil {
		return e.foreign(rec, keyHead)
	}
	size := len(o.head) + len(rec.Frame) - o.made
	switch {
	case e.fcs == 0 && o.tail != nil:
		o.length -= min(o.length, uint32(len(o.tail)))
		o.tail = nil
	case e.fcs > 0 && o.tail == nil && size >= e.fcs && o.length == uint32(size): // whole, and from elsewhere
		if e.fcs != checkSequence || e.field&0xffff != pcap.LinkEthernet {
			return e.foreign(rec, keyTail)
		}
		e.sum = binary.LittleEndian.AppendUint32(e.sum[:0], crc32.ChecksumIEEE(rec.Frame))
		o.tail = e.sum
		o.length += checkSequence
	}
	e.n.frames.Add(1)
	e.n.bytes.Add(uint64(len(rec.Frame)))
	if size+len(o.tail) > pcap.Snaplen {
		if e.n.cut.Add(1); e.n.cut.Load() == 1 {
			e.warn("offset %d: a frame of %d bytes is cut at %d, which is the most that readers of captures take; this and further ones are counted", rec.Offset(), len(rec.Frame), pcap.Snaplen)
		}
	}
	e.buf = pcap.AppendPacket(e.buf, rec.Time, o.length, o.head, rec.Frame[o.made:], o.tail)
	return nil
}

// checkSequence is the length of Ethernet's, in bytes: the CRC-32 of the frame.
const checkSequence = 4

func (e *encoder) foreign(rec *frame.Record, key string) error {
	return &frame.FormatError{Offset: rec.Offset(), What: fmt.Sprintf("the stream began as a capture of link type %d, and this frame has not the %s of one", uint16(e.field), key), Err: errForeign}
}

var errForeign = errors.New("frames of two kinds")
