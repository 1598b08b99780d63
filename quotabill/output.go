package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"framepipe/internal/bill"
	"framepipe/internal/cli"
	"framepipe/internal/metrics"

	"golang.org/x/sys/unix"
)

// report is what quotabill writes: a bill, or several, a simulation, or a plan.
type report interface {
	Text(io.Writer, bill.Style) error // for people
	JSON() []map[string]any           // for programs
}

// write writes the report on an input and the files of -svg, -html, -prom and -slots. Unless all can be
// written, it writes no report. A file with the name - goes to stdout in its place.
func (j *job) write(r report, input string) error {
	var out bytes.Buffer
	if j.json {
		for _, object := range r.JSON() {
			if err := json.NewEncoder(&out).Encode(object); err != nil {
				return err
			}
		}
	} else if err := r.Text(&out, styleOf(os.Stdout)); err != nil {
		return err
	}
	type file struct {
		name  string
		write func(io.Writer) error
	}
	var files []file
	switch x := r.(type) {
	case *bill.Bill:
		files = []file{{j.svg, x.SVG}, {j.html, x.HTML}, {j.prom, func(w io.Writer) error { return x.Prometheus(w, j.label(input)) }}, {j.slots, x.Slots}}
	case *bill.Simulated:
		files = []file{{j.svg, x.Bill.SVG}, {j.html, x.HTML}, {j.slots, x.Bill.Slots}}
	case bill.Plan:
		files = []file{{j.svg, x.SVG}, {j.html, x.HTML}}
	}
	for _, f := range files {
		if f.name == "" {
			continue
		}
		var content bytes.Buffer
		if err := f.write(&content); err != nil {
			return err
		}
		if f.name == "-" {
			out = content
		} else if err := cli.Write(f.name, content.Bytes()); err != nil {
			return err
		}
	}
	if _, err := os.Stdout.Write(out.Bytes()); err != nil && !errors.Is(err, unix.EPIPE) {
		return err
	}
	return nil
}

// label names the ledger or file in the series of -prom.
func (j *job) label(input string) metrics.Label {
	source := metrics.Label{Name: "ledger", Value: input}
	if j.csv != nil {
		source.Name = "file"
	}
	if absolute, err := filepath.Abs(input); err == nil && input != "-" {
		source.Value = absolute
	}
	return source
}

// styleOf returns the style of text written to a file.
func styleOf(f *os.File) bill.Style {
	fd := int(f.Fd())
	s := bill.Style{ASCII: !cli.UTF8(), Colour: cli.Colour(fd)}
	if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
		s.Width = int(size.Col)
	}
	return s
}
