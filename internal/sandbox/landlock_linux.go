package sandbox

import (
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// handled are all file rights of the first version of Landlock. The kernel refuses
	// them except where a rule allows them (Documentation/userspace-api/landlock.rst).
	// The system-call filter refuses what later versions add: truncate and ioctl.
	handled = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1
	// replacing are the rights of cli.Replace in a directory. os.CreateTemp opens
	// a file for reading, too.
	replacing = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
)

// landlock forbids opening files, except in the directories of the files to be
// replaced, and returns the result as text. If a directory does not exist, landlock
// restricts nothing: the directory may be created later.
//
// The restriction applies to a thread and to the threads that it starts. So the
// runtime makes the call on all threads, which fails if the program links C.
func landlock(files []string) string {
	attr := unix.LandlockRulesetAttr{Access_fs: handled}
	rules, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Access_fs), 0)
	if e != 0 {
		return "no landlock: " + e.Error()
	}
	defer unix.Close(int(rules))
	text := "landlock"
	for _, f := range files {
		dir := filepath.Dir(f)
		if err := allow(int(rules), dir); err != nil {
			return "no landlock: " + dir + ": " + err.Error()
		}
		text += " " + dir
	}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); e != 0 {
		return "no landlock: " + e.Error()
	}
	return text
}

// allow adds a rule that allows the replacement of files in a directory.
func allow(rules int, dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The kernel's structure is packed: it lacks only the padding at the end.
	rule := unix.LandlockPathBeneathAttr{Allowed_access: replacing, Parent_fd: int32(fd)}
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
