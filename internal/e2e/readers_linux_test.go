package e2e

import (
	"fmt"
	"strings"
	"testing"

	"framepipe/internal/nettest"
)

// Three readers each do what they came for with the commands of the README: one shapes a port,
// one writes stages, one asks for a bill.

// readme returns the command of the README that begins with a prefix.
func readme(t testing.TB, prefix string) string {
	t.Helper()
	for _, line := range commands(t, "README.md") {
		if strings.HasPrefix(line, prefix) {
			return line
		}
	}
	t.Fatalf("the README has no command %q", prefix)
	return ""
}

// readmeStages returns commands that write the README's stages to files: no-arp, and a package of
// Go outside of the clone.
func readmeStages(t testing.TB) (setup string) {
	t.Helper()
	return "cat >no-arp <<'END'\n" + blocks(t, "README.md", "python")[0] + "END\nchmod 755 no-arp\nmkdir /var/lib/mystage\ncat >/var/lib/mystage/main.go <<'END'\n" +
		"package main\n\nimport (\n\t\"log\"\n\t\"os\"\n\n\t\"framepipe/frame\"\n)\n\n" + blocks(t, "README.md", "go")[0] + "END\n"
}

// notInstalled has the tools found only where install puts them.
const notInstalled = `PATH=$PWD/sudo:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$(dirname "$(command -v go)")
look() { # at all of the interface that must not change
	ip -d link show eth0; ip -o addr show eth0; ip route; sysctl net.ipv4.conf.eth0 net.ipv6.conf.eth0; tc qdisc show dev eth0
}
export -f look
`

func TestReaders(t *testing.T) {
	t.Parallel()
	needPython(t)
	nettest.Need(t, "sysctl", "rrdtool", "tcpdump")
	t.Run("port", func(t *testing.T) {
		t.Parallel()
		sandbox(t, notInstalled, []string{
			"sleep 2; look >before; ip -br link >links", // IPv6 has settled
			readme(t, "sudo ./pipeline.sh install"),
			readme(t, "sudo pipeline.sh up eth0"),
			"look | diff before -",
			readme(t, "sudo pipeline.sh status"),
			readme(t, "sudo pipeline.sh confirm"),
			readme(t, "sudo pipeline.sh change eth0"),
			"look | diff before - && [ ! -e /run/pipeline/eth0/until ]",
			"sudo pipeline.sh status | tee shown && [ $(grep -c 'free windows left' shown) = 2 ] && grep bytehist shown",
			readme(t, "quotabill -rate 100Mbit/s /"),
			readme(t, "sudo pipeline.sh down"),
			readme(t, "sudo pipeline.sh uninstall"),
			"look | diff before - && ip -br link | diff links -",
			"find /usr/local/bin /usr/local/share /usr/local/lib/systemd ! -type d | diff /dev/null -",
		})
	})
	t.Run("stage", func(t *testing.T) {
		t.Parallel()
		build := matches("`(go mod init mystage [^`]*)`", read(t, root+"/README.md"))
		if len(build) != 1 {
			t.Fatal("the README does not say how to build a stage")
		}
		// The frames to be dropped are between frames that pass.
		passes := func(stage, before, dropped, behind string) string {
			return fmt.Sprintf("cat %s %s %s | %s | framepcap | cmp - <(cat %[1]s %[3]s | framepcap)", before, dropped, behind, stage)
		}
		sandbox(t, taps+readmeStages(t), []string{
			readme(t, "sudo install no-arp"),
			passes("no-arp", "ask.frames", "answer.frames", "day.frames"),
			readme(t, "./pipeline.sh run tap0 tap1 -in 'no-arp"),
			"clone=$PWD; cd /var/lib/mystage && " + strings.ReplaceAll(build[0], "/path/to/framepipe", "$clone"),
			passes("/var/lib/mystage/mystage", "short.frames", "long.frames", "day.frames"),
		})
	})
	t.Run("bill", func(t *testing.T) {
		t.Parallel()
		billed := func(command, rate string) string { return command + " | grep -x 'billed *" + rate + " .*'" }
		sandbox(t, ports, []string{
			billed(readme(t, "quotabill -rate 100Mbit/s -csv vnstat.json"), "24.1 Mbit/s"),
			billed(readme(t, "quotabill -rate 100Mbit/s -csv librenms.json"), "161 bit/s"),
			billed(readme(t, "rrdtool fetch port.rrd"), "53.3 kbit/s"),
			readme(t, "quotabill -rate 100Mbit/s -csv vnstat.json") + " -price 9.50 -warn 90% | grep '^cost *950.00'",
		})
	})
}
