// Package hist counts and displays the bytes of frames.
package hist

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"time"
)

// Classes are the names of the frame-size classes: those of RMON
// (RFC 2819, etherStatsPkts64Octets and its neighbours), in bytes with the check
// sequence, then frames longer than 1518 bytes, and super-frames, which will be cut
// into segments.
var Classes = [...]string{"64", "65-127", "128-255", "256-511", "512-1023", "1024-1518", "1519-", "super"}

const (
	super = len(Classes) - 1
	fcs   = 4
)

// most are the largest sizes of the classes, as far as they have one.
var most = []int{64, 127, 255, 511, 1023, 1518}

// Counter counts frames and the values of their bytes. The zero value is ready to use.
type Counter struct {
	// Bytes are counted in pairs, which takes half the loads and stores of
	// counting single bytes; the table fits in a core's second-level cache.
	// Measured: 5 GB/s on text and noise; four tables of single bytes were a fifth
	// slower.
	pairs [1 << 16]uint32
	fresh uint64 // bytes in pairs; fold moves them to the report before a pair can overflow
	sizes [len(Classes)]uint64
	now   Report // of the interval so far: its counts and totals

	Since time.Time // when the interval began; Snapshot sets it
}

// Frame counts a frame of size bytes that becomes segments frames on the wire, with
// ethernet bytes in total.
func (c *Counter) Frame(size, segments, ethernet int) {
	c.now.Frames++
	c.now.Bytes += uint64(size)
	c.now.Wire += uint64(segments)
	c.now.Ethernet += uint64(ethernet)
	c.sizes[class(size, segments)]++
}

func class(size, segments int) int {
	if segments > 1 {
		return super
	}
	i, _ := slices.BinarySearch(most, size+fcs)
	return i
}

// Bytes counts the values of a frame's bytes.
func (c *Counter) Bytes(f []byte) {
	if c.fresh += uint64(len(f)); c.fresh > math.MaxUint32 {
		c.fold()
		c.fresh = uint64(len(f))
	}
	pairs := &c.pairs
	for len(f) >= 16 {
		v, w := binary.LittleEndian.Uint64(f), binary.LittleEndian.Uint64(f[8:])
		f = f[16:]
		// Repeated adds to one counter wait for each other. In constant data, such as
		// zeros, this shortcut makes 8 GB/s of 1.
		if v == w && v == bits.RotateLeft64(v, 16) {
			pairs[uint16(v)] += 8
			continue
		}
		pairs[uint16(v)]++
		pairs[uint16(v>>16)]++
		pairs[uint16(v>>32)]++
		pairs[uint16(v>>48)]++
		pairs[uint16(w)]++
		pairs[uint16(w>>16)]++
		pairs[uint16(w>>32)]++
		pairs[uint16(w>>48)]++
	}
	for _, b := range f {
		c.now.Counts[b]++
	}
}

// Halve halves the counts of values, for a share of the frames that is half as large from now
// on.
func (c *Counter) Halve() {
	c.fold()
	for i := range c.now.Counts {
		c.now.Counts[i] /= 2
	}
}

func (c *Counter) fold() {
	for i, n := range c.pairs {
		c.now.Counts[i&0xff] += uint64(n)
		c.now.Counts[i>>8] += uint64(n)
	}
	clear(c.pairs[:])
	c.fresh = 0
}

// Report has the counts of an interval. Its names are those of the
// formats json and msgpack.
type Report struct {
	Time     time.Time         `json:"time" msgpack:"time"`             // end of the interval
	Interval float64           `json:"interval_s" msgpack:"interval_s"` // seconds
	Frames   uint64            `json:"frames" msgpack:"frames"`         // in the stream
	Wire     uint64            `json:"wire_frames" msgpack:"wire_frames"`
	Bytes    uint64            `json:"bytes" msgpack:"bytes"`
	Ethernet uint64            `json:"ethernet_bytes" msgpack:"ethernet_bytes"` // of the frames on the wire
	BPS      float64           `json:"bps" msgpack:"bps"`                       // bits per second
	FPS      float64           `json:"fps" msgpack:"fps"`                       // frames per second, counting the segments of super-frames
	Entropy  float64           `json:"entropy" msgpack:"entropy"`
	Counts   [256]uint64       `json:"counts" msgpack:"counts"` // of each value in the sampled frames
	Sizes    map[string]uint64 `json:"sizes" msgpack:"sizes"`   // frames by class
	Sample   int               `json:"sample" msgpack:"sample"` // bytes were counted in one of this many frames

	TotalFrames uint64 `json:"total_frames" msgpack:"total_frames"` // since the start
	TotalBytes  uint64 `json:"total_bytes" msgpack:"total_bytes"`

	Top        []Pair  `json:"top,omitempty" msgpack:"top,omitempty"`                 // pairs with the most bytes
	TopMissing *uint64 `json:"top_missing,omitempty" msgpack:"top_missing,omitempty"` // bytes that each may lack
}

// Snapshot returns the counts of the interval that ends now, and begins a new one.
func (c *Counter) Snapshot(now time.Time) Report {
	c.fold()
	r := c.now
	r.Time, r.Interval = now, now.Sub(c.Since).Seconds()
	r.Entropy, r.Sizes = Entropy(&r.Counts), make(map[string]uint64, len(Classes))
	r.TotalFrames += r.Frames
	r.TotalBytes += r.Bytes
	if r.Interval > 0 {
		r.BPS = float64(8*r.Bytes) / r.Interval
		r.FPS = float64(r.Wire) / r.Interval
	}
	for i, name := range Classes {
		r.Sizes[name] = c.sizes[i]
	}
	c.sizes, c.Since = [len(Classes)]uint64{}, now
	c.now = Report{TotalFrames: r.TotalFrames, TotalBytes: r.TotalBytes}
	return r
}

// Entropy returns the Shannon entropy of the values, in bits a byte: 8 for noise,
// 0 for a single value.
func Entropy(counts *[256]uint64) float64 {
	total := 0.0
	for _, n := range counts {
		total += float64(n)
	}
	h := 0.0
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / total
			h -= p * math.Log2(p)
		}
	}
	return h
}

// Most returns up to n values that occurred, most frequent first.
func (r *Report) Most(n int) []byte {
	var all []byte
	for b, count := range r.Counts {
		if count > 0 {
			all = append(all, byte(b))
		}
	}
	slices.SortStableFunc(all, func(a, b byte) int { return cmp.Compare(r.Counts[b], r.Counts[a]) })
	return all[:min(n, len(all))]
}
