package e2e

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
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

	"github.com/vmihailenco/msgpack/v5"
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

func usageOf(t testing.TB, name string) string {
	t.Helper()
	c := exec.Command(name, "-h")
	if name == "pipeline.sh" {
		c = exec.Command(root+"/pipeline.sh", "-h")
	}
	return output(t, c)
}

// eachFile parses the Go files of a directory, but for tests.
func eachFile(t testing.TB, dir string, do func(*ast.File)) {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if len(names) == 0 {
		t.Fatalf("no source in %s", dir)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		do(f)
	}
}

// text is the value of a string literal.
func text(e ast.Expr) (string, bool) {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		s, err := strconv.Unquote(l.Value)
		return s, err == nil
	}
	return "", false
}

// declared returns the names of the flags that the source of a package declares:
// the first string that is given to a method of flags or of a tool's Flags.
func declared(t testing.TB, dir string) (names []string) {
	t.Helper()
	eachFile(t, dir, func(f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := c.Fun.(*ast.SelectorExpr)
			if !ok || !regexp.MustCompile(`^(Bool|Int|Uint|Float|String|Duration|Text|Func|Var)\w*$`).MatchString(method.Sel.Name) {
				return true
			}
			switch on := method.X.(type) {
			case *ast.Ident:
				if on.Name != "flags" {
					return true
				}
			case *ast.SelectorExpr:
				if on.Sel.Name != "Flags" {
					return true
				}
			default:
				return true
			}
			for _, a := range c.Args {
				if s, ok := text(a); ok {
					names = append(names, s)
					break
				}
			}
			return true
		})
	})
	return names
}

// flagsOf returns all flags of a tool.
func flagsOf(t testing.TB, name string) []string {
	t.Helper()
	own := declared(t, name)
	if len(own) == 0 {
		t.Fatalf("%s has no flags: are they declared in another way now?", name)
	}
	all := append(own, declared(t, "internal/cli")...)
	all = append(all, "h") // package flag's
	for _, f := range all {
		// What the source says is true of the program.
		if says, _ := outcome(exec.Command(name, "-"+f+"=", "-h")); strings.Contains(says, "there is no flag") {
			t.Errorf("%s has no flag -%s after all", name, f)
		}
	}
	slices.Sort(all)
	return all
}

// scriptFlags returns the flags of each command of pipeline.sh, as it gives them to its
// function parse, by the names of functions.
func scriptFlags(t testing.TB) map[string][]string {
	t.Helper()
	script := read(t, root+"/pipeline.sh")
	all := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z]+)\(\) \{\s+parse '([a-z ]*)' \d \d "\$@"`).FindAllStringSubmatch(script, -1) {
		all[m[1]] = sorted(strings.Fields(m[2]))
	}
	cases := matches(`(?m)^([a-z]+(?: \| [a-z]+)+)\) "\$@" ;;`, script)
	if len(cases) != 1 {
		t.Fatal("pipeline.sh ends in another way now")
	}
	same3(t, "commands that parse their arguments", slices.Collect(maps.Keys(all)), strings.Split(cases[0], " | "))
	return all
}

func sorted(all ...[]string) []string {
	s := slices.Concat(all...)
	slices.Sort(s)
	return slices.Compact(s)
}

func same3(t testing.TB, what string, got, want []string) {
	t.Helper()
	if got, want := sorted(got), sorted(want); !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
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

// checkCommands looks whether each tool of ours that is used in a text, which is
// of shell commands, is given only flags that it has. It returns how many commands of ours
// there are.
func checkCommands(t testing.TB, where, commands string, have map[string][]string) (n int) {
	t.Helper()
	commands = strings.ReplaceAll(commands, "\\e\n", " ")
	for _, c := range regexp.MustCompile(`[|;&()<>'"\n]+`).Split(commands, -1) {
		words := strings.Fields(c)
		for len(words) > 0 && slices.Contains([]string{"sudo", "#", "$", ".Dl", ".Ql", "in:", "out:"}, words[0]) {
			words = words[1:]
		}
		if len(words) == 0 {
			continue
		}
		name := strings.TrimPrefix(words[0], "./")
		flags, ours := have[name]
		if !ours {
			continue
		}
		n++
		if name == "pipeline.sh" && len(words) > 1 {
			flags = have[name+" "+words[1]]
		}
		for _, w := range words[1:] {
			f, isFlag := strings.CutPrefix(w, "-")
			f, _, _ = strings.Cut(f, "=")
			f = strings.TrimRight(f, ".,")
			if isFlag && f != "" && !slices.Contains(flags, f) {
				t.Errorf("%s: %q: %s has no flag -%s", where, strings.TrimSpace(c), name, f)
			}
		}
	}
	return n
}

