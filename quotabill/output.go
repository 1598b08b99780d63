package main

import (
	"os"

	"framepipe/internal/bill"
	"framepipe/internal/cli"

	"golang.org/x/sys/unix"
)

// styleOf returns the style of text written to a file.
func styleOf(f *os.File) bill.Style {
	fd := int(f.Fd())
	s := bill.Style{ASCII: !cli.UTF8(), Colour: cli.Colour(fd)}
	if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
		s.Width = int(size.Col)
	}
	return s
}
