package frame

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

// drawValue draws one value of a stream, in an encoding of any kind.
func drawValue(t *rapid.T) []byte {
	size := rapid.OneOf(rapid.IntRange(0, 100), rapid.SampledFrom([]int{255, 256, 511, 512, 513, 1514, 9000, 65535, 65536})).Draw(t, "size")
	frame := bytes.Repeat([]byte{byte(size)}, size)
	time := rapid.Uint64().Draw(t, "time")
	var offload []byte
	if rapid.Bool().Draw(t, "offload") {
		offload = vnet
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		return short(time, offload, frame)
	case 1:
		n := rapid.IntRange(1, 20).Draw(t, "extras")
		return cat(arrayN(3+n, 2), uintN(time, 8), null, binN(frame, 4), bytes.Repeat(unhex("92a0c3"), n))
	case 2:
		return header(uintN(1, 0), rapid.SampledFrom([]string{LinkEthernet, LinkIP}).Draw(t, "link"))
	case 3:
		return cat(unhex("82 a1 6b"), nested(3), unhex("a1 6c"), binN(frame, 4))
	}
	return canon(time, offload, frame)
}

// drawStream draws a stream and, now and then, a fault at its end.
func drawStream(t *rapid.T) []byte {
	s := cat(rapid.SliceOfN(rapid.Custom(drawValue), 0, 12).Draw(t, "values")...)
	switch rapid.IntRange(0, 3).Draw(t, "fault") {
	case 0:
		return s[:rapid.IntRange(0, len(s)).Draw(t, "cut")]
	case 1:
		return append(s, rapid.SampledFrom([]string{
			"\xc1", "hello", "\x93\xc1", "\x92\x01\x02", "\x90", "\x93\x01\xc0\xa0", "\xdd\xff\xff\xff\xff",
			string(canon(ts, nil, nil)[:12]) + "\xff\xff\xff\xff",
			string(canon(ts, vnet, nil)[:23]) + "\x00\x10\x00\x01",
			string(nested(40)),
		}).Draw(t, "garbage")...)
	}
	return s
}

// However the bytes arrive, the Reader says the same of them.
func TestDrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		stream := drawStream(rt)
		want, wantErr := readAll(rt, NewReader(bytes.NewReader(stream)))
		seed := rapid.Uint64().Draw(rt, "seed")
		most := rapid.SampledFrom([]int{1, 2, 20, 1000, 100000}).Draw(rt, "most")
		for _, way := range []struct {
			name string
			r    *Reader
		}{
			{"one byte", NewReader(iotest.OneByteReader(bytes.NewReader(stream)))},
			{"one byte, small", small(iotest.OneByteReader(bytes.NewReader(stream)))},
			{"whole, small", small(bytes.NewReader(stream))},
			{"half", small(iotest.HalfReader(bytes.NewReader(stream)))},
			{"chunks", NewReader(&chunked{stream, most, rng(seed)})},
			{"chunks, small", small(&chunked{stream, most, rng(seed)})},
			{"the end with data", small(iotest.DataErrReader(&chunked{stream, most, rng(seed)}))},
		} {
			got, err := readAll(rt, way.r)
			if !reflect.DeepEqual(got, want) {
				rt.Fatalf("%s: got %d values\n%v\nwant %d\n%v", way.name, len(got), got, len(want), want)
			}
			if errorText(err) != errorText(wantErr) || errors.Is(err, io.ErrUnexpectedEOF) != errors.Is(wantErr, io.ErrUnexpectedEOF) {
				rt.Fatalf("%s: error %v, want %v", way.name, err, wantErr)
			}
		}
	})
}

// A canonical head that arrives in two parts leaves nothing behind that the
// next value could be taken for.
func TestSplitHead(t *testing.T) {
	for _, next := range [][]byte{short(5, vnet, arp), header(uintN(1, 0), "ip"), cat(arrayN(4, 0), uintN(ts, 8), null, binN(arp, 4), str("x"))} {
		for _, first := range [][]byte{canon(ts, nil, arp), canon(ts, vnet, arp)} {
			stream := cat(first, next)
			for cut := range len(stream) {
				r := NewReader(io.MultiReader(bytes.NewReader(stream[:cut]), bytes.NewReader(stream[cut:])))
				if got, err := readAll(t, r); err != nil || len(got) != 2 || got[1].Raw != string(next) {
					t.Fatalf("% x cut at %d: %d values, error %v", stream[:30], cut, len(got), err)
				}
			}
		}
	}
}

