package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/ping"
	"framepipe/internal/process"
	"framepipe/internal/traffic"

	"golang.org/x/sys/unix"
)

const (
	stagePy    = "../../examples/stage.py"
	quotaLua   = "../../examples/quota.lua"
	linkSh     = "../../examples/link.sh"
	wirefilter = "../../examples/wirefilter.sh"
)

// buildExamples builds those of the examples that are programs, beside the tools.
var buildExamples = sync.OnceValue(func() error {
	if out, err := exec.Command("rustc", "-O", "-o", bin+"/stage-rs", root+"/examples/stage.rs").CombinedOutput(); err != nil || len(out) > 0 {
		return fmt.Errorf("rustc: %v\n%s", err, out)
	}
	return process.Build(bin, "framepipe/examples/...")
})

// examples makes all the examples ready.
func examples(t testing.TB) {
	t.Helper()
	needPython(t)
	nettest.Programs(t, "rustc", "luajit", "pv")
	if exec.Command("luajit", "-e", "require 'MessagePack'").Run() != nil {
		nettest.Skip(t, "needs lua-messagepack")
	}
	if err := buildExamples(); err != nil {
		t.Fatal(err)
	}
}

func needPython(t testing.TB) {
	t.Helper()
	if exec.Command("/usr/bin/python3", "-c", "import msgpack").Run() != nil {
		nettest.Skip(t, "needs python3-msgpack")
	}
}

// mixed is a stream of all that a stream may hold: heads of both kinds, frames
// of all sizes up to the largest, additions, foreign encodings, annotations.
func mixed() []byte {
	var b bytes.Buffer
	w := frame.NewWriter(&b)
	_ = w.Header(frame.LinkEthernet, "tap0")
	for i := range 400 {
		s := packettest.Spec{UDP: i%2 == 0, V6: i%3 == 0, Tags: i % 4, Payload: packettest.Bytes(i * 3)}
		_ = w.Write(&frame.Record{Time: uint64(i), Frame: s.Frame()})
		h, f := packettest.Spec{Payload: packettest.Bytes(100 * i)}.Super(1460)
		_ = w.Write(&frame.Record{Time: 1e18, Offload: h, Frame: f})
		_ = w.Write(&frame.Record{Frame: s.Frame(), Extra: []byte{0x92, 1, 0xa1, 'x'}, Extras: 1})
		if i%50 == 0 {
			_ = w.Annotate(map[string]any{"note": i})
			_ = w.Write(&frame.Record{Time: 1, Frame: packettest.Bytes(frame.MaxFrame - i)})
			// The short forms that libraries write.
			_ = w.WriteRaw(append([]byte{0x93, 1, 0xc0, 0xc4, 60}, packettest.Bytes(60)...))
		}
	}
	_ = w.Flush()
	return b.Bytes()
}

// passers are stages that pass everything: the examples, and programs of others.
var passers = [][]string{
	{"stage-go", "-most", "2000000"},
	{stagePy, "99"},
	{quotaLua, "1e12"},
	{"stage-rs", "0"},
	{"tee", "/dev/null"},
	{"pv", "-q"},
}

func TestExamples(t *testing.T) {
	examples(t)
	t.Run("pass", examplesPass)
	t.Run("vectors", examplesVectors)
	t.Run("end", examplesEnd)
	t.Run("messages", examplesMessages)
	t.Run("drop", examplesDrop)
}

