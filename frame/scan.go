package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FormatError reports damage in a stream.
type FormatError struct {
	Offset int64  // of the value's first byte, from where the Reader began
	What   string // the damage, and often the value that was expected
	Err    error  // io.ErrUnexpectedEOF if the input ended inside the value
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("offset %d: %s", e.Offset, e.What)
}

// Unwrap returns Err.
func (e *FormatError) Unwrap() error { return e.Err }

var errTooLong = fmt.Errorf("a value claims more than the limit of %d bytes", MaxValue)

// scanner finds the end of a msgpack value in a growing buffer, without decoding
// the value. The library's raw values are no substitute: it allocates as much as a
// length claims and recurses as deep as the input says. The scanner keeps its
// position, so that a value that arrives byte by byte is scanned once.
type scanner struct {
	pos   int // bytes scanned
	depth int
	left  [MaxDepth + 1]uint64 // values still to come at each level
}

// scan continues over b, which begins with the value. If done, the value is
// b[:s.pos]; otherwise scan needs more of it.
func (s *scanner) scan(b []byte) (done bool, err error) {
	if s.pos == 0 && s.depth == 0 {
		s.left[0] = 1
	}
	for {
		for s.left[s.depth] == 0 {
			if s.depth == 0 {
				return true, nil
			}
			s.depth--
		}
		size, children, ok, err := element(b[s.pos:])
		if err != nil || !ok {
			return false, err
		}
		if size > MaxValue-s.pos || children > MaxValue {
			return false, errTooLong
		}
		if len(b)-s.pos < size {
			return false, nil
		}
		s.pos += size
		s.left[s.depth]--
		if children > 0 {
			if s.depth == MaxDepth {
				return false, fmt.Errorf("values are nested more than %d deep", MaxDepth)
			}
			s.depth++
			s.left[s.depth] = uint64(children)
		}
	}
}

func (s *scanner) reset() { s.pos, s.depth = 0, 0 }

// element parses the head of the value at the start of b. size is the number of
// its bytes without its children. children is the length of an array, or twice the
// length of a map. ok is false if b is too short to tell.
func element(b []byte) (size, children int, ok bool, err error) {
	if len(b) == 0 {
		return 0, 0, false, nil
	}
	// length reads a big-endian number of n bytes after the first byte. It caps
	// values over the limit, so that doubling one cannot overflow an int.
	length := func(n int) (int, bool) {
		if len(b) < 1+n {
			return 0, false
		}
		v := uint32(0)
		for _, c := range b[1 : 1+n] {
			v = v<<8 | uint32(c)
		}
		return int(min(v, 2*MaxValue)), true
	}
	c := b[0]
	switch {
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // fixint, nil, bool
		return 1, 0, true, nil
	case c <= 0x8f:
		return 1, 2 * int(c&0xf), true, nil
	case c <= 0x9f:
		return 1, int(c & 0xf), true, nil
	case c <= 0xbf:
		return 1 + int(c&0x1f), 0, true, nil
	}
	switch c {
	case 0xc4, 0xc5, 0xc6: // bin
		w := 1 << (c - 0xc4)
		n, ok := length(w)
		return 1 + w + n, 0, ok, nil
	case 0xc7, 0xc8, 0xc9: // ext
		w := 1 << (c - 0xc7)
		n, ok := length(w)
		return 2 + w + n, 0, ok, nil
	case 0xca: // float
		return 5, 0, true, nil
	case 0xcb:
		return 9, 0, true, nil
	case 0xcc, 0xcd, 0xce, 0xcf: // uint
		return 1 + 1<<(c-0xcc), 0, true, nil
	case 0xd0, 0xd1, 0xd2, 0xd3: // int
		return 1 + 1<<(c-0xd0), 0, true, nil
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8: // fixext
		return 2 + 1<<(c-0xd4), 0, true, nil
	case 0xd9, 0xda, 0xdb: // str
		w := 1 << (c - 0xd9)
		n, ok := length(w)
		return 1 + w + n, 0, ok, nil
	case 0xdc, 0xdd: // array
		w := 2 << (c - 0xdc)
		n, ok := length(w)
		return 1 + w, n, ok, nil
	case 0xde, 0xdf: // map
		w := 2 << (c - 0xde)
		n, ok := length(w)
		return 1 + w, 2 * n, ok, nil
	}
	return 0, 0, false, errors.New("found byte 0xc1, which msgpack never uses")
}

