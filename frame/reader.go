package frame

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/vmihailenco/msgpack/v5"
)

// readSize is the memory a Reader begins with and reads to at once: four
// super-frames, or the same as a shell's pipe four times over. More was no
// faster, and this much still lies in a core's own cache.
const readSize = 256 << 10

// maxHeader is the longest annotation that is looked into for the stream's
// header. Ours has 60 bytes.
const maxHeader = 4 << 10

// maxEmptyReads is how often in a row a source may return neither data nor an
// error, which io.Reader allows.
const maxEmptyReads = 100

// The links a stream can have.
const (
	LinkEthernet = "ethernet"
	LinkIP       = "ip"
)

// Reader reads a stream. Its memory is bounded by the largest value.
type Reader struct {
	src     io.Reader
	buf     []byte
	r, w    int // what was read and not yet delivered is buf[r:w]
	offset  int64
	scanner scanner
	need    int // size of the frame at r where its head told, else 0
	tail    int // bytes at r that are of a frame which was skipped
	limit   int // most bytes to read at once, if not 0
	holder  *Writer
	late    error // came with data: what the next Fill finds
	err     error
	link    string
}

// NewReader returns a Reader that reads from src. A Read of src that returns
// less than asked for is not waited upon: what came is delivered.
func NewReader(src io.Reader) *Reader {
	return NewReaderIn(src, make([]byte, ReaderSize))
}

// ReaderSize is the memory that a Reader begins with.
const ReaderSize = Headroom + readSize

// NewReaderIn is NewReader for a Reader that begins with buf, of ReaderSize bytes, as
// its memory. It takes more for a value that is larger.
func NewReaderIn(src io.Reader, buf []byte) *Reader {
	return &Reader{src: src, buf: buf, r: Headroom, w: Headroom, link: LinkEthernet}
}

// Link returns the stream's link, LinkEthernet or LinkIP, as the last header
// that was delivered has it.
func (r *Reader) Link() string { return r.link }

// Offset returns the offset in the stream of the next value to be delivered.
func (r *Reader) Offset() int64 { return r.offset }

// Next delivers the next value. The error is io.EOF at the end of the stream,
// a *FormatError if the stream is damaged, or the source's own. After an error
// there is nothing more to be had.
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

// Buffered delivers the next value if all of it has been read already, and
// reports whether it did. Records delivered since the last Fill stay valid.
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

// Ahead looks at a frame of which only the beginning has been read: rec has
// its time, its offload and the first bytes of its frame. missing is how many
// are still to come, 0 if there is no such frame, or its encoding is not
// canonical. After Skip the rest is taken to have gone another way, but for its last
// bytes, which Tail delivers.
//
// With the two, a stage that needs no more than the headers of a frame can let
// the kernel move the rest from pipe to pipe.
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

// Skip goes on behind the frame that Ahead looked at, or at its last tail bytes.
func (r *Reader) Skip(tail int) {
	r.offset += int64(r.need)
	r.need, r.tail = tail, tail
	r.scanner.reset()
	r.r, r.w = Headroom, Headroom
}

// Tail delivers the last bytes of a frame that was skipped, to be passed on as they
// are, once all of them have been read.
func (r *Reader) Tail(rec *Record) bool {
	if r.w-r.r < r.tail {
		return false
	}
	*rec = Record{src: r, start: r.r, end: r.r + r.tail}
	r.r += r.tail
	r.need, r.tail = 0, 0
	return true
}

// Limit bounds what the next Fill reads to n bytes; 0 means no bound.
func (r *Reader) Limit(n int) { r.limit = n }

func (r *Reader) deliver(rec *Record, size int) {
	rec.src, rec.start, rec.end = r, r.r, r.r+size
	r.r += size
	r.offset += int64(size)
	r.need = 0
	r.scanner.reset() // it may have begun on a canonical head that came in two parts
}

