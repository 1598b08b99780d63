package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
	"pgregory.net/rapid"
)

// seeds adds the published vectors, and a few more.
func seeds(f *testing.F, add func([]byte)) {
	files, err := filepath.Glob("testdata/vectors/*.frames")
	if err != nil || len(files) == 0 {
		f.Fatal("no vectors", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		add(b)
		add(cat(canon(ts, vnet, arp), b, canon(ts, nil, arp)))
	}
	add(unhex("82 a6 666f726d6174 a6 6672616d6573 a7 76657273696f6e 81 c0 c0"))
}

// FuzzReader: whatever the bytes, no panic, memory that is bounded (readAll
// looks), what is delivered is the input's beginning, an error is where that ends,
// and neither the size of the reads makes a difference nor that frames go past. A
// stage that passes all on writes what was delivered.
func FuzzReader(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b, uint64(1)) })
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		r := small(bytes.NewReader(b))
		values, err := readAll(t, r)
		var raw []byte
		for _, v := range values {
			raw = append(raw, v.Raw...)
		}
		if !bytes.Equal(raw, b[:r.Offset()]) {
			t.Fatal("what was delivered, end to end, is not the beginning of the input")
		}
		var fe *FormatError
		if err == nil && len(raw) != len(b) || err != nil && (!errors.As(err, &fe) || fe.Offset != int64(len(raw))) {
			t.Fatalf("error %v after %d of %d bytes", err, len(raw), len(b))
		}
		again, err2 := readAll(t, small(&chunked{b, 1 + int(seed%40), rng(seed)}))
		if len(again) != len(values) || errorText(err) != errorText(err2) {
			t.Fatalf("in chunks %d values and %v, whole %d and %v", len(again), err2, len(values), err)
		}
		for i := range again {
			if again[i] != values[i] {
				t.Fatalf("value %d: in chunks %v, whole %v", i, again[i], values[i])
			}
		}
		ahead(t, b, 1+int(seed>>8%100), values, err)

		out := &gather{t: t}
		rnd := rng(seed)
		err2 = Loop(small(&chunked{b, 1 + int(seed>>16%200), rng(seed)}), Filter(NewWriter(out), func(r *Record, w *Writer) error {
			if len(r.Raw()) > 0 && rnd.IntN(4) == 0 {
				return w.WriteRaw(r.Raw())
			}
			return w.Pass(r)
		}))
		if errorText(err) != errorText(err2) || !bytes.Equal(out.Bytes(), raw) {
			t.Fatalf("passed on with %v, and delivered with %v:\n% x\n% x", err2, err, out.Bytes(), raw)
		}
	})
}

// few reads at most n bytes at a time.
type few struct {
	io.Reader
	n int
}

func (f few) Read(p []byte) (int, error) { return f.Reader.Read(p[:min(len(p), f.n)]) }

// ahead reads few bytes at a time, and lets what is missing of a frame go past the
// Reader.
func ahead(t *testing.T, b []byte, limit int, want []value, wantErr error) {
	src := bytes.NewReader(b)
	r := NewReader(few{src, limit})
	var rec Record
	for i := 0; ; {
		ok, err := r.Buffered(&rec)
		switch {
		case err != nil:
		case ok:
			if i == len(want) || keep(&rec) != want[i] {
				t.Fatalf("value %d of %d: %v", i, len(want), keep(&rec))
			}
			i++
			continue
		default:
			if missing := r.Ahead(&rec); missing > 0 {
				got := keep(&rec)
				if n, _ := io.CopyN(io.Discard, src, int64(missing)); n < int64(missing) {
					if i != len(want) || !errors.Is(wantErr, io.ErrUnexpectedEOF) {
						t.Fatalf("the input ends in value %d of %d, but the error is %v", i, len(want), wantErr)
					}
					return
				}
				r.Skip()
				if w := want[i]; got.Time != w.Time || got.Offload != w.Offload || !strings.HasPrefix(w.Frame, got.Frame) || got.Raw != w.Raw[:len(w.Raw)-missing] || r.Offset() != w.Offset+int64(len(w.Raw)) {
					t.Fatalf("ahead of value %d: %v, want %v", i, got, w)
				}
				i++
			}
			err = r.Fill()
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			err = nil
		}
		if i != len(want) || errorText(err) != errorText(wantErr) {
			t.Fatalf("after %d values of %d: %v, want %v", i, len(want), err, wantErr)
		}
		return
	}
}

