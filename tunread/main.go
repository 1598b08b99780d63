// Tunread reads the frames of a tap device and writes them as a stream.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/fairq"
	"framepipe/internal/fdio"
	"framepipe/internal/sandbox"
	"framepipe/internal/tap"
)

const usage = `usage: tunread [-l3] [-offload=true] [-coalesce 50us] [-user NAME] [-v] DEVICE > stream

Reads frames from a network interface and writes each as a record of a stream.

  DEVICE         a tap by name (tap0), by path (/dev/tap7 of a macvtap, /dev/tap0
                 on a BSD), or fd:N, an inherited descriptor
  -coalesce D    while frames keep coming, write at most every D; default 50us. The
                 first frame after a quiet moment goes at once. Slower steady frames
                 are gathered for 8 D, while that gathers more than one each time.
                 With 0 no frame waits
  -l3            DEVICE is a tun: it carries IP packets, without Ethernet
  -offload=false have the kernel finish checksums and cut segments, instead of
                 handing over TCP and UDP super-frames of up to 64 KiB
  -user NAME     once the device is open, become this user, for good and without a
                 capability, so that the device can be root's alone. UID:GID is for
                 a user that is not in /etc/passwd. Needs root and Linux
  -v             say more on stderr
  -version       print the version
  -h             print this

INT and TERM end it with status 0. It also ends when no process reads its output any
more. SIGUSR1 prints counters. Several on one tap share its flows.

  ip tuntap add dev tap0 mode tap multi_queue vnet_hdr && ip link set tap0 up
  tunread tap0 | bytehist | tunwrite tap1
  tunread tap0 | tee capture.frames | quotagate -rate 100Mbit/s | tunwrite tap1
`

func main() {
	flags := flag.NewFlagSet("tunread", flag.ContinueOnError)
	l3 := flags.Bool("l3", false, "")
	off := flags.Bool("offload", true, "")
	coalesce := cli.Duration(50 * time.Microsecond)
	flags.Var(&coalesce, "coalesce", "")
	var user sandbox.User
	flags.Var(&user, "user", "")
	tool := &cli.Tool{Name: "tunread", Usage: usage, Args: "DEVICE", Flags: flags, Source: true}
	tool.Run = func(t *cli.Tool, args []string) error {
		c := tap.Config{Name: args[0], L3: *l3, Offload: tap.Off}
		if *off {
			c.Offload = tap.On
		}
		return run(t, c, time.Duration(coalesce), user)
	}
	tool.Main()
}

// memory is the soft limit: the queue's frames, buffers, and some garbage. Without it, the
// collector waits until there is as much garbage as there are frames.
const memory = 2*fairq.MaxMemory + 4<<20

func run(t *cli.Tool, c tap.Config, coalesce time.Duration, user sandbox.User) error {
	if err := cli.Stdout("tunread " + c.Name + " | bytehist | tunwrite tap1"); err != nil {
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
	out, err := cli.Output()
	if err != nil {
		return err
	}
	r := &reader{dev: dev, link: c.Link(), out: out, coalesce: coalesce, stop: t.Stop, warn: t.Warnf, seed: rand.Uint64()}
	t.Counters(r.n.String)
	if err := sandbox.Become(user); err != nil {
		return err
	}
	debug.SetMemoryLimit(memory)
	fdio.Steady() // the sandbox forbids it
	t.Verbosef("sandbox: %s", sandbox.Enter())
	if err := r.run(c.Name); err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	return nil
}

func (n *counters) String() string {
	return fmt.Sprintf("frames=%d bytes=%d ethernet_bytes=%d offloaded=%d errors=%d malformed=%d dropped=%d dropped_bytes=%d",
		n.frames.Load(), n.bytes.Load(), n.ethernet.Load(), n.super.Load(), n.errors.Load(), n.malformed.Load(), n.dropped.Load(), n.droppedBytes.Load())
}