// What passes is the same, bit for bit, read at once or in pieces.
func examplesPass(t *testing.T) {
	in, small := mixed(), stream(40, 500, time.Millisecond)
	for _, p := range passers {
		out, stderr, status := through(t, in, p[0], p[1:]...)
		if !bytes.Equal(out, in) || status != 0 {
			t.Errorf("%v: %d bytes of %d, the same: %v; status %d, %s", p, len(out), len(in), bytes.HasPrefix(in, out), status, stderr)
		}
		// A first part that ends anywhere, and the rest when that is through.
		for _, cut := range []int{58, 61, 70, 83, 5000} {
			all, w, r := piped(t, exec.Command(p[0], p[1:]...))
			_, err1 := w.Write(small[:cut])
			time.Sleep(20 * time.Millisecond)
			_, err2 := w.Write(small[cut:])
			w.Close()
			got, err3 := io.ReadAll(r)
			ended(t, all...)
			if err := errors.Join(err1, err2, err3); err != nil || !bytes.Equal(got, small) {
				t.Errorf("%v: cut at %d, %d bytes came, want %d; %v", p, cut, len(got), len(small), err)
			}
		}
	}
}

// The examples read the vectors: what is good passes as it came, up to where
// there is something wrong, which they say.
func examplesVectors(t *testing.T) {
	const dir = "../../frame/testdata/vectors/"
	names, err := filepath.Glob(dir + "*.frames")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	// What these let pass, and leave to the stage behind them to refuse. Short
	// as they are, they look at what they use.
	leaves := map[string]string{
		stagePy:    "bad-depth-33",
		"stage-rs": "bad-link bad-version",
		quotaLua:   "bad-depth-33 bad-frame-string bad-link bad-offload-9 bad-offload-string bad-time-float bad-time-negative bad-version",
	}
	for _, p := range passers[:4] {
		for _, name := range names {
			in, err1 := os.ReadFile(name)
			name = strings.TrimSuffix(name, ".frames")
			meaning, err2 := os.ReadFile(name + ".json")
			var v struct{ Error *struct{ Offset int } }
			if err := errors.Join(err1, err2, json.Unmarshal(meaning, &v)); err != nil {
				t.Fatal(err)
			}
			want := in
			if slices.Contains(strings.Fields(leaves[p[0]]), filepath.Base(name)) {
				v.Error = nil
			}
			if v.Error != nil {
				want = in[:v.Error.Offset]
			}
			out, stderr, status := through(t, in, p[0], p[1:]...)
			if !bytes.Equal(out, want) || (status != 0) != (v.Error != nil) {
				t.Errorf("%v, %s: %d bytes, want %d; status %d, %s", p, name, len(out), len(want), status, stderr)
			}
			if v.Error != nil && !strings.Contains(stderr, fmt.Sprintf("offset %d: ", v.Error.Offset)) {
				t.Errorf("%v, %s: says %q, want offset %d", p, name, stderr, v.Error.Offset)
			}
		}
	}
}

// They end in silence when nobody reads what they write, though no frame comes,
// and at ^C not before their input does.
func examplesEnd(t *testing.T) {
	in := stream(10, 100, time.Millisecond)
	for _, p := range passers[:4] {
		s, w, out := piped(t, exec.Command(p[0], p[1:]...), exec.Command("head", "-c", fmt.Sprint(len(in))))
		if _, err := w.Write(in); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(out)
		ended(t, s...)
		says := s[0].Said.String()
		if p[0] == quotaLua { // it counts to the end
			says = ""
		}
		if err != nil || says != "" || !bytes.Equal(got, in) {
			t.Errorf("%v: %v, %q, %d bytes of %d", p, err, says, len(got), len(in))
		}
	}
	for _, p := range passers[1:4] {
		s, w, out := piped(t, exec.Command(p[0], p[1:]...))
		for i := range 2 {
			_, err1 := w.Write(in)
			got, err2 := io.ReadAll(io.LimitReader(out, int64(len(in))))
			if err := errors.Join(err1, err2); err != nil || !bytes.Equal(got, in) {
				t.Errorf("%v: %d bytes, %v", p, len(got), err)
			}
			if i == 0 {
				signal(t, s, unix.SIGINT)
				time.Sleep(50 * time.Millisecond)
			}
		}
		w.Close()
		ended(t, s...)
	}
}

