package frame

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReader(t *testing.T) {
	with := func(v value, extra []byte, n int) value {
		v.Extra, v.Extras = string(extra), n
		return v
	}
	note := value{Annotation: true, Offload: "-"}
	plain := framed(ts, nil, arp)
	nils := func(n int) []byte { return bytes.Repeat(null, n) }
	frame3 := func(count []byte, extra ...[]byte) []byte {
		return cat(count, uintN(ts, 8), null, binN(arp, 4), cat(extra...))
	}
	long := bytes.Repeat([]byte{0x5a}, 70000)
	type row struct {
		name string
		in   []byte
		want []value
		err  string
	}
	tests := []row{
		{"nothing", nil, nil, ""},
		{"canonical", canon(ts, nil, arp), []value{plain}, ""},
		{"canonical with offload", canon(ts, vnet, arp), []value{framed(ts, vnet, arp)}, ""},
		{"short forms", short(5, nil, arp), []value{framed(5, nil, arp)}, ""},
		{"short forms with offload", short(ts, vnet, long), []value{framed(ts, vnet, long)}, ""},
		{"one after the other", cat(canon(ts, nil, arp), short(ts, vnet, arp), canon(ts, vnet, arp), canon(0, nil, nil)),
			[]value{plain, framed(ts, vnet, arp), framed(ts, vnet, arp), framed(0, nil, nil)}, ""},
		{"no bytes in the frame", canon(ts, nil, nil), []value{framed(ts, nil, nil)}, ""},
		{"no bytes in the frame, short", short(ts, vnet, nil), []value{framed(ts, vnet, nil)}, ""},
		{"the longest frame", canon(ts, nil, make([]byte, MaxFrame)), []value{framed(ts, nil, make([]byte, MaxFrame))}, ""},
		{"the longest frame with offload", canon(ts, vnet, make([]byte, MaxFrame)), []value{framed(ts, vnet, make([]byte, MaxFrame))}, ""},
		{"the longest frame with additions", cat(arrayN(4, 0), uintN(1, 0), null, binN(make([]byte, MaxFrame), 4), binN(long[:60000], 2)),
			[]value{with(framed(1, nil, make([]byte, MaxFrame)), binN(long[:60000], 2), 1)}, ""},
		{"the longest value", frame3(arrayN(4, 0), binN(make([]byte, MaxValue-16-len(arp)-5), 4)),
			[]value{with(plain, binN(make([]byte, MaxValue-16-len(arp)-5), 4), 1)}, ""},

		{"1 addition", frame3(arrayN(4, 0), str("eth0")), []value{with(plain, str("eth0"), 1)}, ""},
		{"13 additions", frame3(arrayN(16, 2), nils(13)), []value{with(plain, nils(13), 13)}, ""},
		{"16 additions", frame3(arrayN(19, 2), nils(16)), []value{with(plain, nils(16), 16)}, ""},
		{"70000 additions", frame3(arrayN(70003, 4), nils(70000)), []value{with(plain, nils(70000), 70000)}, ""},
		{"more additions than a value holds", frame3(arrayN(MaxValue, 4), nils(MaxValue)), nil,
			"offset 0: a value claims more than the limit of 1114112 bytes"},
		{"additions of every kind", frame3(arrayN(15, 0), unhex("c2 c3 7f ff ca00000000 cb0000000000000000 81a16101 92a090 d40101 c70201aabb d3ffffffffffffffff d9016b")),
			[]value{with(plain, unhex("c2 c3 7f ff ca00000000 cb0000000000000000 81a16101 92a090 d40101 c70201aabb d3ffffffffffffffff d9016b"), 12)}, ""},

		{"header", cat(header(uintN(1, 0), "ethernet"), canon(ts, nil, arp)), []value{note, plain}, ""},
		{"annotations between", cat([]byte{0x80}, canon(ts, nil, arp), unhex("81 a1 61 92 c0 c0"), short(ts, nil, arp), unhex("de 0000 df 00000000")),
			[]value{note, plain, note, plain, note, note}, ""},
		{"the longest annotation", cat(unhex("81 a1 61"), binN(make([]byte, MaxValue-8), 4)), []value{note}, ""},
		{"an annotation too long", cat(unhex("81 a1 61"), binN(make([]byte, MaxValue-7), 4)), nil,
			"offset 0: a value claims more than the limit of 1114112 bytes"},

		{"ends in the array's length", unhex("dc 00"), nil, "offset 0: the input ends 2 bytes into a value"},
		{"ends in the time", canon(ts, nil, arp)[:7], nil, "offset 0: the input ends 7 bytes into a value"},
		{"ends in the head", canon(ts, nil, arp)[:15], nil, "offset 0: the input ends 15 bytes into a value"},
		{"ends before the frame", canon(ts, nil, arp)[:16], nil, "offset 0: the input ends inside a frame, after 16 of 58 bytes"},
		{"ends in the frame", cat(canon(ts, nil, arp), canon(ts, vnet, arp)[:60]), []value{plain}, "offset 58: the input ends inside a frame, after 60 of 69 bytes"},
		{"ends in a short frame", short(5, nil, arp)[:20], nil, "offset 0: the input ends 20 bytes into a value"},
		{"ends in an annotation", header(uintN(1, 0), "ip")[:30], nil, "offset 0: the input ends 30 bytes into a value"},

		{"text", []byte("GET / HTTP/1.1\r\n"), nil, "offset 0: found an unsigned integer (byte 0x47), want an array (a frame) or a map (an annotation); this is text, 'G': a stage must not print to its standard output"},
		{"a capture", unhex("d4 c3 b2 a1"), nil, "offset 0: found an extension (byte 0xd4), want an array (a frame) or a map (an annotation); captures begin so: framepcap -d makes them streams"},
		{"a pcapng capture", unhex("0a 0d 0d 0a"), nil, "offset 0: found an unsigned integer (byte 0x0a), want an array (a frame) or a map (an annotation); captures begin so: framepcap -d makes them streams"},
		{"compressed", unhex("1f 8b"), nil, "offset 0: found an unsigned integer (byte 0x1f), want an array (a frame) or a map (an annotation); compressed files begin so: zcat"},
		{"a bin behind a frame", cat(canon(ts, nil, arp), binN(arp, 1)), []value{plain}, "offset 58: found a bin (byte 0xc4), want an array (a frame) or a map (an annotation)"},
		{"a string", str("x"), nil, "offset 0: found a string (byte 0xa1), want an array (a frame) or a map (an annotation)"},
		{"nil", null, nil, "offset 0: found nil (byte 0xc0), want an array (a frame) or a map (an annotation)"},
		{"a boolean", unhex("c3"), nil, "offset 0: found a boolean (byte 0xc3), want an array (a frame) or a map (an annotation)"},
		{"a float", unhex("cb"), nil, "offset 0: found a float (byte 0xcb), want an array (a frame) or a map (an annotation)"},
		{"a negative number", unhex("ff"), nil, "offset 0: found a signed integer (byte 0xff), want an array (a frame) or a map (an annotation)"},
		{"an extension", unhex("d6"), nil, "offset 0: found an extension (byte 0xd6), want an array (a frame) or a map (an annotation)"},
		{"0xc1 in a frame", cat(arrayN(3, 0), unhex("c1")), nil, "offset 0: found byte 0xc1, which msgpack never uses"},
		{"an empty array", unhex("90"), nil, "offset 0: found an array of 0, want 3 elements or more"},
		{"an array of 2", cat(canon(ts, nil, arp), unhex("92 01 c0")), []value{plain}, "offset 58: found an array of 2, want 3 elements or more"},
		{"time nil", cat(arrayN(3, 0), null, null, binN(arp, 1)), nil, "offset 0: the time is nil, want an unsigned integer"},
		{"time a float", cat(arrayN(3, 0), unhex("ca 00000000"), null, binN(arp, 1)), nil, "offset 0: the time is a float, want an unsigned integer"},
		{"time negative", cat(arrayN(3, 0), intN(-1, 8), null, binN(arp, 1)), nil, "offset 0: the time is a signed integer, want an unsigned integer"},
		{"time a negative fixint", cat(arrayN(3, 0), unhex("e0"), null, binN(arp, 1)), nil, "offset 0: the time is a signed integer, want an unsigned integer"},
		{"time a timestamp", cat(arrayN(3, 0), unhex("d6 ff 00000000"), null, binN(arp, 1)), nil, "offset 0: the time is an extension, want an unsigned integer"},
		{"offload of 9 bytes", canon(ts, vnet[:9], arp), nil, "offset 0: the offload header has 9 bytes, want 10"},
		{"offload a number", cat(arrayN(3, 0), uintN(1, 0), uintN(1, 0), binN(arp, 1)), nil, "offset 0: the offload header is an unsigned integer, want nil or a bin of 10 bytes"},
		{"frame a string", cat(arrayN(3, 0), uintN(1, 0), null, str("frame")), nil, "offset 0: the frame is a string, want a bin"},
		{"frame an array", cat(arrayN(3, 0), uintN(1, 0), null, unhex("90")), nil, "offset 0: the frame is an array, want a bin"},
		{"frame nil", cat(arrayN(3, 0), uintN(1, 0), null, null), nil, "offset 0: the frame is nil, want a bin"},

		{"frame 1 too long", canon(ts, nil, nil)[:12], nil, "offset 0: the input ends 12 bytes into a value"},
		{"frame 1 too long, canonical", cat(canon(ts, nil, arp), canon(ts, nil, nil)[:12], unhex("00100001")), []value{plain}, "offset 58: the frame claims 1048577 bytes, the most is 1048576"},
		{"frame 1 too long, offload", cat(canon(ts, vnet, nil)[:23], unhex("00100001")), nil, "offset 0: the frame claims 1048577 bytes, the most is 1048576"},
		{"frame 1 too long, short", short(1, nil, make([]byte, MaxFrame+1)), nil, "offset 0: the frame claims 1048577 bytes, the most is 1048576"},
		{"frame of 4 GB", cat(canon(ts, nil, nil)[:12], unhex("ffffffff")), nil, "offset 0: the frame claims 4294967295 bytes, the most is 1048576"},
		{"frame of 2 GB", cat(canon(ts, vnet, nil)[:23], unhex("80000000")), nil, "offset 0: the frame claims 2147483648 bytes, the most is 1048576"},
		{"frame of 4 GB, short", cat(short(1, nil, nil)[:3], unhex("c6 ffffffff")), nil, "offset 0: a value claims more than the limit of 1114112 bytes"},
	}
	for _, long := range []string{"c6", "c9", "db", "dd", "df"} {
		tests = append(tests, row{"4 GB in an addition, 0x" + long, frame3(arrayN(4, 0), unhex(long), unhex("ffffffff 00")), nil,
			"offset 0: a value claims more than the limit of 1114112 bytes"})
	}
	for _, head := range []string{"dd ffffffff", "df ffffffff", "df 80000000"} {
		tests = append(tests, row{"4 G elements, " + head, unhex(head), nil, "offset 0: a value claims more than the limit of 1114112 bytes"})
	}
	// Every encoding of the time, of the array, of the bins.
	for _, size := range []int{0, 1, 2, 4, 8} {
		tests = append(tests, row{"time in another width", cat(arrayN(3, 0), uintN(100, size), null, binN(arp, 1)), []value{framed(100, nil, arp)}, ""})
		if size == 0 {
			continue
		}
		most := uint64(math.MaxUint64) >> (64 - 8*size)
		tests = append(tests,
			row{"the largest time of a width", cat(arrayN(3, 0), uintN(most, size), null, binN(arp, 1)), []value{framed(most, nil, arp)}, ""},
			row{"time signed", cat(arrayN(3, 0), intN(int64(most>>1), size), null, binN(arp, 1)), []value{framed(most>>1, nil, arp)}, ""},
			row{"time signed, negative", cat(arrayN(3, 0), intN(-1<<(8*size-1), size), null, binN(arp, 1)), nil, "offset 0: the time is a signed integer, want an unsigned integer"})
	}
	for _, a := range []int{0, 2, 4} {
		for _, o := range []int{1, 2, 4} {
			for _, f := range []int{1, 2, 4} {
				tests = append(tests, row{"other widths", cat(arrayN(3, a), uintN(ts, 8), binN(vnet, o), binN(arp, f)), []value{framed(ts, vnet, arp)}, ""})
			}
		}
	}
	// An empty array has no level below it, so the last one counts by its 1.
	tests = append(tests,
		row{"32 deep", frame3(arrayN(4, 0), nested(MaxDepth-1)), []value{with(plain, nested(MaxDepth-1), 1)}, ""},
		row{"33 deep", frame3(arrayN(4, 0), nested(MaxDepth)), nil, "offset 0: values are nested more than 32 deep"},
		row{"a million deep", cat(unhex("81 a0"), bytes.Repeat([]byte{0x91}, 1<<20)), nil, "offset 0: values are nested more than 32 deep"})

	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readAll(t, NewReader(bytes.NewReader(tt.in)))
			var raw strings.Builder
			for i := range got {
				raw.WriteString(got[i].Raw)
				got[i].Raw, got[i].Offset = "", 0
			}
			if len(got) != len(tt.want) {
				t.Fatalf("got %d values, want %d; error %v", len(got), len(tt.want), err)
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Errorf("value %d:\ngot  %v\nwant %v", i, got[i], tt.want[i])
				}
			}
			if !strings.HasPrefix(string(tt.in), raw.String()) {
				t.Error("what was delivered, end to end, is not the beginning of the input")
			}
			if tt.err == "" {
				if err != nil || raw.Len() != len(tt.in) {
					t.Errorf("error %v after %d of %d bytes", err, raw.Len(), len(tt.in))
				}
				return
			}
			if err == nil || err.Error() != tt.err {
				t.Errorf("error %v\nwant  %v", err, tt.err)
			}
			var fe *FormatError
			if !errors.As(err, &fe) || fe.Offset != int64(raw.Len()) {
				t.Errorf("error %#v, want a FormatError at %d", err, raw.Len())
			}
			if ended := strings.Contains(tt.err, "the input ends"); errors.Is(err, io.ErrUnexpectedEOF) != ended {
				t.Errorf("errors.Is(err, io.ErrUnexpectedEOF) is %v for %v", !ended, err)
			}
		})
	}
}