// have returns the flags of everything.
func allFlags(t testing.TB) map[string][]string {
	have := map[string][]string{}
	for _, name := range manTools {
		have[name] = flagsOf(t, name)
	}
	have["pipeline.sh"] = []string{"h"}
	for command, flags := range scriptFlags(t) {
		have["pipeline.sh "+command] = flags
		have["pipeline.sh"] = sorted(have["pipeline.sh"], flags)
	}
	return have
}

// parts parts a usage text: the synopsis, what explains it, and the examples,
// which are last and stand in.
func parts(usage string) (synopsis, prose, examples string) {
	paragraphs := strings.Split(strings.TrimSpace(strings.TrimPrefix(usage, "usage: ")), "\n\n")
	last := len(paragraphs) - 1
	return paragraphs[0], strings.Join(paragraphs[1:last], "\n\n"), paragraphs[last]
}

// Each flag is in the usage text, on the page and in the completion, and no other.
func TestManFlags(t *testing.T) {
	have, all := allFlags(t), pages(t)
	for _, name := range manTools {
		usage, page := usageOf(t, name), all[name+".1"]
		synopsis, prose, _ := parts(usage)
		same3(t, name+": flags explained in the usage text", matches(`(?m)^  -([a-z0-9-]+)`, usage), have[name])
		for _, f := range namedFlags(synopsis + "\n" + prose) {
			if !slices.Contains(have[name], f) {
				t.Errorf("%s: the usage text names a flag -%s", name, f)
			}
		}
		same3(t, name+": flags explained on the page", matches(`(?m)^\.It Fl ([a-z0-9-]+)`, page), have[name])
		same3(t, name+": flags in the page's synopsis", append(matches(`\bFl ([a-z0-9-]+)`, section(page, ".Sh SYNOPSIS")), "h", "v", "version"), have[name])
		for _, f := range matches(`\bFl ([a-z0-9-]+)`, page) {
			if !slices.Contains(have[name], f) {
				t.Errorf("%s.1 names a flag -%s", name, f)
			}
		}
		if listed := matches(`(?m)^\.It Fl ([a-z0-9-]+)`, page); !slices.IsSorted(listed) {
			t.Errorf("%s.1: the options are not in the order of the alphabet: %v", name, listed)
		}
	}

	page, usage := all["pipeline.sh.8"], usageOf(t, "pipeline.sh")
	listed := matches(`(?m)^\.It Fl ([a-z0-9-]+)`, page)
	same3(t, "pipeline.sh: flags explained on the page", append(listed, "h"), have["pipeline.sh"])
	if !slices.IsSorted(listed) {
		t.Errorf("pipeline.sh.8: the options are not in the order of the alphabet: %v", listed)
	}
	for _, f := range matches(`\bFl ([a-z0-9-]+)`, page) {
		if !slices.Contains(have["pipeline.sh"], f) {
			t.Errorf("pipeline.sh.8 names a flag -%s", f)
		}
	}
	var commands []string
	for c := range scriptFlags(t) {
		commands = append(commands, c)
	}
	same3(t, "pipeline.sh: commands explained on the page", matches(`(?m)^\.It Cm ([a-z]+)`, section(page, ".Sh DESCRIPTION")), append(commands, "help"))
	synopsis, prose, _ := parts(usage)
	same3(t, "pipeline.sh: flags named in the usage text", append(namedFlags(synopsis+"\n"+strings.ReplaceAll(prose, "|", "")), "h"), have["pipeline.sh"])
	for synopsis, flags := range groups(synopsis, "pipeline.sh") {
		same3(t, "pipeline.sh: usage of "+synopsis, namedFlags(flags), have["pipeline.sh "+synopsis])
	}
}

