package offload

import (
	"encoding/binary"
	"math/bits"

	"framepipe/internal/packet"
)

// Sum adds the big-endian 16-bit words of b to an unfolded sum (RFC 1071). It pads
// an odd byte at the end with a zero.
//
// It adds eight bytes at a time with end-around carry. The result is the same
// (RFC 1071): in this arithmetic 2^16 is 1, and so is 2^64.
func Sum(b []byte, sum uint64) uint64 {
	var carry uint64
	for len(b) >= 32 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[24:]), carry)
		sum, carry = bits.Add64(sum, carry, 0)
		sum += carry
		b = b[32:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum += carry
		b = b[8:]
	}
	var rest [8]byte
	copy(rest[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(rest[:]), 0)
	return sum + carry
}

// Fold folds a sum to 16 bits.
func Fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// pseudo sums the pseudo-header of a packet without its length. The result can be passed
// to Sum.
func pseudo(f []byte, l *packet.Layers) uint64 {
	addrs := f[l.L3+12 : l.L3+20]
	if l.Version == 6 {
		addrs = f[l.L3+8 : l.L3+40]
	}
	return uint64(Fold(Sum(addrs, uint64(l.Proto))))
}
