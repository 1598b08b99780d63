package bill

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"framepipe/internal/calendar"
)

// maxFile is the maximum size of a file of samples, which is untrusted: about two months
// of a sample a second.
const maxFile = 256 << 20

// ReadCSV reads samples: lines of time,in,out, the bytes of the sample that begins
// at that time.
//
// A time is in the form of RFC 3339, or 2006-01-02 15:04:05 in the zone. A time that
// occurs twice, because clocks were set back, is the first, unless the
// previous line is between the two; then it is the second. A time that clocks
// skipped is an error.
//
// The first line may name the columns. Then they may be in any order, with other
// columns among them, and one of in and out may be absent, which counts as 0. Empty
// lines and lines that begin with # are ignored. If a value is empty, NaN or U (as in
// RRDtool), the sample is missing.
func ReadCSV(r io.Reader, zone *time.Location) ([]Sample, error) {
	return readCSV(&io.LimitedReader{R: r, N: maxFile + 1}, zone)
}

func readCSV(file *io.LimitedReader, zone *time.Location) (list []Sample, err error) {
	in := bufio.NewReader(file)
	if mark, _ := in.Peek(3); string(mark) == "\ufeff" {
		_, _ = in.Discard(3)
	}
	lines := csv.NewReader(in)
	lines.Comment, lines.FieldsPerRecord, lines.TrimLeadingSpace, lines.ReuseRecord = '#', -1, true, true
	p := parser{zone: zone}
	for {
		p.fields, err = lines.Read()
		if file.N <= 0 {
			return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
		}
		var invalid *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return list, nil
		case errors.As(err, &invalid):
			return nil, lineError(invalid.Line, invalid.Err)
		case err != nil:
			return nil, err
		}
		line, _ := lines.FieldPos(0)
		s, known, err := p.sample()
		if err != nil {
			return nil, lineError(line, err)
		}
		if known {
			s.Line = line
			list = append(list, s)
		}
	}
}

// lineError adds the line number to an error.
func lineError(line int, err error) error { return fmt.Errorf("line %d: %w", line, err) }

type parser struct {
	zone     *time.Location
	columns  [3]int // of time, in, out; -1 if there is none
	begun    bool
	previous int64 // time
	fields   []string
}

var columns = [3]string{"time", "in", "out"}

// sample returns the sample of a line, and false if the line has none or a missing one.
func (p *parser) sample() (s Sample, known bool, err error) {
	for i, f := range p.fields {
		p.fields[i] = strings.TrimSpace(f)
	}
	if !p.begun {
		p.begun = true
		p.columns = [3]int{0, 1, 2}
		if names, err := p.header(); names || err != nil {
			return s, false, err
		}
	}
	for _, c := range p.columns {
		if c >= len(p.fields) {
			return s, false, fmt.Errorf("%d columns, want %d: time,in,out", len(p.fields), slices.Max(p.columns[:])+1)
		}
	}
	if s.At, err = p.time(p.fields[p.columns[0]]); err != nil {
		return s, false, err
	}
	known = true
	for i, to := range []*int64{1: &s.In, 2: &s.Out} {
		if i == 0 || p.columns[i] < 0 {
			continue
		}
		switch f := p.fields[p.columns[i]]; {
		case f == "" || f == "U" || strings.EqualFold(f, "nan"):
			known = false
		default:
			n, err := strconv.ParseUint(f, 10, 63)
			if err != nil {
				return s, false, fmt.Errorf("%s is %.40q: want a number of bytes", columns[i], f)
			}
			*to = int64(n)
		}
	}
	return s, known, nil
}

// header finds the columns, if the line names them, and reports whether it does.
func (p *parser) header() (bool, error) {
	if first := p.fields[0]; first != "" && first[0] >= '0' && first[0] <= '9' {
		return false, nil
	}
	for i, name := range columns {
		is := func(f string) bool { return strings.EqualFold(f, name) }
		p.columns[i] = slices.IndexFunc(p.fields, is)
		if p.columns[i] >= 0 && slices.ContainsFunc(p.fields[p.columns[i]+1:], is) {
			return true, fmt.Errorf("two columns are called %s", name)
		}
	}
	if p.columns[0] < 0 || p.columns[1] < 0 && p.columns[2] < 0 {
		return true, errors.New("neither a sample nor the names of the columns: want time,in,out")
	}
	return true, nil
}

// time returns a time in nanoseconds since the Unix epoch.
func (p *parser) time(s string) (at int64, err error) {
	t, err := time.Parse(time.RFC3339, s)
	wall := err != nil
	if wall {
		t, err = time.Parse(time.DateTime, s)
	}
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a time: want 2006-01-02T15:04:05Z or 2006-01-02 15:04:05", s)
	}
	if err = calendar.CheckYear(t); err != nil {
		return 0, err
	}
	if at = t.UnixNano(); wall {
		at, err = p.local(t)
	}
	p.previous = at
	return at, err
}

// local returns the instant at which clocks of the zone showed the time that wall has
// in UTC.
func (p *parser) local(wall time.Time) (int64, error) {
	var found []int64
	// The offsets before and after a change of the clocks each give an instant.
	for _, hours := range []time.Duration{-24, 24} {
		_, offset := wall.Add(hours * time.Hour).In(p.zone).Zone()
		at := wall.Add(-time.Duration(offset) * time.Second).In(p.zone)
		if _, is := at.Zone(); is == offset {
			found = append(found, at.UnixNano())
		}
	}
	switch {
	case len(found) == 0:
		return 0, fmt.Errorf("%s does not exist in %s: clocks were set forward", wall.Format(time.DateTime), p.zone)
	case len(found) == 2 && found[0] <= p.previous && p.previous <= found[1]:
		return found[1], nil
	}
	return found[0], nil
}
