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
	"slices"
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
)

// newFilter returns a filter between two files whose time is that of the records. last gets
// its states.
func newFilter(t testing.TB, cfg gate.Config, in, out *os.File, last *gate.State) *filter {
	t.Helper()
	g, err := gate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &filter{
		gate: g, cfg: cfg, records: &recorded.Clock{},
		in: fdio.NewStream(int(in.Fd()), int(out.Fd())), out: fdio.NewOutput(int(out.Fd())),
		publish: func(_ int64, s state) { *last = s.State }, warn: func(string, ...any) {},
	}
}

// through runs a stream through a gate, from a file into a file.
func through(t testing.TB, cfg gate.Config, stream []byte, change func(*filter)) (out []byte, last gate.State, err error) {
	t.Helper()
	dir := t.TempDir()
	err = os.WriteFile(dir+"/in", stream, 0o600)
	in, e1 := os.Open(dir + "/in")
	to, e2 := os.Create(dir + "/out")
	if err := errors.Join(err, e1, e2); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer to.Close()
	f := newFilter(t, cfg, in, to, &last)
	if change != nil {
		change(f)
	}
	err = f.run()
	out, e := os.ReadFile(to.Name())
	return out, last, errors.Join(err, e)
}

// records encodes frames that arrive at intervals.
func records(n int, interval time.Duration, f func(i int) (offload, frame []byte)) (b []byte) {
	for i := range n {
		o, p := f(i)
		r := frame.Record{Time: uint64(1e18 + int64(i)*int64(interval)), Offload: o, Frame: p}
		if b = r.Append(b); i == 0 {
			b = slices.Grow(b, n*len(b)) // to copy it again and again took most of the time
		}
	}
	return b
}

// header encodes the header of a stream.
func header(link, source string) []byte {
	var b bytes.Buffer
	w := frame.NewWriter(&b)
	_ = w.Header(link, source)
	_ = w.Flush()
	return b.Bytes()
}

// read calls do for each record of a stream, and for the link that it has.
func read(t testing.TB, stream []byte, do func(rec *frame.Record, link string)) {
	t.Helper()
	r := frame.NewReader(bytes.NewReader(stream))
	var rec frame.Record
	err := r.Next(&rec)
	for ; err == nil; err = r.Next(&rec) {
		do(&rec, r.Link())
	}
	if err != io.EOF {
		t.Fatal(err)
	}
}

var (
	quota = gate.Config{Quota: 1e6, Window: time.Second, Threshold: 0.75, Queue: 100 * time.Millisecond, Seed: 1}
	ample = gate.Config{Quota: 1e9, Window: time.Second, Threshold: 0.75}
)

// plain is a frame of 1514 bytes of one of several flows.
func plain(i int) (offload, f []byte) {
	return nil, packettest.Spec{Payload: make([]byte, 1460), Port: uint16(5000 + i%3), TOS: 2}.Frame()
}

// An open gate changes no byte, in any encoding. Whole records before damage pass, and the error names
// the place of the damage.
func TestOpen(t *testing.T) {
	stream := append([]byte{0x81, 0xa1, 'a', 1}, records(300, time.Millisecond, plain)...) // an annotation
	stream = append(stream, 0x94, 1, 0xc0, 0xc4, 3, 1, 2, 3, 7)
	for name, damage := range map[string][]byte{
		"none": nil, "garbage": []byte("GET / HTTP/1.1"), "cut": stream[4:104],
		"4 GB": append(bytes.Clone(stream[4:16]), 0xff, 0xff, 0xff, 0xff),
	} {
		out, s, err := through(t, ample, slices.Concat(stream, damage), nil)
		if !bytes.Equal(out, stream) || s.Passed.Frames != 301 || !s.Open || s.Passed.Bytes != 300*1518+64 {
			t.Errorf("%s: %d bytes became %d, %+v", name, len(stream), len(out), s)
		}
		where := fmt.Sprintf("offset %d:", len(stream))
		if (err == nil) != (damage == nil) || err != nil && !strings.Contains(err.Error(), where) {
			t.Errorf("%s: %v, want %s", name, err, where)
		}
	}
}

// The source is published as soon as a header names it, and not with the first frame.
func TestSource(t *testing.T) {
	var sources []string
	_, _, err := through(t, quota, header(frame.LinkEthernet, "tap7"), func(f *filter) {
		f.records, f.wall = nil, steady()
		f.publish = func(_ int64, s state) { sources = append(sources, s.Source) }
	})
	// The second is of the header, the last of the end of the input.
	if n := len(sources); err != nil || n < 3 || sources[n-2] != "tap7" {
		t.Errorf("%q, %v", sources, err)
	}
}

