package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
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

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func silent(string, ...any) {}

func decode(in []byte) ([]byte, error) {
	var out bytes.Buffer
	err := newDecoder(bytes.NewReader(in), &out, silent).run()
	return out.Bytes(), err
}

func encode(in []byte, segment bool) ([]byte, *encoder, error) {
	var out bytes.Buffer
	e := &encoder{r: frame.NewReader(bytes.NewReader(in)), out: &out, segment: segment, warn: silent}
	err := e.run()
	return out.Bytes(), e, err
}

// frames returns the frames of a stream up to its error, and the Reader.
func frames(in []byte) (all []frame.Record, r *frame.Reader, err error) {
	r = frame.NewReader(bytes.NewReader(in))
	for {
		var rec frame.Record
		if err := r.Next(&rec); err != nil {
			return all, r, err
		}
		if !rec.IsAnnotation() {
			rec.Frame, rec.Extra = bytes.Clone(rec.Frame), bytes.Clone(rec.Extra)
			all = append(all, rec)
		}
	}
}

// written encodes a stream of any bytes. The capture can be read, and has as many packets as
// the stream has frames. It returns them.
func written(t *testing.T, in []byte, segment bool) (packets []string, link uint16, err error) {
	t.Helper()
	out, e, err := encode(in, segment)
	c := pcap.NewReader(bytes.NewReader(out))
	link, end := c.Header()
	var p pcap.Packet
	for end == nil {
		if end = c.Next(&p); end == nil {
			packets = append(packets, string(p.Data))
		}
	}
	if end != io.EOF || c.Odd > 0 || e.n.frames.Load() != uint64(len(packets)) {
		t.Fatalf("%d packets, %d counted, %d are odd; %v", len(packets), e.n.frames.Load(), c.Odd, end)
	}
	all, _, end := frames(in)
	if err == nil && (len(packets) < len(all) || end != io.EOF) || !segment && len(packets) > len(all) {
		t.Fatalf("%d packets of %d frames; %v, %v", len(packets), len(all), err, end)
	}
	return packets, link, err
}

const (
	ip4  = "\x45\x00\x00\x14\x00\x00\x00\x00\x40\x06\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02"
	sll  = "\x00\x00\x00\x01\x00\x06\x02\x00\x00\x00\x00\x07\x00\x00\x08\x00"
	sll2 = "\x08\x00\x00\x00\x00\x00\x00\x05\x00\x01\x04\x06\x02\x00\x00\x00\x00\x07\x00\x00"
)

// Each link becomes what a stream can have, and is again what it was on the way
// back.
func TestLinks(t *testing.T) {
	const made = "\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x07"
	long := strings.Repeat("x", 1600)
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
		{"cooked", 113, sll + ip4, "ethernet", made + "\x08\x00" + ip4},
		{"cooked 2", 276, sll2 + ip4, "ethernet", made + "\x08\x00" + ip4},
		{"cooked llc", 113, sll[:14] + "\x00\x04" + "\x42\x42\x03", "ethernet", made + "\x00\x03\x42\x42\x03"},
		{"cooked 802.3, longer than a length", 113, sll[:14] + "\x00\x01" + long, "ethernet", made + "\x05\xdc" + long},
		{"cooked, cut off in its header", 113, sll[:9], "ethernet", ""},
		{"nothing", 1, "", "ethernet", ""},
	} {
		const time = 1700000000_000000001
		in := capture(tt.number, captured{time, uint32(len(tt.in)), tt.in}, captured{7, 1e6, tt.in})
		stream, err := decode(in)
		got, r, end := frames(stream)
		if err != nil || end != io.EOF || len(got) != 2 || r.Link() != tt.link {
			t.Fatalf("%s: %v, %v, %d frames of link %s", tt.name, err, end, len(got), r.Link())
		}
		if got[0].Time != time || string(got[0].Frame) != tt.want {
			t.Errorf("%s: % x at %d, want % x", tt.name, got[0].Frame, got[0].Time, tt.want)
		}
		if back, _, err := encode(stream, false); err != nil || !bytes.Equal(back, in) {
			t.Errorf("%s: %v\n% x\n% x", tt.name, err, back, in)
		}
	}
	unknown := bytes.Replace(read(t, "links.pcapng"), []byte("\x71\x00\x00\x00"), []byte("\x7f\x00\x00\x00"), 1)
	for _, in := range [][]byte{capture(127, captured{0, 1, "x"}), unknown} {
		if _, err := decode(in); err == nil || !strings.HasPrefix(err.Error(), "the capture's link is of type 127") {
			t.Errorf("radiotap: %v", err)
		}
	}
}

