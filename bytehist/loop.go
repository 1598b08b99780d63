package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/hist"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/recorded"
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
	link packet.Link
	hist hist.Counter
	top  *hist.Top // nil without -top
	n    struct{ frames, bytes, ethernet atomic.Uint64 }

	records *recorded.Clock // nil with -clock wall
	start   time.Time
	now     int64 // the clock's time
	until   int64 // the clock's time of the next report, 0 before the first record
	ahead   int64 // how far the times of reports are ahead of the clock
}

// line returns the counters as SIGUSR1 prints them.
func (t *counter) line() string {
	return fmt.Sprintf("frames=%d bytes=%d ethernet_bytes=%d", t.n.frames.Load(), t.n.bytes.Load(), t.n.ethernet.Load())
}

// run passes the stream on until it ends, and counts the copy that it reads.
func (t *counter) run() error {
	fdio.Grow(t.in.Fd())
	t.r = frame.NewReader(t.in)
	t.start = time.Now()
	t.hist.Since = t.start
	err := frame.Loop(t.r, t)
	if t.records == nil || t.until == 0 {
		t.now = t.wall(time.Now())
	}
	if e := t.snapshot(t.now); e != nil {
		return e
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
			if err := t.in.Skip(missing); err == io.EOF {
				return &frame.FormatError{Offset: offset, What: "the input ends inside a frame", Err: io.ErrUnexpectedEOF}
			} else if err != nil {
				return err
			}
			if err := t.count(&rec, len(rec.Frame)+missing); err != nil {
				return err
			}
		}
	}
	now := time.Now()
	if t.records == nil {
		if err := t.advance(t.wall(now)); err != nil {
			return err
		}
		t.in.Timeout, t.ahead = time.Duration(t.until-t.now), now.UnixNano()-t.now
	}
	for t.share.costly(now) {
		t.hist.Halve()
	}
	return nil
}

// wall returns the clock's time with -clock wall: that since the start does not jump when the
// machine's clock is set.
func (t *counter) wall(now time.Time) int64 { return t.start.UnixNano() + int64(now.Sub(t.start)) }

// advance sets the clock, and reports the interval if it has ended. All intervals after it that
// have no frame are one report.
func (t *counter) advance(now int64) error {
	t.now = now
	if t.until == 0 {
		t.hist.Since = moment(now)
		t.until = now + int64(t.every)
	}
	for every := int64(t.every); now >= t.until; {
		if err := t.snapshot(t.until); err != nil {
			return err
		}
		t.until += max((now-t.until)/every, 1) * every
	}
	return nil
}

func moment(ns int64) time.Time { return time.Unix(0, ns) }

// Frame is frame.Stage's: it counts a frame.
func (t *counter) Frame(rec *frame.Record) error {
	if err := t.count(rec, len(rec.Frame)); err != nil {
		return err
	}
	if t.taken || t.share.take() {
		t.taken = false
		t.share.bytes += int64(len(rec.Frame))
		t.hist.Bytes(rec.Frame)
	}
	return nil
}

// count counts a frame of size bytes, of which rec has the headers.
func (t *counter) count(rec *frame.Record, size int) error {
	if t.records != nil {
		if err := t.advance(t.records.Read(rec.Time)); err != nil {
			return err
		}
		t.ahead = t.records.Wall(0)
	}
	segments, ethernet, _ := offload.OnWire(rec.Offload, rec.Frame, size, t.link)
	t.hist.Frame(size, segments, ethernet)
	if t.top != nil {
		l := packet.Dissect(rec.Frame, t.link)
		src, dst, _ := l.Addrs(rec.Frame)
		t.top.Add(src, dst, ethernet)
	}
	t.n.frames.Add(1)
	t.n.bytes.Add(uint64(size))
	t.n.ethernet.Add(uint64(ethernet))
	return nil
}

// snapshot reports the interval that ends now.
func (t *counter) snapshot(now int64) error {
	r := t.hist.Snapshot(moment(now))
	r.Time, r.Sample = moment(now+t.ahead), t.share.of()
	if t.top != nil {
		t.top.Take(&r)
	}
	t.share.restart(time.Now())
	return t.report(r)
}
