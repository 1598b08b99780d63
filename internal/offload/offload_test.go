package offload

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"framepipe/internal/packet"
	"framepipe/internal/packettest"

	"pgregory.net/rapid"
)

func TestSum(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "b")
		if rapid.Bool().Draw(rt, "ones") {
			for i := range b {
				b[i] |= 0xfe
			}
		}
		got, want := Fold(Sum(b, 0)), packettest.Sum(b)
		if got != want && (got%0xffff != 0 || want%0xffff != 0 || len(b) == 0) { // 0 and ffff are both nothing
			rt.Fatalf("sum of %d bytes %04x, want %04x", len(b), got, want)
		}
		// In two parts, the first of which is even.
		if cut := rapid.IntRange(0, len(b)/2).Draw(rt, "cut") * 2; Fold(Sum(b[cut:], Sum(b[:cut], 0)))%0xffff != want%0xffff {
			rt.Fatalf("in two parts another sum")
		}
	})
}

// encapsulations are what may stand between the addresses and a packet of IPv4, and of IPv6.
var encapsulations = [][2]string{
	{"8864110000010000 0021", "8864110000010000 0057"},                   // PPPoE
	{"8864110000010000 21", "8864110000010000 57"},                       // with the protocol compressed
	{"81000007 8864110000010000 0021", "81000007 8864110000010000 0057"}, // in a VLAN
	{"8847 00064040 00065140", "8847 00064040 00065140"},                 // MPLS
	{"8864110000010000 0281 00065140", "8864110000010000 0281 00065140"}, // MPLS in PPPoE
}

// spec is a super-frame: what is in it, and how it is to be cut.
type spec struct {
	packettest.Spec
	gso int
	in  [2]string // of encapsulations, if it is not that of Spec
}

func (s spec) build() (Header, []byte) {
	b, f := s.Super(s.gso)
	h, err := Parse(b)
	if err != nil {
		panic(err)
	}
	if s.in[0] != "" {
		in := s.in[0]
		if s.V6 {
			in = s.in[1]
		}
		between, err := hex.DecodeString(strings.ReplaceAll(in, " ", ""))
		if err != nil {
			panic(err)
		}
		f = slices.Concat(f[:12], between, f[14:])
		h.CsumStart += uint16(len(between) - 2)
		h.HdrLen += uint16(len(between) - 2)
	}
	return h, f
}

func (s spec) link() packet.Link {
	if s.IP {
		return packet.IP
	}
	return packet.Ethernet
}

// cut returns the frames that a frame becomes, and the error of Start. They must be those
// that Measure and OnWire say, hold the payload of the frame, and be good packets.
func cut(t rapid.TB, h Header, f []byte, link packet.Link) (all [][]byte, err error) {
	t.Helper()
	before := bytes.Clone(f)
	n, head, last, merr := Measure(h, f, len(f), link)
	var hdr [HeaderSize]byte
	h.Put(hdr[:])
	frames, wire, werr := OnWire(hdr[:], f[:head], len(f), link)
	s := Segmenter{Headroom: 3}
	err = s.Start(h, f, link)
	if (merr == nil) != (err == nil) || (werr == nil) != (err == nil) {
		t.Fatalf("Start says %v, Measure %v, OnWire %v", err, merr, werr)
	}
	for b := s.Next(); b != nil; b = s.Next() {
		all = append(all, bytes.Clone(b[3:]))
	}
	if err != nil {
		if len(all) > 0 {
			t.Fatalf("%v, and yet there is a segment", err)
		}
		return nil, err
	}
	if len(all) != n || frames != n {
		t.Fatalf("%d segments, Measure says %d, OnWire %d", len(all), n, frames)
	}
	var payload []byte
	for i, g := range all {
		if i < n-1 && len(g) != head+int(h.GSOSize) || i == n-1 && len(g) != last {
			t.Fatalf("segment %d of %d has %d bytes", i, n, len(g))
		}
		payload = append(payload, g[head:]...)
		size := len(g)
		if link == packet.IP {
			size += 14
		}
		wire -= max(size, 60) + 4
		switch {
		case !h.Super():
			finishes(t, h, f, g)
		case i < 3 || i == n-1:
			descends(t, h, f, g, i, n, head, link)
		}
	}
	if wire != 0 {
		t.Fatalf("%d bytes more on the wire than the segments are", wire)
	}
	if !bytes.Equal(f, before) || h.Super() && !bytes.Equal(payload, f[head:]) {
		t.Fatal("another payload came out, or the frame was changed")
	}
	return all, nil
}

// segment is cut for a good header.
func segment(t rapid.TB, h Header, f []byte, link packet.Link) [][]byte {
	t.Helper()
	all, err := cut(t, h, f, link)
	if err != nil {
		t.Fatalf("%v: %+v", err, h)
	}
	return all
}

