// Framepcap turns a stream into a capture file and back.
package main

import (
	"errors"
	"flag"
	"fmt"
	"sync/atomic"

	"framepipe/frame"
	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/sandbox"
)

const usage = `usage: framepcap [-segment] [-v] < stream > pcap
       framepcap -d [-v] < pcap > stream

Converts a stream to a pcap file, for tcpdump, Wireshark and tcpreplay, and pcap or
pcapng files to a stream. Each frame is written as it comes, so a capture can be
watched while it grows.

  -d        decode: read a capture, write a stream. The capture may be pcapng, which
            Wireshark writes, or pcap; its link Ethernet, IP, loopback or Linux cooked
  -segment  cut super-frames into the frames that they become on the wire. Without
            it they stay whole, and -d makes them plain frames of that size.
            Checksums are always finished
  -v        say more on stderr
  -version  print the version
  -h        print this

If a capture is decoded and encoded again, it has the same frames and times, but no
frame check sequences. SIGUSR1 prints counters.

  framepcap < day.frames | tcpdump -nr -
  tunread tap0 | tee >(framepcap | tcpdump -lnr - >&2) | tunwrite tap1
  framepcap -d < day.pcapng | quotagate -quota 1GB -clock stream | framepcap > passed.pcap
`

func main() {
	flags := flag.NewFlagSet("framepcap", flag.ContinueOnError)
	decoding := flags.Bool("d", false, "")
	segment := flags.Bool("segment", false, "")
	tool := &cli.Tool{Name: "framepcap", Usage: usage, Flags: flags}
	tool.Run = func(t *cli.Tool, _ []string) error {
		if *decoding && *segment {
			return cli.Usagef("-d and -segment exclude each other: -segment is for writing a capture")
		}
		return run(t, *decoding, *segment)
	}
	tool.Main()
}

func run(t *cli.Tool, decoding, segment bool) error {
	example := "framepcap < day.frames > day.pcap"
	if decoding {
		example = "framepcap -d < day.pcap > day.frames"
	}
	if err := errors.Join(cli.Stdin(example), cli.Stdout(example)); err != nil {
		return err
	}
	in, out := fdio.NewStream(0, 1), fdio.NewOutput(1)
	fdio.Grow(0)
	fdio.Grow(1)
	t.Verbosef("sandbox: %s", sandbox.Enter())
	var run func() error
	if decoding {
		d := newDecoder(in, out, t.Warnf)
		t.Counters(d.n.String)
		run = d.run
	} else {
		e := &encoder{r: frame.NewReader(in), out: out, segment: segment, warn: t.Warnf}
		t.Counters(e.n.String)
		run = e.run
	}
	return cli.Ends(run())
}

// counters are the counters that SIGUSR1 prints.
type counters struct {
	frames, bytes, odd, finished, segmented, malformed, cut atomic.Uint64
}

func (n *counters) String() string {
	return fmt.Sprintf("frames=%d bytes=%d out_of_range=%d finished=%d segmented=%d malformed=%d cut_short=%d",
		n.frames.Load(), n.bytes.Load(), n.odd.Load(), n.finished.Load(), n.segmented.Load(), n.malformed.Load(), n.cut.Load())
}
