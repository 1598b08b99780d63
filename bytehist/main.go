// Bytehist passes a stream on and counts the bytes of its frames.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/hist"
	"framepipe/internal/recorded"
	"framepipe/internal/sandbox"
)

const usage = `usage: bytehist [-clock wall|stream] [-every 10s] [-format text|json|msgpack] [-o FILE]
                [-sample N] [-top N] [-v] < stream > stream

Copies a stream, and reports the values of its bytes, the sizes of its frames and
the rates.

  -clock C      where time comes from: wall, the clock of the machine, or stream, the
                times of the records; default: stream if the input is a file, else wall
  -every D      report every D, and at the end; default 10s
  -format F     text (default): a square of the 256 byte values, shaded by frequency,
                with the entropy, the sizes and the rates. json, msgpack: one object
                a report, for programs
  -o FILE       append reports to FILE; default stderr
  -sample N     count the bytes of every Nth frame only; 1 counts all. Default: all of
                a file; of another stream a random share, at most about 16 MiB a
                second. Reports have the share
  -top N        show the N pairs of addresses with the most bytes, too
  -v            say more on stderr
  -version      print the version
  -h            print this

Text has colour on a terminal, unless NO_COLOR is set. For the frames a second, a
super-frame counts as the frames that it is cut into. A live stream does not wait for
a slow reader of the reports: a report is left out. SIGUSR1 prints counters.

  tunread tap0 | bytehist | tunwrite tap1
  bytehist -every 1h -top 10 < capture.frames > /dev/null
`

func main() {
	flags := flag.NewFlagSet("bytehist", flag.ContinueOnError)
	c := config{every: cli.Duration(10 * time.Second), clock: byInput}
	flags.Func("clock", "", cli.Choice(&c.clock, "wall", "stream"))
	flags.Var(&c.every, "every", "")
	flags.Func("format", "", cli.Choice(&c.format, "text", "json", "msgpack"))
	flags.StringVar(&c.output, "o", "", "")
	flags.IntVar(&c.sample, "sample", 0, "")
	flags.IntVar(&c.top, "top", 0, "")
	tool := &cli.Tool{Name: "bytehist", Usage: usage, Flags: flags}
	tool.Run = func(t *cli.Tool, _ []string) error { return run(t, c) }
	tool.Main()
}

// source is where time comes from.
type source uint8

const (
	wall source = iota
	stream
	byInput // stream if the input is a file
)

type config struct {
	clock  source
	every  cli.Duration
	format format
	output string
	sample int
	top    int
}

func run(t *cli.Tool, c config) error {
	switch {
	case c.every <= 0:
		return cli.Usagef("-every %v: must be greater than zero", c.every)
	case c.output == "-":
		return cli.Usagef("-o -: stdout has the stream; without -o, reports go to stderr")
	case c.sample < 0:
		return cli.Usagef("-sample %d: want 1 or more, or 0 for the default", c.sample)
	case c.top < 0:
		return cli.Usagef("-top %d: want 1 or more, or 0 for none", c.top)
	}
	const example = "tunread tap0 | bytehist | tunwrite tap1"
	if err := errors.Join(cli.Stdin(example), cli.Stdout(example)); err != nil {
		return err
	}
	out, err := cli.Output()
	if err != nil {
		return err
	}
	reports := os.Stderr
	if c.output != "" {
		if reports, err = open(c.output); err != nil {
			return err
		}
	}
	r := &reporter{format: c.format, file: reports, out: fdio.NewOutput(int(reports.Fd())), warn: t.Warnf}
	in := fdio.NewTeeStream(0, out)
	if in.Regular() {
		r.patient = true
		c.sample = cmp.Or(c.sample, 1)
		if c.clock == byInput {
			c.clock = stream
		}
	}
	h := &counter{
		in:     in,
		every:  min(time.Duration(c.every), 1<<61), // 73 years, so that sums do not overflow
		share:  newShare(c.sample, time.Now()),
		report: r.report,
	}
	r.style = hist.Style{Colour: cli.Colour(r.out.Fd()), ASCII: !cli.UTF8(), Date: c.clock == stream}
	if c.clock == stream {
		h.records = &recorded.Clock{}
	}
	if c.top > 0 {
		h.top = hist.NewTop(c.top)
	}
	t.Counters(func() string {
		return h.line() + fmt.Sprintf(" reports=%d left_out=%d", r.written.Load(), r.leftOut.Load())
	})
	fdio.Steady() // the sandbox forbids it
	t.Verbosef("sandbox: %s", sandbox.Enter())
	return cli.Ends(h.run())
}
