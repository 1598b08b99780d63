package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"framepipe/internal/nettest"
	"framepipe/internal/ping"

	"golang.org/x/sys/unix"
)

// uplink is a host on a cable to a router, and, behind the host's second
// interface, another one:
//
//	namespace router              namespace host            namespace behind
//	e1 10.0.0.1, fd00::1 ──── e0 10.0.0.2, fd00::2
//	                          l0 ─────────────────── b0 10.0.0.3, fd00::3
type uplink struct {
	t                    testing.TB
	router, host, behind *nettest.Namespace
	state, lib           string
	pipeline             string // the script
}

func newUplink(t testing.TB) *uplink {
	t.Helper()
	nettest.Need(t, "bash", "flock", "setsid", "setpriv")
	u := &uplink{
		t: t, router: nettest.New(t), host: nettest.New(t), behind: nettest.New(t),
		state: t.TempDir(), lib: openDir(t) + "/lib", pipeline: bin + "/pipeline.sh",
	}
	u.host.Veth("e0", u.router, "e1")
	u.host.Veth("l0", u.behind, "b0")
	u.router.Batch("addr add 10.0.0.1/24 brd + dev e1", "addr add fd00::1/64 dev e1")
	u.host.Sysctl("ipv6/conf/e0/accept_ra", "0") // as where another program deals with advertisements
	u.host.Batch(
		"addr add 10.0.0.2/24 brd + dev e0",
		"addr add fd00::2/64 dev e0",
		"addr add 10.0.1.2/24 dev e0 valid_lft 5000 preferred_lft 4000",
		"addr add 192.0.2.1/32 dev e0 noprefixroute",
		"addr add 10.0.0.22/24 dev e0 label e0:more",
		"addr add fd00:1::2/64 dev e0 valid_lft 5000 preferred_lft 4000 noprefixroute",
		"route add default via 10.0.0.1 proto dhcp metric 100",
		"route add 198.51.100.0/24 via 10.0.1.9 src 10.0.1.2 mtu 1400",
		"route add 203.0.113.0/24 dev e0 scope link",
		"route add default via 10.0.0.9 table 77",
		"route add 172.16.0.0/12 via 10.66.66.66 dev e0 onlink",
		"route add blackhole 192.168.0.0/16",
		"route add default via fd00::1 metric 1024 proto ra expires 3000",
		"route add fd00:2::/64 via fe80::99 dev e0",
		"route add fd00:3::/64 dev e0 table 77",
		"neigh add 10.0.0.77 lladdr 02:00:00:00:00:77 dev e0 nud permanent",
		`link set e0 txqueuelen 555 alias "the uplink"`,
	)
	eventually(t, 10*time.Second, "both interfaces have their addresses for good", func() bool {
		all := u.host.Run("ip", "-6", "-o", "addr", "show")
		return strings.Count(all, "inet6 fe80:") == 2 && !strings.Contains(all, "tentative")
	})
	t.Cleanup(func() {
		_ = u.script("down").Run()
		for pid, line := range u.processes("") {
			t.Errorf("it is left in the host: %s", line)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if t.Failed() {
			logs, _ := filepath.Glob(u.state + "/*.log")
			names, _ := filepath.Glob(u.state + "/*/*")
			for _, name := range append(names, logs...) {
				b, _ := os.ReadFile(name)
				t.Logf("%s: %q", name, b)
			}
		}
	})
	return u
}

func (u *uplink) script(args ...string) *exec.Cmd {
	c := u.host.Command(u.pipeline, args...)
	c.Env = append(os.Environ(), "PIPELINE_RUN="+u.state, "PIPELINE_LIB="+u.lib)
	return c
}

// run runs pipeline.sh and returns what it says and its status.
func (u *uplink) run(args ...string) (string, int) {
	u.t.Helper()
	return outcome(u.script(args...))
}

func (u *uplink) must(args ...string) string {
	u.t.Helper()
	out, status := u.run(args...)
	if status != 0 {
		u.t.Fatalf("pipeline.sh %v: status %d\n%s", args, status, out)
	}
	return out
}

// begin starts an up in a session of its own.
func (u *uplink) begin(args ...string) *stage {
	u.t.Helper()
	c := u.script(append([]string{"up", "e0"}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return pipeline(u.t, nil, nil, c)[0]
}

var ours = regexp.MustCompile(`^(tunread|tunwrite|tundivert|quotagate|bytehist|bash|cat|tail|sleep)\b|pipeline\.sh`)

// processes are those of the pipelines in the host's namespace whose command line matches, by
// number.
func (u *uplink) processes(pattern string) map[int]string {
	all := map[int]string{}
	for _, pid := range u.host.Processes() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		line := strings.ReplaceAll(string(b), "\x00", " ")
		if ours.MatchString(line) && regexp.MustCompile(pattern).MatchString(line) {
			all[pid] = line
		}
	}
	return all
}

// stages are the processes of the tools.
func (u *uplink) stages() map[int]string {
	return u.processes(`^(tunread|tunwrite|quotagate|bytehist|cat)\b`)
}

// answers reports whether the router answers an echo from the host within 0.2 s.
func (u *uplink) answers() bool { return u.host.Reaches("10.0.0.1", 200*time.Millisecond) }

var (
	passing = regexp.MustCompile(`(valid_lft|preferred_lft|expires|\w+_timer|gc_stale_time) +[\d.]+(?:sec)?`)
	ourTaps = regexp.MustCompile(`fp(net|host)\d`)
	secrets = regexp.MustCompile(`/(stable_secret|\w+_(keys?|key_version)):`)
)

// looks is the state of the machine that up must not change, without its taps: addresses,
// links, routes, neighbours, rules and sysctls.
func (u *uplink) looks() (all []string) {
	u.t.Helper()
	for _, args := range []string{
		"ip -d -o addr", "ip -d -o link", "ip route show table all", "ip -6 route show table all",
		"ip neigh show nud permanent", "ip rule", "grep -ars . ipv4 ipv6 bridge core",
	} {
		words := strings.Fields(args)
		c := u.host.Command(words[0], words[1:]...)
		c.Dir = "/proc/sys/net"
		out, err := c.Output()              // ip complains of other namespaces that go meanwhile
		if err != nil && words[0] == "ip" { // not all sysctls can be read
			u.t.Fatalf("%s: %v", args, err)
		}
		for line := range strings.Lines(passing.ReplaceAllString(string(out), "$1 some")) {
			if !ourTaps.MatchString(line) && !secrets.MatchString(line) {
				all = append(all, args+": "+line)
			}
		}
	}
	slices.Sort(all)
	return all
}

// same wants the host to look as it did, and, if nothing is up, without taps.
func (u *uplink) same(before []string) {
	u.t.Helper()
	if links := u.host.Run("ip", "-o", "link"); u.undone() && ourTaps.MatchString(links) {
		u.t.Errorf("taps are left: %s", links)
	}
	after := u.looks()
	if slices.Equal(after, before) {
		return
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			u.t.Errorf("now  %s", line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			u.t.Errorf("was  %s", line)
		}
	}
	u.t.FailNow()
}

// undone reports whether nothing of up is left.
func (u *uplink) undone() bool { return !exists(u.state + "/e0") }

// report is the output of status -json.
type report struct {
	State     string
	Pipelines []struct {
		Name, Stages string
		Rate         float64 `json:"bits_per_second"`
		Restarts     int
		Processes    []struct {
			Name     string
			Counters map[string]any
		}
	}
}

func (u *uplink) status() (s report) {
	u.t.Helper()
	out := u.must("status", "-json", "e0")
	if err := json.Unmarshal([]byte(out), &s); err != nil || len(s.Pipelines) != 2 || !utf8.ValidString(out) {
		u.t.Fatalf("%v: %s", err, out)
	}
	return s
}

// log is a log of a running up.
func (u *uplink) log(name string) string {
	u.t.Helper()
	return read(u.t, u.state+"/e0/"+name+".log")
}

// kill kills processes whose command line matches, of which there are some, and returns
// their numbers.
func (u *uplink) kill(pattern string, sig unix.Signal) (pids []int) {
	u.t.Helper()
	for pid := range u.processes(pattern) {
		if unix.Kill(pid, sig) == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		u.t.Fatalf("there is no %s: %v", pattern, u.processes(""))
	}
	return pids
}

// tap returns the name of a tap of ours, fpnet or fphost.
func (u *uplink) tap(kind string) string {
	u.t.Helper()
	return kind + strings.TrimSpace(read(u.t, u.state+"/e0/number"))
}

// connection opens TCP connections from the host to the router, and returns a function that wants
// them to work.
func (u *uplink) connection(addrs ...string) (works func(when string)) {
	u.t.Helper()
	var conns []net.Conn
	for _, addr := range addrs {
		conns = append(conns, echoing(u.t, u.host, u.router, addr))
	}
	works = func(when string) {
		u.t.Helper()
		for _, c := range conns {
			if err := echoesTCP(c, 100); err != nil {
				u.t.Fatalf("%s: %v: %v", when, c.RemoteAddr(), err)
			}
		}
	}
	works("before")
	return works
}

// An up changes nothing but that frames go through the pipelines: no echo of hundreds in
// each direction is lost when it comes, when a pipeline changes and when it goes, and
// connections live on.
func TestUp(t *testing.T) { // alone: other tests delete namespaces, under the lock that a change of stages waits for
	u := newUplink(t)
	u.pipeline = "../../pipeline.sh" // which builds
	before := u.looks()
	works := u.connection("10.0.0.1:7", "[fd00::1]:7")
	out := u.host.StartPing("10.0.0.1", ping.Config{Every: 8 * time.Millisecond})
	in := u.router.StartPing("10.0.0.2", ping.Config{Every: 8 * time.Millisecond})
	start := time.Now()
	said := u.must("up", "e0", "-in", "quotagate -rate 1Gbit/s | bytehist -o /dev/null", "-out", "quotagate -rate 500Mbit/s")
	if !strings.HasPrefix(said, "pipeline.sh: e0 goes through the pipelines; messages are in ") {
		t.Errorf("up says %s", said)
	}
	works("between")
	u.same(before)
	changing := time.Now()
	u.must("change", "-out", "quotagate -rate 400Mbit/s | cat")
	changed := time.Now()
	works("changed")
	time.Sleep(1100 * time.Millisecond) // the gates publish once a second
	want := regexp.MustCompile(`^e0: up since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, diverting

in:  [0-9.]+ k?bit/s, from fpnet\d+ to fphost\d+
  tunread
  quotagate   \[\.{20}\]   0% of 37.5 GB, open
  bytehist
  tunwrite

out: [0-9.]+ k?bit/s, from fphost\d+ to fpnet\d+
  tunread
  quotagate   \[\.{20}\]   0% of 15 GB, open
  cat
  tunwrite
$`)
	if s := u.must("status"); !want.MatchString(s) {
		t.Errorf("status:\n%s", s)
	}
	for i, p := range u.status().Pipelines {
		gate, quota := p.Processes[1].Counters, []float64{37.5e9, 15e9}[i]
		if gate["quota"] != quota || gate["used"].(float64) < 100 || p.Rate <= 0 {
			t.Errorf("%s: %+v", p.Name, p)
		}
	}
	again := regexp.MustCompile(`e0 is up already\npipeline.sh: hint: .* change e0 -in STAGES`)
	if said, code := u.run("up", "e0"); code != 1 || !again.MatchString(said) {
		t.Errorf("up again: status %d, %s", code, said)
	}
	if log := u.log("in") + u.log("out"); strings.Contains(log, "ended") || strings.Contains(log, "frames=") {
		t.Errorf("all is well, and the logs have\n%s", log)
	}
	u.same(before)
	if said := u.must("down"); said != "" {
		t.Errorf("down says %s", said)
	}
	works("after")
	u.same(before)
	time.Sleep(time.Until(start.Add(8 * time.Second)))
	for _, p := range []*ping.Pinger{in, out} {
		r := p.Stop()
		// The kernel drops what comes into a queue while its close waits for the lock of all
		// network devices (tun_detach in drivers/net/tun.c).
		inChange := 0
		for _, at := range r.LostAt {
			t.Logf("lost after %v; the change was from %v to %v", at.Sub(start), changing.Sub(start), changed.Sub(start))
			if at.After(changing.Add(-20*time.Millisecond)) && at.Before(changed) {
				inChange++
			}
		}
		if t.Log(r); r.Lost() > inChange || inChange > 3 || r.Sent < 500 { // a busy machine sends some late
			t.Error(r)
		}
	}
	if said, code := u.run("down"); code != 1 || said != "pipeline.sh: nothing is up\n" {
		t.Errorf("down again: status %d, %s", code, said)
	}
}

// Firewall rules, sockets and containers of the interface go on as they are, it may change its
// MTU and go down and up, and a DHCP client renews its lease and has no reason to ask again.
func TestUpNeighbourhood(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft", "ethtool", "udhcpd", "udhcpc")
	u := newUplink(t)
	u.host.Sysctl("ipv4/ip_forward", "1")
	u.behind.Batch("addr add 172.16.5.2/24 dev b0", "route add default via 172.16.5.1")
	u.host.Batch("addr add 172.16.5.1/24 dev l0", "route del 172.16.0.0/12")
	u.host.Run("nft", `add table inet f
		add chain inet f input { type filter hook input priority 0; }
		add rule inet f input iifname "e0" tcp dport 2222 drop
		add chain inet f from { type nat hook postrouting priority 100; }
		add rule inet f from oifname "e0" ip saddr 172.16.5.0/24 masquerade
		add chain inet f to { type nat hook prerouting priority -100; }
		add rule inet f to iifname "e0" tcp dport 8080 dnat ip to 172.16.5.2:80`)
	events := dhcp(t, u.router, "e1", u.host, "e0")
	renewals := func() int {
		t.Helper()
		if n := events("bound"); n != 1 {
			t.Fatalf("%d leases", n)
		}
		return events("renew")
	}

	// serve answers connections to an address with its own name.
	serve := func(ns *nettest.Namespace, name, addr, device string) {
		l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
			return errors.Join(e, err)
		}}
		listener := inside(t, ns, func() (net.Listener, error) { return l.Listen(t.Context(), "tcp", addr) })
		t.Cleanup(func() { listener.Close() })
		go func() {
			for c, err := listener.Accept(); err == nil; c, err = listener.Accept() {
				fmt.Fprintf(c, "%s sees %v", name, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
	}
	serve(u.host, "closed", "10.0.0.2:2222", "")
	serve(u.host, "bound", "0.0.0.0:9", "e0")
	serve(u.behind, "container", "172.16.5.2:80", "")
	serve(u.router, "router", "10.0.0.1:9", "")
	rules := func() string { return u.host.Run("nft", "-s", "list", "ruleset") + u.host.Run("ethtool", "-k", "e0") }
	before, had := u.looks(), rules()
	check := func(when string) {
		t.Helper()
		for _, tt := range []struct {
			ns         *nettest.Namespace
			addr, want string
		}{
			{u.router, "10.0.0.2:2222", ""},
			{u.router, "10.0.0.2:9", "bound sees 10.0.0.1"},
			{u.router, "10.0.0.2:8080", "container sees 10.0.0.1"},
			{u.behind, "10.0.0.1:9", "router sees 10.0.0.2"},
		} {
			var answer []byte
			tt.ns.Do(func() {
				if c, err := net.DialTimeout("tcp", tt.addr, time.Second); err == nil {
					answer, _ = io.ReadAll(c)
					c.Close()
				}
			})
			if string(answer) != tt.want {
				t.Errorf("%s: %s answers %q, want %q", when, tt.addr, answer, tt.want)
			}
		}
		if got := rules(); got != had {
			t.Errorf("%s: rules and offloads are\n%s\nand were\n%s", when, got, had)
		}
	}
	check("before")
	u.must("up", "e0", "-in", "quotagate -rate 1Gbit/s", "-out", "quotagate -rate 1Gbit/s")
	check("up")
	u.same(before)
	was := renewals()
	eventually(t, 60*time.Second, "three renewals", func() bool { return renewals() >= was+3 })
	for _, mtu := range []int{9000, 1280, 1500} {
		u.router.Batch(fmt.Sprint("link set e1 mtu ", mtu))
		u.host.Batch(fmt.Sprint("link set e0 mtu ", mtu))
		whole := ping.Config{Count: 20, Every: 5 * time.Millisecond, Size: mtu - 28, Whole: true}
		if r := u.router.StartPing("10.0.0.2", whole).Wait(); r.Received < 15 {
			t.Errorf("mtu %d: %v", mtu, r)
		}
	}
	u.host.Batch("link set e0 down", "link set e0 up")
	reaches(t, u.router, "10.0.0.2")
	u.must("down")
	check("after")
	if was = renewals(); *full {
		eventually(t, 30*time.Second, "a renewal after down", func() bool { return renewals() > was })
	}
}

// Killed at any moment, under load, frames go on within 50 ms, and up works again.
func TestUpKilled(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	before := u.looks()
	works := u.connection("10.0.0.1:7", "[fd00::1]:7")
	near, far := connection(t, u.router, u.host, "10.0.0.2:77")
	go func() { _, _ = io.Copy(io.Discard, far) }()
	go func() { // some 500 Mbit/s: others run beside this
		var err error
		for b := make([]byte, 1<<16); err == nil; time.Sleep(time.Millisecond) {
			_, err = near.Write(b)
		}
	}()
	kills := 5
	if *full {
		kills = 20
	}
	var gaps []time.Duration
	late := slack()
	for i := range kills {
		up := u.begin("-in", "quotagate -quota 1PB | bytehist -o /dev/null", "-out", "quotagate -quota 1PB")
		if i%2 == 0 { // while it comes up, or when it is up
			eventually(t, 60*time.Second, "it begins", func() bool { return !u.undone() })
		} else {
			<-up.Done
		}
		time.Sleep(rand.N(500 * time.Millisecond))
		echoes := u.host.StartPing("10.0.0.1", ping.Config{Every: 5 * time.Millisecond})
		time.Sleep(100 * time.Millisecond)
		for quiet := 0; quiet < 3; quiet++ { // until nothing that they have started is left
			for pid := range u.processes("") {
				_ = unix.Kill(pid, unix.SIGKILL)
				quiet = 0
			}
		}
		time.Sleep(300 * time.Millisecond)
		r := echoes.Stop()
		gaps = append(gaps, r.Gap)
		<-up.Done
		if r.Received == 0 {
			t.Fatalf("kill %d: %v", i, r)
		}
		u.same(before)
		if s, status := u.run("status"); i%2 == 1 && (status != 0 || !strings.Contains(s, "it was killed, and frames pass by")) {
			t.Errorf("status after the kill: %s", s)
		}
		works("killed")
		if i%3 == 2 { // or the next up takes away the rest
			if said, status := u.run("down"); status != 0 && said != "pipeline.sh: nothing is up\n" {
				t.Errorf("down: %s", said)
			}
		}
	}
	u.must("up", "e0")
	works("again")
	u.must("down")
	u.same(before)
	slices.Sort(gaps)
	t.Logf("no answers for %v", gaps)
	if most := 50*time.Millisecond + late(); gaps[len(gaps)/2] > most {
		t.Errorf("no answers for %v, and not for %v", gaps, most)
	}
}

// An interface that cannot be diverted is refused, and an up that fails leaves nothing.
func TestUpRefuses(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	u.host.Batch("tuntap add dev tun9 mode tun", "link set tun9 up")
	before := u.looks()
	secret := openDir(t) + "/secret"
	if err := os.WriteFile(secret, []byte("#!/bin/sh\ncat\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	const time = "pipeline.sh: -confirm wants a time, such as 60s or 5m"
	for _, tt := range []struct {
		args   []string
		status int
		want   string // a regular expression
	}{
		{[]string{"up"}, 2, "pipeline.sh: up: 0 arguments given"},
		{[]string{"up", "e0", "-x"}, 2, "pipeline.sh: there is no flag -x"},
		{[]string{"up", "e0", "-fail", "safe"}, 2, "pipeline.sh: -fail wants open or closed"},
		{[]string{"up", "e0", "-confirm", "0s"}, 2, time},
		{[]string{"up", "e0", "-confirm", "9999999999999999999h"}, 2, time},
		{[]string{"up", "e0", "-in", "bytehist |"}, 2, `pipeline.sh: -in: the shell does not understand bytehist \|`},
		{[]string{"up", "e0", "-user", "no-such-user"}, 2, "pipeline.sh: there is no user no-such-user"},
		{[]string{"up", "../e0"}, 1, "pipeline.sh: there is no interface ../e0"},
		{[]string{"up", ""}, 1, "pipeline.sh: there is no interface "},
		{[]string{"up", "tun9"}, 1, "tundivert: tun9 is not an Ethernet interface"},
		{[]string{"up", "e0", "-in", "no-such-program"}, 1, "no-such-program: command not found"},
		{[]string{"up", "e0", "-in", secret}, 1, `pipeline.sh: in: -in has failed with status 126
.*hint: the user of the stages may not run a program in it: -user NAME`},
		{[]string{"up", "e0", "-out", "quotagate -rate 5"}, 1, "(?s)quotagate: hint: .*pipeline.sh: e0 is not diverted, and nothing has changed"},
		{[]string{"change", "-in", "cat"}, 1, "pipeline.sh: nothing is up"},
		{[]string{"change"}, 2, "pipeline.sh: change wants -in or -out"},
		{[]string{"down", "e0"}, 1, "pipeline.sh: nothing is up on e0"},
		{[]string{"down", ".."}, 1, "pipeline.sh: nothing is up on .."},
		{[]string{"confirm"}, 1, "pipeline.sh: nothing is up"},
	} {
		said, status := u.run(tt.args...)
		if status != tt.status || !regexp.MustCompile(tt.want).MatchString(said) {
			t.Errorf("%v: status %d, %s; want %d, %s", tt.args, status, said, tt.status, tt.want)
		}
		if names, _ := filepath.Glob(u.state + "/*/"); len(names) > 0 {
			t.Errorf("%v leaves %v", tt.args, names)
		}
	}
	u.same(before)
	said, status := outcome(exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", u.pipeline, "up", "lo"))
	if status != 1 || !strings.Contains(said, "up needs root\npipeline.sh: hint: sudo ") {
		t.Errorf("as nobody: status %d, %s", status, said)
	}
}

// The stages can be changed, and those that do not run are not taken. They may be lists of
// pipelines and have comments. The script may be started by a link, from anywhere, with relative
// directories; and files of stages are in one place for every user.
func TestUpChange(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	before := u.looks()
	u.pipeline = t.TempDir() + "/pl"
	if err := os.Symlink(bin+"/pipeline.sh", u.pipeline); err != nil {
		t.Fatal(err)
	}
	works := u.connection("10.0.0.1:7")
	for _, tt := range []struct {
		args   []string
		status int
		says   string
		want   [2]string // the stages, in a line
	}{
		{[]string{"up", "e0", "-user", "root", "-in", "bytehist -o hist"}, 0, "", [2]string{"bytehist -o hist", ""}},
		{[]string{"change", "-in", "cat; echo hi", "-out", "cat || true"}, 0, "", [2]string{"cat; echo hi", "cat || true"}},
		{[]string{"change", "-in", "cat && true", "-out", "cat\ncat"}, 0, "", [2]string{"cat && true", "cat cat"}},
		{[]string{"change", "-in", "cat # R&D\xff", "-out", "cat |\ncat\n"}, 0, "", [2]string{"cat # R&D", "cat | cat"}},
		{[]string{"change", "-out", "# all\n{ cat; }"}, 0, "", [2]string{"cat # R&D", "# all { cat; }"}},
		{[]string{"change", "-out", "test -e / && cat | cat; :"}, 0, "", [2]string{"cat # R&D", "test -e / && cat | cat; :"}},
		{[]string{"change", "e0", "-in", "quotagate -quota 3PB | cat"}, 0, "", [2]string{"quotagate -quota 3PB | cat", "test -e / && cat | cat; :"}},
		{[]string{"change", "-out", ""}, 0, "", [2]string{"quotagate -quota 3PB | cat", ""}},
		{[]string{"change", "-in", "quotagate -quota 4", "-out", "cat"}, 1, "quotagate: hint: ", [2]string{"quotagate -quota 3PB | cat", "cat"}},
		{[]string{"change", "-in", "exit 3"}, 1, "e0: the new pipeline in does not run; the old one stays", [2]string{"quotagate -quota 3PB | cat", "cat"}},
		{[]string{"change", "-in", "'"}, 2, "pipeline.sh: -in: the shell does not understand '", [2]string{"quotagate -quota 3PB | cat", "cat"}},
	} {
		c := u.script(tt.args...)
		c.Dir = filepath.Dir(u.state)
		c.Env = append(c.Env, "PATH="+strings.TrimPrefix(os.Getenv("PATH"), bin+":"), "PIPELINE_RUN="+filepath.Base(u.state), "POSIXLY_CORRECT=1")
		said, status := outcome(c)
		if status != tt.status || !strings.Contains(said, tt.says) {
			t.Errorf("%q: status %d, %s", tt.args, status, said)
		}
		if p := u.status().Pipelines; [2]string{p[0].Stages, p[1].Stages} != tt.want {
			t.Errorf("%q: the stages are %q and %q, want %q", tt.args, p[0].Stages, p[1].Stages, tt.want)
		}
		works(fmt.Sprintf("%q", tt.args))
	}
	// Two changes that begin together are made in turn, and each reports its own result.
	bad, good := u.script("change", "-in", "exit 1"), u.script("change", "-in", "cat")
	if err := bad.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the first change", func() bool {
		b, _ := os.ReadFile(u.state + "/e0/in")
		return string(b) == "exit 1"
	})
	said, status := outcome(good)
	if err := bad.Wait(); err == nil || status != 0 || u.status().Pipelines[0].Stages != "cat" {
		t.Errorf("changes at the same time: %v; status %d, %s", err, status, said)
	}
	if !exists(u.lib + "/hist") {
		t.Error("no file of the stages")
	}
	// What was changed is what is started again.
	u.kill("^cat", unix.SIGKILL)
	reaches(t, u.host, "10.0.0.1")
	eventually(t, 5*time.Second, "both pipelines", func() bool { return len(u.stages()) == 6 })
	u.must("down")
	u.same(before)
}

// An up that was killed is not in the way of others.
func TestUpTwo(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	before := u.looks()
	u.must("up", "e0")
	u.must("up", "l0", "-confirm", "60s")
	info, err := os.Stat(u.state + "/l0/ready") // made when the time begins
	var boot unix.Timespec
	if err = errors.Join(err, unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)); err != nil {
		t.Fatal(err)
	}
	began := time.Duration(boot.Nano()) - time.Since(info.ModTime())
	until, _ := strconv.Atoi(strings.TrimSpace(read(t, u.state+"/l0/until")))
	if left := time.Duration(until)*time.Millisecond - began; left < 59800*time.Millisecond || left > 61*time.Second {
		t.Errorf("up -confirm 60s was to be undone %v after it was up", left)
	}
	if said, status := u.run("change", "-in", "cat"); status != 0 || said != "" {
		t.Errorf("change of both: status %d, %s", status, said)
	}
	// Status has the processes that there are when it ends.
	meanwhile := u.script("status", "-json", "e0")
	out, err := meanwhile.StdoutPipe()
	if err = errors.Join(err, meanwhile.Start()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(400 * time.Millisecond) // it has asked for the counters
	u.kill("^tunread .*fphost"+strings.TrimPrefix(u.tap("fpnet"), "fpnet"), unix.SIGKILL)
	var s report
	if err := errors.Join(json.NewDecoder(out).Decode(&s), meanwhile.Wait()); err != nil {
		t.Fatal(err)
	}
	if p := s.Pipelines[1]; len(p.Processes) != 2 && p.Restarts == 1 {
		t.Errorf("out was started again, and has these processes: %v", p.Processes)
	}
	u.kill("^bash .*up -foreground e0", unix.SIGKILL)
	eventually(t, 5*time.Second, "its end", func() bool {
		said, _ := u.run("status", "e0")
		return strings.Contains(said, "it was killed, and frames pass by")
	})
	reaches(t, u.host, "10.0.0.1")
	if said, status := u.run("confirm"); status != 1 || !strings.Contains(said, "e0: up was killed") {
		t.Errorf("status %d, %s", status, said)
	}
	if s := u.must("status", "l0"); strings.Contains(s, "unless confirmed") {
		t.Errorf("status:\n%s", s)
	}
	u.must("down")
	u.same(before)
}

// Without confirmation it is undone in time. What counts is the time since the machine has
// started: a clock that is set neither keeps it waiting nor ends that.
func TestUpConfirm(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "unshare", "mount")
	u := newUplink(t)
	before := u.looks()
	uptime, err := os.Create(t.TempDir() + "/uptime")
	if err != nil {
		t.Fatal(err)
	}
	defer uptime.Close()
	since := func(seconds int) {
		t.Helper()
		if _, err := uptime.WriteAt(fmt.Appendf(nil, "%d.08 1.00\n", seconds), 0); err != nil {
			t.Fatal(err)
		}
	}
	script := u.pipeline
	u.pipeline = t.TempDir() + "/pl"
	write(t, u.pipeline, `#!/bin/sh
exec unshare -m sh -c 'mount --bind `+uptime.Name()+` /proc/uptime && exec "$0" "$@"' `+script+` "$@"
`)
	since(1000)
	if said := u.must("up", "e0", "-confirm", "10m"); !strings.Contains(said, "otherwise it is undone in 600 seconds") {
		t.Errorf("up says %s", said)
	}
	since(1599)
	if s := u.must("status"); !strings.Contains(s, "undone in 1 second, unless confirmed") {
		t.Errorf("a second before the end, status has\n%s", s)
	}
	since(1600)
	eventually(t, 10*time.Second, "undone", u.undone)
	u.same(before)
	if log := read(t, u.state+"/e0.log"); !strings.Contains(log, "not confirmed: undone") {
		t.Errorf("nothing says why: %s", log)
	}

	// Too late is too late, also while it is being undone.
	u.must("up", "e0", "-confirm", "1s", "-in", "bash -c 'cat; sleep 100'")
	since(1601)
	eventually(t, 10*time.Second, "the end of the time", func() bool { return exists(u.state + "/e0/expired") })
	if s, status := u.run("confirm"); status != 1 {
		t.Errorf("confirmed when it is undone: %s", s)
	}
	eventually(t, 20*time.Second, "undone", u.undone)

	// Too early is too early.
	up := u.begin("-confirm", "5s")
	eventually(t, 10*time.Second, "the beginning", func() bool { return exists(u.state + "/e0/in") })
	if s, status := u.run("confirm"); status != 1 && !exists(u.state+"/e0/ready") {
		t.Errorf("confirmed before it is up: %s", s)
	}
	if err := up.End(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	u.must("confirm")
	since(9999)
	time.Sleep(time.Second)
	if s := u.must("status"); strings.Contains(s, "confirm") {
		t.Errorf("status:\n%s", s)
	}
	u.must("down", "e0")
	u.same(before)
}

// Asked to stop, at any moment, up ends with 0 and leaves nothing, however often that is done. A
// signal that kills it ends the diversion, and down takes away the rest, though the numbers that
// were noted may be those of other processes by then.
func TestUpStopped(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	before := u.looks()
	bystander := pipeline(t, nil, nil, exec.Command("sleep", "1000"))[0]
	signals := []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGABRT, unix.SIGKILL}
	stops := 5
	if *full {
		stops = 50
	}
	for i := range stops {
		up := u.begin("-foreground", "-out", "quotagate -rate 100Mbit/s")
		eventually(t, 20*time.Second, "up", func() bool { return exists(u.state + "/e0/ready") })
		time.Sleep(rand.N(500 * time.Millisecond))
		sig := signals[i%len(signals)]
		asked := time.Now()
		signal(t, []*stage{up}, sig)
		if err := up.End(20 * time.Second); err != nil {
			t.Fatalf("stop %d, %v: %v\n%s", i, sig, err, &up.Said)
		}
		switch sig {
		case unix.SIGKILL:
			for _, name := range []string{"pid", "in.source"} {
				write(t, u.state+"/e0/"+name, fmt.Sprintln(bystander.Process.Pid))
			}
			fallthrough
		case unix.SIGABRT:
			reaches(t, u.host, "10.0.0.1")
			_, _ = u.run("down") // after ABRT there may be nothing left to do
		default:
			if up.ProcessState.ExitCode() != 0 || strings.Contains(up.Said.String(), "line ") || time.Since(asked) > 10*time.Second {
				t.Errorf("stop %d, %v: %v after %v\n%s", i, sig, up.ProcessState, time.Since(asked), &up.Said)
			}
		}
		if !u.undone() {
			t.Errorf("stop %d, %v: the state is left", i, sig)
		}
	}
	if bystander.Gone() {
		t.Error("another process was ended")
	}
	u.same(before)
}
