package main

import (
	"bytes"
	"os"
	"runtime"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/hist"
	"framepipe/internal/packettest"
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
		in:    fdio.NewTeeStream(fdio.NewInput(int(in.Fd())), fdio.NewOutput(int(out.Fd()))),
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