// finishes checks that nothing but the checksum was written, and that it is right.
func finishes(t rapid.TB, h Header, f, g []byte) {
	want := bytes.Clone(f)
	if h.Flags&NeedsCsum != 0 {
		sum := ^packettest.Sum(f[h.CsumStart:])
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(want[int(h.CsumStart)+int(h.CsumOffset):], sum)
	}
	if !bytes.Equal(g, want) {
		t.Fatalf("finished to\n% x, want\n% x", g, want)
	}
}

// descends checks that segment i of n has the headers of the super-frame with its own
// lengths, identification, sequence, flags and checksums.
func descends(t rapid.TB, h Header, super, g []byte, i, n, head int, link packet.Link) {
	l, be := packet.Dissect(g, link), binary.BigEndian
	want := bytes.Clone(super[:head])
	if l.PPPoE > 0 {
		be.PutUint16(want[l.PPPoE+4:], uint16(len(g)-l.PPPoE-6))
	}
	if l.Version == 4 {
		be.PutUint16(want[l.L3+2:], uint16(len(g)-l.L3))
		be.PutUint16(want[l.L3+4:], be.Uint16(super[l.L3+4:])+uint16(i))
		copy(want[l.L3+10:], g[l.L3+10:l.L3+12])
	} else {
		be.PutUint16(want[l.L3+4:], uint16(len(g)-l.L3-40))
	}
	if l4 := want[l.L4:]; l.Proto == packet.UDP {
		be.PutUint16(l4[4:], uint16(len(g)-l.L4))
		copy(l4[6:], g[l.L4+6:l.L4+8])
	} else {
		be.PutUint32(l4[4:], be.Uint32(l4[4:])+uint32(i*int(h.GSOSize)))
		if i > 0 {
			l4[13] &^= flagCWR
		}
		if i < n-1 {
			l4[13] &^= flagFIN | flagPSH
		}
		copy(l4[16:], g[l.L4+16:l.L4+18])
	}
	if !bytes.Equal(g[:head], want) {
		t.Fatalf("the headers of segment %d are\n% x, want\n% x", i, g[:head], want)
	}
	if l.Version == 6 && l.L4-l.L3 > 40 && h.Flags&NeedsCsum != 0 {
		// The sender put the sum of the pseudo-header there, which has this length.
		pseudo := bytes.Clone(super[int(h.CsumStart)+int(h.CsumOffset):][:2])
		pseudo = be.AppendUint16(pseudo, ^uint16(len(super)-l.L4))
		sums(t, be.AppendUint16(pseudo, uint16(len(g)-l.L4)), g, l)
	} else {
		verify(t, g, link)
	}
}

// verify checks the checksums of a packet as its receiver would.
func verify(t rapid.TB, f []byte, link packet.Link) {
	t.Helper()
	l := packet.Dissect(f, link)
	from, to := l.L3+8, l.L3+40
	if l.Version == 4 {
		from, to = l.L3+12, l.L3+20
		if packettest.Sum(f[l.L3:l.L4]) != 0xffff {
			t.Fatalf("bad sum of the IPv4 header")
		}
	}
	pseudo := append(bytes.Clone(f[from:to]), 0, l.Proto)
	sums(t, binary.BigEndian.AppendUint32(pseudo, uint32(len(f)-l.L4)), f, l)
}

// sums checks the checksum of what follows the IP header, which is over pseudo, too.
func sums(t rapid.TB, pseudo, f []byte, l packet.Layers) {
	t.Helper()
	if packettest.Sum(append(pseudo, f[l.L4:]...)) != 0xffff {
		t.Fatalf("bad sum of %d bytes of protocol %d", len(f)-l.L4, l.Proto)
	}
	if l.Proto == packet.UDP && f[l.L4+6] == 0 && f[l.L4+7] == 0 {
		t.Fatal("a datagram without a checksum") // RFC 768
	}
}

func TestSegments(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := spec{Spec: packettest.Spec{
			IP:      rapid.Bool().Draw(rt, "ip"),
			V6:      rapid.Bool().Draw(rt, "v6"),
			UDP:     rapid.Bool().Draw(rt, "udp"),
			Options: rapid.IntRange(0, 10).Draw(rt, "options"),
			ID:      rapid.Uint16().Draw(rt, "id"),
			Seq:     rapid.Uint32().Draw(rt, "seq"),
			Tags:    rapid.IntRange(0, 3).Draw(rt, "tags"),
			Ext:     rapid.IntRange(0, 4).Draw(rt, "ext"),
			Flags:   rapid.Byte().Draw(rt, "flags"),
			Payload: packettest.Bytes(rapid.IntRange(0, 9000).Draw(rt, "length")),
		}}
		if !s.IP && s.Tags == 0 {
			s.in = rapid.SampledFrom(append(encapsulations, [2]string{})).Draw(rt, "in")
		}
		h, f := s.build() // only its checksum is missing
		verify(rt, segment(rt, h, f, s.link())[0], s.link())
		s.gso = rapid.IntRange(1, 2000).Draw(rt, "gso")
		if s.UDP {
			s.gso = max(s.gso, (len(s.Payload)+mostDatagrams-1)/mostDatagrams)
		}
		h, f = s.build()
		if rapid.Bool().Draw(rt, "summed") {
			h.Flags, h.CsumStart, h.CsumOffset = 0, 0, 0
		}
		if n := len(segment(rt, h, f, s.link())); n != max(1, (len(s.Payload)+s.gso-1)/s.gso) {
			rt.Fatalf("%d segments", n)
		}
	})
}

