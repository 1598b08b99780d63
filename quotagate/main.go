// Quotagate passes a stream on as far as a quota allows.
package main

import (
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/gate"
	"framepipe/internal/ledger"
	"framepipe/internal/recorded"
	"framepipe/internal/sandbox"
)

const usage = `usage: quotagate {-quota SIZE | -rate RATE} [-window 5m] [flags] < stream > stream

Shapes traffic by a quota: while less than the threshold's share of the quota was used
in the last window, frames pass at full speed; then no faster than the rest of the
quota can sustain.

  -quota SIZE      bytes that may pass in any window: 10GB, 500MiB
  -rate RATE       the quota as a mean rate over the window: 100Mbit/s, 12.5MB/s
  -window D        the window: 5m (default), 1h, 30d, month
  -align           windows begin on the clock instead of sliding along
  -ledger FILE     count in FILE, created if it does not exist: counts survive a restart,
                   and gates of both directions share them
  -dir D           in or out: the direction of this stream; -ledger needs it
  -bill M          with -ledger: separate (default) and max hold each direction to the
                   quota, sum holds both together to it
  -percentile P    with -ledger: the provider bills this percentile of the windows of a
                   cycle. The windows above it are free, and the gate spends them on the
                   bursts that gain most; the bill stays within the quota
  -jitter D        with -percentile: how early or late the provider may poll; default
                   2s, but at most a tenth of the window
  -phase D         with -percentile: when the provider polls, after the multiples of the
                   window since the Unix epoch; default: unknown
  -reserve N       with -percentile: free windows to leave unused, for a provider that
                   loses samples or polls late
  -hard            with -percentile: hold to the quota even if more will be billed anyway,
                   as when inbound traffic has used up the free windows
  -whole           with -percentile: the provider bills the whole of the cycle in which
                   the ledger is created, so all of its free windows can be used
  -cycle D         with -ledger: the length of billing cycles that are not months; those
                   of a week begin on Thursdays
  -cycle-day N     with -window month or -ledger: the day of the month on which the
                   billing cycle begins; default 1
  -tz NAME         with either: the time zone of the billing cycle; default UTC
  -threshold S     the share of the quota that passes untouched; default 75%
  -policy P        above the threshold: pace (default) lets frames out of a short fair
                   queue at the rate that the quota can sustain; random drops frames
                   with a probability that rises to 1 at the quota
  -queue D         the length of the queue of pace; default 100ms
  -ecn             instead of an early drop, mark packets that can be marked
  -count C         what counts: ethernet (default: with padding and check sequence, as
                   switches count), wire (with preamble and gap too), frame (as on the
                   tap), ip
  -charge C        passed (default): frames that pass use up the quota. offered (default
                   with -dir in): dropped frames too, and a sixteenth of the rate passes
                   even over the quota
  -unmetered P,..  networks and addresses: packets between these are neither counted nor
                   delayed
  -clock C         wall (default), or stream: the times of the records
  -seed N          make the random choices repeatable
  -metrics FILE    write counters for Prometheus to FILE, every second and at the end
  -v               say on stderr when the gate opens and closes, and with -clock stream
                   print a summary at the end
  -version         print the version
  -h               print this

Frames that a link needs, such as ARP and IPv6 neighbour discovery, pass even over the
quota, up to a budget of a few frames a second.
It ends at the end of the stream. SIGUSR1 prints counters. At the first INT or TERM it
goes on to the end of its input; at the second it exits at once.

  tunread tap0 | quotagate -rate 100Mbit/s | tunwrite tap1
  quotagate -rate 100Mbit/s -percentile 95 -ledger FILE -dir out < in > out
  quotagate -quota 20TB -window month -cycle-day 5 < in > out
  quotagate -quota 10GB -clock stream -seed 1 -v < yesterday.frames > /dev/null
`

// config has the flags. Some set the gate's configuration and the billing cycles directly.
type config struct {
	gate       gate.Config
	calendar   calendar.Calendar
	rate       cli.Rate
	window     cli.Window
	zone       string
	count      gate.Counting
	offered    uint8 // -charge: passed or offered
	unmetered  cli.Prefixes
	ledger     string
	dir        ledger.Direction
	given      map[string]bool // flags on the command line
	bill       billing
	percentile budget.Percentile
	reserve    int64
	hard       bool
	whole      bool
	records    uint8 // -clock: wall or stream
	slots      int   // of a window; 60 if 0
	metrics    string
}

