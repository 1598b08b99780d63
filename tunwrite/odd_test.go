package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
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
	fd            int
	vnet, offload bool
	old           bool // before 6.2
	taken         []pair
	calls         int
	lasts         int // how many calls, 0 for ever
}

type pair struct{ header, f []byte }

func (k *kernel) Fd() int       { return k.fd }
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
	case k.calls%7 == 0:
		return unix.EINTR
	case n < 14, k.old && k.vnet && p.header[1] == offload.UDPL4:
		return unix.EINVAL
	}
	k.taken = append(k.taken, p)
	return nil
}

// wire is what becomes of a frame on the wire, and nothing where its header says what
// cannot be.
func wire(t *testing.T, p pair) (all [][]byte) {
	if p.header == nil {
		return [][]byte{p.f}
	}
	h, err := offload.Parse(p.header)
	var s offload.Segmenter
	if err == nil {
		err = s.Start(h, p.f, packet.Ethernet)
	}
	if err != nil {
		return nil
	}
	for g := s.Next(); g != nil; g = s.Next() {
		all = append(all, bytes.Clone(g))
	}
	return all
}

// run writes a stream.
func (k *kernel) run(t *testing.T, link packet.Link, stream []byte) (*writer, error) {
	t.Helper()
	name := t.TempDir() + "/in"
	if err := os.WriteFile(name, stream, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	w := &writer{dev: k, name: "tap1", link: link, in: fdio.NewStream(int(in.Fd()), -1), warn: t.Logf}
	return w, w.run()
}

// A device that goes takes with it what was in hand, which is counted.
func TestGoneInHand(t *testing.T) {
	tcp := packettest.Spec{Payload: packettest.Bytes(100)}.Frame()
	var stream []byte
	for i := range uint16(5) {
		stream = (&frame.Record{Frame: packettest.Spec{UDP: true, ID: i, Payload: packettest.Bytes(100)}.Frame()}).Append(stream)
	}
	stream = (&frame.Record{Frame: tcp}).Append(stream)
	for lasts := 1; lasts < 3; lasts++ {
		k := &kernel{vnet: true, offload: true, lasts: lasts}
		w, err := k.run(t, packet.Ethernet, stream)
		all, lost := w.n.ethernet.Load(), w.n.lostEthernet.Load()
		if !errors.Is(err, tap.ErrGone) || lost == 0 || all != w.n.writtenEthernet.Load()+lost {
			t.Errorf("gone at write %d: %v; %v", lasts, err, &w.n)
		}
	}
}

// A stream without a header is Ethernet, and not for a tun.
func TestNoHeader(t *testing.T) {
	k := &kernel{}
	w, err := k.run(t, packet.IP, (&frame.Record{Frame: packettest.Spec{}.Frame()}).Append(nil))
	if err == nil || !strings.Contains(err.Error(), "offset 0: the stream's link is ethernet, and that of tap1 is ip") || w.n.written.Load() != 0 {
		t.Errorf("%v; %v", err, &w.n)
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
	in, err := os.Create(f.TempDir() + "/in")
	if err != nil {
		f.Fatal(err)
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
		if err := in.Truncate(0); err != nil {
			t.Fatal(err)
		}
		_, _ = in.Seek(0, io.SeekStart)
		if _, err := in.WriteAt(stream, 0); err != nil {
			t.Fatal(err)
		}
		k := &kernel{fd: int(in.Fd()), vnet: how&3 != 0, offload: how&2 != 0, old: how&4 != 0}
		w := &writer{dev: k, name: "tap1", in: fdio.NewStream(int(in.Fd()), -1), warn: func(string, ...any) {}}
		if err := w.run(); err != nil {
			t.Fatal(err)
		}
		var want, got [][]byte
		refused, malformed := uint64(0), uint64(0)
		for _, p := range all {
			parts := wire(t, p)
			switch {
			case k.offload && (len(p.f) < 14 || p.header != nil && k.old && p.header[1] == offload.UDPL4):
				refused++
				continue
			case parts == nil && k.offload: // the device's business
				want = append(want, append(bytes.Clone(p.header), p.f...))
				continue
			case parts == nil:
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
			if parts := wire(t, p); parts != nil {
				got = append(got, parts...)
			} else {
				got = append(got, append(p.header, p.f...))
			}
		}
		for i := range min(len(want), len(got)) {
			if !bytes.Equal(want[i], got[i]) {
				t.Fatalf("frame %d came out as\n% x, want\n% x", i, got[i], want[i])
			}
		}
		if len(got) != len(want) || w.n.refused.Load() != refused || w.n.malformed.Load() != malformed || w.n.frames.Load() != uint64(len(all)) {
			t.Fatalf("%d frames came out, want %d; %v, want %d refused and %d malformed", len(got), len(want), &w.n, refused, malformed)
		}
	})
}

// A message names the record, and each error of the device has one message.
func TestRefused(t *testing.T) {
	in, err := os.Create(t.TempDir() + "/in")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	short := (&frame.Record{Frame: make([]byte, 3)}).Append(nil)
	datagram := (&frame.Record{Frame: packettest.Spec{UDP: true, V6: true, Payload: make([]byte, 100)}.Frame()}).Append(nil)
	header := []byte("\x83\xa6format\xa6frames\xa7version\x01\xa4link\xa2ip")
	stream := slices.Concat(datagram, short, short, datagram, datagram, short, header)
	if _, err := in.WriteAt(stream, 0); err != nil {
		t.Fatal(err)
	}
	var said []string
	k := &kernel{fd: int(in.Fd()), vnet: true, offload: true}
	w := &writer{dev: k, name: "tap1", in: fdio.NewStream(int(in.Fd()), -1)}
	w.warn = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	err = w.run()
	d := len(datagram)
	const refused = ": tap1: frame of 3 bytes refused: invalid argument (too short, or headers that do not fit it); this and further ones are counted"
	want := []string{fmt.Sprintf("offset %d%s", d, refused)}
	if !slices.Equal(said, want) || w.n.merged.Load() != 2 {
		t.Errorf("said %q, want %q; %v", said, want, &w.n)
	}
	if want := fmt.Sprintf("stdin: offset %d: the stream's link is ip, and that of tap1 is ethernet", len(stream)-len(header)); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
