package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/pcap"

	"golang.org/x/sys/unix"
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

// allKinds is a capture with frames of all kinds, and of all sizes that a capture has.
func allKinds(link uint16) (capture []byte, packets int) {
	capture = pcap.AppendHeader(nil, link)
	packet := func(time uint64, length int, data []byte) {
		capture = pcap.AppendPacket(capture, time, uint32(length), data)
		packets++
	}
	add := func(data []byte) { packet(uint64(1700000000+packets)*1e9+uint64(packets), len(data), data) }
	head, body := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, packettest.Bytes(80000)
	for tags := range 4 {
		add(packettest.Spec{Tags: tags, Payload: body[:100]}.Frame())
		add(packettest.Spec{Tags: tags, V6: true, Ext: 2, UDP: true, Payload: body[:100]}.Frame())
	}
	for _, size := range []int{0, 0, 59, 60, 1499, 1500, 8986, 65535, 65536, 79986} {
		add(slices.Concat(head, body[:size]))
	}
	add(nil) // a record without a byte
	add(body[:1])
	packet(1800000000_000005000, 1514, head)
	packet(0, 7, nil)
	packet(4294967295_999999999, 3, body[:3])
	return capture, packets
}

// Captures go to a stream, through the tools and back, unchanged. Tcpdump reads the result.
func TestCaptures(t *testing.T) {
	nettest.Need(t, "tcpdump")
	for _, link := range []uint16{1, 101} {
		in, packets := allKinds(link)
		out := shell(t, in, thereAndBack)
		count := string(shell(t, out, "tcpdump --count -r - 2>/dev/null"))
		if !bytes.Equal(out, in) || !strings.HasPrefix(count, fmt.Sprintf("%d packet", packets)) {
			t.Errorf("link %d: the same: %v; of %d packets tcpdump counts %s", link, bytes.Equal(out, in), packets, count)
		}
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

// watched is a pipeline between two sockets with a line of shell in it.
func watched(t testing.TB, line string) (all []*stage, in, out *os.File) {
	t.Helper()
	middle := exec.Command("bash", "-c", line)
	middle.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return between(t, middle)
}
