package main

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/gate"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/packettest"
)

// hostile makes a stream of odd frames, two bytes of ops for each. Each has its number
// for an addition, by which it is known again.
func hostile(ops, raw []byte) (stream []byte, all []frame.Record) {
	now := uint64(1e18)
	for i := 0; i+1 < len(ops); i += 2 {
		kind, x := ops[i], ops[i+1]
		if kind&7 == 7 && x&1 != 0 { // some time later: of up to a second, or of up to centuries
			now += uint64(x) << (kind >> 3 * 2)
			continue
		}
		rec := frame.Record{Time: now, Extra: []byte{0xcd, 0, byte(len(all))}, Extras: 1}
		rec.Offload, rec.Frame = packettest.Odd(kind, x, raw)
		all = append(all, rec)
		stream = rec.Append(stream)
		now += 1e5
	}
	return stream, all
}

// FuzzGate: whatever the frames, their offload headers and their times, what passes is
// what came, whole or as the segments it is cut into, once and in the order of its flow,
// and changed by nothing but a congestion mark; and the counters know of every frame.
func FuzzGate(f *testing.F) {
	raw := packettest.Spec{V6: true, Ext: 3, TOS: 2, Payload: make([]byte, 50)}.Frame()
	f.Add([]byte("\x40\xff\x02\x50\x48\xff\x06\x00\x41\xff\x43\x02\x0a\x20\x04\x00\x05\x00"), raw, uint8(0), uint8(0))
	f.Add(bytes.Repeat([]byte("\x40\xff\xc8\x90\x22\x60\x06\x06\x67\x40"), 20), raw, uint8(0x13), uint8(1))
	f.Add(bytes.Repeat([]byte("\x40\xff\x42\xff\xff\xff\x01\xff"), 20), raw, uint8(0x2f), uint8(9))
	f.Add(bytes.Repeat([]byte("\x40\xff\x42\xff\x80\xff\x01\xff"), 30), raw, uint8(0x45), uint8(200))
	f.Add(append([]byte("\xff\x01"), bytes.Repeat([]byte("\x40\xff"), 20)...), raw, uint8(1), uint8(0)) // held at the end of time
	f.Fuzz(func(t *testing.T, ops, raw []byte, how, seed uint8) {
		if len(ops) > 200 || len(raw) > 2000 {
			return
		}
		stream, all := hostile(ops, raw)
		cfg := gate.Config{
			Quota: 3000 << (how >> 4), Window: 100 * time.Millisecond, Threshold: float64(how&3) / 3, Queue: 20 * time.Millisecond,
			Policy: gate.Policy(how >> 2 & 1), ECN: how&8 != 0, Offered: how&3 == 3, Align: how&7 == 6, Seed: uint64(seed),
		}
		out, s, err := through(t, cfg, stream, func(f *filter) {
			f.count = gate.Counting(seed % 4)
			if seed&16 != 0 {
				f.unmetered = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/16")}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		passed := passage{t: t, all: all, ecn: cfg.ECN, next: make([]int, len(all)), parts: map[int][][]byte{}, last: map[uint64]int{}}
		read(t, out, passed.record)
		if s.Passed.Frames != uint64(passed.n) {
			t.Fatalf("%d frames passed, and %d are counted", passed.n, s.Passed.Frames)
		}
		lost := s.DroppedEarly.Frames + s.DroppedFull.Frames + s.DroppedQuota.Frames + s.Malformed.Frames + uint64(s.HeldFrames)
		if s.In.Frames != s.Passed.Frames+lost || lost == 0 && passed.whole != len(all) {
			t.Fatalf("%d frames, of which %d passed whole: %+v", len(all), passed.whole, s)
		}
		if control := int64(s.Control.Bytes); !cfg.Offered && s.Used > s.Quota+control {
			t.Fatalf("over the quota by more than the control traffic: %+v", s)
		}
	})
}

// passage is what has come out of a gate.
type passage struct {
	t        *testing.T
	all      []frame.Record
	ecn      bool
	parts    map[int][][]byte // the segments of each frame that was cut, or the frame itself
	next     []int            // the first of them that may still come
	last     map[uint64]int   // the number of the last frame of each flow
	n, whole int
}

const done = 1 << 20

func (p *passage) record(rec *frame.Record, _ string) {
	i := len(p.all)
	if len(rec.Extra) == 3 {
		i = int(rec.Extra[2])
	}
	if i >= len(p.all) || !bytes.Equal(rec.Extra, p.all[i].Extra) || rec.Time != p.all[i].Time {
		p.t.Fatalf("% x, of time %d, never went in", rec.Extra, rec.Time)
	}
	was := &p.all[i]
	p.n++
	parts, ok := p.parts[i]
	switch {
	case ok:
	case bytes.Equal(rec.Offload, was.Offload):
		parts = [][]byte{was.Frame}
	case rec.Offload == nil:
		parts = cut(p.t, was)
	}
	p.parts[i] = parts
	for p.next[i] < len(parts) && !p.same(rec.Frame, parts[p.next[i]]) {
		p.next[i]++ // it was dropped
	}
	if p.next[i] >= len(parts) {
		p.t.Fatalf("frame %d: % x % x is neither it nor a segment of it, or comes too late", i, rec.Offload, rec.Frame)
	}
	if p.next[i]++; p.next[i] == len(parts) {
		p.whole++
		p.next[i] = done
	}
	l := packet.Dissect(was.Frame, packet.Ethernet)
	if l.Control(was.Frame) != packet.NoControl {
		return
	}
	flow := l.Flow(was.Frame, 1)
	if i < p.last[flow] {
		p.t.Fatalf("frame %d comes after %d of its flow", i, p.last[flow])
	}
	p.last[flow] = i
}

// same reports whether a frame is as it was, or has been marked.
func (p *passage) same(got, was []byte) bool {
	l := packet.Dissect(was, packet.Ethernet)
	marked := bytes.Clone(was)
	l.SetCE(marked)
	return bytes.Equal(got, was) || p.ecn && l.ECT(was) && bytes.Equal(got, marked)
}

func cut(t *testing.T, rec *frame.Record) (parts [][]byte) {
	h, err := offload.Parse(rec.Offload)
	var s offload.Segmenter
	if err == nil {
		err = s.Start(h, rec.Frame, packet.Ethernet)
	}
	if err != nil || !h.Super() {
		t.Fatalf("% x was cut: %v", rec.Offload, err)
	}
	for g := s.Next(); g != nil; g = s.Next() {
		parts = append(parts, bytes.Clone(g))
	}
	return parts
}

// What is held of a stream of frames does not come out in one of packets behind it.
func TestLinkChanges(t *testing.T) {
	stream := slices.Concat(
		header(frame.LinkEthernet, "tap0"), records(30, time.Microsecond, plain), header(frame.LinkIP, "tun0"),
		records(3, time.Microsecond, func(int) (o, f []byte) { return nil, packettest.Spec{IP: true}.Frame() }))
	out, s, err := through(t, gate.Config{Quota: 20000, Window: time.Second, Threshold: 0.1, Queue: time.Second}, stream, nil)
	if err != nil || s.Delay == 0 {
		t.Fatalf("%v, %+v", err, s)
	}
	read(t, out, func(rec *frame.Record, link string) {
		if ip := len(rec.Frame) == 40; !rec.IsAnnotation() && ip != (link == frame.LinkIP) {
			t.Errorf("a frame of %d bytes in a stream of link %s", len(rec.Frame), link)
		}
	})
}