// groups parts the synopsis of the script by command.
func groups(synopsis, name string) map[string]string {
	all := map[string]string{}
	for _, s := range strings.Split(" "+synopsis, name+" ")[1:] {
		command, _, _ := strings.Cut(strings.TrimSpace(s), " ")
		all[command] = s
	}
	return all
}

// Where a page or a usage text shows how our tools are used, they can be used so.
func TestManExamples(t *testing.T) {
	have := allFlags(t)
	for name, page := range pages(t) {
		var shown strings.Builder
		literal := false
		for line := range strings.Lines(page) {
			switch {
			case strings.HasPrefix(line, ".Bd"):
				literal = true
			case strings.HasPrefix(line, ".Ed"):
				literal = false
			case literal, strings.HasPrefix(line, ".Dl "), strings.HasPrefix(line, ".Ql "):
				shown.WriteString(line)
			}
		}
		if checkCommands(t, name, shown.String(), have) == 0 {
			t.Errorf("%s shows no command of ours", name)
		}
	}
	for _, name := range append(manTools, "pipeline.sh") {
		_, _, examples := parts(usageOf(t, name))
		if checkCommands(t, name+" -h", examples, have) == 0 {
			t.Errorf("%s: the usage text does not end with examples", name)
		}
	}
}

// mandoc runs mandoc, for which the pages are where it looks for pages.
func mandoc(t testing.TB, args ...string) (string, error) {
	t.Helper()
	nettest.Programs(t, "mandoc")
	dir := t.TempDir()
	for name := range pages(t) {
		to := dir + "/man" + name[len(name)-1:]
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		from, err := filepath.Abs(root + "/man/" + name)
		if err == nil {
			err = os.Symlink(from, to+"/"+name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("mandoc", args...)
	c.Env = append(os.Environ(), "MANPATH="+dir)
	out, err := c.Output() // on stderr are complaints about its index of other pages
	return string(out), err
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
	var files []string
	for name := range pages(t) {
		files = append(files, root+"/man/"+name)
	}
	out, _ := mandoc(t, append([]string{"-T", "lint", "-W", "style"}, files...)...)
	for line := range strings.Lines(out) {
		// The pages of others need not be on this machine. They are in a list, so
		// that one that is nowhere is found out.
		if m := regexp.MustCompile(`referenced manual not found: Xr (\S+ \d)`).FindStringSubmatch(line); m != nil && slices.Contains(foreign, m[1]) {
			continue
		}
		t.Error(strings.TrimSpace(line))
	}
	for name, page := range pages(t) {
		order := []string{"NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "DIAGNOSTICS", "SEE ALSO", "STANDARDS", "AUTHORS", "CAVEATS", "SECURITY CONSIDERATIONS"}
		at := -1
		for _, heading := range matches(`(?m)^\.Sh (.*)`, page) {
			i := slices.Index(order, heading)
			if i <= at {
				t.Errorf("%s: the section %s is not in its place", name, heading)
			}
			at = i
		}
	}
}

// synopses returns the lines of a synopsis, each as its pieces: what is in
// brackets or not, in the order of the alphabet. The order in which flags are
// shown is each text's own.
func synopses(name, s string) (all [][]string) {
	s = strings.Join(strings.Fields(s), "  ")
	for _, line := range strings.Split(" "+s+" ", " "+name+" ")[1:] {
		line = strings.Join(strings.Fields(line), " ")
		pieces := regexp.MustCompile(`\[[^][]*\]|\{[^{}]*\}|[^ ]+`).FindAllString(line, -1)
		slices.Sort(pieces)
		all = append(all, pieces)
	}
	slices.SortFunc(all, slices.Compare)
	return all
}

func manSynopsis(t *testing.T) {
	for _, name := range append(manTools, "pipeline.sh") {
		file := root + "/man/" + name + ".1"
		if name == "pipeline.sh" {
			file = root + "/man/" + name + ".8"
		}
		out, err := mandoc(t, "-T", "ascii", "-O", "width=500", file)
		if err != nil {
			t.Fatal(err, out)
		}
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
func counterKeys(t testing.TB, name string) (keys []string) {
	t.Helper()
	if name == "tundivert" { // which leaves it to its package
		name = "internal/divert"
	}
	eachFile(t, name, func(f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				if m, ok := c.Fun.(*ast.SelectorExpr); ok && m.Sel.Name == "Sprintf" && len(c.Args) > 0 {
					if s, ok := text(c.Args[0]); ok {
						keys = append(keys, matches(`(?:^|[^%a-z_])([a-z_]+)=%`, s)...)
					}
				}
			}
			// The gate's have their names in a table: {name, reason, key, ...}.
			d, ok := n.(*ast.FuncDecl)
			if !ok || d.Name.Name != "counters" {
				return true
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if row, ok := n.(*ast.CompositeLit); ok && len(row.Elts) == 5 {
					if key, ok := text(row.Elts[2]); ok {
						keys = append(keys, key, key+"_bytes")
					}
				}
				return true
			})
			return true
		})
	})
	return keys
}

// explained returns what a section of a page has a tag for.
func explained(page, heading string) (keys []string) {
	for _, line := range matches(`(?m)^\.It Li (.*)`, section(page, heading)) {
		for _, key := range strings.Fields(line) {
			if key != "," {
				keys = append(keys, key)
			}
		}
	}
	return keys
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
		same3(t, name+": counters explained", explained(all[name+".1"], heading), keys)
	}

	dir := t.TempDir()
	capture := dir + "/day.frames"
	write(t, capture, stream(20000, 1400, 1e5))
	// What is really printed is among what the source says.
	said := output(t, exec.Command("bash", "-c", "quotagate -quota 5MB -window 3s -cycle 1d -percentile 100 -ledger "+dir+"/ledger -dir out -clock stream -v -metrics "+dir+"/gate <"+capture+" 2>&1 >/dev/null"))
	printed := matches(`\b([a-z_]+)=`, said)
	if len(printed) < 19 {
		t.Errorf("quotagate says %s", said)
	}
	for _, key := range printed {
		if !slices.Contains(counterKeys(t, "quotagate"), key) {
			t.Errorf("quotagate prints %s, which the test has not found in the source", key)
		}
	}

	metrics := read(t, dir+"/gate")
	names := matches(`(?m)^([a-z_]+)[ {]`, metrics)
	if len(names) < 20 {
		t.Errorf("the metrics are\n%s", metrics)
	}
	page := all["quotagate.1"]
	same3(t, "metrics explained", explained(page, ".Ss Metrics"), names)
	kinds := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(metrics, -1) {
		kinds[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?m)^\.It Li (quotagate_.*)\n(\w+):`).FindAllStringSubmatch(page, -1) {
		for _, name := range strings.Split(m[1], " , ") {
			if want := strings.ToLower(strings.TrimSuffix(m[2], "s")); kinds[name] != want {
				t.Errorf("%s is a %s, and a %s on the page", name, kinds[name], want)
			}
		}
	}
	for _, reason := range matches(`reason="(\w+)"`, metrics) {
		if !regexp.MustCompile(`\b` + reason + `\b`).MatchString(section(page, ".Ss Metrics")) {
			t.Errorf("the reason %s is not on the page", reason)
		}
	}

	fields := fieldsOf(t, output(t, exec.Command("bash", "-c", "bytehist -format json -top 1 <"+capture+" 2>&1 >/dev/null")))
	same3(t, "names of a report", append(explained(all["bytehist.1"], ".Ss Reports"), explained(all["bytehist.1"], ".Ss Addresses")...), slices.Collect(maps.Keys(fields)))
	for class := range fields["sizes"].(map[string]any) {
		if !strings.Contains(section(all["bytehist.1"], ".Ss Reports"), " "+class) {
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
			for key := range x {
				if !regexp.MustCompile(`\b` + key + `\b`).MatchString(section(page, ".Ss Names")) {
					t.Errorf("%s of a transfer cap is not on the page", key)
				}
			}
		}
		prom := read(t, dir+"/prom")
		names := matches(`(?m)^([a-z_]+)[ {]`, prom)
		metrics = append(metrics, names...)
		same3(t, "gauges", matches(`(?m)^# TYPE (\S+) gauge$`, prom), names)
	}
	same3(t, "names of a bill", explained(page, ".Ss Names"), printed)
	simulated := []string{}
	for _, flags := range [][]string{{"-simulate", "-rate", "1Mbit/s"}, {"-plan", "-percentile", "100", "-price", "1"}} {
		fields := fieldsOf(t, output(t, exec.Command("quotabill", append(flags, "-csv", dir+"/samples", "-json")...)))
		simulated = append(simulated, slices.Collect(maps.Keys(fields))...)
	}
	same3(t, "names of a simulation", explained(page, ".Ss Simulations"), simulated)
	same3(t, "metrics of a bill", explained(page, ".Ss Metrics"), metrics)
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
	var keys []string
	eachFile(t, "framepcap", func(f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				s, _ := text(e)
				if m := regexp.MustCompile(`^msgpack:"(pcap_\w+)`).FindStringSubmatch(s); m != nil {
					keys = append(keys, m[1])
				}
			}
			return true
		})
	})
	if len(keys) < 4 {
		t.Errorf("framepcap has %v", keys)
	}
	same3(t, "keys of captures explained", explained(page, ".Ss Captures"), keys)

	var dump []byte
	for _, line := range matches(`(?m)^((?:[0-9a-f]{2} ?)+)$`, section(page, ".Sh EXAMPLES")) {
		b, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		dump = append(dump, b...)
	}
	r := frame.NewReader(bytes.NewReader(dump))
	var head, rec frame.Record
	if err := r.Next(&head); err != nil || !head.IsHeader() || len(head.Raw()) != 57 {
		t.Fatalf("the header: %v, %d bytes", err, len(head.Raw()))
	}
	var m map[string]any
	if err := msgpack.Unmarshal(head.Raw(), &m); err != nil || fmt.Sprint(m) != "map[format:frames link:ethernet source:tap0 version:1]" {
		t.Errorf("the header: %v, %v", m, err)
	}
	if err := r.Next(&rec); err != nil || rec.Time != 1700000000000000123 || len(rec.Frame) != 42 || !bytes.Equal(rec.Frame[12:14], []byte{8, 6}) {
		t.Fatalf("the frame: %+v, %v", rec, err)
	}
	if size := len(head.Raw()) + frame.HeadSize + len(rec.Frame); size != len(dump) {
		t.Errorf("%d bytes, want %d", len(dump), size)
	}
}