// FuzzAgainstLibrary holds the Reader against the msgpack library: it delivers
// a frame where the library finds one, with the same time, offload, frame and
// additions, and refuses what the library does not find to be one.
func FuzzAgainstLibrary(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b) })
	f.Fuzz(againstLibrary)
}

func againstLibrary(t *testing.T, b []byte) {
	r := small(bytes.NewReader(b))
	var rec Record
	for {
		at := r.Offset()
		rest := b[at:]
		err := r.Next(&rec)
		if err == io.EOF {
			if len(rest) > 0 {
				t.Fatalf("end of the stream at %d, with %d bytes to go", at, len(rest))
			}
			return
		}
		w := walker{b: rest}
		w.value(0)
		whole := !w.short && !w.bad
		if err != nil {
			ended := errors.Is(err, io.ErrUnexpectedEOF)
			switch {
			case w.bad && ended:
				t.Fatalf("offset %d: over a limit or no msgpack, but the error is %v", at, err)
			case w.short && !ended && isValueStart(rest[0]) && !claimsTooMuch(rest):
				t.Fatalf("offset %d: the value is cut, but the error is %v", at, err)
			case whole:
				if want, ok := decode(rest[:w.pos]); ok && !(want.Annotation && isHeader(rest[:w.pos])) {
					t.Fatalf("offset %d: the library finds %v, the Reader says %v", at, want, err)
				}
			}
			return
		}
		if !whole || len(rec.Raw()) != w.pos {
			t.Fatalf("offset %d: delivered %d bytes; the value has %d, cut %v, bad %v", at, len(rec.Raw()), w.pos, w.short, w.bad)
		}
		want, ok := decode(rest[:w.pos])
		got := keep(&rec)
		got.Raw, got.Offset = "", 0
		if !ok || got != want {
			t.Fatalf("offset %d:\nReader  %v\nlibrary %v %v", at, got, want, ok)
		}
	}
}

// decode decodes a whole value, which a walker has found to be within the
// limits, with the library. ok is false where it is neither frame nor
// annotation.
func decode(b []byte) (v value, ok bool) {
	src := bytes.NewReader(b)
	d := msgpack.NewDecoder(src)
	v.Offload = "-"
	code, err := d.PeekCode()
	if err != nil {
		return v, false
	}
	if msgpcode.IsFixedMap(code) || code == msgpcode.Map16 || code == msgpcode.Map32 {
		v.Annotation = true
		return v, d.Skip() == nil
	}
	if !msgpcode.IsFixedArray(code) && code != msgpcode.Array16 && code != msgpcode.Array32 {
		return v, false
	}
	n, err := d.DecodeArrayLen()
	if err != nil || n < 3 {
		return v, false
	}
	// The library reads numbers and bins from much: the codes say what it is.
	switch code, _ = d.PeekCode(); {
	case code <= msgpcode.PosFixedNumHigh, code >= msgpcode.Uint8 && code <= msgpcode.Uint64:
		v.Time, err = d.DecodeUint64()
	case code >= msgpcode.Int8 && code <= msgpcode.Int64:
		var i int64
		if i, err = d.DecodeInt64(); i < 0 {
			return v, false
		}
		v.Time = uint64(i)
	default:
		return v, false
	}
	if err != nil {
		return v, false
	}
	if code, _ = d.PeekCode(); code == msgpcode.Nil {
		err = d.DecodeNil()
	} else if h, herr := libraryBin(d); herr == nil && len(h) == OffloadSize {
		v.Offload = string(h)
	} else {
		return v, false
	}
	frame, ferr := libraryBin(d)
	if err != nil || ferr != nil || len(frame) > MaxFrame {
		return v, false
	}
	v.Frame = string(frame)
	v.Extra = string(b[len(b)-src.Len():])
	v.Extras = n - 3
	for range v.Extras {
		if d.Skip() != nil {
			return v, false
		}
	}
	return v, src.Len() == 0
}

