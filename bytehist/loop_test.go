package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/hist"
	"framepipe/internal/packettest"
	"framepipe/internal/recorded"
)

var (
	plain         = packettest.Spec{UDP: true, Payload: packettest.Bytes(200)}.Frame()
	header, super = packettest.Spec{Payload: packettest.Bytes(58400)}.Super(1460)
)

// encode appends frames to a stream, and super-frames where isSuper says so.
func encode(stream []byte, frames int, isSuper func(i int) bool) []byte {
	for i := range frames {
		rec := frame.Record{Time: uint64(i), Frame: plain}
		if isSuper(i) {
			rec.Offload, rec.Frame = header, super
		}
		stream = rec.Append(stream)
	}
	return stream
}

// through runs a stream through a counter, from a file or a pipe into a pipe.
func through(t *testing.T, stream []byte, piped bool, change func(*counter)) (passed []byte, last hist.Report, err error) {
	t.Helper()
	name := t.TempDir() + "/in"
	err = os.WriteFile(name, stream, 0o600)
	in, e1 := os.Open(name)
	from, out, e2 := os.Pipe()
	if piped {
		var to *os.File
		in, to, e1 = os.Pipe()
		go func() {
			_, _ = to.Write(stream)
			to.Close()
		}()
	}
	if err := errors.Join(err, e1, e2); err != nil {
		t.Fatal(err)
	}
	c := &counter{
		in:    fdio.NewTeeStream(int(in.Fd()), fdio.NewOutput(int(out.Fd()))),
		every: time.Hour, share: newShare(1, time.Now()), report: func(r hist.Report) error { last = r; return nil },
	}
	change(c)
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(c.run(), in.Close(), out.Close()) }()
	passed = make([]byte, len(stream)+1) // at once: allocations are counted
	n, _ := io.ReadFull(from, passed)
	err = errors.Join(<-ended, from.Close())
	return passed[:n], last, err
}

// counted adds up the values that were counted.
func counted(r *hist.Report) (n uint64) {
	for _, count := range r.Counts {
		n += count
	}
	return n
}

// Everything is passed on and counted, and nothing is allocated for a frame.
func TestRun(t *testing.T) {
	const frames = 5000
	stream := encode(nil, frames, func(i int) bool { return i%10 == 0 })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	passed, r, err := through(t, stream, false, func(*counter) {})
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 100 {
		t.Errorf("%d allocations for %d frames", n, frames)
	}
	if err != nil || !bytes.Equal(passed, stream) {
		t.Errorf("%d bytes passed on, want %d, %v", len(passed), len(stream), err)
	}
	size := uint64(frames/10*len(super) + frames*9/10*len(plain))
	if r.Frames != frames || r.Wire != frames*9/10+frames/10*40 || r.Bytes != size || counted(&r) != size || r.Sizes["super"] != frames/10 {
		t.Errorf("%d frames, %d on the wire, %d bytes, %d counted of %d, %v", r.Frames, r.Wire, r.Bytes, counted(&r), size, r.Sizes)
	}
}

// Between pipes, frames whose bytes are not counted are not read. They are passed on, and
// counted in all else; a stream that ends inside of one is an error that says where.
func TestSkip(t *testing.T) {
	const frames = 1000
	stream := encode(nil, frames-1, func(i int) bool { return i%3 != 0 })
	last := len(stream)
	stream = encode(stream, 1, func(int) bool { return true })
	for cut, want := range map[int]string{0: "", 30000: fmt.Sprintf("offset %d: the input ends inside a frame", last)} {
		in, whole := stream[:len(stream)-cut], uint64(frames)
		passed, r, err := through(t, in, true, func(c *counter) {
			c.share = newShare(0, time.Now())
			c.share.shift, c.share.rng = 3, rand.NewPCG(1, 1)
		})
		if cut > 0 {
			whole--
		}
		if !bytes.Equal(passed, in) || (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%d bytes passed on, want %d; %v, want %s", len(passed), len(in), err, want)
		}
		n := counted(&r)
		if r.Frames != whole || r.Sample != 8 || n < r.Bytes/12 || n > r.Bytes/5 || r.Sizes["super"]+r.Sizes["128-255"] != whole {
			t.Errorf("%d frames, bytes of one of %d, %d counted of %d, %v", r.Frames, r.Sample, n, r.Bytes, r.Sizes)
		}
	}
}

// Where the stream has IP packets, what counts on the wire is them in Ethernet frames; of
// every second frame the bytes are counted, and of all the rates; and a report that cannot
// be written ends in its error.
func TestOfIP(t *testing.T) {
	var stream bytes.Buffer
	w := frame.NewWriter(&stream)
	rec := frame.Record{Frame: packettest.Spec{IP: true, Payload: packettest.Bytes(100)}.Frame()}
	_ = w.Header(frame.LinkIP, "tun0")
	for range 10 {
		_ = w.Write(&rec)
	}
	_ = w.Flush()
	failed := errors.New("failed")
	var r hist.Report
	_, _, err := through(t, stream.Bytes(), false, func(c *counter) {
		c.share = newShare(2, time.Now())
		c.report = func(x hist.Report) error { r = x; return failed }
	})
	if !errors.Is(err, failed) || r.Sample != 2 || r.Ethernet != 10*(140+14+4) || counted(&r) != 5*140 || r.Bytes != 10*140 {
		t.Errorf("%d bytes on the wire, %d counted of %d, %v", r.Ethernet, counted(&r), r.Bytes, err)
	}
}

// With the clock of the stream, a report is about an interval of the records' time, whatever
// comes when. Intervals without a frame are one report.
func TestRecordedTime(t *testing.T) {
	const start, night = 1_000_000, 8 * 3600
	var stream []byte
	for _, second := range []float64{0, 1, 2.5, 2.4, 9.9, 10, 24, 1e6, 25, 35, 75, 75.5, 75 + night, 76 + night, 20 + night, 20, 21} {
		rec := frame.Record{Time: uint64((start + second) * 1e9), Frame: plain}
		if second == 24 {
			rec.Offload, rec.Frame = header, super
		}
		stream = rec.Append(stream)
	}
	want := []string{ // end, length, frames
		"10 10 5", "20 10 1", "30 10 3", "40 10 1", "70 30 0",
		"80 10 3",       // the first frame of the morning among them
		"28870 28790 0", // the night
		"21 7 4",        // another capture follows at once
	}
	for _, piped := range []bool{false, true} {
		var got []string
		_, _, err := through(t, stream, piped, func(c *counter) {
			c.every, c.share, c.records = 10*time.Second, newShare(4, time.Now()), &recorded.Clock{}
			c.report = func(r hist.Report) error {
				got = append(got, fmt.Sprint(float64(r.Time.UnixMilli())/1e3-start, r.Interval, r.Frames))
				return nil
			}
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("piped %v: %q, want %q, %v", piped, got, want, err)
		}
	}
}
