// Package cli has the conventions that all tools of this project share: messages,
// flags, signals and the exit status.
//
// # Messages
//
// Messages go to stderr, one line each, in lower case and without a full stop,
// after the name of the tool:
//
//	tunread: tap0: no such network interface
//	tunread: hint: ip tuntap add dev tap0 mode tap multi_queue vnet_hdr && ip link set tap0 up
//
// The first line states the error and its object. A hint may follow
// and says how to fix it.
//
// # Exit status
//
// 0 at the end of the input, on a requested stop, and when the reader of the
// output has gone away; 1 on failure; 2 on wrong usage; 3 for a warning that was asked for.
package cli

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"framepipe/internal/fdio"

	"golang.org/x/sys/unix"
)

// Tool is a command.
type Tool struct {
	Name  string
	Usage string // the text that -h prints, written by hand
	Args  string // names of the arguments: IFACE TAP [FILE], where [] marks what may be left out
	Flags *flag.FlagSet
	// Run does the work. Its error is printed and makes the status 1, or 2 if
	// it came from Usagef, 3 if from Warning.
	Run func(t *Tool, args []string) error

	// Verbose is the flag -v.
	Verbose bool
	// Source marks the first stage of a pipeline: INT and TERM make Stop
	// readable. Other stages ignore the first of these signals and run to the end
	// of their input.
	Source bool
	// Stop is a descriptor to wait for while a Source runs.
	Stop int
	// Abrupt makes the first INT or TERM end the tool at once, instead of the
	// second. It is for tools that hold no frames.
	Abrupt bool

	counters atomic.Pointer[func() string]
}

// Counters sets the function that returns the line printed on SIGUSR1, and at the end
// with -v. A goroutine other than Run's calls it.
func (t *Tool) Counters(line func() string) { t.counters.Store(&line) }

// Main runs the tool with the arguments of the process, and exits.
func (t *Tool) Main() { os.Exit(t.main(os.Args[1:], os.Stdout, os.Stderr)) }

func (t *Tool) main(args []string, stdout, stderr io.Writer) (status int) {
	t.Flags.Init(t.Name, flag.ContinueOnError)
	t.Flags.SetOutput(io.Discard)
	t.Flags.BoolVar(&t.Verbose, "v", false, "")
	version := t.Flags.Bool("version", false, "")
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "%s: internal error: %v\n", t.Name, r)
			if t.Verbose {
				fmt.Fprintf(stderr, "%s", debug.Stack())
			}
			status = 1
		}
	}()
	arguments, err := t.parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, err = io.WriteString(stdout, t.Usage)
	case err != nil:
		err = Usagef("%s", plain(err.Error()))
	case *version:
		build := "unknown"
		if info, ok := debug.ReadBuildInfo(); ok {
			build = info.Main.Version
		}
		_, err = fmt.Fprintln(stdout, t.Name, build, runtime.Version())
	case len(arguments) > len(strings.Fields(t.Args)) || len(arguments) < len(strings.Fields(t.Args))-strings.Count(t.Args, "["):
		err = Usagef("wrong arguments: want %s, have %s", cmp.Or(t.Args, "none"), cmp.Or(strings.Join(arguments, " "), "none"))
	default:
		if err = t.signals(); err == nil {
			err = t.Run(t, arguments)
			if line := t.counters.Load(); line != nil && t.Verbose {
				fmt.Fprintf(stderr, "%s: %s\n", t.Name, (*line)())
			}
		}
	}
	return t.report(err, stderr)
}

// plain says in our words where package flag says too little.
func plain(message string) string {
	if known, ok := strings.CutPrefix(message, "flag provided but not defined:"); ok {
		return "there is no flag" + known
	}
	what, ok := strings.CutSuffix(message, ": parse error")
	switch {
	case !ok:
		return message
	case strings.HasPrefix(what, "invalid boolean"):
		return what + ": want true or false"
	}
	return what + ": want a whole number from 0 on"
}

// parse parses flags and returns the other arguments, which may stand between them.
func (t *Tool) parse(args []string) (others []string, err error) {
	for {
		if err := t.Flags.Parse(args); err != nil {
			return nil, err
		}
		rest := t.Flags.Args()
		if len(rest) == 0 || len(rest) < len(args) && args[len(args)-len(rest)-1] == "--" {
			return append(others, rest...), nil
		}
		others = append(others, rest[0])
		args = rest[1:]
	}
}

