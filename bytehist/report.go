package main

import (
	"encoding/json"
	"os"
	"slices"
	"sync/atomic"

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
	file             *os.File
	out              *fdio.Output // to file
	style            hist.Style
	rest             []byte // the unwritten part of a partly written report
	failed           bool
	patient          bool // wait for a slow reader: the stream comes from a file
	warn             func(format string, args ...any)
	written, leftOut atomic.Uint64
}

// open opens the output of reports, for reading, too: else it would wait or fail until a fifo
// has a reader.
func open(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK|os.O_APPEND|os.O_CREATE, 0o644)
}

// report writes a report, or leaves it out if the write would block: a live stream must not
// wait for a slow reader of reports. It warns once about a full disk, and each later write tries
// again.
func (r *reporter) report(h hist.Report) (err error) {
	var b []byte
	switch r.format {
	case text:
		b = []byte(h.Text(r.style))
	case jsonLines:
		b, err = json.Marshal(h)
		b = append(b, '\n')
	case msgpackMaps:
		b, err = msgpack.Marshal(h)
	}
	if err != nil {
		return err
	}
	// The last report is finished first: only the final one may be incomplete.
	n, b, err := 0, slices.Concat(r.rest, b), error(unix.EAGAIN)
	switch {
	case r.patient:
		n, err = r.out.Write(b)
	case r.ready():
		n, err = r.out.Try(b)
	}
	if n > len(r.rest) {
		r.written.Add(1)
		r.rest = b[n:]
	} else {
		r.leftOut.Add(1)
		r.rest = r.rest[n:]
	}
	if err == unix.EAGAIN {
		return nil
	}
	if err != nil && !r.failed {
		r.warn("write %s: %v; reports are left out until that is over", r.file.Name(), err)
	}
	r.failed = err != nil
	return nil
}

// ready reports whether there is room for some of a report.
func (r *reporter) ready() bool {
	fds := [1]fdio.PollFd{{Fd: int32(r.out.Fd()), Events: unix.POLLOUT}}
	n, err := fdio.Wait(fds[:], 0)
	return err == nil && n > 0 && !fdio.Broken(fds[0])
}
