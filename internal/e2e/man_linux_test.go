package e2e

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
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

	"framepipe/frame"
	"framepipe/internal/nettest"
	"framepipe/internal/process"
)

// The manual pages, the usage texts and the completion are written by hand, each
// in its own words. What can be compared is held together here: that all know
// the same flags, that the synopses agree, that the pages explain every number
// that is printed, and that they are good mdoc.

const root = "../.."

// pages are the manual pages by name.
func pages(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	names, _ := filepath.Glob(root + "/man/*.[1-9]")
	for _, name := range names {
		all[filepath.Base(name)] = read(t, name)
	}
	if len(all) < 7 {
		t.Fatalf("only %d pages", len(all))
	}
	return all
}

var manTools = []string{"bytehist", "framepcap", "quotabill", "quotagate", "tundivert", "tunread", "tunwrite"}

// programs are those with a page, a usage text and a completion.
var programs = append(slices.Clone(manTools), "pipeline.sh")

// project is where the project is, from anywhere.
func project(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func usageOf(t testing.TB, name string) string {
	t.Helper()
	return output(t, exec.Command(name, "-h"))
}

// source returns the Go files of a directory, but for tests.
func source(t testing.TB, dir string) (all string) {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(root, dir, "*.go"))
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			all += read(t, name)
		}
	}
	return all
}

