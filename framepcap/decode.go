package main

import (
	"fmt"
	"io"

	"framepipe/frame"
	"framepipe/internal/pcap"

	"github.com/vmihailenco/msgpack/v5"
)

// decoder writes a capture as a stream.
type decoder struct {
	src  io.Reader
	warn func(format string, args ...any)
	r    *pcap.Reader
	w    *frame.Writer
	made []byte // a frame with a made Ethernet header
	n    counters

	form cooked
	link uint16
}

func newDecoder(src io.Reader, out io.Writer, warn func(string, ...any)) *decoder {
	d := &decoder{src: src, w: frame.NewWriter(out), warn: warn}
	d.r = pcap.NewReader(d)
	return d
}

// Read reads from the source, which may block, and first writes the frames so far.
func (d *decoder) Read(p []byte) (int, error) {
	if err := d.w.Flush(); err != nil {
		return 0, err
	}
	return d.src.Read(p)
}

// run writes until the input ends. Before it returns an error, it writes all complete
// packets.
func (d *decoder) run() error {
	link, err := d.r.Header()
	if err == nil {
		err = d.header(link)
	}
	var p pcap.Packet
	for err == nil {
		if err = d.r.Next(&p); err == nil {
			err = d.packet(&p)
		}
		d.n.odd.Store(d.r.Odd)
	}
	if d.r.Odd > 0 {
		d.warn("packets with a field out of range: %d; the first is packet %d: %s", d.r.Odd, d.r.FirstOdd, d.r.FirstFault)
	}
	if flush := d.w.Flush(); flush != nil {
		return flush
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// header writes a header for frames of a link.
func (d *decoder) header(link uint16) error {
	form, ok := links[link]
	if !ok {
		return fmt.Errorf("the capture's link is of type %d; Ethernet (1), IP (101, 12, 14, 228, 229), loopback (0, 108) and Linux cooked (113, 276) can be a stream", link)
	}
	d.form, d.link = form, link
	m := map[string]any{"format": "frames", "version": 1, "link": d.form.link, "source": "pcap"}
	if link != pcap.LinkEthernet && link != pcap.LinkRaw {
		m[keyLink] = link
	}
	return d.w.Annotate(m)
}

// packet writes a packet as a frame.
func (d *decoder) packet(p *pcap.Packet) (err error) {
	if p.Link != d.link {
		if err := d.header(p.Link); err != nil {
			return err
		}
	}
	d.n.frames.Add(1)
	d.n.bytes.Add(uint64(len(p.Data)))
	rec := frame.Record{Time: p.Time, Frame: p.Data}
	if d.form.strip > 0 || p.Length != uint32(len(p.Data)) {
		rec.Extras = 1
		if rec.Extra, err = d.addition(p, &rec); err != nil {
			return err
		}
	}
	return d.w.Write(&rec)
}

// addition takes from the packet's frame what a stream has no place for, and returns it encoded.
func (d *decoder) addition(p *pcap.Packet, rec *frame.Record) ([]byte, error) {
	var o original
	if p.Length != uint32(len(p.Data)) {
		o.Length = &p.Length
	}
	if n := min(d.form.strip, len(p.Data)); n > 0 {
		o.Head, rec.Frame = p.Data[:n], p.Data[n:]
		if n == d.form.strip && d.form.link == frame.LinkEthernet { // else there is no frame
			d.made = append(d.form.appendEthernet(d.made[:0], o.Head, len(rec.Frame)), rec.Frame...)
			rec.Frame, o.Made = d.made, etherHeader
		}
	}
	return msgpack.Marshal(&o)
}
