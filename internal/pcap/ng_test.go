package pcap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"

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
			body = append(body, make([]byte, -len(body)&3)...)
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
	fields := []any{iface, int(time >> 32), int(uint32(time)), len(data), length, data}
	return n.block(blockEnhanced, append(fields, options...)...)
}

// orders are the byte orders.
var orders = []interface {
	binary.ByteOrder
	binary.AppendByteOrder
}{binary.LittleEndian, binary.BigEndian}

// Packets of all kinds, interfaces and sections, in both byte orders.
func TestNG(t *testing.T) {
	for i, o := range orders {
		n := &blocks{o: o}
		n.section(uint16(4), uint16(5), "test!", uint16(0), uint16(0))
		n.block(0xbad, "a name, or a secret")
		n.iface(LinkEthernet, 0)
		n.iface(LinkSLL, 5, uint16(2), uint16(4), "eth0", uint16(9), uint16(1), "\x09",
			uint16(14), uint16(8), uint64(1700000000), uint16(0), uint16(0))
		n.enhanced(0, 1700000000_123456, 1500, "abc", uint16(1), uint16(7), "comment", uint16(0), uint16(0))
		n.enhanced(1, 987654321, 3, "def")
		n.block(blockSimple, 7, "ghijklm")
		n.block(5, 0, 0, 0, "statistics")
		n.block(blockObsolete, uint16(1), uint16(9), 0, 1, 2, 2, "no")
		n.o = orders[1-i]
		n.section()
		n.iface(LinkRaw, 4, uint16(9), uint16(1), "\x8a", uint16(13), uint16(1), "\x02")
		n.enhanced(0, 5<<10|1, 9, "pqr")
		n.block(blockSimple, 9, "stuv")
		delivers(t, n.b, []Packet{
			{1700000000_123456000, 1500, []byte("abc"), LinkEthernet},
			{1700000000_987654321, 3, []byte("def"), LinkSLL},
			{1700000000_987654321, 7, []byte("ghijklm"), LinkEthernet},
			{1700000000_000000001, 2, []byte("no"), LinkSLL},
			{5_000976562, 7, []byte("pqr"), LinkRaw},
			{5_000976562, 7, []byte("stuv"), LinkRaw},
		})
	}
}

