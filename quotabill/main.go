// Quotabill computes the bill of a provider.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
	"framepipe/internal/samples"
)

const usage = `usage: quotabill [flags] {-csv FILE | LEDGER}
       quotabill [flags] -csv FILE LEDGER

Computes a provider's bill for the traffic of a cycle. With both a file and a ledger,
compares the two, and finds when the provider polls, for quotagate -phase.

  LEDGER           the ledger of a gate. The defaults of the cycle and the window are
                   the ledger's
  -csv FILE        read samples from a file; - is standard input. It may be CSV, or of
                   vnStat, RRDtool, LibreNMS, Cacti, Grafana, MRTG, Prometheus, nfdump
  -interval D      time between samples; default: the most frequent one
  -format LIST     facts that the file does not show: a format, bits, rate, end, dmy,
                   in=NAME,out=NAME; see the manual
  -counters        values are counters, which may wrap or be reset
  -speed RATE      speed of the port; a sample a tenth above it is an error
  -add WHAT        bill several files or ports together: samples (the sum of their
                   samples), or percentiles (the sum of their bills)
  -rate RATE       the commit: 100Mbit/s, 12.5MB/s. The free windows of the percentile
                   may be over it
  -quota SIZE      the commit in bytes of a window; with -window month, a transfer cap
  -window D        length of the provider's samples: 5m (default), month
  -method M        separate (default: each direction's percentile, the larger is
                   billed), max (the larger direction of each sample), sum, in, out
  -percentile P    95 (default), 99.9, 100
  -rank R          floor (default: discard the share above the percentile, rounded
                   down, and bill the next sample), nearest (LibreNMS, vnStat)
  -missing M       missing samples count as zero (default), or not at all: skip
  -cycle NAME      the cycle that begins in a month, 2005-06; if the ledger's cycles are
                   not months, on a day, 2026-03-05; last: the last that has ended.
                   Default: the last with samples
  -cycle-day N     day of the month on which cycles begin; default 1
  -tz NAME         time zone of cycles, and of times without one; default UTC
  -price M         price of a Mbit/s of the commit in a cycle: 2.50. Adds costs to bills
                   and plans
  -overage M       price of a Mbit/s billed above the commit; default: the same
  -round-up        round the overage up to whole Mbit/s
  -minimum M       the least that a cycle costs
  -currency NAME   currency to print with amounts: EUR
  -warn S,..       print a warning and exit with status 3 if a share of the free windows
                   or of the transfer cap is reached, 75%,90%, or a forecast is over
  -all             write a line for each cycle
  -json            for programs: one object a cycle
  -simulate        simulate gates at the commit, as quotagate -percentile: the traffic
                   that passes, and its bill
  -plan            the same for a range of commits, a line each: which one to buy
  -threshold S     with these: share of the commit that passes untouched; default 75%
  -patience D      with these: how long delayed traffic waits before it is lost;
                   default 0
  -reserve N       with these or a ledger: free windows that stay unused
  -jitter D        with these or a ledger: how early or late the provider may poll;
                   default 2s, but at most a tenth of the window
  -phase D         with these or a ledger: when the provider polls, after each multiple
                   of the window since the Unix epoch; default: unknown
  -into LEDGER     with -csv and a commit: count the samples of this cycle and the last
                   in a ledger, for a gate that starts in mid-cycle
  -svg FILE        draw the cycle and its duration curve, or with -plan the plan
  -html FILE       write a page with the pictures and the figures, to be mailed
  -title TEXT      name of the traffic in these; default: for a ledger, this host
  -prom FILE       write the figures for Prometheus
  -slots FILE      write time,in,out,offered_in,offered_out for each sample or slot
  -v               say more on stderr
  -version         print the version
  -h               print this

For -svg, -html, -prom and -slots, - is standard output. Without a commit, windows over
the billed rate are free. Text has colour on a terminal, unless NO_COLOR is set.

  quotabill -rate 100Mbit/s /var/lib/framepipe/bill
  quotabill -csv samples.csv -rate 100Mbit/s
  quotabill -csv samples.csv -cycle 2005-06 -method sum -svg june.svg
  quotabill -csv samples.csv -plan -price 9.50 -overage 14 -currency EUR
  quotabill -csv samples.csv -window month -quota 20TB -cycle-day 5
`

