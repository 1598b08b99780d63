package divert

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"syscall"

	"golang.org/x/sys/unix"
)

// Attributes of a tap (include/uapi/linux/if_link.h), and its type.
const (
	iflaTunType        = 3
	iflaTunMultiQueue  = 7
	iflaTunNumQueues   = 8
	iflaTunNumDisabled = 9
	typeTun            = 1
	// nlaTypeMask leaves out flags (NLA_TYPE_MASK in include/uapi/linux/netlink.h).
	nlaTypeMask = 0x3fff
)

// netlink asks the kernel about interfaces (rtnetlink(7)).
type netlink struct {
	ask    int // a socket for questions
	events int // a socket that becomes readable when an interface changes
	buf    []byte
	seq    uint32
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
	for _, fd := range []int{n.ask, n.events} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// drain reads the events that wait, and ignores them: some may have been lost, so the
// caller asks the kernel again.
func (n *netlink) drain() {
	for {
		if _, _, err := unix.Recvfrom(n.events, n.buf, 0); err != nil && err != unix.EINTR && err != unix.ENOBUFS {
			return
		}
	}
}

// port returns the interface of a name. If there is none its index is 0.
func (n *netlink) port(name string) (port, error) {
	if len(name) >= unix.IFNAMSIZ {
		return port{}, nil // the kernel says of a longer one that it is out of range
	}
	n.seq++
	// struct nlmsghdr, struct ifinfomsg, and the name as an attribute.
	size := unix.SizeofRtAttr + len(name) + 1
	m := make([]byte, 0, unix.NLMSG_HDRLEN+unix.SizeofIfInfomsg+size+unix.RTA_ALIGNTO)
	m = binary.NativeEndian.AppendUint32(m, 0) // its length, see below
	m = binary.NativeEndian.AppendUint16(m, unix.RTM_GETLINK)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST)
	m = binary.NativeEndian.AppendUint32(m, n.seq)
	m = append(m, make([]byte, 4+unix.SizeofIfInfomsg)...)
	m = binary.NativeEndian.AppendUint16(m, uint16(size))
	m = binary.NativeEndian.AppendUint16(m, unix.IFLA_IFNAME)
	m = append(append(m, name...), 0)
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	if err := unix.Send(n.ask, m, 0); err != nil {
		return port{}, fmt.Errorf("%s: netlink: %w", name, err)
	}
	for {
		size, _, err := unix.Recvfrom(n.ask, n.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return port{}, fmt.Errorf("%s: netlink: %w", name, err)
		}
		messages, err := syscall.ParseNetlinkMessage(n.buf[:size])
		if err != nil {
			return port{}, fmt.Errorf("%s: netlink: %w", name, err)
		}
		for _, m := range messages {
			if m.Header.Seq != n.seq {
				continue // the answer to a question whose answer was not waited for
			}
			switch m.Header.Type {
			case unix.NLMSG_ERROR:
				if e := -int32(number(m.Data)); syscall.Errno(e) != unix.ENODEV {
					return port{}, fmt.Errorf("%s: netlink: %w", name, syscall.Errno(e))
				}
				return port{}, nil
			case unix.RTM_NEWLINK:
				return parsePort(m.Data)
			}
		}
	}
}

// parsePort reads an RTM_NEWLINK message: struct ifinfomsg and attributes.
func parsePort(b []byte) (port, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return port{}, errors.New("netlink: a message that is too short")
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	p := port{
		ethernet: binary.NativeEndian.Uint16(b[2:]) == unix.ARPHRD_ETHER,
		index:    int(binary.NativeEndian.Uint32(b[4:])),
		up:       flags&unix.IFF_UP != 0,
		carrier:  flags&unix.IFF_LOWER_UP != 0,
	}
	for kind, info := range attributes(b[unix.SizeofIfInfomsg:]) {
		if kind != unix.IFLA_LINKINFO {
			continue
		}
		for kind, v := range attributes(info) {
			switch kind {
			case unix.IFLA_INFO_KIND:
				p.tap = unix.ByteSliceToString(v) == "tun"
			case unix.IFLA_INFO_DATA:
				if p.tap {
					p.parseTap(v)
				}
			}
		}
	}
	return p, nil
}

// parseTap reads the attributes of a tap (tun_fill_info in drivers/net/tun.c).
func (p *port) parseTap(b []byte) {
	for kind, v := range attributes(b) {
		switch kind {
		case iflaTunType:
			p.tun = number(v) == typeTun
		case iflaTunMultiQueue:
			p.several = number(v) != 0
		case iflaTunNumQueues:
			p.queues = int(number(v))
		case iflaTunNumDisabled:
			p.detached = int(number(v))
		}
	}
}

// attributes goes through the attributes in b. It ends at one that does not fit.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
		}
	}
}

// number reads an attribute of 8 or 32 bits.
func number(b []byte) uint32 {
	switch {
	case len(b) >= 4:
		return binary.NativeEndian.Uint32(b)
	case len(b) > 0:
		return uint32(b[0])
	}
	return 0
}
