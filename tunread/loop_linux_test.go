package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/fdio"
	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/tap"

	"golang.org/x/sys/unix"
)

// How long frames gather depends on how they come.
func TestPace(t *testing.T) {
	const us = time.Microsecond
	r := &reader{coalesce: 50 * us, gap: 50 * us}
	want := func(what string, since, least, most time.Duration) {
		t.Helper()
		if got := r.pace(since); got < least || got > most {
			t.Errorf("%s: %v after %v, want %v to %v", what, got, since, least, most)
		}
	}
	want("after a quiet moment", time.Second, -time.Hour, 0)
	want("soon after", 20*us, 30*us, 30*us)
	for range tries - 1 {
		want("one at a time", 150*us, -100*us, -100*us)
	}
	want("tried longer", 150*us, 250*us, 250*us)
	want("and so on", 150*us, 250*us, 250*us)
	want("quiet again", time.Second, -time.Hour, 0)
	want("as at first", 150*us, -100*us, -100*us)
	r = &reader{}
	want("never", 0, 0, 0)
	want("never", time.Microsecond, -time.Hour, 0)
}

// quietTap makes tap0, which sends nothing by itself.
func quietTap(t *testing.T) {
	t.Helper()
	nettest.Run(t, "ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "multi_queue", "vnet_hdr")
	nettest.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/tap0/disable_ipv6; ip link set tap0 up")
}

// Through a real tap: what the kernel sends comes as a stream, and nothing is
// allocated for a frame.
func TestPass(t *testing.T) {
	nettest.Need(t)
	nettest.Inside(t, func() {
		quietTap(t)
		dev, err := tap.Open(tap.Config{Name: "tap0", Offload: tap.On})
		if err != nil {
			t.Error(err)
			return
		}
		defer dev.Close()
		out, err := os.Create(t.TempDir() + "/stream")
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		r := &reader{dev: dev, out: fdio.NewOutput(int(out.Fd())), warn: t.Logf, buf: make([]byte, batch+longest), head: frame.HeadSize}
		s := nettest.PacketSocket(t, "tap0")
		defer unix.Close(s)
		small := packettest.Spec{UDP: true, Payload: packettest.Bytes(18)}.Frame()
		large := packettest.Spec{UDP: true, Payload: packettest.Bytes(1400)}.Frame()
		nettest.Running(t, "tap0")
		sent := 0
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 500 {
			for _, f := range [][]byte{small, large, small} {
				if err := unix.Send(s, f, 0); err != nil {
					t.Error(err)
					return
				}
				sent++
			}
			for start := time.Now(); r.n.frames.Load() < uint64(sent); {
				if time.Since(start) > 2*time.Second {
					t.Errorf("%d frames of %d came", r.n.frames.Load(), sent)
					return
				}
				if _, err := r.pass(); err != nil {
					t.Error(err)
					return
				}
			}
		}
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > 50 {
			t.Errorf("%d allocations for %d frames", n, sent)
		}
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Error(err)
			return
		}
		in := frame.NewReader(bytes.NewReader(b))
		var rec frame.Record
		last := uint64(0)
		for i := 0; ; i++ {
			if err := in.Next(&rec); err == io.EOF && i == sent {
				return
			} else if err != nil {
				t.Errorf("after %d frames of %d: %v", i, sent, err)
				return
			}
			want := small
			if i%3 == 1 {
				want = large
			}
			if !bytes.Equal(rec.Frame, want) || rec.Offload != nil || rec.Time < last {
				t.Errorf("frame %d: % x", i, rec.Frame)
				return
			}
			last = rec.Time
		}
	})
}

