// Package frame reads and writes streams of network frames, the format in
// which the stages of a pipeline pass frames to each other.
//
// # The stream
//
// A stream is a concatenation of msgpack values
// (https://github.com/msgpack/msgpack/blob/master/spec.md) with nothing before,
// between or after them. The concatenation of two streams is a stream.
// A value is a frame, which is an array, or an annotation, which is a map.
//
// A frame is an array of three elements or more:
//
//		[time, offload, frame, ...]
//
//	  - time: an unsigned integer, the nanoseconds since the Unix epoch at which
//	    the frame left its device.
//	  - offload: nil; or a bin of 10 bytes, the struct virtio_net_hdr that the
//	    kernel passed with the frame, little-endian (include/uapi/linux/virtio_net.h):
//	    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset. It says that
//	    the checksum is unfinished, or that the frame is a TCP or UDP
//	    super-frame to be cut into segments of gso_size bytes.
//	  - frame: a bin, the Ethernet frame from its destination address on, without
//	    the frame check sequence; an IP packet if the stream's link is "ip".
//	  - Further elements are additions by other programs. Pass them on unchanged.
//
// An annotation is a map with string keys. A stream that comes from a device
// begins with
//
//	{"format": "frames", "version": 1, "link": "ethernet", "source": "tap0"}
//
// where link is "ethernet" or "ip". A stream without a header is Ethernet. Stages
// pass on unknown annotations, in their place between the frames.
//
// # Canonical encoding
//
// Any msgpack encoding of these values is valid, and Reader accepts them all.
// Writer uses one encoding for frames without additions, so that the head of a
// frame has a fixed size and its fields have fixed offsets. Without offload the
// head is 16 bytes,
//
//	93                        array of 3
//	cf tt tt tt tt tt tt tt tt   time, uint 64, big-endian
//	c0                        nil
//	c6 ll ll ll ll            bin 32: the length of the frame, big-endian
//	...                       the frame
//
// and with offload 27:
//
//	93
//	cf tt tt tt tt tt tt tt tt
//	c4 0a hh hh hh hh hh hh hh hh hh hh   bin 8 of 10 bytes
//	c6 ll ll ll ll
//	...
//
// An ARP request of 42 bytes that left its device at 1700000000.000000123
// seconds is encoded as
//
//	93 cf 17 97 9c fe 36 2a 00 7b c0 c6 00 00 00 2a ff ff ff ff ff ff ...
//
// # Limits and errors
//
// A frame is at most MaxFrame bytes (1 MiB), a whole value, with its additions,
// at most MaxValue (64 KiB more), and values are nested at most MaxDepth deep.
// A stream is untrusted input: Reader refuses a length over the limit before it
// allocates memory for the value, so that it never holds more than one value of
// the largest size. Reader does not check the offload header against the frame;
// its caller must.
//
// The input may end between values. If it ends inside a value, or if a value is
// neither a frame nor an annotation, Reader returns an error with the value's
// offset in the stream and its cause. All complete values before the error have
// been delivered by then.
//
// # Writing a stage
//
// Run is the loop of a stage. It calls a function for each frame and writes the
// frames that the function passes on: see the example. It reads and writes in
// large batches, and does not copy unchanged frames.
//
// The files in testdata/vectors are streams with their decoded values, as test
// vectors for implementations in other languages.
package frame
