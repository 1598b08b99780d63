package sandbox

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// enter promises (pledge(2)) to use no files, or those in the directories of the files to be
// replaced (unveil(2)). flock is for an open ledger, fattr for the mode of a new file.
func enter(files []string, _ bool) string {
	promises, text := "stdio flock", ""
	for _, f := range files {
		dir := filepath.Dir(f)
		promises = "stdio flock rpath wpath cpath fattr"
		if err := unix.Unveil(dir, "rwc"); err != nil {
			return "none, unveil " + dir + ": " + err.Error()
		}
		text += ", unveil " + dir
	}
	if err := unix.PledgePromises(promises); err != nil { // without unveil, which ends it
		return "no pledge: " + err.Error() + text
	}
	return "pledge " + promises + text
}
