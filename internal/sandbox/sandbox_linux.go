package sandbox

import (
	"errors"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enter is Enter. Landlock comes before the filter, which lets nobody change it.
func enter(files []string, bpf bool) string {
	// Where the runtime cannot make a call on all threads, this is the one that
	// the filter is installed from.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := noNewPrivs(); err != nil {
		return "nothing holds, no_new_privs: " + err.Error()
	}
	land := landlock(files)
	filter := "system-call filter"
	if err := install(program(len(files) > 0, bpf)); err != nil {
		filter = "no system-call filter: " + err.Error()
	}
	return filter + ", " + land
}

// noNewPrivs is for all threads, or for this one in a program that links C, where
// the runtime does not know them all; installing the filter then takes the others
// along (seccomp_sync_threads in kernel/seccomp.c).
func noNewPrivs() error {
	_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	switch {
	case e == unix.ENOTSUP:
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	case e != 0:
		return e
	}
	return nil
}

var errArch = errors.New("there is none for " + runtime.GOARCH)

// install gives a filter to all threads, and to those that they start.
func install(p []unix.SockFilter) error {
	if len(p) == 0 {
		return errArch
	}
	// LOG has the kernel's audit tell of calls that were refused; SPEC_ALLOW
	// leaves speculation as it is for other processes, which is what the kernel
	// does without being asked since 5.16.
	const wanted = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	err := seccomp(wanted, p)
	if err == unix.EINVAL { // before 4.17
		err = seccomp(unix.SECCOMP_FILTER_FLAG_TSYNC, p)
	}
	return err
}

func seccomp(flags uintptr, p []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	other, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(p)
	switch {
	case e != 0:
		return e
	case other != 0: // a thread that has another filter
		return errors.New("a thread has a filter of its own")
	}
	return nil
}
