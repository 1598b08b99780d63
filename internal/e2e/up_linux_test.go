package e2e

import (
	"bufio"
	"bytes"
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
	nettest.Need(t, "bash", "bridge", "flock", "setsid", "ping")
	u := &uplink{t: t, router: nettest.New(t), host: nettest.New(t), behind: nettest.New(t), state: t.TempDir(), pipeline: bin + "/pipeline.sh"}
	u.lib = u.shared() + "/lib"
	nettest.Run(t, "ip", "link", "add", "e0", "netns", u.host.Name, "type", "veth", "peer", "name", "e1", "netns", u.router.Name)
	nettest.Run(t, "ip", "link", "add", "l0", "netns", u.host.Name, "type", "veth", "peer", "name", "b0", "netns", u.behind.Name)
	for _, x := range []struct {
		ns   *nettest.Namespace
		dev  string
		host int
	}{{u.router, "e1", 1}, {u.host, "e0", 2}, {u.behind, "b0", 3}, {u.host, "l0", 0}} {
		x.ns.Sysctl("ipv6/conf/"+x.dev+"/accept_dad", "0")
		lines := []string{"link set " + x.dev + " up"}
		if x.host != 0 && (x.host != 2 || addresses) {
			lines = append(lines, fmt.Sprintf("addr add 10.0.0.%d/24 brd + dev %s", x.host, x.dev), fmt.Sprintf("addr add fd00::%d/64 dev %s", x.host, x.dev))
		}
		x.ns.Batch(lines...)
	}
	if addresses {
		u.host.Sysctl("ipv6/conf/e0/accept_ra", "0") // as where somebody else deals with advertisements
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
	for tries := 0; ; tries++ { // until both interfaces have their addresses for good
		all := u.host.Run("ip", "-6", "-o", "addr", "show")
		if strings.Count(all, "inet6 fe80:") == 2 && !strings.Contains(all, "tentative") {
			break
		}
		if tries > 200 {
			t.Fatalf("the addresses are not for good: %s", all)
		}
		time.Sleep(50 * time.Millisecond)
	}
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
	c := u.script(args...)
	out, _ := c.CombinedOutput()
	return string(out), c.ProcessState.ExitCode()
}

func (u *uplink) must(args ...string) string {
	u.t.Helper()
	out, status := u.run(args...)
	if status != 0 {
		u.t.Fatalf("pipeline.sh %v: status %d\n%s", args, status, out)
	}
	return out
}

var ours = regexp.MustCompile(`^(tunread|tunwrite|quotagate|bytehist|bash|cat)\b|pipeline\.sh`)

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

var passing = regexp.MustCompile(`(valid_lft|preferred_lft|expires) \d+sec`)

// looks is all that is to be the same before and after.
func (u *uplink) looks() string {
	lines := []string{
		"-d addr show dev e0", "-d addr show dev l0", "route show", "-6 route show", "route show table all", "-6 route show table all",
		"neigh show nud permanent", "-o link",
	}
	// ip complains of other namespaces that go meanwhile.
	out, err := u.host.Command("sh", "-c", "ip "+strings.Join(lines, " && echo && echo / && ip ")).Output()
	if err != nil {
		u.t.Fatalf("ip: %v", err)
	}
	var b strings.Builder
	for i, shown := range strings.Split(string(out), "\n/\n") {
		if strings.HasSuffix(lines[i], " all") { // in the table local, the order is of no consequence
			sorted := strings.Split(shown, "\n")
			slices.Sort(sorted)
			shown = strings.Join(sorted, "\n")
		}
		fmt.Fprintf(&b, "ip %s\n%s\n", lines[i], shown)
	}
	return passing.ReplaceAllString(b.String(), "$1 some")
}

// same wants the host to look as it did.
func (u *uplink) same(before string) {
	u.t.Helper()
	after := u.looks()
	if after == before {
		return
	}
	was := strings.Split(before, "\n")
	now := strings.Split(after, "\n")
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
	u.t.Fatalf("the host is not as it was, or in another order; now\n%s\nand was\n%s", after, before)
}

// A connection that was open before up is open after down, with what was said
// in between; pings go on; addresses, routes and all else are back.
func TestUp(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.pipeline = "../../pipeline.sh" // which builds
	before := u.looks()
	talk := u.connection("10.0.0.1:7", "[fd00::1]:7")
	const pings, interval = 1000, 8 * time.Millisecond
	var out bytes.Buffer
	ping := u.host.Command("ping", "-n", "-q", "-c", fmt.Sprint(pings), "-i", fmt.Sprint(interval.Seconds()), "-W", "1", "10.0.0.1")
	ping.Stdout = &out
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	talk("before")
	said := u.must("up", "e0", "-in", "quotagate -rate 1Gbit/s | bytehist -o /dev/null", "-out", "quotagate -rate 500Mbit/s")
	if !regexp.MustCompile(`^pipeline\.sh: e0 goes through the pipelines; its addresses are on fphost\d+, messages in `).MatchString(said) {
		t.Errorf("up says %s", said)
	}
	if log := u.said(); log != "" {
		t.Errorf("all is well, and the log has\n%s", log)
	}
	talk("between")
	for _, line := range []string{
		"10.0.0.2/24 brd 10.0.0.255", "192.0.2.1/32", "10.0.1.2/24", "fd00::2/64", "fe80::",
	} {
		if s := u.host.Run("ip", "addr", "show", "dev", u.device("fphost")); !strings.Contains(s, line) {
			t.Errorf("no %s on the host's side:\n%s", line, s)
		}
	}
	if s := u.host.Run("ip", "-o", "addr", "show", "dev", "e0"); strings.Contains(s, "global") {
		t.Errorf("still on e0: %s", s)
	}
	if a, b := u.mac("e0"), u.mac(u.device("fphost")); a != b {
		t.Errorf("the MAC address of the host's side is %s, and was %s", b, a)
	}
	// All of it goes through the pipelines.
	time.Sleep(1100 * time.Millisecond) // the gates publish once a second
	status := u.must("status")
	for _, want := range []string{
		`(?m)^e0: for 0m\d+s, the host's side is fphost\d+$`,
		`(?m)^in:  tunread fpnet\d+ \| quotagate -rate 1Gbit/s \| bytehist -o /dev/null \| tunwrite fphost\d+$`,
		`(?m)^  tunread: frames=\d{2,} bytes=\d{3,} `,
		`(?m)^  quotagate: state=open used=\d{3,} quota=37500000000 `,
		`(?m)^  quotagate: state=open used=\d{3,} quota=18750000000 `,
		`(?m)^processes: tunread \(\d+, [0-9.]+ MB\), `,
	} {
		if !regexp.MustCompile(want).MatchString(status) {
			t.Errorf("status does not show %s:\n%s", want, status)
		}
	}
	if n := strings.Count(status, "\n"); n > 24 {
		t.Errorf("status has %d lines, which is more than a screen:\n%s", n, status)
	}
	if f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err == nil {
		c := u.script("status")
		var stderr bytes.Buffer
		c.Stdout, c.Stderr = f, &stderr
		_ = c.Run()
		f.Close()
		if code := c.ProcessState.ExitCode(); code != 1 || stderr.String() != "pipeline.sh: e0: the status cannot be written\n" {
			t.Errorf("status to a full disk: status %d, %s", code, &stderr)
		}
	}
	if said, code := u.run("up", "e0"); code != 1 || !strings.Contains(said, "e0 goes through pipelines already") {
		t.Errorf("up again: status %d, %s", code, said)
	}
	if said := u.must("down"); said != "" {
		t.Errorf("down says %s", said)
	}
	talk("after")
	u.same(before)
	_ = ping.Wait()
	m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(out.String())
	if m == nil {
		t.Fatalf("ping says %s", &out)
	}
	sent, _ := strconv.Atoi(m[1])
	received, _ := strconv.Atoi(m[2])
	dark := time.Duration(sent-received) * interval
	t.Logf("%d of %d pings lost, %v", sent-received, sent, dark)
	if sent != pings || dark > 2*time.Second {
		t.Errorf("dark for %v: %s", dark, &out)
	}
	if said, code := u.run("down"); code != 1 || said != "pipeline.sh: nothing is up\n" {
		t.Errorf("down again: status %d, %s", code, said)
	}
}

func (u *uplink) mac(dev string) string {
	u.t.Helper()
	return regexp.MustCompile(`link/ether (\S+)`).FindString(u.host.Run("ip", "-o", "link", "show", "dev", dev))
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
		var l net.Listener
		var c net.Conn
		var err error
		u.router.Do(func() { l, err = net.Listen("tcp", addr) })
		if err != nil {
			u.t.Fatal(err)
		}
		u.t.Cleanup(func() { l.Close() })
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = io.Copy(c, c)
				c.Close()
			}
		}()
		u.host.Do(func() { c, err = net.DialTimeout("tcp", addr, 5*time.Second) })
		if err != nil {
			u.t.Fatal(err)
		}
		u.t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
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

