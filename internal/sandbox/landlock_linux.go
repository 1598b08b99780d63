package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// replacing is what cli.Replace does in a directory. os.CreateTemp opens a
	// file for reading, too.
	replacing = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	// writing is what it does to a fifo or a device, which it does not replace.
	writing = unix.LANDLOCK_ACCESS_FS_WRITE_FILE
)

// handled is what a version of Landlock can refuse about files: all of it is
// refused but for what a rule allows (Documentation/userspace-api/landlock.rst).
func handled(version int) uint64 {
	rights := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1)
	if version >= 2 {
		rights |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= 3 {
		rights |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 5 {
		rights |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return rights
}

// landlock takes away all files that are not open, but for the directories in
// which some are to be replaced, and says so. A directory that cannot be found
// may come later: rather than have it refused for good, nothing is.
//
// It is a matter of each thread, and those that a thread starts inherit it: the
// runtime makes the call on all it has, unless the program links C.
func landlock(files []string) string {
	version, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return "no landlock: " + e.Error()
	}
	// Of the attributes the kernel is told only the first, which it has had
	// since version 1.
	attr := unix.LandlockRulesetAttr{Access_fs: handled(int(version))}
	rules, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Access_fs), 0)
	if e != 0 {
		return "no landlock: " + e.Error()
	}
	defer unix.Close(int(rules))
	var names []string
	for _, f := range files {
		name, rights := scope(f)
		if err := allow(int(rules), name, rights); err != nil {
			return "no landlock: " + name + ": " + err.Error()
		}
		names = append(names, name)
	}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); e != 0 {
		return "no landlock: " + e.Error()
	}
	return strings.Join(append([]string{"landlock"}, names...), " ")
}

// scope returns what has to be open to replace a file: its directory, or
// itself if it is something that is written to.
func scope(file string) (name string, rights uint64) {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return file, writing
	}
	return filepath.Dir(file), replacing
}

// allow adds a rule for a file, or for what is in a directory.
func allow(rules int, name string, rights uint64) error {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The kernel's structure is packed, which here is only its end.
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
