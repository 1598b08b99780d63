package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"testing"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/packettest"
	"framepipe/internal/tap"

	"golang.org/x/sys/unix"
)

// kernel is a device that keeps what it is given, and refuses what a test says.
type kernel struct {
	vnet, offload bool
	old           bool // before 6.2
	down          bool
	taken         []pair
	calls         int
	lasts         int // how many calls, 0 for ever
}

type pair struct{ header, f []byte }

func (k *kernel) Fd() int       { return -1 }
func (k *kernel) VNetHdr() bool { return k.vnet }
func (k *kernel) Offload() bool { return k.offload }

func (k *kernel) Write(buf []byte, off, n int) error {
	var p pair
	if k.vnet {
		p.header = bytes.Clone(buf[off-offload.HeaderSize : off])
	}
	p.f = bytes.Clone(buf[off : off+n])
	switch k.calls++; {
	case k.calls == k.lasts:
		return tap.ErrGone
	case k.down:
		return unix.EIO
	case k.calls%7 == 0:
		return unix.EINTR
	case n < 14, k.old && k.vnet && p.header[1] == offload.UDPL4:
		return unix.EINVAL
	}
	k.taken = append(k.taken, p)
	return nil
}

// newWriter returns a writer of a stream to a device, tap1.
func newWriter(t testing.TB, dev sink, stream []byte) *writer {
	t.Helper()
	in, err := os.CreateTemp(t.TempDir(), "")
	if err == nil {
		_, err = in.WriteAt(stream, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return &writer{dev: dev, name: "tap1", in: fdio.NewStream(int(in.Fd()), dev.Fd()), warn: t.Logf}
}

// wire is what becomes of a frame on the wire. One whose header is not valid stays as it is, with it.
func wire(p pair) (all [][]byte, valid bool) {
	if p.header == nil {
		return [][]byte{p.f}, true
	}
	h, err := offload.Parse(p.header)
	var s offload.Segmenter
	if err == nil {
		err = s.Start(h, p.f, packet.Ethernet)
	}
	if err != nil {
		return [][]byte{slices.Concat(p.header, p.f)}, false
	}
	for g := s.Next(); g != nil; g = s.Next() {
		all = append(all, bytes.Clone(g))
	}
	return all, true
}

// A stream goes on over frames that are refused, and ends at a link that is not the device's and
// when the device is gone. Messages name the record, and each error of the device has one. What did
// not get through is counted, frames that were refused together one by one.
func TestRefused(t *testing.T) {
	short := (&frame.Record{Frame: make([]byte, 3)}).Append(nil)
	datagram := (&frame.Record{Frame: packettest.Spec{UDP: true, V6: true, Payload: make([]byte, 100)}.Frame()}).Append(nil)
	tcp := (&frame.Record{Frame: packettest.Spec{}.Frame()}).Append(nil)
	header := []byte("\x83\xa6format\xa6frames\xa7version\x01\xa4link\xa2ip")
	three := slices.Repeat(datagram, 3)
	d := len(datagram)
	const gone = "tap1: the device has gone away"
	for _, tt := range []struct {
		name            string
		k               kernel
		link            packet.Link
		stream          []byte
		said, err       string
		merged, refused uint64
		lost            bool
	}{
		{
			name:   "short frames, then another link",
			stream: slices.Concat(datagram, short, short, datagram, datagram, short, header),
			said: fmt.Sprintf("offset %d: tap1: frame of 3 bytes refused: invalid argument"+
				" (too short, or headers that do not fit it); this and further ones are counted\n", d),
			err:    fmt.Sprintf("stdin: offset %d: the stream's link is ip, and that of tap1 is ethernet", 3*(d+len(short))),
			merged: 2, refused: 3, lost: true,
		},
		{
			name: "without a header it is Ethernet", link: packet.IP, stream: tcp,
			err: "stdin: offset 0: the stream's link is ethernet, and that of tap1 is ip",
		},
		{
			name: "down", k: kernel{down: true}, stream: three,
			said: "offset 0: tap1: 3 frames in one of 362 bytes refused: input/output error (is it up?);" +
				" this and further ones are counted\n",
			refused: 3, lost: true,
		},
		{name: "gone", k: kernel{lasts: 1}, stream: append(three, tcp...), err: gone, lost: true},
		{name: "gone later", k: kernel{lasts: 2}, stream: append(three, tcp...), err: gone, merged: 3, lost: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.k.vnet, tt.k.offload = true, true
			w := newWriter(t, &tt.k, tt.stream)
			w.link = tt.link
			said := ""
			w.warn = func(format string, args ...any) { said += fmt.Sprintf(format, args...) + "\n" }
			err := w.run()
			if said != tt.said || fmt.Sprint(err) != cmp.Or(tt.err, "<nil>") {
				t.Errorf("%v, said %q, want %s, %q", err, said, tt.err, tt.said)
			}
			lost := w.n.lostEthernet
			if w.n.merged != tt.merged || w.n.refused != tt.refused || (lost > 0) != tt.lost ||
				w.n.ethernet != w.n.writtenEthernet+lost {
				t.Errorf("%v", w.line())
			}
		})
	}
}

// FuzzWrite: whatever the stream, the device is given all of it, in order, as it is on
// the wire in the end; one without offload gets only whole frames, and one with it
// what is there, but for datagrams that go together.
func FuzzWrite(f *testing.F) {
	raw := packettest.Spec{V6: true, Ext: 3, Payload: make([]byte, 50)}.Frame()
	for how := range uint8(8) {
		f.Add([]byte("\x41\x05\x41\x06\x41\x07\x48\xff\x02\x50\x07\x00\x41\xff\x43\x02\x0a\x20\x04\x00\x06\x00\x05\xf0\x0c\x09\x0c\x09"), raw, how)
		f.Add([]byte("\x09\xe0\x0c\x05\x09\x09\x0c\x0b"), raw, how)
		f.Add(bytes.Repeat([]byte("\x09\x09\x0c\x09\x05\xe0"), 30), raw, how)
	}
	f.Fuzz(func(t *testing.T, ops, raw []byte, how uint8) {
		if len(ops) > 200 || len(raw) > 2000 {
			return
		}
		var all []pair
		var stream []byte
		for ; len(ops) >= 2; ops = ops[2:] {
			var p pair
			p.header, p.f = packettest.Odd(ops[0], ops[1], raw)
			all = append(all, p)
			stream = (&frame.Record{Offload: p.header, Frame: p.f, Extra: raw[:0], Time: uint64(len(all))}).Append(stream)
		}
		k := &kernel{vnet: how&3 != 0, offload: how&2 != 0, old: how&4 != 0}
		w := newWriter(t, k, stream)
		if err := w.run(); err != nil {
			t.Fatal(err)
		}
		var want, got [][]byte
		refused, malformed := uint64(0), uint64(0)
		for _, p := range all {
			parts, valid := wire(p)
			switch {
			case k.offload && (len(p.f) < 14 || p.header != nil && k.old && p.header[1] == offload.UDPL4):
				refused++
				continue
			case !k.offload && !valid: // with offload it is the device's business
				malformed++
				continue
			}
			for _, g := range parts {
				if len(g) < 14 {
					refused++
				} else {
					want = append(want, g)
				}
			}
		}
		for _, p := range k.taken {
			if !k.offload && p.header != nil && offload.Needed(p.header) {
				t.Fatalf("a device without offload was given % x", p.header)
			}
			parts, _ := wire(p)
			got = append(got, parts...)
		}
		for i := range min(len(want), len(got)) {
			if !bytes.Equal(want[i], got[i]) {
				t.Fatalf("frame %d came out as\n% x, want\n% x", i, got[i], want[i])
			}
		}
		if len(got) != len(want) || w.n.refused != refused || w.n.malformed != malformed || w.n.frames != uint64(len(all)) {
			t.Fatalf("%d frames came out, want %d; %v, want %d refused and %d malformed", len(got), len(want), w.line(), refused, malformed)
		}
	})
}
