package frame

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// A Reader accepts values up to the limits. Its errors name the fault. The vectors hold the results
// for valid values, in every encoding.
func TestReader(t *testing.T) {
	const (
		notValue = ", want an array (a frame) or a map (an annotation)"
		tooMuch  = "a value claims more than the limit of 1114112 bytes"
		notTime  = ", want an unsigned integer"
		most     = ", the most is 1048576"
		capture  = "; captures begin so: framepcap -d makes them streams"
		deep     = "values are nested more than 32 deep"
	)
	a, b := canon(ts, nil, arp), canon(ts, vnet, arp)
	head, long := canon(ts, nil, nil)[:12], canon(ts, vnet, nil)[:23] // up to the frame's length
	largest := make([]byte, MaxFrame)
	space := func(n int) []byte { return bin(make([]byte, n-5)) }
	frame := func(time, offload, frame []byte) []byte { return cat(unhex("93"), time, offload, frame) }
	one := []byte{1}
	type row struct {
		name string
		in   []byte
		at   int // where the error is, if there is one
		err  string
	}
	tests := []row{
		{"the longest frame", canon(ts, nil, largest), 0, ""},
		{"the longest frame with offload", canon(ts, vnet, largest), 0, ""},
		{"the longest frame with additions", added(1, largest, space(60000)), 0, ""},
		{"the longest value", added(1, arp, space(MaxValue-len(added(1, arp, nil)))), 0, ""},
		{"the longest annotation", pairs(str("a"), space(MaxValue-3)), 0, ""},
		{"70000 additions", added(70000, arp, bytes.Repeat(null, 70000)), 0, ""},
		{"32 deep", added(1, arp, nested(MaxDepth-1)), 0, ""},
		{"32 deep, and an empty array", added(1, arp, append(bytes.Repeat(unhex("91"), MaxDepth-1), 0x90)), 0, ""},

		{"a value too long", added(1, arp, space(MaxValue-len(added(1, arp, nil))+1)), 0, tooMuch},
		{"an annotation too long", pairs(str("a"), space(MaxValue-2)), 0, tooMuch},
		{"more additions than a value holds", added(MaxValue, arp, bytes.Repeat(null, MaxValue)), 0, tooMuch},
		{"33 deep", added(1, arp, nested(MaxDepth)), 0, deep},
		{"a million deep", cat(unhex("81 a0"), nested(1<<20)), 0, deep},
		{"frame 1 too long", cat(a, head, unhex("00100001")), 58, "the frame claims 1048577 bytes" + most},
		{"frame 1 too long, offload", cat(long, unhex("00100001")), 0, "the frame claims 1048577 bytes" + most},
		{"frame 1 too long, short", short(1, nil, make([]byte, MaxFrame+1)), 0, "the frame claims 1048577 bytes" + most},
		{"frame of 4 GB", cat(head, unhex("ffffffff")), 0, "the frame claims 4294967295 bytes" + most},
		{"frame of 4 GB, short", unhex("93 01 c0 c6 ffffffff"), 0, tooMuch},

		{"ends in the array's length", unhex("dc 00"), 0, "the input ends 2 bytes into a value"},
		{"ends in the head", a[:15], 0, "the input ends 15 bytes into a value"},
		{"ends before the frame", a[:16], 0, "the input ends inside a frame, after 16 of 58 bytes"},
		{"ends in the frame", cat(a, b[:60]), 58, "the input ends inside a frame, after 60 of 69 bytes"},
		{"ends in an annotation", header(1, "ip")[:30], 0, "the input ends 30 bytes into a value"},

		{"text", []byte("GET / HTTP/1.1\r\n"), 0, "found an unsigned integer (byte 0x47)" + notValue + "; this is text, 'G': a stage must not print to its standard output"},
		{"a capture", unhex("d4 c3 b2 a1"), 0, "found an extension (byte 0xd4)" + notValue + capture},
		{"a capture in nanoseconds", unhex("4d 3c b2 a1"), 0, "found an unsigned integer (byte 0x4d)" + notValue + capture},
		{"text behind a frame", cat(a, []byte("Must drop")), 58, "found an unsigned integer (byte 0x4d)" + notValue + "; this is text, 'M': a stage must not print to its standard output"},
		{"an empty line behind a frame", cat(a, []byte("\n")), 58, "found an unsigned integer (byte 0x0a)" + notValue + "; this is text, '\\n': a stage must not print to its standard output"},
		{"a pcapng capture", unhex("0a 0d 0d 0a"), 0, "found an unsigned integer (byte 0x0a)" + notValue + capture},
		{"compressed", unhex("1f 8b"), 0, "found an unsigned integer (byte 0x1f)" + notValue + "; compressed files begin so: zcat"},
		{"a bin behind a frame", cat(a, bin(arp)), 58, "found a bin (byte 0xc6)" + notValue},
		{"a string", str("x"), 0, "found a string (byte 0xa1)" + notValue},
		{"nil", null, 0, "found nil (byte 0xc0)" + notValue},
		{"a boolean", unhex("c3"), 0, "found a boolean (byte 0xc3)" + notValue},
		{"a float", unhex("cb"), 0, "found a float (byte 0xcb)" + notValue},
		{"a negative number", unhex("ff"), 0, "found a signed integer (byte 0xff)" + notValue},

		{"0xc1 in a frame", unhex("93 c1"), 0, "found byte 0xc1, which msgpack never uses"},
		{"an array of 2", cat(a, unhex("92 01 c0")), 58, "found an array of 2, want 3 elements or more"},
		{"time a float", frame(unhex("ca 00000000"), null, bin(arp)), 0, "the time is a float" + notTime},
		{"time negative", frame(unhex("d1 8000"), null, bin(arp)), 0, "the time is a signed integer" + notTime},
		{"time a negative fixint", frame(unhex("e0"), null, bin(arp)), 0, "the time is a signed integer" + notTime},
		{"time a timestamp", frame(unhex("d6 ff 00000000"), null, bin(arp)), 0, "the time is an extension" + notTime},
		{"offload of 9 bytes", canon(ts, vnet[:9], arp), 0, "the offload header has 9 bytes, want 10"},
		{"offload a number", frame(one, one, bin(arp)), 0, "the offload header is an unsigned integer, want nil or a bin of 10 bytes"},
		{"frame a string", frame(one, null, str("frame")), 0, "the frame is a string, want a bin"},
	}
	for _, code := range []string{"c6", "c9", "db", "dd", "df"} {
		tests = append(tests, row{"4 G in an addition, " + code, added(1, arp, unhex(code+" ffffffff 00")), 0, tooMuch})
	}
	for _, claim := range []string{"dd ffffffff", "df ffffffff", "df 80000000"} {
		tests = append(tests, row{"4 G elements, " + claim, unhex(claim), 0, tooMuch})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(bytes.NewReader(tt.in))
			_, err := readAll(t, r)
			if want := fmt.Sprintf("offset %d: %s", tt.at, tt.err); tt.err != "" && errorText(err) != want {
				t.Errorf("error %v\nwant  %s", err, want)
			}
			if tt.err == "" && (err != nil || r.Offset() != int64(len(tt.in))) {
				t.Errorf("error %v at %d of %d", err, r.Offset(), len(tt.in))
			}
			againstLibrary(t, tt.in)
		})
	}
}

