package hist

import (
	"cmp"
	"net/netip"
	"slices"
)

// pairs is the most pairs of addresses that a Top holds.
const pairs = 4096

// Top counts bytes by pair of addresses, in bounded memory: when it is full, the median of
// the counts is subtracted from all, and those that become nothing are forgotten (Anderson et al.,
// A High-Performance Algorithm for Identifying Frequent Items in Data Streams, 2017). So each
// count is too small by the same amount at the most, which is below 2/pairs of all bytes.
type Top struct {
	n       int
	bytes   map[pair]uint64
	missing uint64 // the most that any count may lack
	medians []uint64
}

type pair struct{ src, dst netip.Addr }

// Pair is the traffic from one address to another.
type Pair struct {
	Src   string `json:"src" msgpack:"src"` // empty for frames that are not IP
	Dst   string `json:"dst" msgpack:"dst"`
	Bytes uint64 `json:"ethernet_bytes" msgpack:"ethernet_bytes"`
}

// NewTop returns a Top that reports the n pairs with the most bytes.
func NewTop(n int) *Top { return &Top{n: n, bytes: make(map[pair]uint64, pairs)} }

// Add counts bytes from src to dst.
func (t *Top) Add(src, dst netip.Addr, bytes int) {
	if t.bytes[pair{src, dst}] += uint64(bytes); len(t.bytes) < pairs {
		return
	}
	t.medians = t.medians[:0]
	for _, n := range t.bytes {
		t.medians = append(t.medians, n)
	}
	slices.Sort(t.medians)
	median := t.medians[len(t.medians)/2]
	for p, n := range t.bytes {
		if n <= median {
			delete(t.bytes, p)
		} else {
			t.bytes[p] = n - median
		}
	}
	t.missing += median
}

// Take adds the pairs with the most bytes to a report, and begins anew.
func (t *Top) Take(r *Report) {
	for p, n := range t.bytes {
		q := Pair{Bytes: n}
		if p.src.IsValid() {
			q.Src, q.Dst = p.src.String(), p.dst.String()
		}
		r.Top = append(r.Top, q)
	}
	slices.SortFunc(r.Top, func(a, b Pair) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Src, b.Src), cmp.Compare(a.Dst, b.Dst))
	})
	missing := t.missing
	r.Top, r.TopMissing = slices.Clip(r.Top[:min(t.n, len(r.Top))]), &missing
	clear(t.bytes)
	t.missing = 0
}
