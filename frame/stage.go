package frame

import (
	"errors"
	"io"
	"os"
	"runtime"

	"framepipe/internal/fdio"
)

// Func deals with one value of a stream: it passes it on with w.Pass(r), drops
// it by doing nothing, or writes others with w.Write. An error ends the stage.
type Func func(r *Record, w *Writer) error

// Run is the loop of a stage: it reads a stream from in, calls do for each
// frame, and writes to out what do passes on. Annotations are passed on as they
// are. It returns nil at the end of the input, and when the reader of out has
// gone away, which it notices even if no frame arrives. On any error, what came
// whole before it has been dealt with and written.
func Run(in, out *os.File, do Func) error {
	from, to, err := descriptors(in, out)
	if err != nil {
		return err
	}
	r := NewReader(fdio.NewStream(fdio.NewInput(from), to))
	w := NewWriter(fdio.NewOutput(to))
	fdio.Grow(from)
	fdio.Grow(to)
	err = Loop(r, w, do)
	runtime.KeepAlive(in) // or the collector closes them meanwhile
	runtime.KeepAlive(out)
	if errors.Is(err, fdio.ErrReaderGone) {
		return nil
	}
	return err
}

// descriptors returns the files' descriptors without what os.File.Fd may do to
// them: change a flag that others share.
func descriptors(in, out *os.File) (from, to int, err error) {
	for _, f := range []struct {
		file *os.File
		fd   *int
	}{{in, &from}, {out, &to}} {
		c, err := f.file.SyscallConn()
		if err == nil {
			err = c.Control(func(fd uintptr) { *f.fd = int(fd) })
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return from, to, nil
}

// Loop is Run over a Reader and a Writer. It returns nil at the end of the
// input.
func Loop(r *Reader, w *Writer, do Func) error {
	var rec Record
	for {
		ok, err := r.Buffered(&rec)
		switch {
		case err != nil:
		case !ok:
			if err = w.Flush(); err == nil {
				err = r.Fill()
			}
		case rec.IsAnnotation():
			err = w.Pass(&rec)
		default:
			err = do(&rec, w)
		}
		if err == nil {
			continue
		}
		if flush := w.Flush(); flush != nil {
			err = flush
		}
		if err == io.EOF {
			return nil
		}
		return err
	}
}
