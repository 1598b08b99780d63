package sandbox

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Become permanently switches all threads of the process to the user, and drops
// groups and capabilities. Other processes of the user cannot trace the process or
// take its descriptors. User root keeps its UID, but also loses its capabilities.
// Call Find first. Become does nothing for the zero User.
//
// After an error the switch is incomplete, and the process must exit.
func Become(u User) error {
	if u.text == "" {
		return nil
	}
	if !u.found {
		return fmt.Errorf("-user %s: the user was not looked up", u.text)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		// The bounding set comes first, and the other sets last: each step needs a capability
		// that a later one drops, and a change of the user drops all of those in effect.
		{"capabilities", emptyBoundingSet},
		{"leaving all groups", func() error { return syscall.Setgroups(nil) }},
		{"changing the group", func() error { return syscall.Setresgid(u.gid, u.gid, u.gid) }},
		{"changing the user", func() error { return syscall.Setresuid(u.uid, u.uid, u.uid) }},
		// One call is enough: the flag belongs to the memory, which all threads share. A change
		// of the user resets it (commit_creds in kernel/cred.c), so it comes after that.
		{"shutting others out", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }},
		{"capabilities", dropCapabilities},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("-user %s: %s: %w", u.text, step.name, err)
		}
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
	if err := emptyBoundingSet(); err != nil {
		return err
	}
	return dropCapabilities()
}

func emptyBoundingSet() error {
	for c := uintptr(0); ; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err == unix.EINVAL && c > 0 {
			return nil // c is past the kernel's last capability
		}
		if err == nil && has != 0 {
			err = prctl(unix.PR_CAPBSET_DROP, c)
		}
		if err != nil {
			return fmt.Errorf("dropping capability %d from the bounding set: %w", c, err)
		}
	}
}

func dropCapabilities() error {
	// This also drops the ambient capabilities (cap_capset in security/commoncap.c).
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if e != 0 {
		return fmt.Errorf("dropping the capabilities: %w", e)
	}
	return noNewPrivs()
}