// Killed at any moment, up leaves what down can put back, and up again works.
func TestUpKilled(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	talk := u.connection("10.0.0.1:7", "[fd00::1]:7")
	kill := func() (n int) {
		for pid, line := range u.processes() {
			if strings.Contains(line, "pipeline.sh") && !strings.Contains(line, " -c ") {
				_ = unix.Kill(pid, unix.SIGKILL)
				n++
			}
		}
		return n
	}
	moments := 0
	const kills = 4
	takes := 2 * time.Second // from when there is something to undo; told by those that came to stand
	for i := range kills {
		delay := takes*time.Duration(i)/kills + rand.N(takes/kills)
		c := u.script("up", "e0", "-lan", "l0", "-in", "bytehist -o /dev/null")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = c.Wait(); close(done) }()
		eventually(t, 60*time.Second, "it begins", func() bool { _, err := os.Stat(u.state + "/e0"); return err == nil })
		start := time.Now()
		select {
		case <-done:
			takes = time.Since(start)
		case <-time.After(delay):
		}
		if kill() == 0 {
			t.Error("nothing was there to be killed")
		}
		<-done
		for quiet := 0; quiet < 3; quiet++ { // what they had started
			time.Sleep(20 * time.Millisecond)
			if kill() > 0 {
				quiet = 0
			}
		}
		if _, err := os.Stat(u.state + "/e0"); err == nil {
			moments++
			if moments%2 == 0 { // up undoes it itself
				u.must("up", "e0", "-lan", "l0")
				talk("again")
			} else if s := u.must("status"); !strings.Contains(s, "up was killed, and nobody keeps it running") {
				t.Errorf("status after the kill:\n%s", s)
			}
			u.must("down")
		}
		u.same(before)
	}
	talk("after all")
	if moments < kills-1 {
		t.Errorf("killed at %d moments at which there was something to undo", moments)
	}
}

