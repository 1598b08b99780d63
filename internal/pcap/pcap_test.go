package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"framepipe/frame"
)

// file writes a capture plainly, in any of its forms.
func file(order binary.ByteOrder, magic uint32, packets ...Packet) []byte {
	unit := uint64(1000)
	if magic == magicNano {
		unit = 1
	}
	var b bytes.Buffer
	_ = binary.Write(&b, order, []uint32{magic, 0, 0, 0, MaxPacket, LinkEthernet})
	for _, p := range packets {
		seconds, fraction := uint32(p.Time/1e9), uint32(p.Time%1e9/unit)
		_ = binary.Write(&b, order, []uint32{seconds, fraction, uint32(len(p.Data)), p.Length})
		if magic == magicModified {
			b.Write(make([]byte, 8))
		}
		b.Write(p.Data)
	}
	order.PutUint16(b.Bytes()[4:], 2)
	order.PutUint16(b.Bytes()[6:], 4)
	return b.Bytes()
}

// put returns b with another number at an offset.
func put(order binary.ByteOrder, b []byte, at int, v uint32) []byte {
	b = bytes.Clone(b)
	order.PutUint32(b[at:], v)
	return b
}

// rest reads a whole file.
func rest(r *Reader) (packets []Packet, err error) {
	_, err = r.Header()
	for err == nil {
		var p Packet
		if err = r.Next(&p); err == nil {
			p.Data = bytes.Clone(p.Data)
			packets = append(packets, p)
		}
	}
	if err == io.EOF {
		err = nil
	}
	return packets, err
}

var some = []Packet{
	{Time: 1700000000_123456000, Length: 3, Data: []byte("abc"), Link: LinkEthernet},
	{Time: 1700000001_000000000, Length: 1500, Data: []byte("cut"), Link: LinkEthernet},
	{Time: latest / 1000 * 1000, Length: 0, Data: []byte{}, Link: LinkEthernet},
	{Time: 0, Length: 300000, Data: bytes.Repeat([]byte("x"), 300000), Link: LinkEthernet},
	{Time: 1, Length: 1, Data: []byte("y"), Link: LinkEthernet}, // of which microseconds keep nothing
}

// latest is the last time that a classic file can have.
const latest = 4294967295_999999999

// delivers checks that a file has these packets, however it is cut into reads.
func delivers(t *testing.T, in []byte, want []Packet) {
	t.Helper()
	for name, src := range map[string]io.Reader{
		"at once":           bytes.NewReader(in),
		"a few bytes each":  iotest.HalfReader(bytes.NewReader(in)),
		"a byte each":       iotest.OneByteReader(bytes.NewReader(in)),
		"the end with data": iotest.DataErrReader(bytes.NewReader(in)),
	} {
		r := NewReader(src)
		got, err := rest(r)
		if err != nil || r.Odd != 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d packets of %d, or others; %v; %d are odd", name, len(got), len(want), err, r.Odd)
		}
	}
}

// Files of all forms, with check sequences that the header announces or not.
func TestReader(t *testing.T) {
	const announced = 1 << 26
	for _, o := range orders {
		delivers(t, file(o, magicNano, some...), some)
		anyFile(t, file(o, magicNano, some...))
		micro := append(some[:4:4], Packet{Length: 1, Data: some[4].Data, Link: LinkEthernet})
		delivers(t, file(o, magicMicro, some...), micro)
		delivers(t, file(o, magicModified, some...), micro)
		for field, want := range map[uint32][]Packet{
			2<<28 | LinkRaw:             {{5, 3, []byte("abc"), LinkRaw}, {6, 1500, []byte("cut"), LinkRaw}},
			1<<28 | announced | LinkRaw: {{5, 1, []byte("a"), LinkRaw}, {6, 1498, []byte("cut"), LinkRaw}},
			2<<28 | announced | LinkRaw: {{5, 0, []byte{}, LinkRaw}, {6, 1496, []byte("cut"), LinkRaw}},
		} {
			packets := []Packet{{Time: 5, Length: 3, Data: []byte("abc")}, {Time: 6, Length: 1500, Data: []byte("cut")}}
			delivers(t, put(o, file(o, magicNano, packets...), 20, field), want)
		}
	}
}

