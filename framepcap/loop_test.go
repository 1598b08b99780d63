package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"framepipe/frame"
	"framepipe/internal/packettest"
	"framepipe/internal/pcap"
)

type captured struct {
	time   uint64
	length uint32
	data   string
}

func capture(link uint16, packets ...captured) []byte {
	b := pcap.AppendHeader(nil, link)
	for _, p := range packets {
		b = pcap.AppendPacket(b, p.time, p.length, []byte(p.data))
	}
	return b
}

// pcapng writes the packets of a classic capture as pcapng, in either byte order.
func pcapng(t testing.TB, file []byte, o binary.AppendByteOrder) (b []byte) {
	t.Helper()
	block := func(kind uint32, fields []uint32, data []byte) {
		size := uint32(12 + 4*len(fields) + (len(data)+3)&^3)
		for _, v := range append([]uint32{kind, size}, fields...) {
			b = o.AppendUint32(b, v)
		}
		b = append(append(b, data...), make([]byte, -len(data)&3)...)
		b = o.AppendUint32(b, size)
	}
	r := pcap.NewReader(bytes.NewReader(file))
	link, err := r.Header()
	if err != nil {
		t.Fatal(err)
	}
	version, kind := uint32(1), uint32(link)
	if o == binary.AppendByteOrder(binary.BigEndian) { // two fields of 16 bits
		version, kind = version<<16, kind<<16
	}
	block(0x0a0d0d0a, []uint32{0x1a2b3c4d, version, 1<<32 - 1, 1<<32 - 1}, nil)
	option := o.AppendUint16(o.AppendUint16(nil, 9), 1)
	block(1, []uint32{kind, 0}, append(option, 9, 0, 0, 0)) // nanoseconds
	var p pcap.Packet
	for r.Next(&p) == nil {
		block(6, []uint32{0, uint32(p.Time >> 32), uint32(p.Time), uint32(len(p.Data)), p.Length}, p.Data)
	}
	return b
}

func decode(in []byte) ([]byte, error) {
	var out bytes.Buffer
	err := newDecoder(bytes.NewReader(in), &out, func(string, ...any) {}).run()
	return out.Bytes(), err
}

func encode(in []byte, segment bool) ([]byte, *encoder, error) {
	var out bytes.Buffer
	e := &encoder{r: frame.NewReader(bytes.NewReader(in)), out: &out, segment: segment, warn: func(string, ...any) {}}
	err := e.run()
	return out.Bytes(), e, err
}

func frames(t testing.TB, in []byte) (all []frame.Record, r *frame.Reader) {
	t.Helper()
	r = frame.NewReader(bytes.NewReader(in))
	for {
		var rec frame.Record
		if err := r.Next(&rec); err == io.EOF {
			return all, r
		} else if err != nil {
			t.Fatal(err)
		}
		if !rec.IsAnnotation() {
			rec.Frame = bytes.Clone(rec.Frame)
			all = append(all, rec)
		}
	}
}

const ip4 = "\x45\x00\x00\x14\x00\x00\x00\x00\x40\x06\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02"

