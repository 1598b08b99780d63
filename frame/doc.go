// Package frame reads and writes streams of network frames: the format that
// the stages of a pipeline pass from one to the next.
//
// # The stream
//
// A stream is a concatenation of msgpack values
// (https://github.com/msgpack/msgpack/blob/master/spec.md) with nothing before,
// between or after them. Putting one stream behind another gives a stream.
// A value is a frame, which is an array, or an annotation, which is a map.
//
// A frame is an array of three elements or more:
//
//		[time, offload, frame, ...]
//
//	  - time: an unsigned integer, the nanoseconds since the Unix epoch at which
//	    the frame left its device.
//	  - offload: nil; or a bin of 10 bytes, the struct virtio_net_hdr that the
//	    kernel gave with the frame, little-endian (include/uapi/linux/virtio_net.h):
//	    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset. It says that
//	    a checksum is still to be filled in, or that the frame is a TCP or UDP
//	    super-frame still to be cut into segments of gso_size bytes.
//	  - frame: a bin, the Ethernet frame from its destination address on, without
//	    the frame check sequence; an IP packet where the stream's link is "ip".
//	  - Further elements are somebody's additions. Carry them along unchanged.
//
// An annotation is a map with string keys. A stream that comes from a device
// begins with
//
//	{"format": "frames", "version": 1, "link": "ethernet", "source": "tap0"}
//
// where link is "ethernet" or "ip". A stream without it is Ethernet. Stages
// pass on annotations they do not know, where they stand between the frames.
//
// # Canonical encoding
//
// Any msgpack encoding of these values will do, and Reader takes them all.
// Writer uses one for frames without additions, so that the head of a frame is
// a fixed number of bytes and can be read at fixed places. Without offload it
// is 16 bytes,
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
// seconds stands in the stream as
//
//	93 cf 17 97 9c fe 36 2a 00 7b c0 c6 00 00 00 2a ff ff ff ff ff ff ...
//
// # Limits and errors
//
// A frame is at most MaxFrame bytes (1 MiB), a whole value, with its additions,
// at most MaxValue (64 KiB more), and values are nested at most MaxDepth deep.
// A stream is untrusted input: a length over the limit is refused when it is
// read, before memory is taken for what it announces, so that a Reader never
// holds more than one value of the largest size. What the offload header says
// of a frame is the reader's to check: a Record has it as it came.
//
// The input may end between values. If it ends inside one, or if something
// stands there that is neither a frame nor an annotation, that is an error,
// which names the offset in the stream at which the value begins and says what
// was found. What came whole before it has been delivered by then.
//
// # Writing a stage
//
// Run is the loop of a stage. It calls a function for each frame and passes on
// what that function passes on, in large reads and writes, without copying
// what stays as it is:
//
//	func main() {
//		err := frame.Run(os.Stdin, os.Stdout, func(r *frame.Record, w *frame.Writer) error {
//			if len(r.Frame) > 1000 {
//				return nil // drop it
//			}
//			return w.Pass(r)
//		})
//		if err != nil {
//			log.Fatal(err)
//		}
//	}
//
// The files in testdata/vectors are streams and what they mean, for
// implementations in other languages to be tested with.
package frame
