package fairq

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A queue against a slow model: frames of a flow stay in order, Drop takes the oldest of the flow
// with the most bytes, and the sums are right.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Queue
		var model [41][]*Held
		var bytes [41]int64
		frames, sum, memory := 0, int64(0), 0
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "push") {
				flow := rapid.IntRange(0, 40).Draw(t, "flow")
				h := q.Take(rapid.IntRange(1, 70000).Draw(t, "size"))
				h.Bytes, h.Meta = int64(len(h.Data)), int32(flow)
				model[flow] = append(model[flow], h)
				bytes[flow] += h.Bytes
				frames, sum, memory = frames+1, sum+h.Bytes, memory+cap(h.Data)
				q.Push(h, uint64(flow))
			} else if frames > 0 {
				var h, got *Held
				switch rapid.IntRange(0, 3).Draw(t, "take") {
				case 0:
					h, got = q.Peek(), q.Pop()
				case 1:
					h, got = q.Peek(), q.Remove()
				default:
					h, got = q.Fattest(), q.Drop()
					if bytes[h.Meta] < slices.Max(bytes[:]) {
						t.Fatalf("flow %d is not the fattest: %v", h.Meta, bytes)
					}
				}
				flow := h.Meta
				if got != h || model[flow][0] != h {
					t.Fatalf("flow %d: not its oldest frame", flow)
				}
				model[flow] = model[flow][1:]
				bytes[flow] -= h.Bytes
				frames, sum, memory = frames-1, sum-h.Bytes, memory-cap(h.Data)
				q.Free(h)
			}
			if q.Frames != frames || q.Bytes != sum || q.Memory != memory {
				t.Fatalf("%d frames, %d bytes, %d of memory; want %d, %d, %d",
					q.Frames, q.Bytes, q.Memory, frames, sum, memory)
			}
			if (q.Peek() == nil) != (frames == 0) || (q.Fattest() == nil) != (frames == 0) {
				t.Fatal("empty, or not")
			}
		}
	})
}

// Flows share alike whatever their frames' sizes, and a flow that sends little goes first.
func TestFair(t *testing.T) {
	var q Queue
	push := func(flow uint64, size, frames int) {
		for range frames {
			h := q.Take(size)
			h.Bytes, h.Meta = int64(size), int32(flow)
			q.Push(h, flow)
		}
	}
	push(1, 100, 2000)
	push(2, 1500, 200)
	push(3, 64000, 10)
	var sent [5]int64
	for i := range 1000 {
		if i%50 == 0 {
			push(4, 80, 1)
			if h := q.Peek(); i > 0 && h.Meta != 4 {
				t.Errorf("after %d frames, flow %d comes before a sparse one", i, h.Meta)
			}
		}
		h := q.Pop()
		sent[h.Meta] += h.Bytes
		q.Free(h)
	}
	if flows := sent[1:4]; slices.Max(flows)-slices.Min(flows) > 64000+Quantum {
		t.Errorf("flows have sent %v bytes", flows)
	}
}

// The memory of the pool is bounded, whatever sizes a flood has one after the other.
func TestMemory(t *testing.T) {
	var q Queue
	for _, size := range []int{300, 1500, 9000, 64000, 1 << 20} {
		var all []*Held
		for q.Memory+size < MaxMemory {
			all = append(all, q.Take(size))
		}
		for _, h := range all {
			q.Free(h)
		}
		if q.Memory != 0 || q.spare > MaxMemory+2<<20 {
			t.Errorf("%d bytes taken, %d in the pool", q.Memory, q.spare)
		}
	}
}