// Segments with a routing header are summed with the address that they go to in the end.
func TestRoutingHeader(t *testing.T) {
	s := spec{Spec: packettest.Spec{V6: true, Ext: 3, Payload: packettest.Bytes(3000)}}
	for _, s.gso = range []int{0, 1000} {
		h, f := s.build()
		const next, last = 14 + 6, 14 + 39
		final := f[last]
		f[next], f[last] = 43, 99
		for _, b := range segment(t, h, f, packet.Ethernet) {
			b[last] = final
			verify(t, b, packet.Ethernet)
		}
	}
}

// Addresses whose sum is just below 2^64 overflow it with the length.
func TestPseudoOverflow(t *testing.T) {
	for _, udp := range []bool{false, true} {
		h, f := spec{Spec: packettest.Spec{V6: true, UDP: udp, Payload: packettest.Bytes(300)}, gso: 100}.build()
		clear(f[22:54])
		binary.BigEndian.PutUint64(f[22:], ^uint64(99))
		var inputs []input
		for _, b := range segment(t, h, f, packet.Ethernet) {
			inputs = append(inputs, input{nil, b})
		}
		if n := merge(t, packet.Ethernet, inputs); udp && n != 2 {
			t.Errorf("%d of 3 datagrams are merged", n)
		}
	}
}

// zero returns a datagram whose checksum comes out as 0.
func zero(t *testing.T, s packettest.Spec) packettest.Spec {
	s.Payload = bytes.Clone(s.Payload)
	for i := range 1 << 16 {
		binary.BigEndian.PutUint16(s.Payload, uint16(i))
		if f := s.Frame(); f[14+20+6] == 0xff && f[14+20+7] == 0xff {
			return s
		}
	}
	t.Fatal("no sum is 0")
	return s
}

// A checksum of 0 would say that there is none (RFC 768).
func TestZero(t *testing.T) {
	s := spec{Spec: zero(t, packettest.Spec{UDP: true, Payload: packettest.Bytes(100)})}
	want := s.Frame()
	for _, s.gso = range []int{0, 100} {
		h, f := s.build()
		if got := segment(t, h, f, packet.Ethernet)[0]; !bytes.Equal(got, want) {
			t.Errorf("% x, want % x", got, want)
		}
	}
}