func libraryBin(d *msgpack.Decoder) ([]byte, error) {
	code, err := d.PeekCode()
	if err != nil || !msgpcode.IsBin(code) {
		return nil, errors.Join(err, errors.New("no bin"))
	}
	return d.DecodeBytes()
}

// isHeader reports whether an annotation is one that the Reader may refuse for
// its version or link.
func isHeader(b []byte) bool {
	var h struct {
		Format string `msgpack:"format"`
	}
	return msgpack.Unmarshal(b, &h) == nil && h.Format == "frames"
}

func isValueStart(c byte) bool {
	return msgpcode.IsFixedArray(c) || msgpcode.IsFixedMap(c) || c >= msgpcode.Array16 && c <= msgpcode.Map32
}

// claimsTooMuch reports whether a cut value is a canonical frame over the
// limit, which is refused at its head.
func claimsTooMuch(b []byte) bool {
	for _, at := range []int{HeadSize - 5, HeadSizeOffload - 5} {
		if len(b) >= at+5 && b[at] == 0xc6 && binary.BigEndian.Uint32(b[at+1:]) > MaxFrame {
			return true
		}
	}
	return false
}

// walker finds the end of a value the plain way, by recursion and with nothing
// remembered: the measure for scanner, and the guard for the library, which
// allocates what a length claims.
type walker struct {
	b          []byte
	pos        int
	short, bad bool // cut; over a limit or no msgpack
}

func (w *walker) number(size int) (n int) {
	if w.short || len(w.b)-w.pos < size {
		w.short = true
		return 0
	}
	for range size {
		n = n<<8 | int(w.b[w.pos])
		w.pos++
	}
	return n
}

func (w *walker) skip(n int) {
	switch {
	case w.short || w.bad:
	case w.pos+n > MaxValue:
		w.bad = true
	case n > len(w.b)-w.pos:
		w.short = true
	default:
		w.pos += n
	}
}

func (w *walker) children(n, level int) {
	if w.short || w.bad || n == 0 {
		return
	}
	if level == MaxDepth || n > MaxValue || w.pos > MaxValue {
		w.bad = true
	}
	for ; n > 0 && !w.short && !w.bad; n-- {
		w.value(level + 1)
	}
}

func (w *walker) value(level int) {
	if w.pos >= MaxValue {
		w.bad = true
		return
	}
	c := byte(w.number(1))
	if w.short {
		return
	}
	switch {
	case msgpcode.IsFixedNum(c), c == msgpcode.Nil, c == msgpcode.True, c == msgpcode.False:
	case msgpcode.IsFixedMap(c):
		w.children(2*int(c&msgpcode.FixedMapMask), level)
	case msgpcode.IsFixedArray(c):
		w.children(int(c&msgpcode.FixedArrayMask), level)
	case msgpcode.IsFixedString(c):
		w.skip(int(c & msgpcode.FixedStrMask))
	default:
		switch c {
		case msgpcode.Uint8, msgpcode.Int8:
			w.skip(1)
		case msgpcode.Uint16, msgpcode.Int16:
			w.skip(2)
		case msgpcode.Uint32, msgpcode.Int32, msgpcode.Float:
			w.skip(4)
		case msgpcode.Uint64, msgpcode.Int64, msgpcode.Double:
			w.skip(8)
		case msgpcode.Bin8, msgpcode.Str8:
			w.skip(w.number(1))
		case msgpcode.Bin16, msgpcode.Str16:
			w.skip(w.number(2))
		case msgpcode.Bin32, msgpcode.Str32:
			w.skip(w.number(4))
		case msgpcode.FixExt1:
			w.skip(2)
		case msgpcode.FixExt2:
			w.skip(3)
		case msgpcode.FixExt4:
			w.skip(5)
		case msgpcode.FixExt8:
			w.skip(9)
		case msgpcode.FixExt16:
			w.skip(17)
		case msgpcode.Ext8:
			w.skip(1 + w.number(1))
		case msgpcode.Ext16:
			w.skip(1 + w.number(2))
		case msgpcode.Ext32:
			w.skip(1 + w.number(4))
		case msgpcode.Array16:
			w.children(w.number(2), level)
		case msgpcode.Array32:
			w.children(w.number(4), level)
		case msgpcode.Map16:
			w.children(2*w.number(2), level)
		case msgpcode.Map32:
			w.children(2*w.number(4), level)
		default:
			w.bad = true // 0xc1
		}
	}
}

