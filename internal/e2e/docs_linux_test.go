package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/ping"
)

// Every command of the README and the pages is run as it is written, by a user
// who has a server: in a copy of the project, with an interface eth0, in
// namespaces of its own, of processes and files too.

// blocks returns what stands in fenced blocks of a language in a page.
func blocks(t testing.TB, page, language string) (all []string) {
	t.Helper()
	all = matches("(?ms)^```"+language+"\n(.*?)^```$", read(t, root+"/"+page))
	if len(all) == 0 {
		t.Fatalf("%s: no blocks of %s", page, language)
	}
	return all
}

// commands returns the lines of the blocks of shell in a page.
func commands(t testing.TB, page string) (lines []string) {
	t.Helper()
	for _, block := range blocks(t, page, "sh") {
		lines = append(lines, strings.Split(strings.TrimSuffix(block, "\n"), "\n")...)
	}
	return lines
}

// examplesOf returns the commands of the section EXAMPLES of a manual page.
func examplesOf(t testing.TB, page string) []string {
	t.Helper()
	escapes := strings.NewReplacer(`\e`, `\`, `\&`, ``, `\(aq`, `'`, `\(dq`, `"`, `\-`, `-`, `\(ti`, `~`, `\(ha`, `^`, `\(ga`, "`")
	shown := ""
	text := section(read(t, page), ".Sh EXAMPLES")
	for _, m := range regexp.MustCompile(`(?ms)^\.Bd -literal.*?\n(.*?)^\.Ed|^\.Dl (.*?)$`).FindAllStringSubmatch(text, -1) {
		if filepath.Ext(page) == ".5" { // where a display is bytes and programs
			m[1] = ""
		}
		shown += escapes.Replace(m[1]+m[2]) + "\n"
	}
	return matches(`(?m)^(?:[#$] )?((?:.*\\\n)*.+)$`, shown)
}

// endless are commands that run until ^C.
var endless = regexp.MustCompile(`\btunread [^|]*\|| run tap0|-pace|-foreground|-watch|link\.sh|^tundivert `)

// status is what a command ends with that does not succeed, on purpose.
var status = map[string]string{
	"head -c 100000 yesterday.frames | bytehist > /dev/null": "1",
	"quotabill -csv samples.csv /var/lib/framepipe/bill":     "1", // no time in common: the gate counts today
}

// notRun are the commands that are not, and why.
func notRun(line string) string {
	switch {
	case line == "go test ./...":
		return "it is the command that runs this"
	case line == "pipeline.sh demo":
		return "it is run from the README"
	case regexp.MustCompile(`^\d+ [\d*]+ [\d*]+ \* \* `).MatchString(line):
		return "it is a line of a crontab"
	case strings.Contains(line, "fd:3") || strings.Contains(line, "/dev/tap0"):
		return "it is for the systems that have such devices"
	}
	return ""
}

// pcapng is a file in that format, of a section with one interface, an Ethernet.
const pcapng = "\x0a\x0d\x0d\x0a\x1c\x00\x00\x00M<+\x1a\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x1c\x00\x00\x00" +
	"\x01\x00\x00\x00\x14\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x14\x00\x00\x00"

// sandbox runs lines one after the other, and fails the test where one fails.
func sandbox(t *testing.T, setup string, lines []string) {
	t.Helper()
	nettest.Need(t, "unshare", "setsid", "tcpdump", "pkill", "tc", "nstat")
	dir := t.TempDir()
	clone := dir + "/framepipe"
	nettest.Run(t, "sh", "-ec", "mkdir -p "+clone+"/sudo; cd ../..; tar c --exclude=.git --exclude=./bin . | tar x -C "+clone+"; cp -rp "+bin+" "+clone+"/bin; chmod 755 "+clone+"/bin")
	day, answer := stream(3000, 500, time.Millisecond), packettest.ARP(1)
	answer[21] = 2
	for name, b := range map[string][]byte{
		"yesterday.frames": day,
		"day.frames":       day,
		"monday.frames":    stream(100, 500, time.Millisecond),
		"tuesday.frames":   stream(100, 500, time.Millisecond),
		"short.frames":     stream(1, 1000, 0),
		"long.frames":      stream(1, 1001, 0),
		"ask.frames":       streamOf(frame.Record{Time: 1, Frame: packettest.ARP(1)}),
		"answer.frames":    streamOf(frame.Record{Time: 1, Frame: answer}),
		"day.pcap":         shell(t, day, "framepcap"),
		"day.pcapng":       []byte(pcapng),
		"sudo/sudo":        []byte("#!/bin/sh\nexec \"$@\"\n"), // one is root already
	} {
		write(t, clone+"/"+name, b)
	}
	router, host := nettest.New(t), nettest.New(t)
	host.Veth("eth0", router, "e1")
	host.Veth("eth1", host, "b1")
	router.Batch("addr add 10.0.0.1/24 dev e1")
	host.Batch("addr add 10.0.0.2/24 dev eth0", "route add default via 10.0.0.1")

	var script strings.Builder
	fmt.Fprintf(&script, `set -m # so that ^C means something to them
mount -t tmpfs none /usr/local/bin; mount -t tmpfs none /usr/local/share; mount -t tmpfs none /var/log
mount -t tmpfs none /var/lib; mkdir /var/lib/node_exporter
mkdir -p /usr/local/lib/systemd; mount -t tmpfs none /usr/local/lib/systemd
mkdir /run/pipeline 2>/dev/null; mount -t tmpfs none /run/pipeline
mount --bind %s %s # its copy, where nothing needs to be compiled again
cd %[2]s; export PATH=$PWD/sudo:$PWD:$PWD/examples:%[3]s:$PATH; exec 5<> <(:)
install -d -o nobody /var/lib/framepipe
quotagate -quota 1GB -ledger /var/lib/framepipe/bill -dir out < monday.frames > /dev/null
chown nobody /var/lib/framepipe/bill
try() { # NUMBER LIMIT COMMAND
	local pid i ended=by-itself
	bash -c "$3" </dev/null >%[4]s/"out.$1" 2>&1 5>&- &
	pid=$!
	for ((i = 0; i < $2 * 20; i++)); do kill -0 "$pid" 2>/dev/null || break; read -r -t 0.05 -u 5; done
	for i in {1..100}; do
		kill -0 "$pid" 2>/dev/null || break
		[ "$i" != 1 ] || { ended=by-signal; kill -INT -- "-$pid"; }
		[ "$i" != 80 ] || { ended=killed; kill -KILL -- "-$pid"; }
		read -r -t 0.05 -u 5
	done
	wait "$pid"
	echo "$1 $? $ended" >>%[4]s/statuses
}
`, clone, project(t), bin, dir)
	script.WriteString(setup)
	quoted := strings.NewReplacer(`'`, `'\''`)
	for i, line := range lines {
		limit := 60
		if endless.MatchString(line) {
			limit = 2
		}
		if notRun(line) == "" {
			fmt.Fprintf(&script, "try %d %d '%s'\n", i, limit, quoted.Replace(line))
		}
	}
	script.WriteString("exit 0\n")
	driver := dir + "/driver"
	write(t, driver, script.String())
	t.Cleanup(func() { _ = os.Remove("/usr/local/lib/systemd") }) // if it is empty
	c := host.Command("unshare", "-p", "-f", "-m", "--mount-proc", "--kill-child", "bash", driver)
	c.WaitDelay = time.Second
	host.StartPing("10.5.0.9", ping.Config{Every: 300 * time.Millisecond, Wait: 1}) // at least ARP for tunread
	said, ended := outcome(c)
	results, _ := os.ReadFile(dir + "/statuses")
	for i, line := range lines {
		if notRun(line) != "" {
			continue
		}
		out, _ := os.ReadFile(fmt.Sprint(dir, "/out.", i))
		m := regexp.MustCompile(fmt.Sprintf(`(?m)^%d (\d+) (\S+)$`, i)).FindStringSubmatch(string(results))
		if m == nil {
			t.Errorf("%s\nwas not reached: status %d, %s", line, ended, said)
			continue
		}
		want := `^0 .*|^(130|143) by-signal$`
		if strings.HasPrefix(line, "timeout ") {
			want += `|^124 `
		}
		known, exempt := status[line]
		if exempt {
			want = "^" + known + " "
		}
		if how := m[1] + " " + m[2]; m[2] == "killed" || !regexp.MustCompile(want).MatchString(how) || wrong.Match(out) && !exempt {
			t.Errorf("%s\nends with status %s, and says\n%s", line, how, out)
		}
	}
	if t.Failed() {
		t.Logf("status %d, %s", ended, said)
	}
}

// wrong is what no command says that does what it is for.
var wrong = regexp.MustCompile(`command not found|No such file|[Ss]yntax error|: hint: |usage: `)

// taps makes two, one of which has something to say.
const taps = `for t in tap0 tap1; do ip tuntap add dev $t mode tap multi_queue vnet_hdr; ip link set $t up; done
ip addr add 10.5.0.1/24 dev tap0
`

// ports makes the files of two ports, with samples of November 2026.
const ports = `rrdtool create port.rrd --start 1793491200 --step 300 DS:in:COUNTER:600:0:U DS:out:COUNTER:600:0:U RRA:AVERAGE:0.5:1:9000
for i in 1 2 3 4 5 6 7 8 9; do rrdtool update port.rrd $((1793491200 + i*300)):$((i*1000000)):$((i*2000000)); done
cp port.rrd port1.rrd; cp internal/samples/testdata/vnstat-fiveminute.json port2.json; cp port2.json vnstat.json
echo '{"status":"ok","graph_data":{"in_data":[8,16],"out_data":[80,160.8],"ticks":["1793491500","1793491800"]}}' >librenms.json
`

// The stages that the README shows drop the right frames, and its bills of ports are right.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	// On a new machine, with a careful umask.
	needPython(t)
	nettest.Need(t, "rrdtool")
	// no-arp, and a package of Go outside of the clone.
	stages := "cat >no-arp <<'END'\n" + blocks(t, "README.md", "python")[0] + "END\nchmod 755 no-arp\nmkdir /var/lib/mystage\ncat >/var/lib/mystage/main.go <<'END'\n" +
		"package main\n\nimport (\n\t\"log\"\n\t\"os\"\n\n\t\"framepipe/frame\"\n)\n\n" + blocks(t, "README.md", "go")[0] + "END\n"
	build := matches("`(go mod init mystage [^`]*)`", read(t, root+"/README.md"))
	if len(build) != 1 {
		t.Fatal("the README does not say how to build a stage")
	}
	// The frame to be dropped is between frames that pass.
	passes := func(stage, before, dropped string) string {
		return fmt.Sprintf("cat %s %s day.frames | %s | framepcap | cmp - <(cat %[1]s day.frames | framepcap)", before, dropped, stage)
	}
	lines := commands(t, "README.md")
	for start, rate := range map[string]string{
		"quotabill -rate 100Mbit/s -csv vnstat.json":   "24.1 Mbit/s",
		"quotabill -rate 100Mbit/s -csv librenms.json": "161 bit/s",
		"rrdtool fetch port.rrd":                       "53.3 kbit/s",
	} {
		i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, start) })
		lines[i] += " | grep -x 'billed *" + rate + " .*'"
	}
	sandbox(t, "rm -r bin; "+stages+"umask 077\n"+ports, append(lines,
		passes("no-arp", "ask.frames", "answer.frames"),
		"clone=$PWD; cd /var/lib/mystage && "+strings.ReplaceAll(build[0], "/path/to/framepipe", "$clone"),
		passes("/var/lib/mystage/mystage", "short.frames", "long.frames")))
}

