package frame

import "fmt"

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
	left  [MaxDepth + 1]int // values still to come at each level
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
		e, ok := parse(b[s.pos:])
		if !ok {
			return false, nil
		}
		if e.kind == nothing {
			return false, fmt.Errorf("found byte 0x%02x, which msgpack never uses", b[s.pos])
		}
		if e.size > MaxValue-s.pos || e.children > MaxValue {
			return false, errTooLong
		}
		if len(b)-s.pos < e.size {
			return false, nil
		}
		s.pos += e.size
		s.left[s.depth]--
		if e.children > 0 {
			if s.depth == MaxDepth {
				return false, fmt.Errorf("values are nested more than %d deep", MaxDepth)
			}
			s.depth++
			s.left[s.depth] = e.children
		}
	}
}

func (s *scanner) reset() { s.pos, s.depth = 0, 0 }

// kind is the kind of a value.
type kind uint8

const (
	nothing kind = iota
	aNil
	aBool
	anUnsigned
	aSigned
	aFloat
	aString
	aBin
	anArray
	aMap
	anExt
)

func (k kind) String() string {
	return [...]string{"no value", "nil", "a boolean", "an unsigned integer", "a signed integer",
		"a float", "a string", "a bin", "an array", "a map", "an extension"}[k]
}

// forms are the forms of values by their first byte, from 0xc0 to 0xdf: the bytes of the
// length that follows, and the bytes beside what that counts.
var forms = [...]struct {
	kind          kind
	length, fixed int
}{
	{aNil, 0, 0}, {nothing, 0, 0}, {aBool, 0, 0}, {aBool, 0, 0},
	{aBin, 1, 0}, {aBin, 2, 0}, {aBin, 4, 0},
	{anExt, 1, 1}, {anExt, 2, 1}, {anExt, 4, 1},
	{aFloat, 0, 4}, {aFloat, 0, 8},
	{anUnsigned, 0, 1}, {anUnsigned, 0, 2}, {anUnsigned, 0, 4}, {anUnsigned, 0, 8},
	{aSigned, 0, 1}, {aSigned, 0, 2}, {aSigned, 0, 4}, {aSigned, 0, 8},
	{anExt, 0, 2}, {anExt, 0, 3}, {anExt, 0, 5}, {anExt, 0, 9}, {anExt, 0, 17},
	{aString, 1, 0}, {aString, 2, 0}, {aString, 4, 0},
	{anArray, 2, 0}, {anArray, 4, 0}, {aMap, 2, 0}, {aMap, 4, 0},
}

// element is a value without its children.
type element struct {
	kind     kind
	head     int // bytes in front of its content: none if the first byte is the value
	size     int // bytes with the content
	children int // length of an array, or twice that of a map
}

// parse parses the head of the value at the start of b. ok is false if b is too short to
// tell more than the kind.
func parse(b []byte) (e element, ok bool) {
	if len(b) == 0 {
		return e, false
	}
	switch c := int(b[0]); {
	case c <= 0x7f:
		return element{kind: anUnsigned, size: 1}, true
	case c <= 0x8f:
		return element{kind: aMap, size: 1, children: 2 * (c & 0xf)}, true
	case c <= 0x9f:
		return element{kind: anArray, size: 1, children: c & 0xf}, true
	case c <= 0xbf:
		return element{kind: aString, head: 1, size: 1 + c&0x1f}, true
	case c >= 0xe0:
		return element{kind: aSigned, size: 1}, true
	}
	form := &forms[b[0]-0xc0]
	e = element{kind: form.kind, head: 1 + form.length, size: 1 + form.length + form.fixed}
	if len(b) < e.head {
		return e, false
	}
	n := uint32(0)
	for _, c := range b[1:e.head] {
		n = n<<8 | uint32(c)
	}
	count := int(min(n, 2*MaxValue)) // over the limit, and twice of it is an int of 32 bits
	switch form.kind {
	case anArray:
		e.children = count
	case aMap:
		e.children = 2 * count
	default:
		e.size += count
	}
	return e, true
}

// foreign decodes a whole value b, an array or a map, in any encoding. It sets rec.at
// relative to b.
func foreign(b []byte, rec *Record) error {
	*rec = Record{}
	e, _ := parse(b)
	if e.kind == aMap {
		return nil
	}
	if e.children < 3 {
		return fmt.Errorf("found an array of %d, want 3 elements or more", e.children)
	}
	pos, count := e.size, e.children
	next := func() (kind, []byte) {
		e, _ := parse(b[pos:])
		content := b[pos+e.head : pos+e.size : pos+e.size]
		pos += e.size
		return e.kind, content
	}
	kind, time := next()
	if kind != anUnsigned && (kind != aSigned || time[0] >= 0x80) {
		return fmt.Errorf("the time is %s, want an unsigned integer", kind)
	}
	kind, offload := next()
	switch {
	case kind == aNil:
		offload = nil
	case kind != aBin:
		return fmt.Errorf("the offload header is %s, want nil or a bin of %d bytes", kind, OffloadSize)
	case len(offload) != OffloadSize:
		return fmt.Errorf("the offload header has %d bytes, want %d", len(offload), OffloadSize)
	}
	kind, frame := next()
	if kind != aBin {
		return fmt.Errorf("the frame is %s, want a bin", kind)
	}
	if len(frame) > MaxFrame {
		return tooLong(uint32(len(frame)))
	}
	for _, c := range time {
		rec.Time = rec.Time<<8 | uint64(c)
	}
	rec.Offload, rec.Frame, rec.at = offload, frame, pos-len(frame)
	if count > 3 {
		rec.Extra, rec.Extras = b[pos:], count-3
	}
	return nil
}

func tooLong(n uint32) error {
	return fmt.Errorf("the frame claims %d bytes, the most is %d", n, MaxFrame)
}
