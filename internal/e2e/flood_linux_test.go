package e2e

import (
	"maps"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"framepipe/internal/nettest"
	"framepipe/internal/packettest"
	"framepipe/internal/ping"
	"framepipe/internal/traffic"

	"golang.org/x/sys/unix"
)

// flood sends the smallest frames by an interface of a namespace as fast as it can,
// until stop, which returns how many there were. They are of many flows, so that nothing
// is merged, and for nobody, so that nothing answers.
func flood(t testing.TB, ns *nettest.Namespace, name string) (stop func() (sent int)) {
	t.Helper()
	s := packetSocket(t, ns, name)
	var frames [][]byte
	for port := range 256 {
		f := packettest.Spec{UDP: true, Port: uint16(10000 + port), Payload: make([]byte, 60-42)}.Frame()
		copy(f[30:], []byte{10, 99, 99, 99}) // whose checksum nobody looks at
		frames = append(frames, f)
	}
	var ended atomic.Bool
	sent := make(chan int)
	go func() {
		n := 0
		for !ended.Load() {
			for _, f := range frames {
				if unix.Send(s, f, 0) == nil {
					n++
				}
			}
		}
		sent <- n
	}()
	return func() int {
		ended.Store(true)
		return <-sent
	}
}

// A flood of the smallest frames in one direction leaves the other its share: TCP,
// whose acknowledgements are in the flood, and echoes, whose answers are.
func TestFlood(t *testing.T) {
	for _, v := range variants[:2] {
		t.Run(v.name, func(t *testing.T) {
			s := v.setup
			s.in, s.out = stages, stages
			n := newNetwork(t, s)
			n.serveTraffic("")
			// Connections that are there when the flood comes, and have a second to
			// find their new round trip, a hundred times as long: what opens one is
			// lost as the flood is, and tried again after a second.
			const alone, all = 1200 * time.Millisecond, 4500 * time.Millisecond
			logs := []*traffic.Log{traffic.NewLog(all), traffic.NewLog(all), traffic.NewLog(all), traffic.NewLog(all)}
			fetched := make(chan struct{})
			go func() {
				defer close(fetched)
				n.fetch(t, all, logs...)
			}()
			time.Sleep(alone)
			before := n.b.Statistics("tap1")
			stop := flood(t, n.b, "tap1")
			start := time.Now()
			echoes := n.a.StartPing("10.0.0.2", ping.Config{Count: 100, Every: 10 * time.Millisecond})
			<-fetched
			pings := echoes.Wait()
			n.stop() // in the flood
			took := time.Since(start).Seconds()
			sent := float64(stop()) / took
			after := n.b.Statistics("tap1")
			passed := float64(after["tx_packets"]-before["tx_packets"]) / took
			rate := func(from, to time.Duration) float64 {
				sum := uint64(0)
				for _, log := range logs {
					sum += log.Between(from, to)
				}
				return 8 * float64(sum) / (to - from).Seconds()
			}
			first, beside := rate(200*time.Millisecond, alone-100*time.Millisecond), rate(alone+time.Second, all)
			t.Logf("%.2f Gbit/s alone, %.2f beside a flood of %.0f frames a second, of which %.0f were read; %v",
				first/1e9, beside/1e9, sent, passed, pings)
			// Echoes fare as the flood does whose queue their answers are in.
			if beside < first/20 || float64(pings.Received)/100 < passed/sent/2 {
				t.Error("the other direction starves")
			}
			if sent < 20000 || passed < sent/20 {
				t.Error("that is no flood, or it starves")
			}
		})
	}
}

// A flood that the gate has to drop is not taken for a stage that hangs: nothing is
// started again, and there are answers.
func TestUpFlood(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	u.must("up", "e0", "-in", "quotagate -rate 10Mbit/s -window 10s", "-out", "quotagate -rate 10Mbit/s -window 10s")
	works := u.connection("10.0.0.1:7")
	before := u.stages()
	host := u.tap("fphost")
	was := u.host.Statistics(host)["tx_dropped"]
	stop := flood(t, u.host, host)
	echoes := u.host.StartPing("10.0.0.1", ping.Config{Count: 1000, Every: 5 * time.Millisecond}).Wait() // five seconds: three make a hang
	sent, lost := stop(), u.host.Statistics(host)["tx_dropped"]-was
	works("after")
	t.Logf("%d frames sent, %d of them dropped by the queue of the tap; %v", sent, lost, echoes) // which drops most echoes, too
	if now := u.stages(); !maps.Equal(before, now) {
		t.Errorf("the stages were %v, and are %v", before, now)
	}
	if status := u.must("status"); regexp.MustCompile(`[1-9]\d* restarts`).MatchString(status) || lost == 0 || echoes.Received == 0 {
		t.Errorf("%d frames were lost; %v:\n%s", lost, echoes, status)
	}
}
