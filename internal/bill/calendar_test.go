package bill

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestFixedCycles(t *testing.T) {
	at := func(s string) int64 {
		x, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return x.UnixNano()
	}
	for _, tt := range []struct {
		length          time.Duration
		time            string
		name            string
		start, end      string
		other, notBegun string
	}{
		{24 * time.Hour, "2026-03-05T13:00:00Z", "2026-03-05", "2026-03-05T00:00:00Z", "2026-03-06T00:00:00Z", "2026-03-05T01:00:00+01:00", "2026-03-05T01:00:00Z"},
		{7 * 24 * time.Hour, "2026-03-11T13:00:00Z", "2026-03-05", "2026-03-05T00:00:00Z", "2026-03-12T00:00:00Z", "2026-03-05T00:00:00Z", "2026-03-06"},
		{6 * time.Hour, "2026-03-05T13:00:00Z", "2026-03-05T12:00:00Z", "2026-03-05T12:00:00Z", "2026-03-05T18:00:00Z", "2026-03-05T12:00:00+00:00", "2026-03-05T13:00:00Z"},
	} {
		c := Calendar{Day: 1, Zone: time.UTC, Length: tt.length}
		x := c.At(at(tt.time))
		if want := (Cycle{tt.name, at(tt.start), at(tt.end)}); x != want {
			t.Errorf("%v: %+v, want %+v", tt.length, x, want)
		}
		for _, name := range []string{tt.name, tt.other} {
			if again, err := c.Parse(name); err != nil || again != x {
				t.Errorf("%v: %s is %+v, %v", tt.length, name, again, err)
			}
		}
		for _, name := range []string{tt.notBegun, "2026-03", "", "1960-01-01", "2026-02-30"} {
			if x, err := c.Parse(name); err == nil {
				t.Errorf("%v: %s is %+v", tt.length, name, x)
			}
		}
	}
	for name, ok := range map[string]bool{"2005-06": true, "2005-06-01": true, "2005-06-01T00:00:00Z": true, "june": false, "9999-01": false} {
		if err := CanParse(name); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Pieces have what each of them has, the slots in the order of time, and only the
// cycles in which there are some.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const slot = 7
		var p Pieces
		at, total := rapid.Int64Range(100, 200).Draw(rt, "start"), int64(0)
		known := map[int64]bool{} // cycles
		calendar := Calendar{Length: 100}
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
		for _, c := range Cycles(p, calendar) {
			starts = append(starts, c.Start)
		}
		if !slices.IsSorted(starts) || len(starts) != len(known) {
			rt.Fatalf("cycles %v, want %v", starts, known)
		}
		if last := Last(p, calendar); last.Start != starts[len(starts)-1] {
			rt.Fatalf("the last is %v of %v", last, starts)
		}
		if x, err := p.Series(at+1000, at+2000); err != nil || len(x.In) > 0 {
			rt.Fatalf("%+v, %v", x, err)
		}
	})
}
