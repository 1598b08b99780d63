package frame

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

const vectorDir = "testdata/vectors"

// vector is what NAME.json says of NAME.frames; testdata/vectors/README.md
// explains it to the authors of other implementations.
type vector struct {
	About     string        `json:"about"`
	Canonical bool          `json:"canonical"`
	Link      string        `json:"link"`
	Values    []vectorValue `json:"values"`
	Error     *vectorError  `json:"error,omitempty"`
}

type vectorValue struct {
	Offset int64 `json:"offset"`
	*VectorFrame
	Annotation json.RawMessage `json:"annotation,omitempty"`
}

// VectorFrame has a capital for encoding/json, which embeds no other.
type VectorFrame struct {
	Time    string  `json:"time"`    // decimal: JSON's numbers are too short
	Offload *string `json:"offload"` // hex, like the next two
	Frame   string  `json:"frame"`
	Extra   string  `json:"extra,omitempty"`
	Extras  int     `json:"extras,omitempty"`
}

type vectorError struct {
	Offset    int64 `json:"offset"`
	Truncated bool  `json:"truncated"`
}

// builder puts a vector together: each part with its bytes and its meaning.
type builder struct {
	name  string
	bytes []byte
	vector
}

func vec(name, about string) *builder {
	return &builder{name: name, vector: vector{About: about, Link: LinkEthernet, Values: []vectorValue{}}}
}

func (b *builder) add(raw []byte, f *VectorFrame, annotation string) *builder {
	v := vectorValue{Offset: int64(len(b.bytes)), VectorFrame: f}
	if annotation != "" {
		v.Annotation = json.RawMessage(annotation)
	}
	b.Values = append(b.Values, v)
	b.bytes = append(b.bytes, raw...)
	return b
}

func (b *builder) frame(raw []byte, time uint64, offload, frame []byte) *builder {
	return b.additions(raw, time, offload, frame, nil, 0)
}

func (b *builder) additions(raw []byte, time uint64, offload, frame, extra []byte, extras int) *builder {
	f := &VectorFrame{Time: strconv.FormatUint(time, 10), Frame: hex.EncodeToString(frame), Extra: hex.EncodeToString(extra), Extras: extras}
	if offload != nil {
		h := hex.EncodeToString(offload)
		f.Offload = &h
	}
	return b.add(raw, f, "")
}

func (b *builder) canon(time uint64, offload, frame []byte) *builder {
	return b.frame(canon(time, offload, frame), time, offload, frame)
}

func (b *builder) isCanonical() *builder { b.Canonical = true; return b }

func (b *builder) annotation(raw []byte, json string) *builder { return b.add(raw, nil, json) }

func (b *builder) link(link string) *builder { b.Link = link; return b }

// fails ends the vector with a fault, cut with one where the input ends too
// early.
func (b *builder) fails(raw []byte) *builder {
	b.Error = &vectorError{Offset: int64(len(b.bytes))}
	b.bytes = append(b.bytes, raw...)
	return b
}

func (b *builder) cut(raw []byte) *builder {
	b.fails(raw).Error.Truncated = true
	return b
}