// Each link becomes what a stream can have, and is again what it was on the way
// back.
func TestLinks(t *testing.T) {
	const sll = "\x00\x00\x00\x01\x00\x06\x02\x00\x00\x00\x00\x07\x00\x00\x08\x00"
	const sll2 = "\x08\x00\x00\x00\x00\x00\x00\x05\x00\x01\x04\x06\x02\x00\x00\x00\x00\x07\x00\x00"
	ethernet := "\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x07\x08\x00" + ip4
	for _, tt := range []struct {
		name       string
		number     uint16
		in         string
		link, want string
	}{
		{"ethernet", 1, "\x02aaaaa\x02bbbbb\x08\x00" + ip4, "ethernet", "\x02aaaaa\x02bbbbb\x08\x00" + ip4},
		{"raw", 101, ip4, "ip", ip4},
		{"raw, of OpenBSD", 14, ip4, "ip", ip4},
		{"ipv4", 228, ip4, "ip", ip4},
		{"null", 0, "\x02\x00\x00\x00" + ip4, "ip", ip4},
		{"loop", 108, "\x00\x00\x00\x02" + ip4, "ip", ip4},
		{"cooked", 113, sll + ip4, "ethernet", ethernet},
		{"cooked 2", 276, sll2 + ip4, "ethernet", ethernet},
		{"cooked llc", 113, sll[:14] + "\x00\x04" + "\x42\x42\x03", "ethernet", ethernet[:12] + "\x00\x03\x42\x42\x03"},
		{"cooked 802.3, longer than a length", 113, sll[:14] + "\x00\x01" + strings.Repeat("x", 1600), "ethernet", ethernet[:12] + "\x05\xdc" + strings.Repeat("x", 1600)},
		{"cooked, cut off in its header", 113, sll[:9], "ethernet", ""},
		{"nothing", 1, "", "ethernet", ""},
	} {
		in := capture(tt.number, captured{5, uint32(len(tt.in)), tt.in}, captured{1700000000_000000001, uint32(len(tt.in)), tt.in}, captured{7, 1e6, tt.in})
		stream, err := decode(in)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got, r := frames(t, stream)
		if len(got) != 3 || r.Link() != tt.link || string(got[0].Frame) != tt.want || got[1].Time != 1700000000_000000001 {
			t.Errorf("%s: %d frames, %s, % x, want % x", tt.name, len(got), r.Link(), got[0].Frame, tt.want)
		}
		back, _, err := encode(stream, false)
		if err != nil || !bytes.Equal(back, in) {
			t.Errorf("%s: %v\n% x\n% x", tt.name, err, back, in)
		}
		if same, err := decode(pcapng(t, in, binary.BigEndian)); err != nil || !bytes.Equal(same, stream) {
			t.Errorf("%s as pcapng: %v\n% x\n% x", tt.name, err, same, stream)
		}
	}
	_, err := decode(capture(127, captured{0, 1, "x"}))
	if err == nil || !strings.HasPrefix(err.Error(), "the capture's link is of type 127") {
		t.Errorf("radiotap: %v", err)
	}
}

// waiting calls wait before each read of the source but the first.
type waiting struct {
	src  io.Reader
	wait func()
	read bool
}

func (w *waiting) Read(p []byte) (int, error) {
	if w.read {
		w.wait()
	}
	w.read = true
	return w.src.Read(p)
}

// All packets that were read are written before the next read waits.
func TestPrompt(t *testing.T) {
	stream := (&frame.Record{Time: 1, Frame: []byte(ip4)}).Append(nil)
	var head bytes.Buffer
	w := frame.NewWriter(&head)
	_ = w.Header(frame.LinkIP, "x")
	_ = w.Flush()
	var out bytes.Buffer
	e := &encoder{out: &out}
	want := 24 // the header of the file
	e.r = frame.NewReader(&waiting{src: io.MultiReader(&head, bytes.NewReader(stream)), wait: func() {
		if out.Len() != want {
			t.Errorf("%d bytes of the capture, want %d", out.Len(), want)
		}
		want = 24 + 16 + len(ip4)
	}})
	if err := e.run(); err != nil {
		t.Error(err)
	}
	capture := bytes.Clone(out.Bytes())
	for _, in := range [][]byte{capture, pcapng(t, capture, binary.LittleEndian)} {
		out.Reset()
		waited := 0
		d := newDecoder(&waiting{src: bytes.NewReader(in), wait: func() {
			if waited++; !bytes.HasSuffix(out.Bytes(), stream) {
				t.Errorf("% x of the stream", out.Bytes())
			}
		}}, &out, nil)
		if err := d.run(); err != nil || waited == 0 {
			t.Errorf("%v, %d times waited", err, waited)
		}
	}
}

