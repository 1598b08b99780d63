// Package tap opens tap and tun devices and moves frames in and out of them.
//
// A device is named by its network interface, by a path, or, as fd:N, by a
// descriptor that was inherited. On Linux the interface must exist already: who
// makes it decides whose it is, and how it is called. A socket that keeps the
// bounds of messages (SOCK_DGRAM, SOCK_SEQPACKET) will do in the place of a
// device as fd:N, which is how the tools are tested without privileges.
//
// Two processes use one tap: one reads what the kernel sends through it, the
// other writes what the kernel is to receive. On Linux both attach a queue
// (IFF_MULTI_QUEUE), and the writer then detaches its own (TUNSETQUEUE with
// IFF_DETACH_QUEUE): the kernel steers no frames to a detached queue, and takes
// what is written to it as before (tun_get_user in drivers/net/tun.c). Where the
// system lets a device be opened only once, the shell opens it and both get
// the same descriptor. Its flags are left as they are, as others share it; of a
// tap on Linux the size and byte order of the offload header are set, and a reader
// asks for its offloads, which hold for the device as a whole.
package tap

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"framepipe/internal/fdio"

	"golang.org/x/sys/unix"
)

// Headroom is how many bytes Read and Write need in front of a frame, for a
// header the system puts there.
const Headroom = 16

// Mode says what becomes of super-frames and unfinished checksums.
type Mode uint8

// The modes.
const (
	Auto Mode = iota // hand them over as they are if the device can
	On               // the same, and it is an error if it cannot
	Off              // never
)

func (m Mode) String() string { return [...]string{"auto", "on", "off"}[m] }

// Set is flag.Value's.
func (m *Mode) Set(s string) error {
	switch s {
	case "auto":
		*m = Auto
	case "on", "true":
		*m = On
	case "off", "false":
		*m = Off
	default:
		return errors.New("want auto, on or off")
	}
	return nil
}

// Config says how to open a device.
type Config struct {
	Name    string // tap0, /dev/tap0, fd:3
	L3      bool   // a tun, which carries IP packets
	Write   bool   // to write to; else to read from
	Offload Mode
}

// ErrGone says that the device is no more.
var ErrGone = errors.New("the device has gone away")

// Device is an open device, in non-blocking mode where that can be had without
// changing a descriptor that others share.
type Device struct {
	name    string
	fd      int
	own     bool // opened here, so that its flags are ours
	socket  bool
	prefix  int  // bytes the system has in front of a frame
	vnet    bool // they are a virtio_net_hdr
	offload bool
	l3      bool
	in      *fdio.Input // for a descriptor that may block
}

// Fd returns the descriptor, to wait for.
func (d *Device) Fd() int { return d.fd }

// VNetHdr reports whether a virtio_net_hdr goes in front of each frame.
func (d *Device) VNetHdr() bool { return d.vnet }

// Offload reports whether the device takes and gives super-frames and
// frames whose checksum is not finished.
func (d *Device) Offload() bool { return d.offload }

// String describes the device.
func (d *Device) String() string {
	s := d.name
	switch {
	case d.socket:
		s += ": a socket"
	case d.l3:
		s += ": a tun"
	default:
		s += ": a tap"
	}
	if d.offload {
		return s + " with offload"
	}
	return s + " without offload"
}

// Close closes the device.
func (d *Device) Close() error { return unix.Close(d.fd) }

// Open opens a device. Its errors name it.
func Open(cfg Config) (*Device, error) {
	d, err := open(cfg)
	if err == nil && cfg.Write && cfg.Offload == On && !d.offload {
		_ = d.Close()
		err = errors.New("it cannot take super-frames, which -offload=on asks for")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	return d, nil
}

func open(cfg Config) (*Device, error) {
	d := &Device{name: cfg.Name, l3: cfg.L3}
	text, inherited := strings.CutPrefix(cfg.Name, "fd:")
	if !inherited {
		d.own = true
		return d, d.openName(cfg)
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 0 {
		return nil, errors.New("want fd: and the number of a descriptor")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.New("the descriptor is not open")
	}
	d.fd = fd
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFSOCK:
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil {
			return nil, err
		}
		if kind != unix.SOCK_DGRAM && kind != unix.SOCK_SEQPACKET {
			return nil, errors.New("the socket does not keep the bounds of frames; want SOCK_DGRAM or SOCK_SEQPACKET")
		}
		d.socket = true
		return d, nil
	case unix.S_IFCHR:
		d.in = fdio.NewDevice(fd)
		return d, d.setup(cfg)
	}
	return nil, errors.New("the descriptor is neither a device nor a socket")
}

// Read reads one frame into buf[off:], with at least Headroom bytes in front
// of it that it may write to: where VNetHdr is true, the header then stands
// directly before the frame. A frame longer than the room for it is cut off. The
// error is EAGAIN if there is none.
func (d *Device) Read(buf []byte, off int) (n int, err error) {
	p := buf[off-d.prefix:]
	switch {
	case d.socket:
		n, err = d.receive(p)
	case d.in != nil:
		n, err = d.in.TryRead(p)
		if err == nil && n == 0 {
			err = ErrGone
		}
	default:
		n, err = read(d.fd, p)
	}
	if err != nil {
		return 0, gone(err)
	}
	return max(n-d.prefix, 0), nil
}

func (d *Device) receive(p []byte) (int, error) {
	n, _, err := unix.Recvfrom(d.fd, p, unix.MSG_DONTWAIT)
	if err == nil && n == 0 {
		err = ErrGone // or a message of nothing, which is no frame
	}
	return n, err
}

// Write writes the frame buf[off:off+n]. The Headroom bytes in front of it may
// be overwritten, or are the virtio_net_hdr where VNetHdr is true. The error is
// EAGAIN where the device is full, which taps never are, and EINVAL for a frame of
// nothing.
func (d *Device) Write(buf []byte, off, n int) error {
	if n == 0 { // which a socket's reader would take for its end
		return unix.EINVAL
	}
	p := buf[off-d.prefix : off+n]
	var err error
	switch {
	case d.socket:
		err = unix.Send(d.fd, p, unix.MSG_DONTWAIT|sendFlags)
	case d.prefix > 0 && !d.vnet:
		putFamily(p)
		err = write(d.fd, p)
	default:
		err = write(d.fd, p)
	}
	return gone(err)
}

// gone tells the errors after which a device will not come back.
func gone(err error) error {
	switch err {
	case unix.ENODEV, unix.ENXIO, unix.EBADF, unix.EPIPE, unix.ECONNRESET, unix.ENOTCONN, unix.ECONNREFUSED, goneErrno:
		return ErrGone
	}
	return err
}

// Fatal reports whether an error of Read or Write is the device's end, and not
// just that of a frame.
func Fatal(err error) bool { return errors.Is(err, ErrGone) }
