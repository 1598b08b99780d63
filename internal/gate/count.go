package gate

// Policy decides which frames pass above the threshold.
type Policy uint8

// The policies.
const (
	Pace Policy = iota
	Random
)

// Counting selects the bytes of a frame that count.
type Counting uint8

// The ways to count.
const (
	Ethernet Counting = iota // padded to 60 bytes, plus 4 of check sequence: a switch port's ifHCOctets
	IP                       // the IP packet alone
	Frame                    // the frame as on the tap
	Wire                     // Ethernet, plus 20 bytes of preamble and gap between frames
)

const (
	etherHeader = 14
	etherLeast  = 60 // IEEE 802.3: 64 with the check sequence
	etherFCS    = 4
	etherGap    = 8 + 12 // preamble with start delimiter, and inter-frame gap
)

// Bytes returns the counted bytes of a frame of size bytes, with l2 bytes before its
// IP packet. If l2 is 0, the frame is a bare IP packet, which
// counts as if it were in Ethernet. ip is the length in the IP header,
// 0 if unknown; in a padded frame it is less than size-l2.
func (c Counting) Bytes(size, l2, ip int) int64 {
	switch {
	case c == Frame:
		return int64(size)
	case c == IP && ip > 0 && size <= etherLeast+l2-etherHeader:
		return int64(ip)
	case c == IP:
		return int64(size - l2)
	case l2 == 0:
		size += etherHeader
	}
	n := max(size, etherLeast) + etherFCS
	if c == Wire {
		n += etherGap
	}
	return int64(n)
}
