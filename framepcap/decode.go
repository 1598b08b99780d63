package main

import (
	"io"

	"framepipe/frame"
	"framepipe/internal/pcap"
)

// decoder writes a capture as a stream.
type decoder struct {
	r *pcap.Reader
	w *frame.Writer

	begun  bool
	header pcap.Header
	form   cooked
	made   []byte // a frame with a made Ethernet header
	extra  []byte
	n      counters
}

// run writes until the input ends. Before it returns an error, it writes all complete
// packets.
func (d *decoder) run() error {
	var p pcap.Packet
	for {
		ok, err := d.r.Buffered(&p)
		if err == nil && !d.begun && d.r.Begun() {
			err = d.begin()
		}
		switch {
		case err != nil:
		case ok:
			err = d.packet(&p)
		default:
			if err = d.w.Flush(); err == nil {
				err = d.r.Fill()
			}
		}
		if err == nil {
			continue
		}
		if flush := d.w.Flush(); flush != nil {
			err = flush
		}
		if err == io.EOF {
			return nil
		}
		return err
	}
}

// begin writes the stream's header.
func (d *decoder) begin() (err error) {
	d.begun, d.header = true, d.r.Header()
	if d.form, err = linkOf(d.header.Link); err != nil {
		return err
	}
	m := map[string]any{"format": "frames", "version": 1, "link": d.form.link, "source": "pcap"}
	if f := d.header.Field; f != pcap.LinkEthernet && f != pcap.LinkRaw {
		m[keyLink] = f
	}
	return d.w.Annotate(m)
}

// packet writes a packet as a frame.
func (d *decoder) packet(p *pcap.Packet) error {
	d.n.frames.Add(1)
	d.n.bytes.Add(uint64(len(p.Data)))
	rec := frame.Record{Time: p.Time, Frame: p.Data}
	o := original{length: p.Length}
	if fcs := d.header.FCS; fcs > 0 && p.Length == uint32(len(p.Data)) && fcs <= len(p.Data) {
		at := len(p.Data) - fcs
		rec.Frame, o.tail = p.Data[:at], p.Data[at:]
	}
	if n := d.form.strip; n > 0 {
		if n > len(rec.Frame) { // truncated within the header: there is no frame
			o.head, rec.Frame = rec.Frame, rec.Frame[len(rec.Frame):]
		} else if o.head, rec.Frame = rec.Frame[:n], rec.Frame[n:]; d.form.link == frame.LinkEthernet {
			h := d.form.ethernet(o.head, len(rec.Frame))
			d.made = append(append(d.made[:0], h[:]...), rec.Frame...)
			rec.Frame, o.made = d.made, etherHeader
		}
	}
	d.extra, rec.Extras = o.addition(d.extra[:0], len(p.Data))
	rec.Extra = d.extra
	return d.w.Write(&rec)
}