// The last header counts. Annotations that are none of ours are let be.
func TestHeader(t *testing.T) {
	f := canon(ts, nil, arp)
	const version2 = "the stream is of version 2, this reads version 1"
	ip := header(1, "ip")
	for _, tt := range []struct {
		name              string
		in                []byte
		link, source, err string
	}{
		{"none", f, LinkEthernet, "", ""},
		{"ethernet", header(1, "ethernet"), LinkEthernet, "tap0", ""},
		{"ip, behind a frame", cat(f, ip), LinkIP, "tap0", ""},
		{"the last counts", cat(ip, f, header(1, "ethernet")), LinkEthernet, "tap0", ""},
		{"no link and no source", cat(ip, frames(1)), LinkEthernet, "", ""},
		{"another annotation", cat(ip, unhex("80")), LinkIP, "tap0", ""},
		{"more keys", frames(1, str("link"), str("ip"), str("x"), nested(5)), LinkIP, "", ""},
		{"a map by numbers", frames(1, str("link"), str("ip"), str("x"), unhex("81 01 02")), LinkIP, "", ""},
		{"source nil", cat(ip, frames(1, str("source"), null)), LinkEthernet, "", ""},
		{"a source by numbers", cat(ip, frames(1, str("source"), unhex("81 01 02"))), LinkEthernet, "", ""},
		{"version 2", header(2, "ip"), LinkEthernet, "", "offset 0: " + version2},
		{"version 2, further on", cat(f, header(2, "ip")), LinkEthernet, "", "offset 58: " + version2},
		{"version 2, and an extension", frames(2, str("x"), unhex("d4 05 00")), LinkEthernet, "", "offset 0: " + version2},
		{"a version twice", frames(1, str("version"), []byte{2}), LinkEthernet, "", "offset 0: " + version2},
		{"a link not known", header(1, "atm"), LinkEthernet, "", `offset 0: the stream's link is atm, want "ethernet" or "ip"`},
		{"a version by numbers", pairs(str("format"), str("frames"), str("version"), unhex("81 01 02")), LinkEthernet, "", ""},
		{"a link that is a list", frames(1, str("link"), unhex("91 01")), LinkEthernet, "", ""},
		{"another format", pairs(str("format"), str("pcap"), str("version"), []byte{9}), LinkEthernet, "", ""},
		{"a format that is a list", pairs(str("format"), unhex("91 01"), str("version"), []byte{9}), LinkEthernet, "", ""},
		{"keys that are no strings", pairs(str("format"), str("frames"), []byte{1}, []byte{2}), LinkEthernet, "", ""},
		{"too long to be ours", frames(2, str("x"), bin(make([]byte, maxHeader))), LinkEthernet, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(bytes.NewReader(tt.in))
			_, err := readAll(t, r)
			if r.Link() != tt.link || r.Source() != tt.source || errorText(err) != tt.err {
				t.Errorf("link %q, source %q, error %q", r.Link(), r.Source(), errorText(err))
			}
		})
	}
}