// job has the values of the flags, and what follows from them.
type job struct {
	csv       []string
	ledger    string
	interval  cli.Duration
	format    samples.Format
	counters  bool
	speed     cli.Rate
	add       string // addSamples or addPercentiles, if several ports become one bill
	rate      cli.Rate
	quota     cli.Size
	window    cli.Window
	terms     bill.Terms
	cycle     string
	calendar  calendar.Calendar
	zone      string
	all, json bool
	svg, html string
	title     string
	prom      string
	slots     string
	into      string
	simulate  bool
	plan      bool
	threshold cli.Share
	jitter    cli.Duration
	phase     cli.Duration
	patience  cli.Duration
	warn      []float64
	given     func(flags ...string) bool // whether any of these is
}

func main() {
	j := job{window: cli.Window{Duration: cli.Duration(5 * time.Minute)}, format: samples.Format{}}
	j.terms.Percentile, j.threshold = 95e9, 0.75 // as of gates
	flags := flag.NewFlagSet("quotabill", flag.ContinueOnError)
	tool := &cli.Tool{Name: "quotabill", Usage: usage, Args: "[LEDGER]", Flags: flags, Run: j.run, Abrupt: true}
	flags.Func("csv", "", func(s string) error {
		j.csv = append(j.csv, s)
		return nil
	})
	flags.Var(&j.interval, "interval", "")
	flags.Func("format", "", j.format.Set)
	flags.BoolVar(&j.counters, "counters", false, "")
	flags.Var(&j.speed, "speed", "")
	flags.Func("add", "", func(s string) error {
		j.add = s
		return cli.Choice(new(uint8), addSamples, addPercentiles)(s)
	})
	flags.Var(&j.rate, "rate", "")
	flags.Var(&j.quota, "quota", "")
	flags.Var(&j.window, "window", "")
	flags.Func("method", "", cli.Choice(&j.terms.Method, bill.Methods...))
	flags.Var(&j.terms.Percentile, "percentile", "")
	flags.Func("rank", "", cli.Choice(&j.terms.Rank, bill.Ranks...))
	flags.Func("missing", "", cli.Choice(&j.terms.Missing, bill.Missings...))
	flags.StringVar(&j.cycle, "cycle", "", "")
	flags.IntVar(&j.calendar.Day, "cycle-day", 1, "")
	flags.StringVar(&j.zone, "tz", "UTC", "")
	flags.BoolVar(&j.all, "all", false, "")
	flags.BoolVar(&j.json, "json", false, "")
	flags.StringVar(&j.svg, "svg", "", "")
	flags.StringVar(&j.html, "html", "", "")
	flags.StringVar(&j.title, "title", "", "")
	flags.StringVar(&j.prom, "prom", "", "")
	flags.StringVar(&j.slots, "slots", "", "")
	flags.StringVar(&j.into, "into", "", "")
	flags.BoolVar(&j.simulate, "simulate", false, "")
	flags.BoolVar(&j.plan, "plan", false, "")
	flags.Var(&j.terms.Prices.Commit, "price", "")
	flags.Var(&j.terms.Prices.Overage, "overage", "")
	flags.BoolVar(&j.terms.Prices.Whole, "round-up", false, "")
	flags.Var(&j.terms.Prices.Minimum, "minimum", "")
	flags.StringVar(&j.terms.Prices.Currency, "currency", "", "")
	flags.Func("warn", "", j.setWarn)
	flags.Var(&j.threshold, "threshold", "")
	flags.Int64Var(&j.terms.Reserve, "reserve", 0, "")
	flags.Var(&j.jitter, "jitter", "")
	flags.Var(&j.phase, "phase", "")
	flags.Var(&j.patience, "patience", "")
	j.given = func(names ...string) (given bool) {
		flags.Visit(func(f *flag.Flag) { given = given || slices.Contains(names, f.Name) })
		return given
	}
	tool.Main()
}

// setWarn sets the flag -warn.
func (j *job) setWarn(list string) error {
	for text := range strings.SplitSeq(list, ",") {
		var s cli.Share
		if err := s.Set(text); err != nil {
			return err
		}
		if s == 0 {
			return errors.New("a share must be greater than zero")
		}
		j.warn = append(j.warn, float64(s))
	}
	return nil
}