// FuzzRoundTrip: what Append encodes, the library and the Reader decode to the
// same.
func FuzzRoundTrip(f *testing.F) {
	f.Add(ts, true, arp, uint8(0))
	f.Add(uint64(0), false, []byte{}, uint8(12))
	f.Add(uint64(1<<63), true, arp, uint8(13))
	f.Fuzz(func(t *testing.T, time uint64, offload bool, frame []byte, extras uint8) {
		rec := Record{Time: time, Frame: frame, Extra: bytes.Repeat([]byte{0x92, 0xc0, 0x01}, int(extras)), Extras: int(extras)}
		if offload {
			rec.Offload = vnet
		}
		want := value{Time: time, Offload: "-", Frame: string(frame), Extra: string(rec.Extra), Extras: int(extras)}
		if offload {
			want.Offload = string(vnet)
		}
		b := rec.Append([]byte("before"))[len("before"):]
		if got, ok := decode(b); !ok || got != want {
			t.Fatalf("the library decodes %v, %v\nwant %v", got, ok, want)
		}
		got, err := readAll(t, NewReader(bytes.NewReader(b)))
		if err != nil || len(got) != 1 || got[0].Raw != string(b) {
			t.Fatalf("the Reader delivers %v, %v", got, err)
		}
		if got[0].Raw = ""; got[0] != want {
			t.Fatalf("the Reader decodes %v\nwant %v", got[0], want)
		}
		if extras == 0 && !bytes.Equal(b, canon(time, rec.Offload, frame)) {
			t.Fatalf("% x is not the canonical encoding", b)
		}
	})
}

// What the library encodes, in the widths that it chooses, the Reader reads.
func TestLibraryStreams(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var b bytes.Buffer
		var want []value
		e := msgpack.NewEncoder(&b)
		must := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(0, 10).Draw(rt, "values") {
			e.UseCompactInts(rapid.Bool().Draw(rt, "compact"))
			if rapid.IntRange(0, 4).Draw(rt, "annotation") == 0 {
				must(e.Encode(rapid.MapOf(rapid.String(), rapid.Int()).Draw(rt, "map")))
				want = append(want, value{Offload: "-", Annotation: true})
				continue
			}
			v := framed(rapid.Uint64().Draw(rt, "time"), nil, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "frame"))
			extra := rapid.SliceOfN(rapid.String(), 0, 20).Draw(rt, "extra")
			must(e.EncodeArrayLen(3 + len(extra)))
			must(e.Encode(v.Time))
			if rapid.Bool().Draw(rt, "offload") {
				v.Offload = string(vnet)
				must(e.Encode(vnet))
			} else {
				must(e.EncodeNil())
			}
			must(e.EncodeBytes([]byte(v.Frame)))
			at := b.Len()
			for _, s := range extra {
				must(e.EncodeString(s))
			}
			v.Extra, v.Extras = b.String()[at:], len(extra)
			want = append(want, v)
		}
		got, err := readAll(rt, NewReader(bytes.NewReader(b.Bytes())))
		if err != nil || len(got) != len(want) {
			rt.Fatalf("%d values and %v, want %d", len(got), err, len(want))
		}
		for i := range got {
			if got[i].Raw, got[i].Offset = "", 0; got[i] != want[i] {
				rt.Fatalf("value %d:\ngot  %v\nwant %v", i, got[i], want[i])
			}
		}
	})
}
