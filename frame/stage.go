package frame

import (
	"cmp"
	"errors"
	"io"
	"os"
	"runtime"

	"framepipe/internal/fdio"
)

// Func deals with one frame of a stream: it passes it on with w.Pass(r), drops it by doing
// nothing, or writes others with w.Write. An error ends the stage.
type Func func(r *Record, w *Writer) error

// Stage deals with the values of a stream. An error ends the loop.
type Stage interface {
	Frame(r *Record) error
	Annotation(r *Record) error
	// Idle is called when all values that were read have been dealt with, before more is
	// read. It writes gathered records, and may set how long the source waits. Records that
	// were delivered before are valid until it returns.
	Idle() error
}

// Loop is the loop that every stage runs in: it reads a stream and calls a Stage's methods,
// until the stream ends, which is no error, or one of them fails. Then Idle is called once
// more, to write the values that came whole before. After os.ErrDeadlineExceeded from the
// source, Loop calls Idle and reads again.
func Loop(r *Reader, s Stage) error {
	var rec Record
	for {
		ok, err := r.Buffered(&rec)
		switch {
		case err != nil:
		case !ok:
			if err = s.Idle(); err == nil {
				if err = r.Fill(); errors.Is(err, os.ErrDeadlineExceeded) {
					err = nil
				}
			}
		case rec.IsAnnotation():
			err = s.Annotation(&rec)
		default:
			err = s.Frame(&rec)
		}
		if err == nil {
			continue
		}
		if e := s.Idle(); e != nil {
			err = e
		}
		if err == io.EOF {
			return nil
		}
		return err
	}
}

// filter is the Stage that calls do for each frame, and passes annotations on.
type filter struct {
	w  *Writer
	do Func
}

func (f *filter) Frame(r *Record) error      { return f.do(r, f.w) }
func (f *filter) Annotation(r *Record) error { return f.w.Pass(r) }
func (f *filter) Idle() error                { return f.w.Flush() }

// Run is the whole of a simple stage: it reads a stream from in, calls do for each frame, and
// writes to out the records that do passes on. Annotations are passed on as they are. It returns nil at
// the end of the input, and when the reader of out has gone away, which it notices even if
// no frame arrives. On any error, the values that came whole before it have been written. Pipes
// become non-blocking in this process, and in no other.
func Run(in, out *os.File, do Func) error {
	from, err := descriptor(in)
	to, err2 := descriptor(out)
	if err := cmp.Or(err, err2); err != nil {
		return err
	}
	r := NewReader(fdio.NewStream(from, to))
	fdio.Grow(from)
	fdio.Grow(to)
	err = Loop(r, &filter{NewWriter(fdio.NewOutput(to)), do})
	runtime.KeepAlive(in) // or the collector closes them meanwhile
	runtime.KeepAlive(out)
	if errors.Is(err, fdio.ErrReaderGone) {
		return nil
	}
	return err
}

// descriptor returns the file's descriptor without the change of a flag that others
// share, which os.File.Fd may make.
func descriptor(f *os.File) (fd int, err error) {
	c, err := f.SyscallConn()
	if err == nil {
		err = c.Control(func(n uintptr) { fd = int(n) })
	}
	return fd, err
}
