package traffic

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// tuneSocket applies the request to the socket. TCP itself paces if the queueing
// discipline does not (net/ipv4/tcp_output.c).
func tuneSocket(fd int, r *Request) error {
	if name, _, _ := bytes.Cut(r.Congestion[:], []byte{0}); len(name) > 0 {
		if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, string(name)); err != nil {
			return err
		}
	}
	if r.Rate > 0 {
		return unix.SetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, r.Rate)
	}
	return nil
}
