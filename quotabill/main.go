// Quotabill computes the bill of a provider.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"

	"golang.org/x/sys/unix"
)

const usage = `usage: quotabill [flags] {-csv FILE | LEDGER}

Computes what a provider would bill for the traffic of a cycle.

  LEDGER           the ledger of a gate. Without flags for them, the bill has its cycles
                   and window
  -csv FILE        read samples, time,in,out: the bytes of the sample that begins at
                   that time; - is standard input
  -interval D      interval of the samples; default: the most frequent one
  -rate RATE       the commit: 100Mbit/s, 12.5MB/s. Windows over it are free until
                   the percentile's share of them is used
  -quota SIZE      the same in bytes of a window; with -window month, a transfer cap
  -window D        length of the provider's samples: 5m (default), month
  -method M        separate (default: each direction's percentile, the larger is
                   billed), max (the larger direction of each sample), sum, in, out
  -percentile P    95 (default), 99.9, 100
  -rank R          floor (default: the share above the percentile, rounded down, is
                   discarded, and the next sample billed), nearest (LibreNMS, vnStat)
  -missing M       how missing samples count: as zero (default), or skip (not at all)
  -cycle NAME      the cycle that begins in a month, 2005-06, or if the ledger's cycles
                   are not months, on a day, 2026-03-05; default: the last
  -cycle-day N     the day of the month on which cycles begin; default 1
  -tz NAME         the time zone of cycles, and of times without one; default UTC
  -all             a line for each cycle
  -json            for programs: one object a cycle
  -simulate        simulate gates at the commit, by the rules of quotagate -percentile:
                   the traffic that passes, and its bill
  -plan            the same for a range of commits, a line each: which one to buy
  -threshold S     with these: share of the commit that passes untouched; default 75%
  -reserve N       with these: free windows that stay unused
  -patience D      with these: how long delayed traffic waits before it is lost;
                   default 0: not at all
  -svg FILE        draw the cycle and its duration curve
  -prom FILE       write the figures for Prometheus
  -slots FILE      write time,offered,passed a slot
  -v               say more on stderr
  -version         print the version
  -h               print this

Without a commit, windows over the billed rate are free. The text has colour on
a terminal, unless NO_COLOR is set.

  quotabill -rate 100Mbit/s /var/lib/quotagate.ledger
  quotabill -csv samples.csv -rate 100Mbit/s
  quotabill -csv samples.csv -cycle 2005-06 -method sum -svg june.svg
  quotabill -csv samples.csv -plan
  quotabill -csv samples.csv -window month -quota 20TB -cycle-day 5
`

type config struct {
	csv        string
	interval   cli.Duration
	rate       cli.Rate
	quota      cli.Size
	window     cli.Window
	method     bill.Method
	percentile budget.Percentile
	rank       bill.Rank
	missing    bill.Missing
	cycle      string
	cycleDay   int
	length     time.Duration // of the cycles of a ledger, 0 for months
	zone       string
	all, json  bool
	svg        string
	prom       string
	slots      string
	simulate   bool
	plan       bool
	threshold  cli.Share
	reserve    int
	patience   cli.Duration
}

func main() {
	c := config{window: cli.Window{Duration: cli.Duration(5 * time.Minute)}, percentile: 95e9, threshold: threshold}
	flags := flag.NewFlagSet("quotabill", flag.ContinueOnError)
	tool := &cli.Tool{Name: "quotabill", Usage: usage, Args: 1, Flags: flags, Abrupt: true}
	flags.Func("csv", "", func(s string) error {
		if s == "" {
			return errors.New("want a file, or - for standard input")
		}
		c.csv, tool.Args = s, 0 // it takes the place of the ledger
		return nil
	})
	flags.Var(&c.interval, "interval", "")
	flags.Var(&c.rate, "rate", "")
	flags.Var(&c.quota, "quota", "")
	flags.Var(&c.window, "window", "")
	flags.Var(&c.method, "method", "")
	flags.Var(&c.percentile, "percentile", "")
	flags.Var(&c.rank, "rank", "")
	flags.Var(&c.missing, "missing", "")
	flags.StringVar(&c.cycle, "cycle", "", "")
	flags.IntVar(&c.cycleDay, "cycle-day", 1, "")
	flags.StringVar(&c.zone, "tz", "UTC", "")
	flags.BoolVar(&c.all, "all", false, "")
	flags.BoolVar(&c.json, "json", false, "")
	flags.StringVar(&c.svg, "svg", "", "")
	flags.StringVar(&c.prom, "prom", "", "")
	flags.StringVar(&c.slots, "slots", "", "")
	flags.BoolVar(&c.simulate, "simulate", false, "")
	flags.BoolVar(&c.plan, "plan", false, "")
	flags.Var(&c.threshold, "threshold", "")
	flags.IntVar(&c.reserve, "reserve", 0, "")
	flags.Var(&c.patience, "patience", "")
	tool.Run = func(t *cli.Tool, args []string) error {
		return run(t, c, args, func(name string) (given bool) {
			flags.Visit(func(f *flag.Flag) { given = given || f.Name == name })
			return given
		})
	}
	tool.Main()
}

