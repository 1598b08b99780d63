package main

import (
	"errors"
	"time"

	"framepipe/frame"
	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/tap"

	"golang.org/x/sys/unix"
)

const (
	// batch is how much is gathered for one write: four super-frames.
	batch = 256 << 10
	// longest is the most a device hands over as one frame: 64 KiB and its
	// headers. What is longer than the room for it the kernel cuts off.
	longest = 128 << 10
	// most is how many frames are read for one write at the most: few frames of
	// the least size more than a batch has room for, or the same number of those
	// that are refused.
	most = batch / 64
	// pause is taken when a read failed, lest it fail a million times a second.
	pause = 10 * time.Millisecond
	// slack is how much further back a frame may have to be moved.
	slack = frame.HeadSizeOffload - frame.HeadSize
)

// reader turns what comes out of a device into a stream.
type reader struct {
	dev      device
	link     packet.Link
	out      *fdio.Output
	coalesce time.Duration
	stop     int // a descriptor that becomes readable when it is time to go
	warn     func(format string, args ...any)

	buf   []byte
	head  int           // size of the head that the next frame will probably need
	wrote time.Time     // when the last frames before a quiet moment were passed on
	gap   time.Duration // how long frames gather now, the coalescing time or stretch times that
	slow  int           // frames that came too late for the gap
	n     counters
}

// device is what a reader wants of a tap.Device.
type device interface {
	Fd() int
	VNetHdr() bool
	Read(buf []byte, off int) (n int, err error)
}

// counters is what SIGUSR1 shows.
type counters struct {
	frames, bytes, ethernet, super, errors, malformed cli.Counter
}

// run reads until the device ends, a signal says stop, or nobody reads what is
// written.
func (t *reader) run(source string) error {
	fdio.Steady()
	fdio.Grow(t.out.Fd())
	t.buf = make([]byte, batch+longest)
	t.head, t.gap = frame.HeadSize, t.coalesce

	w := frame.NewWriter(t.out)
	if err := w.Header(t.link.String(), source); err != nil {
		return err
	}
	err := w.Flush()
	for err == nil {
		err = t.turn()
	}
	if n := t.n.malformed.Load(); n > 0 {
		t.warn("%s: %d frames dropped whose offload header cannot be", source, n)
	}
	if errors.Is(err, errStop) || errors.Is(err, fdio.ErrReaderGone) {
		return nil
	}
	return err
}

var errStop = errors.New("asked to stop")

// turn waits for frames and passes them on until there are no more.
//
// The first frame after a quiet moment goes at once. If another comes within
// the coalescing time, and as long as more do, the device is left alone for that
// time after each write: frames gather in its queue meanwhile, and one wake-up
// of each stage moves them all. Waking up costs more than moving a frame.
//
// Frames that keep coming at a slower pace, such as the acknowledgements of a
// bulk transfer, one every 100 µs, are given a longer time now and then; if that
// gathers more than one, it stays so (7% more TCP through the pipeline). If
// it gathers one only, they are somebody's questions and answers, and he waits.
func (t *reader) turn() error {
	fds := [3]fdio.PollFd{
		{Fd: int32(t.stop), Events: unix.POLLIN},
		{Fd: int32(t.out.Fd())},
		{Fd: int32(t.dev.Fd()), Events: unix.POLLIN},
	}
	if _, err := fdio.Wait(fds[:], fdio.Forever); err != nil {
		return err
	}
	wait := t.pace(time.Since(t.wrote))
	coming := wait > 0
	for first := true; ; first = false {
		if wait > 0 || !first { // in a flood for no time, but to see whether it is time to go
			if _, err := fdio.Wait(fds[:2], max(wait, 0)); err != nil {
				return err
			}
		}
		if fdio.Broken(fds[1]) {
			return fdio.ErrReaderGone
		}
		failed, before := t.n.errors.Load(), t.n.frames.Load()
		n, err := t.pass()
		switch frames := t.n.frames.Load() - before; {
		case err != nil:
			return err
		case fds[0].Revents != 0: // what was sent before the signal has been passed on
			return errStop
		case t.n.errors.Load() != failed:
			_, err = fdio.Wait(fds[:2], pause)
			return err
		case frames == 0 || !coming:
			t.wrote = time.Now()
			return nil
		case frames == 1 && wait > 0:
			t.gap = t.coalesce
		}
		if wait = t.gap; n >= batch {
			wait = 0
		}
	}
}

