package main

import (
	"os"

	"framepipe/internal/bill"
	"framepipe/internal/cli"

	"golang.org/x/sys/unix"
)

// look returns how text is written to a file.
func look(f *os.File) bill.Style {
	s := bill.Style{ASCII: !cli.UTF8()}
	fd := int(f.Fd())
	if !cli.IsTerminal(fd) {
		return s
	}
	s.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" // https://no-color.org
	if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
		s.Width = int(size.Col)
	}
	return s
}
