package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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

	"golang.org/x/sys/unix"
)

// Everything is passed on and counted, and nothing is allocated for a frame.
func TestRun(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(43800)}.Super(1460)
	plain := packettest.Spec{UDP: true, Payload: packettest.Bytes(200)}.Frame()
	const frames = 5000
	var stream []byte
	for i := range frames {
		rec := frame.Record{Time: uint64(i), Frame: plain}
		if i%10 == 0 {
			rec.Offload, rec.Frame = header, super
		}
		stream = rec.Append(stream)
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/in", stream, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(dir + "/in")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(dir + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var last hist.Report
	c := &counter{
		in:    fdio.NewTeeStream(int(in.Fd()), fdio.NewOutput(int(out.Fd()))),
		every: time.Hour, share: newShare(1, time.Now()), report: func(r hist.Report) error { last = r; return nil },
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := c.run(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 100 {
		t.Errorf("%d allocations for %d frames", n, frames)
	}
	if got, err := os.ReadFile(dir + "/out"); err != nil || !bytes.Equal(got, stream) {
		t.Errorf("%d bytes passed on, want %d, %v", len(got), len(stream), err)
	}
	bytesIn := uint64(frames/10*len(super) + frames*9/10*len(plain))
	counted := uint64(0)
	for _, n := range last.Counts {
		counted += n
	}
	if last.Frames != frames || last.Wire != frames*9/10+frames/10*30 || last.Bytes != bytesIn || counted != bytesIn || last.Sizes["super"] != frames/10 {
		t.Errorf("%d frames, %d on the wire, %d bytes, %d counted of %d, %v", last.Frames, last.Wire, last.Bytes, counted, bytesIn, last.Sizes)
	}
}

// Between pipes, frames whose bytes are not counted are not read. They are passed on, and
// counted in all else; a stream that ends inside of one is an error that says where.
func TestSkip(t *testing.T) {
	header, super := packettest.Spec{Payload: packettest.Bytes(58400)}.Super(1460)
	plain := packettest.Spec{UDP: true, Payload: packettest.Bytes(200)}.Frame()
	const frames = 2000
	var stream []byte
	last := 0 // offset of the last frame
	for i := range frames {
		rec := frame.Record{Time: uint64(i), Frame: plain}
		if i%3 != 0 || i == frames-1 {
			rec.Offload, rec.Frame = header, super
		}
		last = len(stream)
		stream = rec.Append(stream)
	}
	for _, cut := range []int{0, 30000} {
		var in, out [2]int
		if err := errors.Join(unix.Pipe(in[:]), unix.Pipe(out[:])); err != nil {
			t.Fatal(err)
		}
		var report hist.Report
		c := &counter{
			in:    fdio.NewTeeStream(in[0], fdio.NewOutput(out[1])),
			every: time.Hour, share: newShare(0, time.Now()), report: func(r hist.Report) error { report = r; return nil },
		}
		c.share.shift = 3
		go func() {
			_, _ = fdio.NewOutput(in[1]).Write(stream[:len(stream)-cut])
			unix.Close(in[1])
		}()
		passed := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(fdio.NewStream(out[0], -1))
			passed <- b
		}()
		err := c.run()
		unix.Close(out[1])
		if got := <-passed; !bytes.Equal(got, stream[:len(stream)-cut]) {
			t.Errorf("%d bytes passed on, want %d", len(got), len(stream)-cut)
		}
		unix.Close(in[0])
		unix.Close(out[0])
		whole := uint64(frames)
		if cut > 0 {
			whole--
			if want := fmt.Sprintf("offset %d: the input ends inside a frame", last); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		} else if err != nil {
			t.Error(err)
		}
		counted := uint64(0)
		for _, n := range report.Counts {
			counted += n
		}
		if report.Frames != whole || report.Sample != 8 || counted < report.Bytes/12 || counted > report.Bytes/5 || report.Sizes["super"]+report.Sizes["128-255"] != whole {
			t.Errorf("%d frames, bytes of one of %d, %d counted of %d, %v", report.Frames, report.Sample, counted, report.Bytes, report.Sizes)
		}
	}
}

// Where the stream has IP packets, what counts on the wire is them in Ethernet frames; of
// every second frame the bytes are counted, and of all the rates; and a report that cannot
// be written ends in its error.
func TestOfIP(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(dir + "/in")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := frame.NewWriter(f)
	rec := frame.Record{Frame: packettest.Spec{IP: true, Payload: packettest.Bytes(100)}.Frame()}
	err = w.Header(frame.LinkIP, "tun0")
	for range 10 {
		err = errors.Join(err, w.Write(&rec))
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		t.Fatal(err)
	}
	_, _ = f.Seek(0, 0)
	out, err := os.Create(dir + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	failed := errors.New("failed")
	var last hist.Report
	c := &counter{
		in:    fdio.NewTeeStream(int(f.Fd()), fdio.NewOutput(int(out.Fd()))),
		every: time.Hour, share: newShare(2, time.Now()), report: func(r hist.Report) error { last = r; return failed },
	}
	if err := c.run(); err != failed {
		t.Errorf("%v, want the report's error", err)
	}
	counted := uint64(0)
	for _, n := range last.Counts {
		counted += n
	}
	if last.Ethernet != 10*(140+14+4) || counted != 5*140 || last.Bytes != 10*140 {
		t.Errorf("%d bytes on the wire, %d counted of %d", last.Ethernet, counted, last.Bytes)
	}
}

// With the clock of the stream, a report is about an interval of the records' time, whatever
// comes when. Intervals without a frame are one report.
func TestRecordedTime(t *testing.T) {
	f := packettest.Spec{UDP: true, Payload: packettest.Bytes(200)}.Frame()
	header, super := packettest.Spec{Payload: packettest.Bytes(58400)}.Super(1460)
	const start, night = 1_000_000, 8 * 3600
	var file []byte
	for _, second := range []float64{0, 1, 2.5, 2.4, 9.9, 10, 24, 1e6, 25, 35, 75, 75.5, 75 + night, 76 + night, 20 + night, 20, 21} {
		rec := frame.Record{Time: uint64((start + second) * 1e9), Frame: f}
		if second == 24 {
			rec.Offload, rec.Frame = header, super
		}
		file = rec.Append(file)
	}
	want := []string{ // end, length, frames
		"10 10 5", "20 10 1", "30 10 3", "40 10 1", "70 30 0",
		"80 10 3",       // the first frame of the morning among them
		"28870 28790 0", // the night
		"21 7 4",        // another capture follows at once
	}
	for _, piped := range []bool{false, true} {
		var in, out [2]int
		if err := errors.Join(unix.Pipe(in[:]), unix.Pipe(out[:])); err != nil {
			t.Fatal(err)
		}
		from := in[0]
		if !piped {
			g, err := os.CreateTemp(t.TempDir(), "")
			if err == nil {
				_, err = g.WriteAt(file, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			from = int(g.Fd())
		}
		go func() {
			_, _ = fdio.NewOutput(in[1]).Write(file)
			unix.Close(in[1])
		}()
		go func() { _, _ = io.Copy(io.Discard, fdio.NewStream(out[0], -1)) }()
		var got []string
		c := &counter{
			in:    fdio.NewTeeStream(from, fdio.NewOutput(out[1])),
			every: 10 * time.Second, share: newShare(4, time.Now()), records: &recorded.Clock{},
			report: func(r hist.Report) error {
				got = append(got, fmt.Sprint(float64(r.Time.UnixMilli())/1e3-start, r.Interval, r.Frames))
				return nil
			},
		}
		if err := c.run(); err != nil {
			t.Fatal(err)
		}
		unix.Close(out[1])
		if !slices.Equal(got, want) {
			t.Errorf("piped %v: %q, want %q", piped, got, want)
		}
	}
}
