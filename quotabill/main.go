// Quotabill computes the bill of a provider.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

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
  -speed RATE      speed of the port; a sample above it is an error
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

  quotabill -rate 100Mbit/s /var/lib/quotagate.ledger
  quotabill -csv samples.csv -rate 100Mbit/s
  quotabill -csv samples.csv -cycle 2005-06 -method sum -svg june.svg
  quotabill -csv samples.csv -plan -price 9.50 -overage 14 -currency EUR
  quotabill -csv samples.csv -window month -quota 20TB -cycle-day 5
`

// threshold is the gate's default.
const threshold = 0.75

type config struct {
	csv        []string
	ledger     string
	interval   cli.Duration
	format     samples.Format
	counters   bool
	speed      cli.Rate
	add        string // addSamples or addPercentiles, if several ports become one bill
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
	ofWindow   int           // slots of a ledger in a window of its gates
	zone       string
	all, json  bool
	svg, html  string
	title      string
	prom       string
	slots      string
	into       string
	simulate   bool
	plan       bool
	threshold  cli.Share
	reserve    int
	jitter     cli.Duration
	phase      cli.Duration
	patience   cli.Duration
	prices     bill.Prices
	warn       []float64
	given      func(flag string) bool
}

func main() {
	c := config{window: cli.Window{Duration: cli.Duration(5 * time.Minute)}, percentile: 95e9, threshold: threshold, format: samples.Format{}}
	flags := flag.NewFlagSet("quotabill", flag.ContinueOnError)
	tool := &cli.Tool{Name: "quotabill", Usage: usage, Args: "LEDGER", Flags: flags, Abrupt: true}
	flags.Func("csv", "", func(s string) error {
		if s == "" {
			return errors.New("want a file, or - for standard input")
		}
		c.csv, tool.Args = append(c.csv, s), "[LEDGER]" // it takes the place of the ledger, or is compared with it
		return nil
	})
	flags.Var(&c.interval, "interval", "")
	flags.Var(c.format, "format", "")
	flags.BoolVar(&c.counters, "counters", false, "")
	flags.Var(&c.speed, "speed", "")
	flags.Func("add", "", c.setAdd)
	flags.Var(&c.rate, "rate", "")
	flags.Var(&c.quota, "quota", "")
	flags.Var(&c.window, "window", "")
	flags.Func("method", "", cli.Choice(&c.method, bill.Methods...))
	flags.Var(&c.percentile, "percentile", "")
	flags.Func("rank", "", cli.Choice(&c.rank, bill.Ranks...))
	flags.Func("missing", "", cli.Choice(&c.missing, bill.Missings...))
	flags.StringVar(&c.cycle, "cycle", "", "")
	flags.IntVar(&c.cycleDay, "cycle-day", 1, "")
	flags.StringVar(&c.zone, "tz", "UTC", "")
	flags.BoolVar(&c.all, "all", false, "")
	flags.BoolVar(&c.json, "json", false, "")
	flags.StringVar(&c.svg, "svg", "", "")
	flags.StringVar(&c.html, "html", "", "")
	flags.StringVar(&c.title, "title", "", "")
	flags.StringVar(&c.prom, "prom", "", "")
	flags.StringVar(&c.slots, "slots", "", "")
	flags.StringVar(&c.into, "into", "", "")
	flags.BoolVar(&c.simulate, "simulate", false, "")
	flags.BoolVar(&c.plan, "plan", false, "")
	flags.Var(&c.prices.Commit, "price", "")
	flags.Var(&c.prices.Overage, "overage", "")
	flags.BoolVar(&c.prices.Whole, "round-up", false, "")
	flags.Var(&c.prices.Minimum, "minimum", "")
	flags.StringVar(&c.prices.Currency, "currency", "", "")
	flags.Func("warn", "", c.setWarn)
	flags.Var(&c.threshold, "threshold", "")
	flags.IntVar(&c.reserve, "reserve", 0, "")
	flags.Var(&c.jitter, "jitter", "")
	flags.Var(&c.phase, "phase", "")
	flags.Var(&c.patience, "patience", "")
	c.given = func(name string) (given bool) {
		flags.Visit(func(f *flag.Flag) { given = given || f.Name == name })
		return given
	}
	tool.Run = func(t *cli.Tool, args []string) error { return run(t, c, args) }
	tool.Main()
}

// setWarn sets the flag -warn.
func (c *config) setWarn(list string) error {
	for text := range strings.SplitSeq(list, ",") {
		var s cli.Share
		if err := s.Set(text); err != nil {
			return err
		}
		if s == 0 {
			return errors.New("a share must be greater than zero")
		}
		c.warn = append(c.warn, float64(s))
	}
	return nil
}

// job is a checked config.
type job struct {
	config
	terms    bill.Terms
	calendar calendar.Calendar
}

// check checks that the flags are consistent.
func (c config) check() (*job, error) {
	switch {
	case c.rate != 0 && c.quota != 0 && !c.window.Month:
		return nil, cli.Usagef("-quota and -rate both set the commit: give one")
	case c.window.Month && c.quota == 0:
		return nil, cli.Usagef("-window month is a transfer cap: give its size with -quota")
	case c.cycleDay < 1 || c.cycleDay > 31:
		return nil, cli.Usagef("-cycle-day %d: a month has days 1 to 31", c.cycleDay)
	case c.all && c.cycle != "":
		return nil, cli.Usagef("-all is for all cycles and -cycle for one: give one of these")
	case c.all && (c.svg != "" || c.html != "" || c.prom != "" || c.slots != ""):
		return nil, cli.Usagef("-svg, -html, -prom and -slots are for one cycle: give them without -all")
	case c.csv != nil && c.ledger != "" && (c.all || c.cycle != "" || c.svg != "" || c.html != "" || c.prom != "" || c.slots != "" || c.into != "" ||
		c.simulate || c.plan || c.add == addPercentiles || c.warn != nil):
		return nil, cli.Usagef("samples are compared with a ledger, or billed: give only one of -csv and LEDGER")
	case c.title != "" && c.svg == "" && c.html == "":
		return nil, cli.Usagef("-title goes with -svg or -html")
	case c.csv == nil && (c.interval != 0 || len(c.format) > 0 || c.counters || c.speed != 0 || c.add != ""):
		return nil, cli.Usagef("-interval, -format, -counters, -speed and -add go with -csv")
	case c.add == addPercentiles && (c.all || c.svg != "" || c.html != "" || c.prom != "" || c.slots != "" || c.simulate || c.plan || c.window.Month):
		return nil, cli.Usagef("-add percentiles is for a bill: -all, -svg, -html, -prom, -slots, -simulate, -plan and -window month need -add samples")
	case c.interval != 0 && c.interval < cli.Duration(time.Millisecond):
		return nil, cli.Usagef("-interval %v: must be at least a millisecond", c.interval)
	case c.window.Duration > cli.Duration(24*time.Hour):
		return nil, cli.Usagef("-window %v: must be at most a day, or month", c.window)
	}
	for _, check := range []func() error{c.checkSimulation, c.checkMoney, c.checkInto} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	zone, err := cli.Zone(c.zone)
	if err != nil {
		return nil, err
	}
	j := &job{config: c, calendar: calendar.Calendar{Day: c.cycleDay, Zone: zone, Length: c.length}, terms: bill.Terms{
		Method: c.method, Percentile: c.percentile, Rank: c.rank, Missing: c.missing, Prices: c.prices,
		Window: time.Duration(c.window.Duration), Commit: int64(c.quota), Poller: c.poller(), Reserve: int64(c.reserve),
	}}
	if c.window.Month {
		j.terms.Window, j.terms.Commit, j.terms.Cap = 5*time.Minute, 0, int64(c.quota)
	}
	if c.rate != 0 {
		if j.terms.Commit, err = bill.Bytes(int64(c.rate), j.terms.Window); err != nil {
			return nil, cli.Usagef("-rate %v: %w", c.rate, err)
		}
		if j.terms.Commit == 0 {
			return nil, cli.Usagef("-rate %v is less than a byte in a window", c.rate)
		}
	}
	j.terms.Slots, j.terms.Held = c.ofWindow, c.csv == nil && j.terms.Commit > 0
	if c.prices.Overage == 0 {
		j.terms.Prices.Overage = c.prices.Commit
	}
	return j, nil
}

// checkMoney checks the flags of prices and warnings against the others.
func (c *config) checkMoney() error {
	switch p := &c.prices; {
	case p.Commit == 0 && (*p != bill.Prices{}):
		return cli.Usagef("-overage, -round-up, -minimum and -currency go with -price")
	case p.Commit != 0 && c.window.Month:
		return cli.Usagef("-price is for a percentile, and -window month is a transfer cap")
	case len(p.Currency) > 8 || strings.ContainsFunc(p.Currency, func(r rune) bool { return r <= ' ' || !unicode.IsPrint(r) }):
		return cli.Usagef("-currency %q: want a short name, such as EUR", p.Currency)
	case c.warn != nil && (c.all || c.simulate || c.plan):
		return cli.Usagef("-warn is for the bill of one cycle: give it without -all, -simulate and -plan")
	case c.warn != nil && c.rate == 0 && c.quota == 0:
		return cli.Usagef("-warn needs a commit or a transfer cap: give -rate, or -quota")
	}
	return nil
}

// checkSimulation checks the flags of simulations against the others.
func (c *config) checkSimulation() error {
	gates := c.simulate || c.plan
	switch {
	case !gates && (c.threshold != threshold || c.patience != 0):
		return cli.Usagef("-threshold and -patience go with -simulate or -plan")
	case !gates && c.csv != nil && c.into == "" && c.ledger == "" && (c.reserve != 0 || c.given("jitter") || c.given("phase")):
		return cli.Usagef("-reserve, -jitter and -phase go with a ledger, -simulate or -plan")
	case c.reserve < 0:
		return cli.Usagef("-reserve %d is negative", c.reserve)
	case !gates:
		return nil
	case c.simulate && c.plan:
		return cli.Usagef("-simulate is for one commit and -plan for several: give one")
	case c.window.Month:
		return cli.Usagef("-window month is a transfer cap: -simulate and -plan are for a percentile")
	case c.simulate && c.rate == 0 && c.quota == 0:
		return cli.Usagef("-simulate needs a commit: give -rate 100Mbit/s, or -quota")
	case c.all || c.prom != "":
		return cli.Usagef("-all and -prom are for bills, not for -simulate or -plan")
	case c.plan && c.slots != "":
		return cli.Usagef("-slots is for one commit: give it with -simulate, not -plan")
	case c.missing != bill.Zero:
		return cli.Usagef("-missing is not for -simulate or -plan: they count missing samples as zero")
	}
	if err := c.poller().Check(time.Duration(c.window.Duration)); err != nil {
		return cli.Usagef("%w", err)
	}
	return nil
}

// poller returns the poller of simulated gates.
func (c *config) poller() budget.Poller {
	p := budget.NewPoller(time.Duration(c.window.Duration))
	if c.given("jitter") {
		p.Jitter = time.Duration(c.jitter)
	}
	p.Known, p.Phase = c.given("phase"), time.Duration(c.phase)
	return p
}

func run(t *cli.Tool, c config, args []string) error {
	c.ledger = strings.Join(args, "") // one at most
	j, err := c.check()
	if err != nil {
		return err
	}
	var ports []samples.Port
	name := strings.Join(c.csv, ", ")
	if name != "" {
		ports, err = j.fromFiles(t)
	} else {
		name = c.ledger
		ports = make([]samples.Port, 1)
		if ports[0].Samples, err = c.fromLedger(name, time.Now().UnixNano()); err == nil {
			j, err = c.check() // again, with the ledger's cycle and window
		}
	}
	if err != nil {
		return err
	}
	if c.csv != nil && c.ledger != "" {
		return j.compare(ports[0].Samples)
	}
	for _, p := range ports {
		p.Samples.Source = c.source(name)
	}
	cycles, err := j.cycles(t, ports[0].Samples)
	if err != nil {
		return err
	}
	r, err := j.report(ports[0].Samples, cycles)
	if err == nil && len(ports) > 1 {
		r, err = j.each(ports, cycles[0])
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if j.into != "" {
		if err := j.fill(ports[0].Samples, cycles[0], time.Now().UnixNano()); err != nil {
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

// source says whose traffic it is, and which file has it.
func (c *config) source(name string) string {
	who := c.title
	if who == "" && c.csv == nil {
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
func (j *job) report(s *bill.Samples, cycles []calendar.Cycle) (report, error) {
	if j.all {
		var all bill.Bills
		for _, cycle := range cycles {
			b, err := bill.New(s, cycle, j.calendar.Zone, j.terms)
			if err != nil {
				return nil, err
			}
			all = append(all, b)
		}
		return all, nil
	}
	if !j.simulate && !j.plan {
		return bill.New(s, cycles[0], j.calendar.Zone, j.terms)
	}
	scenario, err := bill.NewScenario(s, cycles[0], bill.Gates{
		Terms: j.terms, Calendar: j.calendar,
		Threshold: float64(j.threshold), Patience: time.Duration(j.patience),
	})
	if err != nil {
		return nil, err
	}
	if j.plan {
		return scenario.Plan(j.terms.Commit)
	}
	return scenario.Simulate(j.terms.Commit)
}
