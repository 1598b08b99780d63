package frame

import (
	"bytes"
	"encoding/json"
	"errors"
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

const vectorDir = "testdata/vectors"

// vector is what NAME.json says of NAME.frames; see testdata/vectors/README.md.
type vector struct {
	About     string
	Canonical bool
	Link      string
	Values    []struct {
		Offset       int64
		Time         string
		Offload      *string
		Frame, Extra string
		Extras       int
		Annotation   map[string]any
	}
	Error *struct {
		Offset    int64
		Truncated bool
	}
}

// The Reader finds in each file what its description says, and the Writer
// gives the canonical ones back.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob(vectorDir + "/*.frames")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".frames"), func(t *testing.T) {
			in, err := os.ReadFile(path)
			meaning, err2 := os.ReadFile(strings.TrimSuffix(path, "frames") + "json")
			d := json.NewDecoder(bytes.NewReader(meaning))
			d.DisallowUnknownFields()
			var want vector
			if err := errors.Join(err, err2, d.Decode(&want)); err != nil {
				t.Fatal(err)
			}
			checkVector(t, in, &want)
		})
	}
}

func checkVector(t *testing.T, in []byte, want *vector) {
	r := NewReader(bytes.NewReader(in))
	got, err := readAll(t, r)
	if len(got) != len(want.Values) || r.Link() != want.Link {
		t.Fatalf("%d values of link %s, want %d of %s", len(got), r.Link(), len(want.Values), want.Link)
	}
	for i, w := range want.Values {
		v := value{Offload: "-", Annotation: w.Annotation != nil, Raw: got[i].Raw, Offset: w.Offset, Extras: w.Extras}
		v.Time, _ = strconv.ParseUint(w.Time, 10, 64)
		v.Frame, v.Extra = string(unhex(w.Frame)), string(unhex(w.Extra))
		if w.Offload != nil {
			v.Offload = string(unhex(*w.Offload))
		}
		if got[i] != v {
			t.Errorf("value %d: %v\nwant %v", i, got[i], v)
		}
		if v.Annotation {
			var m map[string]any
			if err := msgpack.Unmarshal([]byte(v.Raw), &m); err != nil || fmt.Sprint(m) != fmt.Sprint(w.Annotation) {
				t.Errorf("value %d: %v and %v, want %v", i, m, err, w.Annotation)
			}
		}
	}
	var fe *FormatError
	switch w := want.Error; {
	case w == nil:
		if err != nil {
			t.Error(err)
		}
	case !errors.As(err, &fe) || fe.Offset != w.Offset || errors.Is(err, io.ErrUnexpectedEOF) != w.Truncated:
		t.Errorf("error %v, want one at %d, truncated %v", err, w.Offset, w.Truncated)
	}

	var out bytes.Buffer
	anew := &filter{NewWriter(&out), func(r *Record, w *Writer) error { return w.Write(r) }}
	if err2 := Loop(NewReader(bytes.NewReader(in)), anew); errorText(err2) != errorText(err) {
		t.Errorf("error %v, and then %v", err, err2)
	}
	if want.Canonical && !bytes.Equal(out.Bytes(), in) {
		t.Errorf("written again: % x\nwant % x", out.Bytes(), in)
	}
	if again, err := readAll(t, NewReader(&out)); err != nil || len(again) != len(got) {
		t.Errorf("what was written again has %d values and %v, want %d", len(again), err, len(got))
	}
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
