package main

import (
	"bytes"
	"errors"
	"strconv"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/packettest"
	"framepipe/internal/tap"

	"golang.org/x/sys/unix"
)

func TestSpeed(t *testing.T) {
	const refused = 0
	for text, want := range map[string]float64{
		"1": 1, "0.5": 0.5, "1e3": 1000,
		"": refused, "fast": refused, "-2": refused, "Inf": refused, "NaN": refused, "1x": refused,
	} {
		if got, err := speed(text); got != want || (err != nil) != (want == refused) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestDue(t *testing.T) {
	start := time.Unix(1e9, 0)
	const day = 86400e9
	p := &replay{speed: 2}
	for i, tt := range []struct {
		record uint64
		now    time.Duration // since the start
		again  bool
		want   time.Duration
	}{
		{record: 5e9, now: 0, want: 0},
		{record: 7e9, now: 900 * time.Millisecond, want: 100 * time.Millisecond},
		{record: 9e9, now: 3 * time.Second, want: -time.Second}, // late; it does not add up
		{record: 15e9, now: 3 * time.Second, want: 2 * time.Second},
		{record: 14.5e9, now: 3 * time.Second, want: 2 * time.Second}, // out of order: with the one before
		{record: 17e9, now: 5 * time.Second, want: time.Second},
		{record: 1 << 62, now: 6 * time.Second, want: 0}, // a wrong time
		{record: 19e9, now: 6 * time.Second, want: time.Second},
		{record: 119e9, now: 7 * time.Second, want: 50 * time.Second}, // a pause
		{record: 2 * day, now: 57 * time.Second, want: 0},             // a pause that is not kept
		{record: 2*day + 1e9, now: 58 * time.Second, want: 0},
		{record: 2*day + 3e9, now: 58 * time.Second, want: time.Second},
		{record: 2*day + 5e9, now: 59 * time.Second, again: true, want: time.Second}, // another interface of the capture
		{record: 2*day + 9e9, now: 60 * time.Second, want: 2 * time.Second},
		{record: 2*day + 100e9, now: 62 * time.Second, again: true, want: 0}, // another capture
		{record: 2*day + 102e9, now: 62 * time.Second, want: time.Second},
		{record: 1e9, now: 63 * time.Second, again: true, want: 0}, // an earlier one
		{record: 3e9, now: 63 * time.Second, want: time.Second},
	} {
		if tt.again {
			p.header = true
		}
		if got := p.due(tt.record, start.Add(tt.now)); got != tt.want {
			t.Errorf("%d: %v, want %v", i, got, tt.want)
		}
	}
	// A time that is far away at a low speed is not in the past.
	p = &replay{speed: 1e-9}
	p.due(0, start)
	if d := p.due(3600e9, start); d < 365*24*time.Hour {
		t.Errorf("%v", d)
	}
}

// Frames keep the time between them, at once where a capture begins.
func TestReplay(t *testing.T) {
	const n, gap = 20, 20 * time.Millisecond
	f := packettest.Spec{UDP: true, Payload: []byte("hello")}.Frame()
	var b bytes.Buffer
	w := frame.NewWriter(&b)
	for _, day := range []uint64{3e18, 4e18} { // 31 years apart
		_ = w.Header(frame.LinkEthernet, "tap0")
		for i := range n {
			_ = w.Write(&frame.Record{Time: day + uint64(i)*uint64(gap), Frame: f})
			if i == n/2 {
				_ = w.Annotate(map[string]any{"note": "not a header"})
			}
		}
	}
	_ = w.Flush()
	k := &kernel{}
	r := newWriter(t, k, b.Bytes())
	r.replay = &replay{speed: 4}
	start := time.Now()
	err := r.run()
	took := time.Since(start)
	const recorded = 2 * (n - 1) * gap
	if err != nil || len(k.taken) != 2*n || took < recorded/4 || took > 10*recorded {
		t.Errorf("%d frames of %d, %v, recorded in %v, took %v at 4 times the speed", len(k.taken), 2*n, err, recorded, took)
	}
}

// socket returns a writer of a stream to a socket in place of a device, and the other end of it.
func socket(t *testing.T, stream []byte) (w *writer, other int) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := tap.Open(tap.Config{Name: "fd:" + strconv.Itoa(p[1]), Write: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); dev.Close() })
	return newWriter(t, dev, stream), p[0]
}

// A socket that is full is waited for.
func TestFullSocket(t *testing.T) {
	const n, size = 3000, 1000
	w, other := socket(t, bytes.Repeat((&frame.Record{Frame: make([]byte, size)}).Append(nil), n))
	came := make(chan int)
	go func() {
		time.Sleep(20 * time.Millisecond)
		for i, b := 0, make([]byte, 2000); ; i++ {
			if m, _ := unix.Read(other, b); m != size {
				came <- i
				return
			}
		}
	}()
	err := w.run()
	_ = unix.Shutdown(other, unix.SHUT_RDWR)
	const want = "frames=3000 bytes=3000000 segmented=0 merged=0 refused=0 malformed=0 ethernet_bytes=3012000" +
		" written=3000 written_bytes=3000000 written_ethernet_bytes=3012000 lost_ethernet_bytes=0"
	if i := <-came; err != nil || i != n || w.line() != want {
		t.Errorf("%d frames came, %v, %s", i, err, w.line())
	}
}

// When the device goes, it does not wait any longer.
func TestReplayEnds(t *testing.T) {
	stream := (&frame.Record{Time: 1e18, Frame: packettest.ARP(1)}).Append(nil)
	stream = (&frame.Record{Time: 1e18 + 10e9, Frame: packettest.ARP(2)}).Append(stream)
	w, other := socket(t, stream)
	w.replay = &replay{speed: 1}
	time.AfterFunc(50*time.Millisecond, func() { _ = unix.Shutdown(other, unix.SHUT_RDWR) })
	start := time.Now()
	if err := w.run(); !errors.Is(err, tap.ErrGone) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}
