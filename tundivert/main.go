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
straight to and from the host. What comes in by IFACE comes out of NET, and what
is written to HOST comes in by IFACE; what the host sends by IFACE comes out of
HOST, and what is written to NET leaves by IFACE. Nothing of IFACE is changed, and
when the process ends, however it ends, all is as it was. Needs root, and Linux
6.6 or later.

  IFACE          an Ethernet interface: also one that is a port of a bridge or a
                 bond, a bond, a bridge or a VLAN
  NET, HOST      taps, with a process that reads and one that writes each
  -fail M        closed: while a tap has no reader or no writer, what should go
                 through it is lost. open: the frames of both directions are left
                 alone meanwhile. Default closed
  -v             say more on stderr
  -version       print the version
  -h             print this

When it diverts it says so on stderr, and prints "diverting" on stdout, so that a
script can wait for it. It ends when nobody reads its stdout. INT and TERM end the
diversion at once, which prints "ended", and the process when the frames in the
pipelines have come out, after a second at most. An IFACE that is made again is diverted again. SIGUSR1
prints counters.

  for t in net host; do ip tuntap add dev $t mode tap user root multi_queue vnet_hdr; ip link set $t up; done
  tunread net | quotagate -rate 100Mbit/s | tunwrite host &
  tunread host | quotagate -rate 100Mbit/s | tunwrite net &
  tundivert eth0 net host
`

func main() {
	flags := flag.NewFlagSet("tundivert", flag.ContinueOnError)
	var open uint8 // or closed
	flags.Func("fail", "", cli.Choice(&open, "closed", "open"))
	tool := &cli.Tool{Name: "tundivert", Usage: usage, Args: 3, Flags: flags, Source: true}
	tool.Run = func(t *cli.Tool, args []string) error {
		return run(t, divert.Config{Interface: args[0], Net: args[1], Host: args[2], Open: open == 1})
	}
	tool.Main()
}

func run(t *cli.Tool, c divert.Config) error {
	d, err := divert.New(c, t.Stop(), t.Warnf)
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
	return d.Run(t.Stop(), 1)
}
