// Package ping sends ICMP echoes and times the answers, like the program of that name,
// which a machine may lack, for the demo and for the tests. It needs root.
//
// It avoids package net, which links C: see nettest.PacketSocket.
package ping

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config describes the echoes.
type Config struct {
	Count int           // of echoes; 0: until Stop
	Every time.Duration // from one to the next; 0: a second
	Wait  time.Duration // for late answers, after the last echo; 0: a second
	Size  int           // of the data, in bytes, 8 at the least; 0: 56
	Whole bool          // forbid fragments
}

// Result is the outcome.
type Result struct {
	Sent, Received int
	RTTs           []time.Duration // round trips, in the order of sending
	LostAt         []time.Time     // when the lost echoes were sent
	Gap            time.Duration   // longest run of lost echoes: from the first of them to the next answered one
	Err            error           // of the last echo that the kernel refused; it counts as lost
}

// Lost returns the number of echoes without an answer.
func (r Result) Lost() int { return r.Sent - r.Received }

// Median returns the median round trip, or 0 if there is none.
func (r Result) Median() time.Duration { return Median(r.RTTs) }

// Median returns the median of round trips, or 0 if there is none.
func Median(rtts []time.Duration) time.Duration {
	if len(rtts) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(rtts))[len(rtts)/2]
}

// Slowest returns the longest round trip, or 0 if there is none.
func (r Result) Slowest() time.Duration {
	if len(r.RTTs) == 0 {
		return 0
	}
	return slices.Max(r.RTTs)
}

func (r Result) String() string {
	s := fmt.Sprintf("%d of %d echoes lost, longest gap %v, median %v, slowest %v", r.Lost(), r.Sent, r.Gap, r.Median(), r.Slowest())
	if r.Err != nil {
		s += ", " + r.Err.Error()
	}
	return s
}

// Pinger sends echoes to an address and notes the answers.
type Pinger struct {
	c      Config
	to     unix.Sockaddr
	v4     bool
	f      *os.File // a raw socket
	conn   syscall.RawConn
	id     uint16
	cookie uint32
	stop   func()
	ended  chan struct{} // closed by stop
	done   chan struct{} // closed when the result is final

	mu     sync.Mutex
	echoes []echo
	got    int           // number of answered echoes
	kept   int           // number of echoes that the kernel refused
	latest int           // highest index of an answered echo, or -1
	news   chan struct{} // closed at the next answer
	err    error
}

type echo struct {
	at       time.Time
	rtt      time.Duration
	answered bool
}

// Start sends echoes to addr from the caller's network namespace, until Count are sent or
// Stop is called. Each takes the route and source address of its moment.
func Start(addr string, c Config) (*Pinger, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, err
	}
	if c.Every == 0 {
		c.Every = time.Second
	}
	if c.Wait == 0 {
		c.Wait = time.Second
	}
	if c.Size == 0 {
		c.Size = 56
	}
	p := &Pinger{
		c: c, v4: a.Is4(), id: uint16(rand.Uint32()), cookie: rand.Uint32(),
		ended: make(chan struct{}), done: make(chan struct{}), latest: -1, news: make(chan struct{}),
	}
	p.stop = sync.OnceFunc(func() { close(p.ended) })
	s, err := p.open(a)
	if err != nil {
		return nil, fmt.Errorf("ping %s: %w", addr, err)
	}
	p.f = os.NewFile(uintptr(s), "ping "+addr)
	if p.conn, err = p.f.SyscallConn(); err != nil {
		p.f.Close()
		return nil, err
	}
	go p.receive()
	go p.send()
	return p, nil
}

// open makes the socket. It is not connected: then it would keep its source address, and a
// test may move that. It receives all ICMP; answer picks the replies to this pinger.
func (p *Pinger) open(a netip.Addr) (s int, err error) {
	const kind = unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	family, protocol, level, discover, whole := unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
	p.to = &unix.SockaddrInet6{Addr: a.As16()}
	if p.v4 {
		family, protocol, level, discover, whole = unix.AF_INET, unix.IPPROTO_ICMP, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
		p.to = &unix.SockaddrInet4{Addr: a.As4()}
	}
	if s, err = unix.Socket(family, kind, protocol); err != nil {
		return -1, err
	}
	if p.c.Whole {
		if err = unix.SetsockoptInt(s, level, discover, whole); err != nil {
			unix.Close(s)
			return -1, err
		}
	}
	return s, nil
}

