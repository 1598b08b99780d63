package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"framepipe/internal/packet"

	"pgregory.net/rapid"
)

// plainSum is the loop of RFC 1071, for comparison.
func plainSum(b []byte) uint16 {
	sum := uint32(0)
	for i := range b {
		if i%2 == 0 {
			sum += uint32(b[i]) << 8
		} else {
			sum += uint32(b[i])
		}
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

func TestSum(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "b")
		if rapid.Bool().Draw(rt, "ones") {
			for i := range b {
				b[i] |= 0xfe
			}
		}
		got, want := Fold(Sum(b, 0)), plainSum(b)
		if got != want && (got%0xffff != 0 || want%0xffff != 0 || len(b) == 0) { // 0 and ffff are both nothing
			rt.Fatalf("sum of %d bytes %04x, want %04x", len(b), got, want)
		}
		// In two parts, the first of which is even.
		if cut := rapid.IntRange(0, len(b)/2).Draw(rt, "cut") * 2; Fold(Sum(b[cut:], Sum(b[:cut], 0)))%0xffff != want%0xffff {
			rt.Fatalf("in two parts another sum")
		}
	})
}

// super is a super-frame as it is described.
type super struct {
	link    packet.Link
	tags    int
	v6      bool
	ext     int // IPv6 extension header of so many times 8 bytes
	options int // IPv4 options, or TCP options where there is TCP, in words
	udp     bool
	flags   byte
	id      uint16
	seq     uint32
	gso     int
	payload []byte
}

