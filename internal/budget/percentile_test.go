package budget

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestPercentile(t *testing.T) {
	for s, want := range map[string]string{
		"95": "95", "95.0": "95", "99.9%": "99.9", "1.000000001": "1.000000001", "100.000": "100", "2.5": "2.5",
	} {
		var x Percentile
		if err := x.Set(s); err != nil || x.String() != want {
			t.Errorf("%s: %v, %v", s, x, err)
		}
	}
	for _, s := range []string{
		"", "0", "0.0", "0.95", "0.95%", "0.999999999", "100.1", "101", "-5", "+5", "1e2", "95.", ".5",
		"95.0000000001", "ninety", "NaN", "9999", "95 ", "9_5", "٩٥",
	} {
		var x Percentile
		if err := x.Set(s); err == nil {
			t.Errorf("%q is taken: %v", s, x)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		x := Percentile(rapid.Int64Range(int64(Hundred/100), int64(Hundred)).Draw(rt, "p"))
		n := rapid.IntRange(1, 1<<40).Draw(rt, "n")
		share := new(big.Rat).SetFrac64(int64(Hundred-x), int64(Hundred))
		share.Mul(share, big.NewRat(int64(n), 1))
		if want := new(big.Int).Quo(share.Num(), share.Denom()).Int64(); int64(x.Free(n)) != want {
			rt.Fatalf("%v of %d: %d free, want %d", x, n, x.Free(n), want)
		}
		var again Percentile
		if err := again.Set(x.String()); err != nil || again != x {
			rt.Fatalf("%v reads back as %v, %v", x, again, err)
		}
	})
}