// foreign delivers a value that is not in the canonical encoding.
func (r *Reader) foreign(b []byte, rec *Record) (bool, error) {
	if r.err != nil {
		return false, r.err
	}
	if len(b) == 0 {
		return false, nil
	}
	// What can be neither frame nor annotation is told from the first byte:
	// garbage is not searched for its end.
	if c := b[0]; c&0xf0 != 0x90 && c != 0xdc && c != 0xdd && !isMap(c) {
		return false, r.fail(fmt.Errorf("found %s (byte 0x%02x), want an array (a frame) or a map (an annotation)", name(c), c))
	}
	done, err := r.scanner.scan(b)
	if err != nil {
		return false, r.fail(err)
	}
	if !done {
		return false, nil
	}
	b = b[:r.scanner.pos:r.scanner.pos]
	if err := foreign(b, rec); err != nil {
		return false, r.fail(err)
	}
	if rec.IsAnnotation() {
		if err := r.header(b); err != nil {
			return false, r.fail(err)
		}
	}
	rec.at += r.r
	r.deliver(rec, len(b))
	return true, nil
}

func (r *Reader) fail(err error) error {
	if r.err == nil {
		r.err = &FormatError{Offset: r.offset, What: err.Error()}
	}
	return r.err
}

// header looks whether an annotation is the header of a stream.
func (r *Reader) header(b []byte) error {
	m := asHeader(b)
	if m == nil {
		return nil // somebody else's
	}
	if v := fmt.Sprint(m["version"]); v != "1" {
		return fmt.Errorf("the stream is of version %s, this reads version 1", v)
	}
	switch link := m["link"]; link {
	case nil:
		r.link = LinkEthernet
	case LinkEthernet, LinkIP:
		r.link = link.(string)
	default:
		return fmt.Errorf("the stream's link is %v, want %q or %q", link, LinkEthernet, LinkIP)
	}
	return nil
}

// Fill reads once from the source, which may block, and makes what Buffered
// delivered invalid. A Writer that still holds some of it is flushed first.
// After os.ErrDeadlineExceeded, from a source that has a deadline, reading may
// go on.
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
	if r.limit > 0 && r.limit < len(to) {
		to = to[:r.limit]
	}
	n, err := 0, r.late
	r.late = nil
	for tries := 0; n == 0 && err == nil; tries++ {
		if tries == maxEmptyReads {
			err = io.ErrNoProgress
			break
		}
		n, err = r.src.Read(to)
	}
	r.w += n
	if n > 0 {
		r.late = err
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err // it may go on
	}
	if errors.Is(err, io.EOF) && r.w > r.r {
		err = ended(r.offset, r.w-r.r, r.need)
	}
	r.err = err
	return err
}

// room makes room behind buf[r:w] for the rest of the value that begins there.
func (r *Reader) room() {
	have := r.w - r.r
	if have == 0 {
		r.r, r.w = Headroom, Headroom
		return
	}
	if have+Headroom == len(r.buf) || r.need+Headroom > len(r.buf) {
		// It fills all there is: now take what the largest value needs.
		buf := make([]byte, Headroom+MaxValue+readSize)
		copy(buf[Headroom:], r.buf[r.r:r.w])
		r.buf = buf
	} else if r.r > Headroom {
		copy(r.buf[Headroom:], r.buf[r.r:r.w])
	}
	r.r, r.w = Headroom, Headroom+have
}

// asHeader decodes what we know of an annotation if it is the header of a stream. What
// else is in it may be something that the library does not decode.
func asHeader(b []byte) map[string]any {
	if len(b) > maxHeader || !bytes.Contains(b, []byte("format")) {
		return nil
	}
	d := msgpack.NewDecoder(bytes.NewReader(b))
	n, err := d.DecodeMapLen()
	m := map[string]any{}
	for ; n > 0 && err == nil; n-- {
		var key string
		if key, err = d.DecodeString(); err != nil {
			break
		}
		if key != "format" && key != "version" && key != "link" {
			err = d.Skip()
			continue
		}
		var raw msgpack.RawMessage
		if raw, err = d.DecodeRaw(); err == nil {
			var v any
			if msgpack.Unmarshal(raw, &v) != nil {
				v = raw
			}
			m[key] = v
		}
	}
	if err != nil || m["format"] != "frames" {
		return nil
	}
	return m
}

// IsHeader reports whether the value is the annotation that a stream begins
// with: of streams put one behind the other, each has its own.
func (r *Record) IsHeader() bool { return r.IsAnnotation() && asHeader(r.Raw()) != nil }

// Decode decodes an annotation with the msgpack library.
func (r *Record) Decode() (map[string]any, error) {
	var m map[string]any
	if !r.IsAnnotation() {
		return nil, errors.New("a frame is no annotation")
	}
	err := msgpack.Unmarshal(r.Raw(), &m)
	return m, err
}
