package gate

import "math/bits"

const (
	flows   = 1024
	quantum = 1538 // bytes a flow may send per round: one full frame, as counted on the wire

	// maxHeld bounds the memory of a queue, whatever the rate.
	maxHeld = 8 << 20
)

// Held is a frame that waits in the queue.
type Held struct {
	Data   []byte // the encoded record
	Bytes  int64  // as counted
	Since  int64  // time of arrival
	ECN    bool   // may be marked instead of dropped
	Marked bool   // to be marked when it passes
	Meta   int32  // for the caller

	class int
	next  *Held
}

// queue is a fair queue of frames: flows take turns, and a flow that is new
// or sends less than its share goes first. It is the deficit round
// robin of fq_codel with its two lists (RFC 8290, section 4; Linux
// net/sched/sch_fq_codel.c), without CoDel: the gate limits its length.
type queue struct {
	flow       [flows]flow
	fresh, old list
	bytes      int64 // counted bytes of held frames
	frames     int
	memory     int
	pool       [24]*Held // free Helds, by the power of two of their size
	spare      int       // memory of the pool
}

type flow struct {
	head, tail *Held
	bytes      int64
	deficit    int64
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

// take returns a Held with room for size bytes.
func (q *queue) take(size int) *Held {
	class := bits.Len(uint(max(size, 256) - 1))
	q.memory += 1 << class
	h := q.pool[class]
	if h == nil {
		if q.memory+q.spare > maxHeld { // a flood of frames of one size, and then of another
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

// free returns a Held to the pool.
func (q *queue) free(h *Held) {
	q.memory -= 1 << h.class
	q.spare += 1 << h.class
	h.next = q.pool[h.class]
	q.pool[h.class] = h
}

func (q *queue) push(h *Held, hash uint64) {
	f := &q.flow[hash%flows]
	if f.head == nil {
		f.head = h
	} else {
		f.tail.next = h
	}
	f.tail = h
	f.bytes += h.Bytes
	q.bytes += h.Bytes
	q.frames++
	if !f.active {
		f.active = true
		f.deficit = quantum
		q.fresh.push(f)
	}
}

// peek returns the next frame, nil if the queue is empty.
func (q *queue) peek() *Held {
	f := q.nextFlow()
	if f == nil {
		return nil
	}
	return f.head
}

// nextFlow returns the flow to send from, nil if all are empty.
func (q *queue) nextFlow() *flow {
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
			f.deficit += quantum
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

// pop removes the frame that peek returns.
func (q *queue) pop() *Held {
	f := q.nextFlow()
	if f == nil {
		return nil
	}
	h := q.unlink(f)
	f.deficit -= h.Bytes
	return h
}

// unlink removes the oldest frame of a flow.
func (q *queue) unlink(f *flow) *Held {
	h := f.head
	f.head = h.next
	f.bytes -= h.Bytes
	q.bytes -= h.Bytes
	q.frames--
	return h
}

// fattest returns the flow with the most bytes.
func (q *queue) fattest() *flow {
	var fat *flow
	for _, l := range [...]*list{&q.fresh, &q.old} {
		for f := l.head; f != nil; f = f.next {
			if f.head != nil && (fat == nil || f.bytes > fat.bytes) {
				fat = f
			}
		}
	}
	return fat
}