// waiting calls wait before each read of the source.
type waiting struct {
	src  io.Reader
	wait func()
}

func (w waiting) Read(p []byte) (int, error) {
	w.wait()
	return w.src.Read(p)
}

// All packets that were read are written before the next read waits.
func TestPrompt(t *testing.T) {
	in := capture(101, captured{1, 20, ip4})
	stream, err := decode(in)
	if err != nil {
		t.Fatal(err)
	}
	last := (&frame.Record{Time: 1, Frame: []byte(ip4)}).Append(nil)
	head := bytes.TrimSuffix(stream, last)
	var out bytes.Buffer
	wants := [][]byte{nil, in[:pcap.HeaderSize], in}
	src := io.MultiReader(bytes.NewReader(head), bytes.NewReader(last))
	e := &encoder{out: &out, r: frame.NewReader(waiting{src, func() {
		if !bytes.Equal(out.Bytes(), wants[0]) {
			t.Errorf("% x of the capture, want % x", out.Bytes(), wants[0])
		}
		wants = wants[1:]
	}})}
	if err := e.run(); err != nil || len(wants) > 0 {
		t.Errorf("%v, %d more captures", err, len(wants))
	}
	for _, name := range []string{"eth.pcap", "eth.pcapng"} {
		file := read(t, name)
		want, _ := decode(file)
		out.Reset()
		waited := 0
		d := newDecoder(waiting{bytes.NewReader(file), func() {
			if waited++; waited > 1 && !bytes.Equal(out.Bytes(), want) {
				t.Errorf("%s: % x of the stream", name, out.Bytes())
			}
		}}, &out, nil)
		if err := d.run(); err != nil || waited < 2 {
			t.Errorf("%s: %v, %d times waited", name, err, waited)
		}
	}
}

// stream writes annotations and frames.
func stream(values ...any) []byte {
	var b bytes.Buffer
	w := frame.NewWriter(&b)
	for _, v := range values {
		switch v := v.(type) {
		case map[string]any:
			_ = w.Annotate(v)
		case frame.Record:
			_ = w.Write(&v)
		}
	}
	_ = w.Flush()
	return b.Bytes()
}

// Checksums are finished; super-frames are cut only if asked for.
func TestOffload(t *testing.T) {
	tcp := packettest.Spec{Payload: packettest.Bytes(5000)}
	udp := packettest.Spec{UDP: true, Payload: []byte("hello")}
	h, super := tcp.Super(1460)
	h2, unfinished := udp.Super(0)
	in := stream(frame.Record{Offload: h, Frame: super}, frame.Record{Offload: h2, Frame: unfinished},
		frame.Record{Offload: []byte{1, 0, 0, 0, 0, 0, 255, 0, 6, 0}, Frame: []byte("too short for that")})
	cut := []string{}
	for i := 0; i < 5000; i += 1460 {
		s := tcp
		s.Payload, s.Seq, s.ID = tcp.Payload[i:min(i+1460, 5000)], uint32(i), uint16(i/1460)
		cut = append(cut, string(s.Frame()))
	}
	for _, tt := range []struct {
		segment  bool
		want     []string
		counters string
	}{
		{false, []string{string(tcp.Frame())}, "finished=2 segmented=0 malformed=1 cut_short=0"},
		{true, cut, "finished=1 segmented=1 malformed=1 cut_short=0"},
	} {
		got, _, err := written(t, in, tt.segment)
		want := append(tt.want, string(udp.Frame()), "too short for that")
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("segment %v: %v\n% x, want\n% x", tt.segment, err, got, want)
		}
		if _, e, _ := encode(in, tt.segment); !strings.HasSuffix(e.n.String(), tt.counters) {
			t.Errorf("segment %v: %s, want %s", tt.segment, &e.n, tt.counters)
		}
	}
}

