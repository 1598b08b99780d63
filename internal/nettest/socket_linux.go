package nettest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Index returns the number of an interface of the namespace it is called in. It does without
// package net: a test that links C cannot be held by Landlock.
func Index(name string) (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ifr)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}

// PacketSocket returns a packet socket on an interface of the namespace it is
// called in. It receives the frames of both directions, with the VLAN tag in the
// auxiliary data. Receiving waits for two seconds at most.
func PacketSocket(t testing.TB, name string) int {
	t.Helper()
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return -1
	}
	index, err := Index(name)
	if err != nil {
		t.Error(err)
		return -1
	}
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	err = errors.Join(
		unix.Bind(s, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}),
		unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}))
	if err != nil {
		t.Error(err)
	}
	return s
}

// Running waits until the kernel has noticed that a process attached to an interface.
// This takes up to a second, in which it drops the frames that it should send.
func Running(t testing.TB, names ...string) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(s)
	for _, name := range names {
		ifr, _ := unix.NewIfreq(name)
		for i := 0; ; i++ {
			if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil || i == 500 {
				t.Errorf("%s is not running: %v", name, err)
				return
			}
			if ifr.Uint16()&unix.IFF_RUNNING != 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}