func vectors() []*builder {
	udp := cat(arp[:12], unhex("08 00 45 00 00 1c 00 00 40 00 40 11 66 cf 0a 00 00 01 0a 00 00 02 00 35 00 35 00 08 eb 72"))
	head := header(uintN(1, 0), LinkEthernet)
	const headJSON = `{"format": "frames", "version": 1, "link": "ethernet", "source": "tap0"}`
	small := []byte{1, 2, 3}
	array := func(n int, rest ...[]byte) []byte { return cat(append([][]byte{arrayN(n, 0)}, rest...)...) }
	one := func(name, about string, raw []byte, time uint64, offload, frame []byte) *builder {
		return vec(name, about).frame(raw, time, offload, frame)
	}
	after := func(name, about string) *builder { return vec(name, about).canon(ts, nil, arp) }

	widths := vec("time-widths", "the time in every encoding that holds it: fixint, uint 8 to 64, and int 8 to 64 where it is not negative")
	for _, size := range []int{0, 1, 2, 4, 8} {
		widths.frame(array(3, uintN(100, size), null, binN(small, 1)), 100, nil, small)
		if size > 0 {
			widths.frame(array(3, intN(100, size), null, binN(small, 1)), 100, nil, small)
			most := ^uint64(0) >> (64 - 8*size)
			widths.frame(array(3, uintN(most, size), null, binN(small, 1)), most, nil, small)
			widths.frame(array(3, intN(int64(most>>1), size), null, binN(small, 1)), most>>1, nil, small)
		}
	}
	bins := vec("bin-widths", "offload and frame in bin 8, bin 16 and bin 32")
	for _, o := range []int{1, 2, 4} {
		for _, f := range []int{1, 2, 4} {
			bins.frame(array(3, uintN(ts, 8), binN(vnet, o), binN(small, f)), ts, vnet, small)
		}
	}
	arrays := vec("array-widths", "the frame's array as fixarray, array 16 and array 32")
	for _, size := range []int{0, 2, 4} {
		arrays.frame(cat(arrayN(3, size), uintN(ts, 8), null, binN(small, 4)), ts, nil, small)
	}
	kinds := unhex("c0 c2 c3 7f e0 cc80 cd0100 ce00010000 cf0000000100000000 d080 d18000 d280000000 d38000000000000000 ca3fc00000 cb3ff8000000000000 a3616263 d903616263 da0003616263 db00000003616263 c40100 c5000100 c60000000100 d40500 d5050000 d60500000000 c7030500aabb 9101 dc000101 8100c0 de000100c0 90 80")
	const kindsCount = 32
	nils := func(n int) []byte { return bytes.Repeat(null, n) }

	return []*builder{
		vec("empty", "no bytes at all are a stream of no values"),
		vec("canonical", "an ARP request in the canonical encoding, which has a head of 16 bytes").isCanonical().canon(ts, nil, arp),
		vec("canonical-offload", "a frame whose UDP checksum is to be filled in, canonical: a head of 27 bytes").isCanonical().
			canon(ts, unhex("01 00 00 00 00 00 22 00 06 00"), udp),
		vec("empty-frame", "a frame of no bytes is a frame").isCanonical().canon(0, nil, nil).canon(ts, vnet, nil),
		vec("time-max", "the time goes to 2^64 - 1").isCanonical().canon(1<<63, nil, small).canon(1<<64-1, nil, small),
		one("short-forms", "what most msgpack encoders write: the shortest encoding of each value", short(1, nil, arp), 1, nil, arp).
			frame(short(ts, vnet, udp), ts, vnet, udp).frame(short(70000, nil, make([]byte, 300)), 70000, nil, make([]byte, 300)),
		widths, bins, arrays,
		vec("extra", "additions behind the third element, to be carried along unchanged: one, 12 in a fixarray, 13 in an array 16").
			additions(array(4, uintN(ts, 8), null, binN(arp, 4), str("eth0")), ts, nil, arp, str("eth0"), 1).
			additions(array(15, uintN(ts, 8), vnet0(), binN(small, 1), nils(12)), ts, vnet, small, nils(12), 12).
			additions(cat(arrayN(16, 2), uintN(ts, 8), null, binN(small, 4), nils(13)), ts, nil, small, nils(13), 13),
		vec("extra-kinds", "an addition of every kind that msgpack has").
			additions(cat(arrayN(3+kindsCount, 2), uintN(ts, 8), null, binN(small, 4), kinds), ts, nil, small, kinds, kindsCount),
		vec("header", "the annotation that a stream from a device begins with").annotation(head, headJSON).canon(ts, nil, arp),
		vec("header-ip", "the same of a stream of IP packets, its integer in another width").
			annotation(header(uintN(1, 8), LinkIP), strings.Replace(headJSON, "ethernet", "ip", 1)).canon(ts, nil, udp[14:]).link(LinkIP),
		vec("annotations", "annotations between the frames, known and unknown, in order; map 16 and map 32; one of no keys").
			annotation(head, headJSON).canon(ts, nil, arp).
			annotation(cat([]byte{0x81}, str("note"), unhex("93 01 a1 78 81 a1 79 c0")), `{"note": [1, "x", {"y": null}]}`).
			annotation(cat(unhex("de 0001"), str("a"), unhex("c2")), `{"a": false}`).frame(short(5, nil, small), 5, nil, small).
			annotation(cat(unhex("df 00000001"), str("b"), uintN(7, 4)), `{"b": 7}`).annotation([]byte{0x80}, `{}`),
		vec("concatenated", "two streams one behind the other, each with its header: the second one's counts from there on").
			annotation(head, headJSON).canon(ts, nil, arp).annotation(header(uintN(1, 0), LinkIP), strings.Replace(headJSON, "ethernet", "ip", 1)).canon(ts, nil, udp[14:]).link(LinkIP),
		vec("depth-32", "arrays nested 32 deep, the frame's own included, are the most").
			additions(array(4, uintN(ts, 8), null, binN(small, 4), nested(MaxDepth-1)), ts, nil, small, nested(MaxDepth-1), 1),

		after("truncated-head", "the input ends in a head").cut(canon(ts, nil, arp)[:11]),
		after("truncated-frame", "the input ends in a frame").cut(canon(ts, nil, arp)[:40]),
		after("truncated-short", "the input ends in a frame in the short forms").cut(short(1, vnet, arp)[:14]),
		after("truncated-annotation", "the input ends in an annotation").cut(head[:10]),
		after("truncated-additions", "the input ends where an addition should begin").cut(array(4, uintN(ts, 8), null, binN(arp, 4))),

		after("bad-text", "text where a value should begin").fails([]byte("GET / HTTP/1.1\r\n")),
		after("bad-nil", "nil is neither a frame nor an annotation").fails(null),
		after("bad-c1", "the byte 0xc1, which msgpack never uses").fails(array(3, []byte{0xc1})),
		after("bad-array-2", "an array of two elements").fails(array(2, uintN(ts, 8), null)),
		after("bad-time-negative", "a time before 1970").fails(array(3, intN(-1, 8), null, binN(arp, 1))),
		after("bad-time-float", "a time in floating point").fails(array(3, unhex("cb 41d954fc40000000"), null, binN(arp, 1))),
		after("bad-offload-9", "an offload header of 9 bytes").fails(canon(ts, vnet[:9], arp)),
		after("bad-offload-string", "an offload header that is a string").fails(array(3, uintN(ts, 8), str("0123456789"), binN(arp, 1))),
		after("bad-frame-string", "a frame that is a string").fails(array(3, uintN(ts, 8), null, str("0123456789abcd"))),
		after("bad-frame-nil", "a frame that is nil").fails(array(3, uintN(ts, 8), null, null)),
		after("bad-length-1MiB", "a frame of 1 MiB and 1 byte: refused by its length, before the frame is there").fails(cat(canon(ts, nil, nil)[:12], unhex("00100001"))),
		after("bad-length-4GiB", "a length of 4 GiB, canonical, with 3 bytes behind it").fails(cat(canon(ts, vnet, nil)[:23], unhex("ffffffff"), small)),
		after("bad-length-addition", "an addition that claims 4 GiB").fails(array(4, uintN(ts, 8), null, binN(arp, 4), unhex("db ffffffff"))),
		after("bad-array-4G", "an array of 4 G elements").fails(unhex("dd ffffffff 00 c0 c4 00")),
		after("bad-depth-33", "arrays nested 33 deep").fails(array(4, uintN(ts, 8), null, binN(small, 4), nested(MaxDepth))),
		after("bad-version", "a header of a version that is not known").fails(header(uintN(2, 0), LinkEthernet)),
		after("bad-link", "a header with a link that is not known").fails(header(uintN(1, 0), "atm")),
	}
}