const (
	stretch = 8  // how much longer than the coalescing time the longer one is
	tries   = 32 // how many frames pass before it is tried again
)

// pace returns how long to let frames gather, when one has come some time after
// the last write.
func (t *reader) pace(since time.Duration) time.Duration {
	switch {
	case since >= stretch*t.coalesce:
		t.gap, t.slow = t.coalesce, 0
	case since >= t.gap:
		if t.slow++; t.slow == tries {
			t.gap, t.slow = stretch*t.coalesce, 0
		}
	}
	return t.gap - since
}

// pass passes on the frames that wait, as many as one write takes.
func (t *reader) pass() (n int, err error) {
	n, err = t.drain()
	if n > 0 {
		if _, err := t.out.Write(t.buf[:n]); err != nil {
			return n, err
		}
	}
	return n, err
}

// drain fills the buffer with the frames that wait, and returns how many bytes
// of stream they make.
func (t *reader) drain() (n int, err error) {
	// Counted together: a store that another goroutine may see is not cheap.
	var frames, bytes, wire uint64
	defer func() {
		t.n.frames.Add(frames)
		t.n.bytes.Add(bytes)
		t.n.ethernet.Add(wire)
	}()
	var start time.Time // the time of the first
	for i := 0; n < batch && i < most; i++ {
		// The kernel writes its header and the frame in one piece. The piece
		// is put where the frame is right if it needs the head that the last
		// one needed; else it is moved.
		at := n + t.head
		size, err := t.dev.Read(t.buf[:len(t.buf)-slack], at)
		if err != nil {
			if err == unix.EAGAIN {
				return n, nil
			}
			if err == unix.EINTR {
				continue
			}
			if tap.Fatal(err) {
				return n, err
			}
			if t.n.errors.Add(1); t.n.errors.Load() == 1 {
				t.warn("reading: %v; this and further ones are counted", err)
			}
			return n, nil
		}
		var hdr []byte
		want := frame.HeadSize
		_, ethernet := offload.OnWire(nil, nil, size, t.link)
		if t.dev.VNetHdr() {
			if h := t.buf[at-offload.HeaderSize : at]; offload.Needed(h) {
				if ethernet, err = t.check(h, t.buf[at:at+size]); err != nil {
					continue
				}
				hdr, want = h, frame.HeadSizeOffload
				t.n.super.Add(1)
			}
		}
		if want != t.head {
			if hdr != nil {
				var keep [offload.HeaderSize]byte
				copy(keep[:], hdr)
				hdr = keep[:]
			}
			copy(t.buf[n+want:], t.buf[at:at+size])
			t.head = want
		}
		if frames == 0 {
			start = time.Now()
		}
		now := start.UnixNano() + int64(time.Since(start)) // half as dear as the time of day
		frame.PutHead(t.buf[n:], uint64(now), hdr, size)
		n += want + size
		frames++
		bytes += uint64(size)
		wire += uint64(ethernet)
	}
	return n, nil
}

// check refuses a frame of which the offload header says what cannot be: nobody behind
// could tell what it is, nor count it. It returns what the others are on the wire.
func (t *reader) check(hdr, f []byte) (ethernet int, err error) {
	h, err := offload.Parse(hdr)
	if err == nil {
		ethernet, err = h.Check(f, t.link)
	}
	if err != nil {
		if t.n.malformed.Add(1); t.n.malformed.Load() == 1 {
			t.warn("frame dropped: %v; this and further ones are counted", err)
		}
	}
	return ethernet, err
}
