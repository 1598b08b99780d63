package bill

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"framepipe/internal/calendar"
)

// Limits of a CSV file, which is untrusted.
const (
	MaxLine    = 4096    // bytes of a line
	MaxSamples = 1 << 22 // samples of a file: about one and a half months of one a second
	MaxSlots   = 1 << 22 // slots of a series made from them
	maxBytes   = 1 << 62 // of all samples together, so that no sum overflows
)

type sample struct {
	at      int64
	in, out int64
	line    int32
}

// Samples are the samples of a CSV file, in order of time.
type Samples struct {
	Slot time.Duration // interval of the samples
	// Moved is the number of samples not on the grid, which is the phase most of them
	// have; each counts in the slot that begins nearest to it.
	Moved int
	// Repeated is the number of lines with the same sample as another line.
	Repeated int

	list  []sample
	phase int64 // of the grid, in [0, Slot)
}

// lineError adds the line number to an error.
func lineError(line int, err error) error { return fmt.Errorf("line %d: %w", line, err) }

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
//
// Lines may be in any order. Equal lines count once; two lines with the same time
// and different values are an error. Without an interval, the most frequent difference
// between times is used, the least one of several. Samples of one slot are added.
func ReadCSV(r io.Reader, zone *time.Location, interval time.Duration) (*Samples, error) {
	p := parser{zone: zone}
	in := bufio.NewReaderSize(r, MaxLine+2) // with \r\n
	for n := 1; ; n++ {
		text, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, lineError(n, fmt.Errorf("longer than %d bytes", MaxLine))
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if e := p.line(text, n); e != nil {
			return nil, lineError(n, e)
		}
		if err != nil {
			break
		}
	}
	if len(p.list) == 0 {
		return nil, errors.New("there are no samples")
	}
	return p.samples(interval)
}

type parser struct {
	zone     *time.Location
	columns  [3]int // of time, in, out; -1 if there is none
	begun    bool
	previous int64
	total    uint64
	list     []sample
	fields   [][]byte
}

var bom = []byte("\xef\xbb\xbf")

