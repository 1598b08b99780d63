package frame

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipes returns a stage's two pipes as a shell makes them, in blocking mode or not: the
// test writes to feed, the stage reads in and writes out, the test reads drain.
func pipes(t *testing.T, nonblock bool) (feed, in, out, drain *os.File) {
	t.Helper()
	var fds [4]int
	if err := errors.Join(unix.Pipe(fds[:2]), unix.Pipe(fds[2:])); err != nil {
		t.Fatal(err)
	}
	files := make([]*os.File, 4)
	for i, fd := range fds {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, nonblock); err != nil {
			t.Fatal(err)
		}
		files[i] = os.NewFile(uintptr(fd), "pipe")
		t.Cleanup(func() { files[i].Close() })
	}
	return files[1], files[0], files[3], files[2]
}

// start runs a stage and closes its ends when it returns, as its process would.
func start(in, out *os.File, do Func) <-chan error {
	done := make(chan error, 1)
	go func() {
		err := Run(in, out, do)
		in.Close()
		out.Close()
		done <- err
	}()
	return done
}

// within waits for a stage to end, for the second that a pipeline has to fall
// once a part of it is gone.
func within(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Second):
		t.Fatal("still running after a second")
		return nil
	}
}

func passAll(r *Record, w *Writer) error { return w.Pass(r) }

var errEnough = errors.New("that many were asked for")

func TestRun(t *testing.T) {
	stream := header(1, LinkEthernet)
	want := header(1, LinkEthernet)
	for i := range 3000 { // some megabytes, more than the pipes and buffers hold
		v := canon(uint64(i), nil, bytes.Repeat([]byte{byte(i)}, 1514))
		if i%100 == 0 {
			v = canon(uint64(i), vnet, bytes.Repeat([]byte{byte(i)}, 65000))
		}
		stream = append(stream, v...)
		if i%3 != 0 {
			want = append(want, v...)
		}
	}
	feed, in, out, drain := pipes(t, false)
	done := start(in, out, func(r *Record, w *Writer) error {
		if r.Time%3 == 0 {
			return nil
		}
		return w.Pass(r)
	})
	go func() {
		_, _ = feed.Write(stream)
		feed.Close()
	}()
	got, err := io.ReadAll(drain)
	if err := errors.Join(err, within(t, done)); err != nil {
		t.Error(err)
	}
	if Run(in, out, passAll) == nil {
		t.Error("no error with closed files")
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came out, want %d, or others", len(got), len(want))
	}
}

// A frame goes on when it comes, not when the next one does. The reader of the output goes
// away: that is the end, and no error, whether frames come or not.
func TestRunReaderGone(t *testing.T) {
	for _, busy := range []bool{false, true} {
		feed, in, out, drain := pipes(t, false)
		done := start(in, out, passAll)
		v := canon(ts, nil, arp)
		got := make([]byte, len(v))
		for range 20 {
			_, err := feed.Write(v)
			if _, err2 := io.ReadFull(drain, got); err != nil || err2 != nil || !bytes.Equal(got, v) {
				t.Fatalf("% x, %v, %v", got, err, err2)
			}
		}
		if busy {
			go func() {
				for err := error(nil); err == nil; _, err = feed.Write(bytes.Repeat(v, 100)) {
				}
			}()
		}
		time.Sleep(20 * time.Millisecond) // let it settle into its wait
		drain.Close()
		if err := within(t, done); err != nil {
			t.Errorf("busy %v: %v", busy, err)
		}
	}
}

