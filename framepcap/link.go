package main

import (
	"encoding/binary"

	"framepipe/frame"
	"framepipe/internal/pcap"

	"github.com/vmihailenco/msgpack/v5"
)

// A stream's frames are Ethernet frames or IP packets. Captures may have other
// links, such as the cooked header of tcpdump -i any in place of Ethernet's. The
// decoder converts such a header to Ethernet's or strips it, and adds the original
// bytes to the frame as an addition, so that encoding restores the same capture.

// keyLink, in the stream's header, is the file's link if the stream's link is less precise.
const keyLink = "pcap_link"

// original is the addition: what a capture has of a packet, and the frame has not.
type original struct {
	Length *uint32 `msgpack:"pcap_length,omitempty"` // original length of the packet, if it differs from the captured
	Head   []byte  `msgpack:"pcap_head,omitempty"`   // bytes of the file that the made ones replace
	Made   int     `msgpack:"pcap_made,omitempty"`   // number of made bytes at the start of the frame
}

// cooked describes the conversion of a capture's link to a stream's link.
type cooked struct {
	link  string
	strip int // bytes in front of the packet
	// etherType and address are the offsets in these bytes of the EtherType and of
	// the sender's address, if link is Ethernet.
	etherType, address int
}

var links = map[uint16]cooked{
	pcap.LinkEthernet: {link: frame.LinkEthernet},
	pcap.LinkRaw:      {link: frame.LinkIP},
	pcap.LinkRawBSD:   {link: frame.LinkIP},
	pcap.LinkRawBSD2:  {link: frame.LinkIP},
	pcap.LinkIPv4:     {link: frame.LinkIP},
	pcap.LinkIPv6:     {link: frame.LinkIP},
	pcap.LinkNull:     {link: frame.LinkIP, strip: 4},
	pcap.LinkLoop:     {link: frame.LinkIP, strip: 4},
	pcap.LinkSLL:      {link: frame.LinkEthernet, strip: 16, etherType: 14, address: 6},
	pcap.LinkSLL2:     {link: frame.LinkEthernet, strip: 20, etherType: 0, address: 12},
}

const etherHeader = 14

// The types of a cooked header for a frame with a length instead of an EtherType
// (LINUX_SLL_P_802_3 and LINUX_SLL_P_802_2).
const (
	novell = 1
	llc    = 4
)

// appendEthernet appends the Ethernet header for a cooked one, and for a payload of size bytes,
// to b. The destination address is zero.
func (c *cooked) appendEthernet(b, head []byte, size int) []byte {
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = append(b, head[c.address:c.address+6]...)
	kind := binary.BigEndian.Uint16(head[c.etherType:])
	if kind == novell || kind == llc {
		kind = uint16(min(size, 1500))
	}
	return binary.BigEndian.AppendUint16(b, kind)
}

// restore returns the original in the additions of a frame. It ignores additions of
// other programs, and those that do not fit the frame.
func restore(rec *frame.Record) original {
	const most = 512 // larger than any addition of framepcap
	if rec.Extras == 0 || len(rec.Extra) > most || rec.Extra[0]&0xf0 != 0x80 {
		return original{}
	}
	var o original
	if msgpack.Unmarshal(rec.Extra, &o) != nil || o.Made < 0 || o.Made > len(rec.Frame) || o.Made > 0 && o.Head == nil { // made bytes must replace a head
		return original{}
	}
	return o
}
