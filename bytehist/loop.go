package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/hist"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
)

// counter counts the frames and bytes of a stream.
type counter struct {
	in     *fdio.TeeStream
	every  time.Duration
	share  *share
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
func (t *counter) Annotation(*frame.Record) (err error) {
	t.link, err = packet.ParseLink(t.r.Link())
	return err
}

// Idle is frame.Stage's: the moment to look at the clock.
func (t *counter) Idle() error {
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
	segments, ethernet := offload.OnWire(rec.Offload, rec.Frame, len(rec.Frame), t.link)
	t.hist.Frame(len(rec.Frame), segments, ethernet)
	t.n.frames.Add(1)
	t.n.bytes.Add(uint64(len(rec.Frame)))
	t.n.ethernet.Add(uint64(ethernet))
	if t.share.take() {
		t.share.bytes += int64(len(rec.Frame))
		t.hist.Bytes(rec.Frame)
	}
	return nil
}

// snapshot reports an interval.
func (t *counter) snapshot(now time.Time) error {
	r := t.hist.Snapshot(now)
	r.Sample = t.share.of()
	return t.report(r)
}
