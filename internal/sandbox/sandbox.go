// Package sandbox drops the rights that a process no longer needs after it has opened
// its files. Frames are untrusted input: an attacker who exploits a stage with one can
// read and write the stage's pipes, and little else.
//
// On Linux it applies three permanent restrictions to all threads:
//
//   - no_new_privs: executed programs gain no privileges (prctl(2)).
//   - A system-call filter (seccomp(2)): calls that reach outside the process fail with
//     EPERM. The process cannot create sockets, run programs, trace other processes or
//     make memory executable. It cannot open files unless it must replace some.
//   - Landlock (landlock(7)): the process can open files by name only in the directories
//     of the files that it replaces.
//
// On OpenBSD it uses pledge(2) and unveil(2). Other systems have no sandbox.
//
// Enter skips a restriction that the kernel does not support or a container forbids:
// stages work without. It returns the active restrictions, and -v shows them.
//
// Become is different: a tool that opens a device as root continues as an unprivileged
// user, or exits. It requires a flag, and Off does not disable it.
//
// A process cannot undo the restrictions. So Enter loads the time zone, which package
// time would otherwise read at its first use, and takes the names of the files that a
// stage opens later.
package sandbox

import (
	"os"
	"slices"
	"time"
)

// Off is the environment variable that disables Enter if it is not empty: for
// profilers, and to test whether the sandbox causes a failure.
const Off = "FRAMEPIPE_NO_SANDBOX"

// Enter restricts the process to its open descriptors and to the replacement of the
// named files (cli.Replace), which need not exist. It ignores empty names. It returns
// the active restrictions as one line of text.
func Enter(files ...string) string {
	return enterUnlessOff(slices.DeleteFunc(files, func(name string) bool { return name == "" }), false)
}

// EnterBPF is Enter for a process that replaces no files, but continues to attach
// BPF programs that it has loaded and to update maps that it has created.
func EnterBPF() string { return enterUnlessOff(nil, true) }

func enterUnlessOff(files []string, bpf bool) string {
	if os.Getenv(Off) != "" {
		return "none, " + Off + " is set"
	}
	_ = time.Local.String() // loads /etc/localtime
	return enter(files, bpf)
}
