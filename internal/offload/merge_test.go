package offload

import (
	"bytes"
	"encoding/binary"
	"testing"

	"framepipe/internal/packet"
	"framepipe/internal/packettest"

	"pgregory.net/rapid"
)

// input is a frame with its offload header, which may be nil.
type input struct{ hdr, f []byte }

// merge gathers frames one after the other. The Segmenter must restore those that were
// merged, bit by bit and in order. It returns how many went into the super-frame of
// another.
func merge(t rapid.TB, link packet.Link, inputs []input) (merged int) {
	m := Merger{Headroom: 3}
	var pending [][]byte
	take := func() {
		if m.Len() != len(pending) || m.Len() > mostMerged {
			t.Fatalf("%d gathered, want %d", m.Len(), len(pending))
		}
		if len(pending) == 0 {
			return
		}
		h, room := m.Take()
		if len(room) > 3+mostPayload+60 {
			t.Fatalf("%d datagrams, %d bytes", len(pending), len(room))
		}
		all := segment(t, h, room[3:], link)
		if len(all) != len(pending) {
			t.Fatalf("%d segments of %d frames", len(all), len(pending))
		}
		for i, got := range all {
			if !bytes.Equal(got, pending[i]) {
				t.Fatalf("frame %d of %d\ncame out % x\nwent in  % x", i, len(all), got, pending[i])
			}
		}
		h.GSOType, h.GSOSize = 0, 0 // the super-frame itself, with its checksum finished
		verify(t, segment(t, h, room[3:], link)[0], link)
		merged += len(pending) - 1
		pending = nil
	}
	for _, in := range inputs {
		for range 2 { // a refused frame may be the first of the next
			if m.Add(in.hdr, in.f, link) {
				h, _ := Parse(in.hdr) // nil leaves nothing to be finished
				pending = append(pending, segment(t, h, in.f, link)[0])
				break
			}
			take()
		}
	}
	take()
	return merged
}

func TestMerge(t *testing.T) {
	merged := 0
	rapid.Check(t, func(rt *rapid.T) {
		base := packettest.Spec{
			UDP: true, IP: rapid.Bool().Draw(rt, "ip"), V6: rapid.Bool().Draw(rt, "v6"),
			ID: rapid.Uint16().Draw(rt, "id"), TOS: byte(rapid.IntRange(0, 1).Draw(rt, "tos")),
		}
		size := rapid.SampledFrom([]int{1, 18, 100, 1472}).Draw(rt, "size")
		var inputs []input
		for i := range rapid.IntRange(1, 90).Draw(rt, "frames") {
			s := base
			s.ID += uint16(i)
			s.Payload = packettest.Bytes(i + size)[i:]
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
			in := input{nil, s.Frame()}
			if rapid.Bool().Draw(rt, "unfinished") {
				in.hdr, in.f = s.Super(0)
			} else {
				switch rapid.IntRange(0, 30).Draw(rt, "damage") {
				case 0:
					in.f[len(in.f)-1]++ // a checksum that is wrong must stay wrong
				case 1:
					in.f = append(in.f, 0) // padding
				}
			}
			inputs = append(inputs, in)
		}
		merged += merge(rt, spec{Spec: base}.link(), inputs)
	})
	if merged < 50 { // of the few rounds of -short
		t.Errorf("only %d frames were merged", merged)
	}
}

