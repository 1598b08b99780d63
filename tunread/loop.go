package main

import (
	"cmp"
	"errors"
	"sync/atomic"
	"time"

	"framepipe/frame"
	"framepipe/internal/fairq"
	"framepipe/internal/fdio"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/tap"

	"golang.org/x/sys/unix"
)

const (
	// batch is the number of bytes gathered for one write: four super-frames.
	batch = 256 << 10
	// longest is room for the longest frame of a device, 64 KiB and its headers. The
	// kernel truncates longer frames.
	longest = 128 << 10
	// most is the maximum of frames read for one write, refused frames included. A
	// batch holds about as many frames of the least size; without the limit, a flood
	// of refused frames would never end the batch.
	most = batch / 64
	// pause follows a failed read. Without it, a broken device would fail a million
	// reads a second.
	pause = 10 * time.Millisecond
	// slack is the distance by which a frame may have to be moved back.
	slack = frame.HeadSizeOffload - frame.HeadSize
)

// reader writes the frames of a device as a stream.
type reader struct {
	dev      device
	link     packet.Link
	out      *fdio.Output
	coalesce time.Duration
	stop     int // a descriptor that becomes readable when the reader must stop
	warn     func(format string, args ...any)

	buf   []byte
	ends  []int         // of the records in buf
	head  int           // expected size of the next frame's head
	wrote time.Time     // time of the last write before a quiet moment
	gap   time.Duration // current gathering time: the coalescing time, or stretch times that
	slow  int           // frames that arrived after the gap
	n     counters

	frames, bytes, wire uint64 // counted and not yet published

	// The backlog is for the time when the output has no room: see backlog.go.
	queue fairq.Queue
	due   []*fairq.Held // taken out of the queue to be written
	sent  int           // written bytes of the first of these
	spans [][]byte
	spare *fairq.Held // room for the longest frame
	seed  uint64      // of the hash of flows
}

// device is the part of tap.Device that a reader uses.
type device interface {
	Fd() int
	VNetHdr() bool
	Waits() bool
	Read(buf []byte, off int) (n int, err error)
	Close() error
}

// counters are the counters that SIGUSR1 prints.
type counters struct {
	frames, bytes, ethernet, super, errors, malformed, dropped, droppedBytes atomic.Uint64
}

// run reads until the device is gone, a signal stops it, or the reader of the output
// is gone.
func (t *reader) run(source string) error {
	fdio.Grow(t.out.Fd())
	t.buf = make([]byte, batch+longest)
	t.head, t.gap = frame.HeadSize, t.coalesce

	w := frame.NewWriter(t.out)
	if err := w.Header(t.link.String(), source); err != nil {
		return err
	}
	err := w.Flush()
	for err == nil {
		err = t.burst()
	}
	if errors.Is(err, errStop) || errors.Is(err, fdio.ErrReaderGone) {
		return nil
	}
	return err
}

var errStop = errors.New("asked to stop")

