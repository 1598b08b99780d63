package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/process"
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
}

// inside runs f where there is a tap0, which sends nothing by itself. It gives f a function that
// opens the tap once more, and one that sends a frame through it.
func inside(t *testing.T, f func(open func() *tap.Device, send func(frame []byte))) {
	nettest.Need(t)
	nettest.Inside(t, func() {
		nettest.Run(t, "ip", "tuntap", "add", "dev", "tap0", "mode", "tap", "multi_queue", "vnet_hdr")
		nettest.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/tap0/disable_ipv6; ip link set tap0 mtu 9000 up")
		s := nettest.PacketSocket(t, "tap0")
		defer unix.Close(s)
		open := func() *tap.Device {
			dev, err := tap.Open(tap.Config{Name: "tap0", Offload: tap.On})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { dev.Close() })
			nettest.Running(t, "tap0")
			return dev
		}
		f(open, func(frame []byte) {
			if err := unix.Send(s, frame, 0); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// What the kernel sends through a tap comes as a stream, and nothing is allocated for a frame.
func TestPass(t *testing.T) {
	inside(t, func(open func() *tap.Device, send func([]byte)) {
		out := create(t)
		r := newReader(t, open(), out)
		small := packettest.Spec{UDP: true, Payload: packettest.Bytes(18)}.Frame()
		large := packettest.Spec{UDP: true, Payload: packettest.Bytes(1400)}.Frame()
		frames := [][]byte{small, large, small}
		sent := 0
		allocated := testing.AllocsPerRun(500, func() {
			for _, f := range frames {
				send(f)
				sent++
			}
			for start := time.Now(); r.n.frames.Load() < uint64(sent); {
				if _, err := r.pass(); err != nil || time.Since(start) > 2*time.Second {
					t.Fatalf("%d frames of %d came, %v", r.n.frames.Load(), sent, err)
				}
			}
		})
		if allocated > 0 {
			t.Errorf("%v allocations for %d frames", allocated, len(frames))
		}
		_, _ = out.Seek(0, io.SeekStart)
		all := records(t, frame.NewReader(out))
		if len(all) != sent {
			t.Errorf("%d frames of %d", len(all), sent)
		}
		last := uint64(0)
		for i, rec := range all {
			if !bytes.Equal(rec.Frame, frames[i%3]) || rec.Offload != nil || rec.Time < last {
				t.Fatalf("frame %d: %d after %d, % x", i, rec.Time, last, rec.Frame)
			}
			last = rec.Time
		}
	})
}

// closing is a device that tells whether its reader has closed it.
type closing struct {
	*tap.Device
	closed atomic.Bool
}

func (c *closing) Close() error {
	defer c.closed.Store(true)
	return c.Device.Close()
}

// A reader that must stop while its output is full leaves the frames that come meanwhile to
// another reader of the tap.
func TestStopHandsOver(t *testing.T) {
	inside(t, func(open func() *tap.Device, send func([]byte)) {
		sent := 0
		sendMany := func() {
			for range 60 { // each queue gets about half of them: more than a pipe of 64 KiB can take
				sent++
				send(packettest.Spec{UDP: true, Port: 4096 + uint16(sent), Payload: packettest.Bytes(4000)}.Frame())
			}
		}
		in1, out1 := pipe(t)
		in2, out2 := pipe(t)
		dev := &closing{Device: open()}
		first, second := newReader(t, dev, out1), newReader(t, open(), out2)
		first.stop, second.stop = readable(t), readable(t)

		sendMany()
		ended := make(chan error)
		go func() { ended <- first.burst() }()
		if !process.Until(5*time.Second, dev.closed.Load) {
			t.Error("the first reader keeps its device open")
		}
		sendMany()
		go io.Copy(io.Discard, in1)
		err1 := <-ended
		go io.Copy(io.Discard, in2)
		err2 := second.burst()
		a, b := int(first.n.frames.Load()), int(second.n.frames.Load())
		if a+b != sent || a < 17 || b < 60 || err1 != errStop || err2 != errStop {
			t.Errorf("%d and %d of %d frames came; %v, %v", a, b, sent, err1, err2)
		}
	})
}

// While the output is full, frames of a flow that sends little pass those of one that sends
// much, and only the latter loses frames. What passes of a flow stays in order.
func TestBacklog(t *testing.T) {
	inside(t, func(open func() *tap.Device, send func([]byte)) {
		pipe, w := pipe(t)
		r := newReader(t, open(), w)
		const bulk, sparse = 5000, 6000
		sent := 0
		sendMany := func(n int, port uint16, payload int) {
			for range n {
				send(packettest.Spec{UDP: true, Port: port, ID: uint16(sent), Payload: packettest.Bytes(payload)}.Frame())
				sent++
			}
		}
		sendMany(100, bulk, 1400) // more than the pipe takes, at once
		ended := make(chan error)
		go func() {
			var err error
			for err == nil {
				err = r.burst()
			}
			ended <- err
		}()
		came := func() {
			for start := time.Now(); r.n.frames.Load() < uint64(sent); time.Sleep(time.Millisecond) {
				if time.Since(start) > 5*time.Second {
					t.Fatalf("%d frames of %d came", r.n.frames.Load(), sent)
				}
			}
		}
		for range 70 { // 5 MB, a few at a time
			sendMany(50, bulk, 1400)
			came()
		}
		sendMany(5, sparse, 100)
		came()

		in := frame.NewReader(pipe)
		var rec frame.Record
		var bytes, passed, few, waited int
		last := map[uint16]uint16{}
		dropped := int(r.n.dropped.Load())
		for passed < sent-dropped {
			if err := in.Next(&rec); err != nil {
				t.Fatal(err)
			}
			id, port := binary.BigEndian.Uint16(rec.Frame[18:]), binary.BigEndian.Uint16(rec.Frame[34:])
			if port == sparse {
				few++
				waited = bytes
			}
			if id < last[port] {
				t.Errorf("frame %d of port %d comes after %d", id, port, last[port])
			}
			last[port] = id
			bytes += len(rec.Frame)
			passed++
		}
		if few != 5 || dropped < 100 || dropped != int(r.n.dropped.Load()) {
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
