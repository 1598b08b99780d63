package main

import (
	"fmt"
	"math"
	"net"
	"os"
	"strings"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/ping"
	"framepipe/internal/process"
	"framepipe/internal/traffic"
)

// The schedule: a burst, a pause and another burst, with a line of output every row.
const (
	row   = 500 * time.Millisecond
	first = 11 * time.Second
	pause = 5 * time.Second
	again = 3 * time.Second

	length = first + pause + again
)

// watcher receives traffic and draws it.
type watcher struct {
	addr   string
	port   cli.Rate
	quota  cli.Size
	window time.Duration
	svg    string

	log *traffic.Log
}

func (w *watcher) run() error {
	answers := func() bool { // once the pipelines are up
		c, err := net.DialTimeout("tcp", w.addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if !process.Until(5*time.Second, answers) {
		return fmt.Errorf("%s does not answer", w.addr)
	}
	fmt.Printf("A port of %s. The quota is %s in any %v, %s on the average;\nthree quarters of it pass at full speed. All through, a ping every 20 ms.\n\n",
		cli.Human(float64(w.port), "bit/s"), cli.Human(float64(w.quota), "B"), w.window, cli.Human(float64(w.quota)*8/w.window.Seconds(), "bit/s"))
	fmt.Printf("%6s  %-32s %-20s %s\n", "s", "Mbit/s", fmt.Sprintf("in the last %v", w.window), "ping")

	host, _, err := net.SplitHostPort(w.addr)
	if err != nil {
		return err
	}
	pings, err := ping.Start(host, ping.Config{Every: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	w.log = traffic.NewLog(length)
	failed := make(chan error, 1)
	go func() {
		err := traffic.Fetch(w.addr, w.log.Start.Add(first), w.log)
		if err == nil {
			time.Sleep(time.Until(w.log.Start.Add(first + pause)))
			err = traffic.Fetch(w.addr, w.log.Start.Add(length), w.log)
		}
		if err != nil {
			failed <- err
		}
	}()
	seen := 0
	for at := row; at <= length; at += row {
		time.Sleep(time.Until(w.log.Start.Add(at + traffic.Bucket)))
		select {
		case err := <-failed:
			return err
		default:
		}
		rtts := pings.Result().RTTs
		w.draw(at, ping.Median(rtts[seen:]))
		seen = len(rtts)
	}
	pings.Stop()
	if w.svg == "" {
		return nil
	}
	return os.WriteFile(w.svg, w.picture(), 0o644)
}

// rate returns the mean rate in a span, in bits per second.
func (w *watcher) rate(from, to time.Duration) float64 {
	return float64(8*w.log.Between(from, to)) / (to - from).Seconds()
}

func (w *watcher) draw(at, rtt time.Duration) {
	const width = 24
	rate := w.rate(at-row, at)
	block := "#"
	if cli.UTF8() {
		block = "█"
	}
	bar := strings.Repeat(block, int(math.Round(min(rate/float64(w.port), 1)*width)))
	used := w.log.Between(at-w.window, at)
	share := float64(used) / float64(w.quota)
	act := "paced"
	switch {
	case at > first && at <= first+pause:
		act = "pause"
	case rate > 0.8*float64(w.port):
		act = "full speed"
	}
	fmt.Printf("%6.1f  %4.0f %s%s  %6s %3.0f%%          %5.1f ms  %s\n", at.Seconds(), rate/1e6, bar, strings.Repeat(" ", width-len([]rune(bar))),
		cli.Human(float64(used), "B"), 100*share, rtt.Seconds()*1000, act)
}