func (p *parser) line(text []byte, n int) error {
	if n == 1 {
		text = bytes.TrimPrefix(text, bom)
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 || text[0] == '#' {
		return nil
	}
	p.fields = p.fields[:0]
	for rest, more := text, true; more; {
		var f []byte
		f, rest, more = bytes.Cut(rest, []byte{','})
		f = bytes.TrimSpace(f)
		if len(f) >= 2 && f[0] == '"' && f[len(f)-1] == '"' {
			f = f[1 : len(f)-1]
		}
		p.fields = append(p.fields, f)
	}
	if !p.begun {
		p.begun = true
		p.columns = [3]int{0, 1, 2}
		if known, err := p.header(); known || err != nil {
			return err
		}
	}
	for _, c := range p.columns {
		if c >= len(p.fields) {
			return fmt.Errorf("%d columns, want %d: time,in,out", len(p.fields), slices.Max(p.columns[:])+1)
		}
	}
	at, err := p.time(string(p.fields[p.columns[0]]))
	if err != nil {
		return err
	}
	s := sample{at: at, line: int32(n)}
	var known [2]bool
	for i, to := range []*int64{&s.in, &s.out} {
		if *to, known[i], err = p.bytes(i + 1); err != nil {
			return err
		}
	}
	if !known[0] || !known[1] {
		return nil
	}
	if p.total += uint64(s.in) + uint64(s.out); p.total > maxBytes {
		return errors.New("that is more bytes than can be counted")
	}
	if len(p.list) == MaxSamples {
		return fmt.Errorf("more than %d samples", MaxSamples)
	}
	p.list = append(p.list, s)
	return nil
}

// header finds the columns, if the line names them, and reports whether it does.
func (p *parser) header() (bool, error) {
	first := p.fields[0]
	if len(first) > 0 && first[0] >= '0' && first[0] <= '9' {
		return false, nil
	}
	for i, name := range []string{"time", "in", "out"} {
		is := func(f []byte) bool { return strings.EqualFold(string(f), name) }
		p.columns[i] = slices.IndexFunc(p.fields, is)
		if slices.ContainsFunc(p.fields[p.columns[i]+1:], is) && p.columns[i] >= 0 {
			return true, fmt.Errorf("two columns are called %s", name)
		}
	}
	if p.columns[0] < 0 || p.columns[1] < 0 && p.columns[2] < 0 {
		return true, errors.New("neither a sample nor the names of the columns: want time,in,out")
	}
	return true, nil
}

// bytes returns the value of a column, and whether it is known.
func (p *parser) bytes(column int) (int64, bool, error) {
	c := p.columns[column]
	if c < 0 {
		return 0, true, nil
	}
	f := p.fields[c]
	if len(f) == 0 || string(f) == "U" || len(f) == 3 && strings.EqualFold(string(f), "nan") {
		return 0, false, nil
	}
	n, err := strconv.ParseInt(string(f), 10, 64)
	if err != nil || n < 0 || f[0] == '+' {
		return 0, false, fmt.Errorf("%s is %.40q: want a number of bytes", [...]string{"", "in", "out"}[column], f)
	}
	if n > maxBytes {
		return 0, false, errors.New("that is more bytes than can be counted")
	}
	return n, true, nil
}

// time returns a time in nanoseconds since the Unix epoch.
func (p *parser) time(s string) (int64, error) {
	if len(s) > 10 && s[10] == ' ' {
		wall, err := time.Parse("2006-01-02 15:04:05", s)
		if err == nil {
			if err = calendar.CheckYear(wall); err != nil {
				return 0, err
			}
			p.previous, err = p.local(wall)
			return p.previous, err
		}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a time: want 2006-01-02T15:04:05Z or 2006-01-02 15:04:05", s)
	}
	if err = calendar.CheckYear(t); err != nil {
		return 0, err
	}
	p.previous = t.UnixNano()
	return p.previous, nil
}

// local returns the instant at which clocks of the zone showed the time that wall has
// in UTC.
func (p *parser) local(wall time.Time) (int64, error) {
	at := wall.UnixNano()
	if p.zone == time.UTC {
		return at, nil
	}
	guess := time.Unix(0, at).In(p.zone)
	_, offset := guess.Zone()
	guess = guess.Add(-time.Duration(offset) * time.Second)
	start, end := guess.ZoneBounds()
	first, second, found := int64(0), int64(0), 0
	try := func(t time.Time) {
		_, offset := t.Zone()
		u := at - int64(offset)*1e9
		if _, o := time.Unix(0, u).In(p.zone).Zone(); o != offset || found > 0 && (u == first || u == second) {
			return
		}
		if found++; found == 1 {
			first, second = u, u
		}
		first, second = min(first, u), max(second, u)
	}
	try(guess)
	if !start.IsZero() {
		try(start.Add(-1))
	}
	if !end.IsZero() {
		try(end)
	}
	switch {
	case found == 0:
		return 0, fmt.Errorf("%s does not exist in %s: clocks were set forward", wall.Format("2006-01-02 15:04:05"), p.zone)
	case found > 1 && first <= p.previous && p.previous <= second && len(p.list) > 0:
		return second, nil
	}
	return first, nil
}

// samples sorts the samples and finds their grid.
func (p *parser) samples(interval time.Duration) (*Samples, error) {
	list := p.list
	byTime := func(a, b sample) int { return cmp.Compare(a.at, b.at) }
	if !slices.IsSortedFunc(list, byTime) {
		slices.SortStableFunc(list, byTime)
	}
	s := &Samples{Slot: interval}
	s.list = list[:1]
	for _, x := range list[1:] {
		last := s.list[len(s.list)-1]
		switch {
		case x.at != last.at:
			s.list = append(s.list, x)
		case x.in == last.in && x.out == last.out:
			s.Repeated++
		default:
			return nil, lineError(int(x.line), fmt.Errorf("line %d has different bytes for the same time", last.line))
		}
	}
	if s.Slot == 0 {
		s.Slot = s.difference()
	}
	if s.Slot > 24*time.Hour {
		return nil, fmt.Errorf("samples are %v apart: must be at most a day", s.Slot)
	}
	if s.Slot > 0 {
		s.grid()
	}
	return s, nil
}

// most returns the most frequent value, the least of several. It sorts the values.
func most(values []int64) int64 {
	slices.Sort(values)
	best, times := values[0], 0
	for i := 0; i < len(values); {
		j := i
		for j < len(values) && values[j] == values[i] {
			j++
		}
		if j-i > times {
			best, times = values[i], j-i
		}
		i = j
	}
	return best
}

// difference returns the most frequent difference between neighbours, 0 for a single
// sample.
func (s *Samples) difference() time.Duration {
	if len(s.list) < 2 {
		return 0
	}
	all := make([]int64, len(s.list)-1)
	for i := range all {
		all[i] = s.list[i+1].at - s.list[i].at
	}
	return time.Duration(most(all))
}

func (s *Samples) grid() {
	phases := make([]int64, len(s.list))
	for i, x := range s.list {
		phases[i] = x.at - floorDiv(x.at, int64(s.Slot))*int64(s.Slot)
	}
	s.phase = most(phases)
	for _, x := range s.list {
		if x.at != s.slot(x.at) {
			s.Moved++
		}
	}
}

// slot returns the start of the slot nearest to a time.
func (s *Samples) slot(at int64) int64 {
	n := int64(s.Slot)
	return floorDiv(at-s.phase+n/2, n)*n + s.phase
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// Len returns the number of samples.
func (s *Samples) Len() int { return len(s.list) }

// SetSlot sets the interval, for a single sample, which does not show it.
func (s *Samples) SetSlot(d time.Duration) {
	s.Slot = d
	s.grid()
}

// Spans implements Source.
func (s *Samples) Spans() []Span {
	start, end := s.Span()
	return []Span{{start, end}}
}

// Span returns the start of the first slot and the end of the last, nanoseconds
// since the Unix epoch.
func (s *Samples) Span() (start, end int64) {
	return s.slot(s.list[0].at), s.slot(s.list[len(s.list)-1].at) + int64(s.Slot)
}

// Series implements Source.
func (s *Samples) Series(from, to int64) (*Series, error) {
	start, end := s.Span()
	n := int64(s.Slot)
	start = max(start, ceilDiv(from-s.phase, n)*n+s.phase)
	end = max(start, min(end, ceilDiv(to-s.phase, n)*n+s.phase))
	size := (end - start) / n
	if size > MaxSlots {
		return nil, fmt.Errorf("samples every %v are more than %d a cycle: too many", s.Slot, MaxSlots)
	}
	x := &Series{Start: start, Slot: s.Slot, In: make([]int64, size), Out: make([]int64, size), Known: make([]bool, size)}
	i, _ := slices.BinarySearchFunc(s.list, start-n, func(x sample, at int64) int { return cmp.Compare(x.at, at) })
	for ; i < len(s.list) && s.list[i].at < end+n; i++ {
		if at := s.slot(s.list[i].at); at >= start && at < end {
			j := (at - start) / n
			x.In[j] += s.list[i].in
			x.Out[j] += s.list[i].out
			x.Known[j] = true
		}
	}
	return x, nil
}