// A Reader delivers all values before an error. A deadline comes once, other errors again and again.
func TestSourceErrors(t *testing.T) {
	a, b := canon(ts, nil, arp), canon(ts, vnet, arp)
	broken, late := errors.New("broken"), os.ErrDeadlineExceeded
	for _, tt := range []struct {
		src  reads
		want string
	}{
		{reads{{a, nil}, {b[:30], nil}, {nil, broken}}, "frame, broken, broken"},
		{reads{{a, broken}, {nil, broken}}, "frame, broken, broken"},
		{reads{{a, io.EOF}, {nil, io.EOF}}, "frame, EOF, EOF"},
		{reads{{nil, nil}, {a[:10], nil}, {nil, nil}, {a[10:], nil}, {nil, io.EOF}}, "frame, EOF, EOF"},
		{reads{{a[:20], nil}, {nil, late}, {a[20:], nil}, {nil, late}, {b, nil}, {nil, io.EOF}}, "late, frame, late, frame, EOF, EOF"},
	} {
		var got []string
		var rec Record
		for r, ends := NewReader(&tt.src), 0; ends < 2; {
			switch err := r.Next(&rec); err {
			case nil:
				got = append(got, "frame")
			case late:
				got = append(got, "late")
			default:
				got = append(got, err.Error())
				ends++
			}
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%q, want %s", got, tt.want)
		}
	}
}

