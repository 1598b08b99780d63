package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"framepipe/internal/ping"
)

// The traffic of one side: a process in its namespace, which sends to the other and
// receives from it until its input ends. It compares the bytes that arrive: between taps
// the kernel leaves out checksums, so TCP would not notice a stage that breaks them.
//
//	bulk      TCP, as fast as it goes for some seconds; then a pause
//	short     TCP connections of up to 64 KiB each way, one after the other
//	udp       datagrams of 0 to 9000 bytes, which the kernel cuts into fragments
//	small     small datagrams, hundreds at once, and a pause
//	ping      an echo ten times a second
//
// Each once over IPv4 and once over IPv6.

const (
	tcpPort = "7001"
	udpPort = "7002"
)

// totals are what a side has sent and received.
type totals struct {
	BulkFlows   int64 `json:"bulk_flows"`
	BulkBytes   int64 `json:"bulk_bytes"` // received
	Connections int64 `json:"connections"`
	Refused     int64 `json:"refused"` // connections that failed or broke off, as in a kill
	Datagrams   int64 `json:"datagrams"`
	Small       int64 `json:"small"`
	Received    int64 `json:"received"` // datagrams of both kinds
	Pings       int64 `json:"pings"`
	Pongs       int64 `json:"pongs"`
	Wrong       int64 `json:"wrong"` // what arrived and was not what had been sent
}

// block is what TCP carries, over and over, so the receiver can check it.
var block = func() []byte {
	b := make([]byte, 64<<10)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}()

// side sends and receives.
type side struct {
	peers [2]string // addresses of the other side
	ctx   context.Context
	seed  uint64
	n     totals
	wg    sync.WaitGroup
}