func (s super) build() (Header, []byte) {
	var f []byte
	be := binary.BigEndian
	if s.link == packet.Ethernet {
		f = append(f, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1)
		for i := range s.tags {
			f = append(f, 0x81, 0, 0, byte(i))
		}
		if s.v6 {
			f = append(f, 0x86, 0xdd)
		} else {
			f = append(f, 0x08, 0x00)
		}
	}
	l4len, proto := 8, byte(packet.UDP)
	if !s.udp {
		l4len, proto = 20+4*s.options, packet.TCP
	}
	l3 := len(f)
	if s.v6 {
		next := proto
		if s.ext > 0 {
			next = 60
		}
		f = append(f, 0x60, 0, 0, 0, 0, 0, next, 64)
		be.PutUint16(f[l3+4:], uint16(8*s.ext+l4len+len(s.payload)))
		for i := range 32 {
			f = append(f, byte(0xfd+i))
		}
		if s.ext > 0 {
			ext := make([]byte, 8*s.ext)
			ext[0], ext[1] = proto, byte(s.ext-1)
			f = append(f, ext...)
		}
	} else {
		words := 5
		if s.udp {
			words += s.options
		}
		f = append(f, 0x40|byte(words), 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
		f = append(f, bytes.Repeat([]byte{1}, 4*words-20)...)
		be.PutUint16(f[l3+2:], uint16(4*words+l4len+len(s.payload)))
		be.PutUint16(f[l3+4:], s.id)
		be.PutUint16(f[l3+10:], ^plainSum(f[l3:]))
	}
	l4 := len(f)
	h := Header{Flags: NeedsCsum, GSOSize: uint16(s.gso), CsumStart: uint16(l4)}
	if s.udp {
		f = append(f, 0x10, 0, 0x20, 0, 0, 0, 0, 0)
		be.PutUint16(f[l4+4:], uint16(8+len(s.payload)))
		h.GSOType, h.CsumOffset = UDPL4, 6
	} else {
		f = append(f, 0x10, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 7, byte(5+s.options)<<4, s.flags, 1, 0, 0, 0, 0, 0)
		f = append(f, bytes.Repeat([]byte{1}, 4*s.options)...)
		be.PutUint32(f[l4+4:], s.seq)
		h.GSOType, h.CsumOffset = TCPv4, 16
		if s.v6 {
			h.GSOType = TCPv6
		}
		if s.flags&flagCWR != 0 {
			h.GSOType |= ECN
		}
	}
	h.HdrLen = uint16(len(f))
	return h, append(f, s.payload...)
}

// verify checks a frame as its receiver would: lengths and checksums.
func verify(t interface{ Fatalf(string, ...any) }, f []byte, link packet.Link) packet.Layers {
	l := packet.Dissect(f, link)
	if l.Version == 0 || l.End != len(f) {
		t.Fatalf("the IP packet ends at %d of %d: %+v", l.End, len(f), l)
	}
	var pseudo []byte
	if l.Version == 4 {
		if plainSum(f[l.L3:l.L4]) != 0xffff {
			t.Fatalf("bad sum of the IPv4 header")
		}
		pseudo = append(pseudo, f[l.L3+12:l.L3+20]...)
	} else {
		pseudo = append(pseudo, f[l.L3+8:l.L3+40]...)
	}
	pseudo = binary.BigEndian.AppendUint32(append(pseudo, 0, l.Proto), uint32(len(f)-l.L4))
	if plainSum(append(pseudo, f[l.L4:]...)) != 0xffff {
		t.Fatalf("bad sum of %d bytes of protocol %d", len(f)-l.L4, l.Proto)
	}
	return l
}

func segment(t interface{ Fatalf(string, ...any) }, h Header, f []byte, link packet.Link) (all [][]byte) {
	s := Segmenter{Headroom: 3}
	if err := s.Start(h, f, link); err != nil {
		t.Fatalf("%v: %+v", err, h)
	}
	for {
		b := s.Next()
		if b == nil {
			return all
		}
		all = append(all, bytes.Clone(b[3:]))
	}
}

// Whatever is cut, the segments are good packets, and what a receiver makes of
// them is what was sent.
func TestSegments(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := super{
			link:    rapid.SampledFrom([]packet.Link{packet.Ethernet, packet.IP}).Draw(rt, "link"),
			v6:      rapid.Bool().Draw(rt, "v6"),
			udp:     rapid.Bool().Draw(rt, "udp"),
			options: rapid.IntRange(0, 10).Draw(rt, "options"),
			id:      rapid.Uint16().Draw(rt, "id"),
			seq:     rapid.Uint32().Draw(rt, "seq"),
			gso:     rapid.IntRange(8, 2000).Draw(rt, "gso"),
		}
		if s.link == packet.Ethernet {
			s.tags = rapid.IntRange(0, 3).Draw(rt, "tags")
		}
		if s.v6 {
			s.ext = rapid.IntRange(0, 4).Draw(rt, "ext")
		}
		if !s.udp {
			s.flags = rapid.Byte().Draw(rt, "flags")
		}
		s.payload = make([]byte, rapid.IntRange(0, 9000).Draw(rt, "length"))
		rng := rand.New(rand.NewPCG(1, uint64(len(s.payload))))
		for i := range s.payload {
			s.payload[i] = byte(rng.Uint32())
		}
		h, f := s.build()
		before := bytes.Clone(f)
		all := segment(rt, h, f, s.link)
		if !bytes.Equal(f, before) {
			rt.Fatalf("the frame was changed")
		}
		n, head, last, err := Measure(h, f[:min(len(f), int(h.HdrLen))], len(f), s.link)
		if err != nil || n != len(all) || head != int(h.HdrLen) || last != len(all[len(all)-1]) {
			rt.Fatalf("Measure: %d frames with %d in front, %d in the last, %v; there are %d", n, head, last, err, len(all))
		}
		var payload []byte
		for i, b := range all {
			l := verify(rt, b, s.link)
			if i < n-1 && len(b) != head+s.gso {
				rt.Fatalf("segment %d has %d bytes", i, len(b))
			}
			if l.Version == 4 {
				if id := binary.BigEndian.Uint16(b[l.L3+4:]); id != s.id+uint16(i) {
					rt.Fatalf("segment %d: id %d, began with %d", i, id, s.id)
				}
			}
			if s.udp {
				if size := binary.BigEndian.Uint16(b[l.L4+4:]); int(size) != len(b)-l.L4 {
					rt.Fatalf("segment %d: UDP length %d of %d", i, size, len(b)-l.L4)
				}
			} else {
				if seq := binary.BigEndian.Uint32(b[l.L4+4:]); seq != s.seq+uint32(i*s.gso) {
					rt.Fatalf("segment %d: sequence %d", i, seq-s.seq)
				}
				want := s.flags
				if i > 0 {
					want &^= flagCWR
				}
				if i < n-1 {
					want &^= flagFIN | flagPSH
				}
				if b[l.L4+13] != want {
					rt.Fatalf("segment %d of %d: flags %02x of %02x", i, n, b[l.L4+13], s.flags)
				}
			}
			payload = append(payload, b[head:]...)
		}
		if !bytes.Equal(payload, s.payload) {
			rt.Fatalf("another payload came out")
		}
	})
}

