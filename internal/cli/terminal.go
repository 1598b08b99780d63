package cli

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Stdin and Stdout check that a stream can be read or written there: that the
// descriptor is open, and no terminal.
func Stdin(example string) error { return stream(0, "stdin", "read from", example) }

// Stdout is Stdin for the output.
func Stdout(example string) error { return stream(1, "stdout", "written to", example) }

func stream(fd int, name, verb, example string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Hint(fmt.Errorf("%s is not open", name), "%s", example)
	}
	if IsTerminal(fd) {
		return Hint(fmt.Errorf("%s is a terminal; frames are not %s one", name, verb), "%s", example)
	}
	return nil
}

// IsTerminal reports whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, getTermios)
	return err == nil
}
