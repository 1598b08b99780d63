package main

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/gate"
	"framepipe/internal/ledger"
	"framepipe/internal/offload"
	"framepipe/internal/packet"

	"golang.org/x/sys/unix"
)

const (
	// spliceFrom is the least that must be missing of a frame for the kernel
	// to move it from pipe to pipe: below, reading and writing it is cheaper.
	spliceFrom = 16 << 10
	// peek is how much is read after a frame was spliced: the head of the next
	// record and its headers, as it will probably be spliced too.
	peek = 512
	// headers is how much of a frame is wanted to tell what it is: a pipe may have
	// given only its first bytes.
	headers = 256
	// lastBytes is how much of a spliced frame is written with the head of the next:
	// that a frame has passed is then known of a write, which is noted by the kernel,
	// and not of a splice from pipe to pipe, which is not.
	lastBytes = 1
	// tick is how long a wait for the paced queue is at the least. What is due
	// meanwhile goes out together.
	tick = 500 * time.Microsecond
	// linger is how much longer than its queue is what is held may take when the input
	// has ended. Where the quota is used up it would be a window.
	linger = 2 * time.Second
)

// filter runs a stream through a gate.
type filter struct {
	gate      *gate.Gate
	count     gate.Counting
	unmetered []netip.Prefix
	ecn       bool
	stream    bool // time is the records'
	offered   bool // what is dropped is charged, too
	queue     time.Duration
	in        *fdio.Stream
	out       *fdio.Output
	hand      *ledger.Hand // nil if what was charged and did not pass is not noted
	publish   func(now int64, s state)
	warn      func(format string, args ...any)

	r       *frame.Reader
	w       *frame.Writer
	seg     offload.Segmenter
	link    packet.Link
	seed    uint64
	wall    func() int64
	read    gate.Tally // frames as they came
	now     int64
	splice  bool
	next    int64 // when to publish again
	quiet   bool  // there will be nothing new to publish until a frame comes
	invalid bool  // a frame that could not be cut was reported
	alone   bool  // that the ledger fails was reported
	lapsed  bool  // what is in hand is not known
}

// watch has what was charged and did not pass noted in a hand. It is to be called
// before the sandbox is entered.
func (t *filter) watch(h *ledger.Hand) {
	t.hand = h
	t.r = frame.NewReaderIn(t.in, t.out.Watch(&h.Progress, h.Do, frame.ReaderSize))
}

// run passes on what the gate lets through, until the input ends and the gate
// has let go of what it holds.
func (t *filter) run() error {
	fdio.Steady()
	fdio.Grow(t.in.Fd())
	fdio.Grow(t.out.Fd())
	if t.r == nil {
		t.r = frame.NewReader(t.in)
	}
	t.w = frame.NewWriter(t.out)
	t.splice = fdio.IsPipe(t.in.Fd()) && fdio.IsPipe(t.out.Fd())
	err := t.loop()
	if errors.Is(err, fdio.ErrReaderGone) {
		err = nil
	} else {
		// The input has ended, well or badly: what is held is still owed.
		if e := t.drain(); e != nil && !errors.Is(e, fdio.ErrReaderGone) && err == io.EOF {
			err = e
		}
	}
	t.dropped()
	t.publish(t.now, t.state())
	if err == io.EOF {
		return nil
	}
	return err
}

func (t *filter) loop() error {
	var rec frame.Record
	t.tock()
	for {
		ok, err := t.r.Buffered(&rec)
		switch {
		case err != nil:
			return err
		case ok && rec.IsAnnotation():
			if err = t.turn(); err == nil {
				err = t.w.Pass(&rec)
			}
		case ok:
			err = t.frame(&rec)
		default:
			err = t.more(&rec)
		}
		if err != nil {
			return err
		}
	}
}

// turn takes over the link that a header has told. What is held of a stream with
// another one goes before it, or it would be taken for frames of this.
func (t *filter) turn() error {
	link, err := packet.ParseLink(t.r.Link())
	if err == nil && link != t.link {
		err = t.drain()
		t.link = link
	}
	return err
}

// state is how a filter stands.
type state struct {
	gate.State
	Read gate.Tally // frames as they stood in the stream, before any was cut
}

func (t *filter) state() state { return state{t.gate.State(t.now), t.read} }

// got counts a frame of the input.
func (t *filter) got(size int) {
	t.read.Frames++
	t.read.Bytes += uint64(size)
}

// tock reads the wall clock, unless time is the records'.
func (t *filter) tock() {
	if !t.stream {
		t.now = t.wall()
	}
	if t.now < t.next || t.now == 0 { // 0: no record has told the time yet
		return
	}
	s := t.state()
	t.publish(t.now, s)
	if err := t.gate.Err(); t.alone != (err != nil) {
		t.alone = !t.alone
		if t.alone {
			t.warn("%v; counting without the ledger until it can be used", err)
		} else {
			t.warn("the ledger can be used again")
		}
	}
	t.next = t.now + int64(time.Second)
	t.quiet = s.Used == 0
}