// completion returns where the completion is. It is read, so that go test knows
// that a result depends on it.
func completion(t testing.TB) string {
	t.Helper()
	name, err := filepath.Abs(root + "/man/completion.bash")
	if err != nil {
		t.Fatal(err)
	}
	read(t, name)
	return name
}

// complete returns what bash offers for the last of some words, as bash parts
// them.
func complete(t testing.TB, c *exec.Cmd, words ...string) []string {
	t.Helper()
	const program = `
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_KEY=9
spec=$(complete -p "${1##*/}") || exit
spec=${spec#*-F }
"${spec%% *}" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" || exit
[ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\n' "${COMPREPLY[@]}"`
	if words[0] == "pipeline.sh" { // the others are in PATH
		words = append([]string{filepath.Dir(filepath.Dir(completion(t))) + "/pipeline.sh"}, words[1:]...)
	}
	args := append([]string{"--norc", "--noprofile", "-u", "-c", program, "bash", completion(t)}, words...)
	if c == nil {
		c = exec.Command("bash")
	}
	c.Args = append(c.Args, args...)
	out, status := outcome(c)
	if status != 0 {
		t.Errorf("%q: status %d\n%s", words, status, out)
	}
	return strings.Fields(out)
}

func TestManCompletion(t *testing.T) {
	have := allFlags(t)
	trim := func(offered []string) (flags []string) {
		for _, f := range offered {
			flags = append(flags, strings.TrimSuffix(strings.TrimPrefix(f, "-"), "="))
		}
		return flags
	}
	for _, name := range manTools {
		same3(t, name+": flags offered", trim(complete(t, nil, name, "-")), have[name])
		same3(t, name+": flags offered with two dashes", trim(trim(complete(t, nil, name, "--"))), have[name])
	}
	for command, flags := range scriptFlags(t) {
		same3(t, "pipeline.sh "+command+": flags offered", trim(complete(t, nil, "pipeline.sh", command, "-")), flags)
	}
	commands := append(slices.Collect(maps.Keys(scriptFlags(t))), "help")
	same3(t, "commands offered", complete(t, nil, "pipeline.sh", ""), commands)

	// Every value that is offered is taken, and what the flag takes is said in
	// its error.
	for _, tt := range []struct{ tool, flag string }{
		{"quotagate", "policy"}, {"quotagate", "count"}, {"quotagate", "charge"}, {"quotagate", "clock"}, {"bytehist", "format"},
		{"tundivert", "fail"}, {"quotabill", "method"}, {"quotabill", "rank"}, {"quotabill", "missing"},
	} {
		says, _ := outcome(exec.Command(tt.tool, "-"+tt.flag, "?"))
		_, list, _ := strings.Cut(says, ": want ")
		list, _, _ = strings.Cut(list, "\n")
		want := regexp.MustCompile(`, | or `).Split(list, -1)
		same3(t, tt.tool+" -"+tt.flag, complete(t, nil, tt.tool, "-"+tt.flag, ""), want)
		same3(t, tt.tool+" -"+tt.flag+"=", complete(t, nil, tt.tool, "-"+tt.flag, "="), want)
	}
	for _, tt := range [][]string{{"tunread", "-offload"}, {"tunwrite", "-pace"}, {"quotagate", "-cycle-day"}, {"quotagate", "-window"}, {"quotagate", "-tz"}, {"quotabill", "-cycle-day"}, {"quotabill", "-percentile"}, {"quotabill", "-window"}} {
		for _, v := range complete(t, nil, tt[0], tt[1], "=") {
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
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{[]string{"tunread", "-o"}, "-offload="},
		{[]string{"tunread", "-offload", "=", "f"}, "false"},
		{[]string{"tunread", "-offload=f"}, "-offload=false"}, // where = does not part words
		{[]string{"tunread", "--offload=f"}, "--offload=false"},
		{[]string{"tunread", "--off"}, "--offload="},
		{[]string{"tunwrite", "-offload", "=", "o"}, "on off"},
		{[]string{"tunread", "-user", "roo"}, "root"},
		{[]string{"tunwrite", "-offload", "=", "auto", "-p"}, "-pace"},
		{[]string{"tunwrite", "fd", ":", "3", "-p"}, "-pace"},
		{[]string{"tunwrite", "fd", ":", "3"}, ""},
		{[]string{"tundivert", "-f"}, "-fail"},
		{[]string{"tundivert", "-fail", "o"}, "open"},
		{[]string{"quotagate", "-window", "m"}, "month"},
		{[]string{"quotagate", "-quota", ""}, ""},
		{[]string{"quotagate", "-quota", "-e"}, ""},
		{[]string{"quotagate", "-quota", "1GB", "-e"}, "-ecn"},
		{[]string{"quotagate", "-ecn", "-tz", "UT"}, "UTC"},
		{[]string{"quotagate", "-metrics", dir + "/on"}, dir + "/one"},
		{[]string{"bytehist", "-o", dir + "/"}, dir + "/one " + dir + "/other"},
		{[]string{"bytehist", "<", dir + "/on"}, dir + "/one"},
		{[]string{"bytehist", "<", dir + "/one", "-f"}, "-format"},
		{[]string{"bytehist", "-o", "x", ">", dir + "/on"}, dir + "/one"},
		{[]string{"framepcap", "-d", ""}, ""},
		{[]string{"quotabill", dir + "/on"}, dir + "/one"},
		{[]string{"quotabill", "-all", "-csv", dir + "/on"}, dir + "/one"},
		{[]string{"quotabill", "-rate", ""}, ""},
		{[]string{"pipeline.sh", "st"}, "status"},
		{[]string{"pipeline.sh", "status", ""}, "eth7"},
		{[]string{"pipeline.sh", "down", "eth7", ""}, ""},
		{[]string{"pipeline.sh", "change", ""}, "eth7"},
		{[]string{"pipeline.sh", "change", "eth7", "-o"}, "-out"},
		{[]string{"pipeline.sh", "install", dir + "/"}, dir + "/other"},
		{[]string{"pipeline.sh", "uninstall", dir + "/"}, dir + "/other"},
		{[]string{"pipeline.sh", "up", "eth0", "-confirm", ""}, "60s 5m"},
		{[]string{"pipeline.sh", "up", "eth0", "-user", "roo"}, "root"},
		{[]string{"pipeline.sh", "up", "-in", "tee x | quotagate -rate", "-fo"}, "-foreground"},
		{[]string{"pipeline.sh", "-"}, "-h"},
	} {
		same3(t, fmt.Sprintf("%q", tt.words), complete(t, nil, tt.words...), strings.Fields(tt.want))
	}
}

// Interfaces are offered where they are wanted, and what stands in their names
// is not run.
func TestManCompletionInterfaces(t *testing.T) {
	nettest.Need(t, "bash")
	ns := nettest.New(t)
	const odd = "$(>was-run)"
	ns.Batch("tuntap add dev tap5 mode tap multi_queue", "tuntap add dev tun6 mode tun", "link add v0 type veth peer name "+odd)
	for _, tt := range []struct{ words, want string }{
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
		same3(t, tt.words, complete(t, ns.Command("bash"), strings.Split(tt.words, " ")...), strings.Fields(tt.want))
	}
	if os.Remove("was-run") == nil {
		t.Error("the name of an interface was run")
	}
}

// Typed at a terminal, the words are completed.
func TestManCompletionTyped(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/rc", "bind 'set enable-bracketed-paste off'\nPS1='ready: '\n. "+completion(t)+"\n"+echoes("${FUNCNAME[0]}"))
	out := typed(t, dir, exec.Command("bash", "--noprofile", "--rcfile", dir+"/rc", "-i"),
		"tunread -of\tfa\t", "tunwrite --off\tau\t-p\t1", "quotagate -pol\tr\t-ec\t",
		"bytehist -o som\t", "bytehist -o ~/som\t", "bytehist -o \"som\t", "pipeline.sh dem\t")
	for _, want := range []string{
		"got <bytehist>got <-o>got <" + dir + "/some day.frames>",
		"ready: bytehist -o \"some day.frames\"",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the shell does not say %s but\n%s", want, out)
		}
	}
}

