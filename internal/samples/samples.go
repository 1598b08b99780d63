// Package samples reads the traffic of ports from the files of other programs, as the
// samples that package bill bills.
//
// One table has the formats. A reader turns a file into rows: a time, how long it covers if
// the file says so, and bytes, bytes a second or counts of both directions. The rest is the
// same for all formats: local times, counters, the length of a sample, the grid.
//
// A line that cannot be understood is an error that names it. The notes list all changes, with
// the first line of each.
package samples

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"framepipe/internal/bill"
	"framepipe/internal/cli"
)

// The largest file and the most rows that are read. Files are untrusted.
const (
	maxFile = 256 << 20
	maxRows = bill.MaxSlots
)

// Options say what a file does not.
type Options struct {
	Zone     *time.Location // of times without one
	Interval time.Duration  // length of a sample, 0 to find it
	Format   Format
	Counters bool  // values are counters, which wrap or start anew
	Speed    int64 // of the port, in bits per second; 0 if not known
}

// Port is the traffic of a port.
type Port struct {
	Name string // in the file; empty if the file has no names
	*bill.Samples
}

// kind is what the values and times of a file are.
type kind struct {
	unit     float64 // bytes in one
	rate     bool    // a second
	end      bool    // times are the ends of samples
	counters bool
	settled  bool // the format or the user says whether times are ends
	deltas   bool // the format or the user says that values are no counters
}

// format is a line of the table.
type format struct {
	name string
	is   func(head string) bool // reports whether a file that begins so has this format
	read func(*file) error
	kind kind
	unit string // what errors number: line, or value
}

var formats []format

// A file has the first format that recognises it. Anything else is CSV.
func init() {
	begins := func(with string) func(string) bool {
		return func(head string) bool { return strings.HasPrefix(head, with) }
	}
	object := func(key string) func(string) bool {
		return func(head string) bool { return begins("{")(head) && strings.Contains(head, `"`+key+`"`) }
	}
	either := func(a, b func(string) bool) func(string) bool {
		return func(head string) bool { return a(head) || b(head) }
	}
	element := func(name string) func(string) bool {
		return func(head string) bool { return begins("<")(head) && strings.Contains(head, "<"+name+">") }
	}
	amounts := kind{unit: 1, settled: true, deltas: true}
	rates := kind{unit: 1, rate: true, end: true, settled: true, deltas: true}
	bits := kind{unit: 1. / 8, rate: true, end: true, settled: true, deltas: true}
	formats = []format{
		{"vnstat", object("vnstatversion"), readVnstat, amounts, "value"},
		{"prometheus", object("resultType"), readPrometheus, kind{unit: 1, end: true, settled: true}, "value"},
		{"librenms", either(object("graph_data"), hasDeltas), readLibreNMS, bits, "value"},
		{"xport", either(element("xport"), object("about")), readXport, rates, "value"},
		{"dump", element("rrd"), readDump, rates, "value"},
		{"fetch", isFetch, readFetch, rates, "line"},
		{"mrtg", isMRTG, readMRTG, rates, "line"},
		{"nfdump", begins("ts,te,td,"), readNfdump, amounts, "line"},
		{"cacti", begins(`"Title","`), readCacti, rates, "line"},
		{"grafana", begins(`"Time","`), readCSV, kind{end: true, rate: true}, "line"},
		{"csv", func(string) bool { return true }, readCSV, kind{}, "line"},
	}
}

// row is what a file says of a time.
type row struct {
	line   int
	at     int64 // nanoseconds since the Unix epoch
	wall   bool  // at is the time of a clock of the zone, as if it were UTC
	period int64 // nanoseconds that the values are of; 0 if the file does not say it
	value  [2]number
}

const (
	in = iota
	out
	total
)

var directions = [...]string{"in", "out", "total"}

// file is a file that is read.
type file struct {
	Options
	kind
	format format
	in     *bufio.Reader
	limit  *io.LimitedReader
	ports  map[string][]row
	rows   int
	notes  notes
	clock  clock
	comma  byte // the decimal mark of numbers; 0 if it is not known
}

// Read reads the ports of a file, in order of their names, and the notes on what was
// changed. The file may be UTF-8 or UTF-16.
func Read(r io.Reader, o Options) ([]Port, []string, error) {
	return read(&io.LimitedReader{R: r, N: maxFile + 1}, o)
}

