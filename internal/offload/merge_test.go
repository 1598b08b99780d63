package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"framepipe/internal/packet"
	"framepipe/internal/packettest"

	"pgregory.net/rapid"
)

// finished returns a frame with its checksum finished.
func finished(t interface{ Fatalf(string, ...any) }, hdr, f []byte, link packet.Link) []byte {
	if hdr == nil {
		return f
	}
	h, err := Parse(hdr)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return segment(t, h, f, link)[0]
}

// Whatever frames come one after the other, those that were merged come out of
// the Segmenter again, bit by bit.
func TestMerge(t *testing.T) {
	merged := 0
	rapid.Check(t, func(rt *rapid.T) {
		base := packettest.Spec{
			UDP: true, IP: rapid.Bool().Draw(rt, "ip"), V6: rapid.Bool().Draw(rt, "v6"),
			ID: rapid.Uint16().Draw(rt, "id"), TOS: byte(rapid.IntRange(0, 1).Draw(rt, "tos")),
		}
		size := rapid.SampledFrom([]int{1, 18, 100, 1472}).Draw(rt, "size")
		link := spec{Spec: base}.link()
		m := Merger{Headroom: 5}
		var pending [][]byte
		flush := func() {
			if m.Len() != len(pending) {
				rt.Fatalf("%d gathered, want %d", m.Len(), len(pending))
			}
			if len(pending) == 0 {
				return
			}
			h, room := m.Take()
			got := segment(rt, h, room[5:], link)
			if len(got) != len(pending) {
				rt.Fatalf("%d segments of %d frames", len(got), len(pending))
			}
			for i := range got {
				if !bytes.Equal(got[i], pending[i]) {
					rt.Fatalf("frame %d of %d\ncame out % x\nwent in  % x", i, len(got), got[i], pending[i])
				}
			}
			merged += len(pending) - 1
			pending = nil
		}
		for i := range rapid.IntRange(1, 90).Draw(rt, "frames") {
			s := base
			s.ID += uint16(i)
			s.Payload = make([]byte, size)
			for j := range s.Payload {
				s.Payload[j] = byte(rand.Uint32())
			}
			switch rapid.IntRange(0, 30).Draw(rt, "oddity") {
			case 0:
				s.Payload = s.Payload[:rapid.IntRange(0, size).Draw(rt, "shorter")]
			case 1:
				s.Payload = append(s.Payload, 1)
			case 2:
				s.Port = 99
			case 3:
				s.TOS = 2
			case 4:
				s.UDP = false
			case 5:
				s.Options = 1
			case 6:
				s.ID += 7
			case 7:
				s.Tags = 1
			case 8:
				s.Ext = 1
			}
			var hdr []byte
			f := s.Frame()
			if rapid.Bool().Draw(rt, "unfinished") {
				hdr, f = s.Super(0)
			} else {
				switch rapid.IntRange(0, 30).Draw(rt, "damage") {
				case 0:
					f[len(f)-1]++ // a checksum that is wrong must stay wrong
				case 1:
					f = append(f, 0) // padding
				}
			}
			want := bytes.Clone(finished(rt, hdr, f, link))
			if m.Add(hdr, f, link) {
				pending = append(pending, want)
				continue
			}
			flush()
			if m.Add(hdr, f, link) {
				pending = append(pending, want)
			}
		}
		flush()
	})
	if merged < 50 { // of the few rounds of -short
		t.Errorf("only %d frames were merged", merged)
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
	s := zero(t, packettest.Spec{UDP: true, Payload: packettest.Bytes(100)})
	h, f := spec{s, 0}.build()
	two := s
	two.Payload = bytes.Repeat(s.Payload, 2)
	hh, ff := spec{two, 100}.build()
	for name, got := range map[string][]byte{"whole": segment(t, h, f, packet.Ethernet)[0], "cut": segment(t, hh, ff, packet.Ethernet)[0]} {
		if !bytes.Equal(got, s.Frame()) {
			t.Errorf("%s: % x, want % x", name, got, s.Frame())
		}
	}
}

// Datagrams that differ in a field which segments have in common are not merged.
func TestMergeFields(t *testing.T) {
	for name, x := range map[string]struct {
		v6    bool
		at    int
		value byte
	}{
		"TTL": {false, 14 + 8, 63}, "DF": {false, 14 + 6, 0}, "address": {false, 14 + 19, 9}, "destination port": {false, 14 + 22, 1},
		"flow label": {true, 14 + 3, 5}, "hop limit": {true, 14 + 7, 63}, "IPv6 address": {true, 14 + 39, 9}, "MAC": {true, 5, 9},
	} {
		s := packettest.Spec{UDP: true, V6: x.v6, Payload: []byte("hello")}
		var m Merger
		_, first := s.Super(0)
		s.ID = 1
		hdr, f := s.Super(0)
		same := bytes.Clone(f)
		f[x.at] = x.value
		l := packet.Dissect(f, packet.Ethernet)
		if !x.v6 {
			binary.BigEndian.PutUint16(f[14+10:], 0)
			binary.BigEndian.PutUint16(f[14+10:], ^packettest.Sum(f[14:34]))
		}
		binary.BigEndian.PutUint16(f[l.L4+6:], Fold(pseudo(f, &l)+uint64(len(f)-l.L4)))
		if !m.Add(hdr, first, packet.Ethernet) || m.Add(hdr, f, packet.Ethernet) || !m.Add(hdr, same, packet.Ethernet) {
			t.Errorf("%s: %d merged", name, m.Len())
		}
		if m.Reset(); !m.Add(hdr, f, packet.Ethernet) {
			t.Errorf("%s: refused by itself", name)
		}
	}
}

// What must not be merged at all.
func TestMergeRefuses(t *testing.T) {
	good := packettest.Spec{UDP: true, Payload: []byte("hello")}
	fragment := good.Frame()
	fragment[14+6] = 0x20
	wrong := good.Frame()
	wrong[14+10]++
	unsummed := zero(t, good).Frame() // its sum would be right
	unsummed[14+20+6], unsummed[14+20+7] = 0, 0
	hdr, f := good.Super(0)
	lie := bytes.Clone(hdr)
	lie[6]++
	super, large := packettest.Spec{UDP: true, Payload: make([]byte, 100)}.Super(10)
	for name, x := range map[string][2][]byte{
		"fragment":             {nil, fragment},
		"IPv4 checksum":        {nil, wrong},
		"no UDP checksum":      {nil, unsummed},
		"header that lies":     {lie, f},
		"header too short":     {hdr[:9], f},
		"super-frame":          {super, large},
		"TCP":                  {nil, packettest.Spec{Payload: []byte("x")}.Frame()},
		"ARP":                  {nil, append(bytes.Repeat([]byte{255}, 12), 8, 6, 0, 1)},
		"nothing":              {nil, nil},
		"datagram of nothing":  {nil, packettest.Spec{UDP: true}.Frame()},
		"IPv6 called IPv4":     {nil, append(bytes.Clone(f[:12]), packettest.Spec{UDP: true, V6: true, IP: true, Payload: []byte("x")}.Frame()...)},
		"length of the packet": {nil, good.Frame()[:40]},
		"VLAN":                 {nil, packettest.Spec{UDP: true, Tags: 1, Payload: []byte("x")}.Frame()},
	} {
		var m Merger
		if m.Add(x[0], x[1], packet.Ethernet) || m.Len() != 0 {
			t.Errorf("%s is gathered", name)
		}
	}
}

// FuzzMerge makes a sequence of frames out of one, each by a byte of ops, as a sender
// of datagrams makes them and with faults in between: what is gathered comes out of
// the Segmenter again, bit by bit and in order.
func FuzzMerge(f *testing.F) {
	hdr, b := packettest.Spec{UDP: true, Payload: []byte("hello")}.Super(0)
	f.Add(hdr, b, []byte{0, 0, 0, 0})
	f.Add([]byte(nil), packettest.Spec{UDP: true, V6: true, Payload: []byte("hello")}.Frame(), []byte{2, 2, 0xfa, 2, 2, 0x16, 2, 2, 0, 2, 2})
	f.Add([]byte(nil), packettest.Spec{UDP: true, ID: 0xfffe, Payload: []byte("hello there")}.Frame(), []byte{2, 2, 0x26, 2, 2, 3, 2, 0xea, 2})
	f.Add([]byte(nil), packettest.Spec{UDP: true, IP: true, Payload: []byte("hello")}.Frame(), bytes.Repeat([]byte{2}, 70))
	f.Fuzz(func(t *testing.T, hdr, b, ops []byte) {
		if len(hdr) == 0 {
			hdr = nil
		}
		if len(b) > 2000 || len(ops) > 80 {
			return
		}
		for _, link := range []packet.Link{packet.Ethernet, packet.IP} {
			m := Merger{Headroom: 3}
			var pending [][]byte
			flush := func() {
				if m.Len() != len(pending) {
					t.Fatalf("%d gathered, want %d", m.Len(), len(pending))
				}
				if len(pending) == 0 {
					return
				}
				h, room := m.Take()
				if len(room) > 3+mostPayload+60 || len(pending) > mostMerged {
					t.Fatalf("%d datagrams, %d bytes", len(pending), len(room))
				}
				for i, got := range segment(t, h, room[3:], link) {
					if !bytes.Equal(got, pending[i]) {
						t.Fatalf("frame %d of %d\ncame out % x\nwent in  % x", i, len(pending), got, pending[i])
					}
				}
				pending = nil
			}
			for i, op := range ops {
				h, g := hdr, sequel(b, link, uint16(i), op)
				if op&2 != 0 {
					h = nil
				}
				add := func() bool {
					if !m.Add(h, g, link) {
						return false
					}
					pending = append(pending, bytes.Clone(finished(t, h, g, link)))
					return true
				}
				if !add() {
					flush()
					add()
				}
			}
			flush()
		}
	})
}

// sequel makes number n of a sequence out of a frame: with another
// identification, maybe shorter, or with a byte changed, and its lengths and checksums
// made right, unless op says not to.
func sequel(b []byte, link packet.Link, n uint16, op byte) []byte {
	b = bytes.Clone(b)
	l := packet.Dissect(b, link)
	if op&1 != 0 || l.Version == 0 || l.Proto != packet.UDP || len(b) < l.L4+udpHeader {
		return b
	}
	be := binary.BigEndian
	if op&4 != 0 {
		b = b[:max(l.L4+udpHeader, len(b)-int(op>>4))]
	}
	if op&8 != 0 {
		b[int(op>>4)*len(b)/16]++
		if packet.Dissect(b, link) != l {
			return b
		}
	}
	pseudo := bytes.Clone(b[l.L3+8 : l.L4])
	if l.Version == 4 {
		be.PutUint16(b[l.L3+2:], uint16(len(b)-l.L3))
		be.PutUint16(b[l.L3+4:], be.Uint16(b[l.L3+4:])+n)
		be.PutUint16(b[l.L3+10:], 0)
		be.PutUint16(b[l.L3+10:], ^packettest.Sum(b[l.L3:l.L4]))
		pseudo = bytes.Clone(b[l.L3+12 : l.L3+20])
	} else {
		be.PutUint16(b[l.L3+4:], uint16(len(b)-l.L3-40))
		pseudo = pseudo[:32]
	}
	be.PutUint16(b[l.L4+4:], uint16(len(b)-l.L4))
	be.PutUint16(b[l.L4+6:], 0)
	pseudo = append(be.AppendUint32(pseudo, uint32(len(b)-l.L4)), 0, packet.UDP)
	sum := packettest.Sum(pseudo)
	if op&2 != 0 { // finished
		if sum = ^packettest.Sum(append(pseudo, b[l.L4:]...)); sum == 0 {
			sum = 0xffff
		}
	}
	be.PutUint16(b[l.L4+6:], sum)
	return b
}

func BenchmarkMerge(b *testing.B) {
	var frames [][]byte
	for i := range 32 {
		frames = append(frames, packettest.Spec{UDP: true, ID: uint16(i), Payload: make([]byte, 18)}.Frame())
	}
	var m Merger
	i := 0
	for b.Loop() {
		if !m.Add(nil, frames[i%32], packet.Ethernet) {
			b.Fatal(i)
		}
		if i++; i%32 == 0 {
			m.Take()
		}
	}
}
