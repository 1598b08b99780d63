package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/gate"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/packettest"
	"framepipe/internal/recorded"

	"github.com/vmihailenco/msgpack/v5"
)

// through runs a stream through a gate whose time is that of the records, from
// a file into a file.
func through(t testing.TB, cfg gate.Config, stream []byte, change func(*filter)) (out []byte, last gate.State, err error) {
	t.Helper()
	in, e1 := os.Create(t.TempDir() + "/in")
	to, e2 := os.Create(t.TempDir() + "/out")
	if err := errors.Join(e1, e2); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer to.Close()
	if _, err := in.Write(stream); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	g, err := gate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &filter{
		gate: g, records: &recorded.Clock{}, seed: cfg.Seed,
		in: fdio.NewStream(int(in.Fd()), int(to.Fd())), out: fdio.NewOutput(int(to.Fd())),
		publish: func(_ int64, s state) { last = s.State },
		warn:    func(string, ...any) {},
	}
	if change != nil {
		change(f)
	}
	err = f.run()
	out, e := os.ReadFile(to.Name())
	if e != nil {
		t.Fatal(e)
	}
	return out, last, err
}

// records encodes frames that arrive at intervals.
func records(n int, interval time.Duration, f func(i int) (offload, frame []byte)) (b []byte) {
	for i := range n {
		o, p := f(i)
		r := frame.Record{Time: uint64(1e18 + int64(i)*int64(interval)), Offload: o, Frame: p}
		b = r.Append(b)
	}
	return b
}

func read(t testing.TB, stream []byte, do func(r *frame.Record)) {
	t.Helper()
	r := frame.NewReader(bytes.NewReader(stream))
	var rec frame.Record
	for {
		err := r.Next(&rec)
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		do(&rec)
	}
}

var quota = gate.Config{Quota: 1e6, Window: time.Second, Threshold: 0.75, Queue: 100 * time.Millisecond, Seed: 1}

// plain is a frame of 1514 bytes of one of several flows.
func plain(i int) (offload, f []byte) {
	return nil, packettest.Spec{Payload: make([]byte, 1460), Port: uint16(5000 + i%3), TOS: 2}.Frame()
}

// An open gate changes nothing, whatever the encoding.
func TestOpen(t *testing.T) {
	stream := records(300, time.Millisecond, plain)
	stream = append([]byte{0x81, 0xa1, 'a', 1}, stream...) // an annotation
	stream = append(stream, 0x94, 1, 0xc0, 0xc4, 3, 1, 2, 3, 7)
	out, s, err := through(t, gate.Config{Quota: 1e9, Window: time.Second, Threshold: 0.75}, stream, nil)
	if err != nil || !bytes.Equal(out, stream) {
		t.Errorf("%d bytes became %d, %v", len(stream), len(out), err)
	}
	if s.Passed.Frames != 301 || !s.Open || s.Passed.Bytes != 300*1518+64 {
		t.Errorf("%+v", s)
	}
}

// The source is published as soon as a header names it, and not with the first frame.
func TestSource(t *testing.T) {
	var sources []string
	header, err := msgpack.Marshal(map[string]any{"format": "frames", "version": 1, "source": "tap7"})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = through(t, quota, header, func(f *filter) {
		f.records, f.wall = nil, steady()
		f.publish = func(_ int64, s state) { sources = append(sources, s.Source) }
	})
	// The second is of the header, the last of the end of the input.
	if n := len(sources); err != nil || n < 3 || sources[n-2] != "tap7" {
		t.Errorf("%q, %v", sources, err)
	}
}

// Twice the same: the stream's time and the seed decide.
func TestRepeatable(t *testing.T) {
	stream := records(3000, 300*time.Microsecond, plain)
	for _, policy := range []gate.Policy{gate.Pace, gate.Random} {
		cfg := quota
		cfg.Policy = policy
		one, _, err1 := through(t, cfg, stream, nil)
		two, _, err2 := through(t, cfg, stream, nil)
		cfg.Seed = 2
		other, s, err3 := through(t, cfg, stream, nil)
		if err := errors.Join(err1, err2, err3); err != nil || !bytes.Equal(one, two) {
			t.Errorf("%v: another output with the same seed, %v", policy, err)
		}
		if bytes.Equal(one, other) || s.DroppedEarly.Frames == 0 {
			t.Errorf("%v: another seed makes no difference: %+v", policy, s)
		}
	}
}