// A reader that must stop while its output is full leaves the frames that come meanwhile to
// another reader of the tap.
func TestStopHandsOver(t *testing.T) {
	nettest.Need(t)
	nettest.Inside(t, func() {
		nettest.Run(t, "ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "multi_queue", "vnet_hdr")
		nettest.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/tap0/disable_ipv6; ip link set tap0 mtu 9000 up")
		var readers [2]*reader
		var devices [2]*tap.Device
		var outputs, stops [2][2]int
		for i := range readers {
			dev, err := tap.Open(tap.Config{Name: "tap0"})
			if err != nil {
				t.Error(err)
				return
			}
			defer dev.Close()
			for _, p := range []*[2]int{&outputs[i], &stops[i]} {
				if err := unix.Pipe(p[:]); err != nil {
					t.Error(err)
					return
				}
				defer unix.Close(p[0])
			}
			defer unix.Close(stops[i][1])
			devices[i] = dev
			readers[i] = &reader{dev: dev, out: fdio.NewOutput(outputs[i][1]), stop: stops[i][0], warn: t.Logf, buf: make([]byte, batch+longest), head: frame.HeadSize}
		}
		ended := make(chan error)
		run := func(i int) {
			var err error
			for err == nil {
				err = readers[i].burst()
			}
			devices[i].Close()
			unix.Close(outputs[i][1])
			ended <- err
		}
		take := func(i int) {
			for b := make([]byte, 64<<10); ; {
				if n, err := unix.Read(outputs[i][0], b); n <= 0 && err != unix.EINTR {
					return
				}
			}
		}
		stop := func(i int) {
			if _, err := unix.Write(stops[i][1], []byte{1}); err != nil {
				t.Error(err)
			}
		}
		s := nettest.PacketSocket(t, "tap0")
		defer unix.Close(s)
		nettest.Running(t, "tap0")
		sent := uint64(0)
		send := func(frames int) {
			for range frames {
				sent++
				f := packettest.Spec{UDP: true, Port: 4096 + uint16(sent), Payload: packettest.Bytes(4000)}.Frame()
				if err := unix.Send(s, f, 0); err != nil {
					t.Error(err)
				}
			}
		}

		send(60) // about half of them to each queue, more than a pipe of 64 KiB can take
		stop(0)
		go run(0)
		for start := time.Now(); readers[0].n.frames.Load() == 0; time.Sleep(time.Millisecond) {
			if time.Since(start) > 5*time.Second {
				t.Error("the first reader reads nothing")
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
		send(60)
		go take(0)
		if err := <-ended; err != errStop {
			t.Error(err)
		}
		stop(1)
		go run(1)
		go take(1)
		if err := <-ended; err != errStop {
			t.Error(err)
		}
		a, b := readers[0].n.frames.Load(), readers[1].n.frames.Load()
		t.Logf("%d and %d of %d frames", a, b, sent)
		if a+b != sent || a < 17 || b < 60 {
			t.Errorf("%d and %d of %d frames came", a, b, sent)
		}
	})
}

// While the output is full, frames of a flow that sends little pass those of one that sends
// much, and only the latter loses frames. What passes of a flow stays in order.
func TestBacklog(t *testing.T) {
	nettest.Need(t)
	nettest.Inside(t, func() {
		quietTap(t)
		dev, err := tap.Open(tap.Config{Name: "tap0", Offload: tap.On})
		if err != nil {
			t.Error(err)
			return
		}
		defer dev.Close()
		var p [2]int
		if err := unix.Pipe(p[:]); err != nil {
			t.Error(err)
			return
		}
		r := &reader{dev: dev, out: fdio.NewOutput(p[1]), stop: -1, warn: t.Logf, buf: make([]byte, batch+longest), head: frame.HeadSize}
		s := nettest.PacketSocket(t, "tap0")
		defer unix.Close(s)
		nettest.Running(t, "tap0")
		sent := uint64(0)
		send := func(port uint16, payload int) {
			f := packettest.Spec{UDP: true, Port: port, ID: uint16(sent), Payload: packettest.Bytes(payload)}.Frame()
			if err := unix.Send(s, f, 0); err != nil {
				t.Error(err)
			}
			sent++
		}
		ended := make(chan error)
		go func() {
			var err error
			for err == nil {
				err = r.burst()
			}
			unix.Close(p[1])
			ended <- err
		}()
		came := func() {
			for start := time.Now(); r.n.frames.Load() < sent; time.Sleep(time.Millisecond) {
				if time.Since(start) > 5*time.Second {
					t.Fatalf("%d frames of %d came", r.n.frames.Load(), sent)
				}
			}
		}
		const bulk, sparse = 5000, 6000
		for range 70 { // 5 MB, a few at a time
			for range 50 {
				send(bulk, 1400)
			}
			came()
		}
		for range 5 {
			send(sparse, 100)
		}
		came()

		pipe := os.NewFile(uintptr(p[0]), "pipe") // open until the device has gone: the reader watches it
		defer pipe.Close()
		in := frame.NewReader(pipe)
		var rec frame.Record
		var bytes, passed, few, waited int
		var last [2]uint16
		for few < 5 || passed < int(sent-r.n.dropped.Load()) {
			if err := in.Next(&rec); err != nil {
				t.Fatal(err)
			}
			flow, id := 0, binary.BigEndian.Uint16(rec.Frame[18:])
			if binary.BigEndian.Uint16(rec.Frame[34:]) == sparse {
				flow = 1
				few++
				waited = bytes
			}
			if passed > 0 && id < last[flow] {
				t.Errorf("frame %d of flow %d comes after %d", id, flow, last[flow])
			}
			last[flow] = id
			bytes += len(rec.Frame)
			passed++
		}
		dropped := int(r.n.dropped.Load())
		t.Logf("%d sent, %d passed, %d dropped; the last sparse one after %d bytes of %d", sent, passed, dropped, waited, bytes)
		if few != 5 || passed+dropped != int(sent) || dropped < 100 {
			t.Errorf("%d sent, %d passed, %d of them sparse, %d dropped", sent, passed, few, dropped)
		}
		if waited > batch+2*atOnce+64<<10 { // the pipe, and frames that were on their way
			t.Errorf("sparse frames came after %d bytes of %d", waited, bytes)
		}
		nettest.Run(t, "ip", "link", "del", "tap0")
		if err := <-ended; !errors.Is(err, tap.ErrGone) {
			t.Error(err)
		}
	})
}