// The package comment shows bytes; they have to be true.
func TestWorkedBytes(t *testing.T) {
	want := unhex("93 cf 17 97 9c fe 36 2a 00 7b c0 c6 00 00 00 2a ff ff ff ff ff ff")
	if len(arp) != 42 {
		t.Fatalf("the ARP request has %d bytes", len(arp))
	}
	if got := (&Record{Time: ts, Frame: arp}).Append(nil); !bytes.HasPrefix(got, want) {
		t.Errorf("% x, want % x ...", got[:len(want)], want)
	}
	if len(canon(0, nil, nil)) != HeadSize || len(canon(0, vnet, nil)) != HeadSizeOffload {
		t.Error("the sizes of the heads are wrong")
	}
}

func TestHeader(t *testing.T) {
	f := canon(ts, nil, arp)
	m := func(pairs ...[]byte) []byte { return cat([]byte{0x80 | byte(len(pairs)/2)}, cat(pairs...)) }
	for _, tt := range []struct {
		name string
		in   []byte
		link string
		err  string
	}{
		{"none", f, LinkEthernet, ""},
		{"ethernet", header(uintN(1, 0), "ethernet"), LinkEthernet, ""},
		{"ip", header(uintN(1, 0), "ip"), LinkIP, ""},
		{"ip, other encodings", header(intN(1, 8), "ip"), LinkIP, ""},
		{"behind a frame", cat(f, header(uintN(1, 0), "ip")), LinkIP, ""},
		{"the last counts", cat(header(uintN(1, 0), "ip"), f, header(uintN(1, 0), "ethernet")), LinkEthernet, ""},
		{"no link", m(str("format"), str("frames"), str("version"), uintN(1, 0)), LinkEthernet, ""},
		{"more keys", m(str("format"), str("frames"), str("version"), uintN(1, 0), str("link"), str("ip"), str("x"), nested(5)), LinkIP, ""},
		{"a map by numbers", m(str("format"), str("frames"), str("version"), uintN(1, 0), str("link"), str("ip"), str("x"), unhex("81 01 02")), LinkIP, ""},
		{"an extension", m(str("format"), str("frames"), str("version"), uintN(2, 0), str("x"), unhex("d4 05 00")), LinkEthernet, "offset 0: the stream is of version 2, this reads version 1"},
		{"a version by numbers", m(str("format"), str("frames"), str("version"), unhex("81 01 02")), LinkEthernet, ""},
		{"version 2", header(uintN(2, 0), "ip"), LinkEthernet, "offset 0: the stream is of version 2, this reads version 1"},
		{"version 2, further on", cat(f, header(uintN(2, 1), "ip")), LinkEthernet, "offset 58: the stream is of version 2, this reads version 1"},
		{"a link not known", header(uintN(1, 0), "atm"), LinkEthernet, `offset 0: the stream's link is atm, want "ethernet" or "ip"`},
		{"a link that is a list", m(str("format"), str("frames"), str("version"), uintN(1, 0), str("link"), unhex("91 01")), LinkEthernet, ""},
		{"a key twice", m(str("format"), str("frames"), str("format"), str("frames"), str("version"), uintN(1, 0), str("version"), uintN(2, 0)), LinkEthernet, "offset 0: the stream is of version 2, this reads version 1"},
		{"another format", m(str("format"), str("pcap"), str("version"), uintN(9, 0), str("link"), str("atm")), LinkEthernet, ""},
		{"a format that is a list", m(str("format"), unhex("91 01"), str("version"), uintN(9, 0)), LinkEthernet, ""},
		{"keys that are no strings", m(str("format"), str("frames"), uintN(1, 0), uintN(2, 0)), LinkEthernet, ""},
		{"too long to be ours", m(str("format"), str("frames"), str("version"), uintN(2, 0), str("x"), binN(make([]byte, maxHeader), 2)), LinkEthernet, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(bytes.NewReader(tt.in))
			_, err := readAll(t, r)
			if r.Link() != tt.link {
				t.Errorf("link %q, want %q", r.Link(), tt.link)
			}
			if got := errorText(err); got != tt.err {
				t.Errorf("error %q, want %q", got, tt.err)
			}
		})
	}
}

