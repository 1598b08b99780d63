package offload

import (
	"bytes"
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

// What must not be merged at all.
func TestMergeRefuses(t *testing.T) {
	good := packettest.Spec{UDP: true, Payload: []byte("hello")}
	fragment := good.Frame()
	fragment[14+6] = 0x20
	wrong := good.Frame()
	wrong[14+10]++
	unsummed := good.Frame()
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
	} {
		var m Merger
		if m.Add(x[0], x[1], packet.Ethernet) || m.Len() != 0 {
			t.Errorf("%s is gathered", name)
		}
	}
}

func FuzzMerge(f *testing.F) {
	hdr, b := packettest.Spec{UDP: true, Payload: []byte("hello")}.Super(0)
	f.Add(hdr, b, uint8(0))
	f.Add([]byte(nil), packettest.Spec{UDP: true, V6: true, Payload: []byte("hello")}.Frame(), uint8(3))
	f.Fuzz(func(t *testing.T, hdr, b []byte, n uint8) {
		if len(hdr) == 0 {
			hdr = nil
		}
		for _, link := range []packet.Link{packet.Ethernet, packet.IP} {
			var m Merger
			count := 0
			for range n {
				if !m.Add(hdr, b, link) {
					break
				}
				count++
			}
			if count == 0 {
				continue
			}
			h, room := m.Take()
			got := segment(t, h, room, link)
			if len(got) != count {
				t.Fatalf("%d segments of %d frames", len(got), count)
			}
			if want := finished(t, hdr, b, link); !bytes.Equal(got[0], want) {
				t.Fatalf("came out % x\nwent in  % x", got[0], want)
			}
		}
	})
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