// echoes defines functions for a shell, with the names of the tools, that say what they
// were given.
func echoes(name string) (all string) {
	for _, tool := range append(manTools, "pipeline.sh") {
		all += fmt.Sprintf("%s() { printf 'got <%%s>' \"%s\" \"$@\"; echo; }\n", tool, name)
	}
	return all
}

// typed types lines into a shell whose prompt is "ready: ", and returns what the terminal
// shows. The shell has the functions of echoes. It must complete what all shells can.
func typed(t *testing.T, dir string, c *exec.Cmd, lines ...string) string {
	t.Helper()
	master, tty := terminal(t)
	write(t, dir+"/some day.frames", "")
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
	// await waits for the prompt, behind which the shell reads a line letter by letter.
	await := func(prompts int) string {
		if !process.Until(10*time.Second, func() bool { return strings.Count(shown.String(), "ready: ") >= prompts }) {
			t.Fatalf("no prompt: %q", shown.String())
		}
		return shown.String()
	}
	for i, line := range lines {
		await(i + 1)
		if _, err := master.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	out := await(len(lines) + 1)
	for _, want := range []string{
		"got <tunread>got <-offload=false>",
		"got <tunwrite>got <--offload=auto>got <-pace>got <1>",
		"got <quotagate>got <-policy>got <random>got <-ecn>",
		"got <bytehist>got <-o>got <some day.frames>",
		"got <pipeline.sh>got <demo>",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the shell does not say %s but\n%s", want, out)
		}
	}
	return out
}

