package fdio

import (
	"bytes"
	"strings"
	"testing"

	"framepipe/internal/packettest"

	"pgregory.net/rapid"
)

// What is written through watched memory, from beside it, or in spans of both,
// arrives, and its progress is how much that was.
func TestWatch(t *testing.T) {
	all := packettest.Bytes(1 << 20)
	for _, k := range makers {
		if strings.HasPrefix(k.name, "non-blocking") {
			continue // as the others, when waited upon
		}
		t.Run(k.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				e := k.make(t)
				defer e.closeBoth()
				if rapid.Bool().Draw(rt, "small") {
					shrink(e.w)
				}
				got := drainFast(e.r)
				var p Progress
				out := NewOutput(e.w)
				mem := out.Watch(&p, func(f func()) { f() }, 100_000)
				if len(mem) != 100_000 {
					rt.Fatalf("%d bytes of memory", len(mem))
				}
				var want []byte
				at, n := 0, rapid.IntRange(1, 20).Draw(rt, "writes")
				for range n {
					var spans [][]byte
					for _, size := range rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 60_000)), 1, 10).Draw(rt, "spans") {
						s := all[at%500_000:][:size]
						if rapid.Bool().Draw(rt, "inside") {
							s = mem[at%30_000:][:size]
							copy(s, all[at%400_000:])
						}
						spans = append(spans, s)
						at += size
					}
					for _, s := range spans { // as they are in the end: those in mem overlap
						want = append(want, s...)
					}
					if err := out.Writev(spans); err != nil {
						rt.Fatal(err)
					}
					if p.Written() != uint64(len(want)) || p.end != 0 {
						rt.Fatalf("%d written, want %d", p.Written(), len(want))
					}
				}
				closeFd(&e.w)
				if b := <-got; !bytes.Equal(b, want) {
					rt.Fatalf("%d bytes arrived, and not the %d that were written", len(b), len(want))
				}
			})
		})
	}
}

// While a write is under way, the kernel's position counts, or all of it if that has
// not moved.
func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		p    Progress
		want uint64
	}{
		{Progress{settled: 5}, 5},
		{Progress{settled: 5, origin: 100, position: 7}, 5},                        // of an earlier write
		{Progress{settled: 100, origin: 60, position: 40, end: 120}, 120},          // all, and not noted; or not begun
		{Progress{settled: 100, origin: 60, position: 50, end: 120}, 110},          // some
		{Progress{settled: 120, origin: 60, position: 60, end: 120}, 120},          // done, and noted
		{Progress{settled: 10, origin: ^uint64(9), position: 30, end: 40}, 20},     // from memory farther on than the output is
		{Progress{settled: 10, origin: ^uint64(9), position: 20, end: 10 + 5}, 15}, // the same, not noted
		{Progress{settled: 100, origin: 60, position: 40, end: 1}, 100},            // nonsense
	} {
		if got := tt.p.Written(); got != tt.want {
			t.Errorf("%+v: %d, want %d", tt.p, got, tt.want)
		}
	}
}
