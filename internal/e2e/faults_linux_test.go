package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"framepipe/internal/nettest"
)

// said reads all that a running up has said.
func (u *uplink) said() string {
	b, _ := os.ReadFile(u.state + "/e0/up.log")
	return string(b)
}

// side is what a device has of addresses and routes that mean something elsewhere.
func (u *uplink) side(dev string) string {
	u.t.Helper()
	all := u.host.Run("ip", "-o", "addr", "show", "dev", dev, "scope", "global") + u.host.Run("ip", "route", "show", "table", "all", "dev", dev)
	all = regexp.MustCompile(`(?m)^\d+: |\\.*$|\bnodad |^(local|multicast|fe80::).*\n`).ReplaceAllString(all, "")
	return strings.ReplaceAll(passing.ReplaceAllString(all, "$1 some"), dev, "DEVICE")
}

// Devices that go while the traffic passes through them are made again, with
// addresses and routes, and an interface that goes is waited for. It is said once,
// connections go on, and down puts back what there was.
func TestUpDevicesGo(t *testing.T) {
	for _, lan := range []bool{false, true} {
		t.Run(map[bool]string{false: "host", true: "lan"}[lan], func(t *testing.T) {
			t.Parallel()
			u := newUplink(t, true)
			before := u.looks()
			up := []string{"up", "e0", "-in", "quotagate -quota 1PB", "-out", "quotagate -quota 1PB"}
			host := "fphost"
			if lan {
				up, host = append(up, "-lan", "l0"), "fplan"
			}
			u.must(up...)
			talk := u.connection("10.0.0.1:7", "[fd00::1]:7")
			talk("before")
			had := u.side(u.device(host))
			answers := func() bool {
				return u.answers() && (!lan || u.behind.Command("ping", "-n", "-c1", "-W0.2", "10.0.0.1").Run() == nil)
			}
			gone := func(name string) func() {
				return func() { u.host.Run("ip", "link", "del", u.device(name)) }
			}
			// mended waits until all is well again, and what is said of it.
			mended := func(what, says string) {
				t.Helper()
				after := eventually(t, 15*time.Second, what+": an answer", func() bool {
					return strings.Count(u.said(), says) == 1 && answers()
				})
				talk(what)
				t.Logf("%s: an answer after %v", what, after)
				if has := u.side(u.device(host)); has != had {
					t.Errorf("%s: the host's side has\n%s\nand had\n%s", what, has, had)
				}
			}
			leaves := func(name string) func() {
				return func() { u.host.Run("ip", "link", "set", name, "nomaster") }
			}
			for _, f := range []struct {
				lan  bool
				what string
				do   func()
				says string
			}{
				{false, "the host's tap goes", gone("fphost"), "MADE AGAIN: fphost"},
				{false, "the network's tap goes", gone("fpnet"), "MADE AGAIN: fpnet"},
				{false, "the bridge goes", gone("fpbr"), "MADE AGAIN: fpbr"},
				{false, "the interface leaves the bridge", leaves("e0"), "back in the bridges: e0"},
				{true, "the host's tap goes", gone("fphost"), "MADE AGAIN: fphost"},
				{true, "the bridge of the other side goes", gone("fplan"), "MADE AGAIN: fplan"},
				{true, "the other interface leaves the bridge", leaves("l0"), "back in the bridges: e0, l0"},
			} {
				if f.lan == lan {
					f.do()
					mended(f.what, f.says)
				}
			}
			u.must("down")
			u.same(before)
			if lan {
				return
			}

			u.must(up...)
			talk("the second time")
			u.host.Run("ip", "link", "set", "e0", "down")
			time.Sleep(1200 * time.Millisecond)
			u.host.Run("ip", "link", "set", "e0", "up")
			eventually(t, 10*time.Second, "the interface is down, and up: an answer", answers)
			talk("up again")
			router := strings.TrimSpace(u.router.Run("cat", "/sys/class/net/e1/address"))
			u.router.Run("ip", "link", "del", "e1") // and its other end, e0
			eventually(t, 5*time.Second, "a message", func() bool { return strings.Contains(u.said(), "GONE: e0; nothing passes until it is back") })
			if s := u.must("status"); !strings.Contains(s, "e0 is missing") {
				t.Errorf("status:\n%s", s)
			}
			nettest.Run(t, "ip", "link", "add", "e0", "netns", u.host.Name, "type", "veth", "peer", "name", "e1", "address", router, "netns", u.router.Name)
			u.router.Run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/e1/accept_dad; ip link set e1 up; ip addr add 10.0.0.1/24 dev e1; ip addr add fd00::1/64 dev e1")
			mended("the interface goes and comes back", "back in the bridges: e0")
			if n := strings.Count(u.said(), "GONE"); n != 1 {
				t.Errorf("it is said %d times that e0 has gone", n)
			}
			if a, b := u.mac("e0"), u.mac(u.device(host)); a != b {
				t.Errorf("the interface is another, %s, and the host's side has %s", a, b)
			}
			u.must("down")
			if has := u.side("e0"); has != had {
				t.Errorf("the new interface has\n%s\nand the host's side had\n%s", has, had)
			}
			talk("on the new interface")

			u.must(up...)
			u.router.Run("ip", "link", "del", "e1")
			if said := u.must("down"); !strings.Contains(said, "there is no e0 that could have its addresses and routes back: ") {
				t.Errorf("down says %s", said)
			}
			if s := u.host.Run("ip", "-o", "link"); regexp.MustCompile(`fp(br|net|host|lan)\d`).MatchString(s) {
				t.Errorf("left: %s", s)
			}
		})
	}
}

var _ = fmt.Sprint
