package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"framepipe/frame"
	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/tap"
)

// Into a real tap, whole and in segments: nothing is allocated for a frame, and
// what the device or the segmenter refuses is counted, said once, and passed
// over.
func TestRun(t *testing.T) {
	nettest.Need(t)
	header, super := packettest.Spec{Payload: packettest.Bytes(43800)}.Super(1460)
	liar := bytes.Clone(header)
	liar[6]++
	const frames = 3000
	var stream []byte
	for i := range frames {
		rec := frame.Record{Time: uint64(i), Frame: packettest.Spec{UDP: true, Payload: packettest.Bytes(200)}.Frame()}
		switch i % 10 {
		case 1:
			rec.Offload, rec.Frame = header, super
		case 2:
			rec.Offload, rec.Frame = liar, super
		case 3:
			rec.Frame = rec.Frame[:5]
		}
		stream = rec.Append(stream)
	}
	run := func(mode tap.Mode, segmented, malformed uint64) {
		dev, err := tap.Open(tap.Config{Name: "tap0", Write: true, Offload: mode})
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		w := newWriter(t, dev, stream)
		said := ""
		w.warn = func(format string, args ...any) { said += format }
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err = w.run()
		runtime.ReadMemStats(&after)
		refused := w.n.refused
		// The errors of frames cost memory; the rest must not.
		if n := after.Mallocs - before.Mallocs; n > 100+30*(refused+malformed) {
			t.Errorf("offload %v: %d allocations for %d frames, %d of them refused", mode, n, frames, refused+malformed)
		}
		// Those of five bytes are refused; the kernel may refuse the liars.
		if err != nil || w.n.frames != frames || w.n.segmented != segmented || w.n.malformed != malformed ||
			w.n.written == 0 || refused < frames/10 || !strings.Contains(said, "refused") {
			t.Errorf("offload %v: %v; %v; said %q", mode, err, w.line(), said)
		}
		if w.n.ethernet != w.n.writtenEthernet+w.n.lostEthernet {
			t.Errorf("offload %v: what was read is not what was written and lost: %v", mode, w.line())
		}
	}
	nettest.Inside(t, func() {
		nettest.Run(t, "ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "multi_queue", "vnet_hdr")
		nettest.Run(t, "ip", "link", "set", "tap0", "up")
		run(tap.On, 0, 0)
		run(tap.Off, frames/10, frames/10)
	})
}
