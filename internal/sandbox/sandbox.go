// Package sandbox takes from a process what it does not need any more once its
// files are open. A frame is written by somebody else: a stage that is exploited
// by one can read and write its pipes, and little else.
//
// On Linux three things hold, for all threads and for good:
//
//   - no_new_privs: no program that is run gains privileges (prctl(2)).
//   - A filter of system calls (seccomp(2)): those that lead out of the process fail with
//     EPERM. No socket is made, no program run, no other process looked at, no memory made
//     executable, and no file opened by a process that replaces none.
//   - Landlock (landlock(7)): no file can be opened by name but those that the tool
//     will yet replace, and what else is in their directory.
//
// On OpenBSD it is pledge(2) and unveil(2). Elsewhere nothing holds.
//
// What a kernel does not have is left out. None of it is needed for a stage to
// work, and a stage that is run in a container, where some of it is forbidden,
// works as it did: Enter says what holds, and -v shows it.
//
// Become is another matter: a tool that opens a device as root goes on as a user
// without privileges, or ends. It is asked for by a flag, and Off does not undo it.
//
// What is taken away does not come back, and the runtime opens some files when
// they are first needed: package time the time zone, which Enter therefore has
// it read. Whatever a stage is to open later has to be named to Enter.
package sandbox

import (
	"os"
	"time"
)

// Off is the environment variable that, if it is not empty, leaves everything as
// it is: for profilers, and to tell whether something fails for want of a call.
const Off = "FRAMEPIPE_NO_SANDBOX"

// Enter gives up what the process does not need to read and write what is open,
// and to replace files (cli.Replace), which may be there or not; an empty name is
// none. It says in a line what holds from now on.
func Enter(files ...string) string {
	if os.Getenv(Off) != "" {
		return "nothing holds, " + Off + " is set"
	}
	var named []string
	for _, f := range files {
		if f != "" {
			named = append(named, f)
		}
	}
	_ = time.Local.String() // which has /etc/localtime read
	return enter(named, false)
}

// EnterBPF is Enter for a process that replaces no files, but goes on to attach BPF
// programs that it has loaded and to update maps that it has made.
func EnterBPF() string {
	if os.Getenv(Off) != "" {
		return "nothing holds, " + Off + " is set"
	}
	return enter(nil, true)
}
