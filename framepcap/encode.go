package main

import (
	"fmt"
	"io"

	"framepipe/frame"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/pcap"
)

// gather is how many bytes of a capture are written at once at the most.
const gather = 256 << 10

// encoder writes a stream as a capture.
type encoder struct {
	r       *frame.Reader
	out     io.Writer
	segment bool
	warn    func(format string, args ...any)

	buf   []byte // the file's header and packets, not yet written
	begun bool
	link  packet.Link
	seg   offload.Segmenter
	n     counters
}

// run writes until the input ends. Frames that came whole before an error have been written.
func (e *encoder) run() error {
	err := frame.Loop(e.r, e)
	e.begin() // a capture of nothing has a header, too
	if flush := e.flush(); flush != nil {
		err = flush
	}
	return err
}

// Idle is frame.Stage's.
func (e *encoder) Idle() error { return e.flush() }

// Frame is frame.Stage's: it writes a frame.
func (e *encoder) Frame(rec *frame.Record) error {
	e.begin()
	e.frame(rec)
	if len(e.buf) < gather {
		return nil
	}
	return e.flush()
}

func (e *encoder) flush() error {
	_, err := e.out.Write(e.buf)
	e.buf = e.buf[:0]
	return err
}

// Annotation is frame.Stage's. The stream's header tells the link.
func (e *encoder) Annotation(rec *frame.Record) error {
	if !rec.IsHeader() {
		return nil
	}
	link := packet.LinkOf(e.r.Link())
	if e.begun && link != e.link {
		return &frame.FormatError{Offset: rec.Offset(), What: fmt.Sprintf("the stream's link changes from %v to %v, and a capture has one", e.link, link)}
	}
	e.link = link
	e.begin() // a reader of the capture may wait for it
	return nil
}

// begin writes the file's header, if that has not been done.
func (e *encoder) begin() {
	if e.begun {
		return
	}
	e.begun = true
	number := uint16(pcap.LinkEthernet)
	if e.link == packet.IP {
		number = pcap.LinkRaw
	}
	e.buf = pcap.AppendHeader(e.buf, number)
}

// frame writes a frame, or the segments of one.
func (e *encoder) frame(rec *frame.Record) {
	if rec.Offload == nil {
		e.packet(rec)
		return
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
		e.packet(rec)
		return
	}
	switch {
	case e.segment && super:
		e.n.segmented.Add(1)
	case h.Flags&offload.NeedsCsum != 0:
		e.n.finished.Add(1)
	}
	part := *rec
	for part.Frame = e.seg.Next(); part.Frame != nil; part.Frame = e.seg.Next() {
		e.packet(&part)
	}
}

// packet writes a frame as a packet.
func (e *encoder) packet(rec *frame.Record) {
	e.n.frames.Add(1)
	e.n.bytes.Add(uint64(len(rec.Frame)))
	if len(rec.Frame) > pcap.Snaplen {
		if e.n.cut.Add(1); e.n.cut.Load() == 1 {
			e.warn("offset %d: a frame of %d bytes is cut at %d, which is the most that readers of captures take; this and further ones are counted", rec.Offset(), len(rec.Frame), pcap.Snaplen)
		}
	}
	e.buf = pcap.AppendPacket(e.buf, rec.Time, fullLength(rec), rec.Frame)
}
