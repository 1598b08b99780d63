package frame

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

var benchSizes = []int{64, 1500, 64 << 10}

// perRecord adds the time that a record took to what is reported. The rates
// are of the stream's bytes.
func perRecord(b *testing.B, records int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(records), "ns/record")
}

func benchStream(size int) []byte {
	v := canon(ts, vnet, make([]byte, size))
	return bytes.Repeat(v, max(1, 1<<20/len(v)))
}

func BenchmarkReader(b *testing.B) {
	for _, size := range benchSizes {
		for _, encoding := range []string{"canonical", "short"} {
			b.Run(fmt.Sprintf("%s/%d", encoding, size), func(b *testing.B) {
				v := canon(ts, vnet, make([]byte, size))
				if encoding == "short" {
					v = short(ts, vnet, make([]byte, size))
				}
				r := NewReader(&endless{b: bytes.Repeat(v, max(1, 1<<20/len(v)))})
				b.SetBytes(int64(len(v)))
				b.ReportAllocs()
				var rec Record
				for b.Loop() {
					if err := r.Next(&rec); err != nil {
						b.Fatal(err)
					}
				}
				perRecord(b, b.N)
			})
		}
	}
}

// BenchmarkHead reads time, offload and the frame's place from one record.
func BenchmarkHead(b *testing.B) {
	v := canon(ts, vnet, arp)
	b.Run("canonical", func(b *testing.B) {
		var rec Record
		n := 0
		for b.Loop() {
			head, length := canonical(v, &rec)
			n += head + int(length)
		}
		if n != b.N*len(v) {
			b.Fatal(n)
		}
	})
	b.Run("foreign", func(b *testing.B) {
		var rec Record
		var s scanner
		for b.Loop() {
			if done, err := s.scan(v); !done || err != nil {
				b.Fatal(err)
			}
			s.reset()
			if err := foreign(v, &rec); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		src := bytes.NewReader(v)
		d := msgpack.NewDecoder(src)
		var offload [OffloadSize]byte
		for b.Loop() {
			src.Reset(v)
			d.ResetReader(src)
			n, err := d.DecodeArrayLen()
			time, err2 := d.DecodeUint64()
			o, err3 := d.DecodeBytesLen()
			if n != 3 || time != ts || o != OffloadSize || err != nil || err2 != nil || err3 != nil {
				b.Fatal(n, time, o, err, err2, err3)
			}
			if err := d.ReadFull(offload[:]); err != nil {
				b.Fatal(err)
			}
			if n, err := d.DecodeBytesLen(); n != len(arp) || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}

// BenchmarkLoop is a stage without its system calls.
func BenchmarkLoop(b *testing.B) {
	for _, size := range benchSizes {
		for _, mode := range []string{"pass-all", "drop-half", "rewrite"} {
			b.Run(fmt.Sprintf("%s/%d", mode, size), func(b *testing.B) {
				stream := benchStream(size)
				n := 0
				do := func(r *Record, w *Writer) error {
					if n++; n == b.N {
						return errEnough
					}
					switch {
					case mode == "drop-half" && n&1 == 0:
						return nil
					case mode == "rewrite":
						return w.Write(r)
					}
					return w.Pass(r)
				}
				r, w := NewReader(&endless{b: stream}), NewWriter(discardSpans{})
				b.SetBytes(int64(HeadSizeOffload + size))
				b.ReportAllocs()
				b.ResetTimer()
				if err := Loop(r, Filter(w, do)); err != errEnough {
					b.Fatal(err)
				}
				perRecord(b, b.N)
			})
		}
	}
}
