package cli

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Stdin returns an error if stdin is a terminal, from which frames cannot be read.
// (It is never closed: Go's runtime opens /dev/null in that case.)
func Stdin(example string) error { return notTerminal(0, "stdin", "read from", example) }

// Stdout is like Stdin, for stdout.
func Stdout(example string) error { return notTerminal(1, "stdout", "written to", example) }

func notTerminal(fd int, name, verb, example string) error {
	if IsTerminal(fd) {
		return Hint(fmt.Errorf("%s is a terminal; frames are not %s one", name, verb), "%s", example)
	}
	return nil
}

// Colour reports whether text for fd may have colour: fd is a terminal with
// colours, and NO_COLOR is not set (https://no-color.org).
func Colour(fd int) bool {
	return IsTerminal(fd) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// IsTerminal reports whether fd is a terminal: only these have a window.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	return err == nil
}
