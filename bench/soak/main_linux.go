// Soak is the long run: mixed traffic between two kernels through both pipelines
// of the real tools, whose stages are killed at random, and an account of every
// frame. The counts of the kernel, of each stage, of the ledger and of the histogram
// must agree exactly, except for the frames in flight when a stage is killed, which are
// bounded: after a kill of the gate, the ledger is at or above what passed, by no
// more than 1 MiB. Memory and descriptors must not grow.
//
//	namespace a                                                         namespace b
//	10.79.0.1 ─ tap0 ─ in:  tunread │ quotagate │ bytehist │ tunwrite ─ tap1 ─ 10.79.0.2
//	               ╰── out: tunwrite │ bytehist │ quotagate │ tunread ───╯
//
// Each end of a pipeline, by a kill or drained, is an account of its own
// (account_linux.go). It needs root.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"framepipe/internal/calendar"
	"framepipe/internal/cli"
	"framepipe/internal/ledger"
	"framepipe/internal/process"
)

const usage = `usage: go run ./bench/soak [-for 1h] [-kill 5s] [-quota 1500MB] [-window 10s]
                           [-seed N] [-tools DIR] [-v]

Runs mixed traffic through both pipelines, kills stages, and accounts for every
frame. The status is 1 if one is unexplained, or memory or descriptors grow.

  -for D      how long; default 1h
  -kill D     mean time between two ends of a pipeline, of which one in five is
              drained and not killed; default 5s. 0: none. In the last third of
              the time there are none
  -quota S    that the gates let pass in a window, in both directions together
  -window D   the window
  -seed N     of what is killed and sent; default: another one each time, which is
              printed
  -tools DIR  where the tools are; default: they are built
  -v          say what each end of a pipeline came to
`

func main() {
	if len(os.Args) == 5 && os.Args[1] == "traffic" {
		exit(trafficSide(os.Args[2], os.Args[3], os.Args[4]))
	}
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	s := &soak{}
	flag.DurationVar(&s.length, "for", time.Hour, "")
	flag.DurationVar(&s.kill, "kill", 5*time.Second, "")
	flag.DurationVar(&s.window, "window", 10*time.Second, "")
	quota := cli.Size(1500e6)
	flag.Var(&quota, "quota", "")
	flag.Uint64Var(&s.seed, "seed", 0, "")
	flag.StringVar(&s.tools, "tools", "", "")
	flag.BoolVar(&s.verbose, "v", false, "")
	flag.Parse()
	s.quota = fmt.Sprintf("%dB", int64(quota))
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	err := s.run()
	s.clean()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

type soak struct {
	length, kill, window time.Duration
	quota, tools         string
	seed                 uint64
	verbose              bool

	dir     string
	a, b    *host
	traffic []*exec.Cmd
	inputs  []io.WriteCloser
	outputs []io.Reader
	begun   time.Time
	both    [2]*direction
	mu      sync.Mutex // of stdout
}

func (s *soak) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf(format+"\n", args...)
}

var errUnexplained = errors.New("not everything is explained")

func (s *soak) run() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: it makes network namespaces")
	}
	if err := s.build(); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	end := make(chan struct{}) // of the traffic
	s.a = &host{tap: "tap0", v4: "10.79.0.1", v6: "fd79::1"}
	s.b = &host{tap: "tap1", v4: "10.79.0.2", v6: "fd79::2"}
	for i, h := range []*host{s.a, s.b} {
		if err := h.make(fmt.Sprintf("soak-%c-%d", 'a'+i, os.Getpid())); err != nil {
			return err
		}
	}
	s.both[0] = &direction{name: "in", from: s.a, to: s.b}
	s.both[1] = &direction{name: "out", from: s.b, to: s.a}
	// The gates find it made.
	const cycle = 24 * time.Hour
	book, err := ledger.Open(filepath.Join(s.dir, "ledger"), ledger.Config{Slot: s.window / 60, Calendar: calendar.Calendar{Length: cycle}})
	if err != nil {
		return err
	}
	if err := book.Close(); err != nil {
		return err
	}
	s.printf("soak: %v, seed %d", s.length, s.seed)
	s.begun = time.Now()
	failed := make(chan error, 2)
	up := make(chan struct{}, 2)
	over := make(chan struct{})
	var wg sync.WaitGroup
	for i, d := range s.both {
		d.dir, d.tools, d.quota, d.window = s.dir, s.tools, s.quota, s.window
		d.lives = map[string][]life{}
		d.rng = rand.New(rand.NewPCG(s.seed, uint64(i)))
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := s.keep(d, up, end, over); err != nil {
				failed <- err
			}
		}()
	}
	for range s.both {
		select {
		case <-up:
		case err := <-failed:
			close(over)
			wg.Wait()
			return err
		}
	}
	err = s.begin()
	if err == nil {
		err = s.watch(stop, failed)
	}
	// What waits is dealt with, and then both are drained.
	close(end)
	all, e := s.finish()
	err = errors.Join(err, e)
	if err == nil {
		err = s.quiet()
	}
	close(over)
	wg.Wait()
	select {
	case e := <-failed:
		err = errors.Join(err, e)
	default:
	}
	if err != nil {
		return err
	}
	return s.report(all)
}

// build builds the tools, and makes the folder for their files.
func (s *soak) build() (err error) {
	if s.dir, err = os.MkdirTemp("", "soak-"); err != nil {
		return err
	}
	if s.tools != "" {
		return nil
	}
	s.tools = filepath.Join(s.dir, "bin")
	var packages []string
	for _, name := range stages {
		packages = append(packages, "framepipe/"+name)
	}
	return process.Build(s.tools, packages...)
}

