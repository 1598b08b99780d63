package main

import (
	"fmt"
	"slices"
)

// counters are the numbers of a stage's line, by name.
type counters map[string]int64

func (c counters) add(more counters) {
	for name, n := range more {
		c[name] += n
	}
}

// count has the kernel's counts of one way of a device.
type count struct{ frames, bytes int64 }

// run is one life of a pipeline: from the start of its stages to the end of the last.
type run struct {
	dir    string // "in" or "out"
	n      int
	killed string // the stage that was killed with -9; if none, it was drained

	sent, received count // by the kernel, at the two ends
	// The last lines of the stages, nil for the one that was killed.
	read, gate, hist, write counters
	offered, charged        int64    // by the ledger
	reports                 counters // sums of the histogram's reports, nil without them
	published               counters // the last metrics of the gate that was killed
	before                  counters // the line of a tunread or tunwrite moments before it was killed
	faults                  []string // messages and ends of stages that should not be
}

// How much can be under way when a stage is killed, in bytes of the stream. The frames
// in a stage's buffer count as read, and not yet as arrived at the next.
const (
	pipe   = 512 << 10                 // as large as stages ask for
	source = 256<<10 + 128<<10 + 4<<20 // gathered by tunread, and in its queue
	reader = 256<<10 + super           // read at once by another stage, and a frame that has begun
	writer = 256<<10 + super           // gathered by it

	up   = source + pipe + reader // from tunread to the gate
	down = writer + pipe + reader // from the gate to bytehist
	tees = writer + pipe          // through bytehist, which tees: tunwrite has the rest
	last = pipe + reader          // from bytehist to the kernel

	super   = 80 << 10 // a super-frame, also on the wire
	merged  = 64       // datagrams that tunwrite gathers, and
	joined  = 64 << 10 // their bytes
	least   = 16 + 42  // a record of the smallest frame, ARP's
	padding = 60 - 42  // on the wire

	none  = int64(0)
	loose = int64(1) << 62 // another link bounds it

	// behind is how far the ledger of a gate that is killed may be behind with bytes
	// that came, its metrics with bytes that it dropped, and the line of a tunread.
	behind = 512 << 10
	// inHand is how much a gate that is killed may have charged and not passed: frames
	// that it has read and not written, and credit.
	inHand = 1 << 20
)

// wire bounds the bytes on the wire of some bytes of stream: small frames are padded,
// and each segment of a super-frame has headers.
func wire(stream int64) int64 { return stream + stream/8 }

// link is a pair of counts that should agree. Their difference was under way between
// them, or is unexplained.
type link struct {
	what, unit  string
	from, to    int64
	under, over int64 // bounds of to - from, and of from - to
}

// lost returns how much has left the one and not arrived at the other.
func (l *link) lost() int64 { return l.from - l.to }

// unexplained returns how much of the difference cannot have been under way.
func (l *link) unexplained() int64 {
	switch d := l.lost(); {
	case d > l.over:
		return d - l.over
	case d < -l.under:
		return -l.under - d
	}
	return 0
}

const (
	inFrames = "frames"
	inBytes  = "bytes"
	onWire   = "bytes on the wire"
)

// stages in order.
var stages = []string{"tunread", "quotagate", "bytehist", "tunwrite"}

// The places of the links, in order.
const (
	atRead        = "sent by the kernel, read by tunread"
	atDeadRead    = "sent by the kernel past a killed tunread, come to the gate"
	atGate        = "read by tunread, come to the gate"
	atInGate      = "come to the gate; passed, dropped and held"
	atOffered     = "come to the gate, offered in the ledger"
	atCharged     = "passed by the gate, charged in the ledger"
	atHeld        = "held by a gate that has come to its end"
	atDeadOffered = "read by tunread, offered in the ledger of a killed gate"
	atDeadCharged = "offered in the ledger, charged in it and dropped before by a killed gate"
	atDeadPassed  = "charged in the ledger of a killed gate, counted by bytehist"
	atHist        = "passed by the gate, counted by bytehist"
	atCutOffHist  = "passed by the gate behind a killed tunread, counted by bytehist"
	atDeadHist    = "passed by the gate through a killed bytehist, come to tunwrite"
	atReported    = "counted by bytehist, in its reports"
	atHistogram   = "counted by bytehist, in its histograms"
	atWrite       = "counted by bytehist, come to tunwrite"
	atInWrite     = "come to tunwrite, written and refused"
	atWritten     = "written by tunwrite, received by the kernel"
	atDeadWrite   = "counted by bytehist, received by the kernel behind a killed tunwrite"
)

var places = []string{atRead, atDeadRead, atGate, atInGate, atOffered, atCharged, atHeld, atDeadOffered, atDeadCharged, atDeadPassed, atHist, atCutOffHist, atDeadHist, atReported, atHistogram, atWrite, atInWrite, atWritten, atDeadWrite}

