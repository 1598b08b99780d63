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
	// replacing are the rights of cli.Replace in a directory. os.CreateTemp opens
	// a file for reading, too.
	replacing = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	// writing is the right to a fifo or a device, which cli.Replace does not replace.
	writing = unix.LANDLOCK_ACCESS_FS_WRITE_FILE
)

// handled returns all file rights of a version of Landlock. The kernel refuses them
// except where a rule allows them (Documentation/userspace-api/landlock.rst).
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

// landlock forbids opening files, except in the directories of the files to be
// replaced, and returns the result as text. If a directory does not exist, landlock
// restricts nothing: the directory may be created later.
//
// The restriction applies to a thread and to the threads that it starts. So the
// runtime makes the call on all threads, which fails if the program links C.
func landlock(files []string) string {
	version, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return "no landlock: " + e.Error()
	}
	// Pass only the first attribute, which the kernel has supported since version 1.
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

// scope returns the name and the rights needed to replace a file: its directory,
// or the file itself if it is a fifo or a device.
func scope(file string) (name string, rights uint64) {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return file, writing
	}
	return filepath.Dir(file), replacing
}

// allow adds a rule for a file or for the contents of a directory.
func allow(rules int, name string, rights uint64) error {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The kernel's structure is packed: it lacks only the padding at the end.
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