// scriptFlags returns the flags of each command of pipeline.sh, as it gives them to its
// function parse, by the names of functions.
func scriptFlags(t testing.TB) map[string][]string {
	t.Helper()
	script := read(t, root+"/pipeline.sh")
	all := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z]+)\(\) \{\s+parse '([a-z ]*)' \d \d "\$@"`).FindAllStringSubmatch(script, -1) {
		all[m[1]] = strings.Fields(m[2])
	}
	cases := matches(`(?m)^([a-z]+(?: \| [a-z]+)+)\) "\$@" ;;`, script)
	if len(cases) != 1 {
		t.Fatal("pipeline.sh ends in another way now")
	}
	sameSet(t, "commands that parse their arguments", slices.Collect(maps.Keys(all)), strings.Split(cases[0], " | "))
	return all
}

// allFlags returns the flags that the sources of the programs declare.
func allFlags(t testing.TB) map[string][]string {
	t.Helper()
	const declared = `(?:flags|\.Flags)\.\w+\((?:[^",\n]+, )?"([a-z0-9-]+)"`
	common := append(matches(declared, source(t, "internal/cli")), "h") // h is package flag's
	have := map[string][]string{"pipeline.sh": {"h"}}
	for _, name := range manTools {
		own := matches(declared, source(t, name))
		if len(own) == 0 {
			t.Fatalf("%s has no flags: are they declared in another way now?", name)
		}
		have[name] = append(own, common...)
	}
	for _, flags := range scriptFlags(t) {
		have["pipeline.sh"] = append(have["pipeline.sh"], flags...)
	}
	return have
}

// sameSet wants the same words, in any order.
func sameSet(t testing.TB, what string, got, want []string) {
	t.Helper()
	sorted := func(s []string) []string { return slices.Compact(slices.Sorted(slices.Values(s))) }
	if got, want := sorted(got), sorted(want); !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// among wants all of some words to be known.
func among(t testing.TB, what string, words, known []string) {
	t.Helper()
	for _, w := range words {
		if !slices.Contains(known, w) {
			t.Errorf("%s: %s is not one of %v", what, w, known)
		}
	}
}

// matches returns what the first group of a pattern matches.
func matches(pattern, in string) (all []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(in, -1) {
		all = append(all, m[1])
	}
	return all
}

// section returns what stands under a heading of a page.
func section(page, heading string) string {
	_, s, _ := strings.Cut(page, "\n"+heading+"\n")
	end := `\n\.Sh `
	if strings.HasPrefix(heading, ".Ss") {
		end = `\n\.S[hs] `
	}
	return regexp.MustCompile(end).Split(s, 2)[0]
}

// namedFlags returns the flags that a text names: words that begin with a dash.
func namedFlags(s string) []string {
	return matches(`(?m)(?:^|[\s\[({|',])-([a-z][a-z0-9-]*)`, s)
}

// parts parts a usage text: the synopsis, what explains it, and the examples,
// which are last and stand in.
func parts(usage string) (synopsis, prose, examples string) {
	paragraphs := strings.Split(strings.TrimSpace(strings.TrimPrefix(usage, "usage: ")), "\n\n")
	last := len(paragraphs) - 1
	return paragraphs[0], strings.Join(paragraphs[1:last], "\n\n"), paragraphs[last]
}

// pageOf returns the page of a program, and the name of its file.
func pageOf(t testing.TB, program string) (page, file string) {
	t.Helper()
	file = root + "/man/" + program + ".1"
	if program == "pipeline.sh" {
		file = root + "/man/" + program + ".8"
	}
	return read(t, file), file
}

// Each flag is in the usage text and on the page, and no other.
func TestManFlags(t *testing.T) {
	have, script := allFlags(t), scriptFlags(t)
	for _, name := range programs {
		page, _ := pageOf(t, name)
		usage, flags := usageOf(t, name), have[name]
		synopsis, prose, _ := parts(usage)
		listed := matches(`(?m)^\.It Fl ([a-z0-9-]+)`, page)
		sameSet(t, name+": flags explained on the page", append(listed, "h"), flags)
		if !slices.IsSorted(listed) {
			t.Errorf("%s: the options on the page are not in the order of the alphabet: %v", name, listed)
		}
		among(t, name+": flags that the page names", matches(`\bFl ([a-z0-9-]+)`, page), flags)
		named := namedFlags(synopsis + "\n" + prose)
		among(t, name+": flags that the usage text names", named, flags)
		if wrong := matches(`(?m)^(\.Nm .*)`, section(page, ".Sh SYNOPSIS")); len(wrong) > 0 {
			t.Errorf("%s: groff begins no line in the synopsis with a .Nm that has more on its line: %q", name, wrong)
		}
		if name != "pipeline.sh" {
			sameSet(t, name+": flags explained in the usage text", matches(`(?m)^  -([a-z0-9-]+)`, usage), flags)
			shown := matches(`\bFl ([a-z0-9-]+)`, section(page, ".Sh SYNOPSIS"))
			sameSet(t, name+": flags in the page's synopsis", append(shown, "h", "v", "version"), flags)
			continue
		}
		sameSet(t, "flags in the usage text of pipeline.sh", append(named, "h"), flags)
		explained := matches(`(?m)^\.It Cm ([a-z]+)`, section(page, ".Sh DESCRIPTION"))
		sameSet(t, "commands explained on the page", explained, append(slices.Collect(maps.Keys(script)), "help"))
		for _, line := range strings.Split(synopsis, "pipeline.sh ")[1:] {
			for command := range strings.SplitSeq(strings.Fields(line)[0], "|") {
				sameSet(t, "usage of pipeline.sh "+command, namedFlags(line), script[command])
			}
		}
	}
}

// Where a page or a usage text shows how our tools are used, they have the flags.
func TestManExamples(t *testing.T) {
	have, shown := allFlags(t), map[string]string{}
	for name, page := range pages(t) {
		shown[name] = strings.Join(matches(`(?ms)(^\.Bd.*?^\.Ed|^\.[DQ]l [^\n]*)`, page), "\n")
	}
	for _, name := range programs {
		_, _, shown[name+" -h"] = parts(usageOf(t, name))
	}
	command := regexp.MustCompile(`(?m)(?:^|[\s"'(/])(` + strings.Join(programs, "|") + `)( [^|;&()<>'"\n]+)`)
	for where, text := range shown {
		used := command.FindAllStringSubmatch(strings.ReplaceAll(text, "\\e\n", " "), -1)
		for _, m := range used {
			among(t, where+": "+m[0], namedFlags(m[2]), have[m[1]])
		}
		if len(used) == 0 {
			t.Errorf("%s shows no command of ours", where)
		}
	}
}

// foreign are the pages of others that ours name.
var foreign = []string{
	"bash 1", "capabilities 7", "cat 1", "editcap 1", "fish 1", "flock 1", "gzip 1", "ip 8", "landlock 7",
	"pcap-savefile 5", "pidfd_getfd 2", "pledge 2", "poll 2", "ptrace 2", "seccomp 2", "setpriv 1", "setsid 1", "ssh 1", "sysctl 8", "systemd 1",
	"systemd.exec 5", "tc 8", "tcpdump 1", "tee 1", "unveil 2", "zsh 1",
}

func TestMandoc(t *testing.T) {
	nettest.Programs(t, "mandoc")
	t.Run("lint", manLint)
	t.Run("synopsis", manSynopsis)
}

func manLint(t *testing.T) {
	order := []string{
		"NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "DIAGNOSTICS", "SEE ALSO", "STANDARDS", "AUTHORS",
		"CAVEATS", "SECURITY CONSIDERATIONS",
	}
	all := pages(t)
	for name, page := range all {
		out, _ := exec.Command("mandoc", "-T", "lint", "-W", "style", root+"/man/"+name).Output()
		for line := range strings.Lines(string(out)) {
			// The pages of others need not be on this machine. They are in a list, so
			// that one that is nowhere is found out.
			other := strings.Join(matches(`referenced manual not found: Xr (\S+ \d)`, line), "")
			if !slices.Contains(foreign, other) && all[strings.Replace(other, " ", ".", 1)] == "" {
				t.Error(strings.TrimSpace(line))
			}
		}
		place := func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) }
		if headings := matches(`(?m)^\.Sh (.*)`, page); !slices.IsSortedFunc(headings, place) {
			t.Errorf("%s: the sections are not in their order: %q", name, headings)
		}
	}
}

// synopses returns the lines of a synopsis, each as its pieces: what is in
// brackets or not, in the order of the alphabet. The order in which flags are
// shown is each text's own.
func synopses(name, s string) (all [][]string) {
	for _, line := range strings.Split(strings.Join(strings.Fields(s), " ")+" ", name+" ")[1:] {
		pieces := regexp.MustCompile(`\[[^][]*\]|\{[^{}]*\}|[^ ]+`).FindAllString(line, -1)
		slices.Sort(pieces)
		all = append(all, pieces)
	}
	slices.SortFunc(all, slices.Compare)
	return all
}

func manSynopsis(t *testing.T) {
	for _, name := range programs {
		_, file := pageOf(t, name)
		out := output(t, exec.Command("mandoc", "-T", "ascii", "-O", "width=500", file))
		out = regexp.MustCompile(`.\x08`).ReplaceAllString(out, "")
		_, out, _ = strings.Cut(out, "\nSYNOPSIS\n")
		out, _, _ = strings.Cut(out, "\nDESCRIPTION\n")
		synopsis, _, _ := parts(usageOf(t, name))
		page, usage := synopses(name, out), synopses(name, synopsis)
		if len(page) == 0 || len(page) != len(usage) {
			t.Errorf("%s: the page's synopsis has %d lines, that of the usage text %d", name, len(page), len(usage))
			continue
		}
		for i, p := range page {
			u := usage[i]
			if at := slices.Index(u, "[flags]"); at >= 0 { // which the page has one by one
				u = slices.Delete(u, at, at+1)
				p = slices.DeleteFunc(p, func(s string) bool { return strings.HasPrefix(s, "[-") && !slices.Contains(u, s) })
			}
			if !slices.Equal(p, u) {
				t.Errorf("%s: the page's synopsis is\n%q\nthat of the usage text\n%q", name, p, u)
			}
		}
	}
}

// counterKeys returns the keys of the line that SIGUSR1 has a tool print, as they
// stand in its source.
func counterKeys(t testing.TB, name string) []string {
	t.Helper()
	code := source(t, name)
	if name == "tundivert" { // which leaves it to its package
		code = source(t, "internal/divert")
	}
	keys := matches(`[" ]([a-z_]+)=%`, code)
	for _, key := range matches(`\{"\w+", "\w*", "(\w+)", `, code) { // the gate's stand in a table
		keys = append(keys, key, key+"_bytes")
	}
	return keys
}

// explained returns what a section of a page has a tag for.
func explained(page, heading string) []string {
	tags := strings.Join(matches(`(?m)^\.It Li (.*)`, section(page, heading)), " ")
	return slices.DeleteFunc(strings.Fields(tags), func(tag string) bool { return tag == "," })
}

// Every number that a tool prints is explained, and no other.
func TestManNumbers(t *testing.T) {
	all := pages(t)
	for name, least := range map[string]int{"tundivert": 3, "tunread": 4, "tunwrite": 6, "bytehist": 4, "framepcap": 6, "quotagate": 20} {
		keys, heading := counterKeys(t, name), ".Ss Signals"
		if len(keys) < least {
			t.Errorf("%s prints %v: are its counters printed in another way now?", name, keys)
		}
		if name == "quotagate" {
			heading = ".Ss Counters"
		}
		sameSet(t, name+": counters explained", explained(all[name+".1"], heading), keys)
	}

	dir := t.TempDir()
	capture := dir + "/day.frames"
	write(t, capture, stream(20000, 1400, 1e5))
	said := shell(t, nil, "quotagate -quota 5MB -window 3s -cycle 1d -percentile 100 -ledger "+dir+"/ledger -dir out -clock stream -v -metrics "+dir+"/gate <"+capture+" 2>&1 >/dev/null")
	printed := matches(`\b([a-z_]+)=`, string(said))
	among(t, "counters that quotagate prints", printed, counterKeys(t, "quotagate"))
	metrics := read(t, dir+"/gate")
	names := matches(`(?m)^([a-z_]+)[ {]`, metrics)
	if len(printed) < 19 || len(names) < 20 {
		t.Errorf("quotagate says %s, and its metrics are\n%s", said, metrics)
	}
	page := all["quotagate.1"]
	sameSet(t, "metrics explained", explained(page, ".Ss Metrics"), names)
	for _, m := range regexp.MustCompile(`(?m)^\.It Li (quotagate_.*)\n(\w+):`).FindAllStringSubmatch(page, -1) {
		for _, name := range strings.Split(m[1], " , ") {
			kind := strings.ToLower(strings.TrimSuffix(m[2], "s"))
			if !strings.Contains(metrics, "# TYPE "+name+" "+kind+"\n") {
				t.Errorf("%s is no %s, as the page says", name, kind)
			}
		}
	}
	among(t, "reasons", matches(`reason="(\w+)"`, metrics), matches(`\b(\w+)\b`, section(page, ".Ss Metrics")))

	fields := fieldsOf(t, string(shell(t, nil, "bytehist -format json -top 1 <"+capture+" 2>&1 >/dev/null")))
	page = all["bytehist.1"]
	sameSet(t, "names of a report", append(explained(page, ".Ss Reports"), explained(page, ".Ss Addresses")...), slices.Collect(maps.Keys(fields)))
	for class := range fields["sizes"].(map[string]any) {
		if !strings.Contains(section(page, ".Ss Reports"), " "+class) {
			t.Errorf("the class %s is not on the page", class)
		}
	}
}

// fieldsOf returns the fields of the first line of some JSON.
func fieldsOf(t testing.TB, text string) (fields map[string]any) {
	t.Helper()
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

// The names of a bill and its metrics are on its page.
func TestManBill(t *testing.T) {
	page, dir := pages(t)["quotabill.1"], t.TempDir()
	samples := "time,in,out\n"
	for i := range 10 * 24 * 12 { // so that the forecast has a range
		at := time.Date(2026, 3, 1, 0, 5*i, 0, 0, time.UTC)
		samples += at.Format(time.DateTime) + ",1000,2000\n"
	}
	write(t, dir+"/samples", samples)
	printed, metrics := []string{}, []string{}
	for _, terms := range [][]string{{"-rate", "1Mbit/s", "-price", "1"}, {"-window", "month", "-quota", "1TB"}} {
		fields := fieldsOf(t, output(t, exec.Command("quotabill", append(terms, "-csv", dir+"/samples", "-json", "-prom", dir+"/prom")...)))
		printed = append(printed, slices.Collect(maps.Keys(fields))...)
		if x, ok := fields["transfer"].(map[string]any); ok {
			among(t, "names of a transfer cap", slices.Collect(maps.Keys(x)), matches(`\b(\w+)\b`, section(page, ".Ss Names")))
		}
		prom := read(t, dir+"/prom")
		names := matches(`(?m)^([a-z_]+)[ {]`, prom)
		metrics = append(metrics, names...)
		sameSet(t, "gauges", matches(`(?m)^# TYPE (\S+) gauge$`, prom), names)
	}
	sameSet(t, "names of a bill", explained(page, ".Ss Names"), printed)
	simulated := []string{}
	for _, flags := range [][]string{{"-simulate", "-rate", "1Mbit/s"}, {"-plan", "-percentile", "100", "-price", "1"}} {
		fields := fieldsOf(t, output(t, exec.Command("quotabill", append(flags, "-csv", dir+"/samples", "-json")...)))
		simulated = append(simulated, slices.Collect(maps.Keys(fields))...)
	}
	sameSet(t, "names of a simulation", explained(page, ".Ss Simulations"), simulated)
	sameSet(t, "metrics of a bill", explained(page, ".Ss Metrics"), metrics)
}

// The stream's page agrees with the code: its limits, the keys of captures, and
// its bytes.
func TestManStream(t *testing.T) {
	page := pages(t)["frames.5"]
	for _, n := range []int{frame.MaxFrame, frame.MaxValue, frame.MaxDepth} {
		if !strings.Contains(section(page, ".Ss Limits"), " "+strconv.Itoa(n)+" ") {
			t.Errorf("the limit %d is not on the page", n)
		}
	}
	keys := matches(`msgpack:"(pcap_\w+)`, source(t, "framepcap"))
	if len(keys) < 4 {
		t.Errorf("framepcap has %v", keys)
	}
	sameSet(t, "keys of captures explained", explained(page, ".Ss Captures"), keys)

	lines := matches(`(?m)^((?:[0-9a-f]{2} ?)+)$`, section(page, ".Sh EXAMPLES"))
	dump, err := hex.DecodeString(strings.ReplaceAll(strings.Join(lines, ""), " ", ""))
	if err != nil || len(dump) < 42 {
		t.Fatal(len(dump), err)
	}
	arp := dump[len(dump)-42:]
	if want := streamOf(frame.Record{Time: 1700000000_000000123, Frame: arp}); !bytes.Equal(dump, want) || arp[12] != 8 || arp[13] != 6 {
		t.Errorf("% x\nwant a stream of one ARP frame, such as\n% x", dump, want)
	}
}

// offered returns what bash offers for the last of some words, as bash parts them.
func offered(t testing.TB, bash *exec.Cmd, words ...string) []string {
	t.Helper()
	const program = `
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_KEY=9
spec=$(complete -p "${1##*/}") || exit
spec=${spec#*-F }
"${spec%% *}" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" || exit
[ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\n' "${COMPREPLY[@]}"`
	bash.Args = append(bash.Args, "--norc", "--noprofile", "-u", "-c", program, "bash", root+"/man/completion.bash")
	bash.Args = append(bash.Args, words...)
	out, status := outcome(bash)
	if status != 0 {
		t.Errorf("%q: status %d\n%s", words, status, out)
	}
	return strings.Fields(out)
}

func TestManCompletion(t *testing.T) {
	complete := func(words ...string) []string {
		t.Helper()
		return offered(t, exec.Command("bash"), words...)
	}
	have, script := allFlags(t), scriptFlags(t)
	for _, name := range manTools {
		sameSet(t, name+": flags offered", bare(complete(name, "-")), have[name])
		sameSet(t, name+": flags offered with two dashes", bare(complete(name, "--")), have[name])
	}
	for command, flags := range script {
		sameSet(t, "pipeline.sh "+command+": flags offered", bare(complete("pipeline.sh", command, "-")), flags)
	}
	sameSet(t, "commands offered", complete("pipeline.sh", ""), append(slices.Collect(maps.Keys(script)), "help"))

	// Every value that is offered is taken, and what the flag takes is said in
	// its error.
	for _, tt := range [][2]string{
		{"quotagate", "-policy"}, {"quotagate", "-count"}, {"quotagate", "-charge"}, {"quotagate", "-clock"}, {"bytehist", "-format"},
		{"tundivert", "-fail"}, {"quotabill", "-method"}, {"quotabill", "-rank"}, {"quotabill", "-missing"},
	} {
		says, _ := outcome(exec.Command(tt[0], tt[1], "?"))
		list := strings.Join(matches(`: want (.*)\n`, says), "")
		sameSet(t, tt[0]+" "+tt[1], complete(tt[0], tt[1], ""), regexp.MustCompile(`, | or `).Split(list, -1))
	}
	for _, tt := range [][2]string{
		{"tunread", "-offload"}, {"tunwrite", "-pace"}, {"quotagate", "-cycle-day"}, {"quotagate", "-window"}, {"quotagate", "-tz"},
		{"quotabill", "-cycle-day"}, {"quotabill", "-percentile"}, {"quotabill", "-window"},
	} {
		for _, v := range complete(tt[0], tt[1], "=") {
			if says, _ := outcome(exec.Command(tt[0], tt[1]+"="+v, "-h")); !strings.HasPrefix(says, "usage: ") {
				t.Errorf("%v %s: %s", tt, v, says)
			}
		}
	}

	dir, run := t.TempDir(), t.TempDir()
	write(t, dir+"/one", "")
	if err := errors.Join(os.Mkdir(dir+"/other", 0o700), os.Mkdir(run+"/eth7", 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIPELINE_RUN", run)
	for _, tt := range []struct{ line, want string }{
		{"tunread -o", "-offload="},
		{"tunread -offload = f", "false"},
		{"tunread -offload=f", "-offload=false"}, // where = does not part words
		{"tunread --offload=f", "--offload=false"},
		{"tunread --off", "--offload="},
		{"tunread -user roo", "root"},
		{"tunwrite -offload = auto -p", "-pace"},
		{"tunwrite fd : 3 -p", "-pace"},
		{"tunwrite fd : 3", ""},
		{"tundivert -f", "-fail"},
		{"quotagate -quota ", ""},
		{"quotagate -quota -e", ""},
		{"quotagate -quota 1GB -e", "-ecn"},
		{"quotagate -ecn -tz UT", "UTC"},
		{"quotagate -metrics " + dir + "/on", dir + "/one"},
		{"bytehist -o " + dir + "/", dir + "/one " + dir + "/other"},
		{"bytehist < " + dir + "/on", dir + "/one"},
		{"bytehist < " + dir + "/one -f", "-format"},
		{"framepcap -d ", ""},
		{"quotabill " + dir + "/on", dir + "/one"},
		{"pipeline.sh st", "status"},
		{"pipeline.sh status ", "eth7"},
		{"pipeline.sh down eth7 ", ""},
		{"pipeline.sh change eth7 -o", "-out"},
		{"pipeline.sh install " + dir + "/", dir + "/other"},
		{"pipeline.sh up eth0 -confirm ", "60s 5m"},
		{"pipeline.sh up -in tee|quotagate -fo", "-foreground"},
		{"pipeline.sh -", "-h"},
	} {
		sameSet(t, tt.line, complete(strings.Split(tt.line, " ")...), strings.Fields(tt.want))
	}
}

// bare returns the names of the flags that a completion offers.
func bare(offered []string) (flags []string) {
	for _, f := range offered {
		flags = append(flags, strings.Trim(f, "-="))
	}
	return flags
}

// Interfaces are offered where they are wanted, and what stands in their names
// is not run.
func TestManCompletionInterfaces(t *testing.T) {
	nettest.Need(t, "bash")
	ns := nettest.New(t)
	const odd = "$(>was-run)"
	ns.Batch("tuntap add dev tap5 mode tap multi_queue", "tuntap add dev tun6 mode tun", "link add v0 type veth peer name "+odd)
	for _, tt := range []struct{ line, want string }{
		{"tunread ", "tap5 tun6"},
		{"tunwrite -l3 tu", "tun6"},
		{"tunread tap5 ", ""},
		{"tundivert v", "v0"},
		{"tundivert -fail open v0 ", "tap5 tun6"},
		{"tundivert v0 tap5 ta", "tap5"},
		{"tundivert v0 tap5 tap6 ", ""},
		{"pipeline.sh run ta", "tap5"},
		{"pipeline.sh run tap5 ", "tap5 tun6"},
		{"pipeline.sh up v", "v0"},
		{"pipeline.sh up ", "tap5 tun6 v0 " + odd},
	} {
		sameSet(t, tt.line, offered(t, ns.Command("bash"), strings.Split(tt.line, " ")...), strings.Fields(tt.want))
	}
	if os.Remove("was-run") == nil {
		t.Error("the name of an interface was run")
	}
}

// Typed at a terminal, the words are completed.
func TestManCompletionTyped(t *testing.T) {
	typed(t, "bash --noprofile --rcfile .zshrc -i", "bind 'set enable-bracketed-paste off'; . "+project(t)+"/man/completion.bash",
		[]string{"bytehist -o ~/som\t", "bytehist -o \"som\t"},
		"got <bytehist>got <-o>got <HOME/some day.frames>", "ready: bytehist -o \"some day.frames\"")
}

// typed types lines that all shells complete, and others, into a shell whose prompt is "ready: ", and checks
// the completed text.
func typed(t *testing.T, shell, rc string, lines []string, want ...string) {
	t.Helper()
	dir := t.TempDir()
	rc += "\nPS1='ready: '\n"
	for _, name := range programs { // print their arguments
		rc += name + `() { printf 'got <%s>' ` + name + ` "$@"; echo; }` + "\n"
	}
	write(t, dir+"/.zshrc", rc)
	write(t, dir+"/some day.frames", "")
	lines = append(lines, "tunread -of\tfa\t", "tunwrite --off\tau\t-p\t1", "quotagate -pol\tr\t-ec\t", "bytehist -o som\t", "pipeline.sh dem\t")
	want = append(want, "got <tunread>got <-offload=false>", "got <tunwrite>got <--offload=auto>got <-pace>got <1>",
		"got <quotagate>got <-policy>got <random>got <-ecn>", "got <bytehist>got <-o>got <some day.frames>", "got <pipeline.sh>got <demo>")

	master, tty := terminal(t)
	words := strings.Fields(shell)
	c := exec.Command(words[0], words[1:]...)
	c.Dir = dir
	c.Env = append(os.Environ(), "TERM=dumb", "HISTFILE=", "INPUTRC=/dev/null", "HOME="+dir, "ZDOTDIR="+dir)
	c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	var shown process.Output
	go func() { _, _ = io.Copy(&shown, master) }() // to EIO, when the shell has gone
	for i := range len(lines) + 1 {
		// Behind the prompt, the shell reads a line letter by letter.
		if !process.Until(10*time.Second, func() bool { return strings.Count(shown.String(), "ready: ") > i }) {
			t.Fatalf("no prompt: %q", shown.String())
		}
		if i < len(lines) {
			_, _ = master.WriteString(lines[i] + "\n")
		}
	}
	for _, w := range want {
		if w = strings.ReplaceAll(w, "HOME", dir); !strings.Contains(shown.String(), w) {
			t.Errorf("the shell does not say %s but\n%s", w, &shown)
		}
	}
}

// share copies the completions to where pipeline.sh install puts them, below a new
// directory.
func share(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"bash": "bash-completion/completions/tunread", "fish": "fish/vendor_completions.d/tunread.fish", "zsh": "zsh/site-functions/_framepipe"} {
		nettest.Run(t, "install", "-D", root+"/man/completion."+from, dir+"/"+to)
	}
	return dir
}

func TestManCompletionOthers(t *testing.T) {
	nettest.Programs(t, "zsh", "fish")
	t.Run("zsh", completesZsh)
	t.Run("fish", completesFish)
}

// Zsh asks the completion of bash, sourced in the clone or installed.
func completesZsh(t *testing.T) {
	const rc = "unset zle_bracketed_paste; unsetopt prompt_sp; autoload -U compinit; "
	typed(t, "zsh -d -i", rc+"compinit -D -u; . "+project(t)+"/man/completion.zsh", []string{"quotagate -quota \t1GB", "tunread -co\t1s"},
		"got <quotagate>got <-quota>got <1GB>", "got <tunread>got <-coalesce>got <1s>")
	typed(t, "zsh -d -i", rc+"fpath=("+share(t)+"/zsh/site-functions $fpath); compinit -D -u", nil)
	completed := matches(`(?m)^(?:#|\s*)compdef(?: _framepipe)? (.*)$`, read(t, root+"/man/completion.zsh"))
	if all := strings.Join(slices.Sorted(slices.Values(programs)), " "); !slices.Equal(completed, []string{all, all}) {
		t.Errorf("zsh completes %q", completed)
	}
}

// Fish asks it, too.
func completesFish(t *testing.T) {
	dir, data := t.TempDir(), share(t)
	write(t, dir+"/some day.frames", "")
	complete := func(before, line string) []string {
		t.Helper()
		c := exec.Command("fish", "-c", before+"complete -C '"+line+"'")
		c.Dir, c.Env = dir, append(os.Environ(), "HOME="+dir, "XDG_DATA_DIRS="+data)
		return strings.FieldsFunc(output(t, c), func(r rune) bool { return r == '\n' })
	}
	clone := "source " + project(t) + "/man/completion.fish; "
	have := allFlags(t)
	for _, name := range manTools {
		sameSet(t, name+": flags offered by fish", bare(complete(clone, name+" -")), have[name])
	}
	for _, tt := range []struct {
		before, line string
		want         []string
	}{
		{"", "tunread -of", []string{"-offload="}},
		{"", "tunread -offload=f", []string{"-offload=false"}},
		{"", "tunread -coalesce ", nil},
		{"", "tunread -user roo", []string{"root"}},
		{clone, "pipeline.sh st", []string{"status"}},
		{clone, "pipeline.sh change -o", []string{"-out"}},
		{clone, "quotagate -policy r", []string{"random"}},
		{clone, "bytehist -o som", []string{"some day.frames"}},
	} {
		sameSet(t, tt.line, complete(tt.before, tt.line), tt.want)
	}
}