const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// message returns echo i, with data of its own, and without a checksum.
func (p *Pinger) message(i int, kind byte) []byte {
	b := make([]byte, 8+max(p.c.Size, 8))
	b[0] = kind
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], uint16(i))
	binary.BigEndian.PutUint32(b[8:], p.cookie)
	binary.BigEndian.PutUint32(b[12:], uint32(i))
	for j := 16; j < len(b); j++ {
		b[j] = byte(i + j)
	}
	return b
}

// checksum fills in the checksum for IPv4. The kernel does it for IPv6.
func checksum(b []byte) {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
}

func (p *Pinger) send() {
	defer close(p.done)
	defer p.f.Close()
	tick := time.NewTicker(p.c.Every)
	defer tick.Stop()
	for i := 0; ; i++ {
		p.one(i)
		if i+1 == p.c.Count {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-p.ended:
		}
		break
	}
	late := time.After(p.c.Wait)
	for {
		p.mu.Lock()
		all, news := p.got+p.kept == len(p.echoes), p.news
		p.mu.Unlock()
		if all {
			return
		}
		select {
		case <-news:
		case <-late:
			return
		}
	}
}

func (p *Pinger) one(i int) {
	kind := byte(echoRequest6)
	if p.v4 {
		kind = echoRequest4
	}
	b := p.message(i, kind)
	if p.v4 {
		checksum(b)
	}
	p.mu.Lock()
	p.echoes = append(p.echoes, echo{at: time.Now()})
	p.mu.Unlock()
	var err error
	e := p.conn.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, p.to)
		return true
	})
	if err = errors.Join(e, err); err != nil {
		p.mu.Lock()
		p.err = err
		p.kept++
		p.mu.Unlock()
	}
}

func (p *Pinger) receive() {
	b := make([]byte, 1<<16)
	for {
		n, err := p.f.Read(b)
		now := time.Now()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil {
			p.answer(b[:n], now)
		}
	}
}

func (p *Pinger) answer(b []byte, now time.Time) {
	kind := byte(echoReply6)
	if p.v4 { // the message follows the IP header
		kind = echoReply4
		if len(b) == 0 || len(b) < int(b[0]&15)*4 {
			return
		}
		b = b[int(b[0]&15)*4:]
	}
	if len(b) < 16 {
		return
	}
	i := int(binary.BigEndian.Uint32(b[12:]))
	b[2], b[3] = 0, 0 // the kernel has checked it
	if !bytes.Equal(b, p.message(i, kind)) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= len(p.echoes) || p.echoes[i].answered {
		return
	}
	p.echoes[i].answered, p.echoes[i].rtt = true, now.Sub(p.echoes[i].at)
	p.got++
	p.latest = max(p.latest, i)
	close(p.news)
	p.news = make(chan struct{})
}

// Answered waits for the answer to an echo sent after the call, and reports whether it
// came in time.
func (p *Pinger) Answered(within time.Duration) bool {
	p.mu.Lock()
	next := len(p.echoes)
	p.mu.Unlock()
	return p.answeredFrom(next, within)
}

func (p *Pinger) answeredFrom(next int, within time.Duration) bool {
	late := time.After(within)
	for {
		p.mu.Lock()
		ok, news := p.latest >= next, p.news
		p.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-news:
		case <-late:
			return false
		case <-p.done:
			return false
		}
	}
}

// Stop ends the sending, waits for late answers, and returns the result.
func (p *Pinger) Stop() Result {
	p.stop()
	return p.Wait()
}

// Wait waits until Count echoes are sent and for late answers, and returns the result.
func (p *Pinger) Wait() Result {
	<-p.done
	return p.Result()
}

// Result returns the result so far. An echo that is on its way counts as lost.
func (p *Pinger) Result() Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := Result{Sent: len(p.echoes), Received: p.got, Err: p.err}
	var since time.Time // the start of a run of lost echoes
	for i, e := range p.echoes {
		if e.answered {
			r.RTTs = append(r.RTTs, e.rtt)
		} else {
			r.LostAt = append(r.LostAt, e.at)
			if since.IsZero() {
				since = e.at
			}
		}
		if since.IsZero() {
			continue
		}
		end := e.at
		if i == len(p.echoes)-1 && !e.answered {
			end = end.Add(p.c.Every)
		}
		r.Gap = max(r.Gap, end.Sub(since))
		if e.answered {
			since = time.Time{}
		}
	}
	return r
}

// Reaches sends echoes until the first answer, and reports whether it came in time.
func Reaches(addr string, within time.Duration) (bool, error) {
	p, err := Start(addr, Config{Every: 50 * time.Millisecond, Wait: 1})
	if err != nil {
		return false, err
	}
	defer p.Stop()
	return p.answeredFrom(0, within), nil
}
