// Package traffic makes and measures real TCP traffic, for the demo and for the network
// tests: a server that sends without end, and a client that logs the received bytes over
// time.
package traffic

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Bucket is the resolution of a Log.
const Bucket = 10 * time.Millisecond

// Serve sends to each client that connects to l, until l is closed. rate is the maximum of
// a connection, in bytes per second, 0 for no limit.
func Serve(l net.Listener, rate uint64) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if rate > 0 {
				err = pace(c.(*net.TCPConn), rate)
			}
			for buf := content(); err == nil; {
				_, err = c.Write(buf)
			}
		}()
	}
}

// pace limits the rate of a connection. TCP itself paces if the queueing discipline does
// not (net/ipv4/tcp_output.c).
func pace(c *net.TCPConn, rate uint64) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	e := raw.Control(func(fd uintptr) { err = unix.SetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, rate) })
	return errors.Join(e, err)
}

// content returns half text and half noise, to make the histogram interesting.
func content() []byte {
	b := make([]byte, 256<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	const text = "The quick brown fox jumps over the lazy dog, 0123456789 times. "
	for i := range b {
		if i%4096 < 2048 {
			b[i] = text[i%len(text)]
		}
	}
	return b
}

// Log records the number of received bytes over time.
type Log struct {
	Start   time.Time
	buckets []atomic.Uint64
}

// NewLog returns a Log that starts now and covers length.
func NewLog(length time.Duration) *Log {
	return &Log{Start: time.Now(), buckets: make([]atomic.Uint64, length/Bucket+1)}
}

// Add records the arrival of n bytes now.
func (l *Log) Add(n int) {
	i := int(time.Since(l.Start) / Bucket)
	l.buckets[min(i, len(l.buckets)-1)].Add(uint64(n))
}

// Between returns the number of bytes that arrived between two times since Start.
func (l *Log) Between(from, to time.Duration) (sum uint64) {
	for i := max(from/Bucket, 0); i < min(to/Bucket, time.Duration(len(l.buckets))); i++ {
		sum += l.buckets[i].Load()
	}
	return sum
}

// Fetch connects to a server, reads until the given time, and records the bytes in log.
func Fetch(addr string, until time.Time, log *Log) error {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0) // discard data in flight at Close
	if err := c.SetReadDeadline(until); err != nil {
		return err
	}
	for buf := make([]byte, 256<<10); ; {
		n, err := c.Read(buf)
		log.Add(n)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
	}
}