// A frame of the largest size that comes byte by byte must not cost a copy of
// itself for each of them.
func TestDripIsLinear(t *testing.T) {
	const size = 1 << 19
	for name, stream := range map[string][]byte{
		"canonical": canon(ts, nil, make([]byte, size)),
		"foreign":   cat(arrayN(4, 0), uintN(ts, 8), null, binN(nil, 4), binN(make([]byte, size), 4)),
		"elements":  cat(arrayN(size, 4), uintN(1, 0), null, binN(nil, 1), make([]byte, size-3)),
		// Behind another value, so that it is not where the memory begins.
		"second": cat(canon(ts, nil, arp), canon(ts, nil, make([]byte, size))),
	} {
		start := time.Now()
		if got, err := readAll(t, NewReader(iotest.OneByteReader(bytes.NewReader(stream)))); err != nil || len(got) == 0 {
			t.Errorf("%s: %d values, error %v", name, len(got), err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("%s: %d bytes one by one took %v", name, size, d)
		}
	}
}

// What a length claims is not taken from memory before it has come.
func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
		most uint64 // bytes, beside the Reader itself
	}{
		{"frame of 4 GB", cat(canon(ts, nil, nil)[:12], unhex("ffffffff")), 16 << 10},
		{"frame of 4 GB, short", unhex("93 01 c0 c6 ffffffff"), 16 << 10},
		{"array of 4 G", unhex("dd ffffffff 01 c0 c4 00"), 16 << 10},
		{"map of 4 G", unhex("df ffffffff a0"), 16 << 10},
		{"array of a million", unhex("dd 00100000 01 c0 c4 00"), 16 << 10},
		{"string of 4 GB in an annotation", unhex("81 a6 666f726d6174 db ffffffff"), 16 << 10},
		{"array of a million in an annotation", unhex("81 a6 666f726d6174 dd 00100000"), 16 << 10},
		{"deep", bytes.Repeat([]byte{0x91}, 1<<20), 16 << 10},
		{"frame of 1 MiB that does not come", canon(ts, nil, make([]byte, MaxFrame))[:100], MaxValue + readSize + 64<<10},
		{"frame of 1 MiB", canon(ts, nil, make([]byte, MaxFrame)), MaxValue + readSize + 64<<10},
	} {
		r := NewReader(bytes.NewReader(tt.in))
		var rec Record
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for r.Next(&rec) == nil {
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > tt.most {
			t.Errorf("%s: %d bytes allocated for %d of input, want at most %d", tt.name, n, len(tt.in), tt.most)
		}
	}
}

// Ahead and Skip: the heads are read, and the rest of each frame that is cut
// by the end of the buffer goes another way.
func TestAheadSkip(t *testing.T) {
	var stream []byte
	for i := range 40 {
		stream = append(stream, canon(uint64(i), []([]byte){nil, vnet}[i%2], bytes.Repeat([]byte{byte(i)}, i*37))...)
		if i%7 == 3 {
			stream = append(stream, short(uint64(i), nil, arp)...)
		}
		if i%5 == 3 {
			stream = append(stream, header(uintN(1, 0), "ip")...)
		}
	}
	want, err := readAll(t, NewReader(bytes.NewReader(stream)))
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 5, 16, 27, 64, 100, 1000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			src := bytes.NewReader(stream)
			r := NewReader(few{src, limit})
			skipped := 0
			for i := 0; ; {
				var rec Record
				ok, err := r.Buffered(&rec)
				if err != nil {
					t.Fatal(err)
				}
				if ok {
					if got := keep(&rec); got != want[i] {
						t.Fatalf("value %d:\ngot  %v\nwant %v", i, got, want[i])
					}
					i++
					continue
				}
				if missing := r.Ahead(&rec); missing > 0 {
					got := keep(&rec)
					w := want[i]
					if got.Time != w.Time || got.Offload != w.Offload || got.Frame != w.Frame[:len(got.Frame)] || got.Raw != w.Raw[:len(w.Raw)-missing] || got.Offset != w.Offset || rec.IsAnnotation() {
						t.Fatalf("ahead of value %d, %d missing:\ngot  %v\nwant %v", i, missing, got, w)
					}
					if _, err := io.CopyN(io.Discard, src, int64(missing)); err != nil {
						t.Fatal(err)
					}
					r.Skip()
					skipped++
					i++
					if r.Offset() != w.Offset+int64(len(w.Raw)) {
						t.Fatalf("after Skip the offset is %d", r.Offset())
					}
				}
				if err := r.Fill(); err == io.EOF {
					if i != len(want) {
						t.Fatalf("%d values, want %d", i, len(want))
					}
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if len(r.buf) != Headroom+readSize {
					t.Fatalf("the memory is %d", len(r.buf))
				}
			}
			if skipped == 0 {
				t.Error("nothing was skipped")
			}
		})
	}
}
