package sandbox

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noSetuidFixup is SECBIT_NO_SETUID_FIXUP of include/uapi/linux/securebits.h.
const noSetuidFixup = 1 << 2

// Become makes the process one of the user, on all threads and for good, without
// groups and capabilities, and so that no other process of the user can look into it
// or take its descriptors. User root keeps its number, and has no capability either.
// Call Find before. It does nothing if there is no user.
//
// After an error the process is something in between, and must end.
//
// The order matters. A change of the user undoes PR_SET_DUMPABLE where
// fs.suid_dumpable is 1 (commit_creds in kernel/cred.c), so that the latter comes
// second. Between the two the process still has its capabilities
// (SECBIT_NO_SETUID_FIXUP in capabilities(7)), which keep other processes of the user
// off (cap_ptrace_access_check in security/commoncap.c).
func Become(u User) error {
	if u.text == "" {
		return nil
	}
	fail := func(step string, err error) error { return fmt.Errorf("-user %s: %s: %w", u.text, step, err) }
	if !u.found {
		return fail("its numbers", errors.New("not looked up"))
	}
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err == nil {
		err = prctl(unix.PR_SET_SECUREBITS, uintptr(bits|noSetuidFixup))
	}
	if err != nil {
		return fail("keeping the capabilities until the end", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fail("leaving all groups", err)
	}
	if err := syscall.Setresgid(int(u.gid), int(u.gid), int(u.gid)); err != nil {
		return fail("changing the group", err)
	}
	if err := syscall.Setresuid(int(u.uid), int(u.uid), int(u.uid)); err != nil {
		return fail("changing the user", err)
	}
	// This one is of the memory, which all threads share.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail("shutting others out", err)
	}
	if err := DropCapabilities(); err != nil {
		return fmt.Errorf("-user %s: %w", u.text, err)
	}
	return nil
}

// DropCapabilities takes every capability from the process, on all threads and for
// good: from its bounding set, and from the permitted, effective, inheritable and
// ambient ones (capabilities(7)), and sets no_new_privs (prctl(2)). The user stays;
// a program that root runs has no capability either. It needs CAP_SETPCAP, unless the
// bounding set is empty, and a program that links no C.
//
// After an error the process has some of them, and must end.
func DropCapabilities() error {
	for c := uintptr(0); ; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err == unix.EINVAL && c > 0 {
			break // the kernel has no more of them
		}
		if err == nil && has != 0 {
			err = prctl(unix.PR_CAPBSET_DROP, c)
		}
		if err != nil {
			return fmt.Errorf("dropping capability %d from the bounding set: %w", c, err)
		}
	}
	// Ambient capabilities go with the permitted ones (cap_capset in
	// security/commoncap.c).
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if e != 0 {
		return fmt.Errorf("dropping the capabilities: %w", e)
	}
	if err := prctl(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// prctl is for all threads. The arguments that are not used must be 0.
func prctl(option, value uintptr) error {
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, value, 0, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}
