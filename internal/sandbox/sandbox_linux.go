package sandbox

import (
	"errors"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enter implements Enter. Landlock comes before the filter, which forbids its calls.
func enter(files []string, bpf bool) string {
	// If the runtime cannot make a call on all threads, no_new_privs applies to this
	// thread only, and the filter must be installed from the same thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := noNewPrivs(); err != nil {
		return "none, no_new_privs: " + err.Error()
	}
	land := landlock(files)
	filter := "system-call filter"
	if err := install(program(len(files) > 0, bpf)); err != nil {
		filter = "no system-call filter: " + err.Error()
	}
	return filter + ", " + land
}

// noNewPrivs sets no_new_privs on all threads. In a program that links C, the runtime
// does not know all threads: then it sets the flag on the current thread, and the
// installation of the filter copies the flag to the others (seccomp_sync_threads in
// kernel/seccomp.c).
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

var errArch = errors.New("not supported on " + runtime.GOARCH)

// install installs a filter on all threads. New threads inherit it.
func install(p []unix.SockFilter) error {
	if len(p) == 0 {
		return errArch
	}
	// LOG makes the kernel's audit log refused calls. SPEC_ALLOW keeps the
	// process's mitigations against speculation unchanged, the default since 5.16.
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
	case other != 0: // the id of a thread with another filter
		return errors.New("a thread has a filter of its own")
	}
	return nil
}
