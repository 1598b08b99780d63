package offload

import (
	"encoding/binary"
	"math/bits"
)

// Sum adds the 16-bit words of b, big-endian, to a sum that is not folded yet
// (RFC 1071). An odd byte at the end counts as if a zero followed.
//
// It adds eight bytes at a time with the carry put back in, which RFC 1071
// shows to be the same: 2^16 is 1 in this arithmetic, and so is 2^64.
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

// Fold makes 16 bits of a sum.
func Fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// pseudo sums the pseudo-header but for its length: a number that more can be added to.
func pseudo(addrs []byte, proto uint8) uint64 { return uint64(Fold(Sum(addrs, uint64(proto)))) }