// After kill -9 the numbers that were noted may be somebody else's.
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
	if err := os.WriteFile(u.state+"/e0/in.source", fmt.Appendln(nil, bystander.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	u.must("down")
	_ = bystander.Process.Kill()
	if err := bystander.Wait(); bystander.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("somebody else: %v", err)
	}
}

// What cannot be done safely is refused, and what fails half-way is undone.
func TestUpRefuses(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.host.Sysctl("ipv6/conf/default/disable_ipv6", "1") // nothing that comes later
	u.host.Batch(
		"link add br9 type bridge", "link add v0 type veth peer name v1", "link set v0 master br9",
		"tuntap add dev tun9 mode tun", "link add v2 type veth peer name v3", "link set v3 up",
		"link add v4 type veth peer name v5", "link set v4 up", "link set v5 up", "link add link v4 name m4 type macvlan",
		"link add v6 type veth peer name v7", "link set v6 up", "link set v7 up", "addr add 10.9.9.1/24 dev v6",
		"route add 10.8.0.0/16 nexthop via 10.9.9.2 dev v6 nexthop via 10.9.9.3 dev v6",
		"link add v8 type veth peer name v9", "link set v8 up", "link set v9 up", "route add local 10.7.0.0/16 dev v8",
		"link add v10 type veth peer name v11",
	)
	u.host.Sysctl("ipv6/conf/v10/disable_ipv6", "0")
	u.host.Sysctl("ipv6/conf/v11/disable_ipv6", "0")
	u.host.Batch("link set v10 up", "link set v11 up", "addr add fd77::1/64 dev v11 nodad", "addr add fd77::1/64 dev v10")
	eventually(t, 10*time.Second, "an address that somebody else has", func() bool {
		return strings.Contains(u.host.Run("ip", "addr", "show", "dev", "v10"), " dadfailed ") &&
			!strings.Contains(strings.ReplaceAll(u.host.Run("ip", "addr"), "dadfailed tentative", ""), "tentative")
	})
	before := u.looks()
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"up"}, 2, "up wants one interface, 0 given"},
		{[]string{"up", "e0", "l0"}, 2, "up wants one interface, 2 given"},
		{[]string{"up", "e0", "-x"}, 2, "there is no flag -x"},
		{[]string{"up", "e0", "-confirm", "soon"}, 2, "-confirm wants a time, such as 60s or 5m"},
		{[]string{"up", "e0", "-confirm", "0s"}, 2, "-confirm wants a time, such as 60s or 5m"},
		{[]string{"up", "e0", "-confirm", "9999999999999999999h"}, 2, "-confirm wants a time, such as 60s or 5m"},
		{[]string{"up", "e0", "-in", "bytehist |"}, 2, "-in: the shell does not understand bytehist |"},
		{[]string{"up", "e0", "-in", "cat; } | { cat"}, 2, "-in: the shell does not understand cat; } | { cat"},
		{[]string{"up", "e0", "-in", " "}, 2, "-in: the shell does not understand  "},
		{[]string{"up", "e0", "-out", "cat &"}, 2, "-out: the shell does not understand cat &"},
		{[]string{"up", "nothing"}, 1, "there is no interface nothing"},
		{[]string{"up", "../e0"}, 2, "there is no interface '../e0'"},
		{[]string{"up", ""}, 2, "there is no interface ''"},
		{[]string{"up", "e&0"}, 2, "'e&0' would be taken apart by ip -batch"},
		{[]string{"down", ""}, 2, "there is no interface ''"},
		{[]string{"down", ".."}, 2, "there is no interface '..'"},
		{[]string{"up", "lo"}, 1, "lo is no Ethernet interface"},
		{[]string{"up", "tun9"}, 1, "tun9 is no Ethernet interface"},
		{[]string{"up", "br9"}, 1, "br9 is a bridge, and a bridge cannot be a port of another"},
		{[]string{"up", "v0"}, 1, "v0 belongs to br9 already, a bridge\npipeline.sh: hint: ip link set v0 nomaster"},
		{[]string{"up", "v2"}, 1, "v2 is down"},
		{[]string{"up", "v4"}, 1, "m4 stands on v4, and its traffic would not go through the pipeline"},
		{[]string{"up", "v6"}, 1, "a route has several next hops"},
		{[]string{"up", "v8"}, 1, "this would be lost: local 10.7.0.0/16 dev v8"},
		{[]string{"up", "v10"}, 1, "v10 has an address that somebody else has"},
		{[]string{"up", "e0", "-lan", "e0"}, 2, "-lan e0: that is the interface itself"},
		{[]string{"up", "l0", "-lan", "e0"}, 1, "-lan e0: it has addresses of its own"},
		{[]string{"up", "e0", "-in", "no-such-program"}, 1, "the pipelines do not run"},
		{[]string{"up", "e0", "-out", "cat >/dev/null"}, 1, "10.0.0.1, which answered before, does not answer through the pipelines"},
		{[]string{"down", "e0"}, 1, "nothing is up on e0"},
		{[]string{"confirm"}, 1, "nothing is up"},
	} {
		said, status := u.run(tt.args...)
		if status != tt.status || !strings.Contains(said, "pipeline.sh: "+tt.want) {
			t.Errorf("%v: status %d, %s; want %d, %s", tt.args, status, said, tt.status, tt.want)
		}
		if strings.Contains(said, "RTNETLINK") {
			t.Errorf("%v: that is no reason: %s", tt.args, said)
		}
		if tt.status == 1 {
			u.same(before)
		}
		if names, _ := filepath.Glob(u.state + "/*/"); len(names) > 0 {
			t.Errorf("%v leaves %v", tt.args, names)
		}
	}

	// The address that somebody else has stands before many others, which are older.
	many := []string{"addr del fd77::1/64 dev v10"}
	for i := range 1000 {
		many = append(many, fmt.Sprintf("addr add fd78::%d/128 dev v10 nodad", i+1))
	}
	u.host.Batch(append(many, "addr add fd77::1/64 dev v10")...)
	eventually(t, 10*time.Second, "somebody else has it again", func() bool { return u.host.Run("ip", "-6", "addr", "show", "dev", "v10", "dadfailed") != "" })
	if said, status := u.run("up", "v10"); status != 1 || !strings.Contains(said, "v10 has an address that somebody else has") {
		t.Errorf("with a thousand addresses: status %d, %s", status, said)
	}
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

