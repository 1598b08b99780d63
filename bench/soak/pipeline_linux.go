package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"framepipe/internal/hist"
	"framepipe/internal/ledger"
	"framepipe/internal/netns"
	"framepipe/internal/process"
	"framepipe/internal/sandbox"

	"golang.org/x/sys/unix"
)

// host is one of the two ends: a namespace with a tap.
type host struct {
	netns.Namespace
	tap    string
	v4, v6 string
}

// queueLength is how many frames wait in a tap for its reader.
const queueLength = 128

func (h *host) make(name string) (err error) {
	if h.Namespace, err = netns.New(name); err != nil {
		return err
	}
	return h.Batch(
		"tuntap add dev "+h.tap+" mode tap multi_queue vnet_hdr",
		"addr add "+h.v4+"/24 dev "+h.tap,
		"addr add "+h.v6+"/64 dev "+h.tap,
		fmt.Sprintf("link set %s txqueuelen %d", h.tap, queueLength),
		"link set "+h.tap+" up")
}

// device has the kernel's counts of a tap.
type device struct {
	sent, received count
	txDropped      int64
}

func (h *host) device() (d device, err error) {
	n, err := h.Statistics(h.tap)
	return device{
		count{int64(n["tx_packets"]), int64(n["tx_bytes"])}, count{int64(n["rx_packets"]), int64(n["rx_bytes"])}, int64(n["tx_dropped"]),
	}, err
}

// stage is a running process of a pipeline.
type stage struct {
	*process.Stage
	messages
	born time.Time
}

// messages are those of a stage.
type messages struct {
	name  string        // of the stage
	ready chan struct{} // closed when its signals are set up and its files open

	mu    sync.Mutex
	rest  []byte // of a line
	begun bool
	line  counters // the last
	lines int
	said  []string // what else it said after it was ready
}

var pair = regexp.MustCompile(`(\w+)=(\d+)\b`)

// Write takes the messages of the stage.
func (s *messages) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, p...)
	for {
		line, rest, ok := bytes.Cut(s.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		s.hear(strings.TrimPrefix(string(line), s.name+": "))
		s.rest = bytes.Clone(rest)
	}
}

func (s *messages) hear(line string) {
	switch {
	case strings.HasPrefix(line, "frames=") || strings.HasPrefix(line, "state="):
		s.line = counters{}
		for _, m := range pair.FindAllStringSubmatch(line, -1) {
			s.line[m[1]], _ = strconv.ParseInt(m[2], 10, 64)
		}
		s.lines++
	case strings.HasPrefix(line, "sandbox: "):
		s.begun = true
		close(s.ready)
	case s.begun || !strings.HasPrefix(line, "tap"): // its first line is about the device
		s.said = append(s.said, line)
	}
}

func (s *messages) last() (counters, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.line, s.lines
}

// direction is one of the two pipelines: its stages, while it lives, and what there
// is to know of its earlier lives.
type direction struct {
	name     string
	from, to *host
	dir      string // of the files
	tools    string
	quota    string
	window   time.Duration
	rng      *rand.Rand

	mu    sync.Mutex
	now   []*stage
	lives map[string][]life
	runs  []*run
	open  int // seconds
	shut  int
}

func (d *direction) file(kind string) string { return filepath.Join(d.dir, d.name+"."+kind) }

// book returns the bytes of a direction in the ledger.
func (d *direction) book() (offered, charged int64, err error) {
	l, err := ledger.Read(filepath.Join(d.dir, "ledger"))
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	x := ledger.In
	if d.name == "out" {
		x = ledger.Out
	}
	for _, c := range l.Cycles() {
		for i := range c.Slots {
			offered += c.Slot(i, x).Offered.Load()
			charged += c.Slot(i, x).Charged.Load()
		}
	}
	return offered, charged, nil
}

