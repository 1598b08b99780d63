package tap

import (
	"errors"
	"fmt"
	"strings"

	"framepipe/internal/cli"
	"framepipe/internal/offload"

	"golang.org/x/sys/unix"
)

// goneErrno is the driver's error after the interface of an open descriptor was
// deleted (tun_get in drivers/net/tun.c).
const goneErrno = unix.EBADFD

const sendFlags = unix.MSG_NOSIGNAL

// Offloads that a reader can ask for (include/uapi/linux/if_tun.h).
const (
	offloadTCP = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUDP = 0x20 | 0x40 // TUN_F_USO4 and TUN_F_USO6, since Linux 6.2
)

func (d *Device) openName() error {
	name := d.cfg.Name
	if strings.Contains(name, "/") {
		return d.openPath()
	}
	add := fmt.Sprintf("ip tuntap add dev %s mode %s multi_queue vnet_hdr && ip link set %s up", name, d.cfg.kind(), name)
	ifr, err := unix.NewIfreq(name)
	if err != nil || name == "" {
		return errors.New("not a name of a network interface")
	}
	index, err := ifindex(ifr)
	if err != nil {
		return err
	}
	if index == 0 {
		return cli.Hint(errors.New("no such network interface"), "%s", add)
	}
	d.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		return d.attach(ifr, add)
	}
	hint := ""
	switch err {
	case unix.EACCES, unix.EPERM:
		hint = "run as root, or open /dev/net/tun to this user; a systemd service needs PrivateDevices=no"
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		hint = "modprobe tun; a container needs --device /dev/net/tun"
	}
	return cli.Hint(fmt.Errorf("/dev/net/tun: %w", err), "%s", hint)
}

// ifindex returns the index of an interface in this network namespace, or 0 if
// it does not exist. Without this check TUNSETIFF would create it.
func ifindex(ifr *unix.Ifreq) (uint32, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	err = unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ifr)
	if err == unix.ENODEV {
		return 0, nil
	}
	return ifr.Uint32(), err
}

// attach attaches a queue. It tries with and without IFF_MULTI_QUEUE, as the flag
// must be the same as at the creation of the device.
func (d *Device) attach(ifr *unix.Ifreq, add string) error {
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if d.cfg.L3 {
		flags = flags&^unix.IFF_TAP | unix.IFF_TUN
	}
	ifr.SetUint16(flags | unix.IFF_MULTI_QUEUE)
	err := unix.IoctlIfreq(d.fd, unix.TUNSETIFF, ifr)
	if err == unix.EINVAL {
		ifr.SetUint16(flags)
		err = unix.IoctlIfreq(d.fd, unix.TUNSETIFF, ifr)
	}
	switch err {
	case unix.EBUSY:
		return cli.Hint(errors.New("in use by another process, and it has only one queue"), "create it with several queues: ip link del %s; %s", d.cfg.Name, add)
	case unix.E2BIG:
		return errors.New("all its queues are in use")
	case unix.EPERM:
		return cli.Hint(err, "run as root, or make the device this user's: ip tuntap add ... user NAME")
	case unix.EINVAL: // also for a device of another driver
		kind, other := d.cfg.kind(), "a tun needs -l3"
		if d.cfg.L3 {
			other = "a tap must not have -l3"
		}
		return cli.Hint(errors.New("not a "+kind+" device"), "%s; create one: %s", other, strings.ReplaceAll(add, d.cfg.Name, kind+"0"))
	}
	return err
}

// openPath opens a device node, such as that of a macvtap.
func (d *Device) openPath() error {
	var st unix.Stat_t
	err := unix.Stat(d.cfg.Name, &st)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return errors.New("not a device")
	}
	d.fd, err = unix.Open(d.cfg.Name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.EACCES {
		err = cli.Hint(err, "run as root, or open it to this user")
	}
	if err != nil {
		return err
	}
	_ = unix.IoctlIfreq(d.fd, unix.TUNSETIFF, request(unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR)) // setup reads back the flags
	return nil
}

// setup reads the device's flags, to set the prefix and the offload of d.
func (d *Device) setup() error {
	// The process that attached first has set the flags.
	ifr := request(0)
	switch err := unix.IoctlIfreq(d.fd, unix.TUNGETIFF, ifr); err {
	case nil:
	case unix.EBADFD:
		return errors.New("not attached to an interface")
	case unix.ENOTTY, unix.EINVAL:
		return errors.New("not a tap or tun device")
	default:
		return err
	}
	flags := ifr.Uint16()
	switch {
	case flags&unix.IFF_NO_PI == 0:
		return errors.New("in use by a process with another frame header (IFF_NO_PI is off)")
	case flags&unix.IFF_TUN != 0 && !d.cfg.L3:
		return cli.Hint(errors.New("the device is a tun, which carries IP packets"), "use -l3")
	case flags&unix.IFF_TAP != 0 && d.cfg.L3:
		return cli.Hint(errors.New("the device is a tap, which carries Ethernet frames"), "leave out -l3")
	}
	if flags&unix.IFF_VNET_HDR == 0 {
		return nil
	}
	d.vnet, d.prefix = true, offload.HeaderSize
	if err := unix.IoctlSetPointerInt(d.fd, unix.TUNSETVNETHDRSZ, offload.HeaderSize); err != nil {
		return fmt.Errorf("setting the size of the offload header: %w", err)
	}
	if err := unix.IoctlSetPointerInt(d.fd, unix.TUNSETVNETLE, 1); err != nil {
		return fmt.Errorf("setting the byte order of the offload header: %w", err)
	}
	d.offload = d.cfg.Offload != Off
	if d.cfg.Write {
		return nil // writes of super-frames do not depend on TUNSETOFFLOAD
	}
	ask := 0
	if d.offload {
		ask = offloadTCP | offloadUDP
	}
	err := unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, ask)
	if err == unix.EINVAL {
		err = unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, ask&^offloadUDP)
	}
	if err != nil {
		return fmt.Errorf("setting the offloads: %w", err)
	}
	return nil
}

// detach detaches the queue, so that the kernel sends no frames to it. A device
// with one queue returns EINVAL; it has no other reader.
func (d *Device) detach() error {
	if err := unix.IoctlIfreq(d.fd, unix.TUNSETQUEUE, request(unix.IFF_DETACH_QUEUE)); err != nil && err != unix.EINVAL {
		return fmt.Errorf("detaching the queue: %w", err)
	}
	return nil
}

// request returns the argument of an ioctl that sets or gets flags.
func request(flags uint16) *unix.Ifreq {
	ifr, _ := unix.NewIfreq("") // an error only for a name that is too long
	ifr.SetUint16(flags)
	return ifr
}