// Where there is IPv6 only, its gateway is asked whether the way is open, by its
// link-local address, as a router's advertisement has it.
func TestUpGateway6(t *testing.T) {
	t.Parallel()
	u := newUplink(t, false)
	all := strings.Fields(u.router.Run("ip", "-6", "-o", "addr", "show", "dev", "e1", "scope", "link"))
	gateway, _, _ := strings.Cut(all[3], "/")
	u.host.Batch("route add default via " + gateway + " dev e0")
	before := u.looks()
	said, status := u.run("up", "e0", "-out", "cat >/dev/null")
	if want := gateway + ", which answered before, does not answer through the pipelines"; status != 1 || !strings.Contains(said, want) {
		t.Errorf("status %d, %s; want 1, %s", status, said, want)
	}
	u.same(before)
	u.must("up", "e0")
	u.must("down")
	u.same(before)
}

// advertise has the router tell everybody, twice a second, that it is one, with a
// prefix to make an address of.
const advertise = `
import socket, struct, time
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
to = ("ff02::1", 0, 0, socket.if_nametoindex("e1"))
prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xc0, 7, 7, 0) + socket.inet_pton(socket.AF_INET6, "fd55::")
while True:
    s.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 9, 0, 0) + prefix, to)
    time.sleep(0.5)
`