func vnet0() []byte { return binN(vnet, 1) }

func (b *builder) json(t *testing.T) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	if err := e.Encode(b.vector); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The files are what the table above says. With -update they are written.
func TestVectorsFiles(t *testing.T) {
	want := map[string][]byte{}
	total := 0
	for _, b := range vectors() {
		want[b.name+".frames"] = b.bytes
		want[b.name+".json"] = b.json(t)
		total += len(b.bytes)
	}
	if total > 8<<10 {
		t.Errorf("the vectors have grown to %d bytes", total)
	}
	old, err := filepath.Glob(vectorDir + "/*.frames")
	meanings, err2 := filepath.Glob(vectorDir + "/*.json")
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	for _, name := range append(old, meanings...) {
		if _, ok := want[filepath.Base(name)]; ok {
			continue
		}
		if !*update {
			t.Errorf("%s is not in the table", name)
		} else if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range want {
		path := filepath.Join(vectorDir, name)
		if *update {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s differs from the table; go test -run Vectors -update writes it (%v)", path, err)
		}
	}
}

// The Reader finds in each file what its description says, and the Writer
// gives the canonical ones back. Only the files are looked at.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob(vectorDir + "/*.frames")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".frames"), func(t *testing.T) {
			in, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(strings.TrimSuffix(path, "frames") + "json")
			if err != nil {
				t.Fatal(err)
			}
			var want vector
			d := json.NewDecoder(bytes.NewReader(b))
			d.DisallowUnknownFields()
			if err := d.Decode(&want); err != nil {
				t.Fatal(err)
			}
			checkVector(t, in, want)
		})
	}
}

