package main

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/gate"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/packettest"
	"framepipe/internal/recorded"
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
	in, err := os.Create(f.TempDir() + "/in")
	if err != nil {
		f.Fatal(err)
	}
	out, err := os.Create(in.Name() + ".out")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, ops, raw []byte, how, seed uint8) {
		if len(ops) > 200 || len(raw) > 2000 {
			return
		}
		stream, all := hostile(ops, raw)
		for _, file := range []*os.File{in, out} {
			if err := file.Truncate(0); err != nil {
				t.Fatal(err)
			}
			_, _ = file.Seek(0, io.SeekStart)
		}
		if _, err := in.WriteAt(stream, 0); err != nil {
			t.Fatal(err)
		}
		cfg := gate.Config{
			Quota: 3000 << (how >> 4), Window: 100 * time.Millisecond, Threshold: float64(how&3) / 3, Queue: 20 * time.Millisecond,
			Policy: gate.Policy(how >> 2 & 1), ECN: how&8 != 0, Offered: how&3 == 3, Align: how&7 == 6, Seed: uint64(seed),
		}
		g, err := gate.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var s state
		run := &filter{
			gate: g, records: &recorded.Clock{}, ecn: cfg.ECN, seed: uint64(seed), count: gate.Counting(seed % 4),
			in: fdio.NewStream(int(in.Fd()), int(out.Fd())), out: fdio.NewOutput(int(out.Fd())),
			publish: func(_ int64, x state) { s = x }, warn: func(string, ...any) {},
		}
		if seed&16 != 0 {
			run.unmetered = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/16")}
		}
		if err := run.run(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		passed := passage{t: t, all: all, ecn: cfg.ECN, seen: make([]int, len(all)), segments: map[int][][]byte{}, last: map[uint64]int{}}
		read(t, b, passed.record)
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
	seen     []int // how often, or how many segments
	segments map[int][][]byte
	last     map[uint64]int // the number of the last of each flow
	n, whole int
}

func (p *passage) record(rec *frame.Record) {
	i := len(p.all)
	if len(rec.Extra) == 3 {
		i = int(rec.Extra[2])
	}
	if i >= len(p.all) || !bytes.Equal(rec.Extra, p.all[i].Extra) || rec.Time != p.all[i].Time {
		p.t.Fatalf("% x, of time %d, never went in", rec.Extra, rec.Time)
	}
	was := &p.all[i]
	p.n++
	want := was.Frame
	if was.Offload != nil && rec.Offload == nil {
		parts, ok := p.segments[i]
		if !ok {
			parts = cut(p.t, was)
			p.segments[i] = parts
		}
		// Some may have been dropped.
		for p.seen[i] < len(parts) && !p.same(rec.Frame, parts[p.seen[i]]) {
			p.seen[i]++
		}
		if p.seen[i] >= len(parts) {
			p.t.Fatalf("frame %d: % x is none of its segments, or comes too late", i, rec.Frame)
		}
		if p.seen[i]++; p.seen[i] == len(parts) {
			p.whole++
		}
	} else {
		if p.seen[i]++; p.seen[i] != 1 || !bytes.Equal(rec.Offload, was.Offload) || !p.same(rec.Frame, want) {
			p.t.Fatalf("frame %d came out %d times, as\n% x % x, was\n% x % x", i, p.seen[i], rec.Offload, rec.Frame, was.Offload, want)
		}
		p.whole++
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

// same reports whether a frame is as it was, or has been marked, with the IPv4 checksum
// no more wrong than it was.
func (p *passage) same(got, was []byte) bool {
	if bytes.Equal(got, was) {
		return true
	}
	l := packet.Dissect(was, packet.Ethernet)
	if !p.ecn || len(got) != len(was) || l.Version == 0 {
		return false
	}
	want := bytes.Clone(was)
	switch ip := want[l.L3:]; l.Version {
	case 4:
		if ip[1]&3 == 0 {
			return false
		}
		ip[1] |= 3
		copy(ip[10:], got[l.L3+10:l.L3+12])
		return bytes.Equal(got, want) && packettest.Sum(got[l.L3:l.L4])%0xffff == packettest.Sum(was[l.L3:l.L4])%0xffff
	default:
		if ip[1]>>4&3 == 0 {
			return false
		}
		ip[1] |= 0x30
		return bytes.Equal(got, want)
	}
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

// Frames that are held when time comes to its end do not hold up the tool's.
func TestEndOfTime(t *testing.T) {
	var stream []byte
	for i := range 20 {
		_, f := plain(i)
		stream = (&frame.Record{Time: 1<<64 - 1 - uint64(i), Frame: f}).Append(stream)
	}
	out, s, err := through(t, gate.Config{Quota: 10000, Window: time.Second, Threshold: 0.1, Queue: 10 * time.Second}, stream, nil)
	if err != nil || s.HeldFrames != 0 || s.DroppedQuota.Frames == 0 || s.Passed.Frames+s.DroppedQuota.Frames+s.DroppedEarly.Frames+s.DroppedFull.Frames != 20 || len(out) == 0 {
		t.Errorf("%d bytes, %v, %+v", len(out), err, s)
	}
}

// What is held of a stream of frames does not come out in one of packets behind it.
func TestLinkChanges(t *testing.T) {
	header := func(link string) []byte {
		var b bytes.Buffer
		w := frame.NewWriter(&b)
		if err := w.Header(link, "tap0"); err != nil {
			t.Fatal(err)
		}
		_ = w.Flush()
		return b.Bytes()
	}
	stream := append(header(frame.LinkEthernet), records(30, time.Microsecond, plain)...)
	stream = append(stream, header(frame.LinkIP)...)
	stream = append(stream, records(3, time.Microsecond, func(int) (o, f []byte) { return nil, packettest.Spec{IP: true}.Frame() })...)
	out, s, err := through(t, gate.Config{Quota: 20000, Window: time.Second, Threshold: 0.1, Queue: time.Second}, stream, nil)
	if err != nil || s.Delay == 0 {
		t.Fatalf("%v, %+v", err, s)
	}
	r := frame.NewReader(bytes.NewReader(out))
	var rec frame.Record
	for err = r.Next(&rec); err == nil; err = r.Next(&rec) {
		if ip := len(rec.Frame) == 40; !rec.IsAnnotation() && ip != (r.Link() == frame.LinkIP) {
			t.Errorf("a frame of %d bytes in a stream of link %s", len(rec.Frame), r.Link())
		}
	}
	if err != io.EOF {
		t.Error(err)
	}
}
