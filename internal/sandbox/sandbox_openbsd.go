package sandbox

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Promises (pledge(2)). flock is for an open ledger, fattr for the mode of a new file.
const (
	promises     = "stdio flock"
	filePromises = " rpath wpath cpath fattr"
)

func enter(files []string, _ bool) string {
	want, holds := promises, ""
	if len(files) > 0 {
		want += filePromises
		holds = unveil(files)
	}
	if err := unix.PledgePromises(want); err != nil {
		return "no pledge: " + err.Error() + holds
	}
	return "pledge " + want + holds
}

// unveil allows only the directories of the files to be replaced, and returns the
// result as text.
func unveil(files []string) string {
	says := ", unveil"
	for _, f := range files {
		dir := filepath.Dir(f)
		if err := unix.Unveil(dir, "rwc"); err != nil {
			return ", no unveil of " + dir + ": " + err.Error()
		}
		says += " " + dir
	}
	if err := unix.UnveilBlock(); err != nil {
		return ", no unveil: " + err.Error()
	}
	return says
}