// A host that has its IPv6 address from advertisements keeps it while they come, on the
// host's side of the pipelines and after that.
func TestUpAdvertised(t *testing.T) {
	t.Parallel()
	u := newUplink(t, false)
	nettest.Need(t, "python3")
	router := u.router.Command("python3", "-c", advertise)
	if err := router.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = router.Process.Kill(); _ = router.Wait() })
	has := func(dev string) func() bool {
		return func() bool {
			return strings.Contains(u.host.Run("ip", "-6", "addr", "show", "dev", dev), "fd55:") &&
				strings.Contains(u.host.Run("ip", "-6", "route", "show", "dev", dev), "default via fe80:")
		}
	}
	eventually(t, 10*time.Second, "an address", has("e0"))
	u.must("up", "e0")
	side := u.device("fphost")
	time.Sleep(8 * time.Second) // what was noted has expired
	if !has(side)() {
		t.Errorf("the host's side has\n%s", u.host.Run("ip", "-6", "addr", "show", "dev", side)+u.host.Run("ip", "-6", "route", "show", "dev", side))
	}
	u.must("down")
	for range 10 {
		if !has("e0")() {
			t.Fatalf("e0 has\n%s", u.host.Run("ip", "-6", "addr", "show", "dev", "e0")+u.host.Run("ip", "-6", "route", "show", "dev", "e0"))
		}
		time.Sleep(time.Second)
	}
}

