package main

import (
	"errors"
	"time"

	"framepipe/frame"
	"framepipe/internal/fairq"
	"framepipe/internal/fdio"
	"framepipe/internal/packet"

	"golang.org/x/sys/unix"
)

// While the output has no room, frames wait in a fair queue, and the tap's own queue is kept
// empty. In that one, a frame of a flow that sends little would wait behind all frames of those
// that send much, and be dropped as they are. A socket in place of a tap is left full: its
// senders wait.

const (
	// longestQueue is the limit in bytes. A flow that fills it waits some milliseconds at
	// Gbit/s, and others do not wait for it. With 1 MiB, TCP lost more, and was slower.
	longestQueue = 4 << 20
	// atOnce and mostSpans limit the bytes and records taken from the queue for one write. These
	// no longer let a frame of another flow pass.
	atOnce    = 64 << 10
	mostSpans = 64
	// nap is the longest wait for room before the device is read again.
	nap = 200 * time.Microsecond
	// copied is the size up to which a frame is copied to memory of its own size. A longer
	// one keeps the memory that it was read to, which is for the longest.
	copied = 16 << 10
)

// keep takes the records in the buffer from offset done on into the backlog. The first of
// them may have been written in part.
func (t *reader) keep(done int) {
	start := 0
	for _, end := range t.ends {
		if end > done {
			h := t.queue.Take(end - start)
			copy(h.Data, t.buf[start:end])
			if start < done {
				t.due, t.sent = append(t.due, h), done-start
			} else {
				t.push(h)
			}
		}
		start = end
	}
}

// push puts a record into the queue, and keeps the queue within its limit.
func (t *reader) push(h *fairq.Held) {
	f := frameOf(h)
	layers := packet.Dissect(f, t.link)
	h.Bytes = int64(len(h.Data))
	t.queue.Push(h, layers.Flow(f, t.seed))
	for t.queue.Frames > 1 && (t.queue.Bytes > longestQueue || t.queue.Memory > fairq.MaxMemory) {
		h := t.queue.Drop()
		t.n.dropped.Add(1)
		t.n.droppedBytes.Add(uint64(len(frameOf(h))))
		t.queue.Free(h)
	}
}

// frameOf returns the frame of a record, without its head: see frame.PutHead.
func frameOf(h *fairq.Held) []byte {
	if h.Data[10] == 0xc0 {
		return h.Data[frame.HeadSize:]
	}
	return h.Data[frame.HeadSizeOffload:]
}

// backlog moves frames from the device through the queue to the output, until the queue is
// empty.
func (t *reader) backlog() error {
	fds := [2]fdio.PollFd{
		{Fd: int32(t.stop), Events: unix.POLLIN},
		{Fd: int32(t.out.Fd()), Events: unix.POLLOUT},
	}
	for {
		if err := t.intake(); err != nil {
			return errors.Join(err, t.flush())
		}
		if err := t.emit(); err != unix.EAGAIN {
			return err
		}
		if _, err := fdio.Wait(fds[:], nap); err != nil {
			return err
		}
		if fdio.Broken(fds[1]) {
			return fdio.ErrReaderGone
		}
		if fds[0].Revents != 0 {
			return t.last()
		}
	}
}

// intake reads the device's frames into the queue, at most a batch.
func (t *reader) intake() error {
	defer t.publish()
	now := uint64(time.Now().UnixNano())
	for n, i := 0, 0; n < batch && i < most; i++ {
		if t.spare == nil {
			t.spare = t.queue.Take(longest)
		}
		h := t.spare
		size, hdr, err := t.read(h.Data)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return err
		}
		if size < 0 {
			continue
		}
		if size += frame.PutHead(h.Data, now, hdr, size); size <= copied {
			h = t.queue.Take(size)
			copy(h.Data, t.spare.Data)
		} else {
			h.Data, t.spare = h.Data[:size], nil
		}
		t.push(h)
		n += size
	}
	return nil
}

// emit writes the queue. The error is EAGAIN if the output has no room for all of it.
func (t *reader) emit() error {
	for t.fetch() > 0 {
		done, err := t.out.Try(t.spans...)
		if err != nil {
			return err
		}
		t.passed(done)
	}
	return nil
}

// flush writes the rest of the queue, and waits for room.
func (t *reader) flush() error {
	for n := t.fetch(); n > 0; n = t.fetch() {
		if err := t.out.Writev(t.spans); err != nil {
			return err
		}
		t.passed(n)
	}
	return nil
}

// fetch sets the spans of the next write, and returns the number of their bytes.
func (t *reader) fetch() (n int) {
	t.spans = t.spans[:0]
	for i := 0; i < mostSpans && n < atOnce; i++ {
		if i == len(t.due) {
			h := t.queue.Pop()
			if h == nil {
				break
			}
			t.due = append(t.due, h)
		}
		t.spans = append(t.spans, t.due[i].Data)
		n += len(t.due[i].Data)
	}
	if n > 0 {
		t.spans[0] = t.spans[0][t.sent:]
		n -= t.sent
	}
	return n
}

// passed removes bytes that have been written.
func (t *reader) passed(n int) {
	t.sent += n
	i := 0
	for ; i < len(t.due) && t.sent >= len(t.due[i].Data); i++ {
		t.sent -= len(t.due[i].Data)
		t.queue.Free(t.due[i])
	}
	t.due = t.due[:copy(t.due, t.due[i:])]
}