// share copies the completions to where pipeline.sh install puts them, below a new
// directory.
func share(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"bash": "bash-completion/completions/tunread", "fish": "fish/vendor_completions.d/tunread.fish", "zsh": "zsh/site-functions/_framepipe"} {
		if err := os.MkdirAll(filepath.Dir(dir+"/"+to), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, dir+"/"+to, read(t, root+"/man/completion."+from))
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
	clone, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{
		"compinit -D -u; . " + clone + "/man/completion.zsh",
		"fpath=(" + share(t) + "/zsh/site-functions $fpath); compinit -D -u",
	} {
		dir := t.TempDir()
		write(t, dir+"/.zshrc", "unset zle_bracketed_paste; unsetopt prompt_sp; PS1='ready: '\nautoload -U compinit; "+way+"\n"+echoes("$0"))
		out := typed(t, dir, exec.Command("zsh", "-d", "-i"),
			"tunread -of\tfa\t", "tunwrite --off\tau\t-p\t1", "quotagate -pol\tr\t-ec\t", "bytehist -o som\t",
			"quotagate -quota \t1GB", "pipeline.sh dem\t", "tunread -co\t1s")
		for _, want := range []string{"got <quotagate>got <-quota>got <1GB>", "got <tunread>got <-coalesce>got <1s>"} {
			if !strings.Contains(out, want) {
				t.Errorf("the shell does not say %s but\n%s", want, out)
			}
		}
	}
	same3(t, "commands that zsh completes", strings.Fields(matches(`(?m)^#compdef (.*)$`, read(t, root+"/man/completion.zsh"))[0]), append(manTools, "pipeline.sh"))
	same3(t, "commands that zsh completes where it is sourced", strings.Fields(matches(`compdef _framepipe (.*)\n`, read(t, root+"/man/completion.zsh"))[0]), append(manTools, "pipeline.sh"))
}

