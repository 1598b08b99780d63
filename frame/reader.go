package frame

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/vmihailenco/msgpack/v5"
)

// readSize is how much a Reader reads at once: four super-frames, or four times the
// default pipe buffer. More was no faster, and this much fits into a core's cache.
const readSize = 256 << 10

// maxHeader bounds the size of a stream's header. Writer.Header writes about 60 bytes.
const maxHeader = 4 << 10

// The links of streams.
const (
	LinkEthernet = "ethernet"
	LinkIP       = "ip"
)

// Reader reads a stream. Its memory is bounded by the largest value.
type Reader struct {
	src     io.Reader
	buf     []byte
	r, w    int // buf[r:w] was read and not yet delivered
	offset  int64
	scanner scanner
	need    int // size of the frame at r, 0 if unknown
	short   int // number of reads that are to be short
	holder  *Writer
	err     error
	link    string
	source  string
}

// NewReader returns a Reader of src. The Reader delivers the values that one Read
// returned before it calls Read again.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, buf: make([]byte, Headroom+readSize), r: Headroom, w: Headroom, link: LinkEthernet}
}

// Link returns the link, LinkEthernet or LinkIP, of the last header delivered.
func (r *Reader) Link() string { return r.link }

// Source returns the source that the last header named, "" if it named none.
func (r *Reader) Source() string { return r.source }

// Offset returns the offset in the stream of the next value.
func (r *Reader) Offset() int64 { return r.offset }

// Next delivers the next value. The error is io.EOF at the end of the stream,
// a *FormatError if the stream is damaged, or the source's own. An error is final.
func (r *Reader) Next(rec *Record) error {
	for {
		if ok, err := r.Buffered(rec); ok || err != nil {
			return err
		}
		if err := r.Fill(); err != nil {
			return err
		}
	}
}

// Buffered delivers the next value if all of it has been read, and reports whether it
// has. Records delivered since the last Fill stay valid.
func (r *Reader) Buffered(rec *Record) (bool, error) {
	b := r.buf[r.r:r.w]
	head, n := canonical(b, rec)
	if head == 0 {
		return r.foreign(b, rec)
	}
	if n > MaxFrame {
		return false, r.fail(tooLong(n))
	}
	if end := head + int(n); len(b) >= end {
		rec.Frame = b[head:end:end]
		rec.Extra, rec.Extras = nil, 0
		rec.at = r.r + head
		r.deliver(rec, end)
		return true, nil
	}
	r.need = head + int(n)
	return false, nil
}

// Ahead delivers the beginning of a frame that has been read in part: its time, its
// offload and the first bytes. missing is the number of bytes still to be read. It is
// 0 if there is no such frame, or if its encoding is not canonical. After Skip the
// Reader no longer expects them.
//
// A stage that needs only the headers of a frame can thus have the kernel move the
// rest from pipe to pipe.
func (r *Reader) Ahead(rec *Record) (missing int) {
	b := r.buf[r.r:r.w]
	if r.need <= len(b) {
		return 0
	}
	head, _ := canonical(b, rec)
	rec.Frame = b[head:len(b):len(b)]
	rec.Extra, rec.Extras = nil, 0
	rec.src, rec.start, rec.end, rec.at = r, r.r, r.w, r.r+head
	return r.need - len(b)
}

// Skip skips the frame that Ahead delivered. The next value follows it. The next two reads
// are short, as the frames that follow are probably skipped, too.
func (r *Reader) Skip() {
	r.short = 2
	r.offset += int64(r.need)
	r.need = 0
	r.scanner.reset()
	r.r, r.w = Headroom, Headroom
}

func (r *Reader) deliver(rec *Record, size int) {
	rec.src, rec.start, rec.end = r, r.r, r.r+size
	r.r += size
	r.offset += int64(size)
	r.need = 0
	r.scanner.reset() // it may have scanned part of a canonical head that came in two reads
}

// foreign delivers a value that is not in the canonical encoding.
func (r *Reader) foreign(b []byte, rec *Record) (bool, error) {
	if len(b) == 0 || r.err != nil {
		return false, r.err
	}
	// Reject garbage by its first byte: the scanner would search it for the end of a value.
	if e, _ := parse(b); e.kind != anArray && e.kind != aMap {
		return false, r.fail(fmt.Errorf("found %s (byte 0x%02x), want an array (a frame) or a map (an annotation)%s", e.kind, b[0], mistake(b[0], r.offset == 0)))
	}
	done, err := r.scanner.scan(b)
	if done {
		b = b[:r.scanner.pos:r.scanner.pos]
		err = foreign(b, rec)
		if err == nil && rec.IsAnnotation() {
			rec.header, err = r.header(b)
		}
	}
	if err != nil {
		return false, r.fail(err)
	}
	if !done {
		return false, nil
	}
	rec.at += r.r
	r.deliver(rec, len(b))
	return true, nil
}

