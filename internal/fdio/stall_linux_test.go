package fdio

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// A wait ends with an error when the reader of the output has read nothing for the limit,
// whatever wrote the bytes, and goes on as long as it reads a little, or has read all.
func TestWatch(t *testing.T) {
	const limit = 400 * time.Millisecond
	hello := []byte("hello")
	for how, write := range map[string]func(s *Stream, to *Output) error{
		"write":  func(_ *Stream, to *Output) error { _, err := to.Write(hello); return err },
		"writev": func(_ *Stream, to *Output) error { return to.Writev([][]byte{hello[:2], hello[2:]}) },
		"splice": func(s *Stream, to *Output) error { return s.Splice(to, len(hello)) },
		"tee": func(s *Stream, to *Output) error {
			_, err := (&TeeStream{Stream: s, out: to, null: to}).Read(make([]byte, 5))
			return err
		},
	} {
		t.Run(how, func(t *testing.T) {
			in, out := pipe(t), pipe(t)
			to := NewOutput(out.w)
			to.Watch(limit)
			defer func() { watched = nil }()
			s := NewStream(in.r, out.w)
			write := func() error {
				if how == "splice" || how == "tee" {
					send(t, in.w, "hello")
				}
				return write(s, to)
			}
			wait := func(d time.Duration) error {
				if err := s.wait(d); err != os.ErrDeadlineExceeded {
					return err
				}
				return nil
			}
			// The reader leaves some bytes each time, and as many arrive as it reads.
			_ = write()
			for range 4 {
				must(t, errors.Join(write(), wait(limit/2)))
				_, err := tryRead(out.r, make([]byte, 5))
				must(t, err)
			}
			_, _ = tryRead(out.r, make([]byte, 100))
			must(t, wait(2*limit)) // the pipe is empty
			must(t, write())
			stalls := func(do func() error) {
				t.Helper()
				start := time.Now()
				err := do()
				took := time.Since(start)
				var w *WriteError
				if !errors.As(err, &w) || !strings.Contains(w.Error(), "has not read for 0.4 s") {
					t.Errorf("%v", err)
				}
				if took < limit || took > 4*limit {
					t.Errorf("noticed after %v", took)
				}
			}
			stalls(func() error { return wait(Forever) })
			_, err := tryRead(out.r, make([]byte, 1))
			must(t, err)
			time.Sleep(checkEvery)
			stalls(func() (err error) { // more keeps coming
				for i := 0; err == nil && i < 4000; i++ {
					if err = write(); err == nil { // splice and tee wait, too
						err = wait(time.Millisecond)
					}
				}
				return err
			})
		})
	}
}