// Fish asks the completion of bash, too.
func completesFish(t *testing.T) {
	have, dir, data := allFlags(t), t.TempDir(), share(t)
	write(t, dir+"/some day.frames", "")
	offered := func(before, line string) (all []string) {
		t.Helper()
		c := exec.Command("fish", "-c", before+"complete -C "+"'"+line+"'")
		c.Dir, c.Env = dir, append(os.Environ(), "HOME="+dir, "XDG_DATA_DIRS="+data)
		for line := range strings.Lines(output(t, c)) {
			all = append(all, strings.TrimSuffix(line, "\n"))
		}
		return all
	}
	clone, err := filepath.Abs(root + "/man/completion.fish")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range manTools {
		var flags []string
		for _, f := range offered("source "+clone+"; ", name+" -") {
			flags = append(flags, strings.Trim(f, "-="))
		}
		same3(t, name+": flags offered by fish", flags, have[name])
	}
	for line, want := range map[string][]string{
		"tunread -of":        {"-offload="},
		"tunread -offload=f": {"-offload=false"},
		"tunread -coalesce ": nil,
		"tunread -user roo":  {"root"},
	} {
		same3(t, line, offered("", line), want)
	}
	for line, want := range map[string][]string{
		"pipeline.sh st":        {"status"},
		"pipeline.sh change -o": {"-out"},
		"quotagate -policy r":   {"random"},
		"bytehist -o som":       {"some day.frames"},
	} {
		same3(t, line, offered("source "+clone+"; ", line), want)
	}
}
