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

	"framepipe/internal/packettest"

	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

var (
	null = []byte{0xc0}
	vnet = unhex("01 01 36 00 a8 05 22 00 10 00") // as for a TCP super-frame
	arp  = packettest.ARP(2)
	ts   = uint64(1700000000000000123)
)

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

// unhex reads bytes as the package comment writes them, with spaces.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func bin(p []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0xc6}, uint32(len(p))), p...)
}

func str(s string) []byte { return append([]byte{0xa0 | byte(len(s))}, s...) }

// nested is an array in an array and so on, depth in all, and 1 in the last.
func nested(depth int) []byte { return append(bytes.Repeat([]byte{0x91}, depth), 1) }

// canon is a frame in the canonical encoding, written out once more: the package's own encoder
// is no measure for itself.
func canon(time uint64, offload, frame []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{0x93, 0xcf}, time)
	if offload == nil {
		return cat(b, null, bin(frame))
	}
	return cat(b, []byte{0xc4, byte(len(offload))}, offload, bin(frame))
}

// short is the same frame as other encoders write it.
func short(time uint64, offload, frame []byte) []byte {
	var b bytes.Buffer
	e := msgpack.NewEncoder(&b)
	_ = e.EncodeArrayLen(3)
	_ = e.EncodeUint(time)
	_ = e.EncodeBytes(offload)
	_ = e.EncodeBytesLen(len(frame))
	return append(b.Bytes(), frame...)
}

// added is a frame with n additions.
func added(n int, frame, extra []byte) []byte {
	return cat(binary.BigEndian.AppendUint32([]byte{0xdd}, uint32(3+n)), canon(ts, nil, frame)[1:], extra)
}

func pairs(keysAndValues ...[]byte) []byte {
	return cat([]byte{0x80 | byte(len(keysAndValues)/2)}, cat(keysAndValues...))
}

// frames is the header of a stream with more pairs.
func frames(version byte, more ...[]byte) []byte {
	return pairs(append([][]byte{str("format"), str("frames"), str("version"), {version}}, more...)...)
}

// header is the annotation a stream from a device begins with.
func header(version byte, link string) []byte {
	return frames(version, str("link"), str(link), str("source"), str("tap0"))
}

// drawValue draws one value of a stream, in an encoding of any kind.
func drawValue(t *rapid.T) []byte {
	large := rapid.SampledFrom([]int{255, 256, 511, 512, 513, 1514, 9000, 65535, 65536})
	size := rapid.OneOf(rapid.IntRange(0, 100), large).Draw(t, "size")
	frame := bytes.Repeat([]byte{byte(size)}, size)
	time := rapid.Uint64().Draw(t, "time")
	var offload []byte
	if rapid.Bool().Draw(t, "offload") {
		offload = vnet
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		return short(time, offload, frame)
	case 1:
		n := rapid.IntRange(1, 20).Draw(t, "extras")
		return added(n, frame, bytes.Repeat(unhex("92a0c3"), n))
	case 2:
		return header(1, rapid.SampledFrom([]string{LinkEthernet, LinkIP}).Draw(t, "link"))
	case 3:
		return pairs(str("k"), nested(3), str("l"), bin(frame))
	}
	return canon(time, offload, frame)
}

// drawStream draws a stream and, now and then, a fault at its end.
func drawStream(t *rapid.T) []byte {
	s := cat(rapid.SliceOfN(rapid.Custom(drawValue), 0, 12).Draw(t, "values")...)
	switch rapid.IntRange(0, 3).Draw(t, "fault") {
	case 0:
		return s[:rapid.IntRange(0, len(s)).Draw(t, "cut")]
	case 1:
		return append(s, rapid.SampledFrom([]string{
			"\xc1", "hello", "\x93\xc1", "\x92\x01\x02", "\x90", "\x93\x01\xc0\xa0", "\xdd\xff\xff\xff\xff",
			string(canon(ts, nil, nil)[:12]) + "\xff\xff\xff\xff",
			string(canon(ts, vnet, nil)[:23]) + "\x00\x10\x00\x01",
			string(nested(40)),
		}).Draw(t, "garbage")...)
	}
	return s
}

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
	return fmt.Sprintf("{time %d, offload %.40x, frame %d:%.40x, additions %d:%.40x, raw %d:%.40x at %d}",
		v.Time, v.Offload, len(v.Frame), v.Frame, v.Extras, v.Extra, len(v.Raw), v.Raw, v.Offset)
}

func keep(r *Record) value {
	offload := "-"
	if r.Offload != nil {
		offload = string(r.Offload)
	}
	return value{r.Time, offload, string(r.Frame), string(r.Extra), r.Extras, r.IsAnnotation(), string(r.Raw()), r.Offset()}
}

// failer is what testing.T and rapid.T have in common.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// readAll reads to the error, nil instead of io.EOF, and checks what holds of
// every stream: values stand end to end, their Room is what it says, and an
// error comes again.
func readAll(t failer, r *Reader) (all []value, err error) {
	t.Helper()
	var rec Record
	offset := r.Offset()
	for err = r.Next(&rec); err == nil; err = r.Next(&rec) {
		v := keep(&rec)
		if v.Offset != offset {
			t.Errorf("value %d: its offset is %d, the one before ended at %d", len(all), v.Offset, offset)
		}
		offset += int64(len(v.Raw))
		if room := rec.Room(); v.Annotation && room != nil || !v.Annotation && string(room[Headroom:]) != v.Frame {
			t.Errorf("value %d: its room is of %d bytes, and does not end with the frame", len(all), len(room))
		}
		all = append(all, v)
	}
	if again := r.Next(&rec); again != err {
		t.Errorf("the error was %v and then %v", err, again)
	}
	if r.Offset() != offset || len(r.buf) > Headroom+MaxValue+readSize {
		t.Errorf("at offset %d, want %d; the Reader holds %d bytes", r.Offset(), offset, len(r.buf))
	}
	if err == io.EOF {
		err = nil
	}
	return all, err
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

// reads is a source that returns these, one a Read.
type reads []struct {
	data []byte
	err  error
}

func (s *reads) Read(p []byte) (int, error) {
	x := (*s)[0]
	*s = (*s)[1:]
	return copy(p, x.data), x.err
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