// foreign decodes a whole value b in any encoding. It sets rec.at relative to b.
func foreign(b []byte, rec *Record) error {
	count, pos, ok := arrayHead(b)
	if !ok {
		if isMap(b[0]) {
			rec.Time, rec.Offload, rec.Frame = 0, nil, nil
			rec.Extra, rec.Extras = nil, 0
			return nil
		}
		return fmt.Errorf("found %s, want an array (a frame) or a map (an annotation)", name(b[0]))
	}
	if count < 3 {
		return fmt.Errorf("found an array of %d, want 3 elements or more", count)
	}
	t, n, ok := unsigned(b[pos:])
	if !ok {
		return fmt.Errorf("the time is %s, want an unsigned integer", name(b[pos]))
	}
	pos += n
	var offload []byte
	if b[pos] == 0xc0 {
		pos++
	} else if h, n, ok := bin(b[pos:]); ok && len(h) == OffloadSize {
		offload = h
		pos += n
	} else if ok {
		return fmt.Errorf("the offload header has %d bytes, want %d", len(h), OffloadSize)
	} else {
		return fmt.Errorf("the offload header is %s, want nil or a bin of %d bytes", name(b[pos]), OffloadSize)
	}
	f, n, ok := bin(b[pos:])
	if !ok {
		return fmt.Errorf("the frame is %s, want a bin", name(b[pos]))
	}
	if len(f) > MaxFrame {
		return tooLong(uint32(len(f)))
	}
	pos += n
	rec.Time, rec.Offload, rec.Frame = t, offload, f
	rec.at = pos - len(f)
	rec.Extra, rec.Extras = nil, 0
	if count > 3 {
		rec.Extra, rec.Extras = b[pos:], count-3
	}
	return nil
}

func tooLong(n uint32) error {
	return fmt.Errorf("the frame claims %d bytes, the most is %d", n, MaxFrame)
}

func isMap(c byte) bool { return c&0xf0 == 0x80 || c == 0xde || c == 0xdf }

func arrayHead(b []byte) (count, size int, ok bool) {
	switch c := b[0]; {
	case c&0xf0 == 0x90:
		return int(c & 0xf), 1, true
	case c == 0xdc && len(b) >= 3:
		return int(binary.BigEndian.Uint16(b[1:])), 3, true
	case c == 0xdd && len(b) >= 5:
		return int(binary.BigEndian.Uint32(b[1:])), 5, true
	}
	return 0, 0, false
}

// unsigned reads a non-negative integer in any of its encodings.
func unsigned(b []byte) (v uint64, size int, ok bool) {
	c := b[0]
	if c <= 0x7f {
		return uint64(c), 1, true
	}
	if c < 0xcc || c > 0xd3 {
		return 0, 0, false
	}
	size = 1 + 1<<((c-0xcc)&3)
	for _, d := range b[1:size] {
		v = v<<8 | uint64(d)
	}
	if c >= 0xd0 && b[1] >= 0x80 {
		return 0, 0, false // negative
	}
	return v, size, true
}

// bin reads a bin in any of its encodings. v is never nil if ok.
func bin(b []byte) (v []byte, size int, ok bool) {
	switch b[0] {
	case 0xc4:
		n := 2 + int(b[1])
		return b[2:n:n], n, true
	case 0xc5:
		n := 3 + int(binary.BigEndian.Uint16(b[1:]))
		return b[3:n:n], n, true
	case 0xc6:
		n := 5 + int(binary.BigEndian.Uint32(b[1:]))
		return b[5:n:n], n, true
	}
	return nil, 0, false
}

// name returns the kind of value that begins with c.
func name(c byte) string {
	switch {
	case c <= 0x7f, c >= 0xcc && c <= 0xcf:
		return "an unsigned integer"
	case isMap(c):
		return "a map"
	case c&0xf0 == 0x90, c == 0xdc, c == 0xdd:
		return "an array"
	case c&0xe0 == 0xa0, c >= 0xd9 && c <= 0xdb:
		return "a string"
	case c == 0xc0:
		return "nil"
	case c == 0xc2, c == 0xc3:
		return "a boolean"
	case c >= 0xc4 && c <= 0xc6:
		return "a bin"
	case c >= 0xca && c <= 0xcb:
		return "a float"
	case c >= 0xd0 && c <= 0xd3, c >= 0xe0:
		return "a signed integer"
	}
	return "an extension"
}

// ended is the error for an input that ends inside a value.
func ended(offset int64, have, want int) error {
	what := fmt.Sprintf("the input ends %d bytes into a value", have)
	if want > have {
		what = fmt.Sprintf("the input ends inside a frame, after %d of %d bytes", have, want)
	}
	return &FormatError{Offset: offset, What: what, Err: io.ErrUnexpectedEOF}
}
