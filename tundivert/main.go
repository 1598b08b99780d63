// Tundivert leads the frames of a network interface through two taps.
package main

import (
	"errors"
	"flag"

	"framepipe/internal/cli"
	"framepipe/internal/divert"
	"framepipe/internal/fdio"
	"framepipe/internal/sandbox"
)

const usage = `usage: tundivert [-fail closed] [-v] IFACE NET HOST

While it runs, the frames of a network interface go through two taps instead of
straight to and from the host. Frames that come in by IFACE come out of NET; frames
written to HOST come in by IFACE. Frames that the host sends by IFACE come out of
HOST; frames written to NET leave by IFACE. Nothing of IFACE is changed, and when the
process ends, even by KILL, frames go as before. Needs root, and Linux 6.6 or later.

  IFACE          an Ethernet interface; it may be a port of a bridge or a bond, or
                 itself a bridge, a bond or a VLAN
  NET, HOST      taps; each needs a process that reads it and one that writes it
  -fail M        what to do while a tap has no reader or no writer. closed (default):
                 the frames for it are lost. open: the frames of both directions
                 bypass the taps
  -v             say more on stderr
  -version       print the version
  -h             print this

When the diversion begins it says so on stderr, and prints "diverting" on stdout, for
scripts that wait for it. At the first INT or TERM it ends the diversion at once and
prints "ended"; it exits when the frames in the pipelines have come out, after a
second at most. It also exits when no process reads its stdout any more. If IFACE is
deleted and created again, it is diverted again. SIGUSR1 prints counters.

  for t in net host; do ip tuntap add dev $t mode tap user root multi_queue vnet_hdr; ip link set $t up; done
  tunread net | quotagate -rate 100Mbit/s | tunwrite host &
  tunread host | quotagate -rate 100Mbit/s | tunwrite net &
  tundivert eth0 net host
`

func main() {
	flags := flag.NewFlagSet("tundivert", flag.ContinueOnError)
	var open uint8 // or closed
	flags.Func("fail", "", cli.Choice(&open, "closed", "open"))
	tool := &cli.Tool{Name: "tundivert", Usage: usage, Args: "IFACE NET HOST", Flags: flags, Source: true}
	tool.Run = func(t *cli.Tool, args []string) error {
		return run(t, divert.Config{Interface: args[0], Net: args[1], Host: args[2], Open: open == 1})
	}
	tool.Main()
}

func run(t *cli.Tool, c divert.Config) error {
	d, err := divert.New(c, t.Stop, t.Warnf)
	if errors.Is(err, divert.ErrStopped) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	t.Counters(d.Counters)
	if err := sandbox.DropCapabilities(); err != nil {
		return err
	}
	holds := sandbox.EnterBPF()
	t.Verbosef("sandbox: %s", holds)
	t.Warnf("%s goes through %s and %s", c.Interface, c.Net, c.Host)
	if _, err := fdio.NewOutput(1).Write([]byte("diverting\n")); err != nil {
		return cli.Ends(err)
	}
	return d.Run(t.Stop, 1)
}