// The head of a frame comes before the rest, which goes another way. The next reads are short,
// for heads, but for a frame that is not skipped.
func TestAheadSkip(t *testing.T) {
	frame := bytes.Repeat([]byte{7}, 9000)
	a, b := canon(ts, vnet, frame), canon(1, nil, frame)
	src := &asked{reads: reads{{a[:100], nil}, {b[:20], nil}, {b[20:], nil}, {a[:20], nil}, {nil, io.EOF}}}
	r := NewReader(src)
	var rec Record
	if err := r.Fill(); err != nil {
		t.Fatal(err)
	}
	ok, err := r.Buffered(&rec)
	missing := r.Ahead(&rec)
	want := value{Time: ts, Offload: string(vnet), Frame: string(frame[:73]), Raw: string(a[:100])}
	if got := keep(&rec); ok || err != nil || missing != len(a)-100 || got != want {
		t.Errorf("%v, %v, %d missing of %v, want %v", ok, err, missing, got, want)
	}
	r.Skip()
	if err := r.Next(&rec); err != nil || string(rec.Raw()) != string(b) || rec.Offset() != int64(len(a)) {
		t.Errorf("the next: %v, %v", err, keep(&rec))
	}
	if err := r.Fill(); err != nil || r.Ahead(&rec) != 0 {
		t.Errorf("ahead of half a head: %v", err)
	}
	if want := []int{readSize, 512, len(b) - 20 + 512, 16 << 10}; !slices.Equal(src.sizes, want) {
		t.Errorf("reads of %v, want %v", src.sizes, want)
	}
}

// asked notes how much its reader asks for.
type asked struct {
	reads
	sizes []int
}

func (a *asked) Read(p []byte) (int, error) {
	a.sizes = append(a.sizes, len(p))
	return a.reads.Read(p)
}

// No slice of a record reaches over its end: appending to one must not write
// over the next.
func TestSlicesAreClipped(t *testing.T) {
	stream := cat(canon(ts, vnet, arp), added(1, arp, str("x")), short(1, vnet, arp), canon(ts, nil, arp))
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
}

// A frame of the largest size that comes byte by byte must not cost a copy of
// itself for each of them.
func TestDripIsLinear(t *testing.T) {
	const size = 1 << 19
	whole := canon(ts, nil, make([]byte, size))
	for name, stream := range map[string][]byte{
		"canonical": whole,
		"foreign":   added(1, nil, bin(make([]byte, size))),
		"elements":  added(size, nil, make([]byte, size)),
		"second":    cat(canon(ts, nil, arp), whole), // not where the memory begins
	} {
		start := time.Now()
		drip := iotest.OneByteReader(bytes.NewReader(stream))
		if got, err := readAll(t, NewReader(drip)); err != nil || len(got) == 0 {
			t.Errorf("%s: %d values, error %v", name, len(got), err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("%s: %d bytes one by one took %v", name, size, d)
		}
	}
}

// What a length claims is not taken from memory before it has come.
func TestMemory(t *testing.T) {
	const little, whole = 16 << 10, MaxValue + readSize + 64<<10 // bytes beside the Reader itself
	million := canon(ts, nil, make([]byte, MaxFrame))
	for _, tt := range []struct {
		name string
		in   string
		most uint64
	}{
		{"frame of 4 GB", string(canon(ts, nil, nil)[:12]) + "\xff\xff\xff\xff", little},
		{"frame of 4 GB, short", "\x93\x01\xc0\xc6\xff\xff\xff\xff", little},
		{"map of 4 G", "\xdf\xff\xff\xff\xff\xa0", little},
		{"array of a million", "\xdd\x00\x10\x00\x00\x01\xc0\xc4\x00", little},
		{"string of 4 GB in an annotation", "\x81\xa6format\xdb\xff\xff\xff\xff", little},
		{"array of a million in an annotation", "\x81\xa6format\xdd\x00\x10\x00\x00", little},
		{"frame of 1 MiB that does not come", string(million[:100]), whole},
		{"frame of 1 MiB", string(million), whole},
	} {
		r := NewReader(strings.NewReader(tt.in))
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