// Some drop frames, and nothing else.
func examplesDrop(t *testing.T) {
	third := func(n int, _ *frame.Record) bool { return n%3 == 0 }
	long := func(_ int, rec *frame.Record) bool { return len(rec.Frame) > 1000 }
	in := mixed()
	for stage, drops := range map[string]func(n int, rec *frame.Record) bool{
		"stage-rs 3": third, "stage-go -most 1000": long,
	} {
		var want bytes.Buffer
		r, w := frame.NewReader(bytes.NewReader(in)), frame.NewWriter(&want)
		var rec frame.Record
		for n := 0; r.Next(&rec) == nil; {
			if !rec.IsAnnotation() {
				n++
			}
			if rec.IsAnnotation() || !drops(n, &rec) {
				_ = w.WriteRaw(rec.Raw())
			}
		}
		_ = w.Flush()
		words := strings.Fields(stage)
		if out, stderr, status := through(t, in, words[0], words[1:]...); !bytes.Equal(out, want.Bytes()) || status != 0 || stderr != "" {
			t.Errorf("%s: %d bytes, want %d; status %d, %s", stage, len(out), want.Len(), status, stderr)
		}
	}
}

// An error is one line.
func examplesMessages(t *testing.T) {
	in := stream(1000, 500, 0)
	for _, tt := range []struct {
		shell  string
		status int
		says   string
	}{
		{"stage-rs", 2, "stage-rs: one argument is wanted"},
		{"stage-rs some", 2, "stage-rs: one argument is wanted"},
		{"stage-rs 1 2", 2, "stage-rs: one argument is wanted"},
		{"stage-rs 0 >/dev/full", 1, "stage-rs: stdout: No space left on device (os error 28)\n"},
		{"stage-rs 0 0>/dev/null", 1, "stage-rs: stdin: Bad file descriptor (os error 9)\n"},
		{stagePy, 2, "stage.py: "},
		{stagePy + " nonsense", 2, "stage.py: "},
		{stagePy + " a b", 2, "stage.py: "},
		{stagePy + " tcp >/dev/full", 1, "stage.py: stdout: No space left on device\n"},
		{stagePy + " tcp 0>/dev/null", 1, "stage.py: stdin: Bad file descriptor\n"},
	} {
		_, says, status := through(t, in, "sh", "-c", tt.shell)
		if status != tt.status || !strings.HasPrefix(says, tt.says) || strings.Index(says, "\n") != len(says)-1 {
			t.Errorf("%s: status %d, %q", tt.shell, status, says)
		}
	}
}

