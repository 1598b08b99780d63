// Bytehist passes a stream on and counts the bytes of its frames.
package main

import (
	"flag"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/hist"
)

const usage = `usage: bytehist`

func main() {
	flags := flag.NewFlagSet("bytehist", flag.ContinueOnError)
	every := cli.Duration(10 * time.Second)
	flags.Var(&every, "every", "")
	output := flags.String("o", "", "")
	sample := flags.Int("sample", 1, "")
	tool := &cli.Tool{Name: "bytehist", Usage: usage, Flags: flags}
	tool.Run = func(t *cli.Tool, _ []string) error {
		_ = output
		c := &counter{in: fdio.NewTeeStream(fdio.NewInput(0), fdio.NewOutput(1)), every: time.Duration(every), sample: *sample,
			report: func(hist.Report) error { return nil }, hist: new(hist.Counter)}
		return c.run()
	}
	tool.Main()
}