// start starts the stages. Now and then the source leaves out offload, or the sink.
func (d *direction) start() ([]*stage, error) {
	read, write := []string{"-v"}, []string{"-v"}
	switch d.rng.IntN(8) {
	case 0:
		read = append(read, "-offload=false")
	case 1:
		write = append(write, "-offload=off")
	}
	path := func(name string) string { return filepath.Join(d.tools, name) }
	cmds := []*exec.Cmd{
		d.from.Command(path("tunread"), append(read, d.from.tap)...),
		exec.Command(path("quotagate"), "-v", "-quota", d.quota, "-window", d.window.String(), "-cycle", "1d",
			"-ledger", filepath.Join(d.dir, "ledger"), "-dir", d.name, "-charge", "passed", "-bill", "sum", "-metrics", d.file("prom")),
		exec.Command(path("bytehist"), "-v", "-sample", "1", "-every", "1s", "-format", "json", "-o", d.file("json")),
		d.to.Command(path("tunwrite"), append(write, d.to.tap)...),
	}
	all := make([]*stage, len(cmds))
	for i, c := range cmds {
		all[i] = &stage{messages: messages{name: stages[i], ready: make(chan struct{})}, born: time.Now()}
		c.Stderr = &all[i].messages
		// What a terminal sends is for us alone.
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	started, err := process.Start(os.Pipe, cmds...)
	if err != nil {
		return nil, err
	}
	for i, s := range all {
		s.Stage = started[i]
	}
	for _, s := range all {
		select {
		case <-s.ready:
		case <-s.Done:
			return all, fmt.Errorf("%s ended at once: %s %s", s.name, s.ProcessState, s.said)
		case <-time.After(10 * time.Second):
			return all, fmt.Errorf("%s is not ready after ten seconds", s.name)
		}
	}
	return all, nil
}

// live runs the pipeline once. wait waits until it is time for it to end, or a stage
// is gone, and returns which one to kill; if none, it is drained.
func (d *direction) live(wait func(gone <-chan struct{}) (killed string)) (*run, error) {
	r := &run{dir: d.name, n: len(d.runs) + 1}
	for _, kind := range []string{"json", "prom"} {
		_ = os.Remove(d.file(kind))
	}
	from, err := d.from.device()
	if err != nil {
		return nil, err
	}
	to, err := d.to.device()
	if err != nil {
		return nil, err
	}
	offered, charged, err := d.book()
	if err != nil {
		return nil, err
	}
	all, err := d.start()
	defer func() {
		for _, s := range all {
			_ = s.Process.Kill()
		}
	}()
	if err != nil {
		return nil, err
	}
	d.watch(all)
	gone := make(chan struct{})
	var once sync.Once
	for _, s := range all {
		go func() {
			<-s.Done
			once.Do(func() { close(gone) })
		}()
	}
	r.killed = wait(gone)
	select {
	case <-gone:
		r.killed = ""
		for _, s := range all {
			if s.Gone() {
				r.faults = append(r.faults, s.name+" has ended by itself")
			}
		}
	default:
		if r.killed == "" {
			_ = all[0].Process.Signal(unix.SIGTERM)
		} else {
			d.kill(r, all[slices.Index(stages, r.killed)])
		}
	}
	// A gate whose window is full lets out its queue as old traffic leaves the window.
	const patience = 10 * time.Second
	limit := time.After(patience + d.window)
	for _, s := range all {
		select {
		case <-s.Done:
		case <-limit:
			return nil, fmt.Errorf("%s %d: %s is still there %v after the end", d.name, r.n, s.name, patience+d.window)
		}
	}
	d.watch(nil)
	if err := d.gather(r, all); err != nil {
		return nil, err
	}
	after, err := d.from.device()
	if err != nil {
		return nil, err
	}
	r.sent = count{after.sent.frames - from.sent.frames, after.sent.bytes - from.sent.bytes}
	if after, err = d.to.device(); err != nil {
		return nil, err
	}
	r.received = count{after.received.frames - to.received.frames, after.received.bytes - to.received.bytes}
	o, c, err := d.book()
	if err != nil {
		return nil, err
	}
	r.offered, r.charged = o-offered, c-charged
	d.mu.Lock()
	d.runs = append(d.runs, r)
	d.mu.Unlock()
	return r, nil
}

// kill kills a stage. Tunread, which may have dropped frames, and tunwrite, behind which the
// kernel counts in another way, are asked for their line just before.
func (d *direction) kill(r *run, s *stage) {
	if s.name == "tunread" || s.name == "tunwrite" {
		_, had := s.last()
		_ = s.Process.Signal(unix.SIGUSR1)
		for end := time.Now().Add(5 * time.Second); r.before == nil && time.Now().Before(end); time.Sleep(500 * time.Microsecond) {
			if line, n := s.last(); n > had {
				r.before = line
			}
		}
		if r.before == nil {
			r.faults = append(r.faults, s.name+" does not answer SIGUSR1")
		}
	}
	_ = s.Process.Kill()
}

// cutOff is the message of a stage behind one that was killed.
var cutOff = regexp.MustCompile(`ends inside`)

// gather takes the counters and reports that the stages of a run have left behind.
func (d *direction) gather(r *run, all []*stage) (err error) {
	for i, s := range all {
		line, _ := s.last()
		if s.name == r.killed {
			continue
		}
		if line == nil {
			r.faults = append(r.faults, s.name+" has printed no counters")
			line = counters{}
		}
		*[]*counters{&r.read, &r.gate, &r.hist, &r.write}[i] = line
		cut := false
		for _, text := range s.said {
			if cut = r.killed != "" && cutOff.MatchString(text); !cut {
				r.faults = append(r.faults, s.name+" said: "+text)
			}
		}
		if status := s.ProcessState.ExitCode(); status != 0 && !cut {
			r.faults = append(r.faults, fmt.Sprintf("%s: %s", s.name, s.ProcessState))
		}
	}
	if r.killed != "bytehist" {
		if r.reports, err = reports(d.file("json")); err != nil {
			return err
		}
	}
	if r.killed == "quotagate" {
		r.published, err = dropped(d.file("prom"))
	}
	return err
}

// reports adds up the reports of a bytehist.
func reports(name string) (counters, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	sum := counters{}
	for line := range bytes.Lines(b) {
		var r hist.Report
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		sum["frames"] += int64(r.Frames)
		sum["bytes"] += int64(r.Bytes)
		sum["ethernet_bytes"] += int64(r.Ethernet)
		for _, n := range r.Counts {
			sum["counts"] += int64(n)
		}
	}
	return sum, nil
}

var isOpen = regexp.MustCompile(`(?m)^quotagate_open(\{.*\})? 1$`)

var droppedBytes = regexp.MustCompile(`(?m)^quotagate_dropped_bytes_total\{.*\} (\d+)$`)

// dropped adds up the dropped bytes in the metrics of a gate.
func dropped(name string) (counters, error) {
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	c := counters{}
	for _, m := range droppedBytes.FindAllSubmatch(b, -1) {
		n, _ := strconv.ParseInt(string(m[1]), 10, 64)
		c["dropped_bytes"] += n
	}
	return c, nil
}

// watch has the processes of a new life looked at, none if that is over.
func (d *direction) watch(all []*stage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = all
	for _, s := range all {
		d.lives[s.name] = append(d.lives[s.name], nil)
	}
}

// look takes a sample of each process, and of the gate.
func (d *direction) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.now {
		if s.Gone() {
			continue
		}
		memory, files, err := footprint(s.Process.Pid)
		if err != nil { // it has just gone, or come
			continue
		}
		l := d.lives[s.name]
		l[len(l)-1] = append(l[len(l)-1], sample{time.Since(s.born), memory, files})
		if s.name == "quotagate" {
			if b, err := os.ReadFile(d.file("prom")); err == nil {
				if isOpen.Match(b) {
					d.open++
				} else {
					d.shut++
				}
			}
		}
	}
}

var (
	anonymous = regexp.MustCompile(`RssAnon:\s+(\d+) kB`)
	sealed    = regexp.MustCompile(`NoNewPrivs:\s+1`)
)

// footprint returns the memory that is a process's own, and how many descriptors it
// has. It is an error if its files are not open yet, after which it enters its sandbox.
func footprint(pid int) (memory int64, files int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	m := anonymous.FindSubmatch(b)
	if m == nil {
		return 0, 0, errors.New("no memory any more")
	}
	if os.Getenv(sandbox.Off) == "" && !sealed.Match(b) {
		return 0, 0, errors.New("not begun yet")
	}
	memory, _ = strconv.ParseInt(string(m[1]), 10, 64)
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	fds, err := os.ReadDir(dir)
	for _, fd := range fds {
		// Go's runtime opens these two for its first timer.
		if to, _ := os.Readlink(dir + fd.Name()); to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			files++
		}
	}
	return memory << 10, files, err
}
