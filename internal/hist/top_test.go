package hist

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func addr(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// Whatever comes in whatever order, each count lacks no more than it says, which is no more than
// is promised; memory is bounded; and the largest is reported if it is larger than that.
func TestTopError(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top, exact, all := NewTop(pairs), map[string]uint64{}, uint64(0)
		rng := rapid.Uint32().Draw(t, "seed")
		add := func(src uint32, n int) {
			top.Add(addr(src), addr(1), n)
			exact[addr(src).String()] += uint64(n)
			all += uint64(n)
			if len(top.bytes) > pairs {
				t.Fatalf("%d pairs", len(top.bytes))
			}
		}
		for range rapid.IntRange(1, 5).Draw(t, "phases") {
			hosts := uint32(rapid.SampledFrom([]int{1, 3, pairs, 3 * pairs}).Draw(t, "hosts"))
			size := rapid.IntRange(1, 1e6).Draw(t, "size")
			for range rapid.IntRange(1, 3*pairs).Draw(t, "frames") {
				rng = rng*1664525 + 1013904223
				add(rng>>8%hosts, size+int(rng>>20))
			}
		}
		var r Report
		top.Take(&r)
		if *r.TopMissing > 2*all/pairs {
			t.Fatalf("counts may lack %d of %d", *r.TopMissing, all)
		}
		for i, p := range r.Top {
			if want := exact[p.Src]; p.Bytes > want || p.Bytes+*r.TopMissing < want || i > 0 && p.Bytes > r.Top[i-1].Bytes {
				t.Fatalf("%v, want %d, and it may lack %d", p, want, *r.TopMissing)
			}
			delete(exact, p.Src)
		}
		for host, n := range exact {
			if n > *r.TopMissing {
				t.Fatalf("%s with %d bytes is missing", host, n)
			}
		}
		if len(top.bytes) != 0 || top.missing != 0 {
			t.Fatal("it does not begin anew")
		}
	})
}

func TestTopText(t *testing.T) {
	top := NewTop(2)
	top.Add(addr(0x0a000001), addr(0x0a000002), 6000)
	top.Add(netip.Addr{}, netip.Addr{}, 3000)
	top.Add(addr(0x0a000003), addr(0x0a000002), 1000)
	r := Report{Frames: 3, Ethernet: 10000}
	top.missing = 500
	top.Take(&r)
	const want = `most bytes, by addresses (each may lack up to 500 B)
  10.0.0.1 > 10.0.0.2                        6.00 kB   60.0%  #######
  not IP                                     3.00 kB   30.0%  ###
`
	if got := r.Text(Style{ASCII: true}); !strings.HasSuffix(got, want) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
