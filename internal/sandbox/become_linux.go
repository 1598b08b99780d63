package sandbox

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noSetuidFixup is SECBIT_NO_SETUID_FIXUP (include/uapi/linux/securebits.h).
const noSetuidFixup = 1 << 2

// Become permanently switches all threads of the process to the user, and drops
// groups and capabilities. Other processes of the user cannot trace the process or
// take its descriptors. User root keeps its UID, but also loses its capabilities.
// Call Find first. Become does nothing for the zero User.
//
// After an error the switch is incomplete, and the process must exit.
//
// The order matters. If fs.suid_dumpable is 1, a change of the user resets
// PR_SET_DUMPABLE (commit_creds in kernel/cred.c), so PR_SET_DUMPABLE comes after the
// change. Between the two the process keeps its capabilities (SECBIT_NO_SETUID_FIXUP
// in capabilities(7)): they stop other processes of the user from tracing it
// (cap_ptrace_access_check in security/commoncap.c).
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
	if err := syscall.Setresgid(u.gid, u.gid, u.gid); err != nil {
		return fail("changing the group", err)
	}
	if err := syscall.Setresuid(u.uid, u.uid, u.uid); err != nil {
		return fail("changing the user", err)
	}
	// One call is enough: the flag belongs to the memory, which all threads share.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail("shutting others out", err)
	}
	if err := DropCapabilities(); err != nil {
		return fmt.Errorf("-user %s: %w", u.text, err)
	}
	return nil
}

// DropCapabilities permanently drops all capabilities on all threads: from the
// bounding set, and from the permitted, effective, inheritable and ambient sets
// (capabilities(7)). It also sets no_new_privs (prctl(2)). The user does not change,
// and programs run by root gain no capability. DropCapabilities needs CAP_SETPCAP,
// unless the bounding set is empty, and fails in a program that links C.
//
// After an error the process may keep some capabilities, and must exit.
func DropCapabilities() error {
	for c := uintptr(0); ; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err == unix.EINVAL && c > 0 {
			break // c is past the kernel's last capability
		}
		if err == nil && has != 0 {
			err = prctl(unix.PR_CAPBSET_DROP, c)
		}
		if err != nil {
			return fmt.Errorf("dropping capability %d from the bounding set: %w", c, err)
		}
	}
	// This also drops the ambient capabilities (cap_capset in security/commoncap.c).
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if e != 0 {
		return fmt.Errorf("dropping the capabilities: %w", e)
	}
	return noNewPrivs()
}
