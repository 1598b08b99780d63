package main

import (
	"bytes"
	"encoding/json"
	"os"
	"sync/atomic"

	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/hist"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"
)

// format is the format of reports.
type format uint8

const (
	text format = iota
	jsonLines
	msgpackMaps
)

// reporter writes reports.
type reporter struct {
	format           format
	name             string
	out              *fdio.Output
	style            hist.Style
	buf              bytes.Buffer
	rest             []byte // the unwritten part of a partly written report
	failed           bool
	patient          bool // wait for a slow reader: the stream comes from a file
	warn             func(format string, args ...any)
	written, leftOut atomic.Uint64
}

func newReporter(f format, out *os.File, warn func(format string, args ...any)) *reporter {
	r := &reporter{format: f, name: out.Name(), out: fdio.NewOutput(int(out.Fd())), warn: warn}
	r.style = hist.Style{Colour: cli.Colour(r.out.Fd()), ASCII: !cli.UTF8()}
	return r
}

// open opens the output of reports. It opens a fifo for reading, too: otherwise the
// open would wait or fail until the fifo has a reader.
func open(name string) (*os.File, error) {
	mode := os.O_WRONLY
	if info, err := os.Stat(name); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		mode = os.O_RDWR | unix.O_NONBLOCK
	}
	return os.OpenFile(name, mode|os.O_APPEND|os.O_CREATE, 0o644)
}

// report writes a report, or drops it if the write would block: a live stream must not
// wait for a slow reader of reports.
func (r *reporter) report(h hist.Report) error {
	r.buf.Reset()
	var err error
	switch r.format {
	case text:
		r.buf.WriteString(h.Text(r.style))
	case jsonLines:
		err = json.NewEncoder(&r.buf).Encode(h)
	case msgpackMaps:
		err = msgpack.NewEncoder(&r.buf).Encode(h)
	}
	if err != nil {
		return err
	}
	// The last report is finished first: only the final one may be incomplete.
	if !r.patient && !r.ready() || !r.write(r.rest) || !r.write(r.buf.Bytes()) && r.rest == nil {
		r.leftOut.Add(1)
	} else {
		r.written.Add(1)
	}
	return nil
}

// ready reports whether there is room for some of a report.
func (r *reporter) ready() bool {
	fds := [1]fdio.PollFd{{Fd: int32(r.out.Fd()), Events: unix.POLLOUT}}
	n, err := fdio.Wait(fds[:], 0)
	return err == nil && n > 0 && !fdio.Broken(fds[0])
}

// write reports whether it wrote all of p, and keeps the rest if it wrote some. It
// warns once about a full disk, and each later write tries again.
func (r *reporter) write(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	var n int
	var err error
	if r.patient {
		n, err = r.out.Write(p)
	} else {
		n, err = r.out.Try(p)
	}
	if n > 0 {
		r.rest = append([]byte(nil), p[n:]...)
	}
	if err == unix.EAGAIN || err == nil && n < len(p) {
		return false
	}
	if err != nil && !r.failed {
		r.warn("write %s: %v; reports are left out until that is over", r.name, err)
	}
	r.failed = err != nil
	return err == nil
}
