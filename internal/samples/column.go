package samples

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"framepipe/internal/cli"
)

// words maps the words in names of columns to the kind of their values. A column of the kind
// other does not have the bytes of the port.
var words = map[string]string{
	"in": "in rx inbound input ingress receive received recv inoctets ifinoctets ifhcinoctets bytesin bytesrecv rxbytes download",
	"out": "out tx outbound output egress transmit transmitted sent send outoctets ifoutoctets ifhcoutoctets bytesout " +
		"bytessent txbytes upload",
	"total":  "total sum aggregate traffic",
	"time":   "time timestamp date datetime epoch unix utc start begin from",
	"end":    "end to until",
	"period": "period duration interval",
	"port":   "interface iface ifname port portid billid device",
	"other":  "errors errs error packets packet pkts ucastpkts discards drops dropped max maximum peak min minimum avg average percentile id",
	"amount": "delta octets",
	"rate":   "rate speed bandwidth",
	"noise":  "bits bit bytes byte octets counter delta rate per second sec s traffic total volume value",
}

var meaning = map[string]map[string]bool{}

func init() {
	for kind, list := range words {
		meaning[kind] = map[string]bool{}
		for _, word := range strings.Fields(list) {
			meaning[kind][word] = true
		}
	}
}

// unitName matches a unit of bits or bytes; b is bits, and B bytes.
var unitName = regexp.MustCompile(`(?:^|[^A-Za-z])((?i:k|m|g|t)?)(i?)((?i:bits?|bytes?|octets?)|[bB]|[bB](?:ps))(\s*/\s*s(?:ec|econd)?|[pP][sS]|\s+per\s+sec(?:ond)?)?(?:[^A-Za-z]|$)`)

// unit returns the bytes of a unit that a text names, 0 if it names none, and whether it is a
// second.
func unit(text string) (bytes float64, rate bool) {
	m := unitName.FindStringSubmatch(strings.ReplaceAll(text, "_", " "))
	if m == nil || m[1] == "" && len(m[3]) == 1 && m[4] == "" {
		return 0, false
	}
	bytes = 1
	if base := m[3]; base[0] == 'b' && (len(base) == 1 || base == "bps") || strings.HasPrefix(strings.ToLower(base), "bit") {
		bytes = 1. / 8
	}
	base := 1000.
	if m[2] != "" {
		base = 1024
	}
	for i := strings.Index("kmgt", strings.ToLower(m[1])); m[1] != "" && i >= 0; i-- {
		bytes *= base
	}
	return bytes, m[4] != "" || strings.EqualFold(m[3], "bps")
}

// series is the columns of a port.
type series struct {
	port   string
	values [2]column
}

// column is where a line has a value, -1 if it has none, and the bytes in one.
type column struct {
	index int
	unit  float64
}

// table is the columns of a file.
type table struct {
	time, date, period, port int // -1 if there is none
	width, need              int // columns, and how many of these a line must have
	series                   []series
}

// name is a name of a column.
type name struct {
	text      string
	words     []string // in lower case, and at last all together
	direction int      // -1 if it has none
}

func parseName(text string) name {
	words := strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') })
	n := name{text, append(words, strings.Join(words, "")), -1}
	for d := total; d >= in; d-- {
		if n.is(directions[d]) && !n.is("other") {
			n.direction = d
		}
	}
	return n
}

// is reports whether a word of the name is of a kind.
func (n name) is(kind string) bool {
	return slices.ContainsFunc(n.words, func(w string) bool { return meaning[kind][w] })
}

// short reports whether the name is one of a few words, and one of a kind.
func (n name) short(words int, kind string) bool { return len(n.words)-1 <= words && n.is(kind) }

// port returns what a name says beside the direction and the unit.
func (n name) port() string {
	text := n.text
	if i := strings.IndexAny(text, "(["); i > 0 {
		text = text[:i]
	}
	var rest []string
	for _, w := range strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" _,:", c) }) {
		x := parseName(w)
		if bytes, _ := unit(w); bytes == 0 && !meaning["noise"][strings.ToLower(w)] && !x.is("in") && !x.is("out") {
			rest = append(rest, w)
		}
	}
	return strings.Join(rest, " ")
}

// chosen returns the column that -format names, by name or number, or else -1.
func (f *file) chosen(option string, names []string) (int, error) {
	want, given := f.Options.Format[option]
	if !given {
		return -1, nil
	}
	if i := slices.IndexFunc(names, func(name string) bool { return strings.EqualFold(name, want) }); i >= 0 {
		return i, nil
	}
	if n, err := strconv.Atoi(want); err == nil && n >= 1 && n <= len(names) {
		return n - 1, nil
	}
	return -1, cli.Hint(fmt.Errorf("no column is called %s", want), "the columns: %s", strings.Join(names, ", "))
}