func TestEncode(t *testing.T) {
	header := func(link string, number int) map[string]any {
		return map[string]any{"format": "frames", "version": 1, "link": link, "pcap_link": number}
	}
	one := frame.Record{Time: 1, Frame: []byte("a frame of whatever")}
	with := func(addition string) frame.Record {
		return frame.Record{Frame: packettest.Bytes(60), Extra: []byte(addition), Extras: 1}
	}
	made := func(n byte) frame.Record { return with("\x81\xa9pcap_made" + string([]byte{n})) }
	long := frame.Record{Frame: packettest.Bytes(pcap.Snaplen + 1)}
	for _, tt := range []struct {
		name    string
		in      []byte
		link    uint16
		packets int
		err     string
	}{
		{"nothing at all", nil, 1, 0, "<nil>"},
		{"a header", stream(header("ip", 101)), 101, 0, "<nil>"},
		{"no header", stream(one), 1, 1, "<nil>"},
		{"two streams", stream(header("ethernet", 1), one, header("ethernet", 1), one), 1, 2, "<nil>"},
		{"two links", stream(header("ethernet", 1), one, header("ip", 1), one), 1, 1, "offset 84: the stream's link changes"},
		{"a link that is not the stream's", stream(header("ip", 113), one), 101, 1, "<nil>"},
		{"an unknown link", stream(header("ethernet", 147), one), 1, 1, "<nil>"},
		{"no cooked header", stream(header("ethernet", 113), one), 113, 0, "offset 49: the stream began as a capture of link type 113"},
		{"a cooked header, and the file has none", stream(header("ethernet", 1), with("\x81\xa9pcap_head\xc4\x02hh")), 1, 1, "<nil>"},
		{"cut off", stream(one, one)[:50], 1, 1, "offset 35: the input ends 15 bytes into a value"},
		{"strange additions", stream(with("\x07"), made(5), made(0xff), with("\x81\xabpcap_length\xa1x")), 1, 4, "<nil>"},
		{"too long for a capture", stream(long, one), 1, 2, "<nil>"},
	} {
		got, link, err := written(t, tt.in, false)
		if !strings.HasPrefix(fmt.Sprint(err), tt.err) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.err)
		}
		if len(got) != tt.packets || link != tt.link {
			t.Errorf("%s: %d packets of link %d, want %d of %d", tt.name, len(got), link, tt.packets, tt.link)
		}
		all, _, _ := frames(tt.in)
		for i, p := range got {
			if p != string(all[i].Frame[:min(len(all[i].Frame), pcap.Snaplen)]) {
				t.Errorf("%s: packet %d is not the frame: % x", tt.name, i, p)
			}
		}
	}
	if _, e, _ := encode(stream(one, long, long), false); e.n.cut.Load() != 2 {
		t.Errorf("%s", &e.n)
	}
}

// shown returns the parts of frames that are the same in every kind of file.
func shown(stream []byte) (s []string) {
	all, _, _ := frames(stream)
	for _, r := range all {
		s = append(s, fmt.Sprintf("%d %x+%x", r.Time/1000, r.Frame, r.Extra))
	}
	return s
}

// What other programs write gives the stream of the file that they read, where they keep all of
// it: the modified format has microseconds.
func TestPrograms(t *testing.T) {
	want, err := decode(read(t, "eth.pcap"))
	ng, err2 := decode(read(t, "eth.pcapng"))
	modified, err3 := decode(read(t, "eth.modpcap"))
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ng, want) || !slices.Equal(shown(modified), shown(want)) {
		t.Errorf("% x\n% x\n% x", want, ng, modified)
	}
}

// Each interface of each section has its link and its frames.
func TestInterfaces(t *testing.T) {
	in, err := decode(append(read(t, "links.pcapng"), read(t, "eth.pcapng")...))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	r := frame.NewReader(bytes.NewReader(in))
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
		"123456789+0 42", "1000000005+18 49",
	}
	if err != io.EOF || !slices.Equal(got, want) {
		t.Errorf("%v: %q, want %q", err, got, want)
	}
}

