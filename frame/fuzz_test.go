package frame

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
	"pgregory.net/rapid"
)

// seeds adds the published vectors, and a few more.
func seeds(f *testing.F, add func([]byte)) {
	files, err := filepath.Glob(vectorDir + "/*.frames")
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

// Streams of all kinds, with a fault or without, have the properties of the fuzz tests.
func TestStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stream := drawStream(t)
		everyWay(t, stream, rapid.Uint64().Draw(t, "seed"))
		againstLibrary(t, stream)
	})
}

func FuzzReader(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b, uint64(1)) })
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) { everyWay(t, b, seed) })
}

// everyWay reads any bytes. The values are the input's beginning, and an error is where they end.
// However the bytes arrive, the Reader says the same of them.
func everyWay(t failer, b []byte, seed uint64) {
	want, wantErr := readAll(t, small(bytes.NewReader(b)))
	raw := ""
	for _, v := range want {
		raw += v.Raw
	}
	var fe *FormatError
	if wantErr == nil && raw != string(b) || !strings.HasPrefix(string(b), raw) {
		t.Fatalf("%d bytes were delivered of %d, or others, and %v", len(raw), len(b), wantErr)
	}
	if wantErr != nil && (!errors.As(wantErr, &fe) || fe.Offset != int64(len(raw))) {
		t.Fatalf("%d bytes were delivered, and the error is %v", len(raw), wantErr)
	}
	chunks := func(max uint64) io.Reader { return &chunked{b, 1 + int(seed%max), rng(seed)} }
	for name, r := range map[string]*Reader{
		"whole":             NewReader(bytes.NewReader(b)),
		"byte by byte":      NewReader(iotest.OneByteReader(bytes.NewReader(b))),
		"in chunks":         small(chunks(40)),
		"the end with data": NewReader(iotest.DataErrReader(chunks(3000))),
	} {
		if got, err := readAll(t, r); !slices.Equal(got, want) || !reflect.DeepEqual(err, wantErr) {
			t.Fatalf("%s: %v, %v\nwant %v, %v", name, got, err, want, wantErr)
		}
	}
	got, err := past(t, b, 1+int(seed>>8%100))
	if !slices.Equal(got, want) || errors.Is(err, io.ErrUnexpectedEOF) != errors.Is(wantErr, io.ErrUnexpectedEOF) {
		t.Fatalf("past the Reader: %v, %v\nwant %v, %v", got, err, want, wantErr)
	}

	out := &gather{t: t}
	rnd := rng(seed)
	err = Loop(small(chunks(200)), &filter{NewWriter(out), func(r *Record, w *Writer) error {
		if rnd.IntN(4) == 0 {
			return w.WriteRaw(r.Raw())
		}
		return w.Pass(r)
	}})
	if !reflect.DeepEqual(err, wantErr) || out.String() != raw {
		t.Fatalf("passed on with %v, and delivered with %v:\n% x\n% x", err, wantErr, out.Bytes(), raw)
	}
}

// past reads few bytes at a time, and lets the missing rest of a frame go past the Reader.
func past(t failer, b []byte, most int) (all []value, err error) {
	src := &chunked{b, most, rng(uint64(most))}
	r := NewReader(src)
	var rec Record
	for err == nil {
		var ok bool
		if ok, err = r.Buffered(&rec); ok {
			all = append(all, keep(&rec))
			continue
		}
		if missing := r.Ahead(&rec); missing > 0 {
			v := keep(&rec)
			rest := string(src.b[:min(len(src.b), missing)])
			src.b = src.b[len(rest):]
			if len(rest) < missing {
				return all, io.ErrUnexpectedEOF
			}
			r.Skip()
			if r.Offset() != v.Offset+int64(len(v.Raw)+missing) {
				t.Fatalf("at %d after Skip of %v", r.Offset(), v)
			}
			v.Frame += rest
			v.Raw += rest
			all = append(all, v)
		}
		if err == nil {
			err = r.Fill()
		}
	}
	return all, err
}

func FuzzAgainstLibrary(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) { againstLibrary(t, b) })
}

