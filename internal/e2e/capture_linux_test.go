package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"framepipe/internal/nettest"
)

// thereAndBack is the pipeline that a capture goes through without a changed bit.
const thereAndBack = "framepcap -d | quotagate -quota 1PB -clock stream | bytehist -o /dev/null | framepcap"

func shell(t testing.TB, in []byte, line string) []byte {
	t.Helper()
	out, stderr, status := through(t, in, "bash", "-o", "pipefail", "-c", line)
	if status != 0 {
		t.Fatalf("%s: status %d: %s", line, status, stderr)
	}
	return out
}

// Captures go to a stream, through the tools and back, unchanged. Tcpdump reads the result.
func TestCaptures(t *testing.T) {
	nettest.Need(t, "tcpdump")
	in, packets := shell(t, mixed(), "framepcap"), len(records(t, mixed()))
	out := shell(t, in, thereAndBack)
	count := string(shell(t, out, "tcpdump --count -r - 2>/dev/null"))
	if !bytes.Equal(out, in) || !strings.HasPrefix(count, fmt.Sprintf("%d packet", packets)) {
		t.Errorf("the same: %v; of %d packets tcpdump counts %s", bytes.Equal(out, in), packets, count)
	}
	const tcpdump = "tcpdump -tttt --time-stamp-precision=nano -XX -nr - 2>&1 | grep -v '^reading from'"
	for _, name := range nettest.Shared(t, "pcap/*.pcap") { // real ones, where they are at hand
		in := []byte(read(t, name))
		a, b := shell(t, in, tcpdump), shell(t, shell(t, in, thereAndBack), tcpdump)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: tcpdump shows\n%s\nof it, and\n%s\nof what came back", name, a, b)
		}
	}
}
