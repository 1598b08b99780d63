// Package netns runs functions inside network namespaces, for tests and the long run.
package netns

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f inside a namespace that ip netns has made, on a thread of its own. Sockets that f
// makes stay inside.
func Do(name string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		file, err := os.Open("/run/netns/" + name)
		if err == nil {
			if err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err == nil {
				err = f()
			}
			file.Close()
		}
		done <- err
	}()
	return <-done
}
