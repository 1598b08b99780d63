package status

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"framepipe/internal/nettest"
)

// The facts of testdata are drawn as they should be, by each awk that is there, and no line is
// longer than a terminal is wide.
func TestDraw(t *testing.T) {
	nettest.Programs(t, "bash", "awk")
	for _, awk := range []string{"awk", "mawk", "gawk", "busybox"} {
		path, err := exec.LookPath(awk)
		if err != nil {
			continue
		}
		dir := t.TempDir()
		if awk == "busybox" {
			path += " awk"
		}
		if err := os.WriteFile(dir+"/awk", []byte("#!/bin/sh\nexec "+path+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{"text", "json"} {
			c := exec.Command("bash", "-c", `. ./status.sh; declare -A flag=(); [ $0 = text ] || flag[json]=1; draw <testdata/facts`, form)
			c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			got, err := c.CombinedOutput()
			want, e := os.ReadFile("testdata/" + form)
			if err != nil || e != nil || string(got) != string(want) {
				t.Errorf("%s, %s: %v, %v\n%s", awk, form, err, e, got)
			}
			if form == "json" && !json.Valid(got) {
				t.Errorf("%s: not JSON: %s", awk, got)
			}
			for line := range strings.Lines(string(got)) {
				if form == "text" && len(line) > 81 {
					t.Errorf("%s: a long line: %s", awk, line)
				}
			}
		}
	}
}

// Of an up that was killed, and where tundivert does not answer in time, the state is said in
// the width of a terminal.
func TestState(t *testing.T) {
	nettest.Programs(t, "bash", "awk")
	const since = "eth0: up since 2026-11-28 08:22:59, but "
	for _, tt := range []struct{ held, json, want string }{
		{"1", "", since + "tundivert does not answer\n"},
		{"1", "1", `"state":"unknown"`},
		{"", "", since + "it was killed, and frames pass by\nwhat is left of it goes with: pipeline.sh down eth0\n"},
		{"", "1", `"state":"killed"`},
	} {
		c := exec.Command("bash", "-c", `. ./status.sh; declare -A flag=([json]=$0); draw`, tt.json)
		c.Stdin = strings.NewReader("interface\teth0\t2026-11-28 08:22:59\t" + tt.held + "\t\tpipeline.sh\nprocess\t7\t\t\ttundivert\n")
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%v: %s", err, out)
		}
	}
}