// conflict returns an error if flags do not go together.
func (j *job) conflict() error {
	commit, gates := j.rate != 0 || j.quota != 0, j.simulate || j.plan
	toStdout := slices.DeleteFunc([]string{j.svg, j.html, j.prom, j.slots}, func(name string) bool { return name != "-" })
	for _, x := range []struct {
		is      bool
		message string
	}{
		{j.csv == nil && j.ledger == "", "nothing to bill: give LEDGER, or -csv FILE"},
		{len(toStdout) > 1 || len(toStdout) == 1 && j.json,
			"standard output has room for one: -json, or one of -svg, -html, -prom and -slots with -"},
		{j.rate != 0 && j.quota != 0 && !j.window.Month, "-quota and -rate both set the commit: give one"},
		{j.window.Month && j.quota == 0, "-window month is a transfer cap: give its size with -quota"},
		{j.all && j.given("cycle"), "-all is for all cycles and -cycle for one: give one of these"},
		{j.all && j.given("svg", "html", "prom", "slots"),
			"-svg, -html, -prom and -slots are for one cycle: give them without -all"},
		{j.csv != nil && j.ledger != "" && (j.add == addPercentiles ||
			j.given("all", "cycle", "svg", "html", "prom", "slots", "into", "simulate", "plan", "warn")),
			"samples are compared with a ledger, or billed: give only one of -csv and LEDGER"},
		{j.title != "" && !j.given("svg", "html"), "-title goes with -svg or -html"},
		{j.csv == nil && j.given("interval", "format", "counters", "speed", "add"),
			"-interval, -format, -counters, -speed and -add go with -csv"},
		{j.add == addPercentiles &&
			(j.window.Month || j.given("all", "svg", "html", "prom", "slots", "simulate", "plan")),
			"-add percentiles is for a bill: -all, -svg, -html, -prom, -slots, -simulate, -plan and -window month need -add samples"},
		{!gates && j.given("threshold", "patience"), "-threshold and -patience go with -simulate or -plan"},
		{!gates && j.csv != nil && j.into == "" && j.ledger == "" && j.given("reserve", "jitter", "phase"),
			"-reserve, -jitter and -phase go with a ledger, -simulate or -plan"},
		{j.simulate && j.plan, "-simulate is for one commit and -plan for several: give one"},
		{gates && j.window.Month,
			"-window month is a transfer cap: -simulate and -plan are for a percentile"},
		{j.simulate && !commit, "-simulate needs a commit: give -rate 100Mbit/s, or -quota"},
		{gates && j.given("all", "prom"), "-all and -prom are for bills, not for -simulate or -plan"},
		{j.plan && j.given("slots"), "-slots is for one commit: give it with -simulate, not -plan"},
		{gates && j.terms.Missing != bill.Zero,
			"-missing is not for -simulate or -plan: they count missing samples as zero"},
		{!j.given("price") && j.given("overage", "round-up", "minimum", "currency"),
			"-overage, -round-up, -minimum and -currency go with -price"},
		{j.terms.Prices.Commit != 0 && j.window.Month,
			"-price is for a percentile, and -window month is a transfer cap"},
		{j.warn != nil && (j.all || gates),
			"-warn is for the bill of one cycle: give it without -all, -simulate and -plan"},
		{j.warn != nil && !commit, "-warn needs a commit or a transfer cap: give -rate, or -quota"},
		{j.into != "" && (j.csv == nil || j.add == addPercentiles || gates),
			"-into is for samples: give it with -csv, without -simulate, -plan and -add percentiles"},
		{j.into != "" && !commit,
			"-into needs the commit of the gate, which free windows go by: give -rate, or -quota"},
	} {
		if x.is {
			return cli.Usagef("%s", x.message)
		}
	}
	return nil
}

// check checks the flags, and computes the terms and the calendar.
func (j *job) check() (err error) {
	if err := j.conflict(); err != nil {
		return err
	}
	t := &j.terms
	switch {
	case j.calendar.Day < 1 || j.calendar.Day > 31:
		return cli.Usagef("-cycle-day %d: a month has days 1 to 31", j.calendar.Day)
	case j.window.Duration > cli.Duration(24*time.Hour):
		return cli.Usagef("-window %v: must be at most a day, or month", j.window)
	case t.Reserve < 0:
		return cli.Usagef("-reserve %d is negative", t.Reserve)
	}
	if j.calendar.Zone, err = cli.Zone(j.zone); err != nil {
		return err
	}
	t.Window, t.Commit = time.Duration(j.window.Duration), int64(j.quota)
	t.Poller = budget.NewPoller(t.Window)
	if j.given("jitter") {
		t.Poller.Jitter = time.Duration(j.jitter)
	}
	t.Poller.Known, t.Poller.Phase = j.given("phase"), time.Duration(j.phase)
	if j.window.Month {
		t.Window, t.Commit, t.Cap = 5*time.Minute, 0, int64(j.quota)
	}
	if j.rate != 0 {
		if t.Commit, err = bill.Bytes(int64(j.rate), t.Window); err != nil {
			return cli.Usagef("-rate %v: %w", j.rate, err)
		}
		if t.Commit == 0 {
			return cli.Usagef("-rate %v is less than a byte in a window", j.rate)
		}
	}
	t.Held = j.csv == nil && t.Commit > 0
	t.Prices.Overage = cmp.Or(t.Prices.Overage, t.Prices.Commit)
	return nil
}

