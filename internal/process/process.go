// Package process builds the tools, and runs commands joined by pipes, for tests, the bench
// and the long run.
package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Build builds packages of the project, such as framepipe/tunread, into a directory. The
// caller runs in a directory of the project.
func Build(dir string, packages ...string) error {
	args := append([]string{"build", "-buildvcs=false", "-o", dir + "/"}, packages...)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build, in the project's folder: %w\n%s", err, out)
	}
	return nil
}

// Output collects what processes write. It can be read meanwhile.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Stage is a process that was started.
type Stage struct {
	*exec.Cmd
	Said  Output        // its messages, unless Stderr was set before
	Done  chan struct{} // closed when it has ended
	Ended time.Time     // when that was
}

// Start starts commands joined by pipes, which the function makes. The caller sets the first
// one's Stdin and the last one's Stdout; nil is /dev/null. After an error none is left.
func Start(pipe func() (r, w *os.File, err error), cmds ...*exec.Cmd) (all []*Stage, err error) {
	var ends []*os.File
	defer func() {
		for _, f := range ends { // the processes have them
			f.Close()
		}
		if err != nil {
			Kill(all)
			all = nil
		}
	}()
	for i, c := range cmds[1:] {
		r, w, err := pipe()
		if err != nil {
			return nil, err
		}
		ends = append(ends, r, w)
		cmds[i].Stdout, c.Stdin = w, r
	}
	for _, c := range cmds {
		s := &Stage{Cmd: c, Done: make(chan struct{})}
		if c.Stderr == nil {
			c.Stderr = &s.Said
		}
		c.WaitDelay = time.Second // what a killed shell leaves behind may hold stderr
		if err := c.Start(); err != nil {
			return all, err
		}
		all = append(all, s)
		go func() {
			_ = c.Wait()
			s.Ended = time.Now()
			close(s.Done)
		}()
	}
	return all, nil
}

// Gone reports whether the process has ended.
func (s *Stage) Gone() bool {
	select {
	case <-s.Done:
		return true
	default:
		return false
	}
}

// End waits for the end of the process. If it does not come in time that is an error.
func (s *Stage) End(within time.Duration) error {
	select {
	case <-s.Done:
		return nil
	case <-time.After(within):
		return fmt.Errorf("%q is still there after %v", s.Args, within)
	}
}

// Kill kills processes, and waits for their ends.
func Kill(all []*Stage) {
	for _, s := range all {
		_ = s.Process.Kill()
	}
	for _, s := range all {
		<-s.Done
	}
}

// Until waits until something is so, and reports whether it came to that in time.
func Until(within time.Duration, so func() bool) bool {
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if so() {
			return true
		}
		if time.Since(start) > within {
			return false
		}
	}
}
