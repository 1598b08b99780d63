package divert

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"framepipe/internal/cli"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The files in testdata are what a kernel, 6.18, has answered, without the header of
// the message.
func TestParsePort(t *testing.T) {
	for name, want := range map[string]port{
		"several": {index: 2, ethernet: true, up: true, tap: true, queues: 2, detached: 1},
		"unread":  {index: 3, ethernet: true, up: true, tap: true, detached: 1},
		"idle":    {index: 3, ethernet: true, up: true, tap: true},
		"tun":     {index: 6, up: true, tap: true, tun: true},
		"veth":    {index: 8, ethernet: true, up: true},
		"bridge":  {index: 9, ethernet: true},
		"lo":      {index: 1},
	} {
		b, err := os.ReadFile("testdata/" + name + ".link")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parsePort(b); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestAttributes(t *testing.T) {
	attribute := func(size, kind int, v ...byte) (b []byte) {
		b = binary.NativeEndian.AppendUint16(nil, uint16(size))
		b = binary.NativeEndian.AppendUint16(b, uint16(kind))
		return append(b, v...)
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"less than a head", []byte{8, 0, 1}, "map[]"},
		{"an empty one", attribute(4, 7), "map[7:]"},
		{"two, the first is padded", slices.Concat(attribute(5, 1, 0xaa, 0, 0, 0), attribute(8, 2, 1, 2, 3, 4)), "map[1:aa 2:01020304]"},
		{"the last is not padded", attribute(5, 1, 0xaa), "map[1:aa]"},
		{"flags of the kind are left out", attribute(4, 0xc003), "map[3:]"},
		{"a size that is less than a head", slices.Concat(attribute(3, 1), attribute(4, 2)), "map[]"},
		{"a size over the end", slices.Concat(attribute(4, 1), attribute(9, 2, 1, 2, 3, 4)), "map[1:]"},
	} {
		if got := fmt.Sprintf("%x", attributes(tt.b)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Each message of sufficient length is parsed.
func FuzzPort(f *testing.F) {
	f.Add(make([]byte, unix.SizeofIfInfomsg-1))
	names, _ := filepath.Glob("testdata/*.link")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := parsePort(b)
		if short := len(b) < unix.SizeofIfInfomsg; short != (err != nil) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	})
}

// What the kernel refuses is explained.
func TestRefused(t *testing.T) {
	const needs = "CAP_BPF, CAP_NET_ADMIN and CAP_SETPCAP"
	for _, tt := range []struct {
		err        error
		want, hint string
	}{
		{fmt.Errorf("attach tcx link: %w", ebpf.ErrNotSupported), "and 6.6 is needed", "man pipeline.sh"},
		{fmt.Errorf("load program: %w", unix.EPERM), "bpf: operation not permitted", needs},
		{fmt.Errorf("load program: %w", unix.EACCES), "bpf: operation not permitted", needs},
		{errors.New("other"), "other", ""},
	} {
		got := refused(tt.err)
		if !strings.HasSuffix(got.Error(), tt.want) || !strings.Contains(cli.HintOf(got), tt.hint) || (tt.hint == "") != (cli.HintOf(got) == "") {
			t.Errorf("%v: %v, hint %q", tt.err, got, cli.HintOf(got))
		}
	}
}
