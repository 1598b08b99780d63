package cli

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
)

func TestMainMessages(t *testing.T) {
	const shows = "tool: hint: tool -h shows the usage\n"
	const unit = "tool: invalid value \"1\" for flag -n: a size needs a unit: 1B, 1MB, 1GiB\n" + shows
	for _, tt := range []struct {
		name           string
		args           []string
		run            error
		status         int
		stdout, stderr string
	}{
		{"nothing wrong", []string{"x"}, Hint(nil, "not shown"), 0, "", ""},
		{"usage", []string{"-h"}, nil, 0, "usage: tool ARG\n", ""},
		{"unknown flag", []string{"-x"}, nil, 2, "", "tool: there is no flag -x\n" + shows},
		{"bad value", []string{"-n", "1", "x"}, nil, 2, "", unit},
		{"no number", []string{"-i", "x", "x"}, nil, 2, "", "tool: invalid value \"x\" for flag -i: want a whole number from 0 on\n" + shows},
		{"neither true nor false", []string{"-v=x", "x"}, nil, 2, "", "tool: invalid boolean value \"x\" for -v: want true or false\n" + shows},
		{"no argument", nil, nil, 2, "", "tool: wrong arguments: want ARG [MORE], have none\n" + shows},
		{"a flag behind the argument", []string{"x", "-n", "1"}, nil, 2, "", unit},
		{"a help behind it", []string{"x", "-h"}, nil, 0, "usage: tool ARG\n", ""},
		{"no flag behind --", []string{"--", "-n"}, nil, 0, "", ""},
		{"nor between", []string{"-n", "1B", "--", "-n"}, nil, 0, "", ""},
		{"all arguments", []string{"x", "y"}, nil, 0, "", ""},
		{"an argument more", []string{"-v", "false", "x", "y"}, nil, 2, "", "tool: wrong arguments: want ARG [MORE], have false x y\n" + shows},
		{"failure", []string{"x"}, errors.New("it broke"), 1, "", "tool: it broke\n"},
		{"hint", []string{"x"}, Hint(errors.New("it broke"), "mend it\nthen try again"), 1, "", "tool: it broke\ntool: hint: mend it\ntool: hint: then try again\n"},
		{"two failures", []string{"x"}, errors.Join(errors.New("it broke"), Hint(errors.New("and more"), "mend both")), 1, "", "tool: it broke\ntool: and more\ntool: hint: mend both\n"},
		{"wrong use", []string{"x"}, Usagef("not like this"), 2, "", "tool: not like this\n" + shows},
		{"wrong use with a hint", []string{"x"}, Hint(Usagef("not like this"), "but so"), 2, "", "tool: not like this\ntool: hint: but so\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			tool := &Tool{Name: "tool", Usage: "usage: tool ARG\n", Args: "ARG [MORE]", Flags: flag.NewFlagSet("tool", flag.ContinueOnError)}
			tool.Flags.Var(new(Size), "n", "")
			tool.Flags.Int("i", 0, "")
			tool.Run = func(*Tool, []string) error { return tt.run }
			if status := tool.main(tt.args, &stdout, &stderr); status != tt.status || stdout.String() != tt.stdout || stderr.String() != tt.stderr {
				t.Errorf("status %d\nstdout %q\nstderr %q\nwant %d\n%q\n%q", status, &stdout, &stderr, tt.status, tt.stdout, tt.stderr)
			}
		})
	}
}

// A fault of ours is said in a line, and the trace only where it is asked for.
func TestPanic(t *testing.T) {
	for _, args := range [][]string{nil, {"-v"}} {
		var stderr strings.Builder
		tool := &Tool{Name: "tool", Flags: flag.NewFlagSet("tool", flag.ContinueOnError), Run: func(*Tool, []string) error { panic("oh") }}
		status := tool.main(args, os.Stdout, &stderr)
		trace := strings.Contains(stderr.String(), "goroutine")
		if status != 1 || !strings.HasPrefix(stderr.String(), "tool: internal error: oh\n") || trace != (args != nil) {
			t.Errorf("%q: status %d, %s", args, status, &stderr)
		}
	}
}