// Clamped, a super-frame is cut, and no window is over the quota; control
// frames and what is not metered pass.
func TestClamped(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(43800), Options: 3}.Super(1448)
	arp := packettest.ARP(2)
	free := packettest.Spec{UDP: true, V6: true, Payload: make([]byte, 100)}.Frame()
	stream := records(400, 10*time.Millisecond, func(i int) (o, f []byte) {
		switch i % 4 {
		case 0:
			return nil, arp
		case 1:
			return nil, free
		}
		return header, super
	})
	out, s, err := through(t, quota, stream, func(f *filter) {
		f.unmetered = []netip.Prefix{netip.MustParsePrefix("fd00::/64")}
	})
	if err != nil {
		t.Fatal(err)
	}
	supers, segments, arps, frees, metered := 0, 0, 0, 0, int64(0)
	read(t, out, func(r *frame.Record) {
		switch {
		case bytes.Equal(r.Frame, arp):
			arps++
		case bytes.Equal(r.Frame, free):
			frees++
		case r.Offload != nil:
			supers++
			metered += 30*1518 + 4*52 // about
		default:
			segments++
			metered += int64(len(r.Frame) + 4)
			l := packet.Dissect(r.Frame, packet.Ethernet)
			if len(r.Frame) > 1514 || packettest.Sum(r.Frame[l.L3:l.L4]) != 0xffff {
				t.Fatalf("a bad segment of %d bytes", len(r.Frame))
			}
		}
	})
	if arps != 100 || frees != 100 {
		t.Errorf("%d of 100 control frames and %d of 100 that are not metered passed", arps, frees)
	}
	if supers < 10 || segments < 1000 || metered > 5.1e6 || metered < 3.5e6 {
		t.Errorf("%d super-frames and %d segments passed, %d bytes", supers, segments, metered)
	}
	if s.Used > s.Quota || s.Control.Frames != 100 || s.Unmetered.Frames != 100 {
		t.Errorf("%+v", s)
	}
}

// A super-frame is counted as what it becomes, however little of it a pipe gives at
// first.
func TestPiecemeal(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(43800), Options: 3}.Super(1448)
	one := records(1, 0, func(int) (o, f []byte) { return header, super })
	_, want, err := through(t, gate.Config{Quota: 1e9, Window: time.Second, Threshold: 0.75}, one, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range []int{1, frame.HeadSizeOffload, frame.HeadSizeOffload + 10, frame.HeadSizeOffload + 60, frame.HeadSizeOffload + headers, 5000} {
		var p, q [2]*os.File
		for _, ends := range []*[2]*os.File{&p, &q} {
			if ends[0], ends[1], err = os.Pipe(); err != nil {
				t.Fatal(err)
			}
		}
		g, err := gate.New(gate.Config{Quota: 1e9, Window: time.Second, Threshold: 0.75})
		if err != nil {
			t.Fatal(err)
		}
		var last gate.State
		f := &filter{
			gate: g, wall: steady(), in: fdio.NewStream(int(p[0].Fd()), int(q[1].Fd())), out: fdio.NewOutput(int(q[1].Fd())),
			publish: func(_ int64, s state) { last = s.State }, warn: func(string, ...any) {},
		}
		ended := make(chan error, 1)
		go func() {
			err := f.run()
			q[1].Close()
			ended <- err
		}()
		go func() {
			for _, part := range [][]byte{one[:first], one[first:]} {
				_, _ = p[1].Write(part)
				time.Sleep(20 * time.Millisecond)
			}
			p[1].Close()
		}()
		out, err := io.ReadAll(q[0])
		if err := errors.Join(err, <-ended); err != nil || !bytes.Equal(out, one) {
			t.Errorf("%d bytes first: %d bytes, %v", first, len(out), err)
		}
		if last.Passed != want.Passed {
			t.Errorf("%d bytes first: counted as %+v, want %+v", first, last.Passed, want.Passed)
		}
		p[0].Close()
		q[0].Close()
	}
}

// With -ecn, what can be marked is marked.
func TestECN(t *testing.T) {
	cfg := quota
	cfg.ECN = true
	out, s, err := through(t, cfg, records(3000, 300*time.Microsecond, plain), func(f *filter) { f.ecn = true })
	if err != nil {
		t.Fatal(err)
	}
	marked := uint64(0)
	read(t, out, func(r *frame.Record) {
		if l := packet.Dissect(r.Frame, packet.Ethernet); packettest.Sum(r.Frame[l.L3:l.L4]) != 0xffff {
			t.Fatal("bad checksum")
		}
		if r.Frame[15]&3 == 3 {
			marked++
		}
	})
	if marked == 0 || marked != s.Marked.Frames || s.DroppedEarly.Frames != 0 {
		t.Errorf("%d frames are marked: %+v", marked, s)
	}
}

