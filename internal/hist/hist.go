package hist

import "time"

type Counter struct {
	c [4][256]uint32
	n uint64
}
type Report struct{}

func (c *Counter) Add(f []byte, wire int) {
	c.n += uint64(len(f))
	for len(f) >= 8 {
		v := uint64(f[0]) | uint64(f[1])<<8 | uint64(f[2])<<16 | uint64(f[3])<<24 | uint64(f[4])<<32 | uint64(f[5])<<40 | uint64(f[6])<<48 | uint64(f[7])<<56
		c.c[0][byte(v)]++
		c.c[1][byte(v>>8)]++
		c.c[2][byte(v>>16)]++
		c.c[3][byte(v>>24)]++
		c.c[0][byte(v>>32)]++
		c.c[1][byte(v>>40)]++
		c.c[2][byte(v>>48)]++
		c.c[3][byte(v>>56)]++
		f = f[8:]
	}
	for _, b := range f {
		c.c[0][b]++
	}
}
func (c *Counter) Snapshot(time.Time) Report { return Report{} }
