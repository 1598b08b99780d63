package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/tap"

	"golang.org/x/sys/unix"
)

// writer injects the frames of a stream into a device.
type writer struct {
	dev  sink
	name string
	link packet.Link
	in   *fdio.Stream
	r    *frame.Reader
	warn func(format string, args ...any)
	// replay is nil unless frames have to wait for their time.
	replay *replay

	seg   offload.Segmenter
	merge offload.Merger
	first frame.Record // of those gathered in merge
	whole bool         // the device is given every datagram by itself
	n     counters
	batch counts
	said  map[error]bool // errors of the device that were reported
}

// sink is the part of tap.Device that a writer uses.
type sink interface {
	Fd() int
	VNetHdr() bool
	Offload() bool
	Write(buf []byte, off, n int) error
}

// counters are the counters that SIGUSR1 prints.
type counters struct {
	frames, bytes, ethernet, segmented, merged, refused, malformed atomic.Uint64
	// Frames as the device took them, and bytes that were not injected.
	written, writtenBytes, writtenEthernet, lostEthernet atomic.Uint64
}

// counts are those of a batch, until publish adds them to the counters. Without them,
// stores that another goroutine may see would take a sixth of a small frame's time here.
type counts struct {
	frames, bytes, ethernet                uint64
	written, writtenBytes, writtenEthernet uint64
}

// publish brings the counters up to date.
func (t *writer) publish() {
	b := &t.batch
	t.n.frames.Add(b.frames)
	t.n.bytes.Add(b.bytes)
	t.n.ethernet.Add(b.ethernet)
	t.n.written.Add(b.written)
	t.n.writtenBytes.Add(b.writtenBytes)
	t.n.writtenEthernet.Add(b.writtenEthernet)
	*b = counts{}
}

// run writes frames until the input or the device ends.
func (t *writer) run() error {
	fdio.Grow(t.in.Fd())
	t.seg.Headroom, t.merge.Headroom = tap.Headroom, tap.Headroom
	t.whole, t.said = !t.dev.Offload(), map[error]bool{}
	t.r = frame.NewReader(t.in)
	err := frame.Loop(t.r, t)
	t.publish()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fdio.ErrReaderGone), errors.Is(err, tap.ErrGone):
		// All that came and was not written was in hand.
		t.n.lostEthernet.Add(t.n.ethernet.Load() - t.n.writtenEthernet.Load() - t.n.lostEthernet.Load())
		return fmt.Errorf("%s: %w", t.name, tap.ErrGone)
	}
	return fmt.Errorf("stdin: %w", err)
}

// Frame is frame.Stage's: it injects a frame, or gathers it.
func (t *writer) Frame(rec *frame.Record) error {
	if t.n.frames.Load()+t.batch.frames == 0 { // without a header it is Ethernet
		if err := t.fits(rec); err != nil {
			return err
		}
	}
	if t.replay != nil {
		if err := t.pace(rec); err != nil {
			return err
		}
	}
	t.batch.frames++
	t.batch.bytes += uint64(len(rec.Frame))
	t.batch.ethernet += t.ethernet(rec.Offload, rec.Frame)
	return t.gather(rec)
}

// Annotation is frame.Stage's.
func (t *writer) Annotation(rec *frame.Record) error {
	if t.replay != nil && rec.IsHeader() {
		t.replay.again()
	}
	return t.fits(rec)
}

// Idle is frame.Stage's: it injects the frames that were gathered.
func (t *writer) Idle() error {
	err := t.flush()
	t.publish()
	return err
}

// fits compares the stream's link with that of the device.
func (t *writer) fits(rec *frame.Record) error {
	if t.r.Link() == t.link.String() {
		return nil
	}
	return &frame.FormatError{Offset: rec.Offset(), What: fmt.Sprintf("the stream's link is %s, and that of %s is %s", t.r.Link(), t.name, t.link)}
}

// pace waits until a frame is due. It injects the gathered frames first.
func (t *writer) pace(rec *frame.Record) error {
	d := t.replay.due(rec.Time, time.Now())
	if d <= 0 {
		return nil
	}
	if err := t.flush(); err != nil {
		return err
	}
	t.publish()
	return t.replay.wait(d)
}

// gather merges datagrams of one flow that stand one behind the other, as far
// as they have been read: the device takes a super-frame for little more than
// one of them. The rest it injects.
func (t *writer) gather(rec *frame.Record) error {
	if t.whole {
		return t.inject(rec)
	}
	if t.merge.Add(rec.Offload, rec.Frame, t.link) {
		if t.merge.Len() == 1 {
			t.first = *rec
		}
		return nil
	}
	if t.merge.Len() > 0 {
		if err := t.flush(); err != nil {
			return err
		}
		if !t.whole && t.merge.Add(rec.Offload, rec.Frame, t.link) {
			t.first = *rec
			return nil
		}
	}
	return t.inject(rec)
}