// report prints an error and its hint, and returns the exit status.
func (t *Tool) report(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	for line := range strings.SplitSeq(err.Error(), "\n") { // errors.Join
		fmt.Fprintf(stderr, "%s: %s\n", t.Name, line)
	}
	hint := HintOf(err)
	if hint != "" {
		for line := range strings.SplitSeq(hint, "\n") {
			fmt.Fprintf(stderr, "%s: hint: %s\n", t.Name, line)
		}
	}
	e := exit{status: 1}
	if errors.As(err, &e); e.status == 2 && hint == "" {
		fmt.Fprintf(stderr, "%s: hint: %s -h shows the usage\n", t.Name, t.Name)
	}
	return e.status
}

// Warnf prints a message that does not end the tool.
func (t *Tool) Warnf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, t.Name+": "+format+"\n", args...)
}

// Verbosef prints a message if the flag -v was given.
func (t *Tool) Verbosef(format string, args ...any) {
	if t.Verbose {
		t.Warnf(format, args...)
	}
}

// exit is an error that sets the exit status.
type exit struct {
	error
	status int
}

func (e exit) Unwrap() error { return e.error }

// Usagef returns an error for a wrong command line.
func Usagef(format string, args ...any) error { return exit{fmt.Errorf(format, args...), 2} }

// Warning returns an error for a tool that has done its work and has something to warn of.
func Warning(err error) error { return exit{err, 3} }

// Ends prefixes the error of a stage's loop with the end it came from, stdin or stdout. That the
// reader of the output has gone away is no error.
func Ends(err error) error {
	if err == nil || errors.Is(err, fdio.ErrReaderGone) {
		return nil
	}
	end := "stdin"
	if errors.As(err, new(*fdio.WriteError)) {
		end = "stdout"
	}
	return fmt.Errorf("%s: %w", end, err)
}

// Stall names an environment variable with a duration. If the next stage leaves written bytes
// unread for that long, the stage ends with an error.
const Stall = "FRAMEPIPE_STALL"

// Counters names an environment variable with the number of an open file. SIGUSR1 prints the
// counters there, after the number of the process, in place of stderr. The file is open for
// appending.
const Counters = "FRAMEPIPE_COUNTERS"

// countersFile returns where SIGUSR1 prints, and with which prefix. A program between may have closed
// the file, so that its number is another's later.
func countersFile() (f *os.File, prefix string) {
	if fd, err := strconv.Atoi(os.Getenv(Counters)); err == nil {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_APPEND != 0 {
			return os.NewFile(uintptr(fd), Counters), fmt.Sprintf("%d ", os.Getpid())
		}
	}
	return os.Stderr, ""
}

// Output prepares stdout for a stage's stream, and watches its reader if Stall is set.
func Output() (*fdio.Output, error) {
	var limit Duration
	if s := os.Getenv(Stall); s != "" {
		if err := limit.Set(s); err != nil {
			return nil, Usagef("%s=%s: %w", Stall, s, err)
		}
	}
	out := fdio.NewOutput(1)
	if limit > 0 {
		out.Watch(time.Duration(limit))
	}
	return out, nil
}

type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Hint adds a hint to an error, in one or more lines.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hinted{err, fmt.Sprintf(format, args...)}
}

// HintOf returns the hint of an error, if there is one.
func HintOf(err error) string {
	var h hinted
	errors.As(err, &h)
	return h.hint
}

// signals sets up the signal handlers.
//
// SIGUSR1 prints the counters. At INT or TERM the source of a pipeline stops,
// and the later stages reach the end of their input and drain the frames they
// hold. So a stage ignores the first of these signals and exits at once at
// the second. SIGPIPE is ignored: the write that caused it fails with EPIPE.
func (t *Tool) signals() error {
	signal.Ignore(syscall.SIGPIPE)
	wake := -1
	if t.Source {
		// With os.Pipe, the runtime would poll the descriptors.
		var p [2]int
		if err := syscall.Pipe(p[:]); err != nil {
			return err
		}
		t.Stop, wake = p[0], p[1]
	}
	counters, prefix := countersFile()
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		asked := false
		for s := range c {
			switch {
			case s == syscall.SIGUSR1:
				if line := t.counters.Load(); line != nil {
					fmt.Fprintf(counters, "%s%s: %s\n", prefix, t.Name, (*line)())
				}
			case asked, t.Abrupt:
				t.Verbosef("asked to stop: exiting at once")
				if line := t.counters.Load(); line != nil {
					t.Verbosef("%s", (*line)())
				}
				os.Exit(0)
			case wake >= 0:
				asked = true
				syscall.Close(wake) // makes the read end readable, at end of file
			default:
				asked = true
				t.Verbosef("draining to the end of the input; a second signal stops at once")
			}
		}
	}()
	return nil
}
