package frame

import (
	"bytes"
	"errors"
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
	if len(spans) > maxSpans+1 || len(spans) < 2 { // the last may be of frames written anew
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

func fill(r *Reader, recs []Record) ([]Record, error) {
	for {
		var rec Record
		ok, err := r.Buffered(&rec)
		if err != nil || !ok {
			return recs, err
		}
		recs = append(recs, rec)
	}
}

// Whatever a stage does with the records, the output is what it did, one after
// the other.
func TestWriter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		values := rapid.SliceOfN(rapid.Custom(drawValue), 0, 100).Draw(rt, "values")
		if rapid.Bool().Draw(rt, "many") {
			for range 4 {
				values = append(values, values...)
			}
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		most := rapid.SampledFrom([]int{30, 1000, 1 << 18}).Draw(rt, "most")
		// How often, of ten: pass, drop, write anew, write raw, pass twice,
		// change in place, flush.
		odds := rapid.SampledFrom([][]int{
			{10, 0, 0, 0, 0, 0, 0}, {5, 5, 0, 0, 0, 0, 0}, {1, 9, 0, 0, 0, 0, 0}, {0, 0, 10, 0, 0, 0, 0},
			{3, 2, 1, 1, 1, 1, 1}, {5, 0, 1, 1, 1, 1, 1}, {5, 0, 5, 0, 0, 0, 0}, {7, 0, 0, 0, 3, 0, 0},
		}).Draw(rt, "odds")
		vec := rapid.Bool().Draw(rt, "writev")

		rnd := rng(seed)
		r := NewReader(&chunked{cat(values...), most, rnd})
		if rapid.Bool().Draw(rt, "small") {
			r.buf = make([]byte, Headroom+48)
		}
		out := &gather{t: rt}
		w := NewWriter(out)
		if !vec {
			w = NewWriter(plainWriter{out})
		}
		arena := cap(w.arena)
		var want []byte
		check := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		var rec Record
		for {
			err := r.Next(&rec)
			if err == io.EOF {
				break
			}
			check(err)
			roll, do := rnd.IntN(10), 0
			for roll -= odds[0]; roll >= 0; roll -= odds[do] {
				do++
			}
			size := w.size
			switch do {
			case 0:
				check(w.Pass(&rec))
				want = append(want, rec.Raw()...)
			case 1: // dropped
				if w.size != size {
					rt.Fatal("Buffered changed")
				}
			case 2:
				check(w.Write(&rec))
				if rec.IsAnnotation() {
					want = append(want, rec.Raw()...)
				} else {
					want = rec.Append(want)
				}
			case 3:
				raw := []byte("anything")
				check(w.WriteRaw(raw))
				want = append(want, raw...)
				clear(raw) // the Writer has its own copy
			case 4:
				check(w.Pass(&rec))
				check(w.Pass(&rec))
				want = append(append(want, rec.Raw()...), rec.Raw()...)
			case 5:
				if !rec.IsAnnotation() {
					for i := range rec.Frame {
						rec.Frame[i] ^= 0xff
					}
					check(w.Pass(&rec))
					want = append(want, rec.Raw()...)
				}
			case 6:
				check(w.Flush())
				if w.size != 0 || out.Len() != len(want) {
					rt.Fatalf("after Flush %d are buffered, %d written of %d", w.size, out.Len(), len(want))
				}
			}
			if w.size+out.Len() != len(want) {
				rt.Fatalf("%d buffered and %d written, of %d", w.size, out.Len(), len(want))
			}
		}
		check(w.Flush())
		if !bytes.Equal(out.Bytes(), want) {
			rt.Fatalf("wrote %d bytes, want %d; they differ at %d", out.Len(), len(want), differ(out.Bytes(), want))
		}
		if cap(w.arena) > arena+MaxValue {
			rt.Errorf("the arena grew to %d", cap(w.arena))
		}
	})
}

func differ(a, b []byte) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return i
}

