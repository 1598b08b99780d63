// Demo makes the traffic of pipeline.sh demo: a server that sends at the rate of a
// port, and a client that draws the received traffic.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"

	"framepipe/internal/traffic"
)

const usage = `usage: demo -port RATE serve ADDRESS
       demo -port RATE -quota SIZE -window D [-svg FILE] watch ADDRESS

The traffic of pipeline.sh demo. serve sends to each client that connects; watch
receives, and draws what arrives.

  -port RATE    how fast the simulated port is
  -quota SIZE   what the gate lets through in any window
  -window D     the window
  -svg FILE     draw the rates also as SVG
`

func main() {
	var w watcher
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.Var(&w.port, "port", "")
	flags.Var(&w.quota, "quota", "")
	flags.DurationVar(&w.window, "window", 0, "")
	flags.StringVar(&w.svg, "svg", "", "")
	err := flags.Parse(os.Args[1:])
	switch w.addr = flags.Arg(1); {
	case err == nil && flags.Arg(0) == "serve":
		var l net.Listener
		if l, err = net.Listen("tcp", w.addr); err == nil {
			err = traffic.Serve(l, uint64(w.port.BytesPerSecond()))
		}
	case err == nil && flags.Arg(0) == "watch":
		err = w.run()
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
