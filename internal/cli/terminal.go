package cli

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Stdin checks that a stream can be read there: that it is no terminal. (That it
// is open, Go's runtime has seen to: it opens /dev/null in its place.)
func Stdin(example string) error { return stream(0, "stdin", "read from", example) }

// Stdout is Stdin for the output.
func Stdout(example string) error { return stream(1, "stdout", "written to", example) }

func stream(fd int, name, verb, example string) error {
	if IsTerminal(fd) {
		return Hint(fmt.Errorf("%s is a terminal; frames are not %s one", name, verb), "%s", example)
	}
	return nil
}

// Colour reports whether text for fd may have colour: whether it is a terminal that knows
// colours, and its user has not asked for none (https://no-color.org).
func Colour(fd int) bool {
	return IsTerminal(fd) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// IsTerminal reports whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, getTermios)
	return err == nil
}
