package samples

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth is how many elements of a document may be within each other.
const maxDepth = 32

var errDeep = fmt.Errorf("more than %d elements within each other", maxDepth)

// document reads a JSON or XML file. It has a function for each path that is needed, and calls it with a
// function that decodes the value. A path is the names on the way, without the root of XML: a.b.
// Elements of an array have the path of the array and [].
type document map[string]func(decode func(into any) error) error

// read reads a file until the end, a value at a time.
func (d document) read(f *file) error {
	f.part = "value" // they have no lines
	if strings.HasPrefix(f.head, "<") {
		return d.readXML(f)
	}
	return d.readJSON(&f.in)
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// readJSON reads values until the end. Errors of JSON name the line at which a value begins.
func (d document) readJSON(in *input) (err error) {
	j := json.NewDecoder(in)
	j.UseNumber()
	for in.next(); err == nil && j.More(); {
		err = d.value(in, j, "", 0)
	}
	if err == nil {
		if _, err = j.Token(); err == io.EOF {
			return nil
		}
	}
	var syntax *json.SyntaxError
	var invalid *json.UnmarshalTypeError
	switch {
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	case errors.As(err, &invalid):
		err = fmt.Errorf("%s: not what was expected", invalid.Value)
	case err != io.ErrUnexpectedEOF && !errors.As(err, &syntax):
		return err
	}
	rest, _ := io.ReadAll(j.Buffered())
	return fmt.Errorf("line %d: %w", 1+in.lines-bytes.Count(rest, []byte("\n")), err)
}

// value reads a value of JSON.
func (d document) value(in *input, j *json.Decoder, path string, depth int) error {
	in.next()
	if each := d[path]; each != nil {
		return each(j.Decode)
	}
	token, err := j.Token()
	open, is := token.(json.Delim)
	switch {
	case err != nil || !is:
		return err
	case depth == maxDepth:
		return errDeep
	}
	for name := path + "[]"; j.More(); {
		if open == '{' {
			key, err := j.Token()
			if err != nil {
				return err
			}
			name = join(path, fmt.Sprint(key))
		}
		if err := d.value(in, j, name, depth+1); err != nil {
			return err
		}
	}
	_, err = j.Token()
	return err
}

// readXML reads elements until the end. Errors of XML name the line.
func (d document) readXML(f *file) (err error) {
	x := xml.NewDecoder(&f.in)
	x.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	var open []string // paths
	for f.in.next(); err == nil; {
		var token xml.Token
		token, err = x.Token()
		switch t := token.(type) {
		case xml.StartElement:
			path := ""
			if len(open) > 0 { // not the root
				path = join(open[len(open)-1], t.Name.Local)
			}
			f.in.next()
			if each := d[path]; each != nil {
				err = each(func(into any) error { return x.DecodeElement(into, &t) })
			} else if open = append(open, path); len(open) > maxDepth {
				err = errDeep
			}
		case xml.Comment:
			f.comment = strings.TrimSpace(string(t))
		case xml.EndElement:
			open = open[:len(open)-1]
			f.in.next()
		}
	}
	var syntax *xml.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: %s", syntax.Line, syntax.Msg)
	case err == io.EOF:
		return nil
	}
	return err
}

// on is a function for the values of a path that have a type.
func on[T any](each func(T) error) func(func(any) error) error {
	return func(decode func(any) error) error {
		var x T
		if err := decode(&x); err != nil {
			return err
		}
		return each(x)
	}
}

// text keeps the last text of a path.
func text(into *string) func(func(any) error) error {
	return on(func(x string) error { *into = strings.TrimSpace(x); return nil })
}

// texts returns strings and numbers of JSON as they are written. Nothing else is a time or a value.
func texts(list ...any) (all []string) {
	for _, x := range list {
		if x == nil {
			x = ""
		}
		all = append(all, fmt.Sprint(x))
	}
	return all
}