// A record of a capture has a wrong time: what passes of the rest is what passes of it alone.
func TestOutOfLine(t *testing.T) {
	day := records(3000, 300*time.Microsecond, plain)
	one := len(day) / 3000
	want, _, err := through(t, quota, day, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []uint64{0, 1e18 - 1e15, 1e18 + 3600e9, 1<<64 - 1} {
		bent := bytes.Clone(day)
		binary.BigEndian.PutUint64(bent[1499*one+2:], wrong)
		got, _, err := through(t, quota, bent, nil)
		if err != nil || len(got) < len(want)*99/100 || len(got) > len(want) {
			t.Errorf("one record at %d: %d bytes pass, want %d, %v", wrong, len(got), len(want), err)
		}
	}
}

// Clamped, a super-frame is cut, and no window is over the quota; control
// frames and what is not metered pass.
func TestClamped(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(43800), Options: 3}.Super(1448)
	free := packettest.Spec{UDP: true, V6: true, Payload: make([]byte, 100)}.Frame()
	stream := records(400, 10*time.Millisecond, func(i int) (o, f []byte) {
		switch i % 4 {
		case 0:
			return nil, packettest.ARP(2)
		case 1:
			return nil, free
		}
		return header, super
	})
	out, s, err := through(t, quota, stream, func(f *filter) {
		f.unmetered = []netip.Prefix{netip.MustParsePrefix("fd00::/64")}
	})
	supers, segments := 0, 0
	read(t, out, func(r *frame.Record, _ string) {
		if r.Offload != nil {
			supers++
		} else if len(r.Frame) > 1000 {
			segments++
		}
	})
	metered := s.Passed.Bytes - s.Control.Bytes - s.Unmetered.Bytes
	if err != nil || s.Control.Frames != 100 || s.Unmetered.Frames != 100 || s.Used > s.Quota {
		t.Errorf("of 100 control frames and 100 that are not metered: %+v, %v", s, err)
	}
	if supers < 10 || segments < 1000 || metered > 5.1e6 || metered < 3.5e6 {
		t.Errorf("%d super-frames and %d segments passed, %d bytes", supers, segments, metered)
	}
}

// A super-frame is counted as what it becomes, however little of it a pipe gives at
// first.
func TestPiecemeal(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(43800), Options: 3}.Super(1448)
	one := records(1, 0, func(int) (o, f []byte) { return header, super })
	_, want, err := through(t, ample, one, nil)
	if err != nil {
		t.Fatal(err)
	}
	const head = frame.HeadSizeOffload
	for _, first := range []int{1, head, head + 10, head + 60, head + headers, 5000} {
		in, to, err1 := os.Pipe()
		from, out, err2 := os.Pipe()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		var last gate.State
		f := newFilter(t, ample, in, out, &last)
		f.records, f.wall = nil, steady()
		go func() {
			for _, part := range [][]byte{one[:first], one[first:]} {
				_, _ = to.Write(part)
				time.Sleep(20 * time.Millisecond)
			}
			to.Close()
		}()
		err := errors.Join(f.run(), in.Close(), out.Close()) // all that it writes has room in the pipe
		got, e := io.ReadAll(from)
		if err := errors.Join(err, e, from.Close()); err != nil || !bytes.Equal(got, one) || last.Passed != want.Passed {
			t.Errorf("%d bytes first: %d bytes, counted as %+v, want %+v, %v", first, len(got), last.Passed, want.Passed, err)
		}
	}
}

// With -ecn, what can be marked is marked instead of dropped.
func TestECN(t *testing.T) {
	cfg := quota
	cfg.ECN = true
	out, s, err := through(t, cfg, records(3000, 300*time.Microsecond, plain), nil)
	marked := uint64(0)
	read(t, out, func(r *frame.Record, _ string) {
		if r.Frame[15]&3 == 3 {
			marked++
		}
	})
	if err != nil || marked == 0 || marked != s.Marked.Frames || s.DroppedEarly.Frames != 0 {
		t.Errorf("%d frames are marked: %+v, %v", marked, s, err)
	}
}

// A header that lies passes an open gate, as whoever cuts the frame finds out. When
// the gate is clamped, which has to cut, it costs its frame and no more. A super-frame of
// what is no IP packet is a lie, too.
func TestLies(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(43800)}.Super(1460)
	session := bytes.Clone(super)
	binary.BigEndian.PutUint16(session[12:], 0x8864) // PPPoE, and without its header
	stream := records(40, time.Second, func(i int) (o, f []byte) {
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
	said := ""
	cfg := quota
	cfg.Quota = 40e3
	_, s, err = through(t, cfg, stream, func(f *filter) {
		f.warn = func(format string, args ...any) { said += fmt.Sprintf(format, args...) + "\n" }
	})
	if err != nil || s.Malformed.Frames != 30 || s.Malformed.Bytes != 30*uint64(len(super)+4) {
		t.Errorf("clamped: %v, %+v", err, s)
	}
	const want = "offset 43881: frame dropped: super-frame with its checksum at 9999+16, want 34+16;"
	if !strings.HasPrefix(said, want) || strings.Count(said, "\n") != 1 {
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
	x := &filter{count: gate.IP, cfg: gate.Config{ECN: true}, unmetered: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
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

// Nothing is allocated for a frame, be the gate open or clamped, be it whole or to be cut.
func TestAllocates(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(43800), Options: 3}.Super(1448)
	supers := func(int) (o, f []byte) { return header, super }
	for _, tt := range []struct {
		name string
		n    int
		at   time.Duration
		f    func(int) (o, f []byte)
	}{
		{"open", 5000, 10 * time.Millisecond, plain},
		{"clamped", 5000, 500 * time.Microsecond, plain},
		{"cut", 500, 5 * time.Millisecond, supers},
	} {
		stream := records(tt.n, tt.at, tt.f)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, s, err := through(t, quota, stream, nil)
		runtime.ReadMemStats(&after)
		// Beside the buffers, and the frames that may be held at once.
		const fixed = 1000
		if n := after.Mallocs - before.Mallocs; err != nil || n > fixed {
			t.Errorf("%s: %d allocations for %d frames, of which %d passed, %v", tt.name, n, s.In.Frames, s.Passed.Frames, err)
		}
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