// flush injects the gathered frames.
func (t *writer) flush() error {
	n := t.merge.Len()
	if n == 0 {
		return nil
	}
	if n == 1 { // the record itself: its additions do not reach the device
		t.merge.Reset()
		return t.inject(&t.first)
	}
	h, room := t.merge.Take()
	h.Put(room[tap.Headroom-offload.HeaderSize : tap.Headroom])
	f := room[tap.Headroom:]
	err := t.put(room, len(f))
	if err == unix.EINVAL {
		// A kernel before 6.2 does not know such super-frames.
		t.whole = true
		if err := t.seg.Start(h, f, t.link); err != nil {
			return err
		}
		return t.segments(&t.first)
	}
	if err == nil {
		t.n.merged.Add(uint64(n))
		t.wrote(room, len(f))
		return nil
	}
	return t.failed(err, &t.first, room, len(f), n)
}

// inject writes one frame, or its segments. It returns an error if the device is gone, and
// counts invalid frames.
func (t *writer) inject(rec *frame.Record) error {
	if rec.Offload == nil || t.dev.Offload() {
		room := rec.Room()
		if t.dev.VNetHdr() {
			// The header overwrites the head of the record.
			if h := room[frame.Headroom-offload.HeaderSize : frame.Headroom]; rec.Offload != nil {
				copy(h, rec.Offload)
			} else {
				clear(h)
			}
		}
		return t.write(rec, room, len(rec.Frame))
	}
	h, err := offload.Parse(rec.Offload)
	if err == nil {
		err = t.seg.Start(h, rec.Frame, t.link)
	}
	if err != nil {
		t.n.lostEthernet.Add(t.ethernet(rec.Offload, rec.Frame))
		if t.n.malformed.Add(1) == 1 {
			t.warn("offset %d: frame dropped: %v; this and further ones are counted", rec.Offset(), err)
		}
		return nil
	}
	if h.Super() {
		t.n.segmented.Add(1)
	}
	return t.segments(rec)
}

// segments writes the segments of a record.
func (t *writer) segments(rec *frame.Record) error {
	for b := t.seg.Next(); b != nil; b = t.seg.Next() {
		if err := t.write(rec, b, len(b)-tap.Headroom); err != nil {
			return err
		}
	}
	return nil
}

// write writes the frame of a record, or a segment of it, which is in room after the
// headroom.
func (t *writer) write(rec *frame.Record, room []byte, n int) error {
	err := t.put(room, n)
	if err == nil {
		t.wrote(room, n)
		return nil
	}
	return t.failed(err, rec, room, n, 1)
}

// put is write without the handling of errors.
func (t *writer) put(room []byte, n int) error {
	for {
		err := t.dev.Write(room, tap.Headroom, n)
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			// A socket in place of a device is full. A tap never is.
			t.publish()
			fds := [1]fdio.PollFd{{Fd: int32(t.dev.Fd()), Events: unix.POLLOUT}}
			if _, err := fdio.Wait(fds[:], fdio.Forever); err != nil {
				return err
			}
			continue
		}
		return err
	}
}

// ethernet returns the bytes that a frame takes on the wire.
func (t *writer) ethernet(header, f []byte) uint64 {
	_, n, _ := offload.OnWire(header, f, len(f), t.link)
	return uint64(n)
}

// given is ethernet for a frame of n bytes in room, as it was passed to the device.
func (t *writer) given(room []byte, n int) uint64 {
	f := room[tap.Headroom : tap.Headroom+n]
	if !t.dev.VNetHdr() {
		return t.ethernet(nil, f)
	}
	return t.ethernet(room[tap.Headroom-offload.HeaderSize:tap.Headroom], f)
}

// wrote counts a frame that the device has taken.
func (t *writer) wrote(room []byte, n int) {
	t.batch.written++
	t.batch.writtenBytes += uint64(n)
	t.batch.writtenEthernet += t.given(room, n)
}

// failed deals with the error of a write, which is the device's end or only
// that of a frame, or of some that were given together, of which rec is the first.
func (t *writer) failed(err error, rec *frame.Record, room []byte, n, frames int) error {
	if errors.Is(err, tap.ErrGone) {
		return err
	}
	t.n.refused.Add(uint64(frames))
	t.n.lostEthernet.Add(t.given(room, n))
	if !t.said[err] {
		t.said[err] = true
		what := "frame"
		if frames > 1 {
			what = fmt.Sprintf("%d frames in one", frames)
		}
		t.warn("offset %d: %s: %s of %d bytes refused: %v%s; this and further ones are counted",
			rec.Offset(), t.name, what, n, err, why(err))
	}
	return nil
}

// why explains the error of a device.
func why(err error) string {
	switch err {
	case unix.EIO:
		return " (is it up?)"
	case unix.EINVAL:
		return " (too short, or headers that do not fit it)"
	}
	return ""
}
