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
	// devices makes dev0 and dev1. It makes them in middle if one process opens both; they
	// are moved to their namespaces once it has.
	devices func(b *bench) error
	// join returns a shell command that runs as long as it is measured.
	join func(b *bench) string
	// joined says whether the command has begun its work.
	joined func(b *bench) bool
}

var peers = map[string]peer{
	"veth": {nil, (*bench).veth, nil, nil},
	"vde": {[]string{"vde_plug2tap", "wirefilter", "dpipe"}, (*bench).taps, func(b *bench) string {
		return "exec dpipe " + in(b.a, "vde_plug2tap -s - dev0") + " = wirefilter = " + in(b.b, "vde_plug2tap -s - dev1")
	}, nil},
	"luajit": {[]string{"luajit"}, tapsInMiddle("mode tap"), func(b *bench) string {
		return "exec " + in(b.middle, "luajit "+b.dir+"/forward.lua dev0 dev1")
	}, attached(2)},
	"run": {nil, tapsInMiddle("mode tap multi_queue vnet_hdr"), func(b *bench) string {
		return "exec " + in(b.middle, b.dir+"/bin/pipeline.sh run dev0 dev1 "+stages) + " 2>/dev/null"
	}, attached(4)},
	"up": {nil, (*bench).veth, func(b *bench) string {
		return "export PIPELINE_RUN=" + b.dir + "/run PIPELINE_LIB=" + b.dir + "/lib; exec " +
			in(b.b, b.dir+"/bin/pipeline.sh up dev1 -foreground "+stages) + " 2>/dev/null"
	}, func(b *bench) bool {
		_, err := os.Stat(b.dir + "/run/dev1/ready")
		return err == nil
	}},
}

// stages are those of both directions, as arguments of pipeline.sh.
const stages = `-in 'quotagate -quota 1PB | bytehist -o /dev/null' -out 'quotagate -quota 1PB | bytehist -o /dev/null'`

// in is a shell command inside a namespace.
func in(n netns.Namespace, command string) string { return "ip netns exec " + n.Name + " " + command }

// bench is the place where it is measured.
type bench struct {
	self, dir    string
	seconds      int
	congestion   string          // control of TCP
	a, b, middle netns.Namespace // middle only where both taps are opened by one process
	started      []int           // numbers of processes
}

func (b *bench) veth() error {
	return errors.Join(
		b.a.Batch("link add dev0 type veth peer name dev1 netns "+b.b.Name),
		b.b.Batch("link set dev1 up"))
}

func (b *bench) taps() error {
	return errors.Join(b.a.Batch("tuntap add dev dev0 mode tap"), b.b.Batch("tuntap add dev dev1 mode tap"))
}

// tapsInMiddle makes both taps in a third namespace, where one process can open them.
func tapsInMiddle(mode string) func(b *bench) error {
	return func(b *bench) (err error) {
		if b.middle, err = netns.New(fmt.Sprintf("bench-m-%d", os.Getpid())); err != nil {
			return err
		}
		var lines []string
		for _, dev := range []string{"dev0", "dev1"} {
			lines = append(lines, "tuntap add dev "+dev+" "+mode, "link set "+dev+" addrgenmode none up")
		}
		return b.middle.Batch(lines...)
	}
}

// attached returns a function that says whether the taps have been opened, so many times in
// all, by the interfaces that /proc shows for open files (tun_chr_show_fdinfo in
// drivers/net/tun.c).
func attached(times int) func(b *bench) bool {
	return func(b *bench) bool {
		n := 0
		for pid := range processes(b.started) {
			files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
			for _, name := range files {
				if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "iff:\tdev") {
					n++
				}
			}
		}
		return n == times
	}
}

// start runs a shell command.
func (b *bench) start(line string) error {
	c := exec.Command("bash", "-c", line)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	b.started = append(b.started, c.Process.Pid)
	go func() { _ = c.Wait() }()
	return nil
}

// down takes away all that one measures with.
func (b *bench) down() {
	all := processes(b.started)
	for _, pid := range b.started {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	gone := func(pid int) bool { return syscall.Kill(pid, 0) != nil }
	for pid := range all {
		if !process.Until(5*time.Second, func() bool { return gone(pid) }) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	b.started = nil
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
	if p.join != nil {
		if err := b.start(p.join(b)); err != nil {
			return err
		}
	}
	if p.joined != nil && !process.Until(5*time.Second, func() bool { return p.joined(b) }) {
		return errors.New("it has not begun within five seconds")
	}
	if b.middle.Name != "" {
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
	if err := b.start("exec " + in(b.b, "iperf3 -s >/dev/null 2>&1")); err != nil {
		return nil, err
	}
	server := len(b.started) - 1
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
	// Idle first: round trips at the pace of typing.
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
	if err != nil {
		r[4] = math.NaN() // there was no load
	}
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

// cpu returns the processor seconds that the processes started before the given one, and their
// children, have used.
func (b *bench) cpu(before int) (sum float64) {
	for _, seconds := range processes(b.started[:before]) {
		sum += seconds
	}
	return sum
}

// processes returns the running ones among these and all that they have begun, each with the
// seconds of a processor that it has used, by /proc: proc_pid_stat(5).
func processes(roots []int) map[int]float64 {
	used, children := map[int]float64{}, map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest)
		if len(f) < 15 || f[0] == "Z" {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, _ := strconv.Atoi(f[1])
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		used[pid] = (user + system) / 100
		children[parent] = append(children[parent], pid)
	}
	all := map[int]float64{}
	for todo := slices.Clone(roots); len(todo) > 0; todo = todo[1:] {
		if seconds, running := used[todo[0]]; running {
			all[todo[0]] = seconds
			todo = append(todo, children[todo[0]]...)
		}
	}
	return all
}