// header finds the columns of a table in their names, which stand in a line: the time if the
// table has one, and in and out of each port, or else its total.
func (f *file) header(line int, texts []string, timed bool) (*table, error) {
	t := &table{time: -1, date: -1, period: -1, port: -1, width: len(texts)}
	var chosen [2]int
	var err error
	for i, to := range []*int{&chosen[in], &chosen[out], &t.time} {
		if *to, err = f.chosen([]string{"in", "out", "time"}[i], texts); err != nil {
			return nil, err
		}
	}
	names := make([]name, len(texts))
	for i, text := range texts {
		names[i] = parseName(text)
	}
	if timed {
		if err := f.roles(t, names, chosen); err != nil {
			return nil, err
		}
	}
	if chosen != [2]int{-1, -1} {
		for i := range names {
			names[i].direction = -1
		}
		for d, i := range chosen {
			if i >= 0 && err == nil {
				names[i].direction = d
				err = f.value(t, names, "", d, i)
			}
		}
	} else {
		err = f.values(line, t, names)
	}
	t.need = max(t.time, t.date, t.period, t.port) + 1
	for _, s := range t.series {
		t.need = max(t.need, s.values[in].index+1, s.values[out].index+1)
	}
	if f.whole {
		t.need = t.width
	}
	return t, err
}

// roles finds the columns that are no values, and takes their names from the others.
func (f *file) roles(t *table, names []name, chosen [2]int) error {
	dated := slices.ContainsFunc(names, func(n name) bool { return strings.EqualFold(n.text, "time") })
	end := -1
	for i, n := range names {
		var role *int
		switch {
		case i == chosen[in] || i == chosen[out]:
			continue
		case i == t.time:
			role = &t.time
		case n.short(2, "period") && t.period < 0:
			role = &t.period
		case n.short(2, "port") && t.port < 0:
			role = &t.port
		case dated && strings.EqualFold(n.text, "date"):
			role = &t.date
		case n.short(2, "time") && t.time < 0:
			role = &t.time
		case n.short(1, "end") && end < 0:
			role = &end
		default:
			continue
		}
		*role, names[i] = i, name{direction: -1}
	}
	if t.time < 0 && end >= 0 {
		t.time = end
		if !f.settled {
			f.end, f.settled = true, true
		}
	}
	if t.time < 0 {
		return cli.Hint(errors.New("neither a sample nor the names of the columns: want time,in,out"),
			"name the columns, or give -format time=NUMBER,in=NUMBER,out=NUMBER")
	}
	return nil
}

// values finds the columns of values: those of directions, or else of both together.
func (f *file) values(line int, t *table, names []name) error {
	directed := slices.ContainsFunc(names, func(n name) bool { return n.direction == in || n.direction == out })
	var all []string
	for i, n := range names {
		if n.text != "" {
			all = append(all, n.text)
		}
		if n.direction < 0 || directed && n.direction == total {
			continue
		}
		if n.direction == total {
			f.note(line, "total", "%q is both directions together: they count as in", n.text)
		}
		if err := f.value(t, names, n.port(), n.direction%total, i); err != nil {
			return err
		}
	}
	if len(t.series) == 0 {
		return cli.Hint(errors.New("no column is called in or out"), "the columns: %s; give -format in=NAME,out=NAME", strings.Join(all, ", "))
	}
	return nil
}

// value adds the column of a direction of a port.
func (f *file) value(t *table, names []name, port string, direction, index int) (err error) {
	i := slices.IndexFunc(t.series, func(s series) bool { return s.port == port })
	if i < 0 {
		i = len(t.series)
		t.series = append(t.series, series{port, [2]column{{index: -1}, {index: -1}}})
	}
	c := &t.series[i].values[direction]
	if c.index >= 0 {
		return cli.Hint(fmt.Errorf("%q and %q are both %s", names[c.index].text, names[index].text, directions[names[index].direction]),
			"give -format in=NAME,out=NAME")
	}
	c.index = index
	c.unit, err = f.resolve(names[index])
	return err
}

// resolve returns the bytes in one of a column: as the user says, or its name, or the format.
// It settles whether values are those of a second.
func (f *file) resolve(n name) (float64, error) {
	o := f.Options.Format
	bytes, rate := unit(n.text)
	named := bytes != 0
	if !named || o.has("bits") || o.has("bytes") {
		bytes = f.kind.unit
	}
	rate = rate || n.is("rate")
	f.deltas = f.deltas || n.is("amount") && strings.Contains(strings.ToLower(n.text), "delta")
	if !o.has("rate") && !o.has("amount") && !f.counters {
		switch {
		case rate || n.is("amount"):
			f.rate = rate
		case named && (bytes < 1 || f.rate):
			return 0, cli.Hint(fmt.Errorf("%q: those of a sample, or a second?", n.text), "give -format amount or -format rate")
		}
	}
	if bytes == 0 && f.format == "grafana" {
		return 0, cli.Hint(fmt.Errorf("%q: bits or bytes?", n.text), "give -format bits or -format bytes, with amount if they are not a second")
	}
	return cmp.Or(bytes, 1), nil
}
