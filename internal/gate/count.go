package gate

import (
	"fmt"
	"slices"
	"strings"
)

// Policy is what happens above the threshold.
type Policy uint8

// The policies.
const (
	Pace Policy = iota
	Random
)

// Charge is which frames use up the quota.
type Charge uint8

// The charges.
const (
	Passed Charge = iota
	Offered
)

// Counting is what of a frame is counted.
type Counting uint8

// The ways to count.
const (
	Ethernet Counting = iota // padded to 60 bytes, and 4 of check sequence: a switch port's ifHCOctets
	IP                       // the IP packet, without what is around it
	Frame                    // as it is on the tap
	Wire                     // Ethernet, and 20 bytes of preamble and gap between frames
)

var (
	countings = []string{"ethernet", "ip", "frame", "wire"}
	policies  = []string{"pace", "random"}
	charges   = []string{"passed", "offered"}
)

func (c Counting) String() string { return countings[c] }
func (p Policy) String() string   { return policies[p] }
func (c Charge) String() string   { return charges[c] }

// Set is flag.Value's.
func (c *Counting) Set(s string) error { return set(c, countings, s) }

// Set is flag.Value's.
func (p *Policy) Set(s string) error { return set(p, policies, s) }

// Set is flag.Value's.
func (c *Charge) Set(s string) error { return set(c, charges, s) }

func set[T ~uint8](v *T, names []string, s string) error {
	i := slices.Index(names, s)
	if i < 0 {
		return fmt.Errorf("want %s", strings.Join(names, " or "))
	}
	*v = T(i)
	return nil
}

const (
	etherHeader = 14
	etherLeast  = 60 // IEEE 802.3: 64 with the check sequence
	etherFCS    = 4
	etherGap    = 8 + 12 // preamble with start delimiter, and the gap between frames
)

// Bytes returns what a frame of size bytes counts, l2 of which stand before its
// IP packet; l2 is 0 where the frame is nothing but an IP packet, which then
// counts as if it were in Ethernet. ip is the size of the IP packet by its own
// account, 0 if unknown: it is less than what follows the header where the
// frame was padded.
func (c Counting) Bytes(size, l2, ip int) int64 {
	switch c {
	case Frame:
		return int64(size)
	case IP:
		if ip > 0 && size <= etherLeast+l2-etherHeader {
			return int64(ip)
		}
		return int64(size - l2)
	}
	if l2 == 0 {
		size += etherHeader
	}
	n := max(size, etherLeast) + etherFCS
	if c == Wire {
		n += etherGap
	}
	return int64(n)
}
