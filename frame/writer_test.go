package frame

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// gather is a destination that writes spans, as an Output does.
type gather struct {
	bytes.Buffer
	t      failer
	writes int
}

func (g *gather) Write(b []byte) (int, error) {
	g.writes++
	return g.Buffer.Write(b)
}

func (g *gather) Writev(spans [][]byte) error {
	g.writes++
	if len(spans) > maxSpans+1 { // the last may be of frames written anew
		g.t.Errorf("Writev of %d spans", len(spans))
	}
	for i, s := range spans {
		if len(s) == 0 {
			g.t.Errorf("span %d of %d is empty", i, len(spans))
		}
		g.Buffer.Write(s)
		spans[i] = nil // an Output uses the slice up
	}
	return nil
}

// flushed flushes the Writer and compares the bytes written.
func (g *gather) flushed(w *Writer, want []byte) {
	g.t.Helper()
	if err := w.Flush(); err != nil || !bytes.Equal(g.Bytes(), want) {
		g.t.Fatalf("%v; wrote %d bytes, want %d, or others", err, g.Len(), len(want))
	}
}

// plainWriter hides Writev.
type plainWriter struct{ io.Writer }

// failing fails from a certain number of bytes on, and counts the bytes after it.
type failing struct {
	left, after int
	err         error
}

func (f *failing) Write(b []byte) (int, error) {
	if f.left < 0 {
		f.after++
	}
	if f.left -= len(b); f.left < 0 {
		return 0, f.err
	}
	return len(b), nil
}

// Whatever a stage does with the records, the output is what it did, one after
// the other.
func TestWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := cat(rapid.SliceOfN(rapid.Custom(drawValue), 0, 100).Draw(t, "values")...)
		stream := bytes.Repeat(values, rapid.SampledFrom([]int{1, 16}).Draw(t, "repeated"))
		most := rapid.SampledFrom([]int{30, 1000, 1 << 18}).Draw(t, "most")
		r := NewReader(&chunked{stream, most, rng(rapid.Uint64().Draw(t, "seed"))})
		if rapid.Bool().Draw(t, "small") {
			r.buf = make([]byte, Headroom+48)
		}
		out := &gather{t: t}
		w := NewWriter(out)
		if rapid.Bool().Draw(t, "plain") {
			w = NewWriter(plainWriter{out})
		}
		var want []byte
		var rec Record
		pass := func() error {
			want = append(want, rec.Raw()...)
			return w.Pass(&rec)
		}
		raw := func(n int) error {
			b := bytes.Repeat([]byte{byte(n)}, n)
			want = append(want, b...)
			defer clear(b) // the Writer has its own copy
			return w.WriteRaw(b)
		}
		actions := []func() error{
			pass,
			func() error { return nil }, // drop it
			func() error {
				if rec.IsAnnotation() {
					want = append(want, rec.Raw()...)
				} else {
					want = rec.Append(want)
				}
				return w.Write(&rec)
			},
			func() error { return raw(8) },
			func() error {
				_ = pass()
				return pass()
			},
			func() error {
				for i := range rec.Frame {
					rec.Frame[i] ^= 0xff
				}
				return pass()
			},
			func() error {
				out.flushed(w, want)
				return nil
			},
		}
		turns := rapid.SliceOfN(rapid.IntRange(0, len(actions)-1), 1, 12).Draw(t, "turns")
		for i := 0; r.Next(&rec) == nil; i++ {
			if err := actions[turns[i%len(turns)]](); err != nil {
				t.Fatal(err)
			}
		}
		sizes := rapid.SampledFrom([]int{1, writeSize - 1, writeSize, writeSize + 1, 3 * writeSize})
		for _, n := range rapid.SliceOfN(sizes, 0, 5).Draw(t, "raw") {
			if err := raw(n); err != nil {
				t.Fatal(err)
			}
		}
		out.flushed(w, want)
		if r.err != io.EOF || cap(w.arena) > writeSize+MaxValue {
			t.Errorf("%v; the arena grew to %d", r.err, cap(w.arena))
		}
	})
}

