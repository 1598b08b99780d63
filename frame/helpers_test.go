package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
)

// The encodings below are written out once more, so that the tests do not
// take the package's own encoder as their measure.

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

// unhex reads bytes as the package comment writes them, with spaces.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// big returns v, big-endian, in the last size bytes of eight.
func big(v uint64, size int) []byte { return binary.BigEndian.AppendUint64(nil, v)[8-size:] }

// binN is a bin whose length has size bytes: 1, 2 or 4.
func binN(p []byte, size int) []byte {
	c := map[int]byte{1: 0xc4, 2: 0xc5, 4: 0xc6}[size]
	return cat([]byte{c}, big(uint64(len(p)), size), p)
}

// uintN is an unsigned integer of size bytes; 0 is a positive fixint.
func uintN(v uint64, size int) []byte {
	if size == 0 {
		return []byte{byte(v)}
	}
	c := map[int]byte{1: 0xcc, 2: 0xcd, 4: 0xce, 8: 0xcf}[size]
	return cat([]byte{c}, big(v, size))
}

// intN is a signed integer of size bytes.
func intN(v int64, size int) []byte {
	c := map[int]byte{1: 0xd0, 2: 0xd1, 4: 0xd2, 8: 0xd3}[size]
	return cat([]byte{c}, big(uint64(v), size))
}

// arrayN is the head of an array whose length has size bytes; 0 is a fixarray.
func arrayN(n, size int) []byte {
	switch size {
	case 0:
		return []byte{0x90 | byte(n)}
	case 2:
		return cat([]byte{0xdc}, big(uint64(n), 2))
	}
	return cat([]byte{0xdd}, big(uint64(n), 4))
}

func str(s string) []byte { return cat([]byte{0xa0 | byte(len(s))}, []byte(s)) }

var null = []byte{0xc0}

// canon is a frame in the canonical encoding.
func canon(time uint64, offload, frame []byte) []byte {
	o := null
	if offload != nil {
		o = binN(offload, 1)
	}
	return cat(arrayN(3, 0), uintN(time, 8), o, binN(frame, 4))
}

// short is the same frame as other encoders write it.
func short(time uint64, offload, frame []byte) []byte {
	size := 8
	for _, s := range []int{4, 2, 1} {
		if time < 1<<(8*s) {
			size = s
		}
	}
	if time < 0x80 {
		size = 0
	}
	o, l := null, 4
	if offload != nil {
		o = binN(offload, 1)
	}
	if len(frame) < 1<<16 {
		l = 2
	}
	if len(frame) < 1<<8 {
		l = 1
	}
	return cat(arrayN(3, 0), uintN(time, size), o, binN(frame, l))
}

// header is the annotation a stream from a device begins with.
func header(version []byte, link string) []byte {
	return cat([]byte{0x84}, str("format"), str("frames"), str("version"), version, str("link"), str(link), str("source"), str("tap0"))
}

// nested is an array in an array and so on, depth in all, and 1 in the last.
func nested(depth int) []byte { return append(bytes.Repeat([]byte{0x91}, depth), 1) }

var (
	vnet = unhex("01 01 36 00 a8 05 22 00 10 00") // as for a TCP super-frame
	arp  = cat(bytes.Repeat([]byte{0xff}, 6), unhex("02 00 00 00 00 01 08 06 00 01 08 00 06 04 00 01 02 00 00 00 00 01 0a 00 00 01 00 00 00 00 00 00 0a 00 00 02"))
	ts   = uint64(1700000000000000123)
)

// value is a copy of a Record, to be kept and compared.
type value struct {
	Time       uint64
	Offload    string // of the bytes; nil is "-"
	Frame      string
	Extra      string
	Extras     int
	Annotation bool
	Raw        string
	Offset     int64
}

func (v value) String() string {
	return fmt.Sprintf("{time %d, offload %.40x, frame %d:%.40x, %d additions %d:%.40x, annotation %v, raw %d:%.40x, at %d}",
		v.Time, v.Offload, len(v.Frame), v.Frame, v.Extras, len(v.Extra), v.Extra, v.Annotation, len(v.Raw), v.Raw, v.Offset)
}

func keep(r *Record) value {
	v := value{r.Time, "-", string(r.Frame), string(r.Extra), r.Extras, r.IsAnnotation(), string(r.Raw()), r.Offset()}
	if r.Offload != nil {
		v.Offload = string(r.Offload)
	}
	return v
}

// framed is what the Reader should make of a frame without additions.
func framed(time uint64, offload, frame []byte) value {
	v := value{Time: time, Offload: "-", Frame: string(frame)}
	if offload != nil {
		v.Offload = string(offload)
	}
	return v
}

// failer is what testing.T and rapid.T have in common.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
}

// readAll reads to the error, nil instead of io.EOF, and checks what holds of
// every stream: values stand end to end, their Room is what it says, and an
// error comes again.
func readAll(t failer, r *Reader) ([]value, error) {
	t.Helper()
	var all []value
	var rec Record
	offset := r.Offset()
	for {
		err := r.Next(&rec)
		if err != nil {
			if again := r.Next(&rec); again != err {
				t.Errorf("the error was %v and then %v", err, again)
			}
			if r.Offset() != offset {
				t.Errorf("after the error the offset is %d, the values end at %d", r.Offset(), offset)
			}
			if len(r.buf) > Headroom+MaxValue+readSize {
				t.Errorf("the Reader holds %d bytes", len(r.buf))
			}
			if err == io.EOF {
				err = nil
			}
			return all, err
		}
		v := keep(&rec)
		if v.Offset != offset {
			t.Errorf("value %d: its offset is %d, the one before ended at %d", len(all), v.Offset, offset)
		}
		offset += int64(len(v.Raw))
		if room := rec.Room(); rec.IsAnnotation() != (room == nil) {
			t.Errorf("value %d: Room is %d bytes, annotation: %v", len(all), len(room), rec.IsAnnotation())
		} else if room != nil && !bytes.Equal(room[Headroom:], rec.Frame) {
			t.Errorf("value %d: the room does not end with the frame", len(all))
		}
		all = append(all, v)
	}
}

// small is a Reader with so little memory that it must move and grow it often.
func small(src io.Reader) *Reader {
	r := NewReader(src)
	r.buf = make([]byte, Headroom+48)
	return r
}

// chunked delivers what it has in chunks of random sizes, at most max bytes.
type chunked struct {
	b   []byte
	max int
	rng *rand.Rand
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1+c.rng.IntN(c.max))], c.b)
	c.b = c.b[n:]
	return n, nil
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }
