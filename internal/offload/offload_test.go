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

// spec is a super-frame: what is in it, and how it is to be cut.
type spec struct {
	packettest.Spec
	gso int
}

func (s spec) build() (Header, []byte) {
	b, f := s.Super(s.gso)
	h, err := Parse(b)
	if err != nil {
		panic(err)
	}
	return h, f
}

func (s spec) link() packet.Link {
	if s.IP {
		return packet.IP
	}
	return packet.Ethernet
}

// verify checks a frame as its receiver would: lengths and checksums.
func verify(t interface{ Fatalf(string, ...any) }, f []byte, link packet.Link) packet.Layers {
	l := packet.Dissect(f, link)
	if l.Version == 0 || l.End != len(f) {
		t.Fatalf("the IP packet ends at %d of %d: %+v", l.End, len(f), l)
	}
	var pseudo []byte
	if l.Version == 4 {
		if packettest.Sum(f[l.L3:l.L4]) != 0xffff {
			t.Fatalf("bad sum of the IPv4 header")
		}
		pseudo = append(pseudo, f[l.L3+12:l.L3+20]...)
	} else {
		pseudo = append(pseudo, f[l.L3+8:l.L3+40]...)
	}
	sums(t, binary.BigEndian.AppendUint32(append(pseudo, 0, l.Proto), uint32(len(f)-l.L4)), f, l)
	return l
}

// sums checks the checksum of what follows the IP header, which is over pseudo, too.
func sums(t interface{ Fatalf(string, ...any) }, pseudo, f []byte, l packet.Layers) {
	if packettest.Sum(append(pseudo, f[l.L4:]...)) != 0xffff {
		t.Fatalf("bad sum of %d bytes of protocol %d", len(f)-l.L4, l.Proto)
	}
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

// to returns a frame, of Spec{V6: true}, with another destination and its checksum as it
// is then: finished, or left to be finished.
func to(f []byte, dst [16]byte, sum int, finished bool) []byte {
	copy(f[38:], dst[:])
	ps := binary.BigEndian.AppendUint32(append(bytes.Clone(f[22:54]), 0, 0, 0, f[20]), uint32(len(f)-54))
	// Length and protocol are summed alike wherever they stand.
	binary.BigEndian.PutUint16(f[sum:], packettest.Sum(ps))
	if finished {
		binary.BigEndian.PutUint16(f[sum:], ^packettest.Sum(f[54:]))
	}
	return f
}

// Addresses whose sum is just below 2^64 overflow it with the length.
func TestPseudoOverflow(t *testing.T) {
	udp := packettest.Spec{V6: true, UDP: true, Payload: packettest.Bytes(80)}
	var dst [16]byte
	dst[0] = 0xfd
	rest := ^uint64(99) // what the sum is to be
	src := udp.Frame()[22:38]
	base := Sum(append(bytes.Clone(src), dst[:]...), packet.UDP)
	if rest < base {
		rest-- // the carry
	}
	binary.BigEndian.PutUint64(dst[8:], rest-base)
	if got := Sum(append(bytes.Clone(src), dst[:]...), packet.UDP); got < ^uint64(200) {
		t.Fatalf("the sum is %x", got)
	}
	var m Merger
	for i := range 3 {
		if !m.Add(nil, to(udp.Frame(), dst, 60, true), packet.Ethernet) {
			t.Fatalf("datagram %d is not taken", i)
		}
	}
	h, f := m.Take()
	for _, b := range segment(t, h, f, packet.Ethernet) {
		verify(t, b, packet.Ethernet)
	}
	if want := to(bytes.Clone(f), dst, 60, false); !bytes.Equal(f, want) {
		t.Errorf("the sum in the field is %x, want %x", f[60:62], want[60:62])
	}
	udp.Payload = packettest.Bytes(1000)
	if m.Reset(); !m.Add(nil, to(udp.Frame(), dst, 60, true), packet.Ethernet) {
		t.Error("a longer datagram is not taken")
	}
	tcp := spec{packettest.Spec{V6: true, Payload: packettest.Bytes(3000)}, 1000}
	h, f = tcp.build()
	for _, b := range segment(t, h, to(f, dst, 70, false), packet.Ethernet) {
		verify(t, b, packet.Ethernet)
	}
}

// Segments with a routing header are summed with the address that they go to in the end.
func TestRoutingHeader(t *testing.T) {
	s := spec{packettest.Spec{V6: true, Ext: 3, Payload: packettest.Bytes(3000)}, 1000}
	h, f := s.build()
	final := append([]byte{0xfd, 0x99}, make([]byte, 14)...)
	f[20] = 43 // routing, of type 4 (RFC 8754): next, length, type, segments left, last entry, flags, tag
	copy(f[54:], []byte{6, 2, 4, 1, 0, 0, 0, 0})
	copy(f[62:], final)
	sum := func(f []byte) []byte {
		ps := append(bytes.Clone(f[22:38]), final...)
		return binary.BigEndian.AppendUint32(append(ps, 0, 0, 0, 6), uint32(len(f)-78))
	}
	binary.BigEndian.PutUint16(f[78+16:], packettest.Sum(sum(f)))
	all := segment(t, h, f, packet.Ethernet)
	h.GSOType, h.GSOSize = 0, 0
	for _, b := range append(all, segment(t, h, f, packet.Ethernet)...) {
		if packettest.Sum(append(sum(b), b[78:]...)) != 0xffff {
			t.Errorf("bad sum of %d bytes", len(b))
		}
	}
	if len(all) != 3 {
		t.Errorf("%d segments", len(all))
	}
}

// Whatever is cut, the segments are good packets, and what a receiver makes of
// them is what was sent.
func TestSegments(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := spec{packettest.Spec{
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
		}, 0}
		s.gso = rapid.IntRange(1, 2000).Draw(rt, "gso")
		if s.UDP {
			s.gso = max(s.gso, (len(s.Payload)+mostDatagrams-1)/mostDatagrams)
		}
		h, f := s.build()
		before := bytes.Clone(f)
		all := segment(rt, h, f, s.link())
		if !bytes.Equal(f, before) {
			rt.Fatalf("the frame was changed")
		}
		n, head, last, err := Measure(h, f[:min(len(f), int(h.HdrLen))], len(f), s.link())
		if err != nil || n != len(all) || head != int(h.HdrLen) || last != len(all[len(all)-1]) {
			rt.Fatalf("Measure: %d frames with %d in front, %d in the last, %v; there are %d", n, head, last, err, len(all))
		}
		raw, _ := s.Super(s.gso)
		frames, wire, err := OnWire(raw, f[:min(len(f), int(h.HdrLen))], len(f), s.link())
		if err != nil {
			rt.Fatal(err)
		}
		var payload []byte
		for i, b := range all {
			one, size, _ := OnWire(nil, b, len(b), s.link())
			frames, wire = frames-one, wire-size
			l := verify(rt, b, s.link())
			if i < n-1 && len(b) != head+s.gso {
				rt.Fatalf("segment %d has %d bytes", i, len(b))
			}
			if l.Version == 4 {
				if id := binary.BigEndian.Uint16(b[l.L3+4:]); id != s.ID+uint16(i) {
					rt.Fatalf("segment %d: id %d, began with %d", i, id, s.ID)
				}
			}
			if s.UDP {
				if size := binary.BigEndian.Uint16(b[l.L4+4:]); int(size) != len(b)-l.L4 {
					rt.Fatalf("segment %d: UDP length %d of %d", i, size, len(b)-l.L4)
				}
			} else {
				if seq := binary.BigEndian.Uint32(b[l.L4+4:]); seq != s.Seq+uint32(i*s.gso) {
					rt.Fatalf("segment %d: sequence %d", i, seq-s.Seq)
				}
				want := s.Flags
				if i > 0 {
					want &^= flagCWR
				}
				if i < n-1 {
					want &^= flagFIN | flagPSH
				}
				if b[l.L4+13] != want {
					rt.Fatalf("segment %d of %d: flags %02x of %02x", i, n, b[l.L4+13], s.Flags)
				}
			}
			payload = append(payload, b[head:]...)
		}
		if !bytes.Equal(payload, s.Payload) {
			rt.Fatalf("another payload came out")
		}
		if frames != 0 || wire != 0 {
			rt.Fatalf("%d frames and %d bytes on the wire more than the segments are", frames, wire)
		}
	})
}

