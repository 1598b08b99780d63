package tap

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func Open(cfg Config) (*Device, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(cfg.Name)
	if err != nil {
		return nil, err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	if cfg.L3 {
		flags = flags&^unix.IFF_TAP | unix.IFF_TUN
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	d := &Device{fd: fd, vnet: true, offload: cfg.Offload != Off}
	if cfg.Write {
		ifr.SetUint16(unix.IFF_DETACH_QUEUE)
		if err := unix.IoctlIfreq(fd, unix.TUNSETQUEUE, ifr); err != nil {
			return nil, fmt.Errorf("%s: %w", cfg.Name, err)
		}
	} else {
		o := 0
		if cfg.Offload != Off {
			o = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40
		}
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, o); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *Device) Read(buf []byte, off int) (int, error) {
	h := 0
	if d.vnet {
		h = 10
	}
	p := buf[off-h:]
	n, _, e := syscall.RawSyscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if e != 0 {
		if e == unix.EAGAIN {
			return 0, eagain
		}
		return 0, e
	}
	return int(n) - h, nil
}

var eagain error = unix.EAGAIN

func (d *Device) Write(buf []byte, off, n int) error {
	h := 0
	if d.vnet {
		h = 10
	}
	p := buf[off-h : off+n]
	_, _, e := syscall.RawSyscall(unix.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if e != 0 {
		return e
	}
	return nil
}

func (d *Device) Close() error { return unix.Close(d.fd) }

func Fatal(err error) bool {
	return err == unix.EBADFD || err == unix.EBADF || err == unix.ENODEV || err == unix.ENXIO
}
