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
	errs []error // of the first reads
	left [][]byte
	stop *os.File // closed when 2*most frames are left
}

func (k *kernel) Fd() int       { return k.fd }
func (k *kernel) VNetHdr() bool { return k.vnet }
func (k *kernel) Close() error  { return nil }
func (k *kernel) Waits() bool   { return false }

func (k *kernel) Read(buf []byte, off int) (int, error) {
	if len(k.errs) > 0 {
		err := k.errs[0]
		k.errs = k.errs[1:]
		return 0, err
	}
	if len(k.left) == 0 {
		return 0, tap.ErrGone
	}
	if k.stop != nil && len(k.left) == 2*most {
		k.stop.Close()
	}
	prefix := 0
	if k.vnet {
		prefix = offload.HeaderSize
	}
	n := copy(buf[off-prefix:], k.left[0])
	k.left = k.left[1:]
	return max(n-prefix, 0), nil
}

func newReader(t testing.TB, dev device, out *os.File) *reader {
	return &reader{
		dev: dev, out: fdio.NewOutput(int(out.Fd())), stop: -1, warn: t.Logf,
		buf: make([]byte, batch+longest), head: frame.HeadSize,
	}
}

func create(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(t.TempDir() + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// readable returns a descriptor that is always readable.
func readable(t testing.TB) int {
	r, w := pipe(t)
	w.Close()
	return int(r.Fd())
}

// records returns the rest of a stream.
func records(t testing.TB, in *frame.Reader) (all []frame.Record) {
	t.Helper()
	for {
		var rec frame.Record
		if err := in.Next(&rec); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatalf("after %d records: %v", len(all), err)
		}
		rec.Frame, rec.Offload = bytes.Clone(rec.Frame), bytes.Clone(rec.Offload)
		all = append(all, rec)
	}
}

// readFrom runs a reader on the frames of a kernel, and returns the records of its stream and its
// messages.
func readFrom(t testing.TB, k *kernel) (all []frame.Record, r *reader, said []string) {
	t.Helper()
	out := create(t)
	k.fd = readable(t)
	r = newReader(t, k, out)
	r.buf, r.head = nil, 0 // run sets these
	r.warn = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	if err := r.run("tap0"); !errors.Is(err, tap.ErrGone) {
		t.Fatal(err)
	}
	_, _ = out.Seek(0, io.SeekStart)
	in := frame.NewReader(out)
	var rec frame.Record
	if err := in.Next(&rec); err != nil || !rec.IsHeader() {
		t.Fatalf("no header: %v", err)
	}
	return records(t, in), r, said
}

// A reader counts and reports frames with an invalid header, and loses no others. A flood of them does
// not delay earlier frames.
func TestOddHeaders(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(4000)}.Super(1000)
	good := append(bytes.Clone(header), super...)
	header[1] = 4 // IPv6
	odd := append(header, super...)
	k := &kernel{vnet: true, left: append(slices.Repeat([][]byte{odd}, 3*most), good)}
	k.left[0] = good
	if n, err := newReader(t, k, create(t)).drain(); n == 0 || err != nil || len(k.left) < 2*most {
		t.Errorf("%d bytes, %v, %d left", n, err, len(k.left))
	}
	bad := len(k.left) - 1
	all, r, said := readFrom(t, k)
	if len(all) != 1 || !bytes.Equal(all[0].Frame, super) || r.n.malformed.Load() != uint64(bad) || len(said) != 1 ||
		!strings.HasPrefix(said[0], "frame dropped: super-frame of type 4, but IP version 4") {
		t.Errorf("%d frames, want 1; %v, want %d malformed; said %q", len(all), &r.n, bad, said)
	}
}

// A reader goes on after reads that fail, and does not try again at once.
func TestFailedReads(t *testing.T) {
	k := &kernel{errs: []error{unix.EINTR, unix.EIO, unix.EIO}, left: [][]byte{make([]byte, 60)}}
	start := time.Now()
	all, r, said := readFrom(t, k)
	if len(all) != 1 || r.n.errors.Load() != 2 || time.Since(start) < 2*pause ||
		len(said) != 1 || said[0] != "reading: input/output error; this and further ones are counted" {
		t.Errorf("%d frames after %v; %v; said %q", len(all), time.Since(start), &r.n, said)
	}
}

// A flood, in which there is always another frame, does not keep a reader from ending
// when it is asked to.
func TestStopInFlood(t *testing.T) {
	stop, w := pipe(t)
	k := &kernel{fd: readable(t), left: slices.Repeat([][]byte{make([]byte, 60)}, 20000+2*most), stop: w}
	r := newReader(t, k, create(t))
	r.stop, r.coalesce = int(stop.Fd()), 50*time.Microsecond
	if err := r.run("tap0"); err != nil || len(k.left) == 0 {
		t.Errorf("%v, %d frames left", err, len(k.left))
	}
}

// FuzzRead: whatever a kernel hands over, the stream has all of it but for what was
// refused, in order, with the header where it says anything.
func FuzzRead(f *testing.F) {
	raw := packettest.Spec{V6: true, Ext: 3, Payload: make([]byte, 50)}.Frame()
	f.Add([]byte("\x40\xff\x02\x50\x48\xff\x07\x00\x41\xff\x43\x02\x0a\x20\x04\x00\x06\x00\xff\x13\x02\x0a"), raw, true)
	f.Add([]byte("\x40\xff\x02\x50\xff\x07\x48\xff"), raw, false)
	f.Fuzz(func(t *testing.T, ops, raw []byte, vnet bool) {
		if len(ops) > 200 || len(raw) > 2000 {
			return
		}
		k := &kernel{vnet: vnet}
		var want []frame.Record
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
				k.left, want = append(k.left, g), append(want, frame.Record{Frame: g})
				continue
			}
			k.left = append(k.left, append(bytes.Clone(header), g...))
			if !offload.Needed(header) {
				header = nil
			}
			if _, _, err := offload.OnWire(header, g, len(g), packet.Ethernet); err != nil {
				bad++
			} else {
				want = append(want, frame.Record{Offload: header, Frame: g})
			}
		}
		all, r, _ := readFrom(t, k)
		if len(all) != len(want) || r.n.malformed.Load() != bad || r.n.frames.Load() != uint64(len(want)) {
			t.Fatalf("%d frames, and %v: %d frames are refused, and %d not", len(all), &r.n, bad, len(want))
		}
		for i, w := range want {
			if rec := all[i]; !bytes.Equal(rec.Frame, w.Frame) || !bytes.Equal(rec.Offload, w.Offload) {
				t.Fatalf("frame %d:\n% x % x, want\n% x % x", i, rec.Offload, rec.Frame, w.Offload, w.Frame)
			}
		}
	})
}
