package samples

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"framepipe/internal/cli"
)

// kinds are what columns are, with the words that say so in a name of at most so many words. A
// name is of the first kind that fits.
var kinds = []struct {
	name  string
	most  int
	words string
}{
	{"period", 2, "period duration interval"},
	{"date", 1, "date"},
	{"time", 2, "time timestamp date datetime epoch unix utc start begin from"},
	{"other", 99, "errors errs error packets packet pkts pps ucastpkts frames discards drops dropped " +
		"percent util utilization utilisation " +
		"max maximum peak min minimum avg average percentile"},
	{"in", 99, "in rx inbound input ingress receive received recv download " +
		"inoctets ifinoctets ifhcinoctets bytesin bytesrecv rxbytes"},
	{"out", 99, "out tx outbound output egress transmit transmitted sent send upload " +
		"outoctets ifoutoctets ifhcoutoctets bytesout bytessent txbytes"},
	{"port", 2, "interface iface ifname port portid billid device"},
	{"other", 99, "id"},
	{"total", 99, "total sum aggregate traffic"},
}

// The words of names that say what values are, and those that do not say which port's.
const (
	rateWords   = "rate speed bandwidth"
	amountWords = "delta octets"
	noiseWords  = "bits bit bytes byte octets counter delta rate per second sec s traffic total volume value"
)

// split returns the words of a name in lower case, and at last all together.
func split(name string) []string {
	mark := func(c rune) bool { return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') }
	words := strings.FieldsFunc(strings.ToLower(name), mark)
	return append(words, strings.Join(words, ""))
}

// has reports whether a list has any of the words of a name.
func has(list string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return w != "" && strings.Contains(" "+list+" ", " "+w+" ") })
}

func kindOf(name string) string {
	words := split(name)
	for _, k := range kinds {
		if len(words)-1 <= k.most && has(k.words, words) {
			return k.name
		}
	}
	return ""
}

// portOf returns what a name says beside the direction and the unit.
func portOf(name string) string {
	if i := strings.IndexAny(name, "(["); i > 0 {
		name = name[:i]
	}
	words := strings.FieldsFunc(name, func(c rune) bool { return strings.ContainsRune(" _,:", c) })
	words = slices.DeleteFunc(words, func(w string) bool {
		scale, _, _ := unit(w)
		kind := kindOf(w)
		return scale != 0 || kind == "in" || kind == "out" || has(noiseWords, []string{strings.ToLower(w)})
	})
	return strings.Join(words, " ")
}

var (
	// unitName matches a unit of bits or bytes; b is bits, and B bytes.
	unitName = regexp.MustCompile(`(?:^|[^A-Za-z])((?i:kilo|mega|giga|tera|k|m|g|t)?)(i?)` +
		`((?i:bits?|bytes?|octets?)|[bB])([pP][sS])?(?:[^A-Za-z]|$)`)
	// strangeUnit matches a word that may have a unit which unitName does not match.
	strangeUnit = regexp.MustCompile(`bit|byte|octet|bps`)
	// unitPlace matches where a unit stands: in brackets, where a name of a port has digits.
	unitPlace = regexp.MustCompile(`%|[(\[][^\d)\]]*[)\]]`)

	// perSecond matches a rate per second, and perHour one per another time.
	perSecond = regexp.MustCompile(`(?i)(/ *|\bper *)s(ec(onds?)?)?\b| s(ec(onds?)?)?$`)
	perHour   = regexp.MustCompile(`(?i)(/ *|\bper *)\d*(m|min(ute)?s?|h|hr|hours?|d|days?)\b`)
)

// unit finds the unit in a text. scale is its number of bits or bytes, and 0 if there is no unit. bytes is the
// size of one of them: 1, 1/8, or 0 if it is not clear. rate says that the unit is one per second.
//
// BPS means bits to some and bytes to others, and so does mb in small letters. Values per hour or per
// minute have no clear size either.
func unit(text string) (scale, bytes float64, rate bool) {
	text = strings.ReplaceAll(text, "_", " ")
	m := unitName.FindStringSubmatch(text)
	rate = perSecond.MatchString(text)
	if m == nil || m[1] == "" && len(m[3]) == 1 && m[4] == "" && !rate {
		return 0, 0, rate
	}
	prefix, base, ps := 1000., m[3], m[4]
	if m[2] != "" {
		prefix = 1024
	}
	if m[1] != "" {
		scale = float64(1 + strings.Index("kmgt", strings.ToLower(m[1][:1])))
	}
	scale, rate = math.Pow(prefix, scale), rate || ps != ""
	switch {
	case base+ps == "BPS" || base+ps == "b" && text == strings.ToLower(text) || perHour.MatchString(text):
		return scale, 0, rate
	case base == "b" || strings.HasPrefix(strings.ToLower(base), "bit"):
		return scale, 1. / 8, rate
	}
	return scale, 1, rate
}

// strange reports whether a name may have a unit that is not known.
func strange(name string) bool {
	scale, _, _ := unit(name)
	return perHour.MatchString(name) || scale == 0 && (unitPlace.MatchString(name) ||
		slices.ContainsFunc(split(name), func(w string) bool { return kindOf(w) == "" && strangeUnit.MatchString(w) }))
}

// utcName matches a name that says that times are of UTC, and not some hours from it.
var utcName = regexp.MustCompile(`(?i)(?:^|[^a-z])(?:utc|gmt)[\W_]*(?:[a-z]|$)`)

// table is the columns of a file, -1 where there is none.
type table struct {
	time, date, period, port int
	width, need              int // columns, and how many of these a line must have
	series                   []series
}

