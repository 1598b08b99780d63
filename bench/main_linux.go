// Bench measures the pipeline beside its peers, on this machine, in one run: a
// veth pair, which is the kernel alone; VDE; a LuaJIT program that is what this
// project began as; all four tools in both directions between two taps, by pipeline.sh run;
// and the same on an interface, by pipeline.sh up.
//
// Each round measures each of them once, one after the other, so that what else
// the machine does falls on all alike. It needs root, iperf3, ping, and for the
// peers vde2 and luajit.
package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const help = `usage: go run ./bench [-rounds 5] [-seconds 3] [-congestion cubic]
                      [-peers veth,vde,luajit,run,up]

Measures TCP with one and four flows, 64-byte UDP frames, round trips idle and
under load, and processor time per gigabyte. Prints medians and ranges.
`

// measure is a thing that is measured.
type measure struct {
	name, unit string
	digits     int
}

var measures = []measure{
	{"tcp 1 flow", "Gbit/s", 2},
	{"tcp 4 flows", "Gbit/s", 2},
	{"udp 64 bytes", "kframes/s", 1},
	{"ping idle", "ms", 3},
	{"ping loaded", "ms", 2},
	{"cpu", "s/GB", 2},
}

// result is what one round gave of one peer, in the order of measures.
type result []float64

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "flood":
			exit(flood(os.Args[2], os.Args[3]))
		case "sink":
			exit(sink(os.Args[2], os.Args[3]))
		}
	}
	if session, err := unix.Getsid(0); err != nil || session != os.Getpid() {
		exit(again())
	}
	flag.Usage = func() { fmt.Fprint(os.Stderr, help) }
	rounds := flag.Int("rounds", 5, "")
	seconds := flag.Int("seconds", 3, "")
	congestion := flag.String("congestion", "cubic", "")
	names := flag.String("peers", "veth,vde,luajit,run,up", "")
	flag.Parse()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	b := &bench{seconds: *seconds, congestion: *congestion}
	go func() {
		<-stop
		b.clean()
		os.Exit(130)
	}()
	err := b.run(*rounds, strings.Split(*names, ","))
	b.clean()
	exit(err)
}

// again runs this program in a session of its own, which has no terminal, so that all that it
// starts stays in it. The kernel shares the processors among sessions (sched(7), autogroup): a
// pipeline in another one than iperf3 would have less of them.
func again() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	c := exec.Command(self, os.Args[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	go func() {
		for s := range stop {
			_ = c.Process.Signal(s)
		}
	}()
	return c.Wait()
}

func exit(err error) {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		os.Exit(ended.ExitCode()) // it has said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (b *bench) run(rounds int, names []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root: it makes network namespaces")
	}
	for _, name := range names {
		p, ok := peers[name]
		if !ok {
			return fmt.Errorf("there is no peer %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(peers)), ", "))
		}
		for _, need := range append(p.needs, "ip", "iperf3", "ping") {
			if _, err := exec.LookPath(need); err != nil {
				return fmt.Errorf("%s needs %s, which is not installed", name, need)
			}
		}
	}
	if err := b.build(); err != nil {
		return err
	}
	all := map[string][]result{}
	for round := range rounds {
		for _, name := range names {
			fmt.Fprintf(os.Stderr, "round %d of %d: %-10s ", round+1, rounds, name)
			r, err := b.one(peers[name])
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for i, v := range r {
				fmt.Fprintf(os.Stderr, " %.*f", measures[i].digits, v)
			}
			fmt.Fprintln(os.Stderr)
			all[name] = append(all[name], r)
		}
	}
	table(os.Stdout, names, all)
	return nil
}

// forward is the LuaJIT program that the project began as.
//
//go:embed forward.lua
var forward []byte

// build builds the tools, and notes where this program is.
func (b *bench) build() (err error) {
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	if err := os.WriteFile(b.dir+"/forward.lua", forward, 0o600); err != nil {
		return err
	}
	if out, err := exec.Command("./pipeline.sh", "install", b.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("pipeline.sh install, in the project's folder: %w\n%s", err, out)
	}
	return nil
}

// column returns what all rounds gave of one measure, in order of size.
func column(rounds []result, i int) (v []float64) {
	for _, r := range rounds {
		if !math.IsNaN(r[i]) {
			v = append(v, r[i])
		}
	}
	slices.Sort(v)
	return v
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	return v[len(v)/2]
}

func table(w io.Writer, names []string, all map[string][]result) {
	fmt.Fprintf(w, "%-24s", "median (least - most)")
	for _, name := range names {
		fmt.Fprintf(w, "%26s", name)
	}
	fmt.Fprintln(w)
	for i, m := range measures {
		fmt.Fprintf(w, "%-24s", m.name+", "+m.unit)
		for _, name := range names {
			cell := "-"
			if v := column(all[name], i); len(v) > 0 {
				cell = fmt.Sprintf("%.*f (%.*f - %.*f)", m.digits, median(v), m.digits, v[0], m.digits, v[len(v)-1])
			}
			fmt.Fprintf(w, "%26s", cell)
		}
		fmt.Fprintln(w)
	}
	if _, ok := all["run"]; !ok {
		return
	}
	fmt.Fprintln(w, "\nThe median of run over that of")
	for i, m := range measures {
		line := ""
		for _, name := range names {
			theirs := median(column(all[name], i))
			if ratio := median(column(all["run"], i)) / theirs; name != "run" && theirs > 0 && !math.IsNaN(ratio) {
				line += fmt.Sprintf("   %s %.2f", name, ratio)
			}
		}
		if line != "" {
			fmt.Fprintf(w, "  %-14s%s\n", m.name, line)
		}
	}
}
