// Demo makes the traffic of pipeline.sh demo: a server that sends at the rate of a
// port, and a client that draws the received traffic.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"framepipe/internal/cli"
	"framepipe/internal/traffic"
)

const usage = `usage: demo [flags] {serve | watch} ADDRESS

The traffic of pipeline.sh demo. serve sends to whoever connects; watch receives,
and draws what arrives.

  -port RATE    how fast the simulated port is
  -quota SIZE   what the gate lets through in any window
  -window D     the window
  -threshold S  share of the quota that passes at full speed
`

func main() {
	var w watcher
	var threshold cli.Share
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.Var(&w.port, "port", "")
	flags.Var(&w.quota, "quota", "")
	flags.Var(&w.window, "window", "")
	flags.Var(&threshold, "threshold", "")
	if err := flags.Parse(os.Args[1:]); err != nil || flags.NArg() != 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	var err error
	switch addr := flags.Arg(1); flags.Arg(0) {
	case "serve":
		err = serve(addr)
	case "watch":
		w.addr, w.threshold = addr, float64(threshold)
		err = w.run(os.Stdout)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func serve(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return traffic.Serve(l, p)
}

// wait waits until the server answers, as it does once the pipelines are up.
func wait(addr string) error {
	var err error
	for range 50 {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", addr, time.Second); err == nil {
			return c.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