// The stage in Python finds protocols behind tags and extension headers.
func TestStagePython(t *testing.T) {
	needPython(t)
	icmp := func(kind byte, tags int) []byte { // of version 6, but for kind 0
		f := packettest.Spec{UDP: true, V6: kind > 0, Tags: tags, Payload: make([]byte, 16)}.Frame()
		ip := f[14+4*tags:]
		if kind == 0 {
			ip[9] = 1
		} else {
			ip[6], ip[40] = 58, kind
		}
		return f
	}
	qinq := packettest.Spec{UDP: true, Tags: 2}.Frame()
	qinq[12], qinq[13] = 0x88, 0xa8
	frames := map[string][]byte{
		"tcp":             packettest.Spec{}.Frame(),
		"tcp in 6":        packettest.Spec{V6: true}.Frame(),
		"tcp in 6, ext":   packettest.Spec{V6: true, Ext: 2, Tags: 1}.Frame(),
		"udp":             packettest.Spec{UDP: true}.Frame(),
		"udp, options":    packettest.Spec{UDP: true, Options: 3}.Frame(),
		"udp, tags":       qinq,
		"udp in 6, ext":   packettest.Spec{UDP: true, V6: true, Ext: 1, Tags: 2}.Frame(),
		"icmp":            icmp(0, 0),
		"icmp, tag":       icmp(0, 1),
		"icmp6":           icmp(128, 0),
		"icmp6, tags":     icmp(129, 2),
		"neighbours":      icmp(135, 0),
		"neighbours, tag": icmp(136, 1),
		"arp":             packettest.ARP(1),
		"lldp":            append([]byte("\x01\x80\xc2\x00\x00\x0e\x02\x00\x00\x00\x00\x01\x88\xcc"), make([]byte, 46)...),
		"nothing":         {},
		"half":            packettest.Spec{V6: true}.Frame()[:30],
		"half a tag":      qinq[:15],
	}
	var names []string
	var in []frame.Record
	for name, f := range frames {
		in = append(in, frame.Record{Time: uint64(len(names)), Frame: f})
		names = append(names, name)
	}
	for protocol, want := range map[string]string{
		"tcp":    `^tcp|^half$`,
		"udp":    `^udp`,
		"17":     `^udp`,
		"icmp":   `^icmp`,
		"arp":    `^arp$`,
		"0x88cc": `^lldp$`,
		"ip6":    ` in 6|^icmp6|^half$`,
		"ip":     `^(tcp|udp|icmp)(, .*)?$`,
		"47":     `^$`,
	} {
		out, stderr, status := through(t, streamOf(in...), stagePy, protocol)
		if status != 0 || stderr != "" {
			t.Errorf("%s: status %d, %s", protocol, status, stderr)
		}
		passed := map[string]bool{}
		for _, rec := range records(t, out) {
			passed[names[rec.Time]] = true
		}
		for _, name := range names {
			if drop := regexp.MustCompile(want).MatchString(name); passed[name] == drop {
				t.Errorf("%s: %s passed: %v", protocol, name, passed[name])
			}
		}
	}
}

// echoesTCP sends through a connection and wants it back.
func echoesTCP(c net.Conn, size int) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b, got := packettest.Bytes(size), make([]byte, size)
	go func() { _, _ = c.Write(b) }()
	_, err := io.ReadFull(c, got)
	if err == nil && !bytes.Equal(b, got) {
		err = errors.New("other bytes came back")
	}
	return err
}

var windowReport = regexp.MustCompile(`quota.lua: passed (\d+) bytes of (\d+), dropped (\d+) frames`)

// The quota of quota.lua: everything up to three quarters, nothing over, and a
// count of bytes for each window.
func TestQuotaLua(t *testing.T) {
	t.Parallel()
	examples(t)
	const quota, size = 10_000_000, 1000
	in := stream(40000, size, time.Microsecond)
	out, stderr, status := through(t, in, quotaLua, fmt.Sprint(quota), "1000")
	// Up to the threshold it is the same, bit for bit.
	if same := 7400 * (size + frame.HeadSize); status != 0 || !bytes.Equal(in[:same], out[:min(same, len(out))]) {
		t.Errorf("status %d, %s; something is missing below the threshold", status, stderr)
	}
	passed := len(records(t, out)) * size
	if passed > quota+size || passed < quota*95/100 {
		t.Errorf("%d bytes passed of a quota of %d", passed, quota)
	}
	m := windowReport.FindStringSubmatch(stderr)
	if m == nil || m[1] != fmt.Sprint(passed) || m[3] != fmt.Sprint(40000-passed/size) {
		t.Fatalf("%d bytes passed, it says %s", passed, stderr)
	}
	var counts [256]int
	for _, rec := range records(t, in) {
		for _, b := range rec.Frame {
			counts[b]++
		}
	}
	var table strings.Builder
	for b, n := range counts {
		if b%16 == 0 {
			fmt.Fprintf(&table, "\n%02x", b)
		}
		fmt.Fprintf(&table, " %8d", n)
	}
	if !strings.Contains(stderr, table.String()) {
		t.Errorf("it counts\n%s\nand not%s", stderr, &table)
	}

	// In each of several windows.
	file := t.TempDir() + "/in"
	write(t, file, stream(20000, size, time.Microsecond))
	line := fmt.Sprintf("for i in 1 2 3; do cat %s; sleep 1.1; done | %s %d 1 | wc -c", file, quotaLua, quota)
	out, stderr, _ = through(t, nil, "bash", "-c", line)
	used := 0
	for _, m := range windowReport.FindAllStringSubmatch(stderr, -1) {
		passed, _ := strconv.Atoi(m[1])
		if passed > quota+size {
			t.Errorf("a window passed %d of %d", passed, quota)
		}
		if passed > quota*95/100 {
			used++
		}
	}
	if used < 2 {
		t.Errorf("%s bytes came out, %d used windows; it says %s", out, used, stderr)
	}
}

