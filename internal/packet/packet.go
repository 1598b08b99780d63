package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

type Link uint8

const (
	Ethernet Link = iota
	IP
)

func ParseLink(s string) (Link, error) {
	switch s {
	case "ethernet":
		return Ethernet, nil
	case "ip":
		return IP, nil
	}
	return 0, errors.New("unknown link")
}

type Layers struct {
	L2Len       int
	EtherType   uint16
	L3, L4, End int
	Version     uint8
	Proto       uint8
	Fragment    bool
}

func Dissect(f []byte, link Link) (l Layers) {
	if link == Ethernet {
		if len(f) < 14 {
			return
		}
		l.EtherType = binary.BigEndian.Uint16(f[12:])
		l.L2Len = 14
	} else if len(f) > 0 {
		l.EtherType = 0x0800
		if f[0]>>4 == 6 {
			l.EtherType = 0x86dd
		}
	}
	p := f[l.L2Len:]
	switch {
	case l.EtherType == 0x0800 && len(p) >= 20:
		l.Version = 4
		l.L3 = l.L2Len
		l.Proto = p[9]
		l.L4 = l.L3 + int(p[0]&15)*4
		l.End = min(len(f), l.L3+int(binary.BigEndian.Uint16(p[2:])))
	case l.EtherType == 0x86dd && len(p) >= 40:
		l.Version = 6
		l.L3 = l.L2Len
		l.Proto = p[6]
		l.L4 = l.L3 + 40
		l.End = min(len(f), l.L3+40+int(binary.BigEndian.Uint16(p[4:])))
	}
	return
}

func (l *Layers) Control(f []byte) bool {
	return l.Version == 0 || l.Version == 6 && l.Proto == 58 && l.L4 < len(f) && f[l.L4] >= 133 && f[l.L4] <= 137
}

func (l *Layers) Flow(f []byte, seed uint64) uint64 {
	h := seed
	if l.Version == 4 {
		h ^= binary.BigEndian.Uint64(f[l.L3+12:])
		h *= 0x9e3779b97f4a7c15
		if (l.Proto == 6 || l.Proto == 17) && l.L4+4 <= len(f) {
			h ^= uint64(binary.BigEndian.Uint32(f[l.L4:]))
		}
		h ^= uint64(l.Proto) << 40
		h *= 0x9e3779b97f4a7c15
	}
	return h >> 32
}

func (l *Layers) Addrs(f []byte) (src, dst netip.Addr, ok bool) { return }
func (l *Layers) ECT(f []byte) bool                             { return false }
func (l *Layers) SetCE(f []byte) bool                           { return false }
