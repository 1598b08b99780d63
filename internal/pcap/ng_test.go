package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strings"
	"testing"
	"testing/iotest"

	"framepipe/frame"

	"pgregory.net/rapid"
)

// blocks writes a pcapng file plainly.
type blocks struct {
	o binary.AppendByteOrder
	b []byte
}

// block adds a block of fields and bytes.
func (n *blocks) block(kind uint32, fields ...any) *blocks {
	var body []byte
	for _, f := range fields {
		switch f := f.(type) {
		case uint16:
			body = n.o.AppendUint16(body, f)
		case int:
			body = n.o.AppendUint32(body, uint32(f))
		case uint64:
			body = n.o.AppendUint64(body, f)
		case string:
			body = append(body, f...)
			for len(body)%4 > 0 {
				body = append(body, 0)
			}
		}
	}
	size := uint32(len(body) + 12)
	n.b = n.o.AppendUint32(n.o.AppendUint32(n.b, kind), size)
	n.b = n.o.AppendUint32(append(n.b, body...), size)
	return n
}

func (n *blocks) section(options ...any) *blocks {
	return n.block(blockSection, append([]any{byteOrder, uint16(1), uint16(0), -1, -1}, options...)...)
}

// iface adds the description of an interface. An option is its code, its length and its value.
func (n *blocks) iface(link, snaplen int, options ...any) *blocks {
	return n.block(blockInterface, append([]any{uint16(link), uint16(0), snaplen}, options...)...)
}

func (n *blocks) enhanced(iface int, time uint64, length int, data string, options ...any) *blocks {
	return n.block(blockEnhanced, append([]any{iface, int(time >> 32), int(uint32(time)), len(data), length, data}, options...)...)
}

func resolution(b byte) string { return string([]byte{b}) }

var orders = []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian}

// Packets of all kinds, interfaces and sections, in both byte orders.
func TestNG(t *testing.T) {
	for i, o := range orders {
		n := &blocks{o: o}
		n.section(uint16(4), uint16(5), "test!", uint16(0), uint16(0))
		n.block(0xbad, "a name, or a secret")
		n.iface(LinkEthernet, 0)
		n.iface(LinkSLL, 5, uint16(2), uint16(4), "eth0", uint16(9), uint16(1), resolution(9), uint16(14), uint16(8), uint64(1700000000), uint16(0), uint16(0))
		n.enhanced(0, 1700000000_123456, 1500, "abc", uint16(1), uint16(7), "comment", uint16(0), uint16(0))
		n.enhanced(1, 987654321, 3, "def")
		n.block(blockSimple, 7, "ghijklm")
		n.block(5, 0, 0, 0, "statistics")
		n.block(blockObsolete, uint16(1), uint16(9), 0, 1, 2, 2, "no")
		n.o = orders[1-i]
		n.section()
		n.iface(LinkRaw, 4, uint16(9), uint16(1), resolution(0x80|10), uint16(13), uint16(1), resolution(2))
		n.enhanced(0, 5<<10|1, 9, "pqr")
		n.block(blockSimple, 9, "stuv")
		want := []Packet{
			{1700000000_123456000, 1500, []byte("abc"), LinkEthernet, 0},
			{1700000000_987654321, 3, []byte("def"), LinkSLL, 0},
			{1700000000_987654321, 7, []byte("ghijklm"), LinkEthernet, 0},
			{1700000000_000000001, 2, []byte("no"), LinkSLL, 0},
			{5_000976562, 7, []byte("pqr"), LinkRaw, 1},
			{5_000976562, 7, []byte("stuv"), LinkRaw, 1},
		}
		for name, src := range map[string]io.Reader{
			"at once":          bytes.NewReader(n.b),
			"a few bytes each": iotest.HalfReader(bytes.NewReader(n.b)),
			"a byte each":      iotest.OneByteReader(bytes.NewReader(n.b)),
		} {
			r := NewReader(src)
			got, err := rest(r)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || r.Odd != 0 {
				t.Errorf("%v, %s: %v, %d are odd: %s\n%v, want\n%v", o, name, err, r.Odd, r.FirstFault, got, want)
			}
		}
	}
}

