package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// least is the payload of the smallest frame: 60 bytes with the headers of
// Ethernet, IPv4 and UDP, 64 with the check sequence.
const least = 60 - 14 - 20 - 8

// batch is how many datagrams go with one system call.
const batch = 32

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func messages(size int) (m []mmsghdr, keep []unix.Iovec) {
	m, keep = make([]mmsghdr, batch), make([]unix.Iovec, batch)
	for i := range m {
		b := make([]byte, size)
		keep[i].Base = &b[0]
		keep[i].SetLen(size)
		m[i].hdr.Iov = &keep[i]
		m[i].hdr.SetIovlen(1)
	}
	return m, keep
}

func socket(addr string) (fd int, sa *unix.SockaddrInet4, err error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0, nil, err
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	return fd, &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, err
}

// flood sends as many of the smallest frames as it can.
func flood(addr, seconds string) error {
	s, err := strconv.Atoi(seconds)
	if err != nil {
		return err
	}
	fd, sa, err := socket(addr)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, sa); err != nil {
		return err
	}
	m, _ := messages(least)
	for end := time.Now().Add(time.Duration(s) * time.Second); time.Now().Before(end); {
		_, _, e := syscall.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), batch, 0, 0, 0)
		if e != 0 && e != unix.ECONNREFUSED && e != unix.ENOBUFS {
			return e
		}
	}
	return nil
}

// sink prints how many datagrams arrive in a second, on the average of some.
func sink(addr, seconds string) error {
	s, err := strconv.Atoi(seconds)
	if err != nil {
		return err
	}
	fd, sa, err := socket(addr)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000})
	m, _ := messages(2048)
	start := time.Now()
	length := time.Duration(s) * time.Second
	n := 0
	for time.Since(start) < length {
		r, _, e := syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), batch, unix.MSG_WAITFORONE, 0, 0)
		if e == 0 {
			n += int(r)
		} else if e != unix.EAGAIN && e != unix.EINTR {
			return e
		}
	}
	fmt.Println(float64(n) / length.Seconds())
	return nil
}