// burst waits for frames and passes them on until the device has no more.
//
// The first frame after a quiet moment passes at once. While more frames arrive
// within the coalescing time, burst waits for that time after each write. Meanwhile
// frames gather in the device's queue, and one wake-up of each stage moves them all.
// A wake-up costs more than moving a frame.
//
// For a steady stream of slower frames, such as the acknowledgements of a bulk
// transfer, one every 100 µs, burst tries a longer gap now and then. If the longer gap
// gathers more than one frame, burst keeps it (7% more TCP through the pipeline). If
// it gathers only one, the frames are probably requests and answers, which the gap
// delays: burst goes back to the coalescing time.
func (t *reader) burst() error {
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
		if wait > 0 || !first { // in a flood, poll without waiting, to notice the stop
			if _, err := fdio.Wait(fds[:2], max(wait, 0)); err != nil {
				return err
			}
		}
		if fdio.Broken(fds[1]) {
			return fdio.ErrReaderGone
		}
		if fds[0].Revents != 0 {
			return t.last()
		}
		before := t.n.frames.Load()
		n, err := t.pass()
		switch frames := t.n.frames.Load() - before; {
		case err != nil:
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
	stretch = 8  // the longer gap, in coalescing times
	tries   = 32 // number of slow frames before a try of the longer gap
)

// pace returns how long to gather frames, for a frame that arrived the given time
// after the last write.
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

// last passes on the frames that are left, when the reader must stop; in a flood, only so many
// as a queue may have. Before its last write, which may take long, it closes the device:
// another reader of it then gets the frames that come meanwhile.
func (t *reader) last() error {
	for until := t.n.frames.Load() + most; ; {
		n, err := t.drain()
		end := n < batch || err != nil || t.n.frames.Load() >= until
		if end {
			_ = t.dev.Close()
		}
		err = errors.Join(err, t.flush())
		_, e := t.out.Write(t.buf[:n])
		if err = errors.Join(err, e); err != nil {
			return err
		}
		if end {
			return errStop
		}
	}
}

// pass writes the queued frames, at most one batch. If the output has no room for them, it
// returns when all frames that have come meanwhile are written, too.
func (t *reader) pass() (n int, err error) {
	n, err = t.drain()
	if n == 0 {
		return n, err
	}
	if t.dev.Waits() {
		_, e := t.out.Write(t.buf[:n])
		return n, cmp.Or(e, err)
	}
	done, e := t.out.Try(t.buf[:n])
	if e == unix.EAGAIN || e == nil && done < n {
		t.keep(done)
		e = t.backlog()
	}
	return n, cmp.Or(e, err)
}

// drain reads queued frames into the buffer as a stream, and returns the number of
// its bytes.
func (t *reader) drain() (n int, err error) {
	defer t.publish()
	t.ends = t.ends[:0]
	var start time.Time // time of the first frame
	for i := 0; n < batch && i < most; i++ {
		size, hdr, err := t.read(t.buf[n:])
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return n, err
		}
		if size < 0 {
			continue
		}
		if len(t.ends) == 0 {
			start = time.Now()
		}
		now := start.UnixNano() + int64(time.Since(start)) // half the cost of time.Now
		n += frame.PutHead(t.buf[n:], uint64(now), hdr, size) + size
		t.ends = append(t.ends, n)
	}
	return n, nil
}

// read reads a frame to the place that it has in a record at the start of buf, and counts it. hdr
// is its offload header, which PutHead may overwrite, or nil if it needs none. The size is
// negative if the frame was refused. The error is EAGAIN if the device has no frame now, or
// fails to return one.
//
// The kernel writes its header and the frame in one piece. read places the piece for a head
// of the previous frame's size, and moves the frame if its head has another size.
func (t *reader) read(buf []byte) (size int, hdr []byte, err error) {
	size, err = t.dev.Read(buf[:len(buf)-slack], t.head)
	for err == unix.EINTR {
		size, err = t.dev.Read(buf[:len(buf)-slack], t.head)
	}
	if err != nil {
		if err != unix.EAGAIN && !errors.Is(err, tap.ErrGone) {
			if t.n.errors.Add(1) == 1 {
				t.warn("reading: %v; this and further ones are counted", err)
			}
			_, _ = fdio.Wait(nil, pause)
			err = unix.EAGAIN
		}
		return 0, nil, err
	}
	f, head := buf[t.head:t.head+size], frame.HeadSize
	if h := buf[t.head-offload.HeaderSize : t.head]; t.dev.VNetHdr() && offload.Needed(h) {
		head, hdr = frame.HeadSizeOffload, h
	}
	_, ethernet, err := offload.OnWire(hdr, f, size, t.link)
	if err != nil { // later stages could neither segment nor count it
		if t.n.malformed.Add(1) == 1 {
			t.warn("frame dropped: %v; this and further ones are counted", err)
		}
		return -1, nil, nil
	}
	if hdr != nil {
		t.n.super.Add(1)
	}
	t.frames++
	t.bytes += uint64(size)
	t.wire += uint64(ethernet)
	if head != t.head {
		copy(buf[head:], f)
		t.head = head
	}
	return size, hdr, nil
}

// publish adds to the counters that other goroutines read. An atomic addition for each frame
// is not cheap.
func (t *reader) publish() {
	t.n.frames.Add(t.frames)
	t.n.bytes.Add(t.bytes)
	t.n.ethernet.Add(t.wire)
	t.frames, t.bytes, t.wire = 0, 0, 0
}
