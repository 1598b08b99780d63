//go:build amd64 || arm64

package sandbox

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// never lists the forbidden system calls. A stage does not need them, and an attacker would:
// they reach files, networks, other processes, programs, namespaces, and parts of the kernel
// with a history of exploits. All other calls pass, so that the filter does not depend on
// the version of Go. legacy lists the older calls of some architectures.
var never = []int{
	// Files by name.
	unix.SYS_OPENAT2, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_MKDIRAT, unix.SYS_MKNODAT,
	unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_RENAMEAT2, unix.SYS_TRUNCATE, unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT,
	unix.SYS_FCHOWN, unix.SYS_UTIMENSAT, unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_REMOVEXATTR,
	unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_INOTIFY_ADD_WATCH, unix.SYS_FANOTIFY_INIT,
	unix.SYS_MEMFD_CREATE, unix.SYS_MEMFD_SECRET, unix.SYS_UMASK, unix.SYS_CHDIR, unix.SYS_FCHDIR, unix.SYS_CHROOT,
	// Mounts.
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_QUOTACTL,
	// Networks.
	unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
	unix.SYS_SENDMSG, unix.SYS_SENDMMSG, unix.SYS_SETSOCKOPT,
	// Programs and other processes.
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_CLONE3, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_KCMP,
	unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_SETPRIORITY,
	unix.SYS_SCHED_SETATTR, unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETAFFINITY, unix.SYS_PRLIMIT64,
	unix.SYS_SETRLIMIT, unix.SYS_SETPGID, unix.SYS_SETSID, unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES,
	// Privileges and namespaces.
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
	unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPSET, unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_PERSONALITY, unix.SYS_SECCOMP, unix.SYS_LANDLOCK_RESTRICT_SELF,
	// Other parts of the kernel.
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_IO_SETUP, unix.SYS_PERF_EVENT_OPEN,
	unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_SHMGET, unix.SYS_MSGGET,
	unix.SYS_SEMGET, unix.SYS_MQ_OPEN, unix.SYS_REMAP_FILE_PAGES, unix.SYS_PKEY_MPROTECT, unix.SYS_INIT_MODULE,
	unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT,
	unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME,
	unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP, unix.SYS_LOOKUP_DCOOKIE,
}

// replacement lists the calls that replace a file (cli.Replace). Landlock limits the files.
var replacement = []int{unix.SYS_OPENAT, unix.SYS_RENAMEAT, unix.SYS_UNLINKAT, unix.SYS_FCHMOD}

// Offsets in struct seccomp_data (include/uapi/linux/seccomp.h) on a little-endian machine.
const (
	atCall = 0
	atArch = 4
	atArgs = 16
)

const (
	allowed = unix.SECCOMP_RET_ALLOW
	refused = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
)

// Instructions of classic BPF (Documentation/networking/filter.rst). A jump names the number
// of instructions to skip.

func load(at int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(at)}
}

func jump(condition uint16, k uint32, yes, no int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | condition, K: k, Jt: uint8(yes), Jf: uint8(no)}
}

func answer(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

// program returns the filter. At its installation the kernel finds the calls that pass with
// any arguments, and does not run the filter for them (seccomp_cache_prepare in
// kernel/seccomp.c, Linux 5.11).
func program(files, bpf bool) []unix.SockFilter {
	// Refuse the calls of other architectures, such as i386, and those of x32, whose numbers
	// have bit 30 set: they would bypass the list of numbers.
	p := []unix.SockFilter{
		load(atArch), jump(unix.BPF_JEQ, arch, 1, 0), answer(refused),
		load(atCall), jump(unix.BPF_JGE, 1<<30, 0, 1), answer(refused),
	}
	call := func(nr int, then ...unix.SockFilter) {
		p = append(append(p, jump(unix.BPF_JEQ, uint32(nr), 0, len(then))), then...)
	}
	// unless refuses a call unless the test of its arguments skips one instruction.
	unless := func(nr int, test ...unix.SockFilter) {
		call(nr, append(test, answer(refused), answer(allowed))...)
	}
	low := func(arg int) unix.SockFilter { return load(atArgs + 8*arg) }

	calls := slices.Concat(never, legacy)
	if !files {
		calls = append(calls, replacement...)
	}
	if bpf { // allow the commands that attach BPF programs and update maps
		unless(unix.SYS_BPF, low(0), jump(unix.BPF_JEQ, unix.BPF_MAP_UPDATE_ELEM, 2, 0), jump(unix.BPF_JEQ, unix.BPF_LINK_CREATE, 1, 0))
	} else {
		calls = append(calls, unix.SYS_BPF)
	}
	for _, nr := range calls {
		call(nr, answer(refused))
	}
	// Allow sendto on a connected socket, without an address.
	unless(unix.SYS_SENDTO, low(4), jump(unix.BPF_JEQ, 0, 0, 2), load(atArgs+8*4+4), jump(unix.BPF_JEQ, 0, 1, 0))
	// Refuse to control devices, such as a terminal. Allow FIONREAD, the number of bytes in a pipe.
	unless(unix.SYS_IOCTL, low(1), jump(unix.BPF_JEQ, unix.TIOCINQ, 1, 0))
	// Allow signals to threads of this process.
	unless(unix.SYS_TGKILL, low(0), jump(unix.BPF_JEQ, uint32(os.Getpid()), 1, 0))
	// Allow memory that is not executable.
	unless(unix.SYS_MMAP, low(2), jump(unix.BPF_JSET, unix.PROT_EXEC, 0, 1))
	unless(unix.SYS_MPROTECT, low(2), jump(unix.BPF_JSET, unix.PROT_EXEC, 0, 1))
	// Allow threads, but no processes and no namespaces. A filter cannot read the flags of
	// clone3, which are in memory, and Go uses clone.
	unless(unix.SYS_CLONE, low(0), jump(unix.BPF_JSET, namespaces, 1, 0), jump(unix.BPF_JSET, unix.CLONE_THREAD, 1, 0))
	// Refuse options that let other processes trace this one.
	unless(unix.SYS_PRCTL, low(0), jump(unix.BPF_JEQ, unix.PR_SET_DUMPABLE, 2, 0), jump(unix.BPF_JEQ, unix.PR_SET_PTRACER, 1, 0), jump(unix.BPF_JEQ, unix.PR_SET_MM, 0, 1))
	return append(p, answer(allowed))
}

const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