// What would have expired on the interface has not come back on it.
func TestUpExpires(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.host.Batch(
		"addr add 10.6.0.2/24 dev e0 valid_lft 3 preferred_lft 3", "addr add fd06::2/64 dev e0 valid_lft 3 preferred_lft 3",
		"route add fd09::/64 via fd00::1 expires 3", "route add fd08::/64 via fd00::1 expires 1000",
	)
	u.must("up", "e0")
	time.Sleep(4 * time.Second)
	u.must("down")
	all := u.host.Run("ip", "addr", "show", "dev", "e0") + u.host.Run("ip", "-6", "route")
	for _, gone := range []string{"10.6.0.2", "fd06::", "fd09::"} {
		if strings.Contains(all, gone) {
			t.Errorf("%s is there again:\n%s", gone, all)
		}
	}
	if m := regexp.MustCompile(`fd08::/64 .*expires (\d+)sec`).FindStringSubmatch(all); m == nil || m[1] > "996" {
		t.Errorf("fd08:: is not there with what is left:\n%s", all)
	}
}

// Neighbours of both families move, and those that the host answers for; a route of IPv4
// may lead through IPv6; and all is given back where notes cannot be made any more, or
// the interface has been taken down meanwhile.
func TestUpOddities(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	u.host.Batch(
		"neigh add fd00::50 lladdr 02:00:00:00:00:50 dev e0 nud permanent", "neigh add proxy 10.0.0.60 dev e0", "neigh add proxy fd00::60 dev e0",
		"route add 172.31.0.0/16 via inet6 fd00::1 dev e0",
	)
	neighbours := func(dev string) string {
		return u.host.Run("sh", "-c", "ip neigh show nud permanent dev "+dev+" | grep -v NOARP; ip neigh show proxy dev "+dev)
	}
	before, known := u.looks(), neighbours("e0")
	if strings.Count(known, "\n") != 4 {
		t.Fatalf("e0 knows\n%s", known)
	}
	nettest.Run(t, "mount", "-t", "tmpfs", "-o", "size=1m", "none", u.state)
	t.Cleanup(func() { nettest.Run(t, "umount", u.state) })
	u.must("up", "e0")
	if got := neighbours(u.device("fphost")); got != known {
		t.Errorf("the host's side knows\n%swant\n%s", got, known)
	}
	_ = exec.Command("sh", "-c", "cat /dev/zero >"+u.state+"/full").Run()
	u.must("down")
	_ = os.Remove(u.state + "/full")
	u.same(before)
	if got := neighbours("e0"); got != known {
		t.Errorf("e0 knows\n%swant\n%s", got, known)
	}

	routes := u.host.Run("ip", "route")
	u.must("up", "e0")
	u.host.Run("ip", "link", "set", "e0", "down")
	u.must("down")
	if got := u.host.Run("ip", "route"); got != routes || !strings.Contains(u.host.Run("ip", "-6", "route"), "default via fd00::1 dev e0") {
		t.Errorf("e0 was down, and has\n%swant\n%s", got, routes)
	}
}

// A great many addresses come back in their order.
func TestUpMany(t *testing.T) {
	t.Parallel()
	u := newUplink(t, false)
	var many []string
	for i := range 500 {
		many = append(many, fmt.Sprintf("addr add fd78::%d/128 dev e0 nodad", i+1))
	}
	u.host.Batch(many...)
	before := u.looks()
	u.must("up", "e0")
	u.must("down")
	u.same(before)
}