// A packet with a field out of range does not end the file. It is left out if there is no other
// way.
func TestOdd(t *testing.T) {
	le := binary.LittleEndian
	classic := func(magic uint32, at int, v uint32) []byte {
		return put(le, file(le, magic, some[0], some[1], some[1]), at, v)
	}
	ng := func(do func(n *blocks) *blocks) []byte {
		n := (&blocks{o: le}).section().iface(1, 4).iface(1, 0, uint16(14), uint16(8), uint64(math.MaxUint64))
		return do(n.enhanced(0, 1, 3, "abc")).enhanced(0, 7e6, 3, "xyz").b
	}
	enhanced := func(iface int, time uint64, data string) []byte {
		return ng(func(n *blocks) *blocks { return n.enhanced(iface, time, 3, data) })
	}
	block := func(kind uint32, fields ...any) []byte {
		return ng(func(n *blocks) *blocks { return n.block(kind, fields...) })
	}
	late := (&blocks{o: le}).section().enhanced(0, 1, 3, "abc").iface(1, 0)
	late.enhanced(0, 5e6, 2, "xy").enhanced(0, 7e6, 2, "xy")
	const second = HeaderSize + RecordSize + 3
	for _, tt := range []struct {
		name    string
		in      []byte
		packets int
		time    uint64 // of the second
		want    string
	}{
		{"nanoseconds", classic(magicNano, second+4, 2e9), 3, 1700000003e9, "2: 2000000000 of 1000000000 parts"},
		{"microseconds", classic(magicMicro, second+4, 1e6), 3, 1700000002e9, "2: 1000000 of 1000000 parts"},
		{"snaplen", put(le, classic(magicNano, 16, 2), second+8, 2)[:second+18], 2, 1700000001e9, "1: 3 bytes were captured, and the most is 2"},
		{"snaplen of an interface", enhanced(0, 6e6, "defgh"), 3, 6e9, "2: 5 bytes were captured, and the most is 4"},
		{"unknown interface", enhanced(2, 6e6, "no"), 2, 7e9, "2: interface 2, and the section has 2"},
		{"unknown obsolete interface", block(blockObsolete, uint16(9), uint16(0), 0, 0, 0, 0), 2, 7e9, "2: interface 9"},
		{"more than the block", block(blockEnhanced, 0, 0, 6000000, 5, 5, "abcd"), 2, 7e9, "2: 5 bytes were captured, in a block of 36"},
		{"a block without room", block(blockEnhanced, 0, 0, 6000000, 0), 2, 7e9, "2: a block of 28 bytes"},
		{"before the epoch", enhanced(1, 5, "def"), 3, 0, "2: a time of 5/1000000 s, from -1 s on"},
		{"far future", enhanced(0, math.MaxUint64, "def"), 3, math.MaxUint64, "2: a time of 18446744073709551615/1000000 s"},
		{"two faults", enhanced(0, math.MaxUint64, "defgh"), 3, math.MaxUint64, "2: a time of 18446744073709551615/1000000 s"},
		{"too large a packet", enhanced(0, 6e6, strings.Repeat("x", MaxPacket+1)), 2, 7e9, "2: 1048577 bytes were captured"},
		{"interface after its packet", late.b, 2, 7e9, "1: interface 0, and the section has 0"},
	} {
		r := NewReader(bytes.NewReader(tt.in))
		got, err := rest(r)
		if err != nil || len(got) != tt.packets || got[1].Time != tt.time {
			t.Errorf("%s: %d packets, %v; want %d\n%v", tt.name, len(got), err, tt.packets, got)
		}
		if odd := fmt.Sprintf("%d: %s", r.FirstOdd, r.FirstFault); r.Odd != 1 || !strings.HasPrefix(odd, tt.want) {
			t.Errorf("%s: %d are odd, the first is %s; want %s", tt.name, r.Odd, odd, tt.want)
		}
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
		i.option(optionOffset, binary.BigEndian.AppendUint64(nil, uint64(offset)), binary.BigEndian)
		got, ok := i.time(ticks)
		want := new(big.Int).Mul(new(big.Int).SetUint64(ticks), big.NewInt(1e9))
		want.Div(want, units)
		want.Add(want, new(big.Int).Mul(big.NewInt(offset), big.NewInt(1e9)))
		fits := ticks/i.units < 1<<61 && want.IsUint64() && want.Uint64() < math.MaxUint64/1_000_000_000*1_000_000_000
		if ok != fits || ok && got != want.Uint64() || !ok && got != 0 && got != math.MaxUint64 {
			t.Fatalf("%d of 1/%v s and %d s: %d, %v; want %v", ticks, units, offset, got, ok, want)
		}
	})
}

// Reading ends for any file, and its packets are those that a classic file can have.
func FuzzNG(f *testing.F) {
	for _, o := range orders {
		n := (&blocks{o: o}).section().iface(LinkEthernet, 0).iface(LinkSLL, 5, uint16(9), uint16(1), "\x09")
		n.enhanced(0, 1700000000_123456, 1500, "abc").block(blockSimple, 7, "ghijklm")
		n.block(blockObsolete, uint16(1), uint16(9), 0, 1, 2, 2, "no").enhanced(0, 1<<53, 1, "y") // in 2255
		f.Add(n.section().iface(1, 0).block(0xbad, "x").b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 4 || binary.LittleEndian.Uint32(in) != blockSection {
			in = append([]byte{10, 13, 13, 10}, in...)
		}
		r, packets, err := anyFile(t, in)
		missing := int(r.packets) - len(packets)
		if r.Odd > r.packets || missing > int(r.Odd) && err == nil || (r.Odd > 0) != (r.FirstFault != "") {
			t.Fatalf("%d packets of %d, %d are odd, in %d bytes", len(packets), r.packets, r.Odd, len(in))
		}
	})
}
