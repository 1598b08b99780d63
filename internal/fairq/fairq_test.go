package fairq

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// A queue against a slow model: frames of a flow stay in order, what is dropped is the oldest
// of the flow with the most bytes, and the sums are right.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Queue
		model := map[uint64][]*Held{}
		flowOf := map[*Held]uint64{}
		bytes := func(flow uint64) (n int64) {
			for _, h := range model[flow] {
				n += h.Bytes
			}
			return n
		}
		gone := func(h *Held) {
			flow := flowOf[h]
			if len(model[flow]) == 0 || model[flow][0] != h {
				t.Fatalf("flow %d: not its oldest frame", flow)
			}
			model[flow] = model[flow][1:]
			q.Free(h)
		}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				flow := rapid.Uint64Range(0, 40).Draw(t, "flow")
				h := q.Take(rapid.IntRange(1, 70000).Draw(t, "size"))
				h.Bytes = int64(len(h.Data))
				flowOf[h] = flow
				model[flow] = append(model[flow], h)
				q.Push(h, flow)
			case 2:
				want := q.Peek()
				if want == nil {
					break
				}
				take := rapid.SampledFrom([]func() *Held{q.Pop, q.Remove}).Draw(t, "take")
				h := take()
				if h != want {
					t.Fatal("Pop or Remove is not Peek")
				}
				gone(h)
			case 3:
				h := q.Fattest()
				if h == nil {
					break
				}
				for flow := range model {
					if bytes(flow) > bytes(flowOf[h]) {
						t.Fatalf("flow %d has %d bytes, flow %d has %d", flowOf[h], bytes(flowOf[h]), flow, bytes(flow))
					}
				}
				if q.Drop() != h {
					t.Fatal("Drop is not Fattest")
				}
				gone(h)
			}
			frames, sum, memory := 0, int64(0), 0
			for flow := range model {
				frames += len(model[flow])
				sum += bytes(flow)
				for _, h := range model[flow] {
					memory += cap(h.Data)
				}
			}
			if q.Frames != frames || q.Bytes != sum || q.Memory != memory {
				t.Fatalf("%d frames, %d bytes, %d of memory; want %d, %d, %d", q.Frames, q.Bytes, q.Memory, frames, sum, memory)
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
	push := func(flow uint64, size int) {
		h := q.Take(size)
		h.Bytes, h.Meta = int64(size), int32(flow)
		q.Push(h, flow)
	}
	for range 2000 {
		push(1, 100)
	}
	for range 200 {
		push(2, 1500)
	}
	for range 10 {
		push(3, 64000)
	}
	var sent [5]int64
	for i := range 1000 {
		if i%50 == 0 {
			push(4, 80)
			if h := q.Peek(); i > 0 && h.Meta != 4 {
				t.Errorf("after %d frames, flow %d comes before a sparse one", i, h.Meta)
			}
		}
		h := q.Pop()
		sent[h.Meta] += h.Bytes
		q.Free(h)
	}
	for _, n := range sent[1:4] {
		if d := n - sent[1]; d > 64000+Quantum || d < -64000-Quantum {
			t.Errorf("flows have sent %v bytes", sent[1:])
		}
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

// A frame costs about as much whether there are few flows or many.
func BenchmarkFull(b *testing.B) {
	for _, flows := range []uint64{4, 60000} {
		b.Run(fmt.Sprint(flows), func(b *testing.B) {
			var q Queue
			for i := range uint64(b.N) {
				h := q.Take(100)
				h.Bytes = 100
				q.Push(h, i%flows)
				if q.Frames > 5000 {
					q.Free(q.Drop())
				}
			}
		})
	}
}
