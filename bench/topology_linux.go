package main

import (
	"encoding/json"
	"errors"
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

	"framepipe/internal/netns"
	"framepipe/internal/process"
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
		return []string{"dpipe " + in(b.a, "vde_plug2tap -s - dev0") + " = wirefilter = " + in(b.b, "vde_plug2tap -s - dev1")}
	}},
	"luajit": {[]string{"luajit"}, (*bench).sameNamespace, func(b *bench) []string {
		return []string{in(b.middle, "luajit "+b.dir+"/forward.lua dev0 dev1")}
	}},
	"pipeline": {nil, taps("mode tap multi_queue vnet_hdr"), func(b *bench) []string {
		return []string{b.half(b.a, "dev0", b.b, "dev1"), b.half(b.b, "dev1", b.a, "dev0")}
	}},
	"diverted": {nil, (*bench).besideVeth, func(b *bench) []string {
		return []string{
			b.half(b.b, "net", b.b, "host"), b.half(b.b, "host", b.b, "net"),
			"exec " + in(b.b, b.dir+"/tundivert dev1 net host >/dev/null"),
		}
	}},
}

// in is a shell command inside a namespace.
func in(n netns.Namespace, command string) string { return "ip netns exec " + n.Name + " " + command }

// half is all four tools in one direction.
func (b *bench) half(from netns.Namespace, dev0 string, to netns.Namespace, dev1 string) string {
	return in(from, b.dir+"/tunread "+dev0) + " | " + b.dir + "/quotagate -quota 1PB | " +
		b.dir + "/bytehist -o /dev/null | " + in(to, b.dir+"/tunwrite "+dev1)
}

// bench is the place where it is measured.
type bench struct {
	self, dir    string
	seconds      int
	congestion   string          // control of TCP
	a, b, middle netns.Namespace // middle only where both taps are opened by one process
	groups       []int           // of the processes that were started
}

func (b *bench) veth() error {
	return b.a.Batch("link add dev0 type veth peer name dev1 netns " + b.b.Name)
}

func taps(mode string) func(b *bench) error {
	return func(b *bench) error {
		return errors.Join(b.a.Batch("tuntap add dev dev0 "+mode), b.b.Batch("tuntap add dev dev1 "+mode))
	}
}

// besideVeth makes a veth pair, and the taps that the frames of dev1 are to go through.
func (b *bench) besideVeth() error {
	var lines []string
	for _, tap := range []string{"net", "host"} {
		lines = append(lines, "tuntap add dev "+tap+" mode tap multi_queue vnet_hdr", "link set "+tap+" addrgenmode none up")
	}
	return errors.Join(b.veth(), b.b.Batch(lines...))
}

// sameNamespace makes both taps in a third namespace, where one process can
// open them. They are moved to where they belong once it has.
func (b *bench) sameNamespace() (err error) {
	if b.middle, err = netns.New(fmt.Sprintf("bench-m-%d", os.Getpid())); err != nil {
		return err
	}
	return b.middle.Batch("tuntap add dev dev0 mode tap", "tuntap add dev dev1 mode tap")
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
	for _, n := range []*netns.Namespace{&b.a, &b.b, &b.middle} {
		if n.Name != "" {
			n.Delete()
		}
		n.Name = ""
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
	var err1, err2 error
	b.a, err1 = netns.New(fmt.Sprintf("bench-a-%d", os.Getpid()))
	b.b, err2 = netns.New(fmt.Sprintf("bench-b-%d", os.Getpid()))
	if err := errors.Join(err1, err2); err != nil {
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
	if b.middle.Name != "" { // the process has them by now
		time.Sleep(300 * time.Millisecond)
		if err := b.middle.Batch("link set dev0 netns "+b.a.Name, "link set dev1 netns "+b.b.Name); err != nil {
			return err
		}
	}
	if err := errors.Join(
		b.a.Batch("addr add 10.78.0.1/24 dev dev0", "link set dev0 up"),
		b.b.Batch("addr add 10.78.0.2/24 dev dev1", "link set dev1 up")); err != nil {
		return err
	}
	if !process.Until(5*time.Second, func() bool { return b.in(b.a, "ping", "-c1", "-W1", "10.78.0.2").Run() == nil }) {
		return errors.New("no answer to a ping in five seconds")
	}
	return nil
}

func (b *bench) in(n netns.Namespace, name string, args ...string) *exec.Cmd {
	// What hangs, such as a peer that has lost its place in its stream, must not
	// hang all.
	return exec.Command("timeout", append([]string{strconv.Itoa(3*b.seconds + 10)}, n.Command(name, args...).Args...)...)
}

// one measures a peer once.
func (b *bench) one(p peer) (r result, err error) {
	defer b.down()
	if err := b.up(p); err != nil {
		return nil, err
	}
	if err := b.start("exec " + in(b.b, "iperf3 -s >/dev/null")); err != nil {
		return nil, err
	}
	server := len(b.groups) - 1
	time.Sleep(300 * time.Millisecond)
	r = make(result, len(measures))
	for i := range r {
		r[i] = math.NaN()
	}

	// A peer may fail in one test, such as VDE, which now and then loses its place in its
	// stream. Report that, and go on with the next test.
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
	out, err := b.in(b.a, "iperf3", "-c", "10.78.0.2", "-J", "-C", b.congestion, "-t", strconv.Itoa(b.seconds), "-O", "1", "-P", strconv.Itoa(flows)).Output()
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
	out, err := b.in(b.a, "ping", append(args, "-W", "2", "10.78.0.2")...).Output()
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
	sink := b.in(b.b, b.self, "sink", "10.78.0.2:9", strconv.Itoa(b.seconds))
	flood := b.in(b.a, b.self, "flood", "10.78.0.2:9", strconv.Itoa(b.seconds+1))
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
