package main

import (
	"encoding/binary"
	"fmt"

	"framepipe/frame"
	"framepipe/internal/pcap"

	"github.com/vmihailenco/msgpack/v5"
)

// A stream's frames are Ethernet frames or IP packets. Captures may have other
// links, such as the cooked header of tcpdump -i any in place of Ethernet's. The
// decoder converts such a header to Ethernet's or strips it, and adds the original
// bytes to the frame as an addition, so that encoding restores the same capture.
// The addition also holds the original length of a truncated packet and the frame
// check sequence.
//
// The addition is a map with these keys, as far as they are needed.
const (
	keyLength = "pcap_length" // original length of the packet, if it differs from the captured
	keyHead   = "pcap_head"   // bytes of the file that the made ones replace
	keyMade   = "pcap_made"   // number of made bytes at the start of the frame
	keyTail   = "pcap_tail"   // bytes of the file after the frame
	// keyLink, in the stream's header, is the file's link if the stream's link is
	// less precise.
	keyLink = "pcap_link"
)

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

func linkOf(number uint16) (cooked, error) {
	c, ok := links[number]
	if !ok {
		return c, fmt.Errorf("the capture's link is of type %d; Ethernet (1), IP (101, 12, 14, 228, 229), loopback (0, 108) and Linux cooked (113, 276) can be a stream", number)
	}
	return c, nil
}

const etherHeader = 14

// The types of a cooked header for a frame with a length instead of an EtherType
// (LINUX_SLL_P_802_3 and LINUX_SLL_P_802_2).
const (
	novell = 1
	llc    = 4
)

// ethernet makes an Ethernet header from a cooked one, for a payload of size bytes.
// The destination address is zero.
func (c *cooked) ethernet(head []byte, size int) (h [etherHeader]byte) {
	copy(h[6:12], head[c.address:])
	kind := binary.BigEndian.Uint16(head[c.etherType:])
	if kind == novell || kind == llc {
		kind = uint16(min(size, 1500))
	}
	binary.BigEndian.PutUint16(h[12:], kind)
	return h
}

// original holds the parts of a capture's packet that are not in the frame.
type original struct {
	length     uint32
	head, tail []byte
	made       int
}

// addition appends the encoded original to b. n is 0 if the frame needs no addition.
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

// restore returns the original in the additions of a frame. It ignores additions of
// other programs, and those that do not fit the frame.
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
	const most = 512 // larger than any addition of framepcap
	if len(rec.Extra) > most || rec.Extra[0]&0xf0 != 0x80 || msgpack.Unmarshal(rec.Extra, &d) != nil {
		return o
	}
	if d.Made < 0 || d.Made > len(rec.Frame) || d.Made > 0 && d.Head == nil { // made bytes must replace a head
		return o
	}
	o.head, o.made, o.tail = d.Head, d.Made, d.Tail
	o.length = uint32(len(rec.Frame) - d.Made + len(d.Head) + len(d.Tail))
	if d.Length != nil {
		o.length = *d.Length
	}
	return o
}
