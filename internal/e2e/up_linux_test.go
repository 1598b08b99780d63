package e2e

import (
	"bufio"
	"encoding/json"
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

func newUplink(t testing.TB, addresses bool) *uplink {
	t.Helper()
	nettest.Need(t, "bash", "flock", "setsid", "setpriv")
	u := &uplink{t: t, router: nettest.New(t), host: nettest.New(t), behind: nettest.New(t), state: t.TempDir(), pipeline: bin + "/pipeline.sh"}
	u.lib = openDir(t) + "/lib"
	u.host.Veth("e0", u.router, "e1")
	u.host.Veth("l0", u.behind, "b0")
	for _, x := range []struct {
		ns   *nettest.Namespace
		dev  string
		host int
	}{{u.router, "e1", 1}, {u.host, "e0", 2}, {u.behind, "b0", 3}} {
		if x.host != 2 || addresses {
			x.ns.Batch(fmt.Sprintf("addr add 10.0.0.%d/24 brd + dev %s", x.host, x.dev), fmt.Sprintf("addr add fd00::%d/64 dev %s", x.host, x.dev))
		}
	}
	if addresses {
		u.host.Sysctl("ipv6/conf/e0/accept_ra", "0") // as where another program deals with advertisements
		u.host.Batch(
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
	}
	eventually(t, 10*time.Second, "both interfaces have their addresses for good", func() bool {
		all := u.host.Run("ip", "-6", "-o", "addr", "show")
		return strings.Count(all, "inet6 fe80:") == 2 && !strings.Contains(all, "tentative")
	})
	t.Cleanup(func() {
		_ = u.script("down").Run()
		if left := u.processes(); len(left) > 0 {
			t.Errorf("processes are left in the host: %v", left)
			for pid := range left {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if t.Failed() {
			names, _ := filepath.Glob(u.state + "/*/*")
			logs, _ := filepath.Glob(u.state + "/*.log")
			names = append(names, logs...)
			for _, name := range names {
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

var ours = regexp.MustCompile(`^(tunread|tunwrite|tundivert|quotagate|bytehist|bash|cat|tail|sleep)\b|pipeline\.sh`)

// processes are those of the pipelines in the host's namespace, by number.
func (u *uplink) processes() map[int]string {
	all := map[int]string{}
	for _, pid := range u.host.Processes() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && ours.Match(b) {
			all[pid] = strings.ReplaceAll(string(b), "\x00", " ")
		}
	}
	return all
}

var passing = regexp.MustCompile(`(valid_lft|preferred_lft|expires|\w+_timer|gc_stale_time) +[\d.]+(?:sec)?`)

// looks is the state of the machine that up must not change: addresses, routes, neighbours
// and sysctls, without the taps of up.
func (u *uplink) looks() string {
	u.t.Helper()
	var b strings.Builder
	for _, args := range []string{"-d -o addr", "-d -o link", "route show", "-6 route show", "route show table all", "-6 route show table all", "neigh", "rule"} {
		// ip complains of other namespaces that go meanwhile.
		out, err := u.host.Command("ip", strings.Fields(args)...).Output()
		if err != nil {
			u.t.Fatalf("ip %s: %v", args, err)
		}
		lines := strings.Split(string(out), "\n")
		if strings.HasSuffix(args, " all") || args == "neigh" { // in no order
			slices.Sort(lines)
		}
		for _, line := range lines {
			if strings.Contains(line, "fpnet") || strings.Contains(line, "fphost") {
				continue
			}
			if args == "neigh" { // the kernel changes their states all the time
				if !strings.HasSuffix(line, " PERMANENT") {
					continue
				}
			}
			fmt.Fprintf(&b, "%s: %s\n", args, passing.ReplaceAllString(line, "$1 some"))
		}
	}
	u.host.Do(func() {
		for _, pattern := range []string{"ipv[46]/conf/*/*", "ipv[46]/*", "bridge/*", "core/*"} {
			names, _ := filepath.Glob("/proc/sys/net/" + pattern)
			for _, name := range names {
				if v, err := os.ReadFile(name); err == nil && !regexp.MustCompile(`/fp(net|host)\d|/(stable_secret|.*_(keys?|key_version))$`).MatchString(name) {
					fmt.Fprintf(&b, "%s: %s\n", name, strings.TrimSpace(string(v)))
				}
			}
		}
	})
	return b.String()
}

// same wants the host to look as it did.
func (u *uplink) same(before string) {
	u.t.Helper()
	after := u.looks()
	if after == before {
		return
	}
	was, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, line := range now {
		if !slices.Contains(was, line) {
			u.t.Errorf("now  %s", line)
		}
	}
	for _, line := range was {
		if !slices.Contains(now, line) {
			u.t.Errorf("was  %s", line)
		}
	}
	u.t.Fatal("the host is not as it was")
}

// ping wants an address to answer.
func (u *uplink) ping(from *nettest.Namespace, addr string) {
	u.t.Helper()
	if !from.Reaches(addr, 5*time.Second) {
		u.t.Fatalf("%s does not answer", addr)
	}
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
		Last         string `json:"last_restart"`
		Processes    []struct {
			Name     string
			Counters map[string]any
		}
	}
}

func (u *uplink) status() (s report) {
	u.t.Helper()
	out := u.must("status", "-json", "e0")
	if err := json.Unmarshal([]byte(out), &s); err != nil || len(s.Pipelines) != 2 {
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
	if pids = u.killAny(pattern, sig); len(pids) == 0 {
		u.t.Fatalf("there is no %s: %v", pattern, u.processes())
	}
	return pids
}

// killAny is kill where there may be none.
func (u *uplink) killAny(pattern string, sig unix.Signal) (pids []int) {
	for pid, line := range u.processes() {
		if regexp.MustCompile(pattern).MatchString(line) && unix.Kill(pid, sig) == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// device returns the name of a device of ours.
func (u *uplink) device(prefix string) string {
	u.t.Helper()
	m := regexp.MustCompile(prefix + `\d+`).FindString(u.host.Run("ip", "-o", "link"))
	if m == "" {
		u.t.Fatalf("there is no %s", prefix)
	}
	return m
}

// connection opens TCP connections from the host to the router, and returns a
// function that has a line cross each of them and come back.
func (u *uplink) connection(addrs ...string) (talk func(string)) {
	u.t.Helper()
	var conns []net.Conn
	for _, addr := range addrs {
		conns = append(conns, echoing(u.t, u.host, u.router, addr))
	}
	return func(line string) {
		u.t.Helper()
		for _, c := range conns {
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := fmt.Fprintln(c, line); err != nil {
				u.t.Fatal(err)
			}
			if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != line+"\n" {
				u.t.Fatalf("%v: %q came back, %v; sent %s", c.RemoteAddr(), got, err, line)
			}
		}
	}
}

// An up changes nothing but that frames go through the pipelines: no echo of hundreds in
// each direction is lost when it comes, when a pipeline changes and when it goes, and
// connections live on.
func TestUp(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.pipeline = "../../pipeline.sh" // which builds
	before := u.looks()
	talk := u.connection("10.0.0.1:7", "[fd00::1]:7")
	talk("before")
	out := u.host.StartPing("10.0.0.1", ping.Config{Every: 8 * time.Millisecond})
	in := u.router.StartPing("10.0.0.2", ping.Config{Every: 8 * time.Millisecond})
	start := time.Now()
	said := u.must("up", "e0", "-in", "quotagate -rate 1Gbit/s | bytehist -o /dev/null", "-out", "quotagate -rate 500Mbit/s")
	if !strings.HasPrefix(said, "pipeline.sh: e0 goes through the pipelines; messages are in ") {
		t.Errorf("up says %s", said)
	}
	talk("between")
	u.same(before)
	changing := time.Now()
	u.must("change", "-out", "quotagate -rate 400Mbit/s | cat")
	changed := time.Now()
	talk("changed")
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
	s := u.status()
	for i, tt := range []struct {
		stages string
		names  []string
		quota  float64
	}{
		{"quotagate -rate 1Gbit/s | bytehist -o /dev/null", []string{"tunread", "quotagate", "bytehist", "tunwrite"}, 37.5e9},
		{"quotagate -rate 400Mbit/s | cat", []string{"tunread", "quotagate", "cat", "tunwrite"}, 15e9},
	} {
		p := s.Pipelines[i]
		var names []string
		for _, q := range p.Processes {
			names = append(names, q.Name)
		}
		gate := p.Processes[1].Counters
		if p.Stages != tt.stages || !slices.Equal(names, tt.names) || gate["quota"] != tt.quota || gate["used"].(float64) < 100 || p.Rate <= 0 {
			t.Errorf("%s: %+v", p.Name, p)
		}
	}
	if log := u.log("in") + u.log("out"); strings.Contains(log, "frames=") {
		t.Errorf("status writes into the logs: %s", log)
	}
	if said, code := u.run("up", "e0"); code != 1 || !regexp.MustCompile(`e0 is up already\npipeline.sh: hint: .* change e0 -in STAGES`).MatchString(said) {
		t.Errorf("up again: status %d, %s", code, said)
	}
	if log := u.log("in") + u.log("out"); strings.Contains(log, "ended") {
		t.Errorf("all is well, and the logs have\n%s", log)
	}
	u.same(before)
	if said := u.must("down"); said != "" {
		t.Errorf("down says %s", said)
	}
	talk("after")
	u.same(before)
	took := time.Since(start)
	time.Sleep(8*time.Second - took)
	for _, p := range []*ping.Pinger{in, out} {
		r := p.Stop()
		t.Logf("up, changed and down in %v: %v", took, r)
		// The kernel drops what comes into a queue while its close waits for the lock of all
		// network devices (tun_detach in drivers/net/tun.c).
		inChange := 0
		for _, at := range r.LostAt {
			t.Logf("lost after %v; the change was from %v to %v", at.Sub(start), changing.Sub(start), changed.Sub(start))
			if at.After(changing.Add(-20*time.Millisecond)) && at.Before(changed) {
				inChange++
			}
		}
		if r.Lost() > inChange || inChange > 3 || r.Sent < 500 { // a busy machine sends some late
			t.Error(r)
		}
	}
	if said, code := u.run("down"); code != 1 || said != "pipeline.sh: nothing is up\n" {
		t.Errorf("down again: status %d, %s", code, said)
	}
}

// Firewall rules, sockets and containers of the interface go on as they are, and it may
// change its MTU and go down and up.
func TestUpNeighbourhood(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft", "ethtool")
	u := newUplink(t, true)
	u.host.Sysctl("ipv4/ip_forward", "1")
	u.behind.Run("ip", "addr", "flush", "dev", "b0") // the container is in a network of its own
	u.behind.Batch("addr add 172.16.5.2/24 dev b0", "route add default via 172.16.5.1")
	u.host.Batch("addr add 172.16.5.1/24 dev l0", "route del 172.16.0.0/12")
	u.host.Run("nft", `add table inet f
		add chain inet f input { type filter hook input priority 0; }
		add rule inet f input iifname "e0" tcp dport 2222 drop
		add chain inet f from { type nat hook postrouting priority 100; }
		add rule inet f from oifname "e0" ip saddr 172.16.5.0/24 masquerade
		add chain inet f to { type nat hook prerouting priority -100; }
		add rule inet f to iifname "e0" tcp dport 8080 dnat ip to 172.16.5.2:80`)
	rules := func() string { return u.host.Run("nft", "-s", "list", "ruleset") + u.host.Run("ethtool", "-k", "e0") }
	before, had := u.looks(), rules()

	// serve answers connections to an address with its own name.
	serve := func(ns *nettest.Namespace, name, addr, device string) {
		l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			if device != "" {
				_ = c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
			}
			return err
		}}
		listener := inside(t, ns, func() (net.Listener, error) { return l.Listen(t.Context(), "tcp", addr) })
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s sees %v\n", name, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
	}
	asks := func(ns *nettest.Namespace, addr string) (answer string) {
		ns.Do(func() {
			c, err := net.DialTimeout("tcp", addr, time.Second)
			if err != nil {
				answer = "no answer"
				return
			}
			defer c.Close()
			b, _ := io.ReadAll(c)
			answer = strings.TrimSpace(string(b))
		})
		return answer
	}
	serve(u.host, "closed", "10.0.0.2:2222", "")
	serve(u.host, "bound", "0.0.0.0:9", "e0")
	serve(u.behind, "container", "172.16.5.2:80", "")
	serve(u.router, "router", "10.0.0.1:9", "")
	check := func(when string) {
		t.Helper()
		for _, tt := range []struct {
			ns         *nettest.Namespace
			addr, want string
		}{
			{u.router, "10.0.0.2:2222", "no answer"},
			{u.router, "10.0.0.2:9", "bound sees 10.0.0.1"},
			{u.router, "10.0.0.2:8080", "container sees 10.0.0.1"},
			{u.behind, "10.0.0.1:9", "router sees 10.0.0.2"},
		} {
			if got := asks(tt.ns, tt.addr); got != tt.want {
				t.Errorf("%s: %s answers %q, want %q", when, tt.addr, got, tt.want)
			}
		}
	}
	check("before")
	u.must("up", "e0", "-in", "quotagate -rate 1Gbit/s", "-out", "quotagate -rate 1Gbit/s")
	check("up")
	u.same(before)
	if got := rules(); got != had {
		t.Errorf("rules and offloads are\n%s\nand were\n%s", got, had)
	}
	for _, mtu := range []string{"9000", "1280", "1500"} {
		u.router.Run("ip", "link", "set", "e1", "mtu", mtu)
		u.host.Run("ip", "link", "set", "e0", "mtu", mtu)
		n, _ := strconv.Atoi(mtu)
		if r := u.router.StartPing("10.0.0.2", ping.Config{Count: 20, Every: 5 * time.Millisecond, Size: n - 28, Whole: true}).Wait(); r.Received < 15 {
			t.Errorf("mtu %s: %v", mtu, r)
		}
	}
	u.host.Run("ip", "link", "set", "e0", "down")
	u.host.Run("ip", "link", "set", "e0", "up")
	u.ping(u.router, "10.0.0.2")
	u.must("down")
	check("after")
	if got := rules(); got != had {
		t.Errorf("rules and offloads are\n%s\nand were\n%s", got, had)
	}
}

// A DHCP client goes on renewing its lease, and an up is no reason to ask again.
func TestUpDHCP(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "udhcpd", "udhcpc")
	u := newUplink(t, false)
	dir := t.TempDir()
	conf := fmt.Sprintf("start 10.0.0.50\nend 10.0.0.60\ninterface e1\nlease_file %s/leases\npidfile %s/pid\noption subnet 255.255.255.0\noption lease 10\nmin_lease 5\n", dir, dir)
	script := "#!/bin/sh\necho $1 $ip >>" + dir + "/events\n[ \"$1\" != bound ] || ip addr add $ip/24 dev $interface\n"
	for name, text := range map[string]string{"leases": "", "conf": conf, "script": script} {
		write(t, dir+"/"+name, text)
	}
	pipeline(t, nil, nil, u.router.Command("udhcpd", "-f", dir+"/conf"))
	pipeline(t, nil, nil, u.host.Command("udhcpc", "-f", "-i", "e0", "-s", dir+"/script", "-t", "10", "-T", "1"))
	events := func(what string) int {
		b, _ := os.ReadFile(dir + "/events")
		return strings.Count(string(b), what)
	}
	eventually(t, 20*time.Second, "a lease", func() bool { return events("bound") == 1 })
	u.must("up", "e0", "-in", "quotagate -rate 1Gbit/s", "-out", "quotagate -rate 1Gbit/s")
	was := events("renew")
	eventually(t, 60*time.Second, "three renewals", func() bool { return events("renew") >= was+3 })
	u.ping(u.host, "10.0.0.1")
	u.must("down")
	if was = events("renew"); *full {
		eventually(t, 30*time.Second, "a renewal after down", func() bool { return events("renew") > was })
	}
	if b, _ := os.ReadFile(dir + "/events"); events("bound") != 1 {
		t.Errorf("the client was told\n%s", b)
	}
}

// Killed at any moment, under load, frames go on within 50 ms, and up works again.
func TestUpKilled(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	talk := u.connection("10.0.0.1:7", "[fd00::1]:7")
	stop := u.load()
	defer stop()
	kills := 5
	if *full {
		kills = 20
	}
	var gaps []time.Duration
	late := slack()
	for i := range kills {
		c := u.script("up", "e0", "-in", "quotagate -quota 1PB | bytehist -o /dev/null", "-out", "quotagate -quota 1PB")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		up := pipeline(t, nil, nil, c)[0]
		if i%2 == 0 { // while it comes up, or when it is up
			eventually(t, 60*time.Second, "it begins", func() bool { return exists(u.state + "/e0") })
		} else {
			<-up.Done
		}
		time.Sleep(rand.N(500 * time.Millisecond))
		echoes := u.host.StartPing("10.0.0.1", ping.Config{Every: 5 * time.Millisecond})
		time.Sleep(100 * time.Millisecond)
		for quiet := 0; quiet < 3; quiet++ { // until nothing that they have started is left
			if len(u.killAny(".", unix.SIGKILL)) > 0 {
				quiet = 0
			}
		}
		time.Sleep(300 * time.Millisecond)
		echoes.Stop()
		r := echoes.Wait()
		gaps = append(gaps, r.Gap)
		<-up.Done
		if r.Received == 0 {
			t.Fatalf("kill %d: %v", i, r)
		}
		u.same(before)
		if s, status := u.run("status"); i%2 == 1 && (status != 0 || !strings.Contains(s, "it was killed, and frames pass by")) {
			t.Errorf("status after the kill: %s", s)
		}
		talk("killed")
		if i%3 == 2 { // or the next up takes away the rest
			if said, status := u.run("down"); status != 0 && said != "pipeline.sh: nothing is up\n" {
				t.Errorf("down: %s", said)
			}
		}
	}
	u.must("up", "e0")
	talk("again")
	u.must("down")
	u.same(before)
	slices.Sort(gaps)
	t.Logf("no answers for %v", gaps)
	if most := 50*time.Millisecond + late(); gaps[len(gaps)/2] > most {
		t.Errorf("no answers for %v, and not for %v", gaps, most)
	}
}

// load has TCP run from the router to the host, as fast as it goes, until stop.
func (u *uplink) load() (stop func()) {
	u.t.Helper()
	c, far := connection(u.t, u.router, u.host, "10.0.0.2:77")
	go func() { _, _ = io.Copy(io.Discard, far) }()
	go func() {
		b := make([]byte, 1<<16)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // some 500 Mbit/s: others run beside this
		}
	}()
	return func() { c.Close() }
}

// After kill -9 the numbers that were noted may be those of other processes.
func TestUpStaleNumbers(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.must("up", "e0")
	pid, err := os.ReadFile(u.state + "/e0/pid")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(n, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	bystander := exec.Command("sleep", "100")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pid", "in.source"} {
		if err := os.WriteFile(u.state+"/e0/"+name, fmt.Appendln(nil, bystander.Process.Pid), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u.must("down")
	_ = bystander.Process.Kill()
	if err := bystander.Wait(); bystander.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("the bystander: %v", err)
	}
}

// An interface that cannot be diverted is refused, and an up that fails leaves nothing.
func TestUpRefuses(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.host.Batch("tuntap add dev tun9 mode tun", "link set tun9 up")
	before := u.looks()
	secret := openDir(t) + "/secret"
	if err := os.WriteFile(secret, []byte("#!/bin/sh\ncat\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"up"}, 2, "pipeline.sh: up: 0 arguments given"},
		{[]string{"up", "e0", "l0"}, 2, "pipeline.sh: up: 2 arguments given"},
		{[]string{"up", "e0", "-x"}, 2, "pipeline.sh: there is no flag -x"},
		{[]string{"up", "e0", "-lan", "l0"}, 2, "pipeline.sh: there is no flag -lan"},
		{[]string{"up", "e0", "-in"}, 2, "pipeline.sh: -in wants a value"},
		{[]string{"up", "e0", "-fail", "safe"}, 2, "pipeline.sh: -fail wants open or closed"},
		{[]string{"up", "e0", "-confirm", "soon"}, 2, "pipeline.sh: -confirm wants a time, such as 60s or 5m"},
		{[]string{"up", "e0", "-confirm", "0s"}, 2, "pipeline.sh: -confirm wants a time, such as 60s or 5m"},
		{[]string{"up", "e0", "-confirm", ""}, 2, "pipeline.sh: -confirm wants a time, such as 60s or 5m"},
		{[]string{"up", "e0", "-confirm", "9999999999999999999h"}, 2, "pipeline.sh: -confirm wants a time, such as 60s or 5m"},
		{[]string{"up", "e0", "-in", "bytehist |"}, 2, "pipeline.sh: -in: the shell does not understand bytehist |"},
		{[]string{"up", "e0", "-user", "no-such-user"}, 2, "pipeline.sh: there is no user no-such-user"},
		{[]string{"up", "nothing"}, 1, "pipeline.sh: there is no interface nothing"},
		{[]string{"up", "../e0"}, 1, "pipeline.sh: there is no interface ../e0"},
		{[]string{"up", ""}, 1, "pipeline.sh: there is no interface "},
		{[]string{"up", "lo"}, 1, "tundivert: lo is not an Ethernet interface"},
		{[]string{"up", "tun9"}, 1, "tundivert: tun9 is not an Ethernet interface"},
		{[]string{"up", "e0", "-in", "no-such-program"}, 1, "no-such-program: command not found"},
		{[]string{"up", "e0", "-in", secret}, 1, "pipeline.sh: in: -in has failed with status 126\n"},
		{[]string{"up", "e0", "-in", secret}, 1, "hint: the user of the stages may not run a program in it: -user NAME\n"},
		{[]string{"up", "e0", "-out", "no-such-program"}, 1, "pipeline.sh: e0 is not diverted, and nothing has changed"},
		{[]string{"up", "e0", "-out", "quotagate -rate 5"}, 1, "quotagate: hint: "},
		{[]string{"change", "-in", "cat"}, 1, "pipeline.sh: nothing is up"},
		{[]string{"change"}, 2, "pipeline.sh: change wants -in or -out"},
		{[]string{"down", "e0"}, 1, "pipeline.sh: nothing is up on e0"},
		{[]string{"down", ".."}, 1, "pipeline.sh: nothing is up on .."},
		{[]string{"confirm"}, 1, "pipeline.sh: nothing is up"},
	} {
		said, status := u.run(tt.args...)
		if status != tt.status || !strings.Contains(said, tt.want) {
			t.Errorf("%v: status %d, %s; want %d, %s", tt.args, status, said, tt.status, tt.want)
		}
		if names, _ := filepath.Glob(u.state + "/*/"); len(names) > 0 {
			t.Errorf("%v leaves %v", tt.args, names)
		}
	}
	u.same(before)
	if s := u.host.Run("ip", "-o", "link"); strings.Contains(s, "fphost") {
		t.Errorf("left: %s", s)
	}
	said, status := outcome(exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", u.pipeline, "up", "lo"))
	if status != 1 || !strings.Contains(said, "up needs root\npipeline.sh: hint: sudo ") {
		t.Errorf("as nobody: status %d, %s", status, said)
	}
}

// The stages of one pipeline can be changed, and those that do not run are not taken.
func TestUpChange(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.must("up", "e0", "-in", "quotagate -quota 1PB", "-out", "quotagate -quota 2PB")
	talk := u.connection("10.0.0.1:7")
	talk("before")
	stages := func() (all []string) {
		for _, p := range u.status().Pipelines {
			all = append(all, p.Stages)
		}
		return all
	}
	for _, tt := range []struct {
		args   []string
		status int
		says   string
		want   []string
	}{
		{[]string{"e0", "-in", "quotagate -quota 3PB | cat"}, 0, "", []string{"quotagate -quota 3PB | cat", "quotagate -quota 2PB"}},
		{[]string{"-out", ""}, 0, "", []string{"quotagate -quota 3PB | cat", ""}},
		{[]string{"-in", "quotagate -quota 4", "-out", "cat"}, 1, "quotagate: hint: ", []string{"quotagate -quota 3PB | cat", "cat"}},
		{[]string{"-in", "exit 3"}, 1, "pipeline.sh: e0: the new pipeline in does not run; the old one stays", []string{"quotagate -quota 3PB | cat", "cat"}},
		{[]string{"-in", "'"}, 2, "pipeline.sh: -in: the shell does not understand '", []string{"quotagate -quota 3PB | cat", "cat"}},
	} {
		said, status := u.run(append([]string{"change"}, tt.args...)...)
		if status != tt.status || !strings.Contains(said, tt.says) {
			t.Errorf("change %v: status %d, %s", tt.args, status, said)
		}
		if got := stages(); !slices.Equal(got, tt.want) {
			t.Errorf("change %v: the stages are %q, want %q", tt.args, got, tt.want)
		}
		talk(fmt.Sprint(tt.args))
	}
	// What was changed is what is started again.
	u.kill("^cat", unix.SIGKILL)
	u.ping(u.host, "10.0.0.1")
	eventually(t, 5*time.Second, "both pipelines", func() bool { return len(u.stages()) == 7 })
	u.must("down")
}

// Stages that are not one pipeline, but a list of them, stand in the way of the frames
// as a whole. What begins with # is a comment, and not the pipe behind it.
func TestUpLists(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	for _, stages := range [][2]string{
		{"cat; echo hi", "cat || true"}, {"cat && true", "cat\ncat"},
		{"quotagate -quota 1PB # R&D", "cat |\ncat\n"}, {"# all\n{ cat; }", "test -e / && cat | cat; :"},
	} {
		u.must("up", "e0", "-in", stages[0], "-out", stages[1])
		u.ping(u.router, "10.0.0.2")
		u.must("down")
		u.same(before)
	}
}

// An up that was killed is not in the way of others.
func TestUpTwo(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	u.must("up", "e0")
	u.must("up", "l0", "-confirm", "60s")
	if said, status := u.run("change", "-in", "cat"); status != 0 || said != "" {
		t.Errorf("change of both: status %d, %s", status, said)
	}
	if pids := u.kill("^bash .*up -foreground e0", unix.SIGKILL); len(pids) != 1 {
		t.Fatalf("%d were killed", len(pids))
	}
	eventually(t, 5*time.Second, "its end", func() bool {
		said, _ := u.run("status", "e0")
		return strings.Contains(said, "it was killed, and frames pass by")
	})
	u.ping(u.host, "10.0.0.1")
	if said, status := u.run("confirm"); status != 1 || !strings.Contains(said, "e0: up was killed") {
		t.Errorf("status %d, %s", status, said)
	}
	if s := u.must("status", "l0"); strings.Contains(s, "unless confirmed") {
		t.Errorf("status:\n%s", s)
	}
	u.must("down")
	u.same(before)
}

// It may be started by a link, from anywhere, with relative directories; and files of
// stages are in one place for every user.
func TestUpByLink(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.pipeline = t.TempDir() + "/pl"
	if err := os.Symlink(bin+"/pipeline.sh", u.pipeline); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) string {
		c := u.script(args...)
		c.Dir = filepath.Dir(u.state)
		c.Env = append(c.Environ(), "PATH="+strings.TrimPrefix(os.Getenv("PATH"), bin+":"), "PIPELINE_RUN="+filepath.Base(u.state))
		out, status := outcome(c)
		if status != want {
			t.Fatalf("%v: status %d, %s", args, status, out)
		}
		return out
	}
	run(0, "up", "e0", "-user", "root", "-in", "bytehist -o hist")
	run(0, "status", "e0")
	run(1, "up", "e0")
	run(0, "down")
	if _, err := os.Stat(u.lib + "/hist"); err != nil {
		t.Error(err)
	}
}

// Without confirmation it is undone in time.
func TestUpConfirm(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	said := u.must("up", "e0", "-confirm", "8s") // more than status takes
	if !strings.Contains(said, "otherwise it is undone in 8 seconds") {
		t.Errorf("up says %s", said)
	}
	if s := u.must("status"); !strings.Contains(s, "seconds, unless confirmed") {
		t.Errorf("status:\n%s", s)
	}
	eventually(t, 20*time.Second, "undone", u.undone)
	u.same(before)
	if b, err := os.ReadFile(u.state + "/e0.log"); err != nil || !strings.Contains(string(b), "not confirmed: undone") {
		t.Errorf("nothing says why: %v, %s", err, b)
	}

	// Too late is too late, also while it is being undone.
	u.must("up", "e0", "-confirm", "1s", "-in", "bash -c 'cat; sleep 100'")
	eventually(t, 10*time.Second, "the end of the time", func() bool { return exists(u.state + "/e0/expired") })
	if s, status := u.run("confirm"); status != 1 {
		t.Errorf("confirmed when it is undone: %s", s)
	}
	eventually(t, 20*time.Second, "undone", u.undone)

	// Too early is too early.
	c := u.script("up", "e0", "-confirm", "5s")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the beginning", func() bool { return exists(u.state + "/e0/in") })
	s, status := u.run("confirm")
	if _, err := os.Stat(u.state + "/e0/ready"); err != nil && status != 1 {
		t.Errorf("confirmed before it is up: %s", s)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	u.must("confirm")
	time.Sleep(6 * time.Second)
	if s := u.must("status"); strings.Contains(s, "confirm") {
		t.Errorf("status:\n%s", s)
	}
	u.must("down", "e0")
	u.same(before)
}

// What counts is the time since the machine has started: a clock that is set while it
// waits for confirmation neither keeps it waiting nor ends that.
func TestUpClock(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "unshare", "mount")
	u := newUplink(t, true)
	before := u.looks()
	uptime, err := os.Create(t.TempDir() + "/uptime")
	if err != nil {
		t.Fatal(err)
	}
	defer uptime.Close()
	since := func(seconds int) {
		t.Helper()
		if _, err := fmt.Fprintf(io.NewOffsetWriter(uptime, 0), "%d.08 1.00\n", seconds); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		c := u.host.Command("unshare", append([]string{"-m", "sh", "-c", `mount --bind "$0" /proc/uptime && exec "$@"`, uptime.Name(), u.pipeline}, args...)...)
		c.Env = append(os.Environ(), "PIPELINE_RUN="+u.state, "PIPELINE_LIB="+u.lib)
		out, status := outcome(c)
		if status != 0 {
			t.Fatalf("%v: status %d, %s", args, status, out)
		}
		return out
	}
	since(1000)
	run("up", "e0", "-confirm", "10m")
	since(1599)
	if s := run("status"); !strings.Contains(s, "undone in 1 second, unless confirmed") {
		t.Errorf("a second before the end, status has\n%s", s)
	}
	since(1600)
	eventually(t, 10*time.Second, "undone", u.undone)
	u.same(before)
}

// Asked to stop, at any moment, up ends with 0 and leaves nothing, however often that is
// done. A signal that kills it ends the diversion, and down takes away the rest.
func TestUpStopped(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	signals := []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGABRT, unix.SIGKILL}
	stops := 5
	if *full {
		stops = 50
	}
	for i := range stops {
		c := u.script("up", "e0", "-foreground", "-out", "quotagate -rate 100Mbit/s")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		up := pipeline(t, nil, nil, c)[0]
		eventually(t, 20*time.Second, "up", func() bool { return exists(u.state + "/e0/ready") })
		time.Sleep(rand.N(500 * time.Millisecond))
		sig := signals[i%len(signals)]
		asked := time.Now()
		_ = c.Process.Signal(sig)
		if err := up.End(20 * time.Second); err != nil {
			t.Error(err)
			_ = c.Process.Kill()
			<-up.Done
		}
		if sig == unix.SIGABRT || sig == unix.SIGKILL {
			u.ping(u.host, "10.0.0.1")
			_, _ = u.run("down") // after ABRT there may be nothing left to do
		} else if c.ProcessState.ExitCode() != 0 || strings.Contains(up.Said.String(), "line ") || time.Since(asked) > 10*time.Second {
			t.Errorf("stop %d, %v: %v after %v\n%s", i, sig, c.ProcessState, time.Since(asked), &up.Said)
			_, _ = u.run("down")
		}
		if !u.undone() {
			t.Errorf("stop %d, %v: the state is left", i, sig)
		}
	}
	u.same(before)
	if s := u.host.Run("ip", "-o", "link"); strings.Contains(s, "fphost") {
		t.Errorf("left: %s", s)
	}
}
