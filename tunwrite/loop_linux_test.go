package main

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/nettest"
	"framepipe/internal/packet"
	"framepipe/internal/packettest"
	"framepipe/internal/tap"
)

// Into a real tap, whole and in segments: nothing is allocated for a frame, and
// what the device or the segmenter refuses is counted, said once, and passed
// over.
func TestRun(t *testing.T) {
	nettest.Need(t)
	nettest.Inside(t, func() {
		nettest.Run(t, "ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "multi_queue", "vnet_hdr")
		nettest.Run(t, "ip", "link", "set", "tap0", "up")
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
		for _, mode := range []tap.Mode{tap.On, tap.Off} {
			dev, err := tap.Open(tap.Config{Name: "tap0", Write: true, Offload: mode})
			if err != nil {
				t.Error(err)
				return
			}
			defer dev.Close()
			in, err := os.CreateTemp(t.TempDir(), "")
			if err == nil {
				_, err = in.Write(stream)
			}
			if err == nil {
				_, err = in.Seek(0, 0)
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer in.Close()
			var said []string
			w := &writer{
				dev: dev, name: "tap0", link: packet.Ethernet,
				in:   fdio.NewStream(int(in.Fd()), dev.Fd()),
				warn: func(format string, args ...any) { said = append(said, format) },
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := w.run(); err != nil {
				t.Errorf("offload %v: %v", mode, err)
			}
			runtime.ReadMemStats(&after)
			// The errors of frames cost memory; the rest must not.
			bad := w.n.refused.Load() + w.n.malformed.Load()
			if n := after.Mallocs - before.Mallocs; n > 100+30*bad {
				t.Errorf("offload %v: %d allocations for %d frames, %d of them refused", mode, n, frames, bad)
			}
			segmented, malformed := uint64(0), uint64(0)
			if mode == tap.Off {
				segmented, malformed = frames/10, frames/10
			}
			if w.n.frames.Load() != frames || w.n.segmented.Load() != segmented || w.n.malformed.Load() != malformed {
				t.Errorf("offload %v: %v", mode, &w.n)
			}
			if w.n.written.Load() == 0 || w.n.ethernet.Load() != w.n.writtenEthernet.Load()+w.n.lostEthernet.Load() {
				t.Errorf("offload %v: what was read is not what was written and lost: %v", mode, &w.n)
			}
			if w.n.refused.Load() < frames/10 { // those of five bytes; the kernel may refuse the liars
				t.Errorf("offload %v: %v", mode, &w.n)
			}
			if len(said) == 0 || !strings.Contains(strings.Join(said, "\n"), "refused") {
				t.Errorf("offload %v: said %q", mode, said)
			}
		}
	})
}

// Datagrams that the device refuses together are counted one by one.
func TestRefusedTogether(t *testing.T) {
	nettest.Need(t)
	nettest.Inside(t, func() {
		nettest.Run(t, "ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "multi_queue", "vnet_hdr") // and not up
		dev, err := tap.Open(tap.Config{Name: "tap0", Write: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer dev.Close()
		const frames = 20
		var stream []byte
		for i := range frames {
			rec := frame.Record{Frame: packettest.Spec{UDP: true, V6: true, Payload: packettest.Bytes(200)}.Frame(), Time: uint64(i)}
			stream = rec.Append(stream)
		}
		r, w, err := os.Pipe()
		if err == nil {
			_, err = w.Write(stream)
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		w.Close()
		x := &writer{dev: dev, name: "tap0", link: packet.Ethernet, in: fdio.NewStream(int(r.Fd()), dev.Fd()), warn: t.Logf}
		if err := x.run(); err != nil {
			t.Error(err)
		}
		if x.merge.Len() != 0 || x.n.refused.Load() != frames || x.n.lostEthernet.Load() != x.n.ethernet.Load() || x.n.written.Load() != 0 {
			t.Errorf("%v", &x.n)
		}
	})
}