// series is the columns of a port, and the bytes in one of their values.
type series struct {
	port  string
	value [2]int
	unit  [2]float64
}

// kindsOf returns what the columns are by -format, which has their names or numbers, and else by
// their names.
func (f *file) kindsOf(names []string) ([]string, error) {
	kinds := make([]string, len(names))
	for i, name := range names {
		kind := kindOf(name)
		given := kind != "port" && f.Format.has(kind) || kind == "total" && f.Format.has("in", "out")
		if !given {
			kinds[i] = kind
		}
	}
	for _, option := range []string{"time", "in", "out"} {
		want, given := f.Format[option]
		if !given {
			continue
		}
		i := slices.IndexFunc(names, func(name string) bool { return strings.EqualFold(name, want) })
		if n, err := strconv.Atoi(want); i < 0 && err == nil && n <= len(names) {
			i = n - 1
		}
		if i < 0 {
			return nil, cli.Hint(fmt.Errorf("no column is called %s", want), "the columns: %s", strings.Join(names, ", "))
		}
		kinds[i] = option
	}
	return kinds, nil
}

// header finds the columns of a table by their names, which stand in a line: the time, and in
// and out of each port, or else its total.
func (f *file) header(line int, names ...string) (*table, error) {
	kinds, err := f.kindsOf(names)
	if err != nil {
		return nil, err
	}
	column := func(kind string) int { return slices.Index(kinds, kind) }
	t := &table{time: column("time"), date: column("date"), period: column("period"), port: column("port"), width: len(names)}
	switch {
	case t.time >= 0 && !strings.EqualFold(names[t.time], "time"):
		t.date = -1
	case t.time < 0 && t.date >= 0:
		t.time, t.date = t.date, -1
	case t.time < 0:
		return nil, cli.Hint(errors.New("neither a sample nor the names of the columns: want time,in,out"),
			"name the columns, or give -format time=NUMBER,in=NUMBER,out=NUMBER")
	}
	f.utc = utcName.MatchString(names[t.time])
	if !f.settled && has("end ends ending until", split(names[t.time])) {
		f.end, f.settled = true, true
	}
	if t.period >= 0 && has("ms min mins minutes h hours", split(names[t.period])) {
		return nil, cli.Hint(fmt.Errorf("%q: want seconds", names[t.period]), "convert them, or rename the column")
	}
	directed := column("in") >= 0 || column("out") >= 0
	t.need = max(t.time, t.date, t.period, t.port) + 1
	for i, name := range names {
		d := slices.Index(directions[:], kinds[i])
		if d < 0 || directed && d == total {
			continue
		}
		if d == total {
			f.note(line, "%q is both directions together: they count as in", name)
		}
		if err := f.addColumn(t, i, d, names); err != nil {
			return nil, err
		}
		t.need = max(t.need, i+1)
	}
	if len(t.series) == 0 {
		return nil, cli.Hint(errors.New("no column is called in or out"),
			"the columns: %s; give -format in=NAME,out=NAME or their numbers", strings.Join(names, ", "))
	}
	if f.name != "csv" {
		t.need = t.width
	}
	return t, nil
}

// addColumn adds a column of a direction.
func (f *file) addColumn(t *table, i, direction int, names []string) (err error) {
	port := ""
	if !f.Format.has("in", "out") {
		port = portOf(names[i])
	}
	first := len(t.series) == 0
	k := slices.IndexFunc(t.series, func(s series) bool { return s.port == port })
	if k < 0 {
		k = len(t.series)
		t.series = append(t.series, series{port: port, value: [2]int{-1, -1}})
	}
	s, d := &t.series[k], direction%total // both together are in
	if s.value[d] >= 0 {
		return cli.Hint(fmt.Errorf("%q and %q are both %s", names[s.value[d]], names[i], directions[direction]),
			"give -format in=NAME,out=NAME")
	}
	rate := false
	if s.unit[d], rate, err = f.resolve(names[i]); err != nil {
		return err
	}
	if !first && rate != f.rate {
		err := fmt.Errorf("%q: of some columns values are those of a sample, and of others of a second", names[i])
		return cli.Hint(err, "if that is not so, give -format amount or -format rate")
	}
	s.value[d], f.rate = i, rate
	return nil
}

// resolve returns the bytes in one of a column, and whether its values are those of a second: as the user
// says, or its name, or the format.
func (f *file) resolve(name string) (bytes float64, rate bool, err error) {
	o, words := f.Format, split(name)
	scale, bytes, second := unit(name)
	bits := bytes == 1./8
	if scale == 0 || o.has("bits", "bytes") {
		bytes = f.kind.unit
	}
	rate = f.rate
	switch {
	case o.has("rate", "amount") || f.Counters:
	case second || has(rateWords, words):
		rate = true
	case has(amountWords, words):
		rate = false
	case bits || scale != 0 && f.rate:
		return 0, false, cli.Hint(fmt.Errorf("%q: those of a sample, or a second?", name), "give -format amount or -format rate")
	}
	switch {
	case o.has("bits", "bytes"):
	case f.name == "csv" && strange(name):
		return 0, false, cli.Hint(fmt.Errorf("%q: the unit is not known", name),
			"name it as in (Mbit/s) or in (MB), or if it is a bit or a byte give -format bits or -format bytes")
	case bytes == 0 && (f.name != "csv" || rate || scale != 0):
		return 0, false, cli.Hint(fmt.Errorf("%q: bits or bytes?", name),
			"give -format bits or -format bytes, with amount if they are not a second")
	}
	return cmp.Or(scale, 1) * cmp.Or(bytes, 1), rate, nil
}