// Checksums are finished; super-frames are cut only if asked for.
func TestOffload(t *testing.T) {
	spec := packettest.Spec{Payload: packettest.Bytes(5000), Flags: 0x18}
	h, super := spec.Super(1460)
	small := packettest.Spec{UDP: true, Payload: []byte("hello")}
	whole := small.Frame()
	unfinished := bytes.Clone(whole)
	// The sum of the pseudo-header alone, as the kernel leaves it.
	pseudo := packettest.Sum(append(bytes.Clone(whole[26:34]), 0, 17, 0, byte(len(whole)-34)))
	binary.BigEndian.PutUint16(unfinished[40:], pseudo)
	var b bytes.Buffer
	w := frame.NewWriter(&b)
	for _, rec := range []frame.Record{
		{Time: 1, Offload: h, Frame: super},
		{Time: 2, Offload: []byte{1, 0, 0, 0, 0, 0, 34, 0, 6, 0}, Frame: unfinished},
		{Time: 3, Offload: []byte{1, 0, 0, 0, 0, 0, 255, 0, 6, 0}, Frame: []byte("too short for that")},
	} {
		if err := w.Write(&rec); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Flush()
	for _, segment := range []bool{false, true} {
		out, e, err := encode(b.Bytes(), segment)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := decode(out)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := frames(t, stream)
		want := [][]byte{}
		if segment {
			for i := 0; i < 5000; i += 1460 {
				s := spec
				s.Payload, s.Seq, s.ID = spec.Payload[i:min(i+1460, 5000)], spec.Seq+uint32(i), spec.ID+uint16(i/1460)
				if i+1460 < 5000 {
					s.Flags = 0x10
				}
				want = append(want, s.Frame())
			}
		} else {
			want = append(want, spec.Frame())
		}
		want = append(want, whole, []byte("too short for that"))
		if len(got) != len(want) {
			t.Fatalf("segment %v: %d frames, want %d", segment, len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i].Frame, want[i]) {
				t.Errorf("segment %v, frame %d:\n% x\n% x", segment, i, got[i].Frame[:54], want[i][:54])
			}
		}
		if n := e.n.String(); !strings.HasSuffix(n, map[bool]string{
			false: "finished=2 segmented=0 malformed=1 cut_short=0", true: "finished=1 segmented=1 malformed=1 cut_short=0",
		}[segment]) {
			t.Errorf("segment %v: %s", segment, n)
		}
	}
}

