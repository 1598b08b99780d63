package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"framepipe/internal/nettest"
	"framepipe/internal/packettest"

	"golang.org/x/sys/unix"
)

// captured is a packet of a capture.
type captured struct {
	seconds, fraction, length uint32
	data                      []byte
}

// writeCapture and readCapture are plain, and have nothing of package pcap.
func writeCapture(order binary.ByteOrder, magic, link uint32, packets []captured) []byte {
	var b bytes.Buffer
	_ = binary.Write(&b, order, []uint32{magic})
	_ = binary.Write(&b, order, []uint16{2, 4})
	_ = binary.Write(&b, order, []uint32{0, 0, 262144, link})
	for _, p := range packets {
		_ = binary.Write(&b, order, []uint32{p.seconds, p.fraction, uint32(len(p.data)), p.length})
		b.Write(p.data)
	}
	return b.Bytes()
}

// readCapture reads what framepcap writes: nanoseconds, little-endian.
func readCapture(t testing.TB, b []byte) (link uint32, packets []captured) {
	t.Helper()
	le := binary.LittleEndian
	if len(b) < 24 || le.Uint32(b) != 0xa1b23c4d {
		t.Fatalf("no capture with nanoseconds: % x", b[:min(len(b), 24)])
	}
	link = le.Uint32(b[20:])
	for b = b[24:]; len(b) > 0; {
		n := le.Uint32(b[8:])
		packets = append(packets, captured{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[12:]), b[16 : 16+n]})
		b = b[16+n:]
	}
	return link, packets
}

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

// frames of all kinds, and of all sizes that a capture has.
func allKinds() (all []captured) {
	add := func(data []byte) {
		n := uint32(len(all))
		all = append(all, captured{1700000000 + n, 999000 - n*1000, uint32(len(data)), data})
	}
	head := func(kind ...byte) []byte {
		return append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}, kind...)
	}
	body := packettest.Bytes(80000)
	for tags := range 4 {
		add(packettest.Spec{Tags: tags, Payload: body[:100]}.Frame())
		add(packettest.Spec{Tags: tags, V6: true, Ext: 2, UDP: true, Payload: body[:100]}.Frame())
	}
	inner := packettest.Spec{IP: true, Payload: body[:50]}.Frame()
	add(append(head(0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0), inner...))                                            // QinQ
	add(append(head(0x88, 0x47, 0, 0, 0x10, 64, 0, 0, 0x21, 64), inner...))                                       // MPLS, two labels
	add(append(head(8, 6, 0, 1, 8, 0, 6, 4, 0, 1), body[:18]...))                                                 // ARP
	add(append([]byte{1, 0x80, 0xc2, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 38, 0x42, 0x42, 3, 0, 0, 0, 0}, body[:39]...)) // STP
	for _, size := range []int{0, 0, 59, 60, 1499, 1500, 8986, 65535, 65536, 79986} {
		add(append(head(8, 0), body[:size]...))
	}
	add(nil) // a record without a byte
	add(body[:1])
	cut := captured{1800000000, 5000, 1514, head(8, 0)}
	return append(all, cut, captured{length: 7}, captured{4294967295, 999999, 3, body[:3]})
}

func TestCaptures(t *testing.T) {
	nettest.Need(t, "tcpdump")
	t.Run("of all kinds", capturesOfAllKinds)
	t.Run("real", realCaptures)
	t.Run("watched", capturesWatched)
}

// Captures of all kinds go to a stream, through the tools and back, unchanged. Tcpdump
// reads the result.
func capturesOfAllKinds(t *testing.T) {
	for _, v := range []struct {
		name  string
		order binary.ByteOrder
		magic uint32
		nano  uint32 // nanoseconds in a part
	}{
		{"little-endian, microseconds", binary.LittleEndian, 0xa1b2c3d4, 1000},
		{"little-endian, nanoseconds", binary.LittleEndian, 0xa1b23c4d, 1},
		{"big-endian, microseconds", binary.BigEndian, 0xa1b2c3d4, 1000},
		{"big-endian, nanoseconds", binary.BigEndian, 0xa1b23c4d, 1},
	} {
		for _, link := range []uint32{1, 101} {
			in := allKinds()
			out := shell(t, writeCapture(v.order, v.magic, link, in), thereAndBack)
			gotLink, got := readCapture(t, out)
			if gotLink != link || len(got) != len(in) {
				t.Fatalf("%s: link %d, %d packets, want %d, %d", v.name, gotLink, len(got), link, len(in))
			}
			for i, p := range in {
				p.fraction *= v.nano
				if g := got[i]; g.seconds != p.seconds || g.fraction != p.fraction || g.length != p.length || !bytes.Equal(g.data, p.data) {
					t.Errorf("%s, packet %d: %d.%09d, %d of %d bytes; want %d.%09d, %d of %d", v.name, i,
						g.seconds, g.fraction, len(g.data), g.length, p.seconds, p.fraction, len(p.data), p.length)
				}
			}
			tcpdump(t, out, len(in))
		}
	}
}

// tcpdump reads a capture and returns what it says of it.
func tcpdump(t testing.TB, capture []byte, packets int) string {
	t.Helper()
	out := string(shell(t, capture, "tcpdump --count -r - 2>/dev/null"))
	if want := fmt.Sprintf("%d packet", packets); !strings.HasPrefix(out, want) {
		t.Errorf("tcpdump counts %s, want %s", out, want)
	}
	return string(shell(t, capture, "tcpdump -tttt --time-stamp-precision=nano -XX -nr - 2>&1 | grep -v '^reading from'"))
}

// Real captures, where they are at hand.
func realCaptures(t *testing.T) {
	for _, name := range nettest.Shared(t, "pcap/*.pcap") {
		in, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out := shell(t, in, thereAndBack)
		_, packets := readCapture(t, out)
		if a, b := tcpdump(t, in, len(packets)), tcpdump(t, out, len(packets)); a != b {
			t.Errorf("%s: tcpdump shows\n%s\nof it, and\n%s\nof what came back", name, a, b)
		}
	}
}

// A capture can be watched: what goes through the pipeline is there at once,
// while it is still running.
func capturesWatched(t *testing.T) {
	seen := t.TempDir() + "/seen"
	_, in, out := watched(t, "tee >(framepcap | tcpdump -lnr - >"+seen+" 2>/dev/null)")
	cross(t, in, out)
	eventually(t, 10*time.Second, "tcpdump shows the frame while the pipeline runs", func() bool {
		b, _ := os.ReadFile(seen)
		return strings.Contains(string(b), "UDP, length 14")
	})
}

// watched is a pipeline between two sockets with a line of shell in it.
func watched(t testing.TB, line string) (all []*stage, in, out *os.File) {
	t.Helper()
	middle := exec.Command("bash", "-c", line)
	middle.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return between(t, middle)
}
