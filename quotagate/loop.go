package main

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"time"

	"framepipe/frame"
	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/gate"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/recorded"
)

const (
	// spliceFrom is the least size of the rest of a frame that the kernel moves from
	// pipe to pipe. A smaller rest is cheaper to read and write.
	spliceFrom = 16 << 10
	// headers is how much of a frame is needed to classify it: a pipe may have given
	// only its first bytes.
	headers = 256
	// shortest is the shortest wait for the paced queue. Frames that are due meanwhile go
	// out together.
	shortest = 500 * time.Microsecond
	// linger is how much longer than its queue a gate may hold frames after the end of
	// the input. With the quota used up it would be a window.
	linger = 2 * time.Second
)

// filter runs a stream through a gate.
type filter struct {
	gate      *gate.Gate
	cfg       gate.Config // of the gate
	count     gate.Counting
	unmetered []netip.Prefix
	control   allowance
	records   *recorded.Clock // nil with -clock wall
	in        *fdio.Stream
	out       *fdio.Output
	publish   func(now int64, s state)
	warn      func(format string, args ...any)

	r       *frame.Reader
	w       *frame.Writer
	seg     offload.Segmenter
	link    packet.Link
	wall    func() int64
	read    gate.Counts // frames of the input
	now     int64
	splice  bool
	next    int64 // when to publish again
	quiet   bool  // there is nothing new to publish until a frame comes
	invalid bool  // a frame that could not be cut was reported
	alone   bool  // that the ledger fails was reported
	spent   bool  // that more than the quota is billed in any case was reported
}

// run passes on the frames that the gate lets through, until the input has ended and
// the gate holds none.
func (t *filter) run() error {
	fdio.Grow(t.in.Fd())
	fdio.Grow(t.out.Fd())
	t.r, t.w = frame.NewReader(t), frame.NewWriter(t.out)
	// A record must not be read twice: the second time would confirm the first.
	t.splice = t.records == nil && fdio.IsPipe(t.in.Fd()) && fdio.IsPipe(t.out.Fd())
	t.tick()
	err := frame.Loop(t.r, t)
	if !errors.Is(err, fdio.ErrReaderGone) {
		// The input has ended, well or badly: the held frames are still owed.
		if e := t.drain(); err == nil {
			err = e
		}
	}
	t.publish(t.now, t.state())
	return err
}

// Read reads from the input, and then the clock.
func (t *filter) Read(p []byte) (int, error) {
	n, err := t.in.Read(p)
	t.tick()
	return n, err
}

// Annotation is frame.Stage's. A header may tell another link: the gate first lets out the
// frames that it holds, which would be taken for frames of that one.
func (t *filter) Annotation(rec *frame.Record) error {
	if link := packet.LinkOf(t.r.Link()); link != t.link {
		if err := t.drain(); err != nil {
			return err
		}
		t.link = link
	}
	if rec.IsHeader() { // the metrics lack the source, and the next frame may be far off
		t.next, t.quiet = t.now, false
	}
	return t.w.Pass(rec)
}

// state describes a filter at a time.
type state struct {
	gate.State
	Read   gate.Counts // frames of the input, before any was cut
	Source string      // of the stream
}

func (t *filter) state() state { return state{t.gate.State(t.now), t.read, t.r.Source()} }

// tick reads the clock, unless time is that of the records.
func (t *filter) tick() {
	if t.records == nil {
		t.now = t.wall()
	}
	if t.now < t.next || t.now == 0 { // 0: no record has told the time yet
		return
	}
	s := t.state()
	t.publish(t.now, s)
	if err := t.gate.Err(); t.alone != (err != nil) {
		if t.alone = !t.alone; t.alone {
			t.warn("%v; counting without the ledger until it can be used", err)
		} else {
			t.warn("the ledger can be used again")
		}
	}
	if b := s.Budget; b != nil && t.spent != (b.Spent > 0) {
		if t.spent = !t.spent; t.spent {
			t.warn("more than the free windows are used, so %s a window will be billed anyway; holding to that", cli.Human(float64(b.Spent), "B"))
		} else {
			t.warn("holding to the quota again")
		}
	}
	t.next = t.now + int64(time.Second)
	t.quiet = s.Used == 0
}