// A packet with a field out of range does not end the file. It is left out if there is no other
// way.
func TestOdd(t *testing.T) {
	classic := func(magic uint32) []byte {
		f := file(binary.LittleEndian, true, some[0], some[1], some[1])
		binary.LittleEndian.PutUint32(f, magic)
		return f
	}
	put := func(b []byte, at int, v uint32) []byte {
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	ng := func(do func(n *blocks)) []byte {
		n := (&blocks{o: binary.LittleEndian}).section().iface(1, 4).iface(1, 0, uint16(14), uint16(8), uint64(math.MaxUint64))
		n.enhanced(0, 1, 3, "abc")
		do(n)
		return n.enhanced(0, 7e6, 3, "xyz").b
	}
	const second = HeaderSize + RecordSize + 3
	for _, tt := range []struct {
		name    string
		in      []byte
		packets int
		time    uint64 // of the second
		want    string
	}{
		{"nanoseconds", put(classic(magicNano), second+4, 2e9), 3, 1700000003e9, "2000000000 of 1000000000 parts"},
		{"microseconds", put(put(classic(magicMicro), HeaderSize+4, 0), second+4, 1e6), 3, 1700000002e9, "1000000 of 1000000 parts"},
		{"snaplen", put(put(classic(magicNano), 16, 2), second+8, 2)[:second+18], 2, 1700000001e9, "3 bytes were captured, and the most is 2"},
		{"snaplen of an interface", ng(func(n *blocks) { n.enhanced(0, 6e6, 5, "defgh") }), 3, 6e9, "5 bytes were captured, and the most is 4"},
		{"unknown interface", ng(func(n *blocks) { n.enhanced(2, 6e6, 5, "no") }), 2, 7e9, "interface 2, and the section has 2"},
		{"unknown obsolete interface", ng(func(n *blocks) { n.block(blockObsolete, uint16(9), uint16(0), 0, 0, 0, 0) }), 2, 7e9, "interface 9"},
		{"more than the block", ng(func(n *blocks) { n.block(blockEnhanced, 0, 0, 6000000, 5, 5, "abcd") }), 2, 7e9, "5 bytes were captured, in a block of 36"},
		{"a block without room", ng(func(n *blocks) { n.block(blockEnhanced, 0, 0, 6000000, 0) }), 2, 7e9, "a block of 28 bytes"},
		{"before the epoch", ng(func(n *blocks) { n.enhanced(1, 5, 3, "def") }), 3, 0, "a time of 5/1000000 s, from -1 s on"},
		{"far future", ng(func(n *blocks) { n.enhanced(0, math.MaxUint64, 3, "def") }), 3, math.MaxUint64, "a time of 18446744073709551615/1000000 s"},
		{"too large a packet", ng(func(n *blocks) { n.enhanced(0, 6e6, 3, strings.Repeat("x", MaxPacket+1)) }), 2, 7e9, "1048577 bytes were captured"},
		{"interface after its packet", (&blocks{o: binary.LittleEndian}).section().enhanced(0, 1, 3, "abc").iface(1, 0).enhanced(0, 5e6, 2, "xy").enhanced(0, 7e6, 2, "xy").b, 2, 7e9, "interface 0, and the section has 0"},
	} {
		r := NewReader(bytes.NewReader(tt.in))
		got, err := rest(r)
		if err != nil || len(got) != tt.packets || got[1].Time != tt.time {
			t.Errorf("%s: %d packets, %v; want %d\n%v", tt.name, len(got), err, tt.packets, got)
		}
		first := uint64(2)
		if strings.HasPrefix(tt.want, "3 bytes") || strings.HasSuffix(tt.want, "has 0") {
			first = 1
		}
		if r.Odd != 3-first && r.Odd != 1 || r.FirstOdd != first || !strings.HasPrefix(r.FirstFault, tt.want) {
			t.Errorf("%s: %d are odd, the first is %d, %s; want %d, %s", tt.name, r.Odd, r.FirstOdd, r.FirstFault, first, tt.want)
		}
	}
}

// Damage is an error that says where it is, and what came before is delivered.
func TestNGDamage(t *testing.T) {
	good := func() *blocks { return (&blocks{o: binary.BigEndian}).section().iface(1, 0).enhanced(0, 1, 3, "abc") }
	at := len(good().b)
	cut := func(n int) []byte { b := good().enhanced(0, 2, 3, "def").b; return b[:len(b)-n] }
	put := func(at int, v uint32) []byte {
		b := good().b
		binary.BigEndian.PutUint32(b[at:], v)
		return b
	}
	many := (&blocks{o: binary.BigEndian}).section()
	for range mostIfaces + 1 {
		many.iface(1, 0)
	}
	option := func(fields ...any) []byte { return (&blocks{o: binary.BigEndian}).section().iface(1, 0, fields...).b }
	for _, tt := range []struct {
		name    string
		in      []byte
		packets int
		want    string
	}{
		{"half a head", cut(33), 1, fmt.Sprintf("offset %d: the input ends inside a block, after 3 bytes of it", at)},
		{"half a packet's head", cut(16), 1, fmt.Sprintf("offset %d: the input ends inside a packet, after 20 bytes of it", at)},
		{"half a packet", cut(7), 1, fmt.Sprintf("offset %d: the input ends inside a packet, after 29 bytes of it", at)},
		{"no length at the end", cut(2), 2, fmt.Sprintf("offset %d: the input ends inside a block of 36 bytes, after 34 bytes of it", at)},
		{"another length at the end", put(at-4, 32), 1, "offset 48: a block of 36 bytes that says 32 at its end"},
		{"a length of nothing", put(52, 8), 0, "offset 48: a block of 8 bytes"},
		{"an odd length", put(52, 37), 0, "offset 48: a block of 37 bytes"},
		{"a large length", put(52, mostBlock+4), 0, "offset 48: a block of 16777220 bytes, want a multiple of 4 of at most 16777216"},
		{"half a header", good().b[:11], 0, "offset 0: the input ends inside a block, after 11 bytes of it"},
		{"no byte order", put(8, 0), 0, "offset 0: a block of 469762048 bytes"},
		{"half a byte order", append([]byte{10, 13, 13, 10, 28, 0, 0, 0, 9, 9, 9, 9}, make([]byte, 16)...), 0, "offset 0: an invalid section header: 0a"},
		{"a short section header", (&blocks{o: binary.BigEndian}).block(blockSection, byteOrder, uint16(1), uint16(0)).b, 0, "offset 0: an invalid section header"},
		{"version 2", put(12, 2<<16), 0, "offset 0: a capture of pcapng version 2, want 1"},
		{"a short interface", (&blocks{o: binary.BigEndian}).section().block(blockInterface, 1).b, 0, "offset 28: an interface description of 16 bytes"},
		{"a long interface", option(strings.Repeat("x", MaxPacket)), 0, "offset 28: an interface description of 1048596 bytes"},
		{"many interfaces", many.b, 0, fmt.Sprintf("offset %d: an interface description of 20 bytes, number 65537 of the section", len(many.b)-20)},
		{"half an option", option(uint16(9), uint16(5), "123"), 0, "offset 28: an option of 5 bytes in an interface description, and 4 bytes are left"},
		{"resolution", option(uint16(9), uint16(1), resolution(20)), 0, "offset 28: invalid option 9 in an interface description: 14"},
		{"binary resolution", option(uint16(9), uint16(1), resolution(0x80|64)), 0, "offset 28: invalid option 9 in an interface description: c0"},
		{"no resolution", option(uint16(9), uint16(0)), 0, "offset 28: invalid option 9"},
		{"offset", option(uint16(14), uint16(4), "1234"), 0, "offset 28: invalid option 14 in an interface description: 31 32 33 34"},
		{"check sequence", option(uint16(13), uint16(4), "1234"), 0, "offset 28: invalid option 13"},
	} {
		got, err := all(bytes.NewReader(tt.in))
		var damage *frame.FormatError
		if len(got) != tt.packets || err == nil || !strings.HasPrefix(err.Error(), tt.want) || !errors.As(err, &damage) {
			t.Errorf("%s: %d packets, %v; want %d, %s", tt.name, len(got), err, tt.packets, tt.want)
		}
		if strings.Contains(tt.want, "the input ends") != errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	failed := errors.New("failed")
	for _, n := range []int{30, at - 10, at - 2} { // in a description, in a packet, behind it
		if _, err := all(io.MultiReader(bytes.NewReader(good().b[:n]), iotest.ErrReader(failed))); !errors.Is(err, failed) {
			t.Errorf("the source's own: %v", err)
		}
	}
	if _, err := NewReader(bytes.NewReader((&blocks{o: binary.BigEndian}).section().b)).Header(); err != io.EOF {
		t.Errorf("a file without interfaces: %v", err)
	}
}

// Blocks that are skipped need no memory, and a packet of the largest size is read.
func TestNGLargest(t *testing.T) {
	n := (&blocks{o: binary.BigEndian}).section().iface(1, 0)
	n.block(0xbad, string(make([]byte, mostBlock-12)))
	n.enhanced(0, 1, MaxPacket, string(make([]byte, MaxPacket)), uint16(1), uint16(60000), string(make([]byte, 60000)))
	n.enhanced(0, 1, 1, "x")
	got, err := all(bytes.NewReader(n.b))
	if err != nil || len(got) != 2 || len(got[0].Data) != MaxPacket || string(got[1].Data) != "x" {
		t.Errorf("%d packets, %v", len(got), err)
	}
}

// Times agree with exact arithmetic, whatever the resolution and the offset.
func TestNGTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Byte().Draw(t, "resolution")
		offset := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-1e6, 2e9)).Draw(t, "offset")
		var i iface
		units := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(v)), nil)
		if v > 127 {
			units.Lsh(big.NewInt(1), uint(v&127))
		}
		if ok := i.option(optionResolution, []byte{v}, nil); ok != units.IsUint64() {
			t.Fatalf("units of %v in a second: %v", units, ok)
		} else if !ok {
			return
		}
		ticks := rapid.Uint64().Draw(t, "time")
		var epoch [8]byte
		binary.BigEndian.PutUint64(epoch[:], uint64(offset))
		i.option(optionOffset, epoch[:], binary.BigEndian)
		got, ok := i.time(ticks)
		want := new(big.Int).Mul(new(big.Int).SetUint64(ticks), big.NewInt(1e9))
		want.Div(want, units)
		fits := want.IsUint64()
		want.Add(want, new(big.Int).Mul(big.NewInt(offset), big.NewInt(1e9)))
		if fits = fits && want.IsUint64(); ok != fits || ok && got != want.Uint64() || !ok && got != 0 && got != math.MaxUint64 {
			t.Fatalf("%d of 1/%v s and %d s: %d, %v; want %v", ticks, units, offset, got, ok, want)
		}
	})
}