// more gets more of the stream, when all that was read has been dealt with.
func (t *filter) more(rec *frame.Record) error {
	if t.splice {
		if missing := t.r.Ahead(rec); missing >= spliceFrom && len(rec.Frame) >= headers {
			if done, err := t.move(rec, missing); done || err != nil {
				return err
			}
		}
	}
	if err := t.release(); err != nil {
		return err
	}
	t.dropped()
	if err := t.w.Flush(); err != nil {
		return err
	}
	t.gate.Settle()
	t.trust()
	t.in.Timeout = fdio.Forever
	if !t.stream {
		if !t.quiet {
			t.in.Timeout = time.Duration(t.next - t.now)
		}
		if at, ok := t.gate.Due(t.now); ok {
			t.in.Timeout = max(time.Duration(at-t.now), tick)
		}
	}
	err := t.r.Fill()
	t.r.Limit(0)
	t.tock()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// move has the kernel move the rest of a large frame from pipe to pipe, if the
// gate is open to it. Only its head was read.
func (t *filter) move(rec *frame.Record, missing int) (done bool, err error) {
	if t.stream {
		t.now = int64(min(rec.Time, gate.MaxTime))
	}
	size := len(rec.Frame) + missing
	p, _, err := t.look(rec, size)
	if err != nil || !t.gate.Admit(t.now, &p) { // its headers may go on beyond what is here
		return false, nil
	}
	t.quiet = false
	t.got(size)
	if err = t.w.Pass(rec); err == nil {
		err = t.w.Flush()
	}
	if err != nil {
		return false, err
	}
	offset := t.r.Offset()
	tail := 0
	if t.hand != nil {
		tail = lastBytes
	}
	t.r.Skip(tail)
	t.r.Limit(tail + peek)
	for missing > tail {
		n, err := fdio.Splice(t.in.Fd(), t.out.Fd(), missing-tail)
		switch {
		case err == nil && n == 0:
			return false, cutOff(offset)
		case err == nil:
			missing -= n
			t.w.Around(n)
			t.out.Advance(n)
		case err == unix.EAGAIN:
			if err := t.stall(); err != nil {
				return false, err
			}
		case err == unix.EPIPE:
			return false, fdio.ErrReaderGone
		case err != unix.EINTR:
			return false, err
		}
	}
	if t.hand != nil {
		t.in.Timeout = fdio.Forever
		for !t.r.Tail(rec) {
			if err := t.r.Fill(); err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
				return false, cutOff(offset)
			} else if err != nil {
				return false, err
			}
		}
		if err := t.pass(rec, &p); err != nil {
			return false, err
		}
	}
	t.tock()
	return true, nil
}

func cutOff(offset int64) error {
	return &frame.FormatError{Offset: offset, What: "the input ends inside a frame", Err: io.ErrUnexpectedEOF}
}

// pass hands a frame, or the last bytes of one, to the Writer.
func (t *filter) pass(rec *frame.Record, p *gate.Packet) error {
	if err := t.w.Pass(rec); err != nil || p.Unmetered {
		return err
	}
	return t.mark(p.Bytes)
}

// mark notes that a frame was handed to the Writer, so that the ledger can be put
// right if this process is killed before it is written.
func (t *filter) mark(bytes int64) error {
	if t.hand != nil && t.hand.Mark(t.w.Offset(), bytes) {
		return t.w.Flush()
	}
	return nil
}

// dropped notes what was dropped and is to be charged all the same.
func (t *filter) dropped() {
	if t.hand != nil && t.offered {
		t.hand.Drop(t.gate.Dropped())
	}
}

// trust has what is in hand given back after a kill, unless it was not charged: while
// the ledger cannot be used, and until nothing is held that came then.
func (t *filter) trust() {
	switch failing := t.gate.Err() != nil; {
	case t.hand == nil || failing == t.lapsed:
	case failing:
		t.lapsed = true
		t.hand.Lapse()
	case t.gate.Held() == 0:
		t.lapsed = false
		t.hand.Resume()
	}
}

// stall waits until there is something to splice and room for it.
func (t *filter) stall() error {
	if _, err := t.in.Wait(fdio.Forever); err != nil {
		return err
	}
	full := [1]fdio.PollFd{{Fd: int32(t.out.Fd()), Events: unix.POLLOUT}}
	if _, err := fdio.Wait(full[:], fdio.Forever); err != nil {
		return err
	}
	if fdio.Broken(full[0]) {
		return fdio.ErrReaderGone
	}
	return nil
}

