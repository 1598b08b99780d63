package main

import (
	"fmt"
	"strings"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/gate"
	"framepipe/internal/recorded"
)

// replay summarizes a gate's work on a recorded stream. -clock stream -v prints it at
// the end.
type replay struct {
	records     *recorded.Clock
	first, last int64         // by the gate's clock
	state       gate.State    // at last
	times       int           // number of times that the gate closed
	closed      time.Duration // in all
	fullest     float64       // use of the fullest window, over its quota
	quota       int64         // of that window
	delay       time.Duration // the longest
}

// observe records the gate's state. It runs at each second of the stream, and at its
// end.
func (r *replay) observe(now int64, s *gate.State) {
	if now == 0 {
		return // the time is unknown before the first frame
	}
	if r.first == 0 {
		r.first, r.last, r.state.Open = now, now, true
	}
	if !r.state.Open {
		r.closed += time.Duration(now - r.last)
	} else if !s.Open {
		r.times++
	}
	r.last, r.state = now, *s
	if full := float64(s.Used) / float64(max(s.Quota, 1)); full > r.fullest {
		r.fullest, r.quota = full, s.Quota
	}
	r.delay = max(r.delay, s.Delay)
}

// String returns the summary, in lines.
func (r *replay) String() string {
	if r.first == 0 {
		return "no frame"
	}
	s := &r.state
	dropped := gate.Counts{Frames: s.In.Frames - s.Passed.Frames, Bytes: s.In.Bytes - s.Passed.Bytes} // none is held
	amount := func(t gate.Counts) string {
		return fmt.Sprintf("%d frames, %s", t.Frames, cli.Human(float64(t.Bytes), "B"))
	}
	var b strings.Builder
	const layout = "2006-01-02 15:04:05"
	fmt.Fprintf(&b, "from %s to %s UTC: %s", moment(r.first).Format(layout), moment(r.records.Wall(r.last)).Format(layout),
		time.Duration(r.last-r.first).Round(time.Millisecond))
	if n := r.records.Strays; n > 0 {
		fmt.Fprintf(&b, "; records out of line: %d", n)
	}
	b.WriteByte('\n')
	fmt.Fprintf(&b, "passed %s; dropped %s (%.2f%%)\n", amount(s.Passed), amount(dropped),
		100*float64(dropped.Bytes)/float64(max(s.In.Bytes, 1)))
	times := fmt.Sprintf("closed %d times, %s in all", r.times, r.closed.Round(time.Millisecond))
	switch r.times {
	case 0:
		times = "never closed"
	case 1:
		times = fmt.Sprintf("closed once, for %s", r.closed.Round(time.Millisecond))
	}
	fmt.Fprintf(&b, "%s; the fullest window had %.2f%% of %s", times, 100*r.fullest, cli.Human(float64(r.quota), "B"))
	if r.delay > 0 {
		fmt.Fprintf(&b, "; frames waited up to %s", r.delay.Round(time.Microsecond))
	}
	return b.String()
}

func moment(ns int64) time.Time { return time.Unix(0, ns).UTC() }