// A classic file has one link, and the frames of others may fit it.
func TestLinksMeet(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		links      []uint16
	}{
		{"cooked frames in Ethernet", "<nil>", []uint16{1, 113, 276}},
		{"IP of all kinds", "<nil>", []uint16{101, 0, 228}},
		{"two kinds of cooked frames", "link changes from ethernet to ethernet (link type 113 to 276)", []uint16{113, 276}},
		{"loopback and IP", "link changes from ip to ip (link type 0 to 101)", []uint16{0, 101}},
		{"Ethernet and IP", "link changes from ethernet to ip (link type 1 to 101)", []uint16{1, 101}},
	} {
		var in []byte
		for _, link := range tt.links {
			one, err := decode(capture(link, captured{5, 40, strings.Repeat("x", 20) + ip4}))
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, one...)
		}
		_, _, err := written(t, in, false)
		if !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%s: %v; want %s", tt.name, err, tt.want)
		}
	}
}

// Fields out of range are said once, with how many and which.
func TestOutOfRange(t *testing.T) {
	in := capture(1, captured{5, 1, "a"}, captured{6, 1, "b"}, captured{7, 1, "c"})
	for _, at := range []int{24 + 17, 24 + 34} {
		binary.LittleEndian.PutUint32(in[at+4:], 1e9)
	}
	var out bytes.Buffer
	said := ""
	d := newDecoder(bytes.NewReader(in), &out, func(f string, args ...any) { said += fmt.Sprintf(f, args...) })
	err := d.run()
	const want = "packets with a field out of range: 2; the first is packet 2: 1000000000 of 1000000000 parts of a second"
	if err != nil || said != want || d.n.odd.Load() != 2 {
		t.Errorf("%v, %d, %q; want %q", err, d.n.odd.Load(), said, want)
	}
	if got := shown(out.Bytes()); !slices.Equal(got, []string{"0 61+", "1000000 62+", "1000000 63+"}) {
		t.Errorf("%v", got)
	}
}

// A capture of any bytes survives being a stream, and a stream of any bytes
// does no harm.
func FuzzCapture(f *testing.F) {
	f.Add(uint32(1), capture(1, captured{5, 20, ip4}, captured{6, 90, ip4}))
	f.Add(uint32(113), capture(113, captured{5, 36, sll + ip4}))
	h, super := packettest.Spec{Payload: packettest.Bytes(40)}.Super(10)
	f.Add(uint32(0), stream(frame.Record{Frame: super[:3]}, frame.Record{Offload: h, Frame: super}))
	for _, name := range []string{"eth.pcapng", "eth.modpcap", "links.pcapng"} {
		b := read(f, name)
		f.Add(binary.LittleEndian.Uint32(b[20:]), b)
	}
	f.Fuzz(func(t *testing.T, field uint32, in []byte) {
		_, _, _ = written(t, in, false)
		_, _, _ = written(t, in, true)
		file := bytes.Clone(in)
		if len(file) >= pcap.HeaderSize {
			binary.LittleEndian.PutUint32(file[20:], field)
		}
		first, _ := decode(file)
		if len(first) == 0 {
			return
		}
		_, _, _ = written(t, first, false)
		if file[0] == 0x0a { // which may have several links
			return
		}
		back, _, err2 := encode(first, false)
		second, err3 := decode(back)
		again, _, err4 := encode(second, false)
		err := errors.Join(err2, err3, err4)
		if err != nil || !bytes.Equal(first, second) || !bytes.Equal(back, again) {
			t.Fatalf("%v\n% x\n% x", err, back, again)
		}
	})
}

func TestAllocates(t *testing.T) {
	const n = 1000
	in := capture(1, slices.Repeat([]captured{{5, 60, strings.Repeat("x", 60)}}, n)...)
	stream, err := decode(in)
	if err != nil {
		t.Fatal(err)
	}
	decoding := testing.AllocsPerRun(5, func() { _ = newDecoder(bytes.NewReader(in), io.Discard, nil).run() })
	encoding := testing.AllocsPerRun(5, func() {
		e := &encoder{r: frame.NewReader(bytes.NewReader(stream)), out: io.Discard}
		_ = e.run()
	})
	if max(decoding, encoding) > n/10 {
		t.Errorf("%.0f and %.0f allocations for %d frames", decoding, encoding, n)
	}
}
