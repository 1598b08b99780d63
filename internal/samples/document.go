package samples

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The most elements of a document within each other, and the most bytes of texts and paths that
// are held, each with its overhead.
const (
	maxDepth = 32
	maxHeld  = 32 << 20
	overhead = 32
)

var errDeep = fmt.Errorf("more than %d elements within each other", maxDepth)

// document is a JSON or XML file: the texts of the paths that are wanted, until they are
// taken. A path is the names on the way, without the root of XML: a.b. Elements of an array
// have the path of the array.
type document struct {
	in    *input
	wants []string // paths, or with a dot at the end all below one
	texts map[string][]string
	held  int
	ended func(path string) error
}

// entry is the fields of a row of a table, and how long they are of.
type entry struct {
	*table
	period time.Duration
	fields []string
}

// document calls a function with the path of each object, array and element of others that
// ends, and adds the entries with fields that it returns.
func (f *file) document(wants []string, ended func(d *document, path string) (entry, error)) (*document, error) {
	f.unit = "value" // they have no lines
	n := 0
	d := &document{in: &f.in, wants: wants, texts: map[string][]string{}}
	d.ended = func(path string) error {
		e, err := ended(d, path)
		if err != nil || len(e.fields) == 0 {
			return err
		}
		n++
		return f.at(n, f.record(e.table, row{line: n, period: int64(e.period)}, e.fields))
	}
	if strings.HasPrefix(f.head, "<") {
		return d, d.readXML()
	}
	return d, d.readJSON()
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// add holds a text if it is wanted.
func (d *document) add(path, text string) error {
	wanted := func(w string) bool { return w == path || w[len(w)-1] == '.' && strings.HasPrefix(path, w) }
	if !slices.ContainsFunc(d.wants, wanted) {
		return nil
	}
	d.texts[path] = append(d.texts[path], text)
	if d.held += len(path) + len(text) + overhead; d.held > maxHeld {
		return fmt.Errorf("more than %d MiB of %s", maxHeld>>20, path)
	}
	return nil
}

// take returns the texts of a path, and holds them no longer.
func (d *document) take(path string) []string {
	texts := d.texts[path]
	for _, text := range texts {
		d.held -= len(path) + len(text) + overhead
	}
	delete(d.texts, path)
	return texts
}

// takeAll takes the texts of the paths below one, and returns the first of each.
func (d *document) takeAll(path string) map[string]string {
	all := map[string]string{}
	for name := range d.texts {
		if rest, is := strings.CutPrefix(name, path+"."); is {
			all[rest] = d.take(name)[0]
		}
	}
	return all
}

// last returns the last text of a path, or nothing.
func (d *document) last(path string) string {
	if texts := d.texts[path]; len(texts) > 0 {
		return texts[len(texts)-1]
	}
	return ""
}

// number is the last text of a path, 0 if it is no number.
func (d *document) number(path string) int64 {
	n, _ := strconv.ParseInt(d.last(path), 10, 64)
	return n
}

// readJSON reads values until the end. Errors name the line.
func (d *document) readJSON() (err error) {
	j := json.NewDecoder(d.in)
	j.UseNumber()
	for d.in.next(); err == nil && j.More(); {
		err = d.value(j, "", 0)
	}
	if err == nil {
		if _, err = j.Token(); err == io.EOF {
			return nil
		}
	}
	line, syntax := 1+d.in.lines, (*json.SyntaxError)(nil)
	switch {
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	case errors.As(err, &syntax):
		rest, _ := io.ReadAll(j.Buffered())
		line -= bytes.Count(rest, []byte("\n"))
	case err != io.ErrUnexpectedEOF:
		return err
	}
	return fmt.Errorf("line %d: %w", line, err)
}

// value reads a value of JSON.
func (d *document) value(j *json.Decoder, path string, depth int) error {
	d.in.next()
	token, err := j.Token()
	open, is := token.(json.Delim)
	switch {
	case err != nil:
		return err
	case depth == maxDepth:
		return errDeep
	case token == nil:
		return d.add(path, "")
	case !is:
		return d.add(path, fmt.Sprint(token))
	}
	for j.More() {
		name := path
		if open == '{' {
			key, err := j.Token()
			if err != nil {
				return err
			}
			name = join(path, fmt.Sprint(key))
		}
		if err := d.value(j, name, depth+1); err != nil {
			return err
		}
	}
	if _, err := j.Token(); err != nil {
		return err
	}
	return d.ended(path)
}

// readXML reads elements until the end. Errors name the line.
func (d *document) readXML() (err error) {
	x := xml.NewDecoder(d.in)
	x.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	var open []string // paths
	var text []byte
	leaf := false
	for d.in.next(); err == nil; {
		var token xml.Token
		token, err = x.Token()
		switch t := token.(type) {
		case xml.StartElement:
			path := ""
			if len(open) > 0 { // not the root
				path = join(open[len(open)-1], t.Name.Local)
			}
			if open, text, leaf = append(open, path), nil, true; len(open) > maxDepth {
				err = errDeep
			}
			d.in.next()
		case xml.CharData:
			text = append(text, t...)
		case xml.Comment:
			if len(open) > 0 {
				err = d.add(join(open[len(open)-1], "comment"), string(t))
			}
		case xml.EndElement:
			path := open[len(open)-1]
			if leaf {
				err = d.add(path, string(bytes.TrimSpace(text)))
			} else {
				err = d.ended(path)
			}
			open, leaf = open[:len(open)-1], false
			d.in.next()
		}
	}
	if syntax := (*xml.SyntaxError)(nil); errors.As(err, &syntax) {
		return fmt.Errorf("line %d: %s", syntax.Line, syntax.Msg)
	}
	if err == io.EOF {
		return nil
	}
	return err
}
