package e2e

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"framepipe/internal/ping"
	"framepipe/internal/traffic"
)

// A flood of UDP inbound, above the quota's rate for as long as it lasts, leaves pings and TCP
// their share: inbound, and outbound too if the flood uses up a quota that both directions
// share.
func TestInboundFlood(t *testing.T) {
	for _, bill := range []string{"separate", "sum"} {
		t.Run(bill, func(t *testing.T) {
			t.Parallel()
			const window, alone, all = 2 * time.Second, 5 * time.Second, 10 * time.Second
			gate := fmt.Sprintf("quotagate -rate 20Mbit/s -window %v -cycle 1h -ledger %s/ledger -bill %s -dir ", window, t.TempDir(), bill)
			n := newNetwork(t, setup{in: []string{gate + "in"}, out: []string{gate + "out"}})
			n.serveTraffic("")
			server, client := n.udp("10.0.0.2:9")
			var over atomic.Bool
			flooded := make(chan struct{})
			go func() {
				defer close(flooded)
				payload := make([]byte, 1400)
				for start, sent := time.Now(), 0; !over.Load(); time.Sleep(time.Millisecond) {
					for ; float64(sent) < 30e6/8*time.Since(start).Seconds(); sent += len(payload) {
						_, _ = client.Write(payload)
					}
				}
			}()
			time.Sleep(alone) // the quota is used up
			log := traffic.NewLog(all)
			echoes := n.b.StartPing("10.0.0.1", ping.Config{Every: 100 * time.Millisecond})
			n.fetch(t, all-alone, log)
			pings := echoes.Stop()
			over.Store(true)
			<-flooded
			server.Close()
			n.stop()
			bytes := log.Between(time.Second, all-alone)
			t.Logf("%v; TCP carried %d bytes in 4 s", pings, bytes)
			if pings.Lost() > 0 {
				t.Errorf("beside the flood: %v", pings)
			}
			// Half of the floor is 312 kB in 4 s. The round trips of a loaded machine take some.
			if bytes < 80_000 {
				t.Errorf("beside the flood TCP carried %d bytes in 4 s", bytes)
			}
		})
	}
}
