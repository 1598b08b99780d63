package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// peer is something that joins two interfaces in two network namespaces: dev0 in
// a and dev1 in b.
type peer struct {
	needs []string
	// devices makes dev0 and dev1.
	devices func(b *bench) error
	// join returns the shell commands that run as long as it is measured.
	join func(b *bench) []string
}

var peers = map[string]peer{
	"veth": {nil, (*bench).veth, func(*bench) []string { return nil }},
	"vde": {[]string{"vde_plug2tap", "wirefilter", "dpipe"}, taps("mode tap"), func(b *bench) []string {
		return []string{fmt.Sprintf("dpipe ip netns exec %s vde_plug2tap -s - dev0 = wirefilter = ip netns exec %s vde_plug2tap -s - dev1", b.a(), b.b())}
	}},
	"luajit": {[]string{"luajit"}, (*bench).sameNamespace, func(b *bench) []string {
		return []string{fmt.Sprintf("ip netns exec %s luajit %s/forward.lua dev0 dev1", b.middle(), b.source)}
	}},
	"pipeline": {nil, taps("mode tap multi_queue vnet_hdr"), func(b *bench) []string {
		return []string{b.half(b.a(), "dev0", b.b(), "dev1"), b.half(b.b(), "dev1", b.a(), "dev0")}
	}},
	"diverted": {nil, (*bench).besideVeth, func(b *bench) []string {
		return []string{
			b.half(b.b(), "net", b.b(), "host"), b.half(b.b(), "host", b.b(), "net"),
			fmt.Sprintf("exec ip netns exec %s %s/tundivert dev1 net host >/dev/null", b.b(), b.dir),
		}
	}},
}

// half is all four tools in one direction.
func (b *bench) half(from, dev0, to, dev1 string) string {
	return fmt.Sprintf("ip netns exec %[1]s %[5]s/tunread %[2]s | %[5]s/quotagate -quota 1PB | %[5]s/bytehist -o /dev/null | ip netns exec %[3]s %[5]s/tunwrite %[4]s", from, dev0, to, dev1, b.dir)
}

// bench is the place where it is measured.
type bench struct {
	self, dir, source string
	seconds           int
	congestion        string // control of TCP
	groups            []int  // of the processes that were started
}

func (b *bench) a() string      { return fmt.Sprintf("bench-a-%d", os.Getpid()) }
func (b *bench) b() string      { return fmt.Sprintf("bench-b-%d", os.Getpid()) }
func (b *bench) middle() string { return fmt.Sprintf("bench-m-%d", os.Getpid()) }

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

func ips(lines ...string) error {
	for _, l := range lines {
		if err := ip(l); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) veth() error {
	return ip(fmt.Sprintf("link add dev0 netns %s type veth peer name dev1 netns %s", b.a(), b.b()))
}

func taps(mode string) func(b *bench) error {
	return func(b *bench) error {
		return ips(
			fmt.Sprintf("-n %s tuntap add dev dev0 %s", b.a(), mode),
			fmt.Sprintf("-n %s tuntap add dev dev1 %s", b.b(), mode))
	}
}

// besideVeth makes a veth pair, and the taps that the frames of dev1 are to go through.
func (b *bench) besideVeth() error {
	if err := b.veth(); err != nil {
		return err
	}
	for _, tap := range []string{"net", "host"} {
		if err := ips(
			fmt.Sprintf("-n %s tuntap add dev %s mode tap multi_queue vnet_hdr", b.b(), tap),
			fmt.Sprintf("-n %s link set %s addrgenmode none up", b.b(), tap)); err != nil {
			return err
		}
	}
	return nil
}

// sameNamespace makes both taps in a third namespace, where one process can
// open them, and moves them to where they belong once it has.
func (b *bench) sameNamespace() error {
	return ips(
		"netns add "+b.middle(),
		fmt.Sprintf("-n %s tuntap add dev dev0 mode tap", b.middle()),
		fmt.Sprintf("-n %s tuntap add dev dev1 mode tap", b.middle()))
}

// start runs a shell command in a process group of its own.
func (b *bench) start(line string) error {
	c := exec.Command("bash", "-c", line)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	b.groups = append(b.groups, c.Process.Pid)
	go func() { _ = c.Wait() }()
	return nil
}

// down takes away all that one measures with.
func (b *bench) down() {
	for _, g := range b.groups {
		_ = syscall.Kill(-g, syscall.SIGKILL)
	}
	b.groups = nil
	for _, n := range []string{b.a(), b.b(), b.middle()} {
		_ = exec.Command("ip", "netns", "del", n).Run()
	}
}

func (b *bench) clean() {
	b.down()
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

// up puts a peer between the namespaces and waits until it answers.
func (b *bench) up(p peer) error {
	if err := ips("netns add "+b.a(), "netns add "+b.b()); err != nil {
		return err
	}
	if err := p.devices(b); err != nil {
		return err
	}
	for _, line := range p.join(b) {
		if err := b.start(line); err != nil {
			return err
		}
	}
	if ip("netns exec "+b.middle()+" true") == nil { // the process has them by now
		time.Sleep(300 * time.Millisecond)
		if err := ips(
			fmt.Sprintf("-n %s link set dev0 netns %s", b.middle(), b.a()),
			fmt.Sprintf("-n %s link set dev1 netns %s", b.middle(), b.b())); err != nil {
			return err
		}
	}
	for _, x := range []struct{ ns, dev, addr string }{{b.a(), "dev0", "10.78.0.1/24"}, {b.b(), "dev1", "10.78.0.2/24"}} {
		if err := ips(
			fmt.Sprintf("-n %s addr add %s dev %s", x.ns, x.addr, x.dev),
			fmt.Sprintf("-n %s link set lo up", x.ns),
			fmt.Sprintf("-n %s link set %s up", x.ns, x.dev)); err != nil {
			return err
		}
	}
	return sleepUntil("a ping", func() bool { return b.in(b.a(), "ping", "-c1", "-W1", "10.78.0.2").Run() == nil })
}

func (b *bench) in(ns, name string, args ...string) *exec.Cmd {
	// What hangs, such as a peer that has lost its place in its stream, must not
	// hang all.
	return exec.Command("timeout", append([]string{strconv.Itoa(3*b.seconds + 10), "ip", "netns", "exec", ns, name}, args...)...)
}

// one measures a peer once.
func (b *bench) one(p peer) (r result, err error) {
	defer b.down()
	if err := b.up(p); err != nil {
		return nil, err
	}
	if err := b.start("exec ip netns exec " + b.b() + " iperf3 -s >/dev/null"); err != nil {
		return nil, err
	}
	server := len(b.groups) - 1
	time.Sleep(300 * time.Millisecond)
	r = make(result, len(measures))
	for i := range r {
		r[i] = math.NaN()
	}

	// A peer may fail at one thing, such as VDE, which now and then loses its
	// place in its stream: that is said, and what it does next is measured.
	note := func(err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, " [%v]", err)
		}
	}
	// Idle first: round trips at the pace of somebody who types.
	r[3], err = b.ping("-i", "0.2", "-c", strconv.Itoa(8*b.seconds))
	note(err)
	before := b.cpu(server)
	var bytes float64
	bytes, r[0], err = b.tcp(1)
	note(err)
	if used := b.cpu(server) - before; used > 0 && bytes > 0 {
		r[5] = used / (bytes / 1e9)
	}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		time.Sleep(500 * time.Millisecond)
		var err error
		r[4], err = b.ping("-i", "0.05", "-c", strconv.Itoa(20*(b.seconds-1)))
		note(err)
	}()
	_, r[1], err = b.tcp(4)
	note(err)
	wg.Wait()
	r[2], err = b.udp()
	note(err)
	return r, nil
}

