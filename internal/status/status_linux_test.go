package status

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"framepipe/internal/nettest"
)

func read(t *testing.T, name string) string {
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Facts are drawn as they should be, by each awk that is there, and no line is longer than a
// terminal is wide: those of testdata, and those of an up that was killed and of one whose
// tundivert does not answer in time.
func TestDraw(t *testing.T) {
	nettest.Programs(t, "bash", "awk")
	const killed = "interface\teth0\t2026-11-28 08:22:59\t\t\tpipeline.sh\nprocess\t7\t\t\ttundivert\n"
	silent := strings.Replace(killed, "59\t", "59\t1", 1)
	const since = "eth0: up since 2026-11-28 08:22:59, but "
	const jsonSince = `{"interface":"eth0","since":"2026-11-28 08:22:59","state":`
	for _, awk := range []string{"awk", "mawk", "gawk", "busybox awk"} {
		name, applet, _ := strings.Cut(awk, " ")
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/awk", []byte("#!/bin/sh\nexec "+path+" "+applet+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ json, facts, want string }{
			{"", read(t, "facts"), read(t, "text")},
			{"1", read(t, "facts"), read(t, "json")},
			{"", silent, since + "tundivert does not answer\n"},
			{"1", silent, jsonSince + `"unknown","pipelines":[]}` + "\n"},
			{"", killed, since + "it was killed, and frames pass by\nwhat is left of it goes with: pipeline.sh down eth0\n"},
			{"1", killed, jsonSince + `"killed","pipelines":[]}` + "\n"},
		} {
			c := exec.Command("bash", "-c", `. ./status.sh; declare -A flag=([json]=$0); draw`, tt.json)
			c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			c.Stdin = strings.NewReader(tt.facts)
			got, err := c.CombinedOutput()
			if err != nil || string(got) != tt.want || tt.json != "" && !json.Valid(got) {
				t.Errorf("%s: %v\n%s\nwant\n%s", awk, err, got, tt.want)
			}
		}
	}
	for line := range strings.Lines(read(t, "text")) {
		if len(line) > 81 {
			t.Errorf("a long line: %s", line)
		}
	}
}