// A frame of nothing is one, too, even without headroom.
func TestEmpty(t *testing.T) {
	var s Segmenter
	if err := s.Start(Header{}, []byte{}, packet.Ethernet); err != nil || s.Next() == nil || s.Next() != nil {
		t.Errorf("not one frame: %v", err)
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
	if n, size, err := OnWire([]byte{1, 0}, nil, 100, packet.Ethernet); n != 1 || size != 104 || err == nil {
		t.Errorf("a frame with a bad header is %d of %d bytes, %v", n, size, err)
	}
	if Needed(make([]byte, HeaderSize)) || !Needed([]byte{1, 0}) || !Needed([]byte{0, 1}) {
		t.Error("Needed")
	}
}

// A header that does not fit its frame is refused, and says what is wrong.
func TestLies(t *testing.T) {
	base := spec{Spec: packettest.Spec{Payload: make([]byte, 3000)}, gso: 1000}
	udp := base
	udp.UDP = true
	deep := base
	deep.V6, deep.Ext = true, 256
	for _, tt := range []struct {
		name string
		s    spec
		lie  func(h *Header, f *[]byte)
		want string
	}{
		{"type", base, func(h *Header, _ *[]byte) { h.GSOType = 9 }, "type 9"},
		{"UFO", udp, func(h *Header, _ *[]byte) { h.GSOType = 3 }, "type 3"},
		{"UDP with ECN", udp, func(h *Header, _ *[]byte) { h.GSOType |= ECN }, "unknown type"},
		{"version", base, func(h *Header, _ *[]byte) { h.GSOType = TCPv6 }, "IP version 4"},
		{"protocol", base, func(h *Header, _ *[]byte) { h.GSOType = UDPL4 }, "protocol 6"},
		{"no IP", base, func(_ *Header, f *[]byte) { (*f)[12] = 0x70 }, "IP version 0"},
		{"IP in name only", base, func(_ *Header, f *[]byte) { (*f)[14] = 0x44 }, "IP version 0"},
		{"fragment", base, func(_ *Header, f *[]byte) { (*f)[14+6] = 0x20 }, "fragment"},
		{"segments of nothing", base, func(h *Header, _ *[]byte) { h.GSOSize = 0 }, "segments of 0 bytes"},
		{"segments that no length can hold", base, func(h *Header, _ *[]byte) { h.GSOSize = 65500 }, "segments of 65500"},
		{"too many segments", base, func(h *Header, f *[]byte) { h.GSOSize = 1; *f = append(*f, make([]byte, 1<<16)...) }, "super-frame of 68536 segments"},
		{"too many datagrams", udp, func(h *Header, f *[]byte) { h.GSOSize = 23 }, "super-frame of 131 segments"},
		{"too much in front of each", deep, func(h *Header, f *[]byte) { h.GSOSize = 1; *f = append(*f, make([]byte, 10000)...) }, "with 2122 bytes of headers"},
		{"datagrams of nothing", udp, func(h *Header, _ *[]byte) { h.GSOSize = 0 }, "segments of 0 bytes"},
		{"sum elsewhere", base, func(h *Header, _ *[]byte) { h.CsumStart++ }, "checksum at 35+16, want 34+16"},
		{"sum at another offset", base, func(h *Header, _ *[]byte) { h.CsumOffset = 6 }, "checksum at 34+6"},
		{"TCP header too short", base, func(_ *Header, f *[]byte) { (*f)[14+20+12] = 0x40 }, "TCP header of 16"},
		{"TCP header too long", base, func(_ *Header, f *[]byte) { (*f)[14+20+12] = 0xf0; *f = (*f)[:14+20+30] }, "TCP header of 60"},
		{"TCP header cut", base, func(_ *Header, f *[]byte) { *f = (*f)[:14+20+19] }, "without the whole header of protocol 6"},
		{"UDP header cut", udp, func(_ *Header, f *[]byte) { *f = (*f)[:14+20+7] }, "without the whole header of protocol 17"},
		{"nothing at all", base, func(_ *Header, f *[]byte) { *f = nil }, "IP version 0"},
		{"checksum outside", base, func(h *Header, _ *[]byte) { h.GSOType = 0; h.CsumStart = 60000; h.CsumOffset = 60000 }, "checksum at 60000+60000"},
		{"checksum at the edge", base, func(h *Header, f *[]byte) { h.GSOType = 0; h.CsumStart = uint16(len(*f) - 1); h.CsumOffset = 0 }, "checksum at"},
	} {
		h, f := tt.s.build()
		tt.lie(&h, &f)
		if _, err := cut(t, h, f, packet.Ethernet); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// FuzzSegment: no header and frame make it panic, and those it accepts are cut correctly.
func FuzzSegment(f *testing.F) {
	f.Add(make([]byte, HeaderSize), []byte("not even a packet"), uint8(0))
	for _, s := range []spec{
		{Spec: packettest.Spec{Payload: make([]byte, 350)}, gso: 100},
		{Spec: packettest.Spec{Payload: make([]byte, 350)}, gso: 100, in: encapsulations[0]},
		{Spec: packettest.Spec{Payload: make([]byte, 350), V6: true, Ext: 2}, gso: 100},
		{Spec: packettest.Spec{Payload: make([]byte, 35), UDP: true, Tags: 2}, gso: 1},
		{Spec: packettest.Spec{Payload: make([]byte, 10), UDP: true, V6: true, IP: true}, gso: 1400},
		{Spec: packettest.Spec{Payload: make([]byte, 30), Flags: 0xff, Seq: 0xfffffff0, ID: 0xffff, Options: 10}, gso: 7},
		{Spec: packettest.Spec{Payload: make([]byte, 30), V6: true, Tags: 8, Ext: 40}, gso: 1},
		{Spec: packettest.Spec{Payload: make([]byte, 30), UDP: true, Options: 10}, in: encapsulations[4]},
	} {
		h, b := s.build()
		var hdr [HeaderSize]byte
		h.Put(hdr[:])
		f.Add(hdr[:], b, uint8(s.link()))
	}
	f.Fuzz(func(t *testing.T, hdr, b []byte, link uint8) {
		if h, err := Parse(hdr); err == nil && len(b) <= 1<<14 {
			_, _ = cut(t, h, b, packet.Link(link%2))
		}
	})
}

// Nothing is allocated for a frame.
func TestSegmentAllocates(t *testing.T) {
	h, f := spec{Spec: packettest.Spec{Payload: make([]byte, 60000)}, gso: 1448}.build()
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
	h, f := spec{Spec: packettest.Spec{Payload: make([]byte, 60000)}, gso: 1448}.build()
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