// One flush is one write: of one span for what was contiguous, or of several.
func TestWriterWritesOnce(t *testing.T) {
	frame := bytes.Repeat([]byte{7}, 2*copySize) // long enough not to be copied
	stream := bytes.Repeat(canon(ts, nil, frame), 100)
	for _, tt := range []struct {
		name   string
		keep   func(i int) bool
		writes int
	}{
		{"all", func(int) bool { return true }, 1},
		{"a block", func(i int) bool { return i > 20 && i < 50 }, 1},
		{"half", func(i int) bool { return i%2 == 0 }, 1},
		{"none", func(int) bool { return false }, 0},
	} {
		r := NewReader(bytes.NewReader(stream))
		if err := r.Fill(); err != nil {
			t.Fatal(err)
		}
		recs, err := fill(r, nil)
		if err != nil || len(recs) != 100 {
			t.Fatal(len(recs), err)
		}
		out := &gather{t: t}
		w := NewWriter(out)
		for i := range recs {
			if tt.keep(i) {
				if err := w.Pass(&recs[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if out.writes != tt.writes {
			t.Errorf("%s: %d writes, want %d", tt.name, out.writes, tt.writes)
		}
	}
}

// More spans than one call takes, and more bytes than the Writer gathers.
func TestWriterFull(t *testing.T) {
	frame := bytes.Repeat([]byte{7}, copySize)
	stream := bytes.Repeat(canon(ts, nil, frame), 300)
	r := NewReader(bytes.NewReader(stream))
	out := &gather{t: t}
	w := NewWriter(out)
	var want []byte
	var rec Record
	for i := 0; r.Next(&rec) == nil; i++ {
		if i%2 == 0 { // a span for itself
			if err := w.Pass(&rec); err != nil {
				t.Fatal(err)
			}
			want = append(want, rec.Raw()...)
		}
	}
	if out.writes < 150/maxSpans {
		t.Errorf("%d writes of 150 spans", out.writes)
	}
	for _, n := range []int{writeSize - 1, 1, writeSize, writeSize + 1, 3 * writeSize, 5} {
		raw := bytes.Repeat([]byte{byte(n)}, n)
		if err := w.WriteRaw(raw); err != nil {
			t.Fatal(err)
		}
		want = append(want, raw...)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%d bytes, want %d, they differ at %d", out.Len(), len(want), differ(out.Bytes(), want))
	}
}

// What a Writer holds of a Reader's memory is written before the Reader reads
// over it, by whatever of the Reader's methods, and with several Writers too.
func TestHolder(t *testing.T) {
	long := func(b byte) []byte { return canon(ts, nil, bytes.Repeat([]byte{b}, 2000)) }
	var stream []byte
	for i := range 200 {
		stream = append(stream, long(byte(i))...)
	}
	outs := [3]*gather{{t: t}, {t: t}, {t: t}}
	var ws [3]*Writer
	for i := range ws {
		ws[i] = NewWriter(outs[i])
	}
	r := NewReader(&chunked{stream, 20000, rng(1)})
	var want [3][]byte
	var rec Record
	for i := 0; ; i++ {
		err := r.Next(&rec)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for j, w := range ws { // all to the first, every second to the second, and so on
			if i%(j+1) == 0 {
				if err := w.Pass(&rec); err != nil {
					t.Fatal(err)
				}
				want[j] = append(want[j], rec.Raw()...)
			}
		}
	}
	for j, w := range ws {
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(outs[j].Bytes(), want[j]) {
			t.Errorf("writer %d: %d bytes, want %d, they differ at %d", j, outs[j].Len(), len(want[j]), differ(outs[j].Bytes(), want[j]))
		}
	}
}

// One Writer may hold the memory of several Readers.
func TestMerge(t *testing.T) {
	out := &gather{t: t}
	w := NewWriter(out)
	var rs [3]*Reader
	for i := range rs {
		stream := bytes.Repeat(canon(ts, nil, bytes.Repeat([]byte{byte(i)}, 700*(i+1))), 100)
		rs[i] = NewReader(&chunked{stream, 5000, rng(uint64(i))})
	}
	var want []byte
	var rec Record
	for i := range 300 {
		if err := rs[i%3].Next(&rec); err != nil {
			t.Fatal(err)
		}
		if err := w.Pass(&rec); err != nil {
			t.Fatal(err)
		}
		want = append(want, rec.Raw()...)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%d bytes, want %d, they differ at %d", out.Len(), len(want), differ(out.Bytes(), want))
	}
}

func TestWriterErrors(t *testing.T) {
	broken := errors.New("no space left")
	stream := bytes.Repeat(canon(ts, nil, bytes.Repeat([]byte{1}, 3000)), 200)
	for _, left := range []int{0, 1000, 100000} {
		dst := &failing{left: left, err: broken}
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
		if err != broken {
			t.Errorf("%d bytes: %v, want the writer's error", left, err)
		}
		for range 3 {
			_ = w.WriteRaw([]byte("more"))
			if err := w.Flush(); err != broken {
				t.Errorf("%d bytes: the error was %v and then %v", left, broken, err)
			}
		}
		if dst.after != 0 {
			t.Errorf("%d bytes: written %d times after the error", left, dst.after)
		}
	}
}

// A frame that no Reader would take is not written.
func TestWriteTooLong(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	for _, rec := range []Record{
		{Frame: make([]byte, MaxFrame+1)},
		{Frame: make([]byte, MaxFrame), Extra: make([]byte, MaxValue-MaxFrame), Extras: MaxValue - MaxFrame},
	} {
		if err := w.Write(&rec); err == nil {
			t.Errorf("a frame of %d bytes with %d of additions was written", len(rec.Frame), len(rec.Extra))
		}
	}
	if err := w.Write(&Record{Frame: make([]byte, MaxFrame), Offload: vnet}); err != nil {
		t.Error(err)
	}
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	if got, err := readAll(t, NewReader(&out)); err != nil || len(got) != 1 {
		t.Errorf("%d values, %v", len(got), err)
	}
}

func TestAnnotate(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
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
	r := NewReader(bytes.NewReader(out.Bytes()))
	got, err := readAll(t, r)
	if err != nil || len(got) != 4 || r.Link() != LinkIP {
		t.Fatalf("%d values, link %q, error %v", len(got), r.Link(), err)
	}
	if want := "\x84\xa1a\xa1x\xa1b\x01\xa1c\x92\x01\x02\xa6nested\x81\xa1k\xc0"; got[1].Raw != want {
		t.Errorf("%q, want %q", got[1].Raw, want)
	}
	if i := slices.IndexFunc(got, func(v value) bool { return !v.Annotation }); i >= 0 {
		t.Errorf("value %d is no annotation", i)
	}
}