// The source is that of the last header, if it is a string.
func TestSource(t *testing.T) {
	m := func(version []byte, pairs ...[]byte) []byte {
		return cat([]byte{0x82 + byte(len(pairs)/2)}, str("format"), str("frames"), str("version"), version, cat(pairs...))
	}
	named := header(uintN(1, 0), "ip")
	for in, want := range map[string]string{
		string(named):                                                  "tap0",
		string(cat(named, []byte{0x80})):                               "tap0",
		string(cat(named, m(uintN(1, 0)))):                             "",
		string(m(uintN(1, 0), str("source"), null)):                    "",
		string(cat(named, m(uintN(1, 0), str("source"), uintN(7, 0)))): "",
		string(m(uintN(1, 0), str("source"), unhex("81 01 02"))):       "",
	} {
		r := NewReader(strings.NewReader(in))
		if _, err := readAll(t, r); err != nil || r.Source() != want {
			t.Errorf("% x: source %q and %v, want %q", in, r.Source(), err, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestSourceErrors(t *testing.T) {
	stream := cat(canon(ts, nil, arp), canon(ts, vnet, arp)[:30])
	broken := errors.New("the disk is on fire")

	got, err := readAll(t, NewReader(io.MultiReader(bytes.NewReader(stream), iotest.ErrReader(broken))))
	if len(got) != 1 || err != broken {
		t.Errorf("%d values and %v, want 1 and the source's own error", len(got), err)
	}
	// io.Reader may return data and the end at once, or nothing at all.
	got, err = readAll(t, NewReader(iotest.DataErrReader(bytes.NewReader(stream[:58]))))
	if len(got) != 1 || err != nil {
		t.Errorf("data with io.EOF: %d values and %v", len(got), err)
	}
	got, err = readAll(t, NewReader(&hesitant{src: bytes.NewReader(stream[:58])}))
	if len(got) != 1 || err != nil {
		t.Errorf("a source that returns 0, nil now and then: %d values and %v", len(got), err)
	}
	// The error that came with the data is not followed by another.
	got, err = readAll(t, NewReader(&once{b: stream[:58], err: broken}))
	if len(got) != 1 || err != broken {
		t.Errorf("an error that came with data: %d values and %v, want 1 and %v", len(got), err, broken)
	}
}

// hesitant returns nothing and no error every other time, as io.Reader allows.
type hesitant struct {
	src io.Reader
	n   int
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.n++; h.n%2 == 1 {
		return 0, nil
	}
	return h.src.Read(p[:min(len(p), 10)])
}

// once returns its data and its error together, and io.EOF after that.
type once struct {
	b   []byte
	err error
}

func (o *once) Read(p []byte) (int, error) {
	if o.err == nil {
		return 0, io.EOF
	}
	n, err := copy(p, o.b), o.err
	o.err = nil
	return n, err
}

// Records stay valid until the next Fill, however many Buffered has delivered.
func TestBufferedKeeps(t *testing.T) {
	var stream []byte
	for i := range 100 {
		stream = append(stream, canon(uint64(i), vnet, bytes.Repeat([]byte{byte(i)}, i))...)
		stream = append(stream, short(uint64(i), nil, arp)...)
	}
	r := NewReader(bytes.NewReader(stream))
	if err := r.Fill(); err != nil {
		t.Fatal(err)
	}
	var recs []Record
	for {
		var rec Record
		ok, err := r.Buffered(&rec)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		recs = append(recs, rec)
	}
	var raw []byte
	for i := range recs {
		if recs[i].Offset() != int64(len(raw)) {
			t.Errorf("record %d: offset %d, want %d", i, recs[i].Offset(), len(raw))
		}
		raw = append(raw, recs[i].Raw()...)
	}
	if len(recs) != 200 || !bytes.Equal(raw, stream) {
		t.Errorf("%d records of %d bytes, want 200 of %d", len(recs), len(raw), len(stream))
	}
}

// No slice of a record reaches over its end: appending to one must not write
// over the next.
func TestSlicesAreClipped(t *testing.T) {
	stream := cat(canon(ts, vnet, arp), cat(arrayN(4, 0), uintN(1, 0), binN(vnet, 2), binN(arp, 1), str("x")), canon(ts, nil, arp))
	r := NewReader(bytes.NewReader(stream))
	var rec Record
	for r.Next(&rec) == nil {
		for _, b := range [][]byte{rec.Offload, rec.Frame, rec.Extra, rec.Raw(), rec.Room()} {
			_ = append(b, "overwritten"...)
		}
	}
	if r.err != io.EOF || !bytes.Equal(r.buf[Headroom:Headroom+len(stream)], stream) {
		t.Errorf("the Reader's memory changed; error %v", r.err)
	}
}

// reads is a source that returns these, one a Read.
type reads []struct {
	data []byte
	err  error
}

func (s *reads) Read(p []byte) (int, error) {
	x := (*s)[0]
	*s = (*s)[1:]
	return copy(p, x.data), x.err
}

// A deadline is over once it was told, also if it came with data; what is final stays.
func TestDeadline(t *testing.T) {
	a, b := canon(1, nil, arp), canon(2, nil, arp)
	r := NewReader(&reads{{a[:20], os.ErrDeadlineExceeded}, {a[20:], nil}, {nil, os.ErrDeadlineExceeded}, {b, io.EOF}})
	for i, want := range []error{nil, os.ErrDeadlineExceeded, nil, os.ErrDeadlineExceeded, nil, io.EOF, io.EOF} {
		if err := r.Fill(); err != want {
			t.Fatalf("Fill %d: %v, want %v", i, err, want)
		}
		var rec Record
		if ok, _ := r.Buffered(&rec); ok != (i == 2 || i == 4) {
			t.Errorf("a frame after Fill %d: %v", i, ok)
		}
	}
}

// PutHead writes into a frame's headroom what Append does, and takes the
// offload from where it stands in the same memory.
func TestPutHead(t *testing.T) {
	for at := 0; at <= HeadSizeOffload+len(arp); at++ { // wherever the offload lies
		b := make([]byte, HeadSizeOffload+len(arp)+OffloadSize)
		copy(b[at:], vnet)
		n := PutHead(b, ts, b[at:at+OffloadSize], len(arp))
		if n != HeadSizeOffload || !bytes.Equal(b[:n], canon(ts, vnet, arp)[:n]) {
			t.Fatalf("offload at %d: % x", at, b[:n])
		}
	}
	b := make([]byte, HeadSize)
	if n := PutHead(b, ts, nil, len(arp)); n != HeadSize || !bytes.Equal(b, canon(ts, nil, arp)[:n]) {
		t.Errorf("% x", b)
	}
}