func TestDebuggingCommands(t *testing.T) {
	t.Parallel()
	sandbox(t, taps+"./pipeline.sh up eth0 -in 'quotagate -rate 1Gbit/s' >/dev/null 2>&1\n", commands(t, "man/debugging.md"))
}

func TestExamplesCommands(t *testing.T) {
	t.Parallel()
	examples(t)
	nettest.Need(t, "wirefilter", "socat")
	sandbox(t, taps, commands(t, "examples/README.md"))
}

func TestPageCommands(t *testing.T) {
	t.Parallel()
	var lines []string
	for page := range pages(t) {
		more := examplesOf(t, root+"/man/"+page)
		if len(more) == 0 {
			t.Errorf("%s has no examples", page)
		}
		for _, line := range more {
			if tap := matches(`^ip tuntap add dev (tap\d) `, line); tap != nil {
				lines = append(lines, "ip link del "+tap[0])
			}
			lines = append(lines, line)
		}
	}
	nettest.Need(t, "rrdtool")
	sandbox(t, taps+ports, lines)
}

// The table of commits in the README is what its command writes, where the samples are
// beside the project.
func TestReadmePlan(t *testing.T) {
	m := regexp.MustCompile("(?s)```\n\\$ (quotabill [^\n]* -plan [^\n]*)\n(.*?)```").FindStringSubmatch(read(t, root+"/README.md"))
	if m == nil {
		t.Fatal("there is no such table")
	}
	c := exec.Command("sh", "-c", m[1])
	c.Dir = filepath.Dir(nettest.Shared(t, "data/eu-isp-2005.csv")[0])
	out := output(t, c)
	for line := range strings.Lines(m[2]) {
		if !strings.Contains(out, "\n"+line) {
			t.Errorf("it does not write\n%sbut\n%s", line, out)
		}
	}
}

// The commands that take minutes begin as they should.
func TestMeasuringCommands(t *testing.T) {
	t.Parallel()
	lines := matches("`(go (?:test|run) [^`]+)`", read(t, root+"/bench/README.md")+read(t, root+"/examples/README.md"))
	if len(lines) < 4 {
		t.Fatalf("%d commands found", len(lines))
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "go test ") {
			line += " -list ." // its flags and packages are there
		} else {
			line += " -h"
		}
		out, status := outcome(exec.Command("bash", "-c", "cd ../.. && "+line))
		if status != 0 && !strings.Contains(out, "exit status 2") || strings.Contains(out, "flag provided but not defined") {
			t.Errorf("%s: status %d\n%s", line, status, out)
		}
		if strings.HasPrefix(line, "go test ") && !strings.Contains(out, "Test") && !strings.Contains(out, "Benchmark") {
			t.Errorf("%s lists nothing: %s", line, out)
		}
	}
}
