//go:build !linux

package tap

import (
	"runtime"
	"strings"

	"framepipe/internal/cli"

	"golang.org/x/sys/unix"
)

const (
	goneErrno = unix.EIO // the error after the interface was destroyed
	sendFlags = 0
)

// openName opens the device node: /dev/tap0 for tap0.
func (d *Device) openName() error {
	path := d.cfg.Name
	if !strings.Contains(path, "/") {
		path = "/dev/" + path
	}
	var err error
	d.fd, err = unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch err {
	case unix.EACCES, unix.EPERM:
		return cli.Hint(err, "run as root, or open %s to this user", path)
	case unix.EBUSY:
		return cli.Hint(err, "a tap opens once here: exec 3<>%s, and give fd:3 to both tools", path)
	}
	return err
}

func (d *Device) detach() error { return nil }

// setup sets the size of the header in front of a packet: the address family for
// OpenBSD's tun(4) and macOS's utun; by default nothing for FreeBSD's tun(4).
func (d *Device) setup() error {
	if d.cfg.L3 && runtime.GOOS != "freebsd" {
		d.prefix = 4
	}
	return nil
}