// One interface that nobody keeps is not in the way of the others.
func TestUpTwo(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	u.must("up", "e0")
	if said, status := u.run("up", "l0", "-user", "daemon"); status != 1 || !strings.Contains(said, "pipelines of another interface run as nobody") {
		t.Errorf("as somebody else: status %d, %s", status, said)
	}
	u.must("up", "l0", "-confirm", "60s")
	pid, err := os.ReadFile(u.state + "/e0/pid")
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(pid)))
	_ = unix.Kill(n, unix.SIGKILL)
	eventually(t, 5*time.Second, "its end", func() bool {
		said, _ := u.run("status", "e0")
		return strings.Contains(said, "nobody keeps it running")
	})
	if said, status := u.run("confirm"); status != 1 || !strings.Contains(said, "e0: nobody is there") {
		t.Errorf("status %d, %s", status, said)
	}
	eventually(t, 5*time.Second, "confirmation", func() bool { return !strings.Contains(u.must("status", "l0"), "unless confirmed") })
	u.must("down")
	u.same(before)
}

// It may be started by a link, from anywhere, with relative directories; and files of
// stages are where they are whoever runs them.
func TestUpByLink(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	u.pipeline = t.TempDir() + "/pl"
	if err := os.Symlink(bin+"/pipeline.sh", u.pipeline); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) string {
		c := u.script(args...)
		c.Dir = filepath.Dir(u.state)
		c.Env = append(c.Environ(), "PATH="+strings.TrimPrefix(os.Getenv("PATH"), bin+":"), "PIPELINE_RUN="+filepath.Base(u.state))
		b, err := c.CombinedOutput()
		if c.ProcessState.ExitCode() != want {
			t.Fatalf("%v: %v, %s", args, err, b)
		}
		return string(b)
	}
	run(0, "up", "e0", "-user", "root", "-in", "bytehist -o hist")
	run(0, "status", "e0")
	if said := run(1, "up", "e0"); !strings.Contains(said, "e0 goes through pipelines already") {
		t.Errorf("the second up says %s", said)
	}
	run(0, "down")
	if _, err := os.Stat(u.lib + "/hist"); err != nil {
		t.Error(err)
	}
	u.same(before)
}

// Without confirmation it is undone in time.
func TestUpConfirm(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	said := u.must("up", "e0", "-confirm", "4s") // more than status takes
	if !strings.Contains(said, "without that it is undone in 4 seconds") {
		t.Errorf("up says %s", said)
	}
	if s := u.must("status"); !strings.Contains(s, "seconds, unless confirmed") {
		t.Errorf("status:\n%s", s)
	}
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if _, err := os.Stat(u.state + "/e0"); err != nil {
			break
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("it is not undone")
		}
	}
	u.same(before)
	if b, err := os.ReadFile(u.state + "/e0.log"); err != nil || !strings.Contains(string(b), "not confirmed: undone") {
		t.Errorf("nothing says why: %v, %s", err, b)
	}

	// Too late is too late, also while it is being undone.
	u.must("up", "e0", "-confirm", "1s", "-in", "bash -c 'cat; sleep 100'")
	eventually(t, 10*time.Second, "the end of the time", func() bool { _, err := os.Stat(u.state + "/e0/expired"); return err == nil })
	if s, status := u.run("confirm"); status != 1 {
		t.Errorf("confirmed when it is undone: %s", s)
	}
	eventually(t, 20*time.Second, "undone", func() bool { _, err := os.Stat(u.state + "/e0"); return err != nil })
	u.same(before)

	// And too early is too early.
	c := u.script("up", "e0", "-confirm", "5s")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the beginning", func() bool { _, err := os.Stat(u.state + "/e0/in"); return err == nil })
	s, status := u.run("confirm")
	if _, err := os.Stat(u.state + "/e0/ready"); err != nil && status != 1 {
		t.Errorf("confirmed before it stands: %s", s)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	u.must("confirm")
	time.Sleep(6 * time.Second)
	if s := u.must("status"); strings.Contains(s, "confirm") {
		t.Errorf("status:\n%s", s)
	}
	// A stage that dies is there again.
	for pid, line := range u.processes() {
		if strings.HasPrefix(line, "tunwrite") {
			_ = unix.Kill(pid, unix.SIGKILL)
			break
		}
	}
	u.ping(u.host, "10.0.0.1")
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
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v, %s", args, err, out)
		}
		return string(out)
	}
	since(1000)
	run("up", "e0", "-confirm", "10m")
	since(1599)
	if s := run("status"); !strings.HasPrefix(s, "e0: for 9m59s, ") || !strings.Contains(s, "undone in 1 seconds, unless confirmed") {
		t.Errorf("a second before the end, status has\n%s", s)
	}
	since(1600)
	eventually(t, 10*time.Second, "undone", func() bool { _, err := os.Stat(u.state + "/e0"); return err != nil })
	u.same(before)
}