// A stage shares its descriptors with its neighbours: their flags stay. Frames passed before an
// error of its own are written.
func TestRunKeepsFlags(t *testing.T) {
	for name, nonblock := range map[string]bool{"blocking": false, "non-blocking": true} {
		feed, in, out, drain := pipes(t, nonblock)
		var fds [2]int // a neighbour's, which share the flags
		for i, f := range []*os.File{in, out} {
			fd, err := descriptor(f)
			fds[i], _ = unix.Dup(fd)
			defer unix.Close(fds[i])
			if err != nil {
				t.Fatal(err)
			}
		}
		flags := func() string {
			a, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFL, 0)
			b, err2 := unix.FcntlInt(uintptr(fds[1]), unix.F_GETFL, 0)
			return fmt.Sprint(a, b, err, err2)
		}
		before, during := flags(), ""
		first := canon(ts, nil, arp)
		if _, err := feed.Write(cat(first, canon(1, nil, arp))); err != nil {
			t.Fatal(err)
		}
		err := Run(in, out, func(r *Record, w *Writer) error {
			if during = flags(); r.Time == 1 {
				return errEnough
			}
			return w.Pass(r)
		})
		got := make([]byte, len(first))
		if _, err := io.ReadFull(drain, got); err != nil || !bytes.Equal(got, first) {
			t.Errorf("%s: wrote % x, %v", name, got, err)
		}
		if after := flags(); err != errEnough || during != before || after != before {
			t.Errorf("%s: %v; the flags are %s and then %s, were %s", name, err, during, after, before)
		}
	}
}

// Run is all that holds these files: the collector must not close them.
func TestRunHoldsItsFiles(t *testing.T) {
	var a, b [2]int
	if err := errors.Join(unix.Pipe(a[:]), unix.Pipe(b[:])); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(b[0])
	done := make(chan error, 1)
	go func() { done <- Run(os.NewFile(uintptr(a[0]), "in"), os.NewFile(uintptr(b[1]), "out"), passAll) }()
	for range 5 {
		time.Sleep(5 * time.Millisecond)
		runtime.GC()
	}
	for _, fd := range []int{a[0], b[1]} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil {
			t.Errorf("a descriptor of a running stage: %v", err)
		}
	}
	unix.Close(a[1])
	if err := within(t, done); err != nil {
		t.Error(err)
	}
}

// endless repeats a stream without end.
type endless struct {
	b  []byte
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.at:])
	e.at = (e.at + n) % len(e.b)
	return n, nil
}

type discardSpans struct{ io.Writer }

func (discardSpans) Writev([][]byte) error { return nil }

// Nothing is allocated per frame, whatever is done with it.
func TestLoopAllocates(t *testing.T) {
	const frames = 10000
	mixed := canon(0, nil, make([]byte, 300000))
	for i := range 50 {
		o, frame := []([]byte){nil, vnet}[i%2], make([]byte, 60+20*i)
		more := cat(added(1, arp, str("more")), pairs(str("a"), null))
		mixed = cat(mixed, canon(uint64(i), o, frame), short(uint64(i), o, frame), more)
	}
	for name, do := range map[string]Func{
		"pass": passAll,
		"drop half": func(r *Record, w *Writer) error {
			if r.Time%2 == 0 {
				return nil
			}
			return w.Pass(r)
		},
		"write anew": func(r *Record, w *Writer) error { return w.Write(r) },
		"write raw":  func(r *Record, w *Writer) error { return w.WriteRaw(r.Raw()) },
	} {
		for _, dst := range []io.Writer{io.Discard, discardSpans{io.Discard}} {
			n := 0
			r := NewReader(&endless{b: mixed})
			stage := &filter{NewWriter(dst), func(rec *Record, w *Writer) error {
				if n++; n%frames == 0 {
					return errEnough
				}
				return do(rec, w)
			}}
			got := testing.AllocsPerRun(3, func() {
				if err := Loop(r, stage); err != errEnough {
					t.Fatal(err)
				}
			})
			if got > 1 { // the Record of the Loop
				t.Errorf("%s to %T: %v allocations in %d frames", name, dst, got, frames)
			}
		}
	}
}

// The writer's error stands before the reader's.
func TestLoopErrors(t *testing.T) {
	for _, end := range []string{"", "garbage", string(canon(ts, nil, arp)[:50])} {
		r := NewReader(strings.NewReader(string(canon(ts, nil, arp)) + end))
		if err := Loop(r, &filter{NewWriter(&failing{err: errEnough}), passAll}); err != errEnough {
			t.Errorf("%q: %v, want the writer's error", end, err)
		}
	}
}