// mistake guesses the kind of an input that has byte c where a value should begin. first says that
// c is the first byte of the input. One byte is enough: with more, the message would depend on the
// sizes of reads.
func mistake(c byte, first bool) string {
	switch {
	case first && (c == 0xd4 || c == 0x4d || c == 0x0a): // pcap, in microseconds or nanoseconds, and pcapng
		return "; captures begin so: framepcap -d makes them streams"
	case c == 0x1f:
		return "; compressed files begin so: zcat"
	case ' ' <= c && c <= '~' || c == '\n':
		return fmt.Sprintf("; this is text, %q: a stage must not print to its standard output", c)
	}
	return ""
}

func (r *Reader) fail(err error) error {
	if r.err == nil {
		r.err = &FormatError{Offset: r.offset, What: err.Error()}
	}
	return r.err
}

// header reports whether an annotation is the header of a stream, and takes its link and source.
func (r *Reader) header(b []byte) (bool, error) {
	if len(b) > maxHeader || !bytes.Contains(b, []byte("format")) {
		return false, nil
	}
	var h struct {
		Format  string             `msgpack:"format"`
		Version int64              `msgpack:"version"`
		Link    string             `msgpack:"link"`
		Source  msgpack.RawMessage `msgpack:"source"`
	}
	if err := msgpack.Unmarshal(b, &h); err != nil || h.Format != "frames" {
		return false, nil // an annotation of another program
	}
	if h.Version != 1 {
		return true, fmt.Errorf("the stream is of version %d, this reads version 1", h.Version)
	}
	link := cmp.Or(h.Link, LinkEthernet)
	if link != LinkEthernet && link != LinkIP {
		return true, fmt.Errorf("the stream's link is %v, want %q or %q", link, LinkEthernet, LinkIP)
	}
	r.link, r.source = link, ""
	_ = msgpack.Unmarshal(h.Source, &r.source) // a header with another kind of source is valid
	return true, nil
}

// shortReads are the sizes of the reads after a skipped frame. The first is for the head and
// headers of one more. If other frames come first, the second is for these, without much of
// a large frame behind them.
var shortReads = [2]int{512, 16 << 10}

// Fill reads once from the source, which may block. It first flushes a Writer that holds
// records of this Reader, and then invalidates these records. After
// os.ErrDeadlineExceeded, from a source with a deadline, Fill may be called again.
func (r *Reader) Fill() error {
	if r.err != nil {
		return r.err
	}
	if r.holder != nil {
		if err := r.holder.Flush(); err != nil {
			return err
		}
	}
	r.room()
	to := r.buf[r.w:]
	if r.short > 0 {
		size := shortReads[2-r.short]
		if rest := r.need - (r.w - r.r); rest > 0 {
			size = rest + shortReads[0] // all of a frame that is not skipped
		} else {
			r.short--
		}
		to = to[:min(len(to), size)]
	}
	n, err := r.src.Read(to)
	if r.w += n; n > 0 || err == nil {
		return nil // the next Read returns the error again
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err // not final
	}
	if have := r.w - r.r; have > 0 && errors.Is(err, io.EOF) {
		what := fmt.Sprintf("the input ends %d bytes into a value", have)
		if r.need > 0 {
			what = fmt.Sprintf("the input ends inside a frame, after %d of %d bytes", have, r.need)
		}
		err = &FormatError{Offset: r.offset, What: what, Err: io.ErrUnexpectedEOF}
	}
	r.err = err
	return err
}

// room makes room after buf[r:w] for the rest of the value.
func (r *Reader) room() {
	have := r.buf[r.r:r.w]
	if Headroom+max(len(have)+1, r.need) > len(r.buf) {
		r.buf = make([]byte, Headroom+MaxValue+readSize) // room for the largest value
	} else if r.r == Headroom {
		return
	}
	r.r, r.w = Headroom, Headroom+copy(r.buf[Headroom:], have)
}