// segment makes two namespaces with a tap each, and no other link than what the
// test makes of them.
func segment(t testing.TB) (a, b *nettest.Namespace) {
	t.Helper()
	a, b = nettest.New(t), nettest.New(t)
	for _, ns := range []*nettest.Namespace{a, b} {
		ns.Taps("tap0")
		ns.Batch("link set tap0 mtu 9000")
	}
	a.Batch("addr add 10.0.0.1/24 dev tap0", "addr add fd00::1/64 dev tap0")
	b.Batch("addr add fd00::2/64 dev tap0")
	return a, b
}

// Over nothing but a byte stream, link.sh makes one Ethernet of two.
func TestLink(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "bash", "socat", "udhcpd", "udhcpc")
	for _, name := range []string{"a socket", "a command", "a server"} {
		t.Run(name, func(t *testing.T) {
			a, b := segment(t)
			dir := openDir(t)
			listener, connector := "UNIX-LISTEN:"+dir+"/socket", "UNIX-CONNECT:"+dir+"/socket,retry=100,interval=0.05"
			var links []*stage
			for _, c := range map[string][]*exec.Cmd{
				"a socket": {a.Command(linkSh, "tap0", "socat", "-", listener), b.Command(linkSh, "tap0", "socat", "-", connector)},
				// As ssh root@other link.sh tap0 does.
				"a command": {a.Command(linkSh, append([]string{"tap0"}, b.Command(linkSh, "tap0").Args...)...)},
				// One command serves, and a filter stands before the other.
				"a server": {
					a.Command("socat", listener, "EXEC:"+linkSh+" tap0"),
					b.Command(linkSh, "tap0", "sh", "-c", "quotagate -quota 1PB | socat - "+connector),
				},
			}[name] {
				links = append(links, pipeline(t, nil, nil, c)...)
			}
			t.Cleanup(func() {
				// What they started goes with the namespaces' processes.
				for _, ns := range []*nettest.Namespace{a, b} {
					for pid := range tools(t, ns) {
						_ = unix.Kill(pid, unix.SIGKILL)
					}
				}
			})
			dhcp(t, a, "tap0", b, "tap0")
			jumbo := ping.Config{Count: 2, Every: 100 * time.Millisecond, Wait: 3 * time.Second, Size: 8900, Whole: true}
			for _, r := range []ping.Result{a.StartPing("10.0.0.100", jumbo).Wait(), b.StartPing("fd00::1", jumbo).Wait()} {
				if r.Received == 0 {
					t.Error(r)
				}
			}
			if err := echoesTCP(echoing(t, a, b, "10.0.0.100:7"), 8<<20); err != nil {
				t.Error("TCP: ", err)
			}
			// When one side goes, all of it goes, and for the one that was asked to that is
			// no failure.
			_ = links[0].Process.Signal(unix.SIGTERM)
			gone(t, links)
			if status := links[0].ProcessState.ExitCode(); status != 0 && name != "a server" { // which is socat
				t.Errorf("asked to stop: %v", links[0].ProcessState)
			}
			eventually(t, 5*time.Second, "none of their processes is left", func() bool { return len(tools(t, a))+len(tools(t, b)) == 0 })
		})
	}
}