// checkPoller refuses a -phase or -jitter that does not fit samples of this length.
func (j *job) checkPoller(length time.Duration) error {
	if err := j.terms.Poller.Check(length); err != nil {
		return cli.Usagef("%w", err)
	}
	return nil
}

func (j *job) run(t *cli.Tool, args []string) error {
	j.ledger = strings.Join(args, "") // one at most
	if err := j.check(); err != nil {
		return err
	}
	ports, name, err := j.input(t)
	if err != nil {
		return err
	}
	s := ports[0].Samples
	if j.csv != nil && j.ledger != "" {
		return j.compare(s)
	}
	if err := j.checkPoller(j.terms.Window); err != nil { // known now: it may be the ledger's
		return err
	}
	for _, p := range ports {
		p.Samples.Source = j.source(name)
	}
	cycles, err := j.cycles(t, s)
	if err != nil {
		return err
	}
	r, err := j.report(ports, cycles)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if j.into != "" {
		if err := j.fill(s, cycles[0], time.Now().UnixNano()); err != nil {
			return err
		}
	}
	if err := j.write(r, name); err != nil {
		return err
	}
	if b, ok := r.(*bill.Bill); ok && j.warn != nil {
		if list := b.Warnings(j.warn); len(list) > 0 {
			return cli.Warning(fmt.Errorf("%s: %s", name, strings.Join(list, "\n"+name+": ")))
		}
	}
	return nil
}

// input returns the ports of the files, or one of the ledger, and the names of these.
func (j *job) input(t *cli.Tool) (ports []samples.Port, name string, err error) {
	if j.csv != nil {
		ports, err = j.fromFiles(t)
		return ports, strings.Join(j.csv, ", "), err
	}
	s, err := j.fromLedger(time.Now().UnixNano())
	if err == nil {
		err = j.check() // again, with the ledger's cycle and window
	}
	return []samples.Port{{Samples: s}}, j.ledger, err
}

// source says whose traffic it is, and which file has it.
func (j *job) source(name string) string {
	who := j.title
	if who == "" && j.csv == nil {
		who, _ = os.Hostname()
	}
	switch {
	case name == "-":
		return who
	case who == "":
		return name
	}
	return who + " · " + name
}

// cycles returns the cycles to report. Without a flag it is the last, unless all that is
// known of that is one sample after a cycle of more: it is the end of that one's file.
func (j *job) cycles(t *cli.Tool, s *bill.Samples) ([]calendar.Cycle, error) {
	cycles := s.Cycles(j.calendar)
	last := len(cycles) - 1
	switch {
	case j.all:
		return cycles, nil
	case j.cycle == "last":
		start, _ := j.calendar.Bounds(time.Now().UnixNano())
		return []calendar.Cycle{j.calendar.At(start - 1)}, nil
	case j.cycle != "":
		cycle, err := j.calendar.Parse(j.cycle)
		if err != nil {
			return nil, cli.Usagef("-cycle %s: %w", j.cycle, err)
		}
		return []calendar.Cycle{cycle}, nil
	case j.csv != nil && last > 0 && s.Count(cycles[last]) == 1 && s.Count(cycles[last-1]) > 1:
		t.Warnf("a single sample is of the cycle %s: it is left out; -cycle %s bills it", cycles[last].Name, cycles[last].Name)
		last--
	}
	return cycles[last : last+1], nil
}

// report computes the report that the flags ask for.
func (j *job) report(ports []samples.Port, cycles []calendar.Cycle) (report, error) {
	if j.simulate || j.plan {
		scenario, err := bill.NewScenario(ports[0].Samples, cycles[0], bill.Gates{
			Terms: j.terms, Calendar: j.calendar,
			Threshold: float64(j.threshold), Patience: time.Duration(j.patience),
		})
		switch {
		case err != nil:
			return nil, err
		case j.plan:
			return scenario.Plan(j.terms.Commit)
		}
		return scenario.Simulate(j.terms.Commit)
	}
	all := perPort{ports: ports}
	for _, p := range ports {
		for _, cycle := range cycles {
			b, err := bill.New(p.Samples, cycle, j.calendar.Zone, j.terms)
			switch {
			case err != nil && len(ports) > 1:
				return nil, fmt.Errorf("%s: %w", p.Name, err)
			case err != nil:
				return nil, err
			}
			all.bills = append(all.bills, b)
			all.bps += b.BPS(b.Billed)
		}
	}
	switch {
	case len(ports) > 1:
		return all, nil
	case j.all:
		return all.bills, nil
	}
	return all.bills[0], nil
}
