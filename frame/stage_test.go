package frame

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"framepipe/internal/fdio"

	"golang.org/x/sys/unix"
)

// pipes returns a stage's two pipes as a shell makes them, in blocking mode: the
// test writes to feed, the stage reads in and writes out, the test reads drain.
func pipes(t testing.TB) (feed, in, out, drain *os.File) {
	t.Helper()
	var fds [4]int
	for i := 0; i < 4; i += 2 {
		if err := unix.Pipe(fds[i : i+2]); err != nil {
			t.Fatal(err)
		}
		unix.CloseOnExec(fds[i])
		unix.CloseOnExec(fds[i+1])
	}
	files := make([]*os.File, 4)
	for i, fd := range fds {
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

func TestRun(t *testing.T) {
	var stream, want []byte
	stream = append(stream, header(uintN(1, 0), LinkEthernet)...)
	want = append(want, stream...)
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
	feed, in, out, drain := pipes(t)
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
	if err != nil {
		t.Fatal(err)
	}
	if err := within(t, done); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came out, want %d; they differ at %d", len(got), len(want), differ(got, want))
	}
}

// A frame goes on when it comes, and not when the next one does.
func TestRunAtOnce(t *testing.T) {
	feed, in, out, drain := pipes(t)
	done := start(in, out, passAll)
	v := canon(ts, nil, arp)
	got := make([]byte, len(v))
	for range 20 {
		if _, err := feed.Write(v); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(drain, got); err != nil || !bytes.Equal(got, v) {
			t.Fatalf("% x, %v", got, err)
		}
	}
	feed.Close()
	if err := within(t, done); err != nil {
		t.Error(err)
	}
}

func TestRunEnds(t *testing.T) {
	head := cat(header(uintN(1, 0), LinkIP), canon(ts, nil, arp))
	stop := errors.New("enough")
	for _, tt := range []struct {
		name string
		in   []byte
		do   Func
		out  []byte
		is   error
		text string
	}{
		{"nothing came", nil, passAll, nil, nil, ""},
		{"between values", head, passAll, head, nil, ""},
		{"in a value", cat(head, canon(ts, nil, arp)[:40]), passAll, head, io.ErrUnexpectedEOF, "offset 102: the input ends inside a frame, after 40 of 58 bytes"},
		{"garbage", cat(head, []byte("GET /")), passAll, head, nil, "offset 102: found an unsigned integer (byte 0x47), want an array (a frame) or a map (an annotation); this is text, 'G': a stage must not print to its standard output"},
		{"the stage's error", cat(head, canon(1, nil, arp), canon(2, nil, arp)), func(r *Record, w *Writer) error {
			if r.Time == 1 {
				return stop
			}
			return w.Pass(r)
		}, head, stop, "enough"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			feed, in, out, drain := pipes(t)
			done := start(in, out, tt.do)
			if _, err := feed.Write(tt.in); err != nil {
				t.Fatal(err)
			}
			feed.Close()
			got, err := io.ReadAll(drain)
			if err != nil {
				t.Fatal(err)
			}
			err = within(t, done)
			if errorText(err) != tt.text || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %s", err, tt.text)
			}
			if !bytes.Equal(got, tt.out) {
				t.Errorf("wrote % x\nwant  % x", got, tt.out)
			}
		})
	}
}

// The reader of the output goes away: that is the end, and no error, whether
// frames come or not.
func TestRunReaderGone(t *testing.T) {
	for name, busy := range map[string]bool{"idle": false, "busy": true} {
		t.Run(name, func(t *testing.T) {
			feed, in, out, drain := pipes(t)
			done := start(in, out, passAll)
			v := canon(ts, nil, arp)
			if _, err := feed.Write(v); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(drain, make([]byte, len(v))); err != nil {
				t.Fatal(err)
			}
			if busy {
				go func() {
					for {
						if _, err := feed.Write(bytes.Repeat(v, 100)); err != nil {
							return
						}
					}
				}()
			}
			time.Sleep(20 * time.Millisecond) // let it settle into its wait
			drain.Close()
			if err := within(t, done); err != nil {
				t.Error(err)
			}
		})
	}
}

