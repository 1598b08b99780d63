package main

import (
	"errors"
	"fmt"
	"io"

	"framepipe/frame"
	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/tap"

	"golang.org/x/sys/unix"
)

// writer injects the frames of a stream into a device.
type writer struct {
	dev  *tap.Device
	name string
	link packet.Link
	in   *fdio.Stream
	warn func(format string, args ...any)

	seg offload.Segmenter
	n   counters
	bad complaints
}

// counters is what SIGUSR1 shows.
type counters struct {
	frames, bytes, segmented, refused, malformed cli.Counter
}

// run writes frames until the input or the device ends.
func (t *writer) run() error {
	fdio.Steady()
	fdio.Grow(t.in.Fd())
	t.seg.Headroom = tap.Headroom
	r := frame.NewReader(t.in)
	var rec frame.Record
	for {
		ok, err := r.Buffered(&rec)
		switch {
		case err != nil:
		case !ok:
			err = r.Fill()
		case rec.IsAnnotation():
			if r.Link() != t.link.String() {
				return fmt.Errorf("stdin: the stream's link is %s, and %s is a %s", r.Link(), t.name, kind(t.link))
			}
		default:
			err = t.inject(&rec)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, fdio.ErrReaderGone), tap.Fatal(err):
			return fmt.Errorf("%s: %w", t.name, tap.ErrGone)
		default:
			return fmt.Errorf("stdin: %w", err)
		}
	}
}

func kind(link packet.Link) string {
	if link == packet.IP {
		return "tun, whose link is ip"
	}
	return "tap, whose link is ethernet"
}

// inject writes one frame, or the segments of one. An error is the end of the
// device; what is wrong with a frame is counted.
func (t *writer) inject(rec *frame.Record) error {
	t.n.frames.Add(1)
	t.n.bytes.Add(uint64(len(rec.Frame)))
	if rec.Offload == nil || t.dev.Offload() {
		room := rec.Room()
		if t.dev.VNetHdr() {
			// The header goes where the frame's own head stands.
			if h := room[frame.Headroom-offload.HeaderSize : frame.Headroom]; rec.Offload != nil {
				copy(h, rec.Offload)
			} else {
				clear(h)
			}
		}
		return t.write(room, len(rec.Frame))
	}
	h, err := offload.Parse(rec.Offload)
	if err == nil {
		err = t.seg.Start(h, rec.Frame, t.link)
	}
	if err != nil {
		t.n.malformed.Add(1)
		if t.bad.first(err) {
			t.warn("offset %d: frame dropped: %v", rec.Offset(), err)
		}
		return nil
	}
	if h.Super() {
		t.n.segmented.Add(1)
	}
	for b := t.seg.Next(); b != nil; b = t.seg.Next() {
		if err := t.write(b, len(b)-tap.Headroom); err != nil {
			return err
		}
	}
	return nil
}

// write writes the frame that stands in room behind its headroom.
func (t *writer) write(room []byte, n int) error {
	for {
		err := t.dev.Write(room, tap.Headroom, n)
		switch {
		case err == nil:
			t.bad.over()
			return nil
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			// A full socket in a device's place: worth waiting for.
			fds := [1]fdio.PollFd{{Fd: int32(t.dev.Fd()), Events: unix.POLLOUT}}
			if _, err := fdio.Wait(fds[:], fdio.Forever); err != nil {
				return err
			}
			continue
		case tap.Fatal(err):
			return err
		}
		t.n.refused.Add(1)
		if t.bad.first(err) {
			t.warn("%s: frame of %d bytes refused: %v%s", t.name, n, err, why(err))
		}
		return nil
	}
}

// why explains what the device may have meant.
func why(err error) string {
	switch err {
	case unix.EIO:
		return " (is it up?)"
	case unix.EINVAL:
		return " (too short, or headers that do not fit it)"
	}
	return ""
}

// complaints lets one message through for each run of the same error: a device
// that is down refuses a hundred thousand frames a second.
type complaints struct{ last string }

func (c *complaints) first(err error) bool {
	s := err.Error()
	if s == c.last {
		return false
	}
	c.last = s
	return true
}

func (c *complaints) over() {
	if c.last != "" {
		c.last = ""
	}
}
