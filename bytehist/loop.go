package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"framepipe/frame"
	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/hist"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
)

// counter counts what goes by.
type counter struct {
	in     *fdio.TeeStream
	every  time.Duration
	sample int
	report func(hist.Report) error

	hist hist.Counter
	skip int
	link packet.Link
	n    struct{ frames, bytes, ethernet cli.Counter }
}

// line is what SIGUSR1 prints.
func (t *counter) line() string {
	return fmt.Sprintf("frames=%d bytes=%d ethernet_bytes=%d", t.n.frames.Load(), t.n.bytes.Load(), t.n.ethernet.Load())
}

// run passes the stream on until it ends, and counts it behind its back.
func (t *counter) run() error {
	fdio.Steady()
	fdio.Grow(t.in.Fd())
	r := frame.NewReader(t.in)
	start := time.Now()
	t.hist.Start(start)
	next := start.Add(t.every)
	var rec frame.Record
	for {
		ok, err := r.Buffered(&rec)
		switch {
		case err != nil:
		case ok && rec.IsAnnotation():
			t.link, err = packet.ParseLink(r.Link())
		case ok:
			t.count(&rec)
		default:
			// Everything that came has been counted: the moment to look at
			// the clock.
			now := time.Now()
			if !now.Before(next) {
				if err = t.report(t.hist.Snapshot(now)); err != nil {
					return err
				}
				if next = next.Add(t.every); next.Before(now) {
					next = now.Add(t.every)
				}
			}
			t.in.Timeout = next.Sub(now)
			if err = r.Fill(); errors.Is(err, os.ErrDeadlineExceeded) {
				err = nil
			}
		}
		if err == nil {
			continue
		}
		if end := t.report(t.hist.Snapshot(time.Now())); end != nil {
			return end
		}
		if errors.Is(err, io.EOF) || errors.Is(err, fdio.ErrReaderGone) {
			return nil
		}
		return err
	}
}

// count counts a frame.
func (t *counter) count(rec *frame.Record) {
	segments, ethernet := offload.OnWire(rec.Offload, rec.Frame, len(rec.Frame), t.link)
	t.hist.Frame(len(rec.Frame), segments, ethernet)
	t.n.frames.Add(1)
	t.n.bytes.Add(uint64(len(rec.Frame)))
	t.n.ethernet.Add(uint64(ethernet))
	if t.skip++; t.skip >= t.sample {
		t.skip = 0
		t.hist.Bytes(rec.Frame)
	}
}
