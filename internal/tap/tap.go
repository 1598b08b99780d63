// Package tap opens tap and tun devices and moves frames in and out of them.
//
// The name of a device is a network interface, a path, or fd:N for an inherited
// descriptor. On Linux the interface must exist: the program that creates it
// chooses its owner and its name. With fd:N, a socket that preserves message
// boundaries (SOCK_DGRAM, SOCK_SEQPACKET) can replace a device, to test the tools
// without privileges.
//
// Two processes use one tap: one reads the frames that the kernel sends, the
// other writes the frames that the kernel receives. On Linux both attach a queue
// (IFF_MULTI_QUEUE), and the writer then detaches its own (TUNSETQUEUE with
// IFF_DETACH_QUEUE): the kernel steers no frames to a detached queue, and still
// accepts writes to it (tun_get_user in drivers/net/tun.c). Where the system
// allows one open of a device, the shell opens it and both processes inherit the
// descriptor. This package does not change the flags of an inherited descriptor,
// as other processes share them. On Linux it sets the size and byte order of a
// tap's offload header, and a reader sets the offloads of the whole device.
package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"framepipe/internal/fdio"
	"framepipe/internal/packet"

	"golang.org/x/sys/unix"
)

// Headroom is the number of bytes that Read and Write need in front of a frame,
// for the system's header.
const Headroom = 16

// Mode selects how a device handles super-frames and unfinished checksums.
type Mode uint8

// The modes.
const (
	Auto Mode = iota // hand them over unchanged if the device supports it
	On               // the same, or fail if the device does not support it
	Off              // never hand them over
)

// Config says how to open a device.
type Config struct {
	Name    string // tap0, /dev/tap0, fd:3
	L3      bool   // a tun, which carries IP packets
	Write   bool   // open it to write frames, not to read them
	Offload Mode
}

// Link returns the link of the device's frames.
func (cfg Config) Link() packet.Link {
	if cfg.L3 {
		return packet.IP
	}
	return packet.Ethernet
}

// kind returns the name of such a device.
func (cfg Config) kind() string {
	if cfg.L3 {
		return "tun"
	}
	return "tap"
}

// ErrGone reports that the device no longer exists.
var ErrGone = errors.New("the device has gone away")

// Device is an open device. It is in non-blocking mode unless the descriptor is
// inherited, and so possibly shared.
type Device struct {
	cfg     Config
	fd      int
	socket  bool
	prefix  int  // size of the system's header in front of a frame
	vnet    bool // that header is a virtio_net_hdr
	offload bool
	in      *fdio.Stream // for a descriptor that may block
}

// Fd returns the descriptor, to wait for.
func (d *Device) Fd() int { return d.fd }

// VNetHdr reports whether a virtio_net_hdr goes in front of each frame.
func (d *Device) VNetHdr() bool { return d.vnet }

// Waits reports whether who sends frames to the device waits while it is full: to a socket, not
// to a tap, which drops them.
func (d *Device) Waits() bool { return d.socket }

// Offload reports whether super-frames and frames with an unfinished checksum can
// pass through the device.
func (d *Device) Offload() bool { return d.offload }

// String describes the device.
func (d *Device) String() string {
	kind, with := d.cfg.kind(), "without"
	if d.socket {
		kind = "socket"
	}
	if d.offload {
		with = "with"
	}
	return fmt.Sprintf("%s: a %s %s offload", d.cfg.Name, kind, with)
}

// Close closes the device, once. The kernel then sends its frames to the other readers.
func (d *Device) Close() error {
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// Open opens a device. Its errors name it.
func Open(cfg Config) (*Device, error) {
	d := &Device{cfg: cfg, fd: -1}
	err := d.open()
	if err == nil && cfg.Write && cfg.Offload == On && !d.offload {
		err = errors.New("the device does not support super-frames; use -offload=auto")
	}
	if err != nil {
		if d.in == nil && !d.socket { // an inherited descriptor may be stderr
			_ = unix.Close(d.fd)
		}
		return nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	return d, nil
}

func (d *Device) open() error {
	text, inherited := strings.CutPrefix(d.cfg.Name, "fd:")
	if !inherited {
		err := d.openName()
		if err == nil {
			err = d.setup()
		}
		if err == nil && d.cfg.Write {
			err = d.detach()
		}
		return err
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 0 {
		return errors.New("want fd:N, the number of a descriptor")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.New("the descriptor is not open")
	}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFSOCK:
		kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if kind != unix.SOCK_DGRAM && kind != unix.SOCK_SEQPACKET {
			return errors.New("the socket does not preserve message boundaries; want SOCK_DGRAM or SOCK_SEQPACKET")
		}
		d.fd, d.socket = fd, true
		return nil
	case unix.S_IFCHR:
		d.fd, d.in = fd, fdio.NewStream(fd, -1)
		d.in.Timeout = 0
		return d.setup()
	}
	return errors.New("the descriptor is neither a device nor a socket")
}

// Read reads one frame into buf[off:]. off must be at least Headroom, as Read may
// overwrite the bytes in front: if VNetHdr is true, the header is directly before
// the frame. A frame longer than the room for it is truncated. The error is EAGAIN
// if no frame is available.
func (d *Device) Read(buf []byte, off int) (n int, err error) {
	p := buf[off-d.prefix:]
	switch {
	case d.socket:
		n, _, err = unix.Recvfrom(d.fd, p, unix.MSG_DONTWAIT)
	case d.in != nil:
		if n, err = d.in.Read(p); err == os.ErrDeadlineExceeded {
			err = unix.EAGAIN
		}
	default:
		n, err = fdio.Read(d.fd, p)
	}
	if err == nil && n == 0 { // the end, or from a socket an empty message, which is no frame
		err = io.EOF
	}
	if err != nil {
		return 0, gone(err)
	}
	return max(n-d.prefix, 0), nil
}

// Write writes the frame buf[off:off+n]. It may overwrite the Headroom bytes in
// front of the frame; if VNetHdr is true, their end must hold the virtio_net_hdr.
// The error is EAGAIN if the device is full, which taps never are, and EINVAL for an
// empty frame.
func (d *Device) Write(buf []byte, off, n int) error {
	if n == 0 { // the reader of a socket would take it for the end
		return unix.EINVAL
	}
	p := buf[off-d.prefix : off+n]
	var err error
	if d.socket {
		err = unix.Send(d.fd, p, unix.MSG_DONTWAIT|sendFlags)
	} else {
		if d.prefix > 0 && !d.vnet {
			putFamily(p)
		}
		_, err = fdio.Write(d.fd, p) // does not block: a tap accepts a write at once or drops it
	}
	return gone(err)
}

// putFamily writes the address family of the packet that follows it in p. Linux has none.
func putFamily(p []byte) {
	family := uint32(unix.AF_INET)
	if len(p) > 4 && p[4]>>4 == 6 {
		family = unix.AF_INET6
	}
	binary.BigEndian.PutUint32(p, family)
}

// gone converts the errors of a device that no longer exists to ErrGone.
func gone(err error) error {
	switch err {
	case io.EOF, unix.ENODEV, unix.ENXIO, unix.EBADF, unix.EPIPE, unix.ECONNRESET, unix.ENOTCONN, unix.ECONNREFUSED, goneErrno:
		return ErrGone
	}
	return err
}
