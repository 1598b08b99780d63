package samples

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxText is the longest line, text or comment. Readers of CSV, JSON and XML keep it whole.
const maxText = 1 << 20

// input is the text of a file.
type input struct {
	io.Reader
	left  int // how much of a line or value may still be read
	lines int // that were read
}

func (i *input) Read(p []byte) (int, error) {
	if i.left <= 0 {
		return 0, fmt.Errorf("longer than %d bytes without an end", maxText)
	}
	n, err := i.Reader.Read(p[:min(len(p), i.left)])
	i.left, i.lines = i.left-n, i.lines+bytes.Count(p[:n], []byte("\n"))
	return n, err
}

// next allows to read another line or value.
func (i *input) next() { i.left = maxText }

// decode converts UTF-16 to UTF-8, and removes the mark at the beginning.
func decode(in io.Reader) *bufio.Reader {
	r := bufio.NewReaderSize(in, 64<<10)
	mark, _ := r.Peek(3)
	switch {
	case bytes.HasPrefix(mark, []byte("\xef\xbb\xbf")):
		_, _ = r.Discard(3)
	case bytes.HasPrefix(mark, []byte("\xff\xfe")):
		_, _ = r.Discard(2)
		return bufio.NewReaderSize(utf16Reader{r, binary.LittleEndian}, 64<<10)
	case bytes.HasPrefix(mark, []byte("\xfe\xff")):
		_, _ = r.Discard(2)
		return bufio.NewReaderSize(utf16Reader{r, binary.BigEndian}, 64<<10)
	}
	return r
}

type utf16Reader struct {
	in    io.Reader
	order binary.ByteOrder
}

// Read reads one character. p has room for it, as a Peek of 16 KiB leaves room in a buffer of 64 KiB.
func (r utf16Reader) Read(p []byte) (int, error) {
	var unit [4]byte
	if _, err := io.ReadFull(r.in, unit[:2]); err != nil {
		return 0, err
	}
	c := rune(r.order.Uint16(unit[:]))
	if utf16.IsSurrogate(c) { // half a character
		_, _ = io.ReadFull(r.in, unit[2:])
		c = utf16.DecodeRune(c, rune(r.order.Uint16(unit[2:])))
	}
	return utf8.EncodeRune(p, c), nil
}

// records calls a function with the fields of each line of a table, without the spaces around
// them. They are valid until it returns.
func (f *file) records(each func(line int, fields []string) error) error {
	comma := delimiter(f.head)
	switch {
	case f.name == "fetch" || f.name == "mrtg":
		comma = ' ' // or several
	case comma != ',' && !f.Format.has("decimal"):
		f.comma = 0
	}
	r := csv.NewReader(&f.in)
	r.Comma, r.Comment, r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = comma, '#', -1, comma != '\t', true
	for {
		f.in.next()
		fields, err := r.Read()
		var invalid *csv.ParseError
		switch {
		case err == io.EOF:
			return nil
		case errors.As(err, &invalid):
			return f.at(invalid.Line, invalid.Err)
		case err != nil:
			return err
		}
		line, _ := r.FieldPos(0)
		for i, field := range fields {
			fields[i] = strings.TrimSpace(field)
		}
		if fields[0] == "sep=" {
			continue
		}
		if err := each(line, fields); err != nil {
			return f.at(line, err)
		}
	}
}

// delimiter returns what separates the fields of a file: what its first line has, which may be
// sep=; for this.
func delimiter(head string) rune {
	for line := range strings.Lines(head) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		quoted := false
		for _, c := range line {
			quoted = quoted != (c == '"')
			if !quoted && strings.ContainsRune("\t;|", c) {
				return c
			}
		}
		break
	}
	return ','
}
