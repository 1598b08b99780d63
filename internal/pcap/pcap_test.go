package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"framepipe/frame"
)

// file writes a capture plainly, in any of its forms.
func file(order binary.ByteOrder, nano bool, packets ...Packet) []byte {
	magic, unit := uint32(magicMicro), uint64(1000)
	if nano {
		magic, unit = magicNano, 1
	}
	var b bytes.Buffer
	_ = binary.Write(&b, order, struct {
		Magic         uint32
		Major, Minor  uint16
		Zone, Figures uint32
		Snap, Link    uint32
	}{magic, 2, 4, 0, 0, 65535, LinkEthernet})
	for _, p := range packets {
		_ = binary.Write(&b, order, [4]uint32{uint32(p.Time / 1e9), uint32(p.Time % 1e9 / unit), uint32(len(p.Data)), p.Length})
		b.Write(p.Data)
	}
	return b.Bytes()
}

func all(src io.Reader) (packets []Packet, err error) { return rest(NewReader(src)) }

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
	{Time: 1700000000_123456000, Length: 3, Data: []byte("abc")},
	{Time: 1700000001_000000000, Length: 1500, Data: []byte("cut")},
	{Time: 4294967295_999999000, Length: 0, Data: []byte{}},
	{Time: 0, Length: 300000, Data: bytes.Repeat([]byte("x"), 300000)},
	{Time: 1, Length: 1, Data: []byte("y")}, // of which microseconds keep nothing
}

func TestReader(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, nano := range []bool{false, true} {
			f := file(order, nano, some...)
			for name, src := range map[string]io.Reader{
				"at once":           bytes.NewReader(f),
				"a few bytes each":  iotest.HalfReader(bytes.NewReader(f)),
				"the end with data": iotest.DataErrReader(bytes.NewReader(f)),
			} {
				got, err := all(src)
				if err != nil || len(got) != len(some) {
					t.Fatalf("%v, nano %v, %s: %d packets, %v", order, nano, name, len(got), err)
				}
				for i, want := range some {
					if !nano {
						want.Time -= want.Time % 1000
					}
					if got[i].Time != want.Time || got[i].Length != want.Length || !bytes.Equal(got[i].Data, want.Data) {
						t.Errorf("%v, nano %v, %s, packet %d: time %d, length %d, %d bytes", order, nano, name, i, got[i].Time, got[i].Length, len(got[i].Data))
					}
				}
			}
		}
	}
}

// What came whole before the damage is delivered, and the error says where it is.
func TestDamage(t *testing.T) {
	good := file(binary.LittleEndian, true, some[0], some[1])
	const second = HeaderSize + RecordSize + 3
	put := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for _, tt := range []struct {
		name    string
		in      []byte
		packets int
		want    string
	}{
		{"nothing", nil, 0, "offset 0: the input ends inside the file's header, after 0 bytes of it"},
		{"half a header", good[:20], 0, "offset 0: the input ends inside the file's header, after 20 bytes of it"},
		{"text", []byte("hello, world"), 0, "offset 0: not a capture: it begins with 68 65 6c 6c"},
		{"version", put(4, 1), 0, "offset 0: a capture of version 1.0, want 2.4"},
		{"version 2.2", put(4, 2|2<<16), 0, "offset 0: a capture of version 2.2, want 2.4"},
		{"half a packet header", good[:second+7], 1, fmt.Sprintf("offset %d: the input ends inside a packet, after 7 bytes of it", second)},
		{"half a packet", good[:len(good)-1], 1, fmt.Sprintf("offset %d: the input ends inside a packet, after 18 bytes of it", second)},
		{"a length", put(second+8, MaxPacket+1), 1, fmt.Sprintf("offset %d: a packet of 1048577 bytes, the most is 1048576", second)},
	} {
		got, err := all(bytes.NewReader(tt.in))
		var damage *frame.FormatError
		if len(got) != tt.packets || err == nil || !strings.HasPrefix(err.Error(), tt.want) || !errors.As(err, &damage) {
			t.Errorf("%s: %d packets, %v; want %d, %s", tt.name, len(got), err, tt.packets, tt.want)
		}
	}
	failed := errors.New("failed")
	if _, err := all(io.MultiReader(bytes.NewReader(good[:30]), iotest.ErrReader(failed))); !errors.Is(err, failed) {
		t.Errorf("the source's own: %v", err)
	}
}

// A length at the limit is taken, and memory stays bounded by it.
func TestLargest(t *testing.T) {
	big := Packet{Time: 5, Length: MaxPacket, Data: make([]byte, MaxPacket)}
	got, err := all(bytes.NewReader(file(binary.BigEndian, true, big, big)))
	if err != nil || len(got) != 2 || len(got[1].Data) != MaxPacket {
		t.Errorf("%d packets, %v", len(got), err)
	}
}

