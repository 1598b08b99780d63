package main

import (
	"encoding/binary"
	"fmt"

	"framepipe/frame"
	"framepipe/internal/pcap"

	"github.com/vmihailenco/msgpack/v5"
)

// A stream's frames are Ethernet frames or IP packets. Captures have other
// links, too: what tcpdump -i any wrote has a header in place of Ethernet's that
// the machine made up. The frame then becomes what the header says, and what
// stood in the file goes along as an addition to the frame, so that the way back
// gives the same bytes. So does how long a packet was that was not captured whole,
// and a frame check sequence.
//
// The addition is a map with those of these keys that are needed.
const (
	keyLength = "pcap_length" // how many bytes there were, if they are not those of the file
	keyHead   = "pcap_head"   // bytes of the file that the made ones stand for
	keyMade   = "pcap_made"   // how many bytes of the frame were made
	keyTail   = "pcap_tail"   // bytes of the file behind the frame
	// keyLink, in the stream's header, is the file's link where the stream's
	// says less.
	keyLink = "pcap_link"
)

// cooked tells what the packets of a link are in a stream.
type cooked struct {
	link  string
	strip int // bytes in front of the packet
	// etherType is where in these the EtherType is, if the frame is to be
	// Ethernet, and address where that of the sender is.
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

func linkOf(number uint16) (cooked, error) {
	c, ok := links[number]
	if !ok {
		return c, fmt.Errorf("the capture's link is of type %d; Ethernet (1), IP (101, 12, 14, 228, 229), loopback (0, 108) and Linux cooked (113, 276) can be a stream", number)
	}
	return c, nil
}

const etherHeader = 14

// The values of a cooked header's type for a frame that has a length in the
// place of an EtherType (LINUX_SLL_P_802_3 and LINUX_SLL_P_802_2).
const (
	novell = 1
	llc    = 4
)

// ethernet makes the Ethernet header that a cooked one stands for, in front of
// size bytes: from the sender's address, to nobody's.
func (c *cooked) ethernet(head []byte, size int) (h [etherHeader]byte) {
	copy(h[6:12], head[c.address:])
	kind := binary.BigEndian.Uint16(head[c.etherType:])
	if kind == novell || kind == llc {
		kind = uint16(min(size, 1500))
	}
	binary.BigEndian.PutUint16(h[12:], kind)
	return h
}

// original is what of a capture's packet is not in the frame.
type original struct {
	length     uint32
	head, tail []byte
	made       int
}

// addition encodes what is needed of an original.
func (o *original) addition(b []byte, captured int) (encoded []byte, n int) {
	length := int64(o.length) != int64(captured)
	keys := 0
	for _, is := range []bool{length, o.head != nil, len(o.tail) > 0} {
		if is {
			keys++
		}
	}
	if keys == 0 {
		return b, 0
	}
	if o.head != nil {
		keys++ // keyMade
	}
	b = append(b, 0x80|byte(keys))
	key := func(s string) {
		b = append(b, 0xa0|byte(len(s)))
		b = append(b, s...)
	}
	number := func(n uint32) {
		b = append(b, 0xce)
		b = binary.BigEndian.AppendUint32(b, n)
	}
	data := func(d []byte) {
		b = append(b, 0xc4, byte(len(d)))
		b = append(b, d...)
	}
	if length {
		key(keyLength)
		number(o.length)
	}
	if o.head != nil {
		key(keyHead)
		data(o.head)
		key(keyMade)
		number(uint32(o.made))
	}
	if len(o.tail) > 0 {
		key(keyTail)
		data(o.tail)
	}
	return b, 1
}

// restore finds an original among the additions of a frame. What is not ours,
// or does not fit the frame, is not looked at.
func restore(rec *frame.Record) (o original) {
	o.length = uint32(len(rec.Frame))
	if rec.Extras == 0 {
		return o
	}
	var d struct {
		Length *uint32 `msgpack:"pcap_length"`
		Head   []byte  `msgpack:"pcap_head"`
		Made   int     `msgpack:"pcap_made"`
		Tail   []byte  `msgpack:"pcap_tail"`
	}
	const most = 512 // ours have less; others may be anything
	if len(rec.Extra) > most || rec.Extra[0]&0xf0 != 0x80 || msgpack.Unmarshal(rec.Extra, &d) != nil {
		return o
	}
	if d.Made < 0 || d.Made > len(rec.Frame) || d.Made > 0 && d.Head == nil { // in the place of what?
		return o
	}
	o.head, o.made, o.tail = d.Head, d.Made, d.Tail
	o.length = uint32(len(rec.Frame) - d.Made + len(d.Head) + len(d.Tail))
	if d.Length != nil {
		o.length = *d.Length
	}
	return o
}
