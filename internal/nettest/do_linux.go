package nettest

import "framepipe/internal/netns"

// Do runs f inside the namespace, on its own goroutine. Sockets that f makes
// stay inside.
func (n *Namespace) Do(f func()) {
	n.t.Helper()
	if err := netns.Do(n.Name, func() error { f(); return nil }); err != nil {
		n.t.Error(err)
	}
}