// What fails is its failure, whichever process of it that is.
func TestLinkFails(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "bash")
	ns := nettest.New(t)
	ns.Taps("tap0")
	for _, tt := range []struct {
		args   []string
		status int
	}{
		{[]string{"nosuch0", "cat"}, 1},
		{[]string{"nosuch0"}, 1},
		{[]string{"tap0", "false"}, 1},
		{[]string{"tap0", "nosuchcommand"}, 127},
		{[]string{"tap0", "sh", "-c", "sleep 0.3; exit 3"}, 3},
		{[]string{"tap0", "echo", "garbage"}, 1}, // to tunwrite
		{[]string{"tap0", "true"}, 0},
	} {
		s := pipeline(t, nil, nil, ns.Command(linkSh, tt.args...))
		gone(t, s)
		if got := s[0].ProcessState.ExitCode(); got != tt.status {
			t.Errorf("%v: status %d, want %d: %s", tt.args, got, tt.status, &s[0].Said)
		}
	}
}

func TestVDE(t *testing.T) {
	nettest.Need(t, "bash", "wirefilter")
	examples(t)
	t.Run("wirefilter", filtered)
	t.Run("adapter", adapter)
}

// wirefilter loses about the share of frames that its flag gives, and delays the others.
func filtered(t *testing.T) {
	n := newNetwork(t, setup{read: "-offload=false", in: []string{wirefilter + " -l 20 -d 150"}})
	server, client := n.udp("10.0.0.2:9")
	const count = 2000
	start := time.Now()
	go func() {
		for i := range count {
			b := binary.BigEndian.AppendUint64(nil, uint64(time.Since(start)))
			_, _ = client.Write(append(b, noiseBlock[:i*7%1460]...))
			time.Sleep(time.Millisecond) // so slow that the queue of the tap loses none when a stage has to wait
		}
	}()
	var delays []time.Duration
	for b := make([]byte, 2000); ; {
		_ = server.SetReadDeadline(time.Now().Add(time.Second))
		m, _, err := server.ReadFrom(b)
		if err != nil {
			break
		}
		if !bytes.Equal(b[8:m], noiseBlock[:m-8]) {
			t.Error("a datagram was changed")
		}
		delays = append(delays, time.Since(start)-time.Duration(binary.BigEndian.Uint64(b)))
	}
	lost := 1 - float64(len(delays))/count
	if lost < 0.14 || lost > 0.26 { // more than six standard deviations
		t.Fatalf("lost %.3f of the frames, want 0.20", lost)
	}
	slices.Sort(delays)
	if least, median := delays[0], delays[len(delays)/2]; least < 140*time.Millisecond || median > time.Second {
		t.Errorf("delay: least %v, median %v, want 150 ms", least, median)
	}
	n.stop()
}

// What VDE cannot take does no harm to what it can, and what it can take comes
// through whole, however full its pipe is.
func adapter(t *testing.T) {
	var in, want []frame.Record
	for i := range 20000 {
		rec := frame.Record{Time: 1, Frame: packettest.Bytes(14 + i*11%1800)}
		in = append(in, rec)
		if len(rec.Frame) <= 1521 {
			want = append(want, rec)
		}
	}
	stdout, stderr, status := through(t, streamOf(in...), wirefilter, "-d", "100")
	got := records(t, stdout)
	same := func(a, b frame.Record) bool { return bytes.Equal(a.Frame, b.Frame) }
	dropped := fmt.Sprintf("dropped %d frames of more than 1521 bytes", 20000-len(want))
	if status != 0 || !slices.EqualFunc(got, want, same) || !strings.Contains(stderr, dropped) {
		t.Errorf("%d frames of %d came through, or others; status %d, it says %s", len(got), len(want), status, stderr)
	}

	for _, tt := range []struct {
		way  string
		in   []byte
		want string
	}{
		{"to", stream(1, 0, 0), "hint: tunread -offload=false"},
		{"from", []byte{0xff, 0xff, 1}, "out of step"}, // a wrong length
		{"from", []byte{0, 10, 1}, "unexpected EOF"},   // half a frame
	} {
		out, says, status := through(t, tt.in, "vde-adapter", tt.way)
		if len(out) != 0 && tt.way == "to" || status != 1 || !strings.Contains(says, tt.want) {
			t.Errorf("vde-adapter %s: %d bytes, status %d, %s; want %s", tt.way, len(out), status, says, tt.want)
		}
	}
}