// look finds out what the gate needs to know of a frame of so many bytes, of
// which rec holds the first or all. An error is what of a super-frame's header cannot
// be: the gate takes it for one, as it is no single frame either.
func (t *filter) look(rec *frame.Record, size int) (gate.Packet, packet.Layers, error) {
	l := packet.Dissect(rec.Frame, t.link)
	p := gate.Packet{
		Control: l.Control(rec.Frame),
		ECN:     t.ecn && l.ECT(rec.Frame),
	}
	ip := 0
	if l.Version != 0 {
		ip = l.End - l.L3
	}
	p.Bytes = t.count.Bytes(size, l.L2Len, ip)
	if len(t.unmetered) > 0 {
		p.Unmetered = t.exempt(&l, rec.Frame)
	}
	if rec.Offload == nil {
		return p, l, nil
	}
	h, err := offload.Parse(rec.Offload)
	if err != nil || !h.Super() {
		return p, l, err
	}
	n, head, last, err := offload.Measure(h, rec.Frame, size, t.link)
	p.Super = err != nil || n > 1
	if err == nil && n > 1 {
		p.Bytes = int64(n-1)*t.count.Bytes(head+int(h.GSOSize), l.L2Len, 0) + t.count.Bytes(last, l.L2Len, 0)
	}
	return p, l, err
}

func (t *filter) exempt(l *packet.Layers, f []byte) bool {
	src, dst, ok := l.Addrs(f)
	if !ok {
		return false
	}
	for _, p := range t.unmetered {
		if p.Contains(src) || p.Contains(dst) {
			return true
		}
	}
	return false
}

// frame does with a frame what the gate says.
func (t *filter) frame(rec *frame.Record) error {
	if t.stream {
		t.now = int64(min(rec.Time, gate.MaxTime))
		if err := t.release(); err != nil {
			return err
		}
		if t.now >= t.next {
			t.tock()
		}
	}
	t.quiet = false
	t.got(len(rec.Frame))
	p, l, _ := t.look(rec, len(rec.Frame))
	switch t.gate.Arrive(t.now, &p) {
	case gate.Mark:
		l.SetCE(rec.Frame)
		fallthrough
	case gate.Pass:
		return t.pass(rec, &p)
	case gate.Hold:
		t.hold(rec, &p, &l)
	case gate.Cut:
		return t.cut(rec, p.Bytes)
	}
	return nil
}

func (t *filter) hold(rec *frame.Record, p *gate.Packet, l *packet.Layers) {
	raw := rec.Raw()
	h := t.gate.Hold(p, l.Flow(rec.Frame, t.seed), len(raw))
	copy(h.Data, raw)
	h.Meta = int32(len(raw) - len(rec.Extra) - len(rec.Frame))
}

// cut offers each segment of a super-frame to the gate, so that a drop costs
// one frame and not forty-five in a row.
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
		if err := t.part(&part); err != nil {
			return err
		}
	}
	return nil
}

// part is frame for a segment, which is in no reader's memory.
func (t *filter) part(rec *frame.Record) error {
	p, l, _ := t.look(rec, len(rec.Frame))
	switch t.gate.Arrive(t.now, &p) {
	case gate.Mark:
		l.SetCE(rec.Frame)
		fallthrough
	case gate.Pass:
		return t.pass(rec, &p)
	case gate.Hold:
		size := frame.HeadSize + 4 + len(rec.Frame) + len(rec.Extra)
		h := t.gate.Hold(&p, l.Flow(rec.Frame, t.seed), size)
		h.Data = rec.Append(h.Data[:0])
		h.Meta = int32(len(h.Data) - len(rec.Extra) - len(rec.Frame))
	}
	return nil
}

// release writes what the gate lets go of by now.
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
		if err == nil {
			err = t.mark(h.Bytes)
		}
		t.gate.Done(h)
		if err != nil {
			return err
		}
	}
}

// drain lets out what is held after the input has ended, as far as that is soon: as time
// goes by, or, where time is the records', as it would have gone by.
func (t *filter) drain() error {
	end := min(t.now+int64(min(t.queue, time.Hour)+linger), gate.MaxTime) // after which no time comes
	for {
		if err := t.release(); err != nil {
			return err
		}
		at, ok := t.gate.Due(t.now)
		if !ok || t.now >= end {
			t.gate.Abandon()
			return t.w.Flush()
		}
		at = min(max(at, t.now+1), end)
		if t.stream {
			t.now = at
			continue
		}
		if err := t.w.Flush(); err != nil {
			return err
		}
		fds := [1]fdio.PollFd{{Fd: int32(t.out.Fd())}}
		if _, err := fdio.Wait(fds[:], max(time.Duration(at-t.now), tick)); err != nil {
			return err
		}
		if fdio.Broken(fds[0]) {
			return fdio.ErrReaderGone
		}
		t.tock()
	}
}
