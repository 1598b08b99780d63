package e2e

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"framepipe/internal/nettest"
)

// The long run, bench/soak, in short: stages are killed and drained under mixed traffic, and
// every frame is accounted for. Where something is not explained, the status is 1.
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

	// The soak cannot explain any message of a stage.
	tools := t.TempDir()
	write(t, tools+"/bytehist", "#!/bin/sh\necho odd >&2\nexec bytehist \"$@\"\n")
	for _, name := range []string{"tunread", "quotagate", "tunwrite"} {
		err = errors.Join(err, os.Symlink(bin+"/"+name, tools+"/"+name))
	}
	said, status := outcome(exec.Command("soak", "-for", "500ms", "-kill", "0s", "-tools", tools))
	if err != nil || status != 1 || !strings.Contains(said, "\nin 1: bytehist said: odd\n") {
		t.Errorf("%v, status %d, %s", err, status, said)
	}
}