// tcp returns the bytes that arrived, and the rate in Gbit/s.
func (b *bench) tcp(flows int) (bytes, rate float64, err error) {
	out, err := b.in(b.a(), "iperf3", "-c", "10.78.0.2", "-J", "-C", b.congestion, "-t", strconv.Itoa(b.seconds), "-O", "1", "-P", strconv.Itoa(flows)).Output()
	var j struct {
		End struct {
			Received struct {
				Bytes float64 `json:"bytes"`
				BPS   float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
		Error string `json:"error"`
	}
	if e := json.Unmarshal(out, &j); e != nil || j.Error != "" || j.End.Received.Bytes == 0 {
		return math.NaN(), math.NaN(), fmt.Errorf("iperf3: no result: %v %s", err, j.Error)
	}
	return j.End.Received.Bytes, j.End.Received.BPS / 1e9, nil
}

// ping returns the median round trip, in milliseconds.
func (b *bench) ping(args ...string) (float64, error) {
	out, err := b.in(b.a(), "ping", append(args, "-W", "2", "10.78.0.2")...).Output()
	if len(out) == 0 {
		return math.NaN(), fmt.Errorf("ping: %w", err)
	}
	var rtts []float64
	for line := range strings.Lines(string(out)) {
		if _, rest, ok := strings.Cut(line, " time="); ok {
			v, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				return 0, err
			}
			rtts = append(rtts, v)
		}
	}
	slices.Sort(rtts)
	return median(rtts), nil
}

// udp returns the thousands of frames of 64 bytes that arrive in a second.
func (b *bench) udp() (float64, error) {
	sink := b.in(b.b(), b.self, "sink", "10.78.0.2:9", strconv.Itoa(b.seconds))
	flood := b.in(b.a(), b.self, "flood", "10.78.0.2:9", strconv.Itoa(b.seconds+1))
	if err := flood.Start(); err != nil {
		return math.NaN(), err
	}
	time.Sleep(500 * time.Millisecond)
	out, err := sink.Output()
	if e := flood.Wait(); err == nil {
		err = e
	}
	if err != nil {
		return math.NaN(), fmt.Errorf("udp: %w", err)
	}
	rate, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return rate / 1e3, err
}

// cpu returns the processor seconds that the peer's processes have used, which
// are those of all groups before one.
func (b *bench) cpu(before int) (sum float64) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest)
		if len(f) < 15 {
			continue
		}
		group, _ := strconv.Atoi(f[2])
		if slices.Contains(b.groups[:before], group) {
			user, _ := strconv.ParseFloat(f[11], 64)
			system, _ := strconv.ParseFloat(f[12], 64)
			sum += (user + system) / 100
		}
	}
	return sum
}