// What came whole before the damage is delivered, and the error says where it is.
func TestDamage(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	classic := file(le, magicNano, some[0], some[1])
	const second = HeaderSize + RecordSize + 3
	section := func() *blocks { return (&blocks{o: be}).section() }
	ng := section().iface(1, 0).enhanced(0, 1, 3, "abc").b
	at := len(ng)
	cut := section().iface(1, 0).enhanced(0, 1, 3, "abc").enhanced(0, 2, 3, "def").b
	many := section()
	for range mostIfaces + 1 {
		many.iface(1, 0)
	}
	option := func(fields ...any) []byte { return section().iface(1, 0, fields...).b }
	for _, tt := range []struct {
		name    string
		in      []byte
		packets int
		offset  int
		want    string
	}{
		{"nothing", nil, 0, 0, "the input ends inside the file's header, after 0 bytes of it"},
		{"half a header", classic[:20], 0, 0, "the input ends inside the file's header, after 20 bytes of it"},
		{"text", []byte("hello, world"), 0, 0, "not a capture: it begins with 68 65 6c 6c"},
		{"version", put(le, classic, 4, 1), 0, 0, "a capture of version 1.0, want 2.4"},
		{"version 2.2", put(le, classic, 4, 2|2<<16), 0, 0, "a capture of version 2.2, want 2.4"},
		{"half a packet header", classic[:second+7], 1, second, "the input ends inside a packet, after 7 bytes of it"},
		{"half a packet", classic[:len(classic)-1], 1, second, "the input ends inside a packet, after 18 bytes of it"},
		{"a length", put(le, classic, second+8, MaxPacket+1), 1, second, "a packet of 1048577 bytes, the most is 1048576"},

		{"half a head", cut[:at+3], 1, at, "the input ends inside a block, after 3 bytes of it"},
		{"half a packet's head", cut[:at+20], 1, at, "the input ends inside a packet, after 20 bytes of it"},
		{"half a packet of a block", cut[:at+29], 1, at, "the input ends inside a packet, after 29 bytes of it"},
		{"no length at the end", cut[:at+34], 2, at, "the input ends inside a block of 36 bytes, after 34 bytes of it"},
		{"another length at the end", put(be, ng, at-4, 32), 1, 48, "a block of 36 bytes that says 32 at its end"},
		{"a length of nothing", put(be, ng, 52, 8), 0, 48, "a block of 8 bytes"},
		{"an odd length", put(be, ng, 52, 37), 0, 48, "a block of 37 bytes"},
		{"a large length", put(be, ng, 52, mostBlock+4), 0, 48, "a block of 16777220 bytes, want a multiple of 4 of at most 16777216"},
		{"half a section header", ng[:11], 0, 0, "the input ends inside a block, after 11 bytes of it"},
		{"no byte order", put(be, ng, 8, 0), 0, 0, "a block of 469762048 bytes"},
		{"half a byte order", put(be, put(be, ng, 4, 28<<24), 8, 0x09090909), 0, 0, "an invalid section header: 0a"},
		{"a short section header", (&blocks{o: be}).block(blockSection, byteOrder, uint16(1), uint16(0)).b, 0, 0, "an invalid section header"},
		{"version 2 of pcapng", put(be, ng, 12, 2<<16), 0, 0, "a capture of pcapng version 2, want 1"},
		{"a short interface", section().block(blockInterface, 1).b, 0, 28, "an interface description of 16 bytes"},
		{"a long interface", option(strings.Repeat("x", MaxPacket)), 0, 28, "an interface description of 1048596 bytes"},
		{"many interfaces", many.b, 0, len(many.b) - 20, "an interface description of 20 bytes, number 65537 of the section"},
		{"half an option", option(uint16(9), uint16(5), "123"), 0, 28, "an option of 5 bytes in an interface description, and 4 bytes are left"},
		{"resolution", option(uint16(9), uint16(1), "\x14"), 0, 28, "invalid option 9 in an interface description: 14"},
		{"binary resolution", option(uint16(9), uint16(1), "\xc0"), 0, 28, "invalid option 9 in an interface description: c0"},
		{"offset", option(uint16(14), uint16(4), "1234"), 0, 28, "invalid option 14 in an interface description: 31 32 33 34"},
		{"check sequence", option(uint16(13), uint16(4), "1234"), 0, 28, "invalid option 13"},
	} {
		got, err := rest(NewReader(bytes.NewReader(tt.in)))
		var damage *frame.FormatError
		want := fmt.Sprintf("offset %d: %s", tt.offset, tt.want)
		if len(got) != tt.packets || !errors.As(err, &damage) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %d packets, %v; want %d, %s", tt.name, len(got), err, tt.packets, want)
		}
		if strings.Contains(tt.want, "the input ends") != errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %#v", tt.name, err)
		}
	}
	failed := errors.New("failed")
	for _, in := range [][]byte{classic[:30], ng[:30], ng[:at-10], ng[:at-2]} { // the last in a block's end
		if _, err := rest(NewReader(io.MultiReader(bytes.NewReader(in), iotest.ErrReader(failed)))); !errors.Is(err, failed) {
			t.Errorf("the source's own error is %v", err)
		}
	}
	if _, err := NewReader(bytes.NewReader(section().b)).Header(); err != io.EOF {
		t.Errorf("a file without interfaces: %v", err)
	}
}