func TestAppend(t *testing.T) {
	b := AppendHeader(nil, LinkRaw)
	b = AppendPacket(b, 1700000000_123456789, 9, []byte("abc"), []byte("de"))
	b = AppendPacket(b, 1<<63, Snaplen+1, make([]byte, Snaplen), []byte("z"))
	if link, err := NewReader(bytes.NewReader(b)).Header(); link != LinkRaw || err != nil {
		t.Errorf("link %d, %v", link, err)
	}
	got, err := all(bytes.NewReader(b))
	if err != nil || len(got) != 2 || binary.LittleEndian.Uint32(b[16:]) != Snaplen {
		t.Fatalf("%d packets, %v", len(got), err)
	}
	if p := got[0]; p.Time != 1700000000_123456789 || p.Length != 9 || string(p.Data) != "abcde" {
		t.Errorf("%+v", p)
	}
	if p := got[1]; p.Time != 4294967295_999999999 || p.Length != Snaplen+1 || len(p.Data) != Snaplen {
		t.Errorf("time %d, length %d, %d bytes", p.Time, p.Length, len(p.Data))
	}
}

// latest is the last time that a classic file can have.
const latest = 4294967295_999999999

// plain reads a file once more, the plain way, and returns where it is damaged, -1 if it
// is not.
func plain(in []byte) (packets []Packet, damaged int) {
	if len(in) < HeaderSize {
		return nil, 0
	}
	var o binary.ByteOrder = binary.LittleEndian
	magic := o.Uint32(in)
	if in[0] == 0xa1 {
		o = binary.BigEndian
		magic = o.Uint32(in)
	}
	unit := map[uint32]uint64{0xa1b2c3d4: 1000, 0xa1b23c4d: 1, 0xa1b2cd34: 1000}[magic]
	head := RecordSize
	if magic == 0xa1b2cd34 {
		head = 24
	}
	if unit == 0 || o.Uint16(in[4:]) != 2 || o.Uint16(in[6:]) < 3 {
		return nil, 0
	}
	at := HeaderSize
	for at < len(in) {
		if len(in) < at+head {
			return packets, at
		}
		fraction, size := o.Uint32(in[at+4:]), int64(o.Uint32(in[at+8:]))
		if size > MaxPacket || int64(len(in)) < int64(at+head)+size {
			return packets, at
		}
		end := at + head + int(size)
		p := Packet{Time: uint64(o.Uint32(in[at:]))*1e9 + uint64(fraction)*unit, Length: o.Uint32(in[at+12:]), Data: in[at+head : end]}
		if fcs := o.Uint32(in[20:]) >> 28 * 2; fcs > 0 && o.Uint32(in[20:])>>26&1 == 1 {
			p.Length = uint32(max(0, int64(p.Length)-int64(fcs)))
			p.Data = p.Data[:min(len(p.Data), int(p.Length))]
		}
		packets = append(packets, p)
		at = end
	}
	return packets, -1
}

// Whatever a file is, reading it ends, with what a plain reader finds, and what was read
// can be written and read again.
func FuzzReader(f *testing.F) {
	f.Add(file(binary.LittleEndian, true, some[0], some[1], some[2]))
	f.Add(file(binary.BigEndian, false, some[0], some[1], some[2]))
	fcs := file(binary.LittleEndian, true, some[0], some[1], some[2])
	fcs[23] = 0x24 // two times two bytes
	f.Add(fcs)
	silent := bytes.Clone(fcs)
	silent[23] = 0x20 // a length, of which nothing says that it is one
	f.Add(silent)
	modified := file(binary.BigEndian, false, Packet{Length: 2, Data: []byte{7, 7}}, some[0])
	copy(modified[2:], "\xcd\x34")
	f.Add(modified)
	f.Add(append(file(binary.LittleEndian, false, some[0]), 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) >= 4 && binary.LittleEndian.Uint32(in) == blockSection {
			return // FuzzNG's
		}
		packets, err := all(iotest.HalfReader(bytes.NewReader(in)))
		if _, again := all(bytes.NewReader(in)); fmt.Sprint(again) != fmt.Sprint(err) {
			t.Fatalf("%v, and in other pieces %v", err, again)
		}
		want, damaged := plain(in)
		var damage *frame.FormatError
		switch {
		case len(packets) != len(want) || (err == nil) != (damaged < 0):
			t.Fatalf("%d packets and %v, want %d and damage at %d", len(packets), err, len(want), damaged)
		case errors.As(err, &damage) && damage.Offset != int64(damaged):
			t.Fatalf("%v, want damage at %d", err, damaged)
		}
		for i, p := range packets {
			if w := want[i]; p.Time != w.Time || p.Length != w.Length || !bytes.Equal(p.Data, w.Data) {
				t.Fatalf("packet %d: %+v, want %+v", i, p, w)
			}
		}
		b := AppendHeader(nil, LinkRaw)
		for _, p := range packets {
			b = AppendPacket(b, p.Time, p.Length, p.Data)
		}
		got, err := all(bytes.NewReader(b))
		if err != nil || len(got) != len(packets) {
			t.Fatalf("%d packets of %d, %v", len(got), len(packets), err)
		}
		for i, p := range packets {
			want := p.Data[:min(len(p.Data), Snaplen)]
			if got[i].Time != min(p.Time, latest) || got[i].Length != p.Length || !bytes.Equal(got[i].Data, want) {
				t.Fatalf("packet %d: %+v, was %+v", i, got[i], p)
			}
		}
	})
}