func checkVector(t *testing.T, in []byte, want vector) {
	var out bytes.Buffer
	r, w := NewReader(bytes.NewReader(in)), NewWriter(&out)
	var rec Record
	var err error
	n := 0
	for ; ; n++ {
		if err = r.Next(&rec); err != nil {
			break
		}
		if n == len(want.Values) {
			t.Fatalf("more than the %d values described", n)
		}
		if err := w.Write(&rec); err != nil {
			t.Fatal(err)
		}
		v := want.Values[n]
		if rec.Offset() != v.Offset {
			t.Errorf("value %d: at %d, want %d", n, rec.Offset(), v.Offset)
		}
		if v.VectorFrame == nil {
			var got map[string]any
			if err := msgpack.Unmarshal(rec.Raw(), &got); err != nil || !rec.IsAnnotation() {
				t.Fatalf("value %d: %v", n, err)
			}
			if !sameJSON(t, got, v.Annotation) {
				t.Errorf("value %d: %v, want %s", n, got, v.Annotation)
			}
			continue
		}
		got := VectorFrame{fmt.Sprint(rec.Time), nil, hex.EncodeToString(rec.Frame), hex.EncodeToString(rec.Extra), rec.Extras}
		if rec.Offload != nil {
			h := hex.EncodeToString(rec.Offload)
			got.Offload = &h
		}
		if a, b := asJSON(t, got), asJSON(t, v.VectorFrame); rec.IsAnnotation() || a != b {
			t.Errorf("value %d: %s\nwant %s", n, a, b)
		}
	}
	if n != len(want.Values) {
		t.Errorf("%d values and %v, want %d", n, err, len(want.Values))
	}
	if r.Link() != want.Link {
		t.Errorf("link %s, want %s", r.Link(), want.Link)
	}
	var fe *FormatError
	switch {
	case want.Error == nil:
		if err != io.EOF {
			t.Errorf("error %v", err)
		}
	case !errors.As(err, &fe) || fe.Offset != want.Error.Offset || errors.Is(err, io.ErrUnexpectedEOF) != want.Error.Truncated:
		t.Errorf("error %v, want one at %d, truncated %v", err, want.Error.Offset, want.Error.Truncated)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if same := bytes.Equal(out.Bytes(), in); want.Canonical && !same {
		t.Errorf("written again: % x\nwant % x", out.Bytes(), in)
	}
	again, err := readAll(t, NewReader(&out))
	if err != nil || len(again) != n {
		t.Errorf("what was written again has %d values and %v, want %d", len(again), err, n)
	}
}

func asJSON(t *testing.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sameJSON compares by way of JSON, which has one kind of number.
func sameJSON(t *testing.T, got any, want json.RawMessage) bool {
	var v any
	if err := json.Unmarshal(want, &v); err != nil {
		t.Fatal(err)
	}
	return asJSON(t, got) == asJSON(t, v)
}

// TestVectorsPython holds the vectors against another language's msgpack, with
// testdata/vectors/check.py.
func TestVectorsPython(t *testing.T) {
	var python string
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import msgpack").Run() == nil {
			python = name
			break
		}
	}
	if python == "" {
		const why = "NOT CHECKED: no python3 with the msgpack module here, so the vectors were held against Go's msgpack only"
		if os.Getenv("FRAMEPIPE_MUST_RUN") != "" { // as in package nettest
			t.Fatal(why)
		}
		t.Skip(why)
	}
	out, err := exec.Command(python, filepath.Join(vectorDir, "check.py")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
