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
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
)

// maxRows is the most rows that are kept. Files are untrusted.
const maxRows = calendar.MaxSlots

var (
	errNone  = errors.New("there are no samples")
	errMany  = fmt.Errorf("more than %d samples", maxRows)
	errLarge = errors.New("more than 4 EiB, the most bytes that can be counted")
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
	unit  float64 // bytes in one; 0 if it is not known
	rate  bool    // a second
	end   bool    // times are the ends of samples
	flows bool    // rows are flows, of which many have one time
}

// format is a line of the table.
type format struct {
	name   string
	begins string // a regular expression: how such a file begins
	read   func(*file) error
	kind
}

var rates = kind{unit: 1, rate: true, end: true}

// A file has the first format that recognises it. Anything else is CSV.
var formats = []format{
	{"vnstat", `(?s)^\{.*"vnstatversion"`, readVnstat, kind{unit: 1}},
	{"prometheus", `(?s)^\{.*"resultType"`, readPrometheus, kind{unit: 1, end: true}},
	{"librenms", `(?s)^\{.*"graph_data"`, readGraph, kind{unit: 1. / 8, rate: true, end: true}},
	{"librenms", `^.*in_delta.*out_delta`, readTable, kind{unit: 1, end: true}},
	{"xport", `(?s)^((<.*)?<xport>|\{.*"about")`, readXport, rates},
	{"dump", `(?s)^(<.*)?<rrd>`, readDump, rates},
	{"fetch", `^[^\n,;"<{]*\n\s*\d{9,10}: \S`, readTable, rates},
	{"mrtg", `^\d{9,10} -?\d+ -?\d+\r?\n\d{9,10} \d+ \d+ \d+ \d+\s`, readMRTG, rates},
	{"nfdump", `^ts,te,td,`, readNfdump, kind{unit: 1, flows: true}},
	{"cacti", cactiHead, readCacti, kind{rate: true, end: true}},
	{"grafana", `^(sep=.\r?\n)?"(?i:time)"[,;\t]"`, readTable, kind{rate: true, end: true}},
	{"csv", ``, readTable, kind{}},
}

// find returns the format that the user names, or that the beginning of a file shows.
func find(name, head string) format {
	named := slices.Clone(formats)
	if name != "" {
		named = slices.DeleteFunc(named, func(x format) bool { return x.name != name })
	}
	i := slices.IndexFunc(named, func(x format) bool { return regexp.MustCompile(x.begins).MatchString(head) })
	return named[max(i, 0)]
}

// row is what a file says of a time.
type row struct {
	line   int
	at     int64 // nanoseconds since the Unix epoch
	wall   bool  // at is the time of a clock of the zone, as if it were UTC
	period int64 // nanoseconds that the values are of; 0 if the file does not say it
	value  [2]float64
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
	format
	settled bool   // the format or the user says whether times are ends
	head    string // how it begins
	in      input
	part    string // what errors number: line, or value
	ports   map[string][]row
	kept    int    // rows
	seq     int    // of a value of a document
	comment string // of XML, the last one
	late    int64  // nanoseconds from the end of a sample to its time
	notes   []note
	layouts []string // of times, the last one that fitted first
	utc     bool     // the name of the times says that they are of UTC
	comma   byte     // the decimal mark of numbers; 0 if it is not known
}

// Read reads the ports of a file, in order of their names, and the notes on what was
// changed. The file may be UTF-8 or UTF-16. The memory that this takes is that of the samples.
func Read(r io.Reader, o Options) ([]Port, []string, error) {
	in := decode(r)
	head, err := in.Peek(16 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	f := &file{Options: o, in: input{Reader: in}, layouts: o.Format.layouts(), part: "line", ports: map[string][]row{}}
	f.head = strings.TrimLeft(string(head), " \t\r\n")
	f.format = find(o.Format["name"], f.head)
	f.settle()
	if err := f.read(f); err != nil {
		return nil, nil, err
	}
	names := slices.Sorted(maps.Keys(f.ports))
	if want, given := o.Format["port"]; given {
		if f.ports[want] == nil {
			err := fmt.Errorf("no port is called %q", want)
			return nil, nil, cli.Hint(err, "its ports: %s", strings.Join(names, ", "))
		}
		names = []string{want}
	}
	if len(names) == 0 {
		return nil, nil, errNone
	}
	var ports []Port
	for _, name := range names {
		s, err := f.place(f.ports[name])
		if err != nil {
			return nil, nil, err
		}
		ports = append(ports, Port{name, s})
	}
	var notes []string
	for _, n := range f.notes {
		if n.more > 0 {
			n.text += fmt.Sprintf(" (and %d more)", n.more)
		}
		notes = append(notes, n.text)
	}
	return ports, notes, nil
}

// settle has what the user says of the values take the place of what the format does.
func (f *file) settle() {
	o := f.Format
	switch {
	case o.has("bits"):
		f.kind.unit = 1. / 8
	case o.has("bytes"):
		f.kind.unit = 1
	}
	f.rate = !f.Counters && (o.has("rate") || f.rate && !o.has("amount"))
	f.end = o.has("end") || f.end && !o.has("start")
	f.settled = o.has("start", "end") || f.name != "csv" && f.name != "grafana"
	f.comma = cmp.Or(o["decimal"], ".")[0]
}

// at adds the place to an error.
func (f *file) at(line int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %d: %w", f.part, line, err)
}

// note is a kind of change that was made, with one format: the first one, and how many more there were.
type note struct {
	format, text string
	more         int
}

func (f *file) note(line int, format string, args ...any) {
	i := slices.IndexFunc(f.notes, func(n note) bool { return n.format == format })
	if i >= 0 {
		f.notes[i].more++
		return
	}
	f.notes = append(f.notes, note{format, fmt.Sprintf("%s %d: %s", f.part, line, fmt.Sprintf(format, args...)), 0})
}

// Sum returns the sum of samples of several ports, and a note on those that not all of them
// have: the others had no traffic then.
func Sum(ports []Port) (*bill.Samples, []string, error) {
	slot := ports[0].Slot
	g := &grid{file: &file{part: "sample"}, step: int64(slot), slot: int64(slot)}
	for _, p := range ports {
		if p.Slot != slot {
			return nil, nil, cli.Hint(fmt.Errorf("samples of %s are %v apart, those of %s %v", ports[0].Name, cli.Duration(slot),
				p.Name, cli.Duration(p.Slot)), "give the length of all samples with -interval")
		}
		for x := range p.All() {
			g.rows = append(g.rows, row{at: x.At, period: int64(slot), value: [2]float64{float64(x.In), float64(x.Out)}})
		}
	}
	slices.SortFunc(g.rows, byTime)
	if err := g.fit(); err != nil {
		return nil, nil, err
	}
	var notes []string
	if all := len(g.list) * len(ports); len(g.rows) < all {
		notes = []string{fmt.Sprintf("%d of %d samples of the ports are not known: they count as nothing", all-len(g.rows), all)}
	}
	s, err := bill.NewSamples(g.list, slot)
	return s, notes, err
}
