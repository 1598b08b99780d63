package samples

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// The longest line, text or comment, and the most elements within each other: what readers
// of CSV, JSON and XML keep of a file.
const (
	maxText  = 1 << 20
	maxDepth = 32
)

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
		return bufio.NewReaderSize(&utf16Reader{in: r, order: binary.LittleEndian}, 64<<10)
	case bytes.HasPrefix(mark, []byte("\xfe\xff")):
		return bufio.NewReaderSize(&utf16Reader{in: r, order: binary.BigEndian}, 64<<10)
	}
	return r
}

type utf16Reader struct {
	in    io.Reader
	order binary.ByteOrder
	high  rune // the first half of a character
	text  []byte
}

func (r *utf16Reader) Read(p []byte) (int, error) {
	for len(r.text) == 0 {
		var unit [2]byte
		if _, err := io.ReadFull(r.in, unit[:]); err != nil {
			return 0, err
		}
		switch c := rune(r.order.Uint16(unit[:])); {
		case r.high == 0 && utf16.IsSurrogate(c):
			r.high = c
		case r.high != 0:
			r.text, r.high = append(r.text, string(utf16.DecodeRune(r.high, c))...), 0
		case c != '\ufeff':
			r.text = append(r.text, string(c)...)
		}
	}
	n := copy(p, r.text)
	r.text = r.text[n:]
	return n, nil
}

// records calls a function with the fields of each line of a table, without the spaces around
// them. They are valid until it returns.
func (f *file) records(each func(line int, fields []string) error) error {
	head, _ := f.head.Peek(16 << 10)
	comma, skip := delimiter(string(head))
	first, _ := f.head.Discard(skip)
	first = min(first, 1)
	switch {
	case f.format == "fetch" || f.format == "mrtg":
		comma = ' ' // or several
	case comma != ',' && !f.Options.Format.has("decimal"):
		f.comma = 0
	}
	r := csv.NewReader(&f.in)
	r.Comma, r.Comment, r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = comma, '#', -1, comma != '\t', true
	for {
		f.in.next()
		fields, err := r.Read()
		var invalid *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &invalid):
			return f.at(first+invalid.Line, invalid.Err)
		case err != nil:
			return err
		}
		line, _ := r.FieldPos(0)
		line += first
		for i, field := range fields {
			fields[i] = strings.TrimSpace(field)
		}
		if len(fields) == 1 && fields[0] == "" {
			continue
		}
		if err := each(line, fields); err != nil {
			return f.at(line, err)
		}
	}
}

// delimiter returns what separates the fields of a file, and the bytes of a line that says so.
func delimiter(head string) (comma rune, skip int) {
	if rest, says := strings.CutPrefix(head, "sep="); says && rest != "" {
		line, _, _ := strings.Cut(head, "\n")
		if c := rest[0]; strings.IndexByte(",;|\t", c) >= 0 {
			return rune(c), min(len(line)+1, len(head))
		}
	}
	for line := range strings.Lines(head) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		quoted := false
		for _, c := range line {
			quoted = quoted != (c == '"')
			if !quoted && strings.ContainsRune("\t;|", c) {
				return c, 0
			}
		}
		break
	}
	return ',', 0
}

// tree calls functions with the path and text of each value of a JSON or XML file, and the
// path of each object, array or element that ends. A path is the names on the way: a.b. Elements
// of arrays have the path of the array. Values are numbered where errors name them.
func (f *file) tree(value func(path, text string) error, end func(path string) error) error {
	f.unit = "value"
	if head, _ := f.head.Peek(1); string(head) == "<" {
		return f.xml(value, end)
	}
	return f.json(value, end)
}

func (f *file) json(value func(path, text string) error, end func(path string) error) error {
	type level struct {
		path  string
		array bool
	}
	var open []level
	d := json.NewDecoder(&f.in)
	d.UseNumber()
	for top, named := (level{}), true; ; { // whether the name of the next value was read
		f.in.next()
		token, err := d.Token()
		if err == io.EOF && len(open) == 0 {
			return nil
		}
		if err != nil {
			return f.jsonError(d, err)
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '[' || t == '{' {
				open = append(open, level{top.path, t == '['})
			} else {
				top, open = open[len(open)-1], open[:len(open)-1]
				err = end(top.path)
			}
		case string:
			if !named {
				top.path, named = join(top.path, t), true
				continue
			}
			err = value(top.path, t)
		case nil:
			err = value(top.path, "")
		default:
			err = value(top.path, fmt.Sprint(t))
		}
		if len(open) > maxDepth {
			err = errDeep
		}
		if err != nil {
			return err
		}
		if top, named = (level{}), true; len(open) > 0 {
			top = open[len(open)-1]
			named = top.array
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

var errDeep = fmt.Errorf("more than %d elements within each other", maxDepth)

// jsonError adds the line to an error.
func (f *file) jsonError(d *json.Decoder, err error) error {
	line := 1 + f.in.lines
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		rest, _ := io.ReadAll(d.Buffered())
		return fmt.Errorf("line %d: %w", line-bytes.Count(rest, []byte("\n")), err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("line %d: %w", line, io.ErrUnexpectedEOF)
	}
	return err
}

func (f *file) xml(value func(path, text string) error, end func(path string) error) error {
	d := xml.NewDecoder(&f.in)
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	var open []string
	var text []byte
	leaf := false
	f.in.next()
	for {
		token, err := d.Token()
		switch t := token.(type) {
		case xml.StartElement:
			path := t.Name.Local
			if len(open) > 0 {
				path = join(open[len(open)-1], path)
			}
			if len(open) == maxDepth {
				return errDeep
			}
			open, text, leaf = append(open, path), text[:0], true
			f.in.next()
		case xml.CharData:
			text = append(text, t...)
		case xml.EndElement:
			path := open[len(open)-1]
			open = open[:len(open)-1]
			if leaf {
				err = value(path, string(bytes.TrimSpace(text)))
			} else {
				err = end(path)
			}
			text, leaf = text[:0], false
			f.in.next()
		}
		var syntax *xml.SyntaxError
		switch {
		case err == io.EOF:
			return nil
		case errors.As(err, &syntax):
			return fmt.Errorf("line %d: %s", syntax.Line, syntax.Msg)
		case err != nil:
			return err
		}
	}
}