func TestShell(t *testing.T) {
	examples(t)
	nettest.Programs(t, "bash", "pv", "cmp", "tshark", "socat", "perl", "gzip", "xz", "bzip2", "zstd", "mbuffer")
	t.Run("page", shellPage)
	t.Run("holds", shellHolds)
}

// The commands of shell.md do what it says.
func shellPage(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/day.frames", mixed())
	for _, block := range blocks(t, "examples/shell.md", "sh") {
		c := exec.Command("bash", "-euo", "pipefail", "-c", block)
		c.Dir = dir
		if says, status := outcome(c); status != 0 || strings.Trim(says, "\n") != "" && !strings.Contains(block, "tshark") {
			t.Errorf("%sstatus %d\n%s", block, status, says)
		}
	}
	n := 0 // bytes of IPv4 behind tags, all of which go to one host
	for _, rec := range records(t, mixed()) {
		ip := rec.Frame[12:]
		for len(ip) > 4 && ip[0] == 0x81 && ip[1] == 0 {
			ip = ip[4:]
		}
		if len(ip) >= 22 && ip[0] == 8 && ip[1] == 0 && ip[2]>>4 == 4 {
			n += len(rec.Frame)
		}
	}
	if hosts := read(t, dir+"/hosts"); !strings.Contains(hosts, fmt.Sprintf("%d 10.0.0.2\n", n)) {
		t.Errorf("awk counts\n%snot %d of 10.0.0.2", hosts, n)
	}

	// ^C ends the compressed capture, of which nothing is lost.
	line := matches(`(?m)^    (tunread .*\bzstd .*)$`, read(t, root+"/examples/shell.md"))[0]
	c := exec.Command("bash", "-c", `tunread() { trap 'exit 0' INT; cat day.frames; while :; do sleep 0.05; done; }
tunwrite() { trap "" INT; cat >same.frames; }
rm -f same.frames
`+line)
	c.Dir, c.SysProcAttr = dir, &syscall.SysProcAttr{Setpgid: true}
	s := pipeline(t, nil, nil, c)
	day := read(t, dir+"/day.frames")
	eventually(t, 20*time.Second, "the stream has gone through", func() bool {
		info, err := os.Stat(dir + "/same.frames")
		return err == nil && info.Size() == int64(len(day))
	})
	_ = unix.Kill(-c.Process.Pid, unix.SIGINT)
	gone(t, s)
	eventually(t, 20*time.Second, "the capture is whole", func() bool {
		out, _ := exec.Command("zstd", "-dc", dir+"/day.frames.zst").Output()
		return string(out) == day
	})
}

// The table of shell.md says which programs hold frames back.
func shellHolds(t *testing.T) {
	in := stream(3, 100, time.Millisecond) // less than any of them waits for
	n := 0
	for _, row := range regexp.MustCompile("(?m)^\\| `(.+?)`.*? \\| (.+?) \\|").FindAllStringSubmatch(read(t, root+"/examples/shell.md"), -1) {
		program, passes := strings.ReplaceAll(row[1], `\|`, "|"), row[2] == "0.1 ms"
		if strings.HasPrefix(program, "ssh ") {
			continue // it would need a server
		}
		n++
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			c := exec.Command("bash", "-o", "pipefail", "-c", program)
			c.Dir = t.TempDir()
			all, w, r := piped(t, c)
			if _, err := w.Write(in); err != nil {
				t.Fatal(err)
			}
			wait := 20 * time.Second
			if !passes {
				wait = 300 * time.Millisecond
			}
			_ = r.SetReadDeadline(time.Now().Add(wait))
			live, _ := io.ReadFull(r, make([]byte, len(in)))
			if (live == len(in)) != passes {
				t.Errorf("%d bytes of %d came out, and shell.md says: %s", live, len(in), row[2])
			}
			w.Close()
			_ = r.SetReadDeadline(time.Time{})
			if rest, err := io.ReadAll(r); err != nil || live+len(rest) != len(in) {
				t.Errorf("%d bytes of %d at the end, %v", live+len(rest), len(in), err)
			}
			ended(t, all...)
		})
	}
	if n < 12 {
		t.Errorf("only %d rows", n)
	}
}