// Whatever a file is, reading it ends, and its packets are those that a classic file can have.
func FuzzNG(f *testing.F) {
	for _, o := range orders {
		n := (&blocks{o: o}).section().iface(LinkEthernet, 0).iface(LinkSLL, 5, uint16(9), uint16(1), resolution(9))
		n.enhanced(0, 1700000000_123456, 1500, "abc").block(blockSimple, 7, "ghijklm")
		f.Add(n.block(blockObsolete, uint16(1), uint16(9), 0, 1, 2, 2, "no").section().iface(1, 0).block(0xbad, "x").b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 4 || binary.LittleEndian.Uint32(in) != blockSection {
			in = append([]byte{10, 13, 13, 10}, in...)
		}
		r := NewReader(iotest.HalfReader(bytes.NewReader(in)))
		packets, err := rest(r)
		again, err2 := all(bytes.NewReader(in))
		if fmt.Sprint(err) != fmt.Sprint(err2) || fmt.Sprint(packets) != fmt.Sprint(again) {
			t.Fatalf("%d packets and %v, and in other pieces %d and %v", len(packets), err, len(again), err2)
		}
		var damage *frame.FormatError
		if err != nil && (!errors.As(err, &damage) || damage.Offset > int64(len(in))) {
			t.Fatalf("%v, in %d bytes", err, len(in))
		}
		if r.packets > uint64(len(in)/leastBlock) || r.Odd > r.packets || uint64(len(packets)) < r.packets-r.Odd && err == nil || (r.Odd > 0) != (r.FirstFault != "") {
			t.Fatalf("%d packets of %d, %d are odd, in %d bytes", len(packets), r.packets, r.Odd, len(in))
		}
		b := AppendHeader(nil, LinkRaw)
		for _, p := range packets {
			b = AppendPacket(b, p.Time, p.Length, p.Data)
		}
		back, err := all(bytes.NewReader(b))
		if err != nil || len(back) != len(packets) {
			t.Fatalf("%d packets of %d, %v", len(back), len(packets), err)
		}
		for i, p := range packets {
			if back[i].Time != min(p.Time, latest) || back[i].Length != p.Length || !bytes.Equal(back[i].Data, p.Data[:min(len(p.Data), Snaplen)]) {
				t.Fatalf("packet %d: %+v, was %+v", i, back[i], p)
			}
		}
	})
}
