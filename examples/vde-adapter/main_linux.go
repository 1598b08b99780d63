// Vde-adapter translates between streams of frames and the format of VDE's plugs,
// in which the length of each frame stands before it, in two bytes, big-endian.
//
//	vde-adapter to < stream | wirefilter -l 1 | vde-adapter from > stream
//
// See wirefilter.sh. A VDE switch is reached with dpipe and vde_plug:
//
//	dpipe sh -c 'tunread -offload=false tap0 | vde-adapter to' '=}' vde_plug /tmp/switch
//
// What VDE has no place for is lost: times, which are new afterwards, additions,
// and annotations.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"framepipe/frame"

	"golang.org/x/sys/unix"
)

// largest is the longest frame that VDE takes. At a longer one, wirefilter throws
// away all that it has read, and begins anywhere.
const largest = 1521

func main() {
	log.SetFlags(0)
	log.SetPrefix("vde-adapter: ")
	linger := flag.Duration("linger", 0, "keep the output open for so `long` after the end of the input")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: vde-adapter [-linger 1s] to < stream, vde-adapter from > stream")
		flag.PrintDefaults()
	}
	flag.Parse()
	var err error
	switch flag.Arg(0) {
	case "to":
		err = to(*linger)
	case "from":
		err = from()
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// to writes each frame of the stream on stdin to stdout in VDE's format.
func to(linger time.Duration) error {
	// wirefilter reads up to 2048 bytes and takes what lies behind them for half
	// of a length where a read has ended between its two bytes. In packet mode,
	// a pipe hands it what was one write as one read.
	_, _ = unix.FcntlInt(1, unix.F_SETPIPE_SZ, 1<<20)
	if flags, err := unix.FcntlInt(1, unix.F_GETFL, 0); err == nil && isPipe(1) {
		if _, err = unix.FcntlInt(1, unix.F_SETFL, flags|unix.O_DIRECT); err != nil {
			return fmt.Errorf("packet mode: %w", err)
		}
	}
	r := frame.NewReader(os.Stdin)
	var rec frame.Record
	buf := make([]byte, 2+largest)
	tooLong := 0
	for {
		err := r.Next(&rec)
		if err == io.EOF {
			break
		}
		switch {
		case err != nil:
			return err
		case rec.IsAnnotation():
			continue
		case offloaded(&rec):
			return errors.New("a frame with offload, which VDE does not know\nhint: tunread -offload=false")
		case len(rec.Frame) > largest:
			if tooLong++; tooLong == 1 {
				log.Printf("dropped a frame of %d bytes, the most is %d\nhint: ip link set TAP mtu 1500", len(rec.Frame), largest)
			}
			continue
		}
		binary.BigEndian.PutUint16(buf, uint16(len(rec.Frame)))
		n := copy(buf[2:], rec.Frame)
		if _, err := os.Stdout.Write(buf[:2+n]); err != nil {
			return err
		}
	}
	if tooLong > 1 {
		log.Printf("dropped %d frames of more than %d bytes", tooLong, largest)
	}
	// When its input is closed, wirefilter throws away all that it has not yet read or
	// still holds.
	for isPipe(1) {
		n, err := unix.IoctlGetInt(1, unix.TIOCINQ) // bytes not read
		if err != nil || n == 0 || gone() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(linger)
	return nil
}

// offloaded reports whether a frame is still to be finished.
func offloaded(r *frame.Record) bool {
	const needsChecksum = 1
	return r.Offload != nil && (r.Offload[0]&needsChecksum != 0 || r.Offload[1] != 0)
}

func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// gone reports whether no process reads stdout any more.
func gone() bool {
	fds := []unix.PollFd{{Fd: 1}}
	n, _ := unix.Poll(fds, 0)
	return n > 0
}

// from writes the frames that come from VDE on stdin as a stream to stdout.
func from() error {
	r := bufio.NewReaderSize(os.Stdin, 64<<10)
	w := frame.NewWriter(os.Stdout)
	if err := w.Header(frame.LinkEthernet, "vde"); err != nil {
		return err
	}
	buf := make([]byte, largest)
	// next reads b. What was gathered goes out before that has to wait.
	next := func(b []byte) error {
		if r.Buffered() < len(b) {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		_, err := io.ReadFull(r, b)
		return err
	}
	for {
		switch err := next(buf[:2]); {
		case err == io.EOF:
			return w.Flush()
		case err != nil:
			return err
		}
		n := int(binary.BigEndian.Uint16(buf))
		if n > largest {
			return errors.Join(w.Flush(), fmt.Errorf("a frame of %d bytes, the most is %d: VDE is out of step", n, largest))
		}
		if err := next(buf[:n]); err != nil {
			return err
		}
		if err := w.Write(&frame.Record{Time: uint64(time.Now().UnixNano()), Frame: buf[:n]}); err != nil {
			return err
		}
	}
}
