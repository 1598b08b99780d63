package hist

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"framepipe/internal/packettest"

	"github.com/vmihailenco/msgpack/v5"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The tables do not overflow.
func TestBytesOverflow(t *testing.T) {
	var c Counter
	f := make([]byte, 1<<20)
	c.Bytes(f)
	c.pairs[0] = math.MaxUint32 - 5 // as after gigabytes
	c.fresh = math.MaxUint32 - 5
	c.Bytes(f)
	if got, want := c.Snapshot(time.Now()).Counts[0], 2*uint64(math.MaxUint32-5)+1<<20; got != want {
		t.Errorf("%d, want %d", got, want)
	}
}

// The classes of sizes, which are with the check sequence.
func TestClasses(t *testing.T) {
	for size, want := range map[int]string{14: "64", 60: "64", 61: "65-127", 1514: "1024-1518", 1515: "1519-", 9014: "1519-"} {
		if got := Classes[class(size, 1)]; got != want || class(size, 2) != super {
			t.Errorf("%d bytes: %s, want %s", size, got, want)
		}
	}
}

// What is exactly as frequent as in noise has noise's shade, and not the next.
func TestShades(t *testing.T) {
	for n, want := range map[uint64]string{0: "  ", 16: "..", 64: "::", 128: "--", 256: "==", 257: "++", 512: "++", 8 * 256: "**", 32 * 256: "##", 32*256 + 1: "@@"} {
		if got := (Style{ASCII: true}).cell(n, 256*256); got != want {
			t.Errorf("%d of 65536: %q, want %q", n, got, want)
		}
	}
}

func TestEntropy(t *testing.T) {
	for values, want := range map[int]float64{0: 0, 1: 0, 2: 1, 256: 8} {
		var counts [256]uint64
		for i := range values {
			counts[255-i] = 3
		}
		if h := Entropy(&counts); math.Abs(h-want) > 1e-9 {
			t.Errorf("of %d values: %v, want %v", values, h, want)
		}
	}
}

func sample() Report {
	var c Counter
	c.Since = time.Date(2014, 7, 1, 12, 0, 0, 0, time.UTC)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 1000 {
		f := make([]byte, 60+rng.IntN(1454))
		for j := range f {
			if j > 100 {
				f[j] = "the quick brown fox "[j%20]
			} else if j > 40 {
				f[j] = byte(rng.Uint32())
			}
		}
		c.Frame(len(f), 1+i%50/49*44, len(f)+4)
		c.Bytes(f)
	}
	r := c.Snapshot(time.Date(2014, 7, 1, 12, 0, 10, 0, time.UTC))
	r.Sample = 1
	return r
}

func TestText(t *testing.T) {
	r := sample()
	for name, s := range map[string]Style{"text": {}, "colour": {Colour: true}, "ascii": {ASCII: true}} {
		got := r.Text(s)
		golden := "testdata/" + name + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v\n%swant\n%s", name, err, got, want)
		}
	}
	// Nothing is one line.
	empty := Report{Time: time.Date(2014, 7, 2, 12, 0, 0, 0, time.UTC), Interval: 86400}
	const want = "2014-07-02 12:00:00  86400.0 s  no frames\n"
	if got := empty.Text(Style{Date: true}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// JSON and msgpack have the same names.
func TestEncodings(t *testing.T) {
	r := sample()
	j, err1 := json.Marshal(r)
	m, err2 := msgpack.Marshal(r)
	var fromJSON, fromMsgpack map[string]any
	if err := errors.Join(err1, err2, json.Unmarshal(j, &fromJSON), msgpack.Unmarshal(m, &fromMsgpack)); err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(fromJSON))
	if got := slices.Sorted(maps.Keys(fromMsgpack)); !slices.Equal(got, names) {
		t.Errorf("%q, want %q", got, names)
	}
}

func BenchmarkBytes(b *testing.B) {
	for name, unit := range map[string]string{"noise": string(packettest.Bytes(1514)), "zeros": "\x00", "text": "the quick brown fox "} {
		b.Run(name, func(b *testing.B) {
			f := bytes.Repeat([]byte(unit), 1514)[:1514]
			var c Counter
			b.SetBytes(int64(len(f)))
			for b.Loop() {
				c.Bytes(f)
			}
		})
	}
}

// FuzzCount: frames of any bytes and lengths are counted as they are one by one, in each of
// two intervals.
func FuzzCount(f *testing.F) {
	f.Add([]byte("\x00\x01\xff\x05 some frames of text, and some that are not"))
	f.Add(bytes.Repeat([]byte{0x7f, 0xff, 0, 60}, 200))
	f.Add([]byte("\x01a\x01a"))               // each interval has a value once
	for period := 1; period <= 16; period++ { // frames of few values, in patterns
		f.Add(bytes.Repeat([]byte("\xfdpattern of bytes")[:period], 100))
	}
	f.Fuzz(func(t *testing.T, all []byte) {
		var c Counter
		now, frames := time.Unix(0, 0), uint64(0)
		c.Since = now
		for _, b := range [][]byte{all[:len(all)/2], all[len(all)/2:]} {
			var want Report
			for len(b) > 0 {
				size, segments := min(int(b[0]), len(b)-1), 1+int(b[0])%3
				c.Frame(size, segments, size+4*segments)
				c.Bytes(b[1 : 1+size])
				want.Frames++
				want.Wire += uint64(segments)
				want.Bytes += uint64(size)
				for _, x := range b[1 : 1+size] {
					want.Counts[x]++
				}
				b = b[1+size:]
			}
			now, frames = now.Add(time.Second), frames+want.Frames
			got := c.Snapshot(now)
			sizes := uint64(0)
			for _, n := range got.Sizes {
				sizes += n
			}
			if got.Counts != want.Counts || got.Frames != want.Frames || got.Bytes != want.Bytes || sizes != want.Frames {
				t.Fatalf("%+v, want %+v", got, want)
			}
			if got.Wire != want.Wire || got.Ethernet != want.Bytes+4*want.Wire || got.BPS != float64(8*want.Bytes) || got.FPS != float64(want.Wire) {
				t.Fatalf("%+v, want %+v", got, want)
			}
			if got.Entropy < 0 || got.Entropy > 8.0001 || (want.Counts == [256]uint64{}) != (len(got.Most(3)) == 0) {
				t.Fatalf("entropy %v, the most frequent % x", got.Entropy, got.Most(3))
			}
			got.Text(Style{})
		}
		if r := c.Snapshot(now); r.BPS != 0 || r.FPS != 0 || r.TotalFrames != frames || r.Interval != 0 {
			t.Fatalf("of no time: %+v", r)
		}
	})
}