// links returns all counts that should agree in a run, from one end to the other.
func (r *run) links() (all []link) {
	exact := func(what, unit string, from, to int64) {
		all = append(all, link{what, unit, from, to, none, none})
	}
	// within adds a link that is exact unless a stage at or behind it was killed: then
	// the bytes under way are lost.
	k := slices.Index(stages, r.killed)
	within := func(stage int, most int64, what, unit string, from, to int64) {
		l := link{what, unit, from, to, none, none}
		if k >= stage {
			if l.over = most; unit == inFrames {
				l.over = most / least
			} else if unit == onWire {
				l.over = wire(most)
			}
		}
		all = append(all, l)
	}

	if r.read != nil {
		exact(atRead, inFrames, r.sent.frames, r.read["frames"])
		exact(atRead, inBytes, r.sent.bytes, r.read["bytes"])
	}
	switch g := r.gate; {
	case g == nil: // only its ledger is left
		all = append(all,
			link{atDeadOffered, onWire, r.read["ethernet_bytes"], r.offered, behind, wire(up) + behind + super*r.read["dropped"]},
			link{atDeadCharged, onWire, r.offered, r.charged + r.published["dropped_bytes"], behind, loose},
			link{atDeadPassed, onWire, r.charged, r.hist["ethernet_bytes"], none, inHand})
	case r.read == nil:
		within(0, source+behind, atDeadRead, inFrames, r.sent.frames-r.before["dropped"], g["read"])
		within(0, source+behind, atDeadRead, inBytes, r.sent.bytes-r.before["dropped_bytes"], g["read_bytes"])
	default:
		within(1, up, atGate, inFrames, r.read["frames"]-r.read["dropped"], g["read"])
		within(1, up, atGate, inBytes, r.read["bytes"]-r.read["dropped_bytes"], g["read_bytes"])
		if r.read["dropped"] == 0 { // tunread does not know the wire bytes of those that it drops
			within(1, up, atGate, onWire, r.read["ethernet_bytes"], g["in_bytes"])
		}
	}
	if g := r.gate; g != nil {
		exact(atInGate, inFrames, g["in"], g["passed"]+g["held"]+sum(g, ""))
		exact(atInGate, onWire, g["in_bytes"], g["passed_bytes"]+g["held_bytes"]+sum(g, "_bytes"))
		exact(atOffered, onWire, g["in_bytes"]-g["dropped_malformed_bytes"], r.offered)
		exact(atCharged, onWire, g["passed_bytes"], r.charged)
		if r.killed == "" || r.killed == "tunread" {
			exact(atHeld, inFrames, g["held"], 0)
		}
		switch {
		case r.hist == nil:
			within(0, tees, atDeadHist, inFrames, g["passed"], r.write["frames"])
			within(0, tees, atDeadHist, onWire, g["passed_bytes"], r.write["ethernet_bytes"])
		case r.killed == "tunread": // a frame of which it had written the beginning
			all = append(all,
				link{atCutOffHist, inFrames, g["passed"], r.hist["frames"], none, 1},
				link{atCutOffHist, onWire, g["passed_bytes"], r.hist["ethernet_bytes"], none, super})
		default:
			within(2, down, atHist, inFrames, g["passed"], r.hist["frames"])
			within(2, down, atHist, onWire, g["passed_bytes"], r.hist["ethernet_bytes"])
		}
	}
	if h := r.hist; h != nil {
		if p := r.reports; p != nil && h["left_out"] == 0 {
			exact(atReported, inFrames, h["frames"], p["frames"])
			exact(atReported, inBytes, h["bytes"], p["bytes"])
			exact(atReported, onWire, h["ethernet_bytes"], p["ethernet_bytes"])
			exact(atHistogram, inBytes, h["bytes"], p["counts"])
		}
		if w := r.write; w != nil {
			exact(atWrite, inFrames, h["frames"], w["frames"])
			exact(atWrite, inBytes, h["bytes"], w["bytes"])
			exact(atWrite, onWire, h["ethernet_bytes"], w["ethernet_bytes"])
		} else if w := r.before; w != nil {
			// From its last line on.
			got := count{r.received.frames - w["written"], r.received.bytes - w["written_bytes"]}
			if w["segmented"] > 0 { // the kernel does not count padding
				all = append(all, link{atDeadWrite, onWire, h["ethernet_bytes"] - w["ethernet_bytes"], got.bytes + 4*got.frames, joined, wire(last) + padding*got.frames})
			} else { // frames that it has merged since look lost, too
				all = append(all,
					link{atDeadWrite, inFrames, h["frames"] - w["frames"], got.frames, merged, last / least},
					link{atDeadWrite, inBytes, h["bytes"] - w["bytes"], got.bytes, joined, last})
			}
		}
	}
	if w := r.write; w != nil {
		exact(atInWrite, onWire, w["ethernet_bytes"], w["written_ethernet_bytes"]+w["lost_ethernet_bytes"])
		exact(atWritten, inFrames, w["written"], r.received.frames)
		exact(atWritten, inBytes, w["written_bytes"], r.received.bytes)
	}
	return all
}

// sum adds up what a gate dropped, for each reason.
func sum(g counters, unit string) (n int64) {
	for _, why := range []string{"early", "full", "quota", "malformed"} {
		n += g["dropped_"+why+unit]
	}
	return n
}

// complaints names all that is unexplained in a run.
func (r *run) complaints() (all []string) {
	name := fmt.Sprintf("%s %d", r.dir, r.n)
	if r.killed != "" {
		name += ", " + r.killed + " killed"
	}
	for _, l := range r.links() {
		if n := l.unexplained(); n != 0 {
			all = append(all, fmt.Sprintf("%s: %s: %d and %d: %d %s unexplained", name, l.what, l.from, l.to, n, l.unit))
		}
	}
	for _, f := range r.faults {
		all = append(all, name+": "+f)
	}
	return all
}
