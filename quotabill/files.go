package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/cli"
	"framepipe/internal/samples"
)

// The values of -add.
const (
	addSamples     = "samples"
	addPercentiles = "percentiles"
)

// fromFiles reads the ports of -csv, as one if they are to be added up.
func (j *job) fromFiles(t *cli.Tool) (ports []samples.Port, err error) {
	for _, name := range j.csv {
		list, notes, err := j.read(name)
		if name == "-" {
			name = "stdin"
		}
		if err != nil && !errors.As(err, new(*os.PathError)) { // it names the file already
			err = fmt.Errorf("%s: %w", name, err)
		}
		if err != nil {
			return nil, err
		}
		for _, note := range notes {
			t.Warnf("%s: %s", name, note)
		}
		for _, p := range list {
			t.Verbosef("%s: %s%d samples, %v apart", name, strings.TrimLeft(p.Name+" ", " "), p.Len(), cli.Duration(p.Slot))
			if len(j.csv) > 1 {
				p.Name = strings.TrimSpace(name + " " + p.Name)
			}
			ports = append(ports, p)
		}
	}
	switch {
	case len(ports) == 1:
	case j.add == "":
		var names []string
		for _, p := range ports {
			names = append(names, p.Name)
		}
		return nil, cli.Hint(fmt.Errorf("there are %d ports: %s", len(ports), strings.Join(names, ", ")),
			"give -add samples or -add percentiles, or for one of a file -format port=NAME")
	case j.add == addSamples:
		sum, notes, err := samples.Sum(ports)
		if err != nil {
			return nil, err
		}
		for _, note := range notes {
			t.Warnf("%s", note)
		}
		ports = []samples.Port{{Samples: sum}}
	}
	if j.window.Month {
		j.terms.Window = max(j.terms.Window, ports[0].Slot)
	}
	return ports, nil
}

func (j *job) read(name string) ([]samples.Port, []string, error) {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, err
		}
		defer f.Close()
		in = f
	}
	return samples.Read(in, samples.Options{Zone: j.calendar.Zone, Interval: time.Duration(j.interval),
		Format: j.format, Counters: j.counters, Speed: int64(j.speed)})
}

// perPort is the bills of several ports, which are paid together.
type perPort struct {
	ports []samples.Port
	bills bill.Bills
	bps   float64 // the sum
}

// Text writes a line a port, and the sum.
func (p perPort) Text(w io.Writer, _ bill.Style) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	first := p.bills[0]
	fmt.Fprintf(t, "port\tbilled\tcycle %s, percentile %v\n", first.Cycle.Name, first.Percentile)
	for i, b := range p.bills {
		fmt.Fprintf(t, "%s\t%s\t%d samples\n", p.ports[i].Name, cli.Human(b.BPS(b.Billed), "bit/s"), b.Samples)
	}
	fmt.Fprintf(t, "sum\t%s\n", cli.Human(p.bps, "bit/s"))
	return t.Flush()
}

// JSON returns the bill of each port with its name, and the sum.
func (p perPort) JSON() []map[string]any {
	list := p.bills.JSON()
	for i := range list {
		list[i]["port"] = p.ports[i].Name
	}
	return append(list, map[string]any{"port": nil, "billed_bps": p.bps})
}
