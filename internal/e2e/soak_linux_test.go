package e2e

import (
	"os/exec"
	"regexp"
	"strconv"
	"testing"

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