// A datagram that differs in any byte of its headers keeps it.
func TestMergeHeaders(t *testing.T) {
	for _, s := range []packettest.Spec{{UDP: true}, {UDP: true, V6: true}} {
		s.Payload = []byte("hello")
		for at := range len(s.Frame()) - len(s.Payload) {
			for _, bit := range []byte{1, 0x40} {
				var inputs []input
				for s.ID = range 3 {
					f := s.Frame()
					if s.ID == 1 {
						f[at] ^= bit
						resum(f, packet.Ethernet, true)
					}
					inputs = append(inputs, input{nil, f})
				}
				merge(t, packet.Ethernet, inputs)
			}
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
	for name, x := range map[string]input{
		"fragment":             {nil, fragment},
		"IPv4 checksum":        {nil, wrong},
		"no UDP checksum":      {nil, unsummed},
		"header that lies":     {lie, f},
		"header too short":     {hdr[:9], f},
		"super-frame":          {super, large},
		"TCP":                  {nil, packettest.Spec{Payload: []byte("x")}.Frame()},
		"ARP":                  {nil, packettest.ARP(1)},
		"nothing":              {nil, nil},
		"datagram of nothing":  {nil, packettest.Spec{UDP: true}.Frame()},
		"IPv6 called IPv4":     {nil, append(bytes.Clone(f[:12]), packettest.Spec{UDP: true, V6: true, IP: true, Payload: []byte("x")}.Frame()...)},
		"length of the packet": {nil, good.Frame()[:40]},
		"VLAN":                 {nil, packettest.Spec{UDP: true, Tags: 1, Payload: []byte("x")}.Frame()},
	} {
		var m Merger
		if m.Add(x.hdr, x.f, packet.Ethernet) || m.Len() != 0 {
			t.Errorf("%s is gathered", name)
		}
	}
	var m Merger
	if !m.Add(hdr, f, packet.Ethernet) || m.Len() != 1 {
		t.Error("a good one is refused")
	}
	if m.Reset(); m.Len() != 0 {
		t.Error("Reset has left it")
	}
}

// FuzzMerge makes a sequence of frames out of one, each by a byte of ops, as a sender
// of datagrams makes them and with faults in between.
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
			var inputs []input
			for i, op := range ops {
				in := input{hdr, sequel(b, link, uint16(i), op)}
				if op&2 != 0 {
					in.hdr = nil
				}
				inputs = append(inputs, in)
			}
			merge(t, link, inputs)
		}
	})
}

// sequel makes number n of a sequence out of a frame: with another
// identification, maybe shorter, or with a byte changed, and its lengths and checksums
// made right, unless op says not to.
func sequel(b []byte, link packet.Link, n uint16, op byte) []byte {
	b = bytes.Clone(b)
	l := packet.Dissect(b, link)
	if op&1 != 0 || l.Version == 0 || len(b) < l.L4+udpHeader {
		return b
	}
	if l.Version == 4 {
		id := b[l.L3+4:]
		binary.BigEndian.PutUint16(id, binary.BigEndian.Uint16(id)+n)
	}
	if op&4 != 0 {
		b = b[:max(l.L4+udpHeader, len(b)-int(op>>4))]
	}
	if op&8 != 0 {
		b[int(op>>4)*len(b)/16]++
	}
	resum(b, link, op&2 != 0)
	return b
}

// resum makes the lengths and checksums of a UDP packet right, the last one finished or not.
func resum(b []byte, link packet.Link, finished bool) {
	l, be := packet.Dissect(b, link), binary.BigEndian
	if l.Version == 0 || l.Proto != packet.UDP || len(b) < l.L4+udpHeader {
		return
	}
	if l.Version == 4 {
		be.PutUint16(b[l.L3+2:], uint16(len(b)-l.L3))
		be.PutUint16(b[l.L3+10:], 0)
		be.PutUint16(b[l.L3+10:], ^packettest.Sum(b[l.L3:l.L4]))
	} else {
		be.PutUint16(b[l.L3+4:], uint16(len(b)-l.L3-40))
	}
	be.PutUint16(b[l.L4+4:], uint16(len(b)-l.L4))
	be.PutUint16(b[l.L4+6:], Fold(pseudo(b, &l)+uint64(len(b)-l.L4)))
	if finished {
		var s Segmenter
		_ = s.Start(Header{Flags: NeedsCsum, CsumStart: uint16(l.L4), CsumOffset: 6}, b, link)
		copy(b, s.Next())
	}
}