func (u *uplink) ping(from *nettest.Namespace, addr string) {
	u.t.Helper()
	for range 20 {
		if from.Command("ping", "-n", "-c1", "-W1", addr).Run() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	u.t.Fatalf("%s does not answer", addr)
}

// In the cable between a router and a host behind, the two reach one another
// through the gates, and the machine itself can be reached too.
func TestUpLAN(t *testing.T) {
	t.Parallel()
	u := newUplink(t, true)
	before := u.looks()
	if said := u.must("up", "e0", "-lan", "l0", "-in", "quotagate -rate 1Gbit/s", "-out", "quotagate -rate 1Gbit/s"); !regexp.MustCompile(`its addresses are on fplan\d+, messages`).MatchString(said) {
		t.Errorf("up says %s", said)
	}
	for _, addr := range []string{"10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2"} {
		u.ping(u.behind, addr)
	}
	for _, addr := range []string{"10.0.0.1", "fd00::1", "10.0.0.3", "fd00::3"} {
		u.ping(u.host, addr)
	}
	for _, addr := range []string{"10.0.0.2", "fd00::2", "10.0.0.3", "fd00::3"} {
		u.ping(u.router, addr)
	}
	passed := func() (n [2]int) {
		for i, m := range regexp.MustCompile(`quotagate: .* passed=(\d+)`).FindAllStringSubmatch(u.must("status"), -1) {
			n[i], _ = strconv.Atoi(m[1])
		}
		return n
	}
	was := passed()
	u.behind.Run("ping", "-n", "-q", "-i", "0.002", "-c", "200", "-W", "1", "10.0.0.1")
	u.behind.Run("ping", "-n", "-q", "-i", "0.002", "-c", "200", "-W", "1", "fd00::1")
	time.Sleep(1100 * time.Millisecond) // the gates publish once a second
	now := passed()
	for i := range now {
		if now[i]-was[i] < 400 {
			t.Errorf("400 pings, and a gate passed %d frames", now[i]-was[i])
		}
	}
	if said, code := u.run("up", "l0"); code != 1 || !regexp.MustCompile(`l0 belongs to fplan\d+ already, a bridge of ours\npipeline.sh: hint: .* status\n`).MatchString(said) {
		t.Errorf("up of the other side: status %d, %s", code, said)
	}
	u.must("down")
	u.same(before)
}

// A DHCP client runs on the host's side.
func TestUpDHCP(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "udhcpd", "udhcpc")
	u := newUplink(t, false)
	before := u.looks()
	u.must("up", "e0")
	dir := t.TempDir()
	conf := fmt.Sprintf("start 10.0.0.50\nend 10.0.0.60\ninterface e1\nlease_file %s/leases\npidfile %s/pid\noption subnet 255.255.255.0\noption lease 3600\n", dir, dir)
	if err := os.WriteFile(dir+"/leases", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/conf", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	server := u.router.Command("udhcpd", "-f", dir+"/conf")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	script := dir + "/script"
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" != bound ] || ip addr add $ip/24 dev $interface\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := u.host.Run("udhcpc", "-i", u.device("fphost"), "-s", script, "-n", "-q", "-t", "10", "-T", "1")
	if !strings.Contains(out, "10.0.0.") {
		t.Errorf("the client says %s", out)
	}
	u.ping(u.host, "10.0.0.1")
	if said := u.must("down"); !strings.Contains(said, "the host's side had other addresses by now, which are gone: inet 10.0.0.") {
		t.Errorf("down says %s", said)
	}
	u.same(before)
}
