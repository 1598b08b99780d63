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
	for _, how := range []string{"write", "writev", "splice", "tee"} {
		t.Run(how, func(t *testing.T) {
			in, out := pipe(t), pipe(t)
			defer in.closeBoth()
			defer out.closeBoth()
			to := NewOutput(out.w)
			to.Watch(limit)
			defer func() { watched = nil }()
			s := NewStream(in.r, out.w)
			send := func() error {
				t.Helper()
				b := []byte("hello")
				var err error
				switch how {
				case "write":
					_, err = to.Write(b)
				case "writev":
					err = to.Writev([][]byte{b[:2], b[2:]})
				default:
					if _, err = NewOutput(in.w).Write(b); err != nil {
						t.Fatal(err)
					}
					if how == "splice" {
						err = s.Splice(to, len(b))
					} else {
						_, err = (&TeeStream{Stream: s, out: to, null: to}).Read(b)
					}
				}
				return err
			}
			wait := func(d time.Duration) error {
				if err := s.wait(d); err != os.ErrDeadlineExceeded {
					return err
				}
				return nil
			}
			reader := NewStream(out.r, -1)
			reader.Timeout = 0
			// The reader leaves some bytes each time, and as many arrive as it reads.
			_ = send()
			for range 4 {
				if err := errors.Join(send(), wait(limit/2)); err != nil {
					t.Fatal(err)
				}
				if _, err := reader.Read(make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = reader.Read(make([]byte, 100))
			if err := wait(2 * limit); err != nil { // the pipe is empty
				t.Fatal(err)
			}
			if err := send(); err != nil {
				t.Fatal(err)
			}
			stalls := func(do func() error) {
				t.Helper()
				start := time.Now()
				err := do()
				var w *WriteError
				took := time.Since(start)
				if !errors.As(err, &w) || !strings.Contains(err.Error(), "has not read for 0.4 s") || took < limit || took > 4*limit {
					t.Errorf("%v after %v", err, took)
				}
			}
			stalls(func() error { return wait(Forever) })
			if _, err := reader.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(checkEvery)
			stalls(func() (err error) { // more keeps coming
				for i := 0; err == nil && i < 4000; i++ {
					if err = send(); err == nil { // splice and tee wait, too
						err = wait(time.Millisecond)
					}
				}
				return err
			})
		})
	}
}
