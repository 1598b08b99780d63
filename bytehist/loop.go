package main

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/hist"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
)

const (
	// skipFrom is the least rest of a frame that is skipped. A smaller one is cheaper to read.
	skipFrom = 16 << 10
	// headers is how much of a frame is needed to count its segments.
	headers = 256
)

// counter counts the frames and bytes of a stream.
type counter struct {
	in     *fdio.TeeStream
	every  time.Duration
	share  *share
	taken  bool // the bytes of the next frame are to be counted
	report func(hist.Report) error

	r    *frame.Reader
	next time.Time // of the next report
	hist hist.Counter
	link packet.Link
	n    struct{ frames, bytes, ethernet atomic.Uint64 }
}

// line returns the counters as SIGUSR1 prints them.
func (t *counter) line() string {
	return fmt.Sprintf("frames=%d bytes=%d ethernet_bytes=%d", t.n.frames.Load(), t.n.bytes.Load(), t.n.ethernet.Load())
}

// run passes the stream on until it ends, and counts the copy that it reads.
func (t *counter) run() error {
	fdio.Grow(t.in.Fd())
	t.r = frame.NewReader(t.in)
	start := time.Now()
	t.share.start = start
	t.hist.Start(start)
	t.next = start.Add(t.every)
	err := frame.Loop(t.r, t)
	if e := t.snapshot(time.Now()); e != nil {
		return e
	}
	if errors.Is(err, fdio.ErrReaderGone) {
		return nil
	}
	return err
}

// Annotation is frame.Stage's. The stream has a new link if it was a header.
func (t *counter) Annotation(*frame.Record) error {
	t.link = packet.LinkOf(t.r.Link())
	return nil
}

// Idle is frame.Stage's: the moment to look at the clock. A large frame that has been read in
// part, and whose bytes are not to be counted, is skipped.
func (t *counter) Idle() error {
	var rec frame.Record
	if missing := t.r.Ahead(&rec); missing >= skipFrom && len(rec.Frame) >= headers && !t.taken && t.in.Skips() {
		if t.taken = t.share.take(); !t.taken {
			offset := t.r.Offset()
			t.r.Skip()
			if err := t.in.Skip(missing); errors.Is(err, io.ErrUnexpectedEOF) {
				return &frame.FormatError{Offset: offset, What: "the input ends inside a frame", Err: err}
			} else if err != nil {
				return err
			}
			t.count(&rec, len(rec.Frame)+missing)
		}
	}
	now := time.Now()
	if !now.Before(t.next) {
		if err := t.snapshot(now); err != nil {
			return err
		}
		t.share.restart(now)
		if t.next = t.next.Add(t.every); t.next.Before(now) {
			t.next = now.Add(t.every)
		}
	}
	for t.share.costly(now) {
		t.hist.Halve()
	}
	t.in.Timeout = t.next.Sub(now)
	return nil
}

// Frame is frame.Stage's: it counts a frame.
func (t *counter) Frame(rec *frame.Record) error {
	t.count(rec, len(rec.Frame))
	if t.taken || t.share.take() {
		t.taken = false
		t.share.bytes += int64(len(rec.Frame))
		t.hist.Bytes(rec.Frame)
	}
	return nil
}

// count counts a frame of size bytes, of which rec has the headers.
func (t *counter) count(rec *frame.Record, size int) {
	segments, ethernet := offload.OnWire(rec.Offload, rec.Frame, size, t.link)
	t.hist.Frame(size, segments, ethernet)
	t.n.frames.Add(1)
	t.n.bytes.Add(uint64(size))
	t.n.ethernet.Add(uint64(ethernet))
}

// snapshot reports an interval.
func (t *counter) snapshot(now time.Time) error {
	r := t.hist.Snapshot(now)
	r.Sample = t.share.of()
	return t.report(r)
}
