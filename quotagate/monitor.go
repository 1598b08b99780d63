package main

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/gate"
	"framepipe/internal/metrics"
)

// monitor publishes the state of a gate: to SIGUSR1, to Prometheus, and with -v.
type monitor struct {
	tool      *cli.Tool
	file      string
	ledger    string  // its path, "" for none
	direction string  // "" if unknown
	replay    *replay // with -clock stream
	state     atomic.Pointer[state]
	shut      bool
	failed    bool
}

// publish stores and publishes a state. If it cannot write the metrics file, it warns
// once and tries again later: a full disk must not stop the traffic.
func (m *monitor) publish(now int64, s state) {
	m.state.Store(&s)
	at := ""
	if m.replay != nil {
		m.replay.observe(now, &s.State)
		at = moment(m.replay.records.Wall(now)).Format("2006-01-02T15:04:05Z ")
	}
	if m.shut == s.Open {
		m.shut = !s.Open
		m.tool.Verbosef("%s%s", at, m.line())
	}
	if m.replay == nil { // a replay passes many seconds of its stream in one second
		m.write()
	}
}

// write writes the metrics file.
func (m *monitor) write() {
	s := m.state.Load()
	if m.file == "" || s == nil {
		return
	}
	err := cli.Replace(m.file, m.prometheus(s))
	if err != nil && !m.failed {
		m.tool.Warnf("%v", err)
	}
	m.failed = err != nil
}

// end publishes the result of a replay.
func (m *monitor) end() {
	if m.replay != nil {
		m.write()
		for line := range strings.SplitSeq(m.replay.String(), "\n") {
			m.tool.Verbosef("%s", line)
		}
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
		burst := map[bool]string{true: "free", false: "held"}[b.Free]
		line += fmt.Sprintf(" free_total=%d free_used=%d free_left=%d burst=%s cycle_end=%s", b.Total, b.Used, b.Left, burst,
			time.Unix(0, b.End).UTC().Format(time.RFC3339))
		if b.Spent > 0 {
			line += fmt.Sprintf(" spent=%d", b.Spent)
		}
	}
	if s.Opens > 0 {
		line += fmt.Sprintf(" opens_in=%v", s.Opens.Round(time.Second))
	}
	if !math.IsInf(s.Rate, 0) {
		line += fmt.Sprintf(" rate_bytes=%.0f", s.Rate)
	}
	for _, c := range counters(s) {
		if c.reason == "" || c.Frames > 0 {
			line += fmt.Sprintf(" %s=%d %s_bytes=%d", c.short, c.Frames, c.short, c.Bytes)
		}
	}
	return line + fmt.Sprintf(" held=%d held_bytes=%d delay=%v", s.HeldFrames, s.HeldBytes, s.Delay)
}

type counter struct {
	name, reason, short, help string
	gate.Counts
}

func counters(s *state) []counter {
	const dropped = "dropped, by the reason"
	return []counter{
		{"read", "", "read", "as they stand in the stream", s.Read},
		{"in", "", "in", "that arrived", s.In},
		{"passed", "", "passed", "that passed", s.Passed},
		{"dropped", "early", "dropped_early", dropped, s.DroppedEarly},
		{"dropped", "full", "dropped_full", dropped, s.DroppedFull},
		{"dropped", "quota", "dropped_quota", dropped, s.DroppedQuota},
		{"dropped", "malformed", "dropped_malformed", dropped, s.Malformed},
		{"marked", "", "marked", "marked instead of dropped", s.Marked},
		{"control", "", "control", "of control traffic that passed within its budget", s.Control},
		{"unmetered", "", "unmetered", "that are neither counted nor held up", s.Unmetered},
	}
}

// prometheus returns the state for node_exporter. All series of a gate have the same labels: the ledger, or
// without one the source of the stream, and the direction.
func (m *monitor) prometheus(s *state) []byte {
	own := metrics.Label{Name: "ledger", Value: m.ledger}
	if m.ledger == "" {
		own = metrics.Label{Name: "interface", Value: s.Source}
	}
	out := metrics.New("quotagate_", own, metrics.Label{Name: "direction", Value: m.direction})
	for _, c := range counters(s) {
		out.Counter(c.name+"_frames_total", "Frames "+c.help+".", c.Frames, metrics.Label{Name: "reason", Value: c.reason})
	}
	for _, c := range counters(s) {
		out.Counter(c.name+"_bytes_total", "Bytes of frames "+c.help+".", c.Bytes, metrics.Label{Name: "reason", Value: c.reason})
	}
	gauge := func(name, help string, v float64) { out.Gauge(name, help, v) }
	flag := map[bool]float64{true: 1}
	gauge("open", "1 while the gate is open, else 0.", flag[s.Open])
	gauge("window_used_bytes", "Bytes in the window.", float64(s.Used))
	gauge("window_quota_bytes", "Bytes that may be in the window.", float64(s.Quota))
	gauge("paced_bytes_per_second", "The rate at which frames are let out, +Inf where nothing is paced.", s.Rate)
	if b := s.Budget; b != nil {
		gauge("free_windows_total", "Windows of the cycle that may go over the quota.", float64(b.Total))
		gauge("free_windows_used", "Windows of the cycle that went over the quota.", float64(b.Used))
		gauge("burst_free", "1 while a burst may run on over the quota, else 0.", flag[b.Free])
		gauge("spent_window_bytes", "The bytes of a window that will be billed anyway.", float64(b.Spent))
	}
	gauge("held_frames", "Frames in the queue.", float64(s.HeldFrames))
	gauge("held_bytes", "Bytes of the frames in the queue.", float64(s.HeldBytes))
	gauge("delay_seconds", "How long the last frame that came out of the queue was in it.", s.Delay.Seconds())
	return out.Bytes()
}