// BenchmarkExamples measures what examples/README.md has a table of: the stages between two
// cats, and between two taps.
func BenchmarkExamples(b *testing.B) {
	examples(b)
	nettest.Need(b, "wirefilter")
	dir := b.TempDir()
	write(b, dir+"/1500", bytes.Repeat(stream(20000, 1500, time.Microsecond), 20))
	write(b, dir+"/43854", bytes.Repeat(stream(700, 0, time.Microsecond), 20))
	for _, stage := range []string{
		"", "cat", "tee /dev/null", "pv -q", "stage-go -most 2000000", stagePy + " 99", quotaLua + " 1e15", "stage-rs 0", wirefilter,
	} {
		words := strings.Fields(stage)
		for size, frames := range map[int]int{1500: 400000, 43854: 14000} {
			if stage == "" || stage == wirefilter && size > 1500 {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", filepath.Base(words[0]), size), func(b *testing.B) {
				for b.Loop() {
					timed(b, exec.Command("cat", fmt.Sprint(dir, "/", size)), exec.Command(words[0], words[1:]...), exec.Command("cat"))
				}
				all := float64(b.N * frames)
				b.ReportMetric(all/1e3/b.Elapsed().Seconds(), "1000/s")
				b.ReportMetric(8*all*float64(size)/1e6/b.Elapsed().Seconds(), "Mbit/s")
			})
		}
		for _, read := range []string{"", "-offload=false"} {
			if stage == wirefilter && read == "" {
				continue
			}
			b.Run(fmt.Sprintf("%s/live%s", filepath.Base(stage), read), func(b *testing.B) {
				n := newNetwork(b, setup{read: read, in: slices.DeleteFunc([]string{stage}, func(s string) bool { return s == "" })})
				n.serveTraffic("")
				const length = 2 * time.Second
				for b.Loop() {
					b.ReportMetric(8*float64(n.fetch(b, length, traffic.NewLog(length)))/1e6/length.Seconds(), "Mbit/s")
				}
			})
		}
	}
}

// fetch is a TCP connection to b for each log, in which a serves traffic, and returns how many bytes came.
func (n *network) fetch(t testing.TB, length time.Duration, logs ...*traffic.Log) (sum uint64) {
	t.Helper()
	got := make(chan uint64)
	for _, log := range logs {
		go func() {
			n.b.Do(func() {
				if err := traffic.Fetch("10.0.0.1:7", time.Now().Add(length), log); err != nil {
					t.Error(err)
				}
			})
			got <- log.Between(0, length)
		}()
	}
	for range logs {
		sum += <-got
	}
	return sum
}

// serveTraffic serves TCP downloads from namespace a until the test ends. congestion names the
// congestion control; with "", the machine's default applies.
func (n *network) serveTraffic(congestion string) {
	n.t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		e := c.Control(func(fd uintptr) {
			if congestion != "" { // which connections inherit
				err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
			}
		})
		return errors.Join(e, err)
	}}
	l := inside(n.t, n.a, func() (net.Listener, error) { return config.Listen(n.t.Context(), "tcp", "10.0.0.1:7") })
	n.t.Cleanup(func() { l.Close() })
	go func() { _ = traffic.Serve(l, 0) }()
}
