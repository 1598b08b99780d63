// Package fairq queues frames fairly: flows take turns, and a flow that is new or sends less
// than its share goes first. It is the deficit round robin of fq_codel with its two lists
// (RFC 8290, section 4; Linux net/sched/sch_fq_codel.c), without CoDel: its users limit its
// length, and drop from the flow with the most bytes.
package fairq

import "math/bits"

const (
	flows = 1024

	// Quantum is the bytes that a flow may send per round: one full frame, as counted on
	// the wire.
	Quantum = 1538

	// MaxMemory is the limit of a queue's memory, in bytes. Its users drop frames to keep it.
	MaxMemory = 8 << 20
)

// Held is a frame that waits in a queue.
type Held struct {
	Data   []byte // the encoded record
	Bytes  int64  // as the user counts them
	Since  int64  // time of arrival
	ECN    bool   // may be marked instead of dropped
	Marked bool   // to be marked when it passes
	Meta   int32  // for the user

	class int // its memory is 1<<class bytes
	next  *Held
}

// Queue is a fair queue. The zero Queue is empty and ready for use.
type Queue struct {
	Bytes  int64 // counted bytes of the frames in it
	Frames int
	Memory int // of the frames that are taken, in it or not, in bytes

	flow       [flows]flow
	fresh, old list
	heap       []*flow   // the flows with frames, the one with the most bytes first
	pool       [24]*Held // free Helds, by class
	spare      int       // memory of the pool
}

type flow struct {
	head, tail *Held
	bytes      int64
	deficit    int64
	place      int // in the heap
	next       *flow
	active     bool
}

// list is a list of flows, first in first out.
type list struct{ head, tail *flow }

func (l *list) push(f *flow) {
	f.next = nil
	if l.head == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
}

func (l *list) pop() *flow {
	f := l.head
	l.head = f.next
	return f
}

// Take returns a Held with room for size bytes.
func (q *Queue) Take(size int) *Held {
	class := bits.Len(uint(max(size, 256) - 1))
	q.Memory += 1 << class
	h := q.pool[class]
	if h == nil {
		if q.Memory+q.spare > MaxMemory { // a flood of frames of one size, and then of another
			clear(q.pool[:])
			q.spare = 0
		}
		return &Held{Data: make([]byte, size, 1<<class), class: class}
	}
	q.pool[class] = h.next
	q.spare -= 1 << class
	*h = Held{Data: h.Data[:size], class: class}
	return h
}

// Free returns a Held to the pool.
func (q *Queue) Free(h *Held) {
	q.Memory -= 1 << h.class
	q.spare += 1 << h.class
	h.next = q.pool[h.class]
	q.pool[h.class] = h
}

// Push appends a frame to its flow.
func (q *Queue) Push(h *Held, hash uint64) {
	f := &q.flow[hash%flows]
	if f.head == nil {
		f.head = h
		f.place = len(q.heap)
		q.heap = append(q.heap, f)
	} else {
		f.tail.next = h
	}
	f.tail = h
	f.bytes += h.Bytes
	q.up(f)
	q.Bytes += h.Bytes
	q.Frames++
	if !f.active {
		f.active = true
		f.deficit = Quantum
		q.fresh.push(f)
	}
}

// Peek returns the next frame, nil if the queue is empty.
func (q *Queue) Peek() *Held {
	f := q.nextFlow()
	if f == nil {
		return nil
	}
	return f.head
}

// Pop removes the frame that Peek returns. It belongs to the caller until Free.
func (q *Queue) Pop() *Held {
	f := q.nextFlow()
	if f == nil {
		return nil
	}
	f.deficit -= f.head.Bytes
	return q.unlink(f)
}

// Remove is Pop for a frame that is dropped: it does not use up its flow's turn. The queue
// must not be empty.
func (q *Queue) Remove() *Held { return q.unlink(q.nextFlow()) }

// nextFlow returns the flow to send from, nil if all are empty.
func (q *Queue) nextFlow() *flow {
	for {
		l := &q.fresh
		if l.head == nil {
			l = &q.old
		}
		f := l.head
		switch {
		case f == nil:
			return nil
		case f.deficit <= 0:
			f.deficit += Quantum
			q.old.push(l.pop())
		case f.head == nil && l == &q.fresh:
			// Keep it for a round (RFC 8290, section 4.2). A flow that is
			// forgotten at once could become new again and starve the old ones.
			q.old.push(l.pop())
		case f.head == nil:
			l.pop().active = false
		default:
			return f
		}
	}
}

// Fattest returns the oldest frame of the flow with the most bytes, nil if the queue is empty.
func (q *Queue) Fattest() *Held {
	if len(q.heap) == 0 {
		return nil
	}
	return q.heap[0].head
}

// Drop removes the frame that Fattest returns. It belongs to the caller until Free.
func (q *Queue) Drop() *Held { return q.unlink(q.heap[0]) }

// unlink removes the oldest frame of a flow.
func (q *Queue) unlink(f *flow) *Held {
	h := f.head
	f.head = h.next
	f.bytes -= h.Bytes
	q.Bytes -= h.Bytes
	q.Frames--
	if f.head != nil {
		q.down(f)
		return h
	}
	last := q.heap[len(q.heap)-1]
	q.swap(f, last)
	q.heap = q.heap[:len(q.heap)-1]
	q.up(last)
	q.down(last)
	return h
}

// up and down restore the order of the heap after a flow has gained or lost bytes.
func (q *Queue) up(f *flow) {
	for f.place > 0 {
		parent := q.heap[(f.place-1)/2]
		if parent.bytes >= f.bytes {
			return
		}
		q.swap(f, parent)
	}
}

func (q *Queue) down(f *flow) {
	for {
		child := 2*f.place + 1
		if child >= len(q.heap) {
			return
		}
		if child+1 < len(q.heap) && q.heap[child+1].bytes > q.heap[child].bytes {
			child++
		}
		if q.heap[child].bytes <= f.bytes {
			return
		}
		q.swap(f, q.heap[child])
	}
}

func (q *Queue) swap(a, b *flow) {
	a.place, b.place = b.place, a.place
	q.heap[a.place], q.heap[b.place] = a, b
}
