package main

import (
	"fmt"
	"io"

	"framepipe/frame"
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

	buf    []byte // the file's header and packets, not yet written
	begun  bool
	number uint16 // the file's link
	link   packet.Link
	seg    offload.Segmenter
	n      counters
}

// run writes until the input ends. Frames that came whole before an error have been written.
func (e *encoder) run() error {
	e.number = pcap.LinkEthernet
	err := frame.Loop(e.r, e)
	e.begin() // a capture of nothing has a header, too
	if idle := e.Idle(); idle != nil {
		err = idle
	}
	return err
}

// Idle is frame.Stage's: it writes the gathered bytes.
func (e *encoder) Idle() error {
	_, err := e.out.Write(e.buf)
	e.buf = e.buf[:0]
	return err
}

// Frame is frame.Stage's: it writes a frame.
func (e *encoder) Frame(rec *frame.Record) error {
	e.begin()
	if err := e.frame(rec); err != nil || len(e.buf) < gather {
		return err
	}
	return e.Idle()
}

// Annotation is frame.Stage's. The stream's header tells the link.
func (e *encoder) Annotation(rec *frame.Record) error {
	if !rec.IsHeader() {
		return nil
	}
	link, number := packet.LinkOf(e.r.Link()), uint16(pcap.LinkEthernet)
	if link == packet.IP {
		number = pcap.LinkRaw
	}
	plain := number
	var h struct {
		Link *uint16 `msgpack:"pcap_link"`
	}
	if err := msgpack.Unmarshal(rec.Raw(), &h); err == nil && h.Link != nil && links[*h.Link].link == e.r.Link() {
		number = *h.Link
	}
	if e.begun {
		if e.number != number && e.number != plain {
			return &frame.FormatError{Offset: rec.Offset(), What: fmt.Sprintf("the stream's link changes from %v to %v (link type %d to %d), and a capture has one", e.link, link, e.number, number)}
		}
		return nil
	}
	e.number = number
	e.link = link
	e.begin() // a reader of the capture may wait for it
	return nil
}

// begin writes the file's header, if that has not been done.
func (e *encoder) begin() {
	if !e.begun {
		e.begun = true
		e.buf = pcap.AppendHeader(e.buf, e.number)
	}
}

// frame writes a frame, or the segments of one.
func (e *encoder) frame(rec *frame.Record) error {
	if rec.Offload == nil {
		return e.original(rec)
	}
	h, err := offload.Parse(rec.Offload)
	if !e.segment {
		h.GSOType = 0
	}
	if err == nil {
		err = e.seg.Start(h, rec.Frame, e.link)
	}
	if err != nil {
		if e.n.malformed.Add(1) == 1 {
			e.warn("offset %d: written as it is: %v; this and further ones are counted", rec.Offset(), err)
		}
		return e.original(rec)
	}
	switch {
	case h.Super():
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
	o, strip := restore(rec), links[e.number].strip
	switch {
	case strip == 0 && o.Head != nil: // the file has frames as they are in the stream
		o = original{}
	case strip > 0 && o.Head == nil && len(rec.Frame) > 0:
		return &frame.FormatError{Offset: rec.Offset(), What: fmt.Sprintf("the stream began as a capture of link type %d, and this frame has not the pcap_head of one", e.number)}
	}
	size := len(o.Head) + len(rec.Frame) - o.Made
	length := uint32(size)
	if o.Length != nil {
		length = *o.Length
	}
	e.n.frames.Add(1)
	e.n.bytes.Add(uint64(len(rec.Frame)))
	if size > pcap.Snaplen {
		if e.n.cut.Add(1) == 1 {
			e.warn("offset %d: a frame of %d bytes is cut at %d, which is the most that readers of captures take; this and further ones are counted", rec.Offset(), len(rec.Frame), pcap.Snaplen)
		}
	}
	e.buf = pcap.AppendPacket(e.buf, rec.Time, length, o.Head, rec.Frame[o.Made:])
	return nil
}
