package main

import (
	"errors"
	"fmt"
	"sync"
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
	first frame.Record   // of those gathered in merge
	whole bool           // the device is given every datagram by itself
	said  map[error]bool // errors of the device that were reported
	n     counters

	lock  sync.Mutex
	shown counters // a copy, for the goroutine that prints them
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
	frames, bytes, ethernet, segmented, merged, refused, malformed uint64
	// Frames as the device took them, and bytes that were not injected.
	written, writtenBytes, writtenEthernet, lostEthernet uint64
}

// publish shows the counters to SIGUSR1. Stores for each frame that another goroutine may see
// would take a sixth of a small frame's time here.
func (t *writer) publish() {
	t.lock.Lock()
	t.shown = t.n
	t.lock.Unlock()
}

// run writes frames until the input or the device ends.
func (t *writer) run() error {
	fdio.Grow(t.in.Fd())
	t.seg.Headroom, t.merge.Headroom = tap.Headroom, tap.Headroom
	t.whole, t.said = !t.dev.Offload(), map[error]bool{}
	t.r = frame.NewReader(t.in)
	defer t.publish()
	err := frame.Loop(t.r, t)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fdio.ErrReaderGone), errors.Is(err, tap.ErrGone):
		// All that came and was not written was in hand.
		t.n.lostEthernet = t.n.ethernet - t.n.writtenEthernet
		return fmt.Errorf("%s: %w", t.name, tap.ErrGone)
	}
	return fmt.Errorf("stdin: %w", err)
}

// Frame is frame.Stage's: it injects a frame, or gathers it.
func (t *writer) Frame(rec *frame.Record) error {
	if t.n.frames == 0 { // without a header it is Ethernet
		if err := t.fits(rec); err != nil {
			return err
		}
	}
	if t.replay != nil {
		if err := t.pace(rec); err != nil {
			return err
		}
	}
	t.n.frames++
	t.n.bytes += uint64(len(rec.Frame))
	t.n.ethernet += t.ethernet(rec.Offload, rec.Frame)
	return t.gather(rec)
}

// Annotation is frame.Stage's.
func (t *writer) Annotation(rec *frame.Record) error {
	if t.replay != nil && rec.IsHeader() {
		t.replay.header = true
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

// pace waits until a frame is due, or the device is gone. It injects the gathered frames first.
func (t *writer) pace(rec *frame.Record) error {
	d := t.replay.due(rec.Time, time.Now())
	if d <= 0 {
		return nil
	}
	if err := t.Idle(); err != nil {
		return err
	}
	fds := [1]fdio.PollFd{{Fd: int32(t.dev.Fd())}}
	for end := time.Now().Add(d); d > 0; d = time.Until(end) {
		if _, err := fdio.Wait(fds[:], d); err != nil {
			return err
		}
		if fdio.Broken(fds[0]) {
			return fdio.ErrReaderGone
		}
	}
	return nil
}

// gather merges datagrams of one flow that stand one behind the other, as far
// as they have been read: the device takes a super-frame for little more than
// one of them. The rest it injects.
func (t *writer) gather(rec *frame.Record) error {
	if !t.whole && t.merge.Add(rec.Offload, rec.Frame, t.link) {
		if t.merge.Len() == 1 {
			t.first = *rec
		}
		return nil
	}
	if t.merge.Len() == 0 {
		return t.inject(rec)
	}
	if err := t.flush(); err != nil {
		return err
	}
	return t.gather(rec)
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
	err := t.put(room)
	if err == unix.EINVAL { // a kernel before 6.2 does not know such super-frames
		t.whole = true
		if err := t.seg.Start(h, f, t.link); err != nil {
			return err
		}
		return t.segments(&t.first)
	}
	if err == nil {
		t.n.merged += uint64(n)
	}
	return t.done(err, &t.first, room, n)
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
		return t.write(rec, room)
	}
	h, err := offload.Parse(rec.Offload)
	if err == nil {
		err = t.seg.Start(h, rec.Frame, t.link)
	}
	if err != nil {
		t.n.lostEthernet += t.ethernet(rec.Offload, rec.Frame)
		if t.n.malformed++; t.n.malformed == 1 {
			t.warn("offset %d: frame dropped: %v; this and further ones are counted", rec.Offset(), err)
		}
		return nil
	}
	if h.Super() {
		t.n.segmented++
	}
	return t.segments(rec)
}

// segments writes the segments of a record.
func (t *writer) segments(rec *frame.Record) error {
	for b := t.seg.Next(); b != nil; b = t.seg.Next() {
		if err := t.write(rec, b); err != nil {
			return err
		}
	}
	return nil
}

// write writes the frame of a record, or a segment of it, which is in room after the
// headroom.
func (t *writer) write(rec *frame.Record, room []byte) error {
	return t.done(t.put(room), rec, room, 1)
}

// put is write without the counting.
func (t *writer) put(room []byte) error {
	for {
		switch err := t.dev.Write(room, tap.Headroom, len(room)-tap.Headroom); err {
		case unix.EINTR:
		case unix.EAGAIN: // a socket in place of a device is full; a tap never is
			t.publish()
			fds := [1]fdio.PollFd{{Fd: int32(t.dev.Fd()), Events: unix.POLLOUT}}
			if _, err := fdio.Wait(fds[:], fdio.Forever); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// ethernet returns the bytes that a frame takes on the wire.
func (t *writer) ethernet(header, f []byte) uint64 {
	_, n, _ := offload.OnWire(header, f, len(f), t.link)
	return uint64(n)
}

// done counts what the device was given in room: a frame, or several of which rec is the first.
// It returns the error of the write if the device is gone, and counts other errors.
func (t *writer) done(err error, rec *frame.Record, room []byte, frames int) error {
	f, header := room[tap.Headroom:], []byte(nil)
	if t.dev.VNetHdr() {
		header = room[tap.Headroom-offload.HeaderSize : tap.Headroom]
	}
	ethernet := t.ethernet(header, f)
	if err == nil {
		t.n.written++
		t.n.writtenBytes += uint64(len(f))
		t.n.writtenEthernet += ethernet
		return nil
	}
	if errors.Is(err, tap.ErrGone) {
		return err
	}
	t.n.refused += uint64(frames)
	t.n.lostEthernet += ethernet
	if !t.said[err] {
		t.said[err] = true
		what := "frame"
		if frames > 1 {
			what = fmt.Sprintf("%d frames in one", frames)
		}
		t.warn("offset %d: %s: %s of %d bytes refused: %v%s; this and further ones are counted",
			rec.Offset(), t.name, what, len(f), err, why[err])
	}
	return nil
}

// why explains errors of a device.
var why = map[error]string{
	unix.EIO:    " (is it up?)",
	unix.EINVAL: " (too short, or headers that do not fit it)",
}
