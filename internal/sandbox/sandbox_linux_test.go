//go:build amd64 || arm64

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"framepipe/internal/cli"
	"framepipe/internal/nettest"

	"golang.org/x/sys/unix"
)

// child is the environment variable that makes this program one of the processes
// below, which do not get out of the sandbox again.
const child = "FRAMEPIPE_SANDBOX_CHILD"

var children = map[string]func(args []string){
	"calls":   tryCalls,
	"threads": tryThreads,
	"replace": tryReplace,
	"runtime": tryRuntime,
	"panic":   func([]string) { Enter(); go panic("boom"); time.Sleep(time.Minute) },
	"fault":   func([]string) { Enter(); var p *int; *p = 1 },
	"become":  tryBecome,
}

func TestMain(m *testing.M) {
	if do := children[os.Getenv(child)]; do != nil {
		do(os.Args[1:])
		if testing.CoverMode() != "" {
			unix.Exit(0) // os.Exit would write coverage files, which the sandbox forbids
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// command is a run of one of the children, by a program with arguments if by has one.
func command(t testing.TB, by, name string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := slices.Concat(strings.Fields(by), []string{self}, args)
	c := exec.Command(words[0], words[1:]...)
	c.Env = append(os.Environ(), child+"="+name, Off+"=")
	return c
}

// check runs one of the children and compares its output. It skips the test where the kernel
// lacks a restriction or has it switched off, and in a program that links C, such as one with the race
// detector.
func check(t testing.TB, name string, args []string, lines ...string) {
	t.Helper()
	out, err := command(t, "", name, args...).CombinedOutput()
	entered, _, _ := strings.Cut(string(out), "\n")
	for _, lack := range []string{"none,", "no system-call filter", "no landlock: function not", "no landlock: operation not"} {
		if strings.Contains(entered, lack) {
			nettest.Skip(t, "%s", entered)
		}
	}
	if want := strings.Join(lines, "\n") + "\n"; err != nil || string(out) != want {
		t.Errorf("%v, have\n%s\nwant\n%s", err, out, want)
	}
}

// always are calls that an attacker would want who has taken over a stage. The filter refuses these, and
// all others of its lists, whatever their arguments.
var always = []int{
	unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_UNLINKAT, unix.SYS_FCHMODAT, unix.SYS_MOUNT, unix.SYS_MEMFD_CREATE,
	unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_SENDMSG, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_CLONE3,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PIDFD_OPEN, unix.SYS_KILL, unix.SYS_PRLIMIT64,
	unix.SYS_SETUID, unix.SYS_CAPSET, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_SECCOMP,
	unix.SYS_IO_URING_SETUP, unix.SYS_BPF, unix.SYS_KEYCTL,
}

// call is a system call, with its number and arguments.
type call struct {
	name string
	args []uintptr
}

func (c call) try() syscall.Errno {
	a := append(c.args, make([]uintptr, 7)...)
	_, _, e := syscall.RawSyscall6(a[0], a[1], a[2], a[3], a[4], a[5], a[6])
	return e
}

// forbidden are calls that the filter refuses with these arguments.
var forbidden = []call{
	{"tgkill the parent", []uintptr{unix.SYS_TGKILL, uintptr(os.Getppid()), uintptr(os.Getppid())}},
	{"fork", []uintptr{unix.SYS_CLONE, uintptr(unix.SIGCHLD)}},
	{"a namespace", []uintptr{unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_NEWNET, 1 << 12}},
	{"mmap, executable", []uintptr{unix.SYS_MMAP, 0, 4096, unix.PROT_READ | unix.PROT_EXEC, unix.MAP_PRIVATE | unix.MAP_ANON, none}},
	{"mprotect, executable", []uintptr{unix.SYS_MPROTECT, page(), 4096, unix.PROT_READ | unix.PROT_EXEC}},
	{"prctl", []uintptr{unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0}},
	{"a terminal's input", []uintptr{unix.SYS_IOCTL, 0, unix.TIOCSTI, text("x")}},
	{"a tap", []uintptr{unix.SYS_IOCTL, 0, unix.TUNSETIFF, page()}},
	{"a datagram to an address", []uintptr{unix.SYS_SENDTO, 0, page(), 1, 0, 1 << 32, 16}},
	{"x32", []uintptr{1<<30 | unix.SYS_GETPID}},
}

func text(s string) uintptr { return uintptr(unsafe.Pointer(&append([]byte(s), 0)[0])) }

var aPage = make([]byte, 3*4096)

// page is memory of ours, on a page of its own.
func page() uintptr { return (uintptr(unsafe.Pointer(&aPage[0])) + 4095) &^ 4095 }

// none is -1: no address, descriptor or process. A call with it does no harm if it is not refused.
const none = 1<<64 - 1

func tryCalls([]string) {
	fmt.Println(Enter())
	for _, nr := range slices.Concat(always, never, legacy, replacement) {
		if e := (call{args: []uintptr{uintptr(nr), none, none, none, none, none, none}}).try(); e != unix.EPERM {
			fmt.Println("system call", nr, e)
		}
	}
	for _, f := range forbidden {
		if e := f.try(); e != unix.EPERM {
			fmt.Println(f.name, e)
		}
	}
	_, err := unix.IoctlGetUint32(0, unix.TIOCINQ)
	fmt.Println("how much waits in a pipe:", err)
}

func TestCalls(t *testing.T) {
	const pipe = "how much waits in a pipe: inappropriate ioctl for device" // stdin is /dev/null
	check(t, "calls", nil, "system-call filter, landlock", pipe)
}

// tryThreads has threads that were there before, and one that comes later, open
// a file for which Landlock alone has an answer, as the filter lets files be opened.
func tryThreads(args []string) {
	const threads = 8
	var ready sync.WaitGroup
	ready.Add(threads)
	entered, said := make(chan bool), make(chan error)
	try := func() {
		runtime.LockOSThread()
		ready.Done()
		<-entered
		_, err := os.ReadFile("/etc/passwd")
		said <- err
	}
	for range threads {
		go try()
	}
	ready.Wait()
	fmt.Println(Enter(args[0]))
	close(entered)
	ready.Add(1)
	go try()
	for range threads + 1 {
		fmt.Println(<-said)
	}
}

func TestThreads(t *testing.T) {
	dir := t.TempDir()
	lines := slices.Repeat([]string{"open /etc/passwd: permission denied"}, 9)
	check(t, "threads", []string{dir + "/file"}, append([]string{"system-call filter, landlock " + dir}, lines...)...)
}

// tryReplace enters the sandbox with the first file, and replaces all.
func tryReplace(args []string) {
	fmt.Println(Enter(args[0]))
	for range 2 {
		for _, name := range args {
			err := cli.Replace(name, []byte("new"))
			if p := (*os.PathError)(nil); errors.As(err, &p) {
				err = p.Err // without the name that was made up
			}
			fmt.Println(err)
		}
	}
}

func TestReplace(t *testing.T) {
	here, there := t.TempDir(), t.TempDir()
	for _, name := range []string{here + "/old", there + "/old"} {
		if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const ok, no = "<nil>", "permission denied"
	check(t, "replace", []string{here + "/new", here + "/old", there + "/new", there + "/old", t.TempDir() + "/file", "/dev/x"},
		"system-call filter, landlock "+here, ok, ok, no, no, no, no, ok, ok, no, no, no, no)
	for name, is := range map[string]string{here + "/new": "new", here + "/old": "new", there + "/old": "old"} {
		if b, err := os.ReadFile(name); err != nil || string(b) != is {
			t.Errorf("%s is %q, want %q, %v", name, b, is, err)
		}
	}
	for _, dir := range []string{here, there} { // and nothing is left over
		if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
			t.Error(left)
		}
	}
	// A directory that is not there may come.
	check(t, "replace", []string{here + "/later/file", here + "/old"},
		"system-call filter, no landlock: "+here+"/later: no such file or directory",
		"no such file or directory", ok, "no such file or directory", ok)
}

var kept [][]byte

// tryRuntime does what Go's runtime needs the kernel for, and a program that
// waits long.
func tryRuntime([]string) {
	fmt.Println(Enter())
	var all sync.WaitGroup
	for range 30 { // new threads, which are preempted, and end with their goroutine
		all.Add(1)
		go func() {
			defer all.Done()
			runtime.LockOSThread()
			for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
			}
		}()
	}
	for i := range 2000 { // memory, the collector, and memory given back
		if kept = append(kept, make([]byte, 256<<10)); i%200 == 0 {
			kept = nil
			runtime.GC()
		}
	}
	all.Wait()
	time.Sleep(time.Millisecond)
	fmt.Println("done")
}

func TestRuntime(t *testing.T) { check(t, "runtime", nil, "system-call filter, landlock", "done") }

// A program that comes to a bad end says why.
func TestPanic(t *testing.T) {
	for name, why := range map[string]string{"panic": "panic: boom", "fault": "nil pointer dereference"} {
		c := command(t, "", name)
		out, _ := c.CombinedOutput()
		if c.ProcessState.ExitCode() != 2 || !bytes.Contains(out, []byte(why)) || !bytes.Contains(out, []byte("goroutine ")) {
			t.Errorf("%s: %v\n%s", name, c.ProcessState, out)
		}
	}
}

func TestOff(t *testing.T) {
	t.Setenv(Off, "1")
	if got := Enter(); got != "none, FRAMEPIPE_NO_SANDBOX is set" {
		t.Error(got)
	}
}
