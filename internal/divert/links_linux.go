package divert

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// netlink asks the kernel about interfaces (rtnetlink(7)).
type netlink struct {
	ask    int // a socket for questions
	events int // a socket that becomes readable when an interface changes
	buf    []byte
}

func newNetlink() (*netlink, error) {
	n := &netlink{ask: -1, events: -1, buf: make([]byte, 64<<10)}
	var err error
	if n.ask, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err == nil {
		n.events, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	}
	if err == nil {
		err = unix.Bind(n.events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)})
	}
	if err != nil {
		n.close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return n, nil
}

func (n *netlink) close() {
	_ = unix.Close(n.ask)
	_ = unix.Close(n.events)
}

// drain reads the events that wait, and ignores them: some may have been lost, so the
// caller asks the kernel again.
func (n *netlink) drain() {
	for {
		if _, _, err := unix.Recvfrom(n.events, n.buf, 0); err != nil && err != unix.ENOBUFS {
			return
		}
	}
}

// port returns the interface of a name. If there is none its index is 0.
func (n *netlink) port(name string) (port, error) {
	if len(name) >= unix.IFNAMSIZ {
		return port{}, nil // the kernel says of a longer one that it is out of range
	}
	p, err := n.request(name)
	if errors.Is(err, unix.ENODEV) {
		return port{}, nil
	}
	if err != nil {
		return port{}, fmt.Errorf("%s: netlink: %w", name, err)
	}
	return p, nil
}

func (n *netlink) request(name string) (port, error) {
	head := struct {
		unix.NlMsghdr
		unix.IfInfomsg
		unix.RtAttr // the name
	}{
		NlMsghdr: unix.NlMsghdr{Type: unix.RTM_GETLINK, Flags: unix.NLM_F_REQUEST},
		RtAttr:   unix.RtAttr{Type: unix.IFLA_IFNAME, Len: uint16(unix.SizeofRtAttr + len(name) + 1)},
	}
	head.NlMsghdr.Len = unix.SizeofNlMsghdr + unix.SizeofIfInfomsg + uint32(head.RtAttr.Len)
	m, _ := binary.Append(nil, binary.NativeEndian, head) // an error only for values without a fixed size
	if err := unix.Send(n.ask, append(append(m, name...), 0), 0); err != nil {
		return port{}, err
	}
	for {
		size, _, err := unix.Recvfrom(n.ask, n.buf, 0)
		if err != nil {
			return port{}, err
		}
		messages, err := syscall.ParseNetlinkMessage(n.buf[:size])
		if err != nil {
			return port{}, err
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_ERROR:
				return port{}, syscall.Errno(-int32(number(m.Data)))
			case unix.RTM_NEWLINK:
				return parsePort(m.Data)
			}
		}
	}
}

// parsePort reads an RTM_NEWLINK message: struct ifinfomsg and attributes.
func parsePort(b []byte) (port, error) {
	var info unix.IfInfomsg
	if _, err := binary.Decode(b, binary.NativeEndian, &info); err != nil {
		return port{}, err
	}
	p := port{
		ethernet: info.Type == unix.ARPHRD_ETHER,
		index:    int(info.Index),
		up:       info.Flags&unix.IFF_UP != 0,
	}
	link := attributes(attributes(b[unix.SizeofIfInfomsg:])[unix.IFLA_LINKINFO])
	if unix.ByteSliceToString(link[unix.IFLA_INFO_KIND]) == "tun" { // tun_fill_info in drivers/net/tun.c
		tap := attributes(link[unix.IFLA_INFO_DATA])
		p.tap = true
		p.tun = number(tap[unix.IFLA_TUN_TYPE]) == unix.IFF_TUN
		p.queues = number(tap[unix.IFLA_TUN_NUM_QUEUES])
		p.detached = number(tap[unix.IFLA_TUN_NUM_DISABLED_QUEUES])
	}
	return p, nil
}

// attributes returns the attributes in b by their types, up to one that does not fit.
func attributes(b []byte) map[uint16][]byte {
	all := map[uint16][]byte{}
	for len(b) >= unix.SizeofRtAttr {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		all[kind&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = b[unix.SizeofRtAttr:size]
		b = b[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
	return all
}

// number reads an attribute of 8 or 32 bits, 0 if there is none.
func number(b []byte) int {
	switch {
	case len(b) >= 4:
		return int(binary.NativeEndian.Uint32(b))
	case len(b) > 0:
		return int(b[0])
	}
	return 0
}
