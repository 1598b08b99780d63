package frame

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

var benchSizes = []int{64, 1500, 64 << 10}

// repeated is a source of a value without end.
func repeated(v []byte) *endless { return &endless{b: bytes.Repeat(v, max(1, 1<<20/len(v)))} }

func BenchmarkReader(b *testing.B) {
	for _, size := range benchSizes {
		for name, encode := range map[string]func(uint64, []byte, []byte) []byte{"canonical": canon, "short": short} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				v := encode(ts, vnet, make([]byte, size))
				r := NewReader(repeated(v))
				b.SetBytes(int64(len(v)))
				b.ReportAllocs()
				var rec Record
				for b.Loop() {
					if err := r.Next(&rec); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkLoop is a stage without its system calls.
func BenchmarkLoop(b *testing.B) {
	for _, size := range benchSizes {
		for _, mode := range []string{"pass-all", "drop-half", "rewrite"} {
			b.Run(fmt.Sprintf("%s/%d", mode, size), func(b *testing.B) {
				n := 0
				stage := &filter{NewWriter(discardSpans{io.Discard}), func(r *Record, w *Writer) error {
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
				}}
				r := NewReader(repeated(canon(ts, vnet, make([]byte, size))))
				b.SetBytes(int64(HeadSizeOffload + size))
				b.ReportAllocs()
				b.ResetTimer()
				if err := Loop(r, stage); err != errEnough {
					b.Fatal(err)
				}
			})
		}
	}
}