// Idle is frame.Stage's: it lets the kernel move the rest of a large frame, and writes all
// that may pass by now.
func (t *filter) Idle() error {
	if t.splice {
		var rec frame.Record
		if missing := t.r.Ahead(&rec); missing >= spliceFrom && len(rec.Frame) >= headers {
			if err := t.move(&rec, missing); err != nil {
				return err
			}
		}
	}
	if err := t.release(); err != nil {
		return err
	}
	if err := t.w.Flush(); err != nil {
		return err
	}
	t.gate.Flush()
	t.in.Timeout = fdio.Forever
	if t.records == nil {
		if !t.quiet {
			t.in.Timeout = time.Duration(t.next - t.now)
		}
		if at, ok := t.gate.Due(t.now); ok {
			t.in.Timeout = max(time.Duration(at-t.now), shortest)
		}
	}
	return nil
}

// move has the kernel move the rest of a large frame from pipe to pipe, if the gate
// passes it at once.
func (t *filter) move(rec *frame.Record, missing int) error {
	size := len(rec.Frame) + missing
	p, _, err := t.look(rec, size)
	if err != nil || !t.gate.Admit(t.now, &p) { // an error: its headers may go on in the rest
		return nil
	}
	t.quiet = false
	t.read.Add(int64(size))
	if err = t.w.Pass(rec); err == nil {
		err = t.w.Flush()
	}
	if err != nil {
		return err
	}
	offset := t.r.Offset()
	t.r.Skip()
	err = t.in.Splice(t.out, missing)
	if err == io.EOF {
		err = &frame.FormatError{Offset: offset, What: "the input ends inside a frame", Err: io.ErrUnexpectedEOF}
	}
	t.tick()
	return err
}

// look describes to the gate a frame of size bytes, of which rec holds the first or all.
// An error says why its offload header is invalid. The packet is then a super-frame,
// as it is no single frame either.
func (t *filter) look(rec *frame.Record, size int) (gate.Packet, packet.Layers, error) {
	l := packet.Dissect(rec.Frame, t.link)
	p := gate.Packet{ECN: t.cfg.ECN && l.ECT(rec.Frame)}
	ip := 0
	if l.Version != 0 {
		ip = l.End - l.L3
	}
	p.Bytes = t.count.Bytes(size, l.L3, ip)
	p.Unmetered = len(t.unmetered) > 0 && t.exempt(&l, rec.Frame)
	h, err := offload.Header{}, error(nil)
	if rec.Offload != nil {
		h, err = offload.Parse(rec.Offload)
	}
	if err != nil || !h.Super() {
		if kind := l.Control(rec.Frame); kind != packet.NoControl && size == len(rec.Frame) && !p.Unmetered {
			p.Control = t.control.take(t.now, kind, l.Group(rec.Frame), p.Bytes)
		}
		return p, l, err
	}
	n, head, last, err := offload.Measure(h, rec.Frame, size, t.link)
	p.Super = err != nil || n > 1
	if err == nil && n > 1 {
		p.Bytes = int64(n-1)*t.count.Bytes(head+int(h.GSOSize), l.L3, 0) + t.count.Bytes(last, l.L3, 0)
	}
	return p, l, err
}

