package main

import (
	"io"

	"framepipe/frame"
	"framepipe/internal/pcap"

	"github.com/vmihailenco/msgpack/v5"
)

// decoder writes a capture as a stream.
type decoder struct {
	src  io.Reader
	r    *pcap.Reader
	w    *frame.Writer
	made []byte // a frame with a made Ethernet header
	n    counters

	form cooked
}

func newDecoder(src io.Reader, out io.Writer) *decoder {
	d := &decoder{src: src, w: frame.NewWriter(out)}
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
	err := d.begin()
	var p pcap.Packet
	for err == nil {
		if err = d.r.Next(&p); err == nil {
			err = d.packet(&p)
		}
	}
	if flush := d.w.Flush(); flush != nil {
		return flush
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// begin writes the stream's header.
func (d *decoder) begin() error {
	link, err := d.r.Header()
	if err != nil {
		return err
	}
	return d.link(link)
}

// link sets the link of the packets that follow, and writes a header if the stream has another.
func (d *decoder) link(number uint16) (err error) {
	was := d.form.link
	if d.form, err = linkOf(number); err != nil || d.form.link == was {
		return err
	}
	return d.w.Header(d.form.link, "pcap")
}

// packet writes a packet as a frame.
func (d *decoder) packet(p *pcap.Packet) error {
	if err := d.link(p.Link); err != nil {
		return err
	}
	d.n.frames.Add(1)
	d.n.bytes.Add(uint64(len(p.Data)))
	rec := frame.Record{Time: p.Time, Frame: d.frame(p.Data)}
	if p.Length != uint32(len(p.Data)) {
		whole := int64(p.Length) + int64(len(rec.Frame)-len(p.Data))
		b, err := msgpack.Marshal(addition{uint32(max(whole, 0))})
		if err != nil {
			return err
		}
		rec.Extra, rec.Extras = b, 1
	}
	return d.w.Write(&rec)
}

// frame returns the frame of a packet's data.
func (d *decoder) frame(data []byte) []byte {
	n := d.form.strip
	switch {
	case len(data) < n: // cut off in its header
		return data[:0]
	case n > 0 && d.form.link == frame.LinkEthernet:
		h := d.form.ethernet(data[:n], len(data)-n)
		d.made = append(append(d.made[:0], h[:]...), data[n:]...)
		return d.made
	}
	return data[n:]
}
