// Package traffic makes and measures real TCP traffic, for the demo and for the
// network tests: a server that sends at the requested rate, a client that logs the
// received bytes over time, and an echo server to measure the delay of other traffic.
package traffic

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Bucket is the resolution of a Log.
const Bucket = 10 * time.Millisecond

// Request is a client's request for one connection.
type Request struct {
	Bytes      uint64   // to send, 0 for no limit
	Rate       uint64   // maximum in bytes per second, 0 for no limit
	Congestion [16]byte // name of the congestion control, empty for the system's
}

// Serve answers the requests of clients that connect to l, and echoes the datagrams
// that p receives, until l is closed.
func Serve(l net.Listener, p net.PacketConn) error {
	go echo(p)
	defer p.Close()
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		go func() {
			defer c.Close()
			_ = send(c.(*net.TCPConn))
		}()
	}
}

func echo(p net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := p.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = p.WriteTo(buf[:n], from)
		}
	}
}

func send(c *net.TCPConn) error {
	var r Request
	if err := binary.Read(c, binary.BigEndian, &r); err != nil {
		return err
	}
	if err := tune(c, &r); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	fill(buf)
	for sent := uint64(0); r.Bytes == 0 || sent < r.Bytes; {
		n := uint64(len(buf))
		if r.Bytes != 0 {
			n = min(n, r.Bytes-sent)
		}
		m, err := c.Write(buf[:n])
		if err != nil {
			return err
		}
		sent += uint64(m)
	}
	return c.CloseWrite()
}

func tune(c *net.TCPConn, r *Request) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	e := raw.Control(func(fd uintptr) { err = tuneSocket(int(fd), r) })
	return errors.Join(e, err)
}

// fill fills b with half text and half noise, to make the histogram interesting.
func fill(b []byte) {
	const text = "The quick brown fox jumps over the lazy dog, 0123456789 times. "
	x := uint64(88172645463325252)
	for i := range b {
		if i%4096 < 2048 {
			b[i] = text[i%len(text)]
			continue
		}
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
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

// Most returns the most bytes that arrived in any span of the given length.
func (l *Log) Most(span time.Duration) (most uint64) {
	for i := range len(l.buckets) {
		from := time.Duration(i) * Bucket
		most = max(most, l.Between(from, from+span))
	}
	return most
}

// Fetch connects to a server and reads until the given time or the end of the data.
// It records arrivals in log unless that is nil, and returns the number of bytes.
func Fetch(addr string, r Request, until time.Time, log *Log) (uint64, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return 0, err
	}
	c := conn.(*net.TCPConn)
	defer c.Close()
	_ = c.SetLinger(0) // discard data in flight at Close
	if err := binary.Write(c, binary.BigEndian, &r); err != nil {
		return 0, err
	}
	if err := c.SetReadDeadline(until); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	total := uint64(0)
	for {
		n, err := c.Read(buf)
		total += uint64(n)
		if log != nil {
			log.Add(n)
		}
		var late net.Error
		switch {
		case err == nil:
		case err == io.EOF, errors.As(err, &late) && late.Timeout():
			return total, nil
		default:
			return total, err
		}
	}
}

// Pings sends a datagram to the echo server at each interval until done is closed,
// and calls got with the round-trip time of each answer.
func Pings(addr string, interval time.Duration, done <-chan struct{}, got func(rtt time.Duration)) (sent int, err error) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		var b [8]byte
		for {
			_, err := c.Read(b[:])
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				got(time.Duration(time.Now().UnixNano() - int64(binary.BigEndian.Uint64(b[:]))))
			}
		}
	}()
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-done:
			time.Sleep(min(interval, 200*time.Millisecond)) // for the last answer
			c.Close()
			wg.Wait()
			return sent, nil
		case <-t.C:
			var b [8]byte
			binary.BigEndian.PutUint64(b[:], uint64(time.Now().UnixNano()))
			if _, err := c.Write(b[:]); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
				sent++
			}
		}
	}
}