func TestEncode(t *testing.T) {
	stream := func(values ...any) []byte {
		var b bytes.Buffer
		w := frame.NewWriter(&b)
		for _, v := range values {
			var err error
			switch v := v.(type) {
			case map[string]any:
				err = w.Annotate(v)
			case frame.Record:
				err = w.Write(&v)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		_ = w.Flush()
		return b.Bytes()
	}
	header := func(link string, number int) map[string]any {
		return map[string]any{"format": "frames", "version": 1, "link": link, "pcap_link": number}
	}
	one := frame.Record{Time: 1, Frame: []byte("a frame of whatever")}
	for _, tt := range []struct {
		name    string
		in      []byte
		link    uint16
		packets int
		err     string
	}{
		{"nothing at all", nil, 1, 0, ""},
		{"a header", stream(header("ip", 101)), 101, 0, ""},
		{"no header", stream(one), 1, 1, ""},
		{"two streams", stream(header("ethernet", 1), one, header("ethernet", 1), one), 1, 2, ""},
		{"two links", stream(header("ethernet", 1), one, header("ip", 1), one), 1, 1, "offset 84: the stream's link changes from ethernet to ip"},
		{"a link that is not the stream's", stream(header("ip", 113), one), 101, 1, ""},
		{"an unknown link", stream(header("ethernet", 147), one), 1, 1, ""},
		{"no cooked header", stream(header("ethernet", 113), one), 113, 0, "offset 49: the stream began as a capture of link type 113"},
		{"a cooked header, and the file has none", stream(header("ethernet", 1), frame.Record{Frame: []byte("x"), Extra: append([]byte{0x81, 0xa9}, "pcap_head\xc4\x02hh"...), Extras: 1}), 1, 1, ""},
		{"cut off", stream(one, one)[:50], 1, 1, "offset 35: the input ends 15 bytes into a value"},
		{"strange additions", stream(
			frame.Record{Frame: []byte("x"), Extra: []byte{0x07}, Extras: 1},
			frame.Record{Frame: []byte("x"), Extra: append([]byte{0x81, 0xa9}, "pcap_made\x05"...), Extras: 1},
			frame.Record{Frame: []byte("x"), Extra: append([]byte{0x81, 0xa9}, "pcap_made\xff"...), Extras: 1},
			frame.Record{Frame: []byte("x"), Extra: append([]byte{0x81, 0xab}, "pcap_length\xa1x"...), Extras: 1},
		), 1, 4, ""},
		{"too long for a capture", stream(frame.Record{Frame: make([]byte, pcap.Snaplen+1)}, one), 1, 2, ""},
	} {
		out, e, err := encode(tt.in, false)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.err)
		}
		r := pcap.NewReader(bytes.NewReader(out))
		link, err := r.Header()
		n := 0
		var p pcap.Packet
		for ; err == nil; n++ {
			err = r.Next(&p)
		}
		if err != io.EOF || n-1 != tt.packets || link != tt.link {
			t.Errorf("%s: %d packets of link %d, want %d of %d: %v", tt.name, n-1, link, tt.packets, tt.link, err)
		}
		if cut := e.n.cut.Load(); (cut == 1) != (tt.name == "too long for a capture") {
			t.Errorf("%s: %d are cut short", tt.name, cut)
		}
	}
}