func read(limit *io.LimitedReader, o Options) ([]Port, []string, error) {
	f := &file{Options: o, limit: limit, in: decode(bufio.NewReaderSize(limit, 64<<10)), ports: map[string][]row{}}
	f.clock.format, f.clock.day = o.Format, -1
	head, err := f.in.Peek(16 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	i := slices.IndexFunc(formats, func(x format) bool {
		if name := o.Format["name"]; name != "" {
			return name == x.name
		}
		return x.is(strings.TrimLeft(string(head), " \t\r\n"))
	})
	f.format = formats[i]
	f.kind = f.format.kind
	f.settle()
	if err = f.format.read(f); limit.N <= 0 {
		err = fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	if err != nil {
		return nil, nil, err
	}
	var ports []Port
	for _, name := range slices.Sorted(maps.Keys(f.ports)) {
		if want, given := o.Format["port"]; given && want != name {
			continue
		}
		s, err := f.place(f.ports[name])
		if err != nil {
			return nil, nil, err
		}
		ports = append(ports, Port{name, s})
	}
	if want, given := o.Format["port"]; given && len(ports) == 0 {
		return nil, nil, cli.Hint(fmt.Errorf("no port is called %q", want), "its ports: %s",
			strings.Join(slices.Sorted(maps.Keys(f.ports)), ", "))
	}
	if len(ports) == 0 {
		return nil, nil, errors.New("there are no samples")
	}
	return ports, f.notes.lines(), nil
}

// settle has what the user says of the values take the place of what the format does.
func (f *file) settle() {
	o := f.Options.Format
	switch {
	case o.has("bits"):
		f.kind.unit = 1. / 8
	case o.has("bytes"):
		f.kind.unit = 1
	}
	if o.has("rate") || o.has("amount") {
		f.rate, f.deltas = o.has("rate"), true
	}
	if o.has("start") || o.has("end") {
		f.end, f.settled = o.has("end"), true
	}
	if f.Options.Counters {
		f.counters, f.rate = true, false
	}
	f.comma = '.'
	if mark := o["decimal"]; mark != "" {
		f.comma = mark[0]
	}
}

// decode converts UTF-16 to UTF-8, and removes the mark at the beginning.
func decode(r *bufio.Reader) *bufio.Reader {
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

// add adds a row of a port.
func (f *file) add(port string, r row) error {
	if f.rows++; f.rows > maxRows {
		return fmt.Errorf("more than %d samples", maxRows)
	}
	f.ports[port] = append(f.ports[port], r)
	return nil
}

// at adds the place to an error.
func (f *file) at(line int, err error) error {
	return fmt.Errorf("%s %d: %w", f.format.unit, line, err)
}

// note is a kind of change that was made: the first one, and how many more there were.
type note struct {
	kind, text string
	more       int
}

type notes []note

func (f *file) note(line int, kind, text string, args ...any) {
	for i := range f.notes {
		if n := &f.notes[i]; n.kind == kind {
			n.more++
			return
		}
	}
	text = fmt.Sprintf("%s %d: %s", f.format.unit, line, fmt.Sprintf(text, args...))
	f.notes = append(f.notes, note{kind: kind, text: text})
}

func (n notes) lines() (all []string) {
	for _, x := range n {
		if x.more > 0 {
			x.text += fmt.Sprintf(" (and %d more)", x.more)
		}
		all = append(all, x.text)
	}
	return all
}

// Sum returns the sum of samples of several ports, and notes on times that only some of
// them have: the others had no traffic then.
func Sum(ports []Port) (*bill.Samples, []string, error) {
	slot := ports[0].Slot
	for _, p := range ports {
		if p.Slot != slot {
			return nil, nil, cli.Hint(fmt.Errorf("samples of %s are %v apart, those of %s %v", ports[0].Name, cli.Duration(slot),
				p.Name, cli.Duration(p.Slot)), "give the length of all samples with -interval")
		}
	}
	type sum struct {
		bill.Sample
		ports int
	}
	sums := map[int64]*sum{}
	for _, p := range ports {
		for x := range p.All() {
			at := (x.At + int64(slot)/2) / int64(slot)
			if s := sums[at]; s == nil {
				x.At = at * int64(slot)
				sums[at] = &sum{x, 1}
			} else {
				s.In, s.Out, s.ports = s.In+x.In, s.Out+x.Out, s.ports+1
			}
		}
	}
	var list []bill.Sample
	partial := 0
	for _, s := range sums {
		s.Line = 0
		list = append(list, s.Sample)
		if s.ports < len(ports) {
			partial++
		}
	}
	var notes []string
	if partial > 0 {
		notes = []string{fmt.Sprintf("%d of %d samples are not known of each of the %d ports: they count as nothing there",
			partial, len(list), len(ports))}
	}
	s, err := bill.NewSamples(list, slot)
	return s, notes, err
}
