//go:build amd64 || arm64

package sandbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// calls returns what a stage may call, the frequent first. What Go's runtime
// calls is in sys_linux_*.s and os_linux.go of package runtime.
func calls(files, bpf bool) []rule {
	control := []uint32{unix.F_GETPIPE_SZ, unix.F_SETPIPE_SZ}
	if files { // package os asks whether a file it has opened can be polled
		control = append(control, unix.F_GETFL, unix.F_SETFL)
	}
	rules := []rule{
		// Moving a stream (packages fdio and tap).
		{call: unix.SYS_PREADV2},
		{call: unix.SYS_PWRITEV2},
		{call: unix.SYS_PPOLL},
		{call: unix.SYS_READ},
		{call: unix.SYS_WRITE},
		{call: unix.SYS_TEE},
		{call: unix.SYS_SPLICE},
		{call: unix.SYS_RECVFROM},
		{call: unix.SYS_SENDTO, arg: 4, test: null}, // to nobody but the other end
		{call: unix.SYS_WRITEV},
		// Waiting, and the scheduler.
		{call: unix.SYS_FUTEX},
		{call: unix.SYS_NANOSLEEP},
		{call: unix.SYS_EPOLL_PWAIT},
		{call: unix.SYS_RT_SIGPROCMASK},
		{call: unix.SYS_RT_SIGRETURN},
		{call: unix.SYS_PRCTL, test: among, values: []uint32{unix.PR_SET_TIMERSLACK, unix.PR_SET_VMA}},
		{call: unix.SYS_SCHED_YIELD},
		{call: unix.SYS_CLOCK_GETTIME}, // where the vDSO has none
		{call: unix.SYS_RESTART_SYSCALL},
		// Signals: to preempt a goroutine, and to die by one.
		{call: unix.SYS_GETPID},
		{call: unix.SYS_GETTID},
		{call: unix.SYS_TGKILL, test: among, values: []uint32{uint32(os.Getpid())}},
		{call: unix.SYS_RT_SIGACTION},
		{call: unix.SYS_SIGALTSTACK},
		// Memory, none of which can be run.
		{call: unix.SYS_MADVISE},
		{call: unix.SYS_MMAP, arg: 2, test: without, values: []uint32{unix.PROT_EXEC}},
		{call: unix.SYS_MPROTECT, arg: 2, test: without, values: []uint32{unix.PROT_EXEC}},
		{call: unix.SYS_MUNMAP},
		// Threads. What clone3 makes is in memory, where no filter looks; libc
		// takes clone instead if it is not there.
		{call: unix.SYS_CLONE, test: among, values: []uint32{thread, thread | unix.CLONE_SETTLS, libcThread}},
		{call: unix.SYS_CLONE3, test: never, errno: uint32(unix.ENOSYS)},
		{call: unix.SYS_SCHED_GETAFFINITY},
		{call: unix.SYS_SET_ROBUST_LIST},
		{call: unix.SYS_RSEQ},
		{call: unix.SYS_EXIT},
		{call: unix.SYS_EXIT_GROUP},
		// Timers are where the runtime first needs its poller.
		{call: unix.SYS_EPOLL_CREATE1},
		{call: unix.SYS_EPOLL_CTL},
		{call: unix.SYS_EVENTFD2},
		// What is open: pipes are made larger, a ledger is locked and written to
		// the disk.
		{call: unix.SYS_FCNTL, arg: 1, test: among, values: control},
		{call: unix.SYS_FSTAT},
		{call: unix.SYS_FLOCK},
		{call: unix.SYS_FSYNC},
		{call: unix.SYS_CLOSE},
		{call: unix.SYS_GETRANDOM},
	}
	if files {
		rules = append(rules, replacement...)
	}
	if bpf {
		rules = append(rules, rule{call: unix.SYS_BPF, test: among, values: []uint32{unix.BPF_MAP_UPDATE_ELEM, unix.BPF_LINK_CREATE}})
	}
	return rules
}

// replacement is what cli.Replace calls. Where a file may be is Landlock's matter.
var replacement = []rule{
	{call: unix.SYS_OPENAT},
	{call: unix.SYS_NEWFSTATAT},
	{call: unix.SYS_RENAMEAT},
	{call: unix.SYS_UNLINKAT},
	{call: unix.SYS_FCHMOD},
}

// How Go's runtime makes a thread (cloneFlags in os_linux.go; on some
// architectures with thread-local storage), and how the C library does
// (pthread_create, in a program that was built with -race).
const (
	thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND |
		unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	libcThread = thread | unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID
)
