// Tunwrite injects the frames of a stream into a tap device.
package main

import (
	"flag"
	"fmt"

	"framepipe/internal/cli"
	"framepipe/internal/fdio"
	"framepipe/internal/sandbox"
	"framepipe/internal/tap"
)

const usage = `usage: tunwrite [-l3] [-offload=auto] [-pace N] [-user NAME] [-v] DEVICE < stream

Reads a stream and injects its frames into a network interface.

  DEVICE         a tap by name (tap0), by path (/dev/tap7 of a macvtap, /dev/tap0
                 on a BSD), or fd:N, an inherited descriptor
  -l3            DEVICE is a tun: it carries IP packets, without Ethernet
  -offload=M     auto (default): hand super-frames and unfinished checksums to the
                 device if it takes them, and merge UDP datagrams of one flow. on:
                 the same, but fail if the device does not take them. off: finish
                 checksums, and cut super-frames into segments
  -pace N        replay at N times the recorded speed. Default 0: no frame waits
  -user NAME     once the device is open, become this user, for good and without a
                 capability, so that the device can be root's alone. UID:GID is for
                 a user that is not in /etc/passwd. Needs root and Linux
  -v             say more on stderr
  -version       print the version
  -h             print this

It counts the frames that the device refuses, and goes on. It ends at the end of the
stream. SIGUSR1 prints counters. At the first INT or TERM it goes on to the end of its
input; at the second, or with -pace at the first, it exits at once. With -pace, frames
may be out of order, and a second capture, joined to the first, starts without a wait.

  tunread tap0 | tunwrite tap1
  tunwrite tap1 < capture.frames
  tunwrite -pace 1 tap1 < capture.frames
`

func main() {
	flags := flag.NewFlagSet("tunwrite", flag.ContinueOnError)
	l3 := flags.Bool("l3", false, "")
	mode := tap.Auto
	flags.Func("offload", "", cli.Choice(&mode, "auto", "on", "off"))
	var user sandbox.User
	flags.Var(&user, "user", "")
	tool := &cli.Tool{Name: "tunwrite", Usage: usage, Args: "DEVICE", Flags: flags}
	pace := 0.0
	flags.Func("pace", "", func(s string) (err error) {
		pace, err = speed(s)
		tool.Abrupt = pace > 0 // a replay may last as long as its recording: stop at the first signal
		return err
	})
	tool.Run = func(t *cli.Tool, args []string) error {
		return run(t, tap.Config{Name: args[0], L3: *l3, Write: true, Offload: mode}, pace, user)
	}
	tool.Main()
}

func run(t *cli.Tool, c tap.Config, pace float64, user sandbox.User) error {
	if err := cli.Stdin("tunread tap0 | tunwrite " + c.Name); err != nil {
		return err
	}
	if err := user.Find(); err != nil {
		return err
	}
	dev, err := tap.Open(c)
	if err != nil {
		return err
	}
	defer dev.Close()
	t.Verbosef("%v", dev)
	w := &writer{
		dev: dev, name: c.Name, link: c.Link(), warn: t.Warnf,
		in: fdio.NewStream(0, dev.Fd()), // the wait for input also detects the end of the device
	}
	if pace > 0 {
		w.replay = &replay{speed: pace}
	}
	t.Counters(w.line)
	if err := sandbox.Become(user); err != nil {
		return err
	}
	fdio.Steady() // the sandbox forbids it
	t.Verbosef("sandbox: %s", sandbox.Enter())
	return w.run()
}

func (t *writer) line() string {
	t.lock.Lock()
	n := t.shown
	t.lock.Unlock()
	return fmt.Sprintf("frames=%d bytes=%d segmented=%d merged=%d refused=%d malformed=%d ethernet_bytes=%d written=%d written_bytes=%d written_ethernet_bytes=%d lost_ethernet_bytes=%d",
		n.frames, n.bytes, n.segmented, n.merged, n.refused, n.malformed, n.ethernet,
		n.written, n.writtenBytes, n.writtenEthernet, n.lostEthernet)
}