// What was whole before the damage passes, and the error says where it is.
func TestDamage(t *testing.T) {
	good := records(10, time.Millisecond, plain)
	for name, tail := range map[string][]byte{"garbage": []byte("GET / HTTP/1.1"), "cut": good[:100], "4 GB": append(bytes.Clone(good[:12]), 0xff, 0xff, 0xff, 0xff)} {
		out, _, err := through(t, quota, append(bytes.Clone(good), tail...), nil)
		if !bytes.Equal(out, good) {
			t.Errorf("%s: %d bytes passed, want %d", name, len(out), len(good))
		}
		if err == nil || !strings.Contains(err.Error(), "offset 15300:") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A header that lies passes an open gate, as whoever cuts the frame finds out. When
// the gate is clamped, which has to cut, it costs its frame and no more. A super-frame of
// what is no IP packet is a lie, too.
func TestLies(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(43800)}.Super(1460)
	session := bytes.Clone(super)
	binary.BigEndian.PutUint16(session[12:], 0x8864) // PPPoE, and without its header
	stream := records(200, time.Second, func(i int) (o, f []byte) {
		h := bytes.Clone(header)
		switch i % 4 {
		case 1:
			binary.LittleEndian.PutUint16(h[6:], 9999) // where the checksum is
		case 2:
			binary.LittleEndian.PutUint16(h[4:], 0) // GSOSize
		case 3:
			return h, session
		}
		return h, super
	})
	out, s, err := through(t, quota, stream, nil)
	if err != nil || !bytes.Equal(out, stream) || s.Malformed.Frames != 0 {
		t.Errorf("open: %v, %+v", err, s)
	}
	var said []string
	cfg := quota
	cfg.Quota = 40e3
	_, s, err = through(t, cfg, stream, func(f *filter) {
		f.warn = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	})
	if err != nil || s.Malformed.Frames != 150 || s.Malformed.Bytes != 150*uint64(len(super)+4) {
		t.Errorf("clamped: %v, %+v", err, s)
	}
	if len(said) != 1 || !strings.Contains(said[0], "offset 43881: frame dropped: super-frame with its checksum at 9999+16, want 34+16;") {
		t.Errorf("clamped: %q", said)
	}
}

// In a PPPoE session addresses, IP bytes and congestion are seen as elsewhere, and its
// echoes, without which the other end hangs up, are control.
func TestSession(t *testing.T) {
	session := func(proto uint16, payload []byte) []byte {
		f := append(bytes.Repeat([]byte{2}, 12), 0x88, 0x64, 0x11, 0, 0, 1, 0, 0)
		binary.BigEndian.PutUint16(f[18:], uint16(len(payload)+2))
		return append(binary.BigEndian.AppendUint16(f, proto), payload...)
	}
	spec := packettest.Spec{IP: true, TOS: 2, Payload: packettest.Bytes(1000)}
	header, super := packettest.Spec{IP: true, Payload: packettest.Bytes(2500)}.Super(1000)
	binary.LittleEndian.PutUint16(header[6:], 22+20)
	x := &filter{count: gate.IP, ecn: true, unmetered: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
	for _, tt := range []struct {
		name string
		rec  frame.Record
		want gate.Packet
	}{
		{"IPv4", frame.Record{Frame: session(0x21, spec.Frame())}, gate.Packet{Bytes: 1040, Unmetered: true, ECN: true}},
		{"padded", frame.Record{Frame: append(session(0x21, packettest.Spec{IP: true}.Frame()), 0)}, gate.Packet{Bytes: 40, Unmetered: true}},
		{"super-frame", frame.Record{Offload: header, Frame: session(0x21, super)}, gate.Packet{Bytes: 2500 + 3*40, Unmetered: true, Super: true}},
		{"echo of LCP", frame.Record{Frame: session(0xc021, []byte{9, 1, 0, 8, 0, 0, 0, 0})}, gate.Packet{Bytes: 8, Control: true}},
	} {
		if p, _, err := x.look(&tt.rec, len(tt.rec.Frame)); p != tt.want || err != nil {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, p, err, tt.want)
		}
	}
}

// Nothing is allocated for a frame, be the gate open or clamped, be it whole
// or to be cut.
func TestAllocates(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(43800), Options: 3}.Super(1448)
	supers := func(int) (o, f []byte) { return header, super }
	for _, tt := range []struct {
		name string
		n    int
		at   time.Duration
		f    func(int) (o, f []byte)
	}{
		{"open", 20000, 10 * time.Millisecond, plain},
		{"clamped", 20000, 500 * time.Microsecond, plain},
		{"cut", 2000, 5 * time.Millisecond, supers},
	} {
		stream := records(tt.n, tt.at, tt.f)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, s, err := through(t, quota, stream, nil)
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		// Beside the buffers, and the frames that may be held at once.
		const fixed = 1000
		if n := after.Mallocs - before.Mallocs; n > fixed {
			t.Errorf("%s: %d allocations for %d frames", tt.name, n, tt.n)
		}
		t.Logf("%s: %d allocations, %d frames, %d passed", tt.name, after.Mallocs-before.Mallocs, s.In.Frames, s.Passed.Frames)
	}
}

// The other tools count bytes on the wire as the gate does.
func TestCountsAlike(t *testing.T) {
	for _, size := range []int{0, 18, 19, 100, 1400, 8000} {
		for _, s := range []packettest.Spec{{}, {UDP: true}, {V6: true}, {IP: true}, {Tags: 2}} {
			s.Payload = packettest.Bytes(size)
			rec := frame.Record{Frame: s.Frame()}
			if size > 1000 {
				rec.Offload, rec.Frame = s.Super(536)
			}
			f := &filter{}
			if s.IP {
				f.link = packet.IP
			}
			p, _, err := f.look(&rec, len(rec.Frame))
			if err != nil {
				t.Fatal(err)
			}
			if _, n, _ := offload.OnWire(rec.Offload, rec.Frame, len(rec.Frame), f.link); int64(n) != p.Bytes {
				t.Errorf("%+v, %d: %d bytes, and %d for the gate", s, size, n, p.Bytes)
			}
		}
	}
}
