package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/gate"
)

// monitor publishes the state of a gate: to SIGUSR1, to Prometheus, and with -v.
type monitor struct {
	tool   *cli.Tool
	file   string
	replay *replay // with -clock stream
	state  atomic.Pointer[state]
	shut   bool
	failed bool
	wrote  time.Time
}

// publish stores and publishes a state. If it cannot write the metrics file, it warns
// once and tries again later: a full disk must not stop the traffic.
func (m *monitor) publish(now int64, s state) {
	m.state.Store(&s)
	at := ""
	if m.replay != nil {
		m.replay.observe(now, &s.State)
		at = moment(m.replay.records.wall(now)).Format("2006-01-02T15:04:05Z ")
	}
	if m.shut == s.Open {
		m.shut = !s.Open
		m.tool.Verbosef("%s%s", at, m.line())
	}
	// A replay passes many seconds of its stream in one second.
	if m.replay == nil || time.Since(m.wrote) >= time.Second {
		m.write()
	}
}

// write writes the metrics file.
func (m *monitor) write() {
	s := m.state.Load()
	if m.file == "" || s == nil {
		return
	}
	m.wrote = time.Now()
	err := cli.Replace(m.file, m.prometheus(s))
	if err != nil && !m.failed {
		m.tool.Warnf("%v", err)
	}
	m.failed = err != nil
}

// end publishes the result of a replay.
func (m *monitor) end() {
	if m.replay == nil {
		return
	}
	m.write()
	for line := range strings.SplitSeq(m.replay.String(), "\n") {
		m.tool.Verbosef("%s", line)
	}
}

func word(s *state) string {
	switch {
	case s.Open:
		return "open"
	case s.Rate > 0 && !math.IsInf(s.Rate, 0):
		return "pacing"
	}
	return "clamped"
}

// line returns the line of SIGUSR1.
func (m *monitor) line() string {
	s := m.state.Load()
	if s == nil {
		return "no frame yet"
	}
	line := fmt.Sprintf("state=%s used=%d quota=%d used_share=%.4f", word(s), s.Used, s.Quota, float64(s.Used)/float64(max(s.Quota, 1)))
	if b := s.Budget; b != nil {
		burst := "held"
		if b.Free {
			burst = "free"
		}
		line += fmt.Sprintf(" free_total=%d free_used=%d free_left=%d burst=%s", b.Total, b.Used, b.Left, burst)
		if b.Spent > 0 {
			line += fmt.Sprintf(" spent=%d", b.Spent)
		}
	}
	if !math.IsInf(s.Rate, 0) {
		line += fmt.Sprintf(" rate_bytes=%.0f", s.Rate)
	}
	for _, c := range counters(s) {
		if c.label == "" || c.Frames > 0 {
			line += fmt.Sprintf(" %s=%d %s_bytes=%d", c.short, c.Frames, c.short, c.Bytes)
		}
	}
	return line + fmt.Sprintf(" held=%d held_bytes=%d delay=%v", s.HeldFrames, s.HeldBytes, s.Delay)
}

type counter struct {
	name, label, short string
	gate.Counts
}

func counters(s *state) []counter {
	return []counter{
		{"read", "", "read", s.Read},
		{"in", "", "in", s.In},
		{"passed", "", "passed", s.Passed},
		{"dropped", `reason="early"`, "dropped_early", s.DroppedEarly},
		{"dropped", `reason="full"`, "dropped_full", s.DroppedFull},
		{"dropped", `reason="quota"`, "dropped_quota", s.DroppedQuota},
		{"dropped", `reason="malformed"`, "dropped_malformed", s.Malformed},
		{"marked", "", "marked", s.Marked},
		{"control", "", "control", s.Control},
		{"unmetered", "", "unmetered", s.Unmetered},
	}
}

// prometheus returns the state in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func (m *monitor) prometheus(s *state) []byte {
	var b bytes.Buffer
	all := counters(s)
	for _, unit := range []string{"frames", "bytes"} {
		last := ""
		for _, c := range all {
			name := "quotagate_" + c.name + "_" + unit + "_total"
			if c.name != last {
				fmt.Fprintf(&b, "# TYPE %s counter\n", name)
				last = c.name
			}
			n := c.Frames
			if unit == "bytes" {
				n = c.Bytes
			}
			if c.label != "" {
				name += "{" + c.label + "}"
			}
			fmt.Fprintf(&b, "%s %d\n", name, n)
		}
	}
	gauge := func(name string, v float64) {
		fmt.Fprintf(&b, "# TYPE quotagate_%s gauge\nquotagate_%s %v\n", name, name, v)
	}
	flag := map[bool]float64{true: 1}
	gauge("open", flag[s.Open])
	gauge("window_used_bytes", float64(s.Used))
	gauge("window_quota_bytes", float64(s.Quota))
	gauge("paced_bytes_per_second", s.Rate)
	if b := s.Budget; b != nil {
		gauge("free_windows_total", float64(b.Total))
		gauge("free_windows_used", float64(b.Used))
		gauge("burst_free", flag[b.Free])
		gauge("spent_window_bytes", float64(b.Spent))
	}
	gauge("held_frames", float64(s.HeldFrames))
	gauge("held_bytes", float64(s.HeldBytes))
	gauge("delay_seconds", s.Delay.Seconds())
	return b.Bytes()
}