// A frame of which only the checksum is missing.
func TestChecksum(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := super{v6: rapid.Bool().Draw(rt, "v6"), udp: rapid.Bool().Draw(rt, "udp"), gso: 1000,
			payload: rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "payload")}
		h, f := s.build()
		h.GSOType, h.GSOSize = 0, 0
		l := packet.Dissect(f, packet.Ethernet)
		at := int(h.CsumStart) + int(h.CsumOffset)
		// What the sender leaves there: the sum of the pseudo-header.
		pseudo := uint64(l.Proto) + uint64(len(f)-l.L4)
		if s.v6 {
			pseudo = Sum(f[l.L3+8:l.L3+40], pseudo)
		} else {
			pseudo = Sum(f[l.L3+12:l.L3+20], pseudo)
		}
		binary.BigEndian.PutUint16(f[at:], Fold(pseudo))
		all := segment(rt, h, f, packet.Ethernet)
		if len(all) != 1 {
			rt.Fatalf("%d frames", len(all))
		}
		verify(rt, all[0], packet.Ethernet)
		if sum := binary.BigEndian.Uint16(all[0][at:]); sum == 0 {
			rt.Fatalf("a checksum of 0")
		}
	})
}

// Nothing to be done is done.
func TestNothing(t *testing.T) {
	f := []byte("not even a packet")
	if all := segment(t, Header{}, f, packet.Ethernet); len(all) != 1 || !bytes.Equal(all[0], f) {
		t.Errorf("%q", all)
	}
	if Needed(make([]byte, HeaderSize)) || !Needed([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0}) || !Needed([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 0}) {
		t.Error("Needed")
	}
}

func TestParse(t *testing.T) {
	b := []byte{1, 0x81, 0x36, 0, 0xa8, 5, 0x22, 0, 0x10, 0}
	h, err := Parse(b)
	if want := (Header{1, TCPv4 | ECN, 54, 1448, 34, 16}); h != want || err != nil || !h.Super() {
		t.Errorf("%+v, %v", h, err)
	}
	again := make([]byte, HeaderSize)
	if h.Put(again); !bytes.Equal(again, b) {
		t.Errorf("% x", again)
	}
	for _, b := range [][]byte{nil, make([]byte, 9), make([]byte, 12)} {
		if _, err := Parse(b); err == nil {
			t.Errorf("%d bytes are taken for a header", len(b))
		}
	}
}

// A header that does not fit its frame is refused, and says what is wrong.
func TestLies(t *testing.T) {
	base := super{gso: 1000, payload: make([]byte, 3000)}
	change := func(f func(s *super)) super { s := base; f(&s); return s }
	for _, tt := range []struct {
		name string
		s    super
		lie  func(h *Header, f *[]byte)
		want string
	}{
		{"type", base, func(h *Header, _ *[]byte) { h.GSOType = 9 }, "type 9"},
		{"UFO", change(func(s *super) { s.udp = true }), func(h *Header, _ *[]byte) { h.GSOType = UFO }, "type 3"},
		{"UDP with ECN", change(func(s *super) { s.udp = true }), func(h *Header, _ *[]byte) { h.GSOType |= ECN }, "not known"},
		{"version", base, func(h *Header, _ *[]byte) { h.GSOType = TCPv6 }, "IP version 4"},
		{"protocol", base, func(h *Header, _ *[]byte) { h.GSOType = UDPL4 }, "protocol 6"},
		{"no IP", base, func(_ *Header, f *[]byte) { (*f)[12] = 0x70 }, "IP version 0"},
		{"fragment", base, func(_ *Header, f *[]byte) { (*f)[14+6] = 0x20 }, "fragment"},
		{"segments of nothing", base, func(h *Header, _ *[]byte) { h.GSOSize = 0 }, "segments of 0 bytes"},
		{"segments of next to nothing", base, func(h *Header, _ *[]byte) { h.GSOSize = 7 }, "segments of 7 bytes"},
		{"segments that no length can hold", base, func(h *Header, _ *[]byte) { h.GSOSize = 65500 }, "segments of 65500"},
		{"datagrams of nothing", change(func(s *super) { s.udp = true }), func(h *Header, _ *[]byte) { h.GSOSize = 0 }, "segments of 0 bytes"},
		{"sum elsewhere", base, func(h *Header, _ *[]byte) { h.CsumStart++ }, "checksum at 35+16, want 34+16"},
		{"sum at another offset", base, func(h *Header, _ *[]byte) { h.CsumOffset = 6 }, "checksum at 34+6"},
		{"TCP header too short", base, func(_ *Header, f *[]byte) { (*f)[14+20+12] = 0x40 }, "TCP header of 16"},
		{"TCP header too long", base, func(_ *Header, f *[]byte) { (*f)[14+20+12] = 0xf0; *f = (*f)[:14+20+30] }, "TCP header of 60"},
		{"TCP header cut", base, func(_ *Header, f *[]byte) { *f = (*f)[:14+20+19] }, "without a whole TCP header"},
		{"UDP header cut", change(func(s *super) { s.udp = true }), func(_ *Header, f *[]byte) { *f = (*f)[:14+20+7] }, "without a whole UDP header"},
		{"nothing at all", base, func(_ *Header, f *[]byte) { *f = nil }, "IP version 0"},
		{"checksum outside", base, func(h *Header, _ *[]byte) { h.GSOType = 0; h.CsumStart = 60000; h.CsumOffset = 60000 }, "checksum at 60000+60000"},
		{"checksum at the edge", base, func(h *Header, f *[]byte) { h.GSOType = 0; h.CsumStart = uint16(len(*f) - 1); h.CsumOffset = 0 }, "checksum at"},
	} {
		h, f := tt.s.build()
		tt.lie(&h, &f)
		var s Segmenter
		err := s.Start(h, f, packet.Ethernet)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if s.Next() != nil {
			t.Errorf("%s: and yet there is a segment", tt.name)
		}
	}
}

