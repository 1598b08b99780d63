package frame

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// repeated is a source of a value without end.
func repeated(v []byte) *endless { return &endless{b: bytes.Repeat(v, max(1, 1<<20/len(v)))} }

// BenchmarkLoop is a stage without its system calls.
func BenchmarkLoop(b *testing.B) {
	for _, size := range []int{64, 1500, 64 << 10} {
		for _, mode := range []string{"pass-all", "drop-half", "rewrite", "short"} {
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
				encode := canon
				if mode == "short" {
					encode = short
				}
				r := NewReader(repeated(encode(ts, vnet, make([]byte, size))))
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				if err := Loop(r, stage); err != errEnough {
					b.Fatal(err)
				}
			})
		}
	}
}
