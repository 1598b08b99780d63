package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
	"framepipe/internal/packettest"
	"framepipe/internal/tap"

	"golang.org/x/sys/unix"
)

// kernel is a device that hands over what a test says, header and frame in one piece,
// and is then gone.
type kernel struct {
	fd   int // readable
	vnet bool
	left [][]byte
}

func (k *kernel) Fd() int       { return k.fd }
func (k *kernel) VNetHdr() bool { return k.vnet }
func (k *kernel) Close() error  { return nil }
func (k *kernel) Waits() bool   { return false }

func (k *kernel) Read(buf []byte, off int) (int, error) {
	if len(k.left) == 0 {
		return 0, tap.ErrGone
	}
	prefix := 0
	if k.vnet {
		prefix = offload.HeaderSize
	}
	n := copy(buf[off-prefix:], k.left[0])
	k.left = k.left[1:]
	return max(n-prefix, 0), nil
}

// readFrom runs a reader on what a kernel hands over, and returns the stream and what
// was said.
func readFrom(t testing.TB, k *kernel, link packet.Link, out *os.File) (stream []byte, r *reader, said []string) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	if _, err := unix.Write(p[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	k.fd = p[0]
	r = &reader{
		dev: k, link: link, out: fdio.NewOutput(int(out.Fd())), stop: -1,
		warn: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
	}
	if err := r.run("tap0"); !errors.Is(err, tap.ErrGone) {
		t.Fatal(err)
	}
	stream, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return stream, r, said
}

// A kernel whose headers cannot be costs those frames, one by one, and no others.
func TestOddHeaders(t *testing.T) {
	tcp, super := packettest.Spec{Payload: packettest.Bytes(4000)}.Super(1000)
	half, unfinished := packettest.Spec{UDP: true, Payload: packettest.Bytes(40)}.Super(0)
	plain := packettest.Spec{Payload: packettest.Bytes(60)}.Frame()
	pppoe := append(append(bytes.Clone(super[:12]), 0x88, 0x64, 0x11, 0, 0, 1, 0, 22, 0, 0x21), super[14:]...)
	lie := func(header []byte, at int, v byte) []byte {
		b := bytes.Clone(header)
		b[at] = v
		return b
	}
	none := make([]byte, offload.HeaderSize)
	var k kernel
	k.vnet = true
	var want [][]byte
	bad := 0
	add := func(header, f []byte, good bool) {
		k.left = append(k.left, append(bytes.Clone(header), f...))
		if good {
			want = append(want, f)
		} else {
			bad++
		}
	}
	for range 3 {
		add(none, plain, true)
		add(tcp, super, true)
		add(lie(tcp, 1, 4), super, false)    // IPv6
		add(lie(tcp, 1, 5), super, false)    // UDP
		add(lie(tcp, 1, 3), super, false)    // UFO
		add(lie(tcp, 1, 0x45), super, false) // nothing
		add(half, unfinished, true)
		add(lie(tcp, 6, 0), super, false)          // a checksum from elsewhere on
		add(lie(half, 7, 0xff), unfinished, false) // from outside of the frame on
		add(lie(half, 6, 81), unfinished, false)   // whose field ends outside of it
		add(lie(tcp, 8, 6), super, false)          // at another place
		add(append(bytes.Clone(tcp[:4]), 0, 0, 34, 0, 16, 0), super, false)
		add(append(bytes.Clone(tcp[:4]), 0xff, 0xff, 34, 0, 16, 0), super, false)
		add(lie(tcp, 2, 0xff), super, true) // nobody goes by the length of the headers
		add(tcp, super[:40], false)
		add(tcp, plain[:14], false)
		add(tcp, pppoe, false) // in name only
		add(lie(none, 0, 2), plain, true)
		add(none[:7], nil, true) // less than a header
		add(lie(none, 0, 0xfe), plain, true)
	}
	out, err := os.Create(t.TempDir() + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stream, r, said := readFrom(t, &k, packet.Ethernet, out)
	in := frame.NewReader(bytes.NewReader(stream))
	var rec frame.Record
	for i := 0; ; {
		err := in.Next(&rec)
		if err == io.EOF && i == len(want) {
			break
		}
		if err != nil {
			t.Fatalf("%d frames of %d: %v", i, len(want), err)
		}
		if rec.IsAnnotation() {
			continue
		}
		if !bytes.Equal(rec.Frame, want[i]) {
			t.Fatalf("frame %d: % x", i, rec.Frame)
		}
		i++
	}
	if r.n.malformed.Load() != uint64(bad) || r.n.frames.Load() != uint64(len(want)) || len(said) != 2 ||
		!strings.HasPrefix(said[0], "frame dropped: super-frame of type 4, but IP version 4") || said[1] != fmt.Sprintf("tap0: dropped %d frames with an invalid offload header", bad) {
		t.Errorf("%d refused: %v; said %q", bad, &r.n, said)
	}
}

// A flood of frames that are refused does not hold up what came before it.
func TestOddFlood(t *testing.T) {
	tcp, super := packettest.Spec{Payload: packettest.Bytes(40)}.Super(10)
	good := append(bytes.Clone(tcp), super...)
	tcp[1] = 9
	k := &kernel{vnet: true, left: [][]byte{good}}
	for range 3 * most {
		k.left = append(k.left, append(tcp, super...))
	}
	r := &reader{dev: k, warn: func(string, ...any) {}, buf: make([]byte, batch+longest), head: frame.HeadSize}
	if n, err := r.drain(); n == 0 || err != nil || len(k.left) < 2*most {
		t.Errorf("%d bytes, %v, %d left", n, err, len(k.left))
	}
}

// endless is a device with more and more frames, which asks to stop at some time.
type endless struct {
	kernel
	stop, left int
}

func (k *endless) Read(buf []byte, off int) (int, error) {
	if k.left--; k.left == 0 {
		unix.Close(k.stop)
	}
	if k.left < -1e6 {
		return 0, tap.ErrGone
	}
	return 60, nil
}

// A flood, in which there is always another frame, does not keep a reader from ending
// when it is asked to.
func TestStopInFlood(t *testing.T) {
	var p, stop [2]int
	if err := errors.Join(unix.Pipe(p[:]), unix.Pipe(stop[:])); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	defer unix.Close(stop[0])
	if _, err := unix.Write(p[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	k := &endless{kernel{fd: p[0]}, stop[1], 20000}
	r := &reader{dev: k, out: fdio.NewOutput(int(null.Fd())), stop: stop[0], coalesce: 50 * time.Microsecond, warn: t.Logf}
	if err := r.run("tap0"); err != nil || k.left < -2*most {
		t.Errorf("%v, %d frames after it was asked to stop", err, -k.left)
	}
}

// FuzzRead: whatever a kernel hands over, the stream has all of it but for what was
// refused, in order, with the header where it says anything.
func FuzzRead(f *testing.F) {
	raw := packettest.Spec{V6: true, Ext: 3, Payload: make([]byte, 50)}.Frame()
	f.Add([]byte("\x40\xff\x02\x50\x48\xff\x07\x00\x41\xff\x43\x02\x0a\x20\x04\x00\x06\x00\xff\x13\x02\x0a"), raw, true)
	f.Add([]byte("\x40\xff\x02\x50\xff\x07\x48\xff"), raw, false)
	out, err := os.Create(f.TempDir() + "/stream")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, ops, raw []byte, vnet bool) {
		if len(ops) > 200 || len(raw) > 2000 {
			return
		}
		if err := out.Truncate(0); err != nil {
			t.Fatal(err)
		}
		_, _ = out.Seek(0, io.SeekStart)
		type pair struct{ header, f []byte }
		k := &kernel{vnet: vnet}
		var want []pair
		bad := uint64(0)
		flip := -1
		for ; len(ops) >= 2; ops = ops[2:] {
			if ops[0] == 0xff { // a byte of the next header is another
				flip = int(ops[1])
				continue
			}
			header, g := packettest.Odd(ops[0], ops[1], raw)
			if header == nil {
				header = make([]byte, offload.HeaderSize)
			}
			if flip >= 0 {
				header[flip%offload.HeaderSize] ^= 1 << (flip / offload.HeaderSize % 8)
				flip = -1
			}
			if !vnet {
				k.left, want = append(k.left, g), append(want, pair{f: g})
				continue
			}
			k.left = append(k.left, append(bytes.Clone(header), g...))
			switch {
			case !offload.Needed(header):
				want = append(want, pair{f: g})
			case possible(header, g):
				want = append(want, pair{header, g})
			default:
				bad++
			}
		}
		stream, r, _ := readFrom(t, k, packet.Ethernet, out)
		in := frame.NewReader(bytes.NewReader(stream))
		var rec frame.Record
		if err := in.Next(&rec); err != nil || !rec.IsHeader() {
			t.Fatal(err)
		}
		for i, w := range want {
			if err := in.Next(&rec); err != nil || !bytes.Equal(rec.Frame, w.f) || !bytes.Equal(rec.Offload, w.header) {
				t.Fatalf("frame %d: %v\n% x % x, want\n% x % x", i, err, rec.Offload, rec.Frame, w.header, w.f)
			}
		}
		if err := in.Next(&rec); err != io.EOF || r.n.malformed.Load() != bad || r.n.frames.Load() != uint64(len(want)) {
			t.Fatalf("%v, and %v: %d frames are refused, and %d not", err, &r.n, bad, len(want))
		}
	})
}

func possible(header, f []byte) bool {
	_, _, err := offload.OnWire(header, f, len(f), packet.Ethernet)
	return err == nil
}