func (s *soak) clean() {
	for _, in := range s.inputs {
		in.Close()
	}
	for _, c := range s.traffic {
		_ = c.Process.Kill()
	}
	for _, h := range []*host{s.a, s.b} {
		if h != nil {
			h.Delete()
		}
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// keep keeps a direction alive, from one kill to the next.
func (s *soak) keep(d *direction, up chan<- struct{}, end, over <-chan struct{}) error {
	for last := false; !last; {
		r, err := d.live(func(gone <-chan struct{}) (killed string) {
			if up != nil {
				up <- struct{}{}
				up = nil
			}
			var due <-chan time.Time
			if s.kill > 0 && !s.calm() { // each direction has half of them
				due = time.After(time.Second/4 + exponential(d.rng, 2*s.kill))
			}
			for ending := end; ; {
				select {
				case <-due:
					if s.calm() {
						continue
					}
					if n := d.rng.IntN(len(stages) + 1); n < len(stages) {
						return stages[n]
					}
					return ""
				case <-ending: // the last life ends when all is quiet
					due, ending = nil, nil
				case <-over:
					last = true
					return ""
				case <-gone:
					return ""
				}
			}
		})
		if err != nil {
			return err
		}
		s.tell(r)
	}
	return nil
}

// calm reports whether it is the last third of the time, in which no stage is killed:
// lives long enough to tell whether memory grows.
func (s *soak) calm() bool { return time.Since(s.begun) > s.length*2/3 }

// tell prints the complaints about a run, and with -v the rest of it.
func (s *soak) tell(r *run) {
	for _, c := range r.complaints() {
		s.printf("UNEXPLAINED %s", c)
	}
	if !s.verbose {
		return
	}
	what := "drained"
	if r.killed != "" {
		what = r.killed + " killed"
	}
	s.printf("%7.1fs  %-3s %d: %d frames, %d bytes sent; %s", time.Since(s.begun).Seconds(), r.dir, r.n, r.sent.frames, r.sent.bytes, what)
}

// begin starts the traffic of both sides.
func (s *soak) begin() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ready := make([]byte, len("listening\n"))
	for i, h := range []*host{s.a, s.b} {
		peer := []*host{s.b, s.a}[i]
		c := h.Command(self, "traffic", peer.v4, peer.v6, fmt.Sprint(s.seed+uint64(i)))
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		c.Stderr = os.Stderr
		in, err1 := c.StdinPipe()
		out, err2 := c.StdoutPipe()
		if err := errors.Join(err1, err2, c.Start()); err != nil {
			return err
		}
		s.traffic, s.inputs, s.outputs = append(s.traffic, c), append(s.inputs, in), append(s.outputs, out)
		if _, err := io.ReadFull(out, ready); err != nil {
			return fmt.Errorf("the traffic of %s: %w", h.Name, err)
		}
	}
	for _, in := range s.inputs {
		if _, err := in.Write([]byte{1}); err != nil {
			return err
		}
	}
	return nil
}

// finish ends the traffic, and returns the sums of what both sides have seen.
func (s *soak) finish() (counters, error) {
	for _, in := range s.inputs {
		in.Close()
	}
	all := counters{}
	var err error
	for i, c := range s.traffic {
		var one counters
		err = errors.Join(err, json.NewDecoder(s.outputs[i]).Decode(&one), c.Wait())
		all.add(one)
	}
	s.traffic = nil
	return all, err
}

// watch looks at the processes each second, and says every minute how it goes.
func (s *soak) watch(stop <-chan os.Signal, failed <-chan error) error {
	second := time.NewTicker(min(time.Second, s.length/100))
	defer second.Stop()
	every := min(time.Minute, max(s.length/5, time.Second))
	next := s.begun.Add(every)
	for {
		select {
		case <-stop:
			return nil
		case err := <-failed:
			return err
		case now := <-second.C:
			for _, d := range s.both {
				d.look()
			}
			if now.Sub(s.begun) >= s.length {
				return nil
			}
			if now.After(next) {
				next = next.Add(every)
				if err := s.progress(); err != nil {
					return err
				}
			}
		}
	}
}

// quiet waits until nothing comes any more.
func (s *soak) quiet() error {
	last := [2]int64{-1, -1}
	for range 60 {
		time.Sleep(500 * time.Millisecond)
		var now [2]int64
		for i, d := range s.both {
			dev, err := d.from.device()
			if err != nil {
				return err
			}
			now[i] = dev.sent.frames
		}
		// A neighbour may yet be asked for, now and then.
		if now[0]-last[0] < 5 && now[1]-last[1] < 5 {
			return nil
		}
		last = now
	}
	return errors.New("there is still traffic half a minute after its end")
}

func (s *soak) progress() error {
	var runs []*run
	line := ""
	for _, d := range s.both {
		d.mu.Lock()
		runs = append(runs, d.runs...)
		d.mu.Unlock()
		dev, err := d.from.device()
		if err != nil {
			return err
		}
		line += fmt.Sprintf(" %s %s;", d.name, size(dev.sent.bytes))
	}
	kills, drained, unexplained := tally(runs)
	s.printf("%7s %s %d kills, %d drained; %d unexplained", time.Since(s.begun).Round(time.Second), line, kills, drained, unexplained)
	return nil
}