// A length at the limit is taken, and blocks that are skipped need no memory.
func TestLargest(t *testing.T) {
	big := Packet{Time: 5, Length: MaxPacket, Data: make([]byte, MaxPacket)}
	n := (&blocks{o: binary.BigEndian}).section().iface(1, 0).block(0xbad, string(make([]byte, mostBlock-12)))
	comment := string(make([]byte, 60000))
	n.enhanced(0, 1, 1, "x").enhanced(0, 1, MaxPacket, string(big.Data), uint16(1), uint16(len(comment)), comment)
	for _, in := range [][]byte{n.b, file(binary.BigEndian, magicNano, big, big)} {
		got, err := rest(NewReader(bytes.NewReader(in)))
		if err != nil || len(got) != 2 || len(got[1].Data) != MaxPacket {
			t.Errorf("%d packets, %v", len(got), err)
		}
	}
}

// anyFile reads a file of any bytes, in pieces of two sizes, and writes its packets, which can
// be read again.
func anyFile(t *testing.T, in []byte) (r *Reader, packets []Packet, err error) {
	r = NewReader(iotest.HalfReader(bytes.NewReader(in)))
	packets, err = rest(r)
	if same, err2 := rest(NewReader(bytes.NewReader(in))); !reflect.DeepEqual(err, err2) || !reflect.DeepEqual(packets, same) {
		t.Fatalf("%d packets and %v, and in other pieces %d and %v", len(packets), err, len(same), err2)
	}
	var damage *frame.FormatError
	if err != nil && (!errors.As(err, &damage) || damage.Offset > int64(len(in))) {
		t.Fatalf("%v, in %d bytes", err, len(in))
	}
	b := AppendHeader(nil, LinkRaw)
	for _, p := range packets {
		b = AppendPacket(b, p.Time, p.Length, p.Data)
	}
	again, err2 := rest(NewReader(bytes.NewReader(b)))
	if err2 != nil || len(again) != len(packets) {
		t.Fatalf("%d packets of %d, %v", len(again), len(packets), err2)
	}
	for i, p := range packets {
		a, data := again[i], p.Data[:min(len(p.Data), Snaplen)]
		if a.Time != min(p.Time, latest) || a.Length != p.Length || !bytes.Equal(a.Data, data) {
			t.Fatalf("packet %d: %+v, was %+v", i, a, p)
		}
	}
	return r, packets, err
}

// Reading ends for any file.
func FuzzReader(f *testing.F) {
	for i, o := range orders {
		for _, magic := range []uint32{magicNano, magicMicro, magicModified} {
			b := file(o, magic, some[:3]...)
			f.Add(put(o, b, 20, []uint32{1, 0x24<<24 | 1}[i])) // with check sequences, too
			f.Add(append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) { anyFile(t, in) })
}