// A stage shares its descriptors with its neighbours: their flags stay.
func TestRunKeepsFlags(t *testing.T) {
	for name, nonblock := range map[string]bool{"blocking": false, "non-blocking": true} {
		t.Run(name, func(t *testing.T) {
			var a, b [2]int
			for _, p := range [][]int{a[:], b[:]} {
				if err := unix.Pipe(p); err != nil {
					t.Fatal(err)
				}
				for _, fd := range p {
					if err := unix.SetNonblock(fd, nonblock); err != nil {
						t.Fatal(err)
					}
					defer unix.Close(fd)
				}
			}
			flags := func() (all [4]int) {
				for i, fd := range []int{a[0], a[1], b[0], b[1]} {
					f, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
					if err != nil {
						t.Fatal(err)
					}
					all[i] = f
				}
				return all
			}
			dup := func(fd int) *os.File { // shares the flags, and may be closed
				fd, err := unix.Dup(fd)
				if err != nil {
					t.Fatal(err)
				}
				return os.NewFile(uintptr(fd), "dup")
			}
			before := flags()
			in, out := dup(a[0]), dup(b[1])
			during := make(chan [4]int, 1)
			done := start(in, out, func(r *Record, w *Writer) error {
				during <- flags()
				return w.Pass(r)
			})
			if _, err := unix.Write(a[1], canon(ts, nil, arp)); err != nil {
				t.Fatal(err)
			}
			if got := <-during; got != before {
				t.Errorf("the flags are %x, were %x", got, before)
			}
			if err := unix.Close(a[1]); err != nil {
				t.Fatal(err)
			}
			if err := within(t, done); err != nil {
				t.Error(err)
			}
			a[1], _ = unix.Dup(a[0]) // for flags and the deferred Close
			after := flags()
			after[1] = before[1]
			if after != before {
				t.Errorf("the flags are %x, were %x", after, before)
			}
		})
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

// Files are read to their end without waiting, and a closed one is an error.
func TestRunFiles(t *testing.T) {
	stream := cat(canon(ts, nil, arp), header(uintN(1, 0), LinkEthernet), short(1, vnet, arp))
	name := t.TempDir() + "/stream"
	if err := os.WriteFile(name, stream, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(name + ".out")
	if err != nil {
		t.Fatal(err)
	}
	if err := within(t, start(in, out, passAll)); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(name + ".out"); err != nil || !bytes.Equal(got, stream) {
		t.Errorf("% x, %v", got, err)
	}
	if err := Run(in, out, passAll); err == nil {
		t.Error("no error with closed files")
	}
}

var errEnough = errors.New("that many were asked for")

// endless repeats a stream without end.
type endless struct {
	b  []byte
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.at:])
	if e.at += n; e.at == len(e.b) {
		e.at = 0
	}
	return n, nil
}

// Nothing is allocated per frame, whatever is done with it.
func TestLoopAllocates(t *testing.T) {
	const frames = 10000
	var mixed []byte
	for i := range 50 {
		o := []([]byte){nil, vnet}[i%2]
		mixed = append(mixed, canon(uint64(i), o, make([]byte, 60+20*i))...)
		mixed = append(mixed, short(uint64(i), o, make([]byte, 60+20*i))...)
		mixed = append(mixed, cat(arrayN(4, 0), uintN(1, 2), null, binN(arp, 1), str("more"))...)
		mixed = append(mixed, unhex("81 a1 61 01")...)
	}
	mixed = append(mixed, canon(0, nil, make([]byte, 300000))...)
	for _, tt := range []struct {
		name string
		do   Func
	}{
		{"pass", passAll},
		{"drop half", func(r *Record, w *Writer) error {
			if r.Time%2 == 0 {
				return nil
			}
			return w.Pass(r)
		}},
		{"write anew", func(r *Record, w *Writer) error { return w.Write(r) }},
		{"write raw", func(r *Record, w *Writer) error { return w.WriteRaw(r.Raw()) }},
	} {
		for _, dst := range []io.Writer{io.Discard, discardSpans{}} {
			r, w := NewReader(&endless{b: mixed}), NewWriter(dst)
			n := 0
			do := func(rec *Record, w *Writer) error {
				if n++; n%frames == 0 {
					return errEnough
				}
				return tt.do(rec, w)
			}
			stage := Filter(w, do)
			got := testing.AllocsPerRun(3, func() {
				if err := Loop(r, stage); err != errEnough {
					t.Fatal(err)
				}
			})
			if got > 1 { // the Record of the Loop
				t.Errorf("%s to %T: %v allocations in %d frames", tt.name, dst, got, frames)
			}
			if n != 4*frames {
				t.Errorf("%d frames", n)
			}
		}
	}
}

type discardSpans struct{}

func (discardSpans) Write(b []byte) (int, error) { return len(b), nil }
func (discardSpans) Writev([][]byte) error       { return nil }

// The same between real pipes, system calls included.
func TestPipesAllocate(t *testing.T) {
	feed, in, out, drain := pipes(t)
	ends := [4]int{} // their numbers, without what Fd does to the files
	for i, f := range []*os.File{feed, in, out, drain} {
		fd, err := descriptor(f)
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = fd
	}
	const frames = 500 // that a pipe holds even where it may not grow
	stream := bytes.Repeat(canon(ts, vnet, make([]byte, 60)), frames)
	if len(stream) > 64<<10 {
		t.Fatal("more than a pipe holds")
	}
	r := NewReader(fdio.NewStream(ends[1], ends[2]))
	w := NewWriter(fdio.NewOutput(ends[2]))
	buf := make([]byte, len(stream))
	n := 0
	do := func(rec *Record, w *Writer) error {
		if err := w.Pass(rec); err != nil {
			return err
		}
		if n++; n%frames == 0 {
			return errEnough
		}
		return nil
	}
	stage := Filter(w, do)
	got := testing.AllocsPerRun(20, func() {
		if _, err := unix.Write(ends[0], stream); err != nil {
			t.Fatal(err)
		}
		if err := Loop(r, stage); err != errEnough {
			t.Fatal(err)
		}
		for b := buf; len(b) > 0; {
			m, err := unix.Read(ends[3], b)
			if err != nil || m == 0 {
				t.Fatal(m, err)
			}
			b = b[m:]
		}
	})
	if got > 1 {
		t.Errorf("%v allocations in %d frames", got, frames)
	}
	if !bytes.Equal(buf, stream) {
		t.Error("something else came out")
	}
	runtime.KeepAlive([]*os.File{feed, in, out, drain})
}

// Loop's own errors: the writer's stands before the reader's, and what came
// before an error has been written.
func TestLoopErrors(t *testing.T) {
	broken := errors.New("no space left")
	cut := canon(ts, nil, arp)[:50]
	for _, end := range [][]byte{cut, []byte("garbage"), nil} {
		err := Loop(NewReader(bytes.NewReader(cat(canon(ts, nil, arp), end))), Filter(NewWriter(&failing{err: broken}), passAll))
		if err != broken {
			t.Errorf("%q: %v, want the writer's error", end, err)
		}
	}
	var out strings.Builder
	err := Loop(NewReader(bytes.NewReader(cat(canon(ts, nil, arp), cut))), Filter(NewWriter(&out), passAll))
	if !errors.Is(err, io.ErrUnexpectedEOF) || out.String() != string(canon(ts, nil, arp)) {
		t.Errorf("%v; wrote %q", err, out.String())
	}
}
