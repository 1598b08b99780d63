package nettest

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f inside the namespace, on its own goroutine. Sockets that f makes
// stay inside.
func (n *Namespace) Do(f func()) {
	n.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + n.Name)
		if err != nil {
			n.t.Error(err)
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			n.t.Errorf("setns: %v", err)
			return
		}
		f()
	}()
	<-done
}