// job is a checked config.
type job struct {
	config
	terms    bill.Terms
	zone     *time.Location
	calendar calendar.Calendar
}

// check checks that the flags are consistent.
func (c config) check() (*job, error) {
	j := &job{config: c, terms: bill.Terms{
		Method: c.method, Percentile: c.percentile, Rank: c.rank, Missing: c.missing, Window: time.Duration(c.window.Duration),
	}}
	if err := c.checkSimulation(); err != nil {
		return nil, err
	}
	var err error
	switch {
	case c.rate != 0 && c.quota != 0 && !c.window.Month:
		return nil, cli.Usagef("-quota and -rate both set the commit: give one")
	case c.window.Month && c.quota == 0:
		return nil, cli.Usagef("-window month is a transfer cap: give its size with -quota")
	case c.cycleDay < 1 || c.cycleDay > 31:
		return nil, cli.Usagef("-cycle-day %d: a month has days 1 to 31", c.cycleDay)
	case c.all && c.cycle != "":
		return nil, cli.Usagef("-all is for all cycles and -cycle for one: give one of these")
	case c.all && (c.svg != "" || c.prom != "" || c.slots != ""):
		return nil, cli.Usagef("-svg, -prom and -slots are for one cycle: give them without -all")
	case c.interval != 0 && c.csv == "":
		return nil, cli.Usagef("-interval goes with -csv")
	case c.window.Duration > cli.Duration(24*time.Hour):
		return nil, cli.Usagef("-window %v: must be at most a day, or month", c.window)
	case c.interval != 0 && c.interval < cli.Duration(time.Millisecond):
		return nil, cli.Usagef("-interval %v: must be at least a millisecond", c.interval)
	}
	if j.zone, err = time.LoadLocation(c.zone); err != nil {
		return nil, cli.Usagef("-tz %s: no such time zone", c.zone)
	}
	j.calendar = calendar.Calendar{Day: c.cycleDay, Zone: j.zone, Length: c.length}
	if c.window.Month {
		j.terms.Window = 5 * time.Minute
		j.terms.Cap = int64(c.quota)
	} else {
		j.terms.Commit = int64(c.quota)
	}
	if c.rate != 0 {
		if j.terms.Commit, err = bill.Bytes(int64(c.rate), j.terms.Window); err != nil {
			return nil, cli.Usagef("-rate %v: %w", c.rate, err)
		}
		if j.terms.Commit == 0 {
			return nil, cli.Usagef("-rate %v is less than a byte in a window", c.rate)
		}
	}
	return j, nil
}

// cycle returns the cycle of -cycle, or the last one without the flag.
func (j *job) cycle(source bill.Source) (calendar.Cycle, error) {
	if j.config.cycle == "" {
		return bill.Last(source, j.calendar), nil
	}
	cycle, err := j.calendar.Parse(j.config.cycle)
	if err != nil {
		err = cli.Usagef("-cycle %s: %w", j.config.cycle, err)
	}
	return cycle, err
}

// read reads the samples. name is their file's, for errors.
func (j *job) read(t *cli.Tool) (source bill.Source, name string, err error) {
	in, name := io.Reader(os.Stdin), "stdin"
	if j.csv == "-" {
		if cli.IsTerminal(0) {
			return nil, name, cli.Hint(errors.New("stdin is a terminal"), "quotabill -csv - < samples.csv")
		}
	} else {
		f, err := os.Open(j.csv)
		if err != nil {
			return nil, j.csv, err
		}
		defer f.Close()
		in, name = f, j.csv
	}
	s, err := bill.ReadCSV(in, j.zone, time.Duration(j.interval))
	if err != nil {
		var path *os.PathError
		if !errors.As(err, &path) { // it names the file already
			err = fmt.Errorf("%s: %w", name, err)
		}
		return nil, name, err
	}
	if s.Slot == 0 {
		s.SetSlot(j.terms.Window)
	}
	if s.Slot > j.terms.Window && j.window.Month {
		j.terms.Window = s.Slot
	}
	t.Verbosef("%s: %d samples, %v apart; %d not on the grid, %d repeated", name, s.Len(), s.Slot, s.Moved, s.Repeated)
	return s, name, nil
}

