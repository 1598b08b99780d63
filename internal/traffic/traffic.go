// Package traffic makes and measures real TCP traffic, for the demonstration
// and for the tests of the network: a server that sends as fast as it is
// asked to, a client that notes when how much arrived, and an echo beside it
// that tells what else could get through.
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

// Bucket is how finely arrivals are noted.
const Bucket = 10 * time.Millisecond

// Request is what a client asks of a server for one connection.
type Request struct {
	Bytes      uint64   // to send, 0 for as many as the client will take
	Rate       uint64   // bytes per second at the most, 0 for no limit
	Congestion [16]byte // name of the congestion control, empty for the system's
}

// Serve sends to whoever connects to l what it asks for, and echoes what comes
// to p, until l is closed.
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

// fill writes something between text and noise, so that a histogram of it is
// worth a look.
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

// Log is what arrived, by time.
type Log struct {
	Start   time.Time
	buckets []atomic.Uint64
}

// NewLog returns a Log with room for a time.
func NewLog(length time.Duration) *Log {
	return &Log{Start: time.Now(), buckets: make([]atomic.Uint64, length/Bucket+1)}
}

// Add notes that n bytes arrived now.
func (l *Log) Add(n int) {
	i := int(time.Since(l.Start) / Bucket)
	l.buckets[min(i, len(l.buckets)-1)].Add(uint64(n))
}

// Between returns how many bytes arrived between two times since Start.
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

// Fetch connects to a server and reads what it sends until the time is over or
// all has come, noting it in log, if that is not nil. It returns how many bytes
// came.
func Fetch(addr string, r Request, until time.Time, log *Log) (uint64, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return 0, err
	}
	c := conn.(*net.TCPConn)
	defer c.Close()
	_ = c.SetLinger(0) // what is still under way is not waited for
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

// Pings sends a datagram to a server's echo at each interval until done is
// closed, and calls got with each answer's round trip.
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
