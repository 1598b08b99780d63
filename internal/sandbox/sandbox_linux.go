package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enter implements Enter. Landlock comes before the filter, which forbids its calls.
func enter(files []string, bpf bool) string {
	if err := noNewPrivs(); err != nil {
		return "none, " + err.Error()
	}
	land := landlock(files)
	filter := "system-call filter"
	if err := install(program(len(files) > 0, bpf)); err != nil {
		filter = "no system-call filter: " + err.Error()
	}
	return filter + ", " + land
}

// noNewPrivs sets no_new_privs on all threads.
func noNewPrivs() error {
	if err := prctl(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// prctl runs prctl(2) on all threads. Unused arguments must be 0. It fails in a program
// that links C, of whose threads the runtime does not know all.
func prctl(option, value uintptr) error {
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, value, 0, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// install installs a filter on all threads. New threads inherit it.
func install(p []unix.SockFilter) error {
	if len(p) == 0 {
		return errors.New("not supported on " + runtime.GOARCH)
	}
	// LOG makes the kernel's audit log refused calls. SPEC_ALLOW keeps the
	// process's mitigations against speculation unchanged, the default since 5.16.
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
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