// A flush is one write, of one span if the records are contiguous, else of several. The Writer copies only
// short records. Records that a Reader returned stay valid until then.
func TestWriterWritesOnce(t *testing.T) {
	half := func(i int) bool { return i%2 == 0 }
	for _, tt := range []struct {
		name   string
		size   int
		keep   func(i int) bool
		writes int
	}{
		{"all", copySize + 1, func(int) bool { return true }, 1},
		{"a block", copySize + 1, func(i int) bool { return i > 20 && i < 50 }, 1},
		{"half", copySize + 1, half, 1},
		{"half of short ones", copySize, half, 1},
		{"none", copySize + 1, func(int) bool { return false }, 0},
	} {
		v := canon(ts, nil, make([]byte, tt.size-HeadSize))
		r := NewReader(bytes.NewReader(bytes.Repeat(v, 100)))
		if err := r.Fill(); err != nil {
			t.Fatal(err)
		}
		recs := make([]Record, 100)
		for i := range recs {
			if ok, err := r.Buffered(&recs[i]); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		out := &gather{t: t}
		w := NewWriter(out)
		for i := range recs {
			if recs[i].Offset() != int64(i*len(v)) {
				t.Errorf("record %d is at %d", i, recs[i].Offset())
			}
			if !tt.keep(i) {
				continue
			}
			if err := w.Pass(&recs[i]); err != nil {
				t.Fatal(err)
			}
		}
		if copied := len(w.arena) > 0; copied != (tt.size <= copySize) {
			t.Errorf("%s: %d bytes are copied", tt.name, len(w.arena))
		}
		if err := w.Flush(); err != nil || out.writes != tt.writes {
			t.Errorf("%s: %d writes, want %d; %v", tt.name, out.writes, tt.writes, err)
		}
	}
}

// A Reader's memory may be held by several Writers, and a Writer may hold that of several
// Readers. It is written before the Reader reads over it.
func TestHolder(t *testing.T) {
	for _, n := range [][2]int{{1, 3}, {3, 1}, {2, 2}} {
		rs, ws := make([]*Reader, n[0]), make([]*Writer, n[1])
		for i := range rs {
			var stream []byte
			for j := range 200 {
				stream = append(stream, canon(ts, nil, bytes.Repeat([]byte{byte(i + j)}, 700*(i+1)))...)
			}
			rs[i] = NewReader(&chunked{stream, 20000, rng(uint64(i))})
		}
		outs, want := make([]gather, len(ws)), make([][]byte, len(ws))
		for j := range ws {
			outs[j].t = t
			ws[j] = NewWriter(&outs[j])
		}
		var rec Record
		for i := range 200 * len(rs) {
			if err := rs[i%len(rs)].Next(&rec); err != nil {
				t.Fatal(err)
			}
			for j, w := range ws { // all to the first, every second to the second, and so on
				if i%(j+1) > 0 {
					continue
				}
				if err := w.Pass(&rec); err != nil {
					t.Fatal(err)
				}
				want[j] = append(want[j], rec.Raw()...)
			}
		}
		for j, w := range ws {
			outs[j].flushed(w, want[j])
		}
	}
}

func TestWriterErrors(t *testing.T) {
	stream := bytes.Repeat(canon(ts, nil, bytes.Repeat([]byte{1}, 3000)), 200)
	for _, left := range []int{0, 1000, 100000} {
		dst := &failing{left: left, err: errEnough}
		r, w := NewReader(&chunked{stream, 20000, rng(1)}), NewWriter(dst)
		var rec Record
		var err error
		for n := 0; err == nil; n++ {
			if err = r.Next(&rec); err == nil {
				if err = w.Pass(&rec); n%3 == 0 && err == nil {
					err = w.Write(&rec)
				}
			}
		}
		for range 3 {
			_ = w.WriteRaw([]byte("more"))
			if again := w.Flush(); err != errEnough || again != err || dst.after != 0 {
				t.Errorf("%d bytes: %v and then %v, written %d times after it", left, err, again, dst.after)
			}
		}
	}
}

// A frame that no Reader would take is not written.
func TestWriteTooLong(t *testing.T) {
	out := &gather{t: t}
	w := NewWriter(out)
	largest := make([]byte, MaxFrame)
	for _, rec := range []Record{
		{Frame: make([]byte, MaxFrame+1)},
		{Frame: largest, Extra: make([]byte, MaxValue-MaxFrame), Extras: MaxValue - MaxFrame},
	} {
		if err := w.Write(&rec); err == nil {
			t.Errorf("a frame of %d bytes with %d of additions was written", len(rec.Frame), len(rec.Extra))
		}
	}
	if err := w.Write(&Record{Frame: largest, Offload: vnet}); err != nil {
		t.Error(err)
	}
	out.flushed(w, canon(0, vnet, largest))
}

func TestAnnotate(t *testing.T) {
	out := &gather{t: t}
	w := NewWriter(out)
	if err := w.Header(LinkIP, strings.Repeat("x", 300)); err != nil {
		t.Fatal(err)
	}
	for _, m := range []map[string]any{
		{"b": 1, "a": "x", "c": []int{1, 2}, "nested": map[string]any{"k": nil}},
		{},
		nil,
	} {
		if err := w.Annotate(m); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []map[string]any{{"long": make([]byte, MaxValue)}, {"no encoding": make(chan int)}} {
		if err := w.Annotate(m); err == nil {
			t.Errorf("annotated %.40v", m)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&out.Buffer)
	got, err := readAll(t, r)
	if err != nil || r.Link() != LinkIP || r.Source() != strings.Repeat("x", 255) {
		t.Fatalf("link %q, source %q, error %v", r.Link(), r.Source(), err)
	}
	want := []string{"\x84\xa1a\xa1x\xa1b\x01\xa1c\x92\x01\x02\xa6nested\x81\xa1k\xc0", "\x80", "\x80"}
	if raw := []string{got[1].Raw, got[2].Raw, got[3].Raw}; len(got) != 4 || !slices.Equal(raw, want) {
		t.Errorf("%q, want %q", raw, want)
	}
}
