package bill

import (
	"slices"
	"testing"

	"framepipe/internal/calendar"

	"pgregory.net/rapid"
)

// Pieces have what each of them has, the slots in the order of time, and only the
// cycles in which there are some.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const slot = 7
		var p Pieces
		at, total := rapid.Int64Range(100, 200).Draw(rt, "start"), int64(0)
		known := map[int64]bool{} // cycles
		months := calendar.Calendar{Length: 100}
		for range rapid.IntRange(1, 5).Draw(rt, "pieces") {
			n := rapid.IntRange(1, 30).Draw(rt, "slots")
			s := series(at, slot, n, func(i int) (int64, int64) { return int64(i + 1), 1000 * int64(i+1) })
			p = append(p, s)
			total += int64(n*(n+1)) / 2
			for i := range n {
				for ns := range int64(slot) {
					known[(s.at(i)+ns)/100*100] = true
				}
			}
			at = s.at(n) + rapid.Int64Range(0, 300).Draw(rt, "gap")
		}
		all, err := p.Series(0, at)
		if err != nil {
			rt.Fatal(err)
		}
		in, out := int64(0), int64(0)
		for i := range all.In {
			in, out = in+all.In[i], out+all.Out[i]
			if all.In[i] > 0 && !all.Known[i] {
				rt.Fatalf("slot %d", i)
			}
		}
		if in != total || out != 1000*total {
			rt.Fatalf("%d and %d bytes, want %d", in, out, total)
		}
		var starts []int64
		for _, c := range Cycles(p, months) {
			starts = append(starts, c.Start)
		}
		if !slices.IsSorted(starts) || len(starts) != len(known) {
			rt.Fatalf("cycles %v, want %v", starts, known)
		}
		if last := Last(p, months); last.Start != starts[len(starts)-1] {
			rt.Fatalf("the last is %v of %v", last, starts)
		}
		if x, err := p.Series(at+1000, at+2000); err != nil || len(x.In) > 0 {
			rt.Fatalf("%+v, %v", x, err)
		}
	})
}
