// Package divert leads the frames of a network interface through two taps, and
// changes nothing else of the interface: addresses, routes, MAC address, firewall
// rules and sockets stay as they are.
//
//	IFACE ingress: marked → clear the mark, go on to the stack   else → redirect to NET
//	IFACE egress:  marked → clear the mark, go on to the wire    else → redirect to HOST
//	NET ingress:   mark, redirect to IFACE egress
//	HOST ingress:  mark, redirect to IFACE ingress
//
// Frames that come in from the network are read from NET and written to HOST;
// frames that the host sends are read from HOST and written to NET.
//
// These are four programs of a few instructions at the tcx hooks (Linux 6.6,
// kernel/bpf/tcx.c), each held by a bpf link. When the process ends, however that
// comes, the kernel closes its links, and the frames go the way they went before.
//
// The programs take the numbers of the three interfaces from a map. Capabilities
// are needed to load programs, and none to attach a loaded one or to update a map
// (kernel/bpf/syscall.c). So a diversion can follow an interface that is made
// again after it has given up all its capabilities.
package divert

import (
	"errors"
	"time"
)

// ErrStopped is the error of New when it was asked to stop.
var ErrStopped = errors.New("asked to stop")

// Config says what to divert.
type Config struct {
	Interface string // whose frames are diverted
	Net       string // the tap on the side of the network
	Host      string // the tap on the side of the host
	// Open leaves the frames alone while a tap has no reader or no writer.
	// Otherwise they are diverted all the time, and frames that no process reads are lost.
	Open bool
}

// Times.
const (
	// patience is how long New waits for a reader and a writer of each tap.
	patience = 5 * time.Second
	// poll is how often the kernel is asked while something is waited for.
	poll = 40 * time.Millisecond
	// holdoff is how long they must have had them before frames are diverted again:
	// a stage that ends as soon as it starts would lose its frames.
	holdoff = time.Second
	// linger is how long frames that are in the pipelines have to come out after
	// the diversion was asked to stop.
	linger = time.Second
)

// port is an interface, as the kernel describes it.
type port struct {
	index    int  // 0: there is none
	ethernet bool // its frames are Ethernet
	up       bool
	// Of a tap:
	tap      bool
	tun      bool // it carries packets instead of frames
	queues   int  // those that the kernel sends to: its readers
	detached int  // those that it does not send to: its writers
}

// lacks returns "has no reader" or the like, or "" if frames can pass.
func (p port) lacks() string {
	switch {
	case p.index == 0:
		return "is gone"
	case !p.up:
		return "is down"
	case p.queues == 0:
		return "has no reader"
	case p.detached == 0:
		return "has no writer"
	}
	return ""
}

// valve decides whether frames are diverted.
type valve struct {
	open    bool // leave the frames alone while something lacks
	closing bool // asked to stop

	lacking string    // what lacks now, or ""
	lacked  time.Time // when something last did
}

// passes takes the time, and what lacks now. It reports whether frames are left alone.
func (v *valve) passes(now time.Time, lacking string) bool {
	if lacking != "" || v.lacking != "" {
		v.lacked = now
	}
	v.lacking = lacking
	return v.closing || v.open && now.Sub(v.lacked) < holdoff
}