// againstLibrary holds the Reader against the msgpack library: it delivers a frame where the
// library finds one, with the same time, offload, frame and additions, and refuses what the
// library does not find to be one.
func againstLibrary(t failer, b []byte) {
	r := small(bytes.NewReader(b))
	var rec Record
	for {
		rest := b[r.Offset():]
		err := r.Next(&rec)
		if err == io.EOF {
			if len(rest) > 0 {
				t.Fatalf("the end, with %d bytes to go", len(rest))
			}
			return
		}
		want, libraryErr := decode(rest)
		if err == nil {
			got := keep(&rec)
			if got.Offset = 0; libraryErr != nil || got != want {
				t.Fatalf("Reader  %v\nlibrary %v, %v", got, want, libraryErr)
			}
			continue
		}
		ended := errors.Is(err, io.ErrUnexpectedEOF)
		cut := errors.Is(libraryErr, io.EOF) || errors.Is(libraryErr, io.ErrUnexpectedEOF)
		switch {
		case limit.MatchString(err.Error()): // the library has none
		case ended != cut, libraryErr == nil && !headers.MatchString(err.Error()):
			t.Fatalf("Reader  %v\nlibrary %v, %v", err, want, libraryErr)
		}
		return
	}
}

var (
	limit   = regexp.MustCompile("the limit of|nested more than|the most is")
	headers = regexp.MustCompile("the stream is of version|the stream's link is")
)

var errNoValue = errors.New("neither frame nor annotation")

// decode decodes a value with the library. The error is one of package io where the value is cut.
func decode(b []byte) (v value, err error) {
	c := b[0]
	if !msgpcode.IsFixedMap(c) && !msgpcode.IsFixedArray(c) && (c < msgpcode.Array16 || c > msgpcode.Map32) {
		return v, errNoValue
	}
	src := bytes.NewReader(b)
	d := msgpack.NewDecoder(src)
	if err := d.Skip(); err != nil {
		return v, err
	}
	v = value{Offload: "-", Raw: string(b[:len(b)-src.Len()])}
	src.Reset(b[:len(v.Raw)])
	n, err := d.DecodeArrayLen()
	if err != nil {
		v.Annotation = true
		return v, nil
	}
	time, err := d.DecodeInterface()
	offload, err2 := d.DecodeInterface()
	frame, err3 := d.DecodeInterface()
	v.Extra, v.Extras = v.Raw[len(v.Raw)-src.Len():], n-3
	f, ok := frame.([]byte)
	h, ok2 := offload.([]byte)
	if offload != nil {
		v.Offload = string(h)
	}
	if errors.Join(err, err2, err3) != nil || n < 3 || !ok || offload != nil && (!ok2 || len(h) != OffloadSize) {
		return v, errNoValue
	}
	v.Frame = string(f)
	switch n := reflect.ValueOf(time); {
	case n.CanUint():
		v.Time = n.Uint()
	case n.CanInt() && n.Int() >= 0:
		v.Time = uint64(n.Int())
	default:
		return v, errNoValue
	}
	return v, nil
}

// FuzzRoundTrip: what Append encodes, the library and the Reader decode to the same.
func FuzzRoundTrip(f *testing.F) {
	f.Add(ts, true, arp, uint8(0))
	f.Add(uint64(0), false, []byte{}, uint8(12))
	f.Add(uint64(1<<63), true, arp, uint8(13))
	f.Fuzz(func(t *testing.T, time uint64, offload bool, frame []byte, extras uint8) {
		extra := bytes.Repeat([]byte{0x92, 0xc0, 0x01}, int(extras))
		rec := Record{Time: time, Frame: frame, Extra: extra, Extras: int(extras)}
		if offload {
			rec.Offload = vnet
		}
		b := rec.Append([]byte("before"))[len("before"):]
		want := keep(&rec)
		want.Annotation, want.Raw = false, string(b) // a frame of nothing may be nil here
		if got, err := decode(b); err != nil || got != want {
			t.Fatalf("the library decodes %v, %v\nwant %v", got, err, want)
		}
		againstLibrary(t, b)
		if extras == 0 && !bytes.Equal(b, canon(time, rec.Offload, frame)) {
			t.Fatalf("% x is not the canonical encoding", b)
		}
	})
}
