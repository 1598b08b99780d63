package nettest

import (
	"time"

	"framepipe/internal/ping"
)

// StartPing sends echoes from the namespace to addr, until c.Count are sent, Stop is
// called or the test ends.
func (n *Namespace) StartPing(addr string, c ping.Config) *ping.Pinger {
	n.t.Helper()
	var p *ping.Pinger
	var err error
	n.Do(func() { p, err = ping.Start(addr, c) })
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { p.Stop() })
	return p
}

// Reaches sends echoes from the namespace to addr until the first answer, and reports
// whether it came in time.
func (n *Namespace) Reaches(addr string, within time.Duration) bool {
	n.t.Helper()
	var ok bool
	var err error
	n.Do(func() { ok, err = ping.Reaches(addr, within) })
	if err != nil {
		n.t.Fatal(err)
	}
	return ok
}
