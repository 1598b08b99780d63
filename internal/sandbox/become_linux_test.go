//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"framepipe/internal/nettest"

	"golang.org/x/sys/unix"
)

// tryBecome becomes a user, or with none drops its capabilities twice, while there are
// threads that wait, that work and that come and go. It prints whether others may look
// into it, each way back that is open, the status of its threads, and that of a program
// that it runs.
func tryBecome(args []string) {
	startThreads()
	var err error
	if args[0] == "" {
		err = errors.Join(DropCapabilities(), DropCapabilities())
	} else {
		var u User
		err = errors.Join(u.Set(args[0]), u.Find())
		err = errors.Join(err, Become(u))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	fmt.Println("dumpable", dumpable)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN}}
	for _, way := range []struct {
		name string
		args []uintptr
	}{
		{"setuid", []uintptr{unix.SYS_SETUID, 0}},
		{"setresuid", []uintptr{unix.SYS_SETRESUID, 1<<64 - 1, 0, 1<<64 - 1}},
		{"setgid", []uintptr{unix.SYS_SETGID, 0}},
		{"setgroups", []uintptr{unix.SYS_SETGROUPS, 0}},
		{"capset", []uintptr{unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data))}},
		{"ambient", []uintptr{unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN}},
		{"securebits", []uintptr{unix.SYS_PRCTL, unix.PR_SET_SECUREBITS}},
		{"new privileges", []uintptr{unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS}},
		{"network namespace", []uintptr{unix.SYS_UNSHARE, unix.CLONE_NEWNET}},
	} {
		a := append(way.args, 0, 0, 0, 0, 0)
		if _, _, e := syscall.RawSyscall6(a[0], a[1], a[2], a[3], a[4], a[5], 0); e == 0 {
			fmt.Println("open:", way.name)
		}
	}
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	for _, name := range threads {
		if b, err := os.ReadFile(name); err == nil {
			fmt.Println(status(b))
		}
	}
	b, err := exec.Command("cat", "/proc/self/status").Output()
	fmt.Println(status(b), err)
}

// startThreads starts threads that wait, that work, and that come and go.
func startThreads() {
	var ready sync.WaitGroup
	for i := range 12 {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			for {
				switch i % 3 {
				case 0:
					select {}
				case 1:
					time.Sleep(time.Millisecond)
				case 2:
					done := make(chan bool)
					go func() { runtime.LockOSThread(); close(done) }() // with which its thread ends
					<-done
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	ready.Wait()
}

// status is what a status of proc(5) tells of privileges.
func status(b []byte) string {
	lines := regexp.MustCompile(`(?m)^(Uid|Gid|Groups|Cap\w+|NoNewPrivs):.*`).FindAllString(string(b), -1)
	return strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
}

func TestBecome(t *testing.T) {
	nettest.Need(t, "setpriv")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const none = "CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000000000 CapAmb: 0000000000000000 NoNewPrivs: 1"
	nobody, root := "Uid: 65534 65534 65534 65534 Gid: 65534 65534 65534 65534 Groups: "+none, "Uid: 0 0 0 0 Gid: 0 0 0 0 Groups: "+none
	const ambient = "setpriv --groups=1,2 --inh-caps=+net_admin,+net_raw --ambient-caps=+net_admin,+net_raw"
	for _, tt := range []struct{ user, run, want, open, dumpable string }{
		{"65534:65534", "", nobody, "", "0"},
		{"65534:65534", ambient, nobody, "", "0"},
		{"root", "", root, "setuid setresuid setgid", "0"}, // to what it is
		{"root", ambient, root, "setuid setresuid setgid", "0"},
		{"", ambient, strings.Replace(root, "Groups:", "Groups: 1 2", 1), "setuid setresuid setgid", "1"},
	} {
		words := append(strings.Fields(tt.run), self, tt.user)
		c := exec.Command(words[0], words[1:]...)
		c.Env = append(os.Environ(), child+"=become")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", words, err, out)
			continue
		}
		var open []string
		threads := 0
		for line := range strings.Lines(string(out)) {
			line = strings.TrimSpace(line)
			if way, is := strings.CutPrefix(line, "open: "); is {
				open = append(open, way)
			} else if line == tt.want || line == tt.want+" <nil>" {
				threads++
			} else if line != "dumpable "+tt.dumpable {
				t.Errorf("%q: %s\nwant %s", words, line, tt.want)
			}
		}
		if got := strings.Join(open, " "); got != tt.open || threads < 14 {
			t.Errorf("%q: %d threads, ways back: %s, want %s", words, threads, got, tt.open)
		}
	}
}

// One that lacks a privilege for it does not go on as something in between.
func TestBecomeFails(t *testing.T) {
	nettest.Need(t, "setpriv")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for lacks, want := range map[string]string{
		"setpcap": "-user 65534:65534: capabilities: dropping capability 0 from the bounding set: operation not permitted\n",
		"setgid":  "-user 65534:65534: leaving all groups: operation not permitted\n",
		"setuid":  "-user 65534:65534: changing the user: operation not permitted\n",
	} {
		c := exec.Command("setpriv", "--bounding-set=-"+lacks, self, "65534:65534")
		c.Env = append(os.Environ(), child+"=become")
		out, err := c.CombinedOutput()
		if err == nil || string(out) != want {
			t.Errorf("%s: %v, %s", lacks, err, out)
		}
	}
}
