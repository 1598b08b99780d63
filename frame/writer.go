package frame

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/vmihailenco/msgpack/v5"
)

const (
	writeSize = 256 << 10 // most bytes that a Writer copies and encodes before it flushes
	copySize  = 512       // up to this many bytes, a copy costs less than another span
	maxSpans  = 64
)

// Writer writes a stream. It gathers values and writes them all at Flush, or when its
// memory is full. Pass does not copy large records.
type Writer struct {
	dst   io.Writer
	spans [][]byte
	arena []byte // copies and encodings, never grown: spans point into it
	// The open span is src.buf[start:end], or arena[start:] if src is nil.
	src        *Reader
	start, end int
	err        error
}

// NewWriter returns a Writer that writes to dst.
func NewWriter(dst io.Writer) *Writer {
	return &Writer{dst: dst, spans: make([][]byte, 0, maxSpans+2), arena: make([]byte, 0, writeSize)}
}

// Pass writes a record of a Reader in its original encoding. It writes changes to the
// bytes of Frame and Offload, but not changes to the fields: use Write for those.
//
// The Writer writes the record when it is flushed; its Reader flushes the Writer before
// it overwrites the record.
func (w *Writer) Pass(rec *Record) error {
	if rec.src == nil {
		return w.Write(rec)
	}
	if w.src == rec.src && w.end == rec.start { // the common case: the previous record was passed, too
		w.end = rec.end
		return nil
	}
	if rec.end-rec.start <= copySize && (w.src != nil || len(w.arena) > 0) {
		return w.WriteRaw(rec.Raw())
	}
	if w.close(); len(w.spans) >= maxSpans {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if h := rec.src.holder; h != nil && h != w { // a Reader has one Writer to flush
		if err := h.Flush(); err != nil {
			return err
		}
	}
	w.src, w.start, w.end = rec.src, rec.start, rec.end
	rec.src.holder = w
	return nil
}

// Write encodes the record and writes it. It writes an annotation unchanged. A frame
// over MaxFrame, or over MaxValue with its additions, is an error.
func (w *Writer) Write(rec *Record) error {
	if rec.IsAnnotation() {
		return w.WriteRaw(rec.Raw())
	}
	size := len(rec.Frame) + len(rec.Extra) + HeadSizeOffload + 4
	if len(rec.Frame) > MaxFrame || size > MaxValue {
		return fmt.Errorf("frame of %d bytes with %d bytes of additions: the limits are %d bytes, and %d in all", len(rec.Frame), len(rec.Extra), MaxFrame, MaxValue)
	}
	b, err := w.reserve(size)
	if err != nil {
		return err
	}
	w.arena = rec.Append(b)
	return nil
}

// WriteRaw writes encoded values.
func (w *Writer) WriteRaw(raw []byte) error {
	b, err := w.reserve(len(raw))
	if err == nil {
		w.arena = append(b, raw...)
	}
	return err
}

// Annotate writes an annotation, with its keys in alphabetical order.
func (w *Writer) Annotate(m map[string]any) error {
	if m == nil {
		m = map[string]any{} // the library would encode nil, which is no annotation
	}
	var b bytes.Buffer
	e := msgpack.NewEncoder(&b)
	e.SetSortMapKeys(true)
	e.UseCompactInts(true)
	if err := e.Encode(m); err != nil {
		return err
	}
	if b.Len() > MaxValue {
		return fmt.Errorf("annotation of %d bytes: the limit is %d", b.Len(), MaxValue)
	}
	return w.WriteRaw(b.Bytes())
}

// Header writes the first annotation of a stream from a device. It cuts source at 255 bytes.
func (w *Writer) Header(link, source string) error {
	source = source[:min(len(source), 255)]
	return w.Annotate(map[string]any{"format": "frames", "version": 1, "link": link, "source": source})
}

// reserve returns the arena with room for n more bytes.
func (w *Writer) reserve(n int) ([]byte, error) {
	if len(w.arena)+n > cap(w.arena) {
		if err := w.Flush(); err != nil {
			return nil, err
		}
		w.arena = slices.Grow(w.arena, n)
	}
	if w.src != nil {
		w.close()
	}
	return w.arena, nil
}

// close ends the open span.
func (w *Writer) close() {
	if w.src != nil {
		w.spans = append(w.spans, w.src.buf[w.start:w.end])
		w.src = nil
	} else if len(w.arena) > w.start {
		w.spans = append(w.spans, w.arena[w.start:])
	}
	w.start = len(w.arena)
}

// Flush writes the gathered values. After a write has failed, every Flush returns its
// error.
func (w *Writer) Flush() error {
	if w.close(); len(w.spans) == 0 || w.err != nil {
		return w.err
	}
	if dst, ok := w.dst.(interface{ Writev([][]byte) error }); ok {
		w.err = dst.Writev(w.spans) // all with one system call
	} else {
		for i := 0; i < len(w.spans) && w.err == nil; i++ {
			_, w.err = w.dst.Write(w.spans[i])
		}
	}
	w.spans, w.arena = w.spans[:0], w.arena[:0]
	w.start = 0
	return w.err
}