// FuzzSegment: whatever header and frame, no panic; what is accepted keeps its
// payload, and gives good packets where it was cut.
func FuzzSegment(f *testing.F) {
	for _, s := range []super{
		{gso: 100, payload: make([]byte, 350)},
		{gso: 100, payload: make([]byte, 350), v6: true, ext: 2},
		{gso: 1, payload: make([]byte, 35), udp: true, tags: 2},
		{gso: 1400, payload: make([]byte, 10), udp: true, v6: true, link: packet.IP},
	} {
		h, b := s.build()
		var hdr [HeaderSize]byte
		h.Put(hdr[:])
		f.Add(hdr[:], b, uint8(s.link))
	}
	f.Fuzz(func(t *testing.T, hdr, b []byte, link uint8) {
		h, err := Parse(hdr)
		if err != nil || len(b) > 1<<16 {
			return
		}
		lk := packet.Link(link % 2)
		n, head, last, merr := Measure(h, b, len(b), lk)
		var s Segmenter
		err = s.Start(h, b, lk)
		if h.Super() && (err == nil) != (merr == nil) {
			t.Fatalf("Start says %v, Measure %v", err, merr)
		}
		if err != nil {
			return
		}
		count, total := 0, 0
		for g := s.Next(); g != nil; g = s.Next() {
			count++
			if !h.Super() {
				if len(g) != len(b) {
					t.Fatalf("%d bytes became %d", len(b), len(g))
				}
				continue
			}
			total += len(g) - head
			verify(t, g, lk)
			if count == n && len(g) != last {
				t.Fatalf("the last has %d bytes, Measure says %d", len(g), last)
			}
		}
		if h.Super() && (count != n || total != len(b)-head) {
			t.Fatalf("%d segments with %d bytes, want %d with %d", count, total, n, len(b)-head)
		}
	})
}

// Nothing is allocated for a frame.
func TestSegmentAllocates(t *testing.T) {
	h, f := super{gso: 1448, payload: make([]byte, 60000)}.build()
	s := Segmenter{Headroom: 16}
	if n := testing.AllocsPerRun(100, func() {
		if err := s.Start(h, f, packet.Ethernet); err != nil {
			t.Fatal(err)
		}
		for s.Next() != nil {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSegment(b *testing.B) {
	h, f := super{gso: 1448, payload: make([]byte, 60000)}.build()
	var s Segmenter
	b.SetBytes(int64(len(f)))
	for b.Loop() {
		if err := s.Start(h, f, packet.Ethernet); err != nil {
			b.Fatal(err)
		}
		for s.Next() != nil {
		}
	}
}

func BenchmarkSum(b *testing.B) {
	f := make([]byte, 1448)
	b.SetBytes(int64(len(f)))
	for b.Loop() {
		sink = Sum(f, sink)
	}
}

var sink uint64
