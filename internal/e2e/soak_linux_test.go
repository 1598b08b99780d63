package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"framepipe/frame"
	"framepipe/internal/nettest"
)

// The long run, bench/soak, in short: stages are killed and drained under mixed
// traffic, and every frame is accounted for.
func TestSoak(t *testing.T) {
	nettest.Need(t)
	out, err := exec.Command("soak", "-for", "9s", "-kill", "400ms", "-seed", "2", "-tools", bin).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(\d+) kills and (\d+) drained; the gates were open (\d+)%`).FindSubmatch(out)
	if m == nil {
		t.Fatal("it does not say what it did")
	}
	if kills, _ := strconv.Atoi(string(m[1])); kills < 3 {
		t.Errorf("only %d kills", kills)
	}
}

// lossy is the environment variable that makes this program a stage that loses every
// so many frames.
const lossy = "FRAMEPIPE_LOSSY"

func lose(every string) int {
	n, err := strconv.Atoi(every)
	if err == nil {
		i := 0
		err = frame.Run(os.Stdin, os.Stdout, func(r *frame.Record, w *frame.Writer) error {
			if i++; i%n == 0 {
				return nil
			}
			return w.Pass(r)
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A stage that loses a frame of a thousand, and has counted it, is found out.
func TestSoakFindsLoss(t *testing.T) {
	nettest.Need(t)
	dir := t.TempDir()
	for _, name := range []string{"tunread", "quotagate", "tunwrite"} {
		if err := os.Symlink(filepath.Join(bin, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/bytehist", fmt.Sprintf("#!/bin/sh\n%s/bytehist \"$@\" | %s=1000 %s\n", bin, lossy, self(t)))
	out, err := exec.Command("soak", "-for", "2s", "-kill", "0", "-tools", dir).CombinedOutput()
	if !regexp.MustCompile(`UNEXPLAINED in 1: counted by bytehist, come to tunwrite: \d+ and \d+: \d+ frames unexplained`).Match(out) || err == nil {
		t.Errorf("%v\n%s", err, out)
	}
}