// A frame of which only the checksum is missing.
func TestChecksum(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := spec{Spec: packettest.Spec{
			V6: rapid.Bool().Draw(rt, "v6"), UDP: rapid.Bool().Draw(rt, "udp"),
			Payload: rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "payload"),
		}}
		h, f := s.build()
		at := int(h.CsumStart) + int(h.CsumOffset)
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
	var s Segmenter
	if err := s.Start(Header{}, []byte{}, packet.Ethernet); err != nil || s.Next() == nil || s.Next() != nil {
		t.Errorf("a frame of nothing is not one: %v", err)
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
	base := spec{packettest.Spec{Payload: make([]byte, 3000)}, 1000}
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
		{"UFO", udp, func(h *Header, _ *[]byte) { h.GSOType = UFO }, "type 3"},
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
		{"TCP header cut", base, func(_ *Header, f *[]byte) { *f = (*f)[:14+20+19] }, "without a whole TCP header"},
		{"UDP header cut", udp, func(_ *Header, f *[]byte) { *f = (*f)[:14+20+7] }, "without a whole UDP header"},
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

// encapsulate puts a packet's frame, and its header, into another encapsulation: the bytes
// between the addresses and the packet.
func encapsulate(h Header, f, between []byte) (Header, []byte) {
	g := slices.Concat(f[:12], between, f[14:])
	h.CsumStart += uint16(len(between) - 2)
	h.HdrLen += uint16(len(between) - 2)
	return h, g
}

// A super-frame in a PPPoE session or behind MPLS labels is measured and cut as one in
// Ethernet is, and the session's header has the length of each segment.
func TestEncapsulations(t *testing.T) {
	for _, tt := range []struct {
		name   string
		v4, v6 string
		pppoe  int // header of the session, 0 without one
	}{
		{"PPPoE", "8864 1100 0001 0000 0021", "8864 1100 0001 0000 0057", 14},
		{"PPPoE, compressed", "8864 1100 0001 0000 21", "8864 1100 0001 0000 57", 14},
		{"PPPoE in a VLAN", "8100 0007 8864 1100 0001 0000 0021", "8100 0007 8864 1100 0001 0000 0057", 18},
		{"MPLS", "8847 00064 0 40 00065 1 40", "8847 00064 0 40 00065 1 40", 0},
		{"MPLS in PPPoE", "8864 1100 0001 0000 0281 00065 1 40", "8864 1100 0001 0000 0281 00065 1 40", 14},
	} {
		for _, s := range []spec{
			{packettest.Spec{Payload: packettest.Bytes(3001), ID: 7}, 1000},
			{packettest.Spec{Payload: packettest.Bytes(3001), V6: true}, 1000},
			{packettest.Spec{Payload: packettest.Bytes(3001), UDP: true}, 1000},
		} {
			between, err := hex.DecodeString(strings.ReplaceAll(map[bool]string{false: tt.v4, true: tt.v6}[s.V6], " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			plain, f := s.build()
			want := segment(t, plain, f, packet.Ethernet)
			h, g := encapsulate(plain, f, between)
			got := segment(t, h, g, packet.Ethernet)
			more, wire := len(between)-2, 0
			for i := range got {
				_, w := encapsulate(plain, want[i], between)
				if tt.pppoe > 0 {
					binary.BigEndian.PutUint16(w[tt.pppoe+4:], uint16(len(w)-tt.pppoe-6))
				}
				if !bytes.Equal(got[i], w) {
					t.Errorf("%s, %+v, segment %d:\n% x\n% x", tt.name, s.Spec.V6, i, got[i][:60], w[:60])
				}
				wire += max(len(w), 60) + 4
			}
			n, head, last, err := Measure(h, g[:h.HdrLen], len(g), packet.Ethernet)
			if err != nil || n != 4 || len(got) != 4 || head != int(h.HdrLen) || last != len(want[3])+more {
				t.Errorf("%s: %d segments, %d in front of each, %d in the last, %v", tt.name, n, head, last, err)
			}
			var header [HeaderSize]byte
			h.Put(header[:])
			if n, bytes, err := OnWire(header[:], g, len(g), packet.Ethernet); err != nil || n != 4 || bytes != wire {
				t.Errorf("%s: %d frames and %d bytes on the wire, want 4 and %d: %v", tt.name, n, bytes, wire, err)
			}
		}
	}
}

// FuzzSegment: whatever header and frame, no panic, and nothing is written to
// the frame; what is accepted is cut into as many good packets as Measure says,
// which have its payload, and its headers but for what segments differ in.
func FuzzSegment(f *testing.F) {
	for _, s := range []spec{
		{packettest.Spec{Payload: make([]byte, 350)}, 100},
		{packettest.Spec{Payload: make([]byte, 350), V6: true, Ext: 2}, 100},
		{packettest.Spec{Payload: make([]byte, 35), UDP: true, Tags: 2}, 1},
		{packettest.Spec{Payload: make([]byte, 10), UDP: true, V6: true, IP: true}, 1400},
		{packettest.Spec{Payload: make([]byte, 30), Flags: 0xff, Seq: 0xfffffff0, ID: 0xffff, Options: 10}, 7},
		{packettest.Spec{Payload: make([]byte, 30), V6: true, Tags: 8, Ext: 40}, 1},
		{packettest.Spec{Payload: make([]byte, 30), UDP: true, Options: 10}, 0},
	} {
		h, b := s.build()
		var hdr [HeaderSize]byte
		h.Put(hdr[:])
		f.Add(hdr[:], b, uint8(s.link()))
		if !s.IP && !s.V6 && s.Tags == 0 {
			h, b = encapsulate(h, b, []byte{0x88, 0x64, 0x11, 0, 0, 1, 0, 0, 0, 0x21})
			h.Put(hdr[:])
			f.Add(hdr[:], b, uint8(0))
		}
	}
	f.Fuzz(func(t *testing.T, hdr, b []byte, link uint8) {
		h, err := Parse(hdr)
		if err != nil || len(b) > 1<<14 {
			return
		}
		lk := packet.Link(link % 2)
		before := bytes.Clone(b)
		n, head, last, merr := Measure(h, b, len(b), lk)
		s := Segmenter{Headroom: 3}
		err = s.Start(h, b, lk)
		if h.Super() && err == nil && merr != nil {
			t.Fatalf("Start says %v, Measure %v", err, merr)
		}
		_, wire, werr := OnWire(hdr, b, len(b), lk)
		if (werr == nil) != (err == nil) {
			t.Fatalf("Start says %v, Measure %v, OnWire %v", err, merr, werr)
		}
		if err != nil {
			if s.Next() != nil {
				t.Fatalf("%v, and yet there is a segment", err)
			}
			return
		}
		if !h.Super() {
			n, head, last = 1, 0, len(b)
		}
		var payload []byte
		for i := range n {
			g := s.Next()
			if g == nil {
				t.Fatalf("%d segments of %d", i, n)
			}
			if g = g[3:]; i == n-1 && len(g) != last || i < n-1 && len(g) != head+int(h.GSOSize) {
				t.Fatalf("segment %d of %d has %d bytes", i, n, len(g))
			}
			wire -= ethernet(len(g), lk)
			if !h.Super() {
				finishes(t, h, b, g)
				continue
			}
			payload = append(payload, g[head:]...)
			if i >= 3 && i < n-1 {
				continue
			}
			l := packet.Dissect(g, lk)
			if l.End != len(g) {
				t.Fatalf("the IP packet ends at %d of %d", l.End, len(g))
			}
			if l.Version == 6 && l.L4-l.L3 > 40 && h.Flags&NeedsCsum != 0 {
				// Whatever the sender has taken for the pseudo-header, with this length.
				seed := bytes.Clone(b[int(h.CsumStart)+int(h.CsumOffset):][:2])
				seed = binary.BigEndian.AppendUint16(seed, ^uint16(len(b)-l.L4))
				sums(t, binary.BigEndian.AppendUint16(seed, uint16(len(g)-l.L4)), g, l)
			} else {
				verify(t, g, lk)
			}
			descends(t, l, b[:head], g[:head], i, n, int(h.GSOSize))
		}
		if s.Next() != nil || wire != 0 {
			t.Fatalf("more than %d segments, or %d bytes too many on the wire", n, wire)
		}
		if !bytes.Equal(b, before) || h.Super() && !bytes.Equal(payload, b[head:]) {
			t.Fatal("another payload came out, or the frame was changed")
		}
	})
}

// finishes checks that nothing but the checksum was written, and that it is right.
func finishes(t *testing.T, h Header, b, g []byte) {
	want := bytes.Clone(b)
	if h.Flags&NeedsCsum != 0 {
		sum := ^packettest.Sum(b[h.CsumStart:])
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(want[int(h.CsumStart)+int(h.CsumOffset):], sum)
	}
	if !bytes.Equal(g, want) {
		t.Fatalf("finished to\n% x, want\n% x", g, want)
	}
}

// descends checks that the headers of segment i of n are those of the super-frame
// with the identification, sequence and flags of that segment. Lengths and checksums
// have been verified.
func descends(t *testing.T, l packet.Layers, super, segment []byte, i, n, gso int) {
	want, be := bytes.Clone(super), binary.BigEndian
	if l.PPPoE > 0 {
		copy(want[l.PPPoE+4:], segment[l.PPPoE+4:l.PPPoE+6])
	}
	if l.Version == 4 {
		copy(want[l.L3+2:], segment[l.L3+2:l.L3+4])
		be.PutUint16(want[l.L3+4:], be.Uint16(super[l.L3+4:])+uint16(i))
		copy(want[l.L3+10:], segment[l.L3+10:l.L3+12])
	} else {
		copy(want[l.L3+4:], segment[l.L3+4:l.L3+6])
	}
	if l4 := want[l.L4:]; l.Proto == packet.UDP {
		copy(l4[4:], segment[l.L4+4:l.L4+8])
	} else {
		be.PutUint32(l4[4:], be.Uint32(l4[4:])+uint32(i*gso))
		if i > 0 {
			l4[13] &^= flagCWR
		}
		if i < n-1 {
			l4[13] &^= flagFIN | flagPSH
		}
		copy(l4[16:], segment[l.L4+16:l.L4+18])
	}
	if !bytes.Equal(segment, want) {
		t.Fatalf("the headers of segment %d are\n% x, want\n% x", i, segment, want)
	}
}

// Nothing is allocated for a frame.
func TestSegmentAllocates(t *testing.T) {
	h, f := spec{packettest.Spec{Payload: make([]byte, 60000)}, 1448}.build()
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
	h, f := spec{packettest.Spec{Payload: make([]byte, 60000)}, 1448}.build()
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