// billing is the flag -bill: the combination of the two directions in the bill.
type billing uint8

const (
	separate billing = iota // each has its own percentile; the larger is billed
	larger                  // the larger of each sample
	both                    // the sum of each sample
)

var directions = []string{ledger.In: "in", ledger.Out: "out"} // -dir

func main() {
	c := config{
		gate:   gate.Config{Threshold: 0.75, Queue: 100 * time.Millisecond},
		window: cli.Window{Duration: cli.Duration(5 * time.Minute)},
		given:  map[string]bool{},
	}
	flags := flag.NewFlagSet("quotagate", flag.ContinueOnError)
	flags.Var((*cli.Size)(&c.gate.Quota), "quota", "")
	flags.Var(&c.rate, "rate", "")
	flags.Var(&c.window, "window", "")
	flags.BoolVar(&c.gate.Align, "align", false, "")
	flags.Var((*cli.Duration)(&c.calendar.Length), "cycle", "")
	flags.IntVar(&c.calendar.Day, "cycle-day", 1, "")
	flags.StringVar(&c.zone, "tz", "UTC", "")
	flags.Var((*cli.Share)(&c.gate.Threshold), "threshold", "")
	flags.Func("policy", "", cli.Choice(&c.gate.Policy, "pace", "random"))
	flags.Var((*cli.Duration)(&c.gate.Queue), "queue", "")
	flags.BoolVar(&c.gate.ECN, "ecn", false, "")
	flags.Func("count", "", cli.Choice(&c.count, "ethernet", "ip", "frame", "wire"))
	flags.Func("charge", "", cli.Choice(&c.offered, "passed", "offered"))
	flags.StringVar(&c.ledger, "ledger", "", "")
	flags.Func("dir", "", cli.Choice(&c.dir, directions...))
	flags.Func("bill", "", cli.Choice(&c.bill, "separate", "max", "sum"))
	flags.Var(&c.percentile, "percentile", "")
	flags.Var((*cli.Duration)(&c.gate.Poller.Jitter), "jitter", "")
	flags.Var((*cli.Duration)(&c.gate.Poller.Phase), "phase", "")
	flags.Int64Var(&c.reserve, "reserve", 0, "")
	flags.BoolVar(&c.hard, "hard", false, "")
	flags.BoolVar(&c.whole, "whole", false, "")
	flags.Func("unmetered", "", c.unmetered.Set)
	flags.Func("clock", "", cli.Choice(&c.records, "wall", "stream"))
	flags.Uint64Var(&c.gate.Seed, "seed", 0, "")
	flags.StringVar(&c.metrics, "metrics", "", "")
	tool := &cli.Tool{Name: "quotagate", Usage: usage, Flags: flags}
	tool.Run = func(t *cli.Tool, _ []string) error {
		flags.Visit(func(f *flag.Flag) { c.given[f.Name] = true })
		return run(t, c)
	}
	tool.Main()
}

