package sandbox

import "golang.org/x/sys/unix"

// arch is the architecture that the filter allows.
const arch = unix.AUDIT_ARCH_X86_64

// legacy lists older forms of the calls in never.
var legacy = []int{
	unix.SYS_OPEN, unix.SYS_CREAT, unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_MKNOD, unix.SYS_LINK, unix.SYS_SYMLINK,
	unix.SYS_RENAME, unix.SYS_UNLINK, unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES,
	unix.SYS_FUTIMESAT, unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB,
	unix.SYS_USTAT, unix.SYS_SYSFS,
}