func run(t *cli.Tool, c config, args []string, given func(flag string) bool) error {
	j, err := c.check()
	if err != nil {
		return err
	}
	var source bill.Source
	var name string
	if c.csv != "" {
		source, name, err = j.read(t)
	} else {
		name = args[0]
		if source, err = c.fromLedger(name, given, time.Now().UnixNano()); err == nil {
			j, err = c.check() // again, with the ledger's cycle and window
		}
	}
	if err != nil {
		return err
	}
	of := func(cycle calendar.Cycle) (*bill.Bill, error) {
		b, err := bill.Of(source, cycle, j.zone, j.terms)
		return b, about(name, err)
	}
	style := styleOf(os.Stdout)
	var out bytes.Buffer
	switch {
	case c.simulates():
		err = j.simulateCycle(&out, source, name, style)
	case c.all:
		err = j.writeTable(&out, source, of)
	default:
		var cycle calendar.Cycle
		if cycle, err = j.cycle(source); err != nil {
			return err
		}
		var b *bill.Bill
		if b, err = of(cycle); err == nil {
			if c.json {
				err = json.NewEncoder(&out).Encode(b.JSON())
			} else {
				err = b.Text(&out, style)
			}
		}
		if err == nil {
			err = j.writeFiles(b, source)
		}
	}
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write(out.Bytes()); err != nil && !errors.Is(err, unix.EPIPE) {
		return err
	}
	return nil
}

// about adds the name of the source to an error.
func about(name string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", name, err)
	var unfit *bill.WindowError
	if errors.As(err, &unfit) {
		err = cli.Hint(err, "give the length of the provider's samples with -window, and that of the input's with -interval")
	}
	return err
}

// writeTable writes a line for each cycle.
func (j *job) writeTable(w *bytes.Buffer, source bill.Source, of func(calendar.Cycle) (*bill.Bill, error)) error {
	const row = "%-*s %12s %12s %12s %10s %10s %9s %12s\n"
	cycles := bill.Cycles(source, j.calendar)
	width := len("2005-06 ")
	for _, c := range cycles {
		width = max(width, len(c.Name))
	}
	if !j.json {
		fmt.Fprintf(w, row, width, "cycle", "billed", "in", "out", "in", "out", "samples", "free used")
	}
	for _, cycle := range cycles {
		b, err := of(cycle)
		if err != nil {
			return err
		}
		if j.json {
			if err := json.NewEncoder(w).Encode(b.JSON()); err != nil {
				return err
			}
			continue
		}
		rate := func(bytes int64) string { return cli.Human(b.BPS(bytes), "bit/s") }
		fmt.Fprintf(w, row, width, cycle.Name, rate(b.Billed), rate(b.In), rate(b.Out), cli.Human(float64(b.InBytes), "B"), cli.Human(float64(b.OutBytes), "B"),
			fmt.Sprint(b.Samples), fmt.Sprintf("%d of %d", b.FreeUsed, b.FreeTotal))
	}
	return nil
}

// writeFiles writes the files of -svg, -prom and -slots.
func (j *job) writeFiles(b *bill.Bill, source bill.Source) error {
	if err := j.draw(b); err != nil {
		return err
	}
	if j.prom != "" {
		if err := cli.Write(j.prom, b.Prometheus()); err != nil {
			return err
		}
	}
	if j.slots != "" {
		s, err := source.Series(b.Cycle.Start, b.Cycle.End)
		if err != nil {
			return err
		}
		var buf bytes.Buffer
		if err := b.Slots(&buf, s, nil); err != nil {
			return err
		}
		return cli.Write(j.slots, buf.Bytes())
	}
	return nil
}

// draw writes the picture of -svg.
func (j *job) draw(b *bill.Bill) error {
	if j.svg == "" {
		return nil
	}
	var buf bytes.Buffer
	if err := b.SVG(&buf); err != nil {
		return err
	}
	return cli.Write(j.svg, buf.Bytes())
}