// exempt reports whether both addresses of a packet are unmetered. One alone does not
// suffice: its sender could forge the source, and anyone may send to the destination.
func (t *filter) exempt(l *packet.Layers, f []byte) bool {
	listed := func(a netip.Addr) bool {
		return slices.ContainsFunc(t.unmetered, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	src, dst, ok := l.Addrs(f)
	return ok && listed(src) && listed(dst)
}

// Frame is frame.Stage's.
func (t *filter) Frame(rec *frame.Record) error {
	if t.records != nil {
		// Frames that were due before it left then, as they do by the clock on the wall:
		// by now they may be too old.
		now := t.records.Read(rec.Time)
		if err := t.releaseUntil(now); err != nil {
			return err
		}
		t.now = max(t.now, now)
		t.tick()
	}
	t.quiet = false
	t.read.Add(int64(len(rec.Frame)))
	return t.offer(rec)
}

// offer asks the gate about a frame, or a segment of one, and does that.
func (t *filter) offer(rec *frame.Record) error {
	p, l, _ := t.look(rec, len(rec.Frame))
	switch t.gate.Arrive(t.now, &p) {
	case gate.Mark:
		l.SetCE(rec.Frame)
		fallthrough
	case gate.Pass:
		return t.w.Pass(rec)
	case gate.Hold:
		flow, size := l.Flow(rec.Frame, t.cfg.Seed), frame.HeadSizeOffload+4+len(rec.Frame)+len(rec.Extra)
		h := t.gate.Hold(&p, flow, size)
		h.Data = rec.Append(h.Data[:0])
		h.Meta = int32(len(h.Data) - len(rec.Extra) - len(rec.Frame))
	case gate.Cut:
		return t.cut(rec, p.Bytes)
	}
	return nil
}

// cut asks the gate about each segment of a super-frame, so that a drop costs one
// segment and not forty-five in a row.
func (t *filter) cut(rec *frame.Record, bytes int64) error {
	h, err := offload.Parse(rec.Offload)
	if err == nil {
		err = t.seg.Start(h, rec.Frame, t.link)
	}
	if err != nil {
		t.gate.Reject(bytes)
		if !t.invalid {
			t.invalid = true
			t.warn("offset %d: frame dropped: %v; this and further ones are counted", rec.Offset(), err)
		}
		return nil
	}
	part := frame.Record{Time: rec.Time, Extra: rec.Extra, Extras: rec.Extras}
	for part.Frame = t.seg.Next(); part.Frame != nil; part.Frame = t.seg.Next() {
		if err := t.offer(&part); err != nil {
			return err
		}
	}
	return nil
}

// release writes the held frames that may pass by now.
func (t *filter) release() error {
	for {
		h := t.gate.Release(t.now)
		if h == nil {
			return nil
		}
		if h.Marked {
			f := h.Data[h.Meta:]
			l := packet.Dissect(f, t.link)
			l.SetCE(f)
		}
		err := t.w.WriteRaw(h.Data)
		t.gate.Done(h)
		if err != nil {
			return err
		}
	}
}

// releaseUntil writes the held frames as they become due, until a time: as time goes by, or,
// where time is the records', as it would have gone by. Then t.now is the time of the last.
func (t *filter) releaseUntil(end int64) error {
	for {
		if err := t.release(); err != nil {
			return err
		}
		at, ok := t.gate.Due(t.now)
		if !ok || t.now >= end {
			return nil
		}
		at = min(max(at, t.now+1), end)
		if t.records != nil {
			t.now = at
			continue
		}
		if err := t.w.Flush(); err != nil {
			return err
		}
		fds := [1]fdio.PollFd{{Fd: int32(t.out.Fd())}}
		if _, err := fdio.Wait(fds[:], max(time.Duration(at-t.now), shortest)); err != nil {
			return err
		}
		if fdio.Broken(fds[0]) {
			return fdio.ErrReaderGone
		}
		t.tick()
	}
}

// drain lets out the held frames after the end of the input, as far as they are due soon. With
// the clock of a stream and a ledger that time ends with the last record: the next part of
// the stream may begin there, and its gate knows nothing of later slots.
func (t *filter) drain() error {
	end := min(t.now+int64(min(t.cfg.Queue, time.Hour)+linger), gate.MaxTime) // no time is later
	if t.records != nil && t.cfg.Book != nil {
		end = t.now
	}
	if err := t.releaseUntil(end); err != nil {
		return err
	}
	t.gate.Abandon()
	return t.w.Flush()
}