// trafficSide runs the traffic of a side until stdin ends, and prints its totals.
func trafficSide(v4, v6, seed string) error {
	s, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	t := &side{peers: [2]string{v4, v6}, ctx: ctx, seed: s}
	l, err := net.Listen("tcp", ":"+tcpPort)
	if err != nil {
		return err
	}
	p, err := net.ListenPacket("udp", ":"+udpPort)
	if err != nil {
		return err
	}
	_ = p.(*net.UDPConn).SetReadBuffer(4 << 20)
	go t.serve(l)
	go t.sink(p)
	fmt.Println("listening")
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil { // the other side listens, too
		return err
	}
	for i, peer := range t.peers {
		for j, kind := range []func(peer string, rng *rand.Rand) error{t.bulk, t.short, t.short, t.udp, t.small} {
			rng := rand.New(rand.NewPCG(s, uint64(i*10+j)))
			t.wg.Add(1)
			go func() {
				defer t.wg.Done()
				for ctx.Err() == nil {
					if err := kind(peer, rng); err != nil && ctx.Err() == nil {
						atomic.AddInt64(&t.n.Refused, 1)
						t.pause(50 * time.Millisecond)
					}
				}
			}()
		}
		t.wg.Add(1)
		go func() {
			defer t.wg.Done()
			t.ping(peer)
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	stop()
	t.wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(&t.n)
}

func (t *side) pause(d time.Duration) {
	select {
	case <-t.ctx.Done():
	case <-time.After(d):
	}
}

// exponential is a time with a mean.
func exponential(rng *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(min(rng.ExpFloat64(), 5) * float64(mean))
}

// dial connects, and closes when the traffic ends.
func (t *side) dial(peer string) (net.Conn, func(), error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.DialContext(t.ctx, "tcp", net.JoinHostPort(peer, tcpPort))
	if err != nil {
		return nil, nil, err
	}
	end := context.AfterFunc(t.ctx, func() { _ = c.SetDeadline(time.Now()) })
	return c, func() { end(); c.Close() }, nil
}

// Each connection begins with how many bytes come, math.MaxUint32 for as many as it
// takes, and how many are wanted in return.

func (t *side) bulk(peer string, rng *rand.Rand) error {
	defer func() { t.pause(exponential(rng, 6*time.Second)) }()
	c, done, err := t.dial(peer)
	if err != nil {
		return err
	}
	defer done()
	atomic.AddInt64(&t.n.BulkFlows, 1)
	end := time.Now().Add(exponential(rng, 2*time.Second))
	var head [8]byte
	binary.BigEndian.PutUint32(head[:], math.MaxUint32)
	if _, err := c.Write(head[:]); err != nil {
		return err
	}
	for time.Now().Before(end) {
		_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
		if t.ctx.Err() != nil {
			return nil
		}
		if _, err := c.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func (t *side) short(peer string, rng *rand.Rand) error {
	t.pause(exponential(rng, 20*time.Millisecond))
	c, done, err := t.dial(peer)
	if err != nil {
		return err
	}
	defer done()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	size := func() int { return int(math.Exp(rng.Float64() * math.Log(float64(len(block))))) }
	there, back := size(), size()
	head := binary.BigEndian.AppendUint32(nil, uint32(there))
	head = binary.BigEndian.AppendUint32(head, uint32(back))
	if _, err := c.Write(append(head, block[:there]...)); err != nil {
		return err
	}
	if err := t.compare(c, back); err != nil {
		return err
	}
	atomic.AddInt64(&t.n.Connections, 1)
	return nil
}

// compare reads so many bytes and looks whether they are those of the block.
func (t *side) compare(r io.Reader, n int) error {
	buf := make([]byte, len(block))
	for at := 0; n > 0; {
		m, err := r.Read(buf[:min(n, len(block)-at)])
		if !bytes.Equal(buf[:m], block[at:at+m]) {
			atomic.AddInt64(&t.n.Wrong, 1)
			return errors.New("other bytes than were sent")
		}
		if n != math.MaxUint32 {
			n -= m
		} else {
			atomic.AddInt64(&t.n.BulkBytes, int64(m))
		}
		if at += m; at == len(block) {
			at = 0
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *side) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var head [8]byte
			_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return
			}
			there, back := int(binary.BigEndian.Uint32(head[:])), binary.BigEndian.Uint32(head[4:])
			if t.compare(c, there) == nil && int(back) <= len(block) {
				_, _ = c.Write(block[:back])
			}
		}()
	}
}

// datagram fills b: a checksum, if there is room for it, and noise.
func datagram(b []byte, rng *rand.Rand) []byte {
	if len(b) >= 4 {
		copy(b[4:], block[rng.IntN(len(block)/2):])
		binary.BigEndian.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
	}
	return b
}

func (t *side) sink(p net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := p.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		atomic.AddInt64(&t.n.Received, 1)
		if n >= 4 && binary.BigEndian.Uint32(buf) != crc32.ChecksumIEEE(buf[4:n]) {
			atomic.AddInt64(&t.n.Wrong, 1)
		}
	}
}

// udp sends single datagrams of up to 9000 bytes.
func (t *side) udp(peer string, rng *rand.Rand) error {
	return t.datagrams(peer, rng, 9000, func() int { return 1 }, 4*time.Millisecond, &t.n.Datagrams)
}

// small sends many of up to 32 bytes at once.
func (t *side) small(peer string, rng *rand.Rand) error {
	return t.datagrams(peer, rng, 32, func() int { return rng.IntN(600) }, 100*time.Millisecond, &t.n.Small)
}

func (t *side) datagrams(peer string, rng *rand.Rand, most int, burst func() int, pause time.Duration, sent *int64) error {
	c, err := net.Dial("udp", net.JoinHostPort(peer, udpPort))
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, most)
	for t.ctx.Err() == nil {
		for range burst() {
			if _, err := c.Write(datagram(buf[:rng.IntN(most+1)], rng)); err == nil {
				atomic.AddInt64(sent, 1)
			}
		}
		t.pause(exponential(rng, pause))
	}
	return nil
}

func (t *side) ping(peer string) {
	p, err := ping.Start(peer, ping.Config{Every: 100 * time.Millisecond})
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		return
	}
	<-t.ctx.Done()
	r := p.Stop()
	atomic.AddInt64(&t.n.Pings, int64(r.Sent))
	atomic.AddInt64(&t.n.Pongs, int64(r.Received))
}