// check checks the combination of flags and completes the gate's configuration.
func (c *config) check() (err error) {
	g := &c.gate
	g.Rate, g.Window = c.rate.BytesPerSecond(), time.Duration(c.window.Duration)
	// Inbound traffic was billed before it reached the gate.
	g.Offered = c.offered != 0 || c.given["dir"] && c.dir == ledger.In && !c.given["charge"]
	// Inbound traffic may use up a quota that both directions share.
	g.Floor = c.bill == both && !c.given["charge"]
	length, ofMonth := c.calendar.Length, c.calendar.Day != 1 || c.zone != "UTC"
	switch {
	case g.Quota == 0 && c.rate == 0:
		return cli.Usagef("a quota is needed: -quota 10GB, or -rate 100Mbit/s")
	case g.Quota != 0 && c.rate != 0:
		return cli.Usagef("-quota and -rate both set the quota: give one")
	case c.calendar.Day < 1 || c.calendar.Day > 31:
		return cli.Usagef("-cycle-day %d: a month has days 1 to 31", c.calendar.Day)
	case !c.window.Month && c.ledger == "" && ofMonth:
		return cli.Usagef("-cycle-day and -tz need -window month or -ledger")
	case c.ledger == "" && (c.bill != separate || length != 0):
		return cli.Usagef("-bill and -cycle need -ledger")
	case length != 0 && (c.window.Month || ofMonth):
		return cli.Usagef("-cycle replaces months: leave out -window month, -cycle-day and -tz")
	case length != 0 && length < g.Window:
		return cli.Usagef("-cycle %v: must be at least one window", cli.Duration(length))
	case c.ledger != "" && length == 0 && g.Window > 84*24*time.Hour: // three months of 28 days, which it keeps beside the current one
		return cli.Usagef("-ledger keeps months for a window of at most 84d: a longer one needs -cycle")
	case c.ledger != "" && !c.given["dir"]:
		return cli.Usagef("-ledger needs -dir in or -dir out")
	case c.ledger != "" && g.Align:
		return cli.Usagef("-align does not work with -ledger, whose windows slide")
	case c.ledger != "" && !c.window.Month && g.Window < time.Second:
		return cli.Usagef("-ledger needs a window of at least one second")
	case c.percentile != 0 && c.ledger == "":
		return cli.Usagef("-percentile needs -ledger, which keeps the windows of the cycle")
	case c.percentile != 0 && c.window.Month:
		return cli.Usagef("-window month is a transfer cap, which has no -percentile")
	case c.reserve < 0:
		return cli.Usagef("-reserve %d is negative", c.reserve)
	case c.percentile == 0 && (c.reserve != 0 || c.given["jitter"] || c.given["phase"] || c.hard || c.whole):
		return cli.Usagef("-reserve, -jitter, -phase, -hard and -whole need -percentile")
	}
	if c.calendar.Zone, err = cli.Zone(c.zone); err != nil {
		return err
	}
	if c.percentile != 0 {
		if c.slots, err = c.calendar.Divide(g.Window); err != nil {
			return cli.Hint(cli.Usagef("-percentile: %w", err), "give the length of the provider's samples, usually -window 5m; short ones need a short -cycle")
		}
		if !c.given["jitter"] {
			g.Poller.Jitter = budget.NewPoller(g.Window).Jitter
		}
		g.Poller.Known = c.given["phase"]
		if err := g.Poller.Check(g.Window); err != nil {
			return cli.Usagef("%w", err)
		}
	}
	if c.window.Month {
		g.Cycle = c.calendar.Bounds
	}
	if _, err = gate.New(*g); err != nil {
		return cli.Usagef("%w", err)
	}
	return nil
}

func run(t *cli.Tool, c config) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if c.metrics == "-" {
		return cli.Usagef("-metrics -: stdout has the stream")
	}
	if info, err := os.Lstat(c.metrics); err == nil && !info.Mode().IsRegular() {
		return cli.Usagef("-metrics %s: is no file that can be replaced", c.metrics)
	}
	const example = "tunread tap0 | quotagate -rate 100Mbit/s | tunwrite tap1"
	if err := errors.Join(cli.Stdin(example), cli.Stdout(example)); err != nil {
		return err
	}
	out, err := cli.Output()
	if err != nil {
		return err
	}
	m := &monitor{tool: t, file: c.metrics}
	if c.given["dir"] {
		m.direction = directions[c.dir]
	}
	f := &filter{
		count: c.count, unmetered: c.unmetered, in: fdio.NewStream(0, 1), out: out,
		wall: steady(), publish: m.publish, warn: t.Warnf,
	}
	clock := &wallClock{show: func(int64) int64 { return time.Now().UnixNano() }}
	if c.records != 0 {
		f.records = &recorded.Clock{}
		m.replay = &replay{records: f.records}
		clock.show = f.records.Wall
	} else if c.gate.Seed == 0 { // by default, replays are repeatable
		c.gate.Seed = rand.Uint64()
	}
	c.gate.Wall = clock.at
	if c.ledger != "" {
		if m.ledger, err = filepath.Abs(c.ledger); err != nil {
			return err
		}
		b, e := c.open(clock, t.Warnf)
		if e != nil {
			return e
		}
		defer b.Close()
		defer b.Catch(&err)
	}
	f.cfg = c.gate
	if f.gate, err = gate.New(f.cfg); err != nil {
		return err
	}
	t.Counters(m.line)
	fdio.Steady() // the sandbox forbids it
	t.Verbosef("sandbox: %s", sandbox.Enter(c.metrics))
	err = f.run()
	m.end()
	return cli.Ends(err)
}
