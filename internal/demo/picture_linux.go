package main

import (
	"bytes"
	"fmt"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/svg"
)

// picture draws the rate over time, and the mean rate that the quota allows.
func (w *watcher) picture() []byte {
	const step = 50 * time.Millisecond
	quota, port := float64(w.quota)*8/w.window.Seconds(), float64(w.port)
	mean, size := cli.Human(quota, "bit/s"), cli.Human(float64(w.quota), "B")
	p := svg.New(290, fmt.Sprintf("A port of %s, held to %s in any %v", cli.Human(port, "bit/s"), size, w.window),
		fmt.Sprintf("A TCP download through quotagate. %s is the mean that the quota allows.", mean))
	at := &svg.Plot{Picture: p, Top: 110, High: 140, Most: port, Per: 1, Unit: "bit/s"}
	open, paced := make([]float64, svg.Columns), make([]float64, svg.Columns)
	for i := range paced {
		t := length * time.Duration(i) / svg.Columns
		if paced[i] = w.rate(t-step, t+step); paced[i] > port/2 {
			open[i], paced[i] = paced[i], 0
		}
	}
	marks, share := []svg.Mark{}, func(t time.Duration) float64 { return float64(t) / float64(length) }
	for t := time.Duration(0); t < length; t += 2 * time.Second {
		marks = append(marks, svg.Mark{At: share(t), Label: fmt.Sprintf("%.0f s", t.Seconds())})
	}
	at.Span("blank", share(first), share(first+pause))
	at.Axis(4, "", "")
	at.Area("free", 0, open)
	at.Area("out", 0, paced)
	at.Level("quota", mean, quota, false)
	at.Key("free", "full speed, up to 75% of the quota")
	at.Key("out", "paced")
	at.Key("blank", "pause")
	at.Ticks(marks...)
	var out bytes.Buffer
	_ = p.Write(&out)
	return out.Bytes()
}
