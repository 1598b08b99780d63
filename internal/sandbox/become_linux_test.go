//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"framepipe/internal/nettest"

	"golang.org/x/sys/unix"
)

// tryBecome becomes a user, or with none drops its capabilities twice. It prints whether others
// may look into it, the ways back that are open, whether there are many threads, and the
// privileges of all threads and of a program that it runs.
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
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN}}
	var open []string
	for _, way := range []call{
		{"setuid", []uintptr{unix.SYS_SETUID, 0}},
		{"setresuid", []uintptr{unix.SYS_SETRESUID, 1<<64 - 1, 0, 1<<64 - 1}},
		{"setgid", []uintptr{unix.SYS_SETGID, 0}},
		{"setgroups", []uintptr{unix.SYS_SETGROUPS, 0}},
		{"capset", []uintptr{unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data))}},
		{"ambient", []uintptr{unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN}},
		{"securebits", []uintptr{unix.SYS_PRCTL, unix.PR_SET_SECUREBITS}},
		{"network namespace", []uintptr{unix.SYS_UNSHARE, unix.CLONE_NEWNET}},
	} {
		if way.try() == 0 {
			open = append(open, way.name)
		}
	}
	privileges := map[string]int{}
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	many := len(threads) > 12
	for _, name := range threads {
		if b, err := os.ReadFile(name); err == nil { // else it has ended
			privileges[status(b)]++
		}
	}
	b, err := exec.Command("cat", "/proc/self/status").Output()
	privileges[status(b)]++
	fmt.Println("dumpable", dumpable, open, many, err, slices.Collect(maps.Keys(privileges)))
}

// startThreads starts threads that wait.
func startThreads() {
	var ready sync.WaitGroup
	ready.Add(12)
	for range 12 {
		go func() {
			runtime.LockOSThread()
			ready.Done()
			select {}
		}()
	}
	ready.Wait()
}

// status is what a status of proc(5) tells of privileges.
func status(b []byte) string {
	lines := regexp.MustCompile(`(?m)^(Uid|Gid|Groups|Cap\w+|NoNewPrivs):.*`).FindAllString(string(b), -1)
	return strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
}

// One that lacks a privilege for it does not go on as something in between.
func TestBecome(t *testing.T) {
	nettest.Need(t, "setpriv")
	const (
		none = "CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 " +
			"CapBnd: 0000000000000000 CapAmb: 0000000000000000 NoNewPrivs: 1]\n"
		nobody = "dumpable 0 [] true <nil> [Uid: 65534 65534 65534 65534 Gid: 65534 65534 65534 65534 Groups: " + none
		asRoot = " [setuid setresuid setgid] true <nil> [Uid: 0 0 0 0 Gid: 0 0 0 0 Groups: " // ways to what it is

		ambient = "setpriv --groups=1,2 --inh-caps=+net_admin,+net_raw --ambient-caps=+net_admin,+net_raw"
		lacking = "setpriv --bounding-set=-"
		failure = "-user 65534:65534: "
	)
	for _, tt := range []struct{ user, by, want string }{
		{"65534:65534", "", nobody},
		{"65534:65534", ambient, nobody},
		{"root", "", "dumpable 0" + asRoot + none},
		{"root", ambient, "dumpable 0" + asRoot + none},
		{"", ambient, "dumpable 1" + asRoot + "1 2 " + none},
		{"65534:65534", lacking + "setpcap", failure + "capabilities: dropping capability 0 from the bounding set: operation not permitted\n"},
		{"65534:65534", lacking + "setgid", failure + "leaving all groups: operation not permitted\n"},
		{"65534:65534", lacking + "setuid", failure + "changing the user: operation not permitted\n"},
	} {
		out, err := command(t, tt.by, "become", tt.user).CombinedOutput()
		if fails := strings.HasPrefix(tt.want, failure); fails != (err != nil) || string(out) != tt.want {
			t.Errorf("%s becomes %q: %v\n%s\nwant\n%s", tt.by, tt.user, err, out, tt.want)
		}
	}
}
