package samples

import (
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

// column is a column of values.
type column struct {
	index, direction int
	port             string
	unit             float64
}

// table is the columns of a file.
type table struct {
	time, date, period, port int // -1 if there is none
	width                    int
	values                   []column
}

// tokens returns the words of a name in lower case.
func tokens(name string) []string {
	return strings.FieldsFunc(strings.ToLower(name), func(c rune) bool { return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') })
}

// is reports whether a word of the name is of a kind, the whole name without its marks
// included.
func is(name, kind string) bool {
	all := tokens(name)
	return slices.ContainsFunc(append(all, strings.Join(all, "")), func(w string) bool { return meaning[kind][w] })
}

// chosen returns the column that -format names, by name or number, and whether it does.
func (f *file) chosen(option string, names []string) (int, bool, error) {
	want, given := f.Options.Format[option]
	if !given {
		return -1, false, nil
	}
	for i, name := range names {
		if strings.EqualFold(name, want) {
			return i, true, nil
		}
	}
	if n, err := strconv.Atoi(want); err == nil && n >= 1 && n <= len(names) {
		return n - 1, true, nil
	}
	return -1, false, cli.Hint(fmt.Errorf("no column is called %s", want), "the columns: %s", strings.Join(names, ", "))
}

// columns finds the values in a list of names: in and out of each port, or else its total.
func (f *file) columns(names []string) ([]column, error) {
	var found []column
	for d, name := range directions[:total] {
		i, given, err := f.chosen(name, names)
		if err != nil {
			return nil, err
		}
		if given {
			found = append(found, column{index: i, direction: d})
		}
	}
	given := len(found) > 0
	for i, name := range names {
		for d, direction := range directions {
			if !given && !is(name, "other") && is(name, direction) {
				found = append(found, column{index: i, direction: d, port: f.portOf(name)})
				break
			}
		}
	}
	directed := slices.ContainsFunc(found, func(c column) bool { return c.direction != total })
	found = slices.DeleteFunc(found, func(c column) bool { return directed && c.direction == total })
	if len(found) == 0 {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" })
		return nil, cli.Hint(errors.New("no column is called in or out"), "the columns: %s; give -format in=NAME,out=NAME", strings.Join(names, ", "))
	}
	for i := range found {
		c := &found[i]
		for _, x := range found[:i] {
			if x.port == c.port && x.direction == c.direction {
				return nil, cli.Hint(fmt.Errorf("%q and %q are both %s", names[x.index], names[c.index], directions[c.direction]),
					"give -format in=NAME,out=NAME")
			}
		}
		if err := f.unitOf(c, names[c.index]); err != nil {
			return nil, err
		}
	}
	if !directed {
		f.note(1, "total", "%q is both directions together: they count as in", names[found[0].index])
		for i := range found {
			found[i].direction = in
		}
	}
	return found, nil
}

// portOf returns what a name says beside the direction and the unit.
func (f *file) portOf(name string) string {
	if i := strings.IndexAny(name, "(["); i > 0 {
		name = name[:i]
	}
	var rest []string
	for _, w := range strings.FieldsFunc(name, func(c rune) bool { return c == ' ' || c == '_' || c == ',' || c == ':' }) {
		l := strings.ToLower(w)
		if bytes, _ := unit(w); bytes == 0 && !meaning["in"][l] && !meaning["out"][l] && !meaning["noise"][l] && !is(w, "in") && !is(w, "out") {
			rest = append(rest, w)
		}
	}
	return strings.Join(rest, " ")
}

// unitOf finds the unit of a column: what the user says, or its name, or the format.
func (f *file) unitOf(c *column, name string) error {
	o := f.Options.Format
	bytes, rate := unit(name)
	switch {
	case o.has("bits") || o.has("bytes") || bytes == 0:
		c.unit = f.kind.unit
	default:
		c.unit = bytes
	}
	rate = rate || is(name, "rate")
	amount := is(name, "amount") && !rate
	f.deltas = f.deltas || is(name, "amount") && strings.Contains(strings.ToLower(name), "delta")
	if !o.has("rate") && !o.has("amount") && !f.counters {
		switch {
		case rate, amount:
			f.rate = rate
		case bytes != 0 && (c.unit < 1 || f.rate):
			return cli.Hint(fmt.Errorf("%q: those of a sample, or a second?", name), "give -format amount or -format rate")
		}
	}
	if c.unit == 0 && f.format.name == "grafana" {
		return cli.Hint(fmt.Errorf("%q: bits or bytes?", name), "give -format bits or -format bytes, with amount if they are not a second")
	}
	if c.unit == 0 {
		c.unit = 1
	}
	return nil
}

// header finds the columns of a table.
func (f *file) header(names []string) (t table, err error) {
	t = table{time: -1, date: -1, period: -1, port: -1, width: len(names)}
	if t.time, _, err = f.chosen("time", names); err != nil {
		return t, err
	}
	if f.Options.Format.has("in") || f.Options.Format.has("out") || t.time >= 0 {
		t.values, err = f.columns(names)
		if err != nil {
			return t, err
		}
	}
	for i, name := range names {
		lone := len(tokens(name)) <= 2
		switch {
		case slices.ContainsFunc(t.values, func(c column) bool { return c.index == i }) || i == t.time:
		case lone && is(name, "period") && t.period < 0:
			t.period = i
		case lone && is(name, "port") && t.port < 0:
			t.port = i
		case strings.EqualFold(name, "date") && slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, "time") }):
			t.date = i
		case lone && is(name, "time") && t.time < 0:
			t.time = i
		}
	}
	for i, name := range names {
		if t.time < 0 && len(tokens(name)) == 1 && is(name, "end") {
			t.time = i
			if !f.settled {
				f.end, f.settled = true, true
			}
		}
	}
	if t.time < 0 {
		return t, cli.Hint(errors.New("neither a sample nor the names of the columns: want time,in,out"), "name the columns, or give -format time=NUMBER,in=NUMBER,out=NUMBER")
	}
	if t.values == nil {
		rest := slices.Clone(names)
		for _, i := range []int{t.time, t.date, t.period, t.port} {
			if i >= 0 {
				rest[i] = ""
			}
		}
		t.values, err = f.columns(rest)
	}
	return t, err
}