// What was made in the place of nothing is the frame's own.
func TestMadeOfNothing(t *testing.T) {
	r := frame.Record{Frame: packettest.Bytes(60), Extra: append([]byte{0x81, 0xa9}, "pcap_made\x0e"...), Extras: 1}
	out, _, err := encode(r.Append(nil), false)
	if err != nil || !bytes.HasSuffix(out, r.Frame) {
		t.Errorf("%v, % x", err, out)
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What other programs write gives the stream of the file that they read, where they keep all of
// it.
func TestPrograms(t *testing.T) {
	stream := func(name string) []byte {
		s, err := decode(read(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return s
	}
	want := stream("eth.pcap")
	if got := stream("eth.pcapng"); !bytes.Equal(got, want) {
		t.Errorf("pcapng: % x\nwant % x", got, want)
	}
	got, _ := frames(t, stream("eth.modpcap"))
	all, _ := frames(t, want)
	for i := range got {
		got[i].Time += all[i].Time % 1000 // of which microseconds keep nothing
	}
	if fmt.Sprint(shown(got)) != fmt.Sprint(shown(all)) {
		t.Errorf("modified: %v, want %v", shown(got), shown(all))
	}
}

// shown is what frames have in common, whatever file they come from.
func shown(all []frame.Record) (s []string) {
	for _, r := range all {
		s = append(s, fmt.Sprintf("%d % x + % x", r.Time, r.Frame, r.Extra))
	}
	return s
}

// Each interface has its link and its frames, and each section begins a stream.
func TestInterfaces(t *testing.T) {
	file := read(t, "links.pcapng")
	stream, err := decode(append(file, read(t, "eth.pcapng")...))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	r := frame.NewReader(bytes.NewReader(stream))
	var rec frame.Record
	for err = r.Next(&rec); err == nil; err = r.Next(&rec) {
		if rec.IsHeader() {
			got = append(got, r.Link())
		} else {
			got = append(got, fmt.Sprintf("%d+%d %d", rec.Time-1700000000e9, len(rec.Extra), len(rec.Frame)))
		}
	}
	want := []string{
		"ethernet", "123456789+0 42",
		"ethernet", "500000000+40 42",
		"ip", "700000001+17 28",
		"ethernet", "1000000005+18 49",
		"ethernet", "123456789+0 42", "1000000005+18 49",
	}
	if err != io.EOF || !slices.Equal(got, want) {
		t.Errorf("%v: %q, want %q", err, got, want)
	}
	// A classic file has one link, and the frames of others may fit it.
	for _, tt := range []struct {
		name, want string
		links      []uint16
	}{
		{"cooked frames in Ethernet", "", []uint16{1, 113, 276}},
		{"IP of all kinds", "", []uint16{101, 0, 228}},
		{"two kinds of cooked frames", "the stream's link changes from ethernet to ethernet (link type 113 to 276)", []uint16{113, 276}},
		{"loopback and IP", "the stream's link changes from ip to ip (link type 0 to 101)", []uint16{0, 101}},
		{"Ethernet and IP", "the stream's link changes from ethernet to ip (link type 1 to 101)", []uint16{1, 101}},
	} {
		var stream []byte
		for _, link := range tt.links {
			one, err := decode(capture(link, captured{5, 40, strings.Repeat("x", 20) + ip4}))
			if err != nil {
				t.Fatal(err)
			}
			stream = append(stream, one...)
		}
		_, e, err := encode(stream, false)
		if tt.want == "" && (err != nil || e.n.frames.Load() != uint64(len(tt.links))) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %d frames, %v; want %s", tt.name, e.n.frames.Load(), err, tt.want)
		}
		written(t, stream, false)
	}
	if _, err := decode(slices.Concat(file, pcapng(t, capture(127, captured{0, 1, "x"}), binary.LittleEndian))); err == nil || !strings.HasPrefix(err.Error(), "the capture's link is of type 127") {
		t.Errorf("an interface of radiotap: %v", err)
	}
}

// Fields out of range are said once, with how many and which.
func TestOutOfRange(t *testing.T) {
	in := capture(1, captured{5, 1, "a"}, captured{6, 1, "b"}, captured{7, 1, "c"})
	for _, at := range []int{24 + 17, 24 + 34} {
		binary.LittleEndian.PutUint32(in[at+4:], 1e9)
	}
	var out bytes.Buffer
	var said []string
	d := newDecoder(bytes.NewReader(in), &out, func(f string, args ...any) { said = append(said, fmt.Sprintf(f, args...)) })
	err := d.run()
	want := "packets with a field out of range: 2; the first is packet 2: 1000000000 of 1000000000 parts of a second"
	if err != nil || !slices.Equal(said, []string{want}) || d.n.odd.Load() != 2 {
		t.Errorf("%v, %d, %q; want %q", err, d.n.odd.Load(), said, want)
	}
	if all, _ := frames(t, out.Bytes()); len(all) != 3 || all[1].Time != 1e9 || string(all[2].Frame) != "c" {
		t.Errorf("%v", shown(all))
	}
}

// Check sequences are left out: a stage may have changed the frame that one is of.
func TestCheckSequence(t *testing.T) {
	in := capture(1, captured{5, 60, strings.Repeat("a", 56) + "FCS!"}, captured{6, 1000, strings.Repeat("b", 60)}, captured{7, 3, "abc"})
	binary.LittleEndian.PutUint32(in[20:], 1|1<<26|2<<28)
	stream, _ := decode(in)
	want := capture(1, captured{5, 56, strings.Repeat("a", 56)}, captured{6, 996, strings.Repeat("b", 60)}, captured{7, 0, ""})
	if got, _, err := encode(stream, false); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v\n%q, want\n%q", err, got, want)
	}
}

// written checks that of a stream of any bytes a capture is made that can be read, of as
// many frames as it has.
func written(t *testing.T, in []byte, segment bool) {
	out, e, err := encode(in, segment)
	r, n := frame.NewReader(bytes.NewReader(in)), uint64(0)
	var rec frame.Record
	end := r.Next(&rec)
	for ; end == nil; end = r.Next(&rec) {
		if !rec.IsAnnotation() {
			n++
		}
	}
	var p pcap.Packet
	got := uint64(0)
	c := pcap.NewReader(bytes.NewReader(out))
	if _, err := c.Header(); err != nil {
		t.Fatal(err)
	}
	for ; ; got++ {
		err := c.Next(&p)
		if err == io.EOF {
			break
		}
		if err != nil || len(p.Data) > pcap.Snaplen {
			t.Fatalf("a packet of %d bytes, %v", len(p.Data), err)
		}
	}
	if got != e.n.frames.Load() || got < n && err == nil || !segment && got > n || err == nil && end != io.EOF {
		t.Fatalf("%d packets of %d frames, %d counted; %v", got, n, e.n.frames.Load(), err)
	}
}

// A capture of any bytes survives being a stream, and a stream of any bytes
// does no harm.
func FuzzCapture(f *testing.F) {
	f.Add(uint32(1), capture(1, captured{5, 20, ip4}, captured{6, 90, ip4}))
	f.Add(uint32(113), capture(113, captured{5, 36, "\x00\x00\x00\x01\x00\x06\x02\x00\x00\x00\x00\x07\x00\x00\x08\x00" + ip4}))
	hdr, super := packettest.Spec{Payload: packettest.Bytes(40)}.Super(10)
	rec := frame.Record{Offload: hdr, Frame: super}
	f.Add(uint32(0), rec.Append((&frame.Record{Frame: super[:3]}).Append(nil)))
	for _, name := range []string{"eth.pcapng", "eth.modpcap", "links.pcapng"} {
		b := read(f, name)
		f.Add(binary.LittleEndian.Uint32(b[20:]), b)
	}
	files, _ := filepath.Glob("../../shared/pcap/*.pcap")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if field := binary.LittleEndian.Uint32(b[20:]); len(b) < 10000 && b[0] == 0xd4 {
			f.Add(field, b)
		}
	}
	f.Fuzz(func(t *testing.T, field uint32, in []byte) {
		file := bytes.Clone(in)
		if len(file) >= pcap.HeaderSize {
			binary.LittleEndian.PutUint32(file[20:], field)
		}
		stream, err := decode(file)
		for _, segment := range []bool{false, true} {
			written(t, in, segment)
		}
		if len(stream) == 0 {
			return
		}
		written(t, stream, false)
		if file[0] == 0x0a { // which may have several links
			return
		}
		order := []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian}[len(in)%2]
		if same, err := decode(pcapng(t, file, order)); err != nil || !bytes.Equal(same, stream) {
			t.Fatalf("as pcapng: %v\n% x\n% x", err, same, stream)
		}
		first, _, errBack := encode(stream, false)
		if errBack != nil {
			t.Fatalf("%v, after %v", errBack, err)
		}
		again, err := decode(first)
		if err != nil {
			t.Fatal(err)
		}
		second, _, err := encode(again, false)
		if err != nil || !bytes.Equal(first, second) || !bytes.Equal(stream, again) {
			t.Fatalf("%v\n% x\n% x", err, first, second)
		}
	})
}

func TestAllocates(t *testing.T) {
	const n = 1000
	var p []captured
	for range n {
		p = append(p, captured{5, 60, strings.Repeat("x", 60)})
	}
	in := capture(1, p...)
	stream, err := decode(in)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"decode": func() {
			_ = newDecoder(bytes.NewReader(in), io.Discard, nil).run()
		},
		"encode": func() {
			e := &encoder{r: frame.NewReader(bytes.NewReader(stream)), out: io.Discard}
			_ = e.run()
		},
	} {
		if a := testing.AllocsPerRun(5, f); a > n/10 {
			t.Errorf("%s: %.0f allocations for %d frames", name, a, n)
		}
	}
}
