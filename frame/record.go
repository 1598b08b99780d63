package frame

import "encoding/binary"

// The limits and sizes of the format.
const (
	MaxFrame    = 1 << 20           // bytes of a frame
	MaxValue    = MaxFrame + 64<<10 // bytes of an encoded value, additions included
	MaxDepth    = 32                // levels of nested arrays and maps
	OffloadSize = 10                // bytes of a virtio_net_hdr

	HeadSize        = 16 // canonical head of a frame without offload
	HeadSizeOffload = 27 // and of a frame with offload
)

// Headroom is the number of bytes in front of a Record's Frame that may be
// overwritten after the Record has been handled: they hold its own head or values
// before it. A header can be put there, to write it and the frame in one call.
const Headroom = 16

// Record is a value of the stream: a frame, or an annotation.
//
// Its slices point into the Reader's memory. They are valid until the next call
// of Next or Fill, which may read from the source.
type Record struct {
	Time    uint64 // nanoseconds since the Unix epoch
	Offload []byte // nil, or OffloadSize bytes: a struct virtio_net_hdr
	Frame   []byte // never nil in a frame, nil in an annotation
	Extra   []byte // the elements after the third, encoded

	// Extras is the number of elements in Extra.
	Extras int

	src        *Reader // owns the memory, nil for a record made by hand
	start, end int     // offsets in src.buf of the value
	at         int     // offset in src.buf of Frame
	header     bool
}

// IsAnnotation reports whether the value is a map and not a frame.
func (r *Record) IsAnnotation() bool { return r.Frame == nil }

// IsHeader reports whether the value is the header of a stream. Each of several
// concatenated streams has its own.
func (r *Record) IsHeader() bool { return r.IsAnnotation() && r.header }

// Raw returns the value as encoded in the stream, or nil if it did not come from
// a Reader. It shares memory with Frame and Offload: changes to their bytes are
// visible in it.
func (r *Record) Raw() []byte {
	if r.src == nil {
		return nil
	}
	return r.src.buf[r.start:r.end:r.end]
}

// Offset returns the offset of the value in the stream. The record must come from
// a Reader and still be valid.
func (r *Record) Offset() int64 {
	if r.src == nil {
		return 0
	}
	return r.src.offset - int64(r.src.r-r.start)
}

// Room returns Frame with Headroom bytes in front of it, or nil if the record did
// not come from a Reader. The bytes in front may be overwritten once Offload and
// Raw are no longer needed.
func (r *Record) Room() []byte {
	if r.src == nil || r.Frame == nil {
		return nil
	}
	end := r.at + len(r.Frame)
	return r.src.buf[r.at-Headroom : end : end]
}

// Append appends the frame's encoding to b: the canonical one if the record
// has no additions, and otherwise the same in a longer array. It ignores Raw.
func (r *Record) Append(b []byte) []byte {
	var head [HeadSizeOffload]byte
	size := PutHead(head[:], r.Time, r.Offload, len(r.Frame))
	if n := 3 + r.Extras; n <= 15 {
		b = append(b, 0x90|byte(n))
	} else {
		b = binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(n))
	}
	b = append(b, head[1:size]...)
	b = append(b, r.Frame...)
	return append(b, r.Extra...)
}

// PutHead writes the canonical head of a frame to the start of b, where the frame
// follows it. It returns the size of the head: HeadSize without offload,
// HeadSizeOffload with. The offload may lie anywhere in b.
func PutHead(b []byte, time uint64, offload []byte, length int) int {
	n := HeadSize
	if offload != nil {
		copy(b[12:22], offload[:OffloadSize]) // first: the length may overwrite it
		b[10], b[11] = 0xc4, OffloadSize
		n = HeadSizeOffload
	} else {
		b[10] = 0xc0
	}
	b[0], b[1] = 0x93, 0xcf
	binary.BigEndian.PutUint64(b[2:], time)
	b[n-5] = 0xc6
	binary.BigEndian.PutUint32(b[n-4:], uint32(length))
	return n
}

// canonical parses the canonical head at the start of b without the msgpack
// library, as it runs for every frame (5 ns; the library takes 170 to 380). It
// returns the sizes of the head and of the frame. head is 0 if b does not begin
// with a whole canonical head.
func canonical(b []byte, rec *Record) (head int, length uint32) {
	if len(b) < HeadSize || b[0] != 0x93 || b[1] != 0xcf {
		return 0, 0
	}
	rec.Time = binary.BigEndian.Uint64(b[2:])
	switch {
	case b[10] == 0xc0 && b[11] == 0xc6:
		rec.Offload = nil
		return HeadSize, binary.BigEndian.Uint32(b[12:])
	case b[10] == 0xc4 && b[11] == OffloadSize && len(b) >= HeadSizeOffload && b[22] == 0xc6:
		rec.Offload = b[12:22:22]
		return HeadSizeOffload, binary.BigEndian.Uint32(b[23:])
	}
	return 0, 0
}
