package samples

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"framepipe/internal/calendar"
	"framepipe/internal/cli"
)

// maxNames is the most names of columns or labels in a JSON or XML file.
const maxNames = 1 << 10

var errNames = fmt.Errorf("more than %d names", maxNames)

// readVnstat reads vnstat --json: the five-minute samples, or the hours if there are none or
// -interval asks for them.
func readVnstat(f *file) error {
	t, err := f.header(1, []string{"time", "port", "in", "out"}, true)
	if err != nil {
		return err
	}
	version, port, minutes, n := "", "", false, 0
	sample := map[string]string{}
	const traffic = "interfaces.traffic."
	err = f.tree(func(path, text string) error {
		switch path {
		case "jsonversion":
			version = text
			return checkVersion(text)
		case "interfaces.name":
			port, minutes = text, false
		}
		length, name, _ := strings.Cut(strings.TrimPrefix(path, traffic), ".")
		switch {
		case length != "fiveminute" && length != "hour":
		case slices.Contains(vnstatNames, name):
			sample[name] = text
		}
		return nil
	}, func(path string) error {
		length, is := strings.CutPrefix(path, traffic)
		switch {
		case !is || strings.Contains(length, "."):
			return nil
		case len(sample) == 0: // of all samples
			n = 0
			return nil
		}
		defer clear(sample)
		n++
		period := time.Hour
		if length == "fiveminute" {
			period = 5 * time.Minute
		}
		switch hours := f.Interval == time.Hour; {
		case hours != (period == time.Hour) && (hours || minutes):
			return nil
		case period != time.Hour && !minutes:
			delete(f.ports, port)
			minutes = true
		}
		return f.at(n, f.record(t, row{line: n, period: int64(period)}, []string{vnstatTime(sample), port, sample["rx"], sample["tx"]}))
	})
	return cmp.Or(err, checkVersion(version))
}

func checkVersion(version string) error {
	if version == "2" {
		return nil
	}
	return cli.Hint(fmt.Errorf("version %q of vnStat's JSON", version), "version 2 is known: use vnStat 2")
}

var vnstatNames = []string{"timestamp", "rx", "tx", "date.year", "date.month", "date.day", "time.hour", "time.minute"}

// vnstatTime returns the time of a sample. Those of older versions have only the local time.
func vnstatTime(sample map[string]string) string {
	if text := sample["timestamp"]; text != "" {
		return text
	}
	var n [5]any
	for i, name := range vnstatNames[3:] {
		n[i], _ = strconv.Atoi(sample[name])
	}
	return fmt.Sprintf("%04d-%02d-%02d %02d:%02d", n[:]...)
}

// readPrometheus reads the answer to a range query. The name of a series or a label says
// its direction.
func readPrometheus(f *file) error {
	status, message, result := "", "", ""
	said := f.counters || f.Options.Format.has("rate") || f.Options.Format.has("amount")
	var t *table // of a series
	count, n := 0, 0
	metric := map[string]string{}
	var point []string
	check := func() error {
		if status == "success" && result == "matrix" {
			return nil
		}
		return cli.Hint(fmt.Errorf("status %q, %s, result type %q", status, cmp.Or(message, "no error"), result), "ask /api/v1/query_range")
	}
	err := f.tree(func(path, text string) error {
		switch path {
		case "status":
			status = text
		case "error":
			message = text
		case "data.resultType":
			if result = text; text != "matrix" {
				return check()
			}
		case "data.result.values":
			if point = append(point, text); t == nil || len(point) > 2 {
				return f.at(n+1, errors.New("want the labels of a series, and then times and values"))
			}
		}
		if key, is := strings.CutPrefix(path, "data.result.metric."); is {
			if metric[key] = text; len(metric) > maxNames {
				return errNames
			}
		}
		return nil
	}, func(path string) (err error) {
		switch {
		case path == "data.result.metric":
			count++
			n = 0
			t, err = f.series(count, metric, said)
		case path == "data.result":
			t = nil
			clear(metric)
		case path == "data.result.values" && len(point) > 0:
			n++
			err = f.at(n, f.record(t, row{line: n}, point))
			point = point[:0]
		}
		return err
	})
	return cmp.Or(err, check())
}

// series returns the table of a series by its labels; said is whether the user says what its
// values are.
func (f *file) series(count int, metric map[string]string, said bool) (*table, error) {
	name, direction := seriesOf(metric)
	for d, option := range directions[:total] {
		if want := f.Options.Format[option]; want != "" && strings.Contains(strings.ToLower(fmt.Sprint(metric)), strings.ToLower(want)) {
			direction = d
		}
	}
	if direction < 0 {
		return nil, cli.Hint(fmt.Errorf("series %d (%s) is neither in nor out by its name and labels", count, name),
			"ask for series with their names, or give -format in=WORD,out=WORD of their labels")
	}
	if text := metric["__name__"]; strings.HasSuffix(text, "_total") || parseName(text).is("amount") {
		f.counters = f.counters || !f.Options.Format.has("rate") && !f.Options.Format.has("amount")
	} else if !said {
		return nil, cli.Hint(fmt.Errorf("series %d (%s): counters, or rates?", count, name), "give -counters, or -format rate,bits or -format rate,bytes")
	}
	s := series{port: name, values: [2]column{{index: -1}, {index: -1}}}
	s.values[direction] = column{1, f.kind.unit}
	return &table{date: -1, period: -1, port: -1, width: 2, need: 2, series: []series{s}}, nil
}

// seriesOf returns the labels of a series that do not say its direction, and the direction, -1
// if none does.
func seriesOf(metric map[string]string) (name string, direction int) {
	direction = -1
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(metric)) {
		value, says := metric[key], false
		for d, word := range directions[:total] {
			if (key == "__name__" || key == "direction" || key == "dir") && parseName(value).is(word) {
				direction, says = d, true
			}
		}
		if key != "__name__" && !says {
			labels = append(labels, key+"="+value)
		}
	}
	return strings.Join(labels, " "), direction
}

// readGraph reads the graph of a bill from the API of LibreNMS.
func readGraph(f *file) error {
	t, err := f.header(1, []string{"time", "in", "out"}, true)
	if err != nil {
		return err
	}
	paths := []string{"graph_data.ticks", "graph_data.in_data", "graph_data.out_data"}
	var columns [3][]string
	err = f.tree(func(path, text string) error {
		if i := slices.Index(paths, path); i >= 0 {
			if columns[i] = append(columns[i], text); len(columns[i]) > maxRows {
				return errMany
			}
		}
		return nil
	}, func(string) error { return nil })
	if err != nil {
		return err
	}
	ticks, ins, outs := columns[0], columns[1], columns[2]
	if len(ins) != len(ticks) || len(outs) != len(ticks) {
		return fmt.Errorf("%d times, but %d and %d values", len(ticks), len(ins), len(outs))
	}
	for i := range ticks {
		if err := f.record(t, row{line: i + 1}, []string{ticks[i], ins[i], outs[i]}); err != nil {
			return f.at(i+1, err)
		}
	}
	if len(ticks) > 1 && f.Interval == 0 {
		first, _, _ := epoch(ticks[0])
		last, _, _ := epoch(ticks[len(ticks)-1])
		if apart := (last - first) / int64(len(ticks)-1); apart > int64(8*time.Minute) {
			return cli.Hint(fmt.Errorf("the values are means of %v", cli.Duration(round(apart))), "ask the API with reducefactor=1")
		}
	}
	return nil
}

// archive is the columns and rows of rrdtool xport and dump.
type archive struct {
	table       *table
	names       []string
	fields      []string // of a row
	start, step int64    // seconds
	rows        int
}

func (a *archive) name(text string) error {
	if a.names = append(a.names, text); len(a.names) > maxNames {
		return errNames
	}
	return nil
}

func (a *archive) field(text string) error {
	if a.fields = append(a.fields, text); len(a.fields) > len(a.names)+1 {
		return fmt.Errorf("more values than names")
	}
	return nil
}

// row adds the fields as a row.
func (f *file) row(a *archive) (err error) {
	fields := a.fields
	a.fields, a.rows = a.fields[:0], a.rows+1
	at := time.Unix(a.start+int64(a.rows-1)*a.step, 0)
	r := row{line: a.rows, period: a.step * int64(time.Second), at: at.UnixNano()}
	if err := calendar.CheckYear(at); err != nil {
		return f.at(a.rows, err)
	}
	if len(fields) == len(a.names)+1 { // with rrdtool xport -t
		if r.at, _, err = f.clock.parse(fields[0]); err != nil {
			return f.at(a.rows, err)
		}
		fields = fields[1:]
	}
	return f.at(a.rows, f.record(a.table, r, fields))
}

// readXport reads rrdtool xport, XML or JSON. Rows without a time follow each other from the
// start on.
func readXport(f *file) error {
	var a archive
	return f.tree(func(path, text string) (err error) {
		switch strings.TrimPrefix(path, "xport.") {
		case "meta.start":
			a.start, err = strconv.ParseInt(text, 10, 64)
		case "meta.step":
			a.step, err = strconv.ParseInt(text, 10, 64)
		case "meta.legend", "meta.legend.entry":
			err = a.name(text)
		case "data", "data.row.t", "data.row.v":
			err = a.field(text)
		}
		return err
	}, func(path string) (err error) {
		if path = strings.TrimPrefix(path, "xport."); path != "data" && path != "data.row" || len(a.fields) == 0 {
			return nil
		}
		if a.table == nil {
			if a.step <= 0 || a.step > 366*86400 || a.start < 0 || a.start > 1e10 {
				return fmt.Errorf("start %d, step %d", a.start, a.step)
			}
			if a.table, err = f.header(1, a.names, false); err != nil {
				return err
			}
			o, first := f.Options.Format, a.table.series[0].values
			if !o.has("bits") && !o.has("bytes") && max(first[in].unit, first[out].unit) == 1 {
				f.note(1, "unit", "values count as bytes a second: if they are bits, give -format bits")
			}
		}
		return f.row(&a)
	})
}

// readDump reads rrdtool dump: the means of the shortest steps, or those of -interval.
func readDump(f *file) error {
	var a archive
	var step, last, per int64 // seconds, seconds, steps in a row
	mean, taken := false, false
	err := f.tree(func(path, text string) (err error) {
		switch path {
		case "rrd.step":
			step, err = strconv.ParseInt(text, 10, 64)
		case "rrd.lastupdate":
			last, err = strconv.ParseInt(text, 10, 64)
		case "rrd.ds.name":
			err = a.name(text)
		case "rrd.rra.cf":
			mean = text == "AVERAGE"
		case "rrd.rra.pdp_per_row":
			per, err = strconv.ParseInt(text, 10, 64)
		case "rrd.rra.database.row.v":
			err = a.field(text)
		}
		return err
	}, func(path string) (err error) {
		switch {
		case path == "rrd.rra" && taken:
			err = f.endAt(last-last%a.step, &a)
			fallthrough
		case path == "rrd.rra":
			a.rows, taken = 0, false
		case path == "rrd.rra.database.row" && a.rows == 0:
			if step <= 0 || step > 86400 || last < 0 || last > 1e10 {
				return fmt.Errorf("step %d, last update %d", step, last)
			}
			mean = mean && per > 0 && per <= 366*86400/step
			wanted := f.Interval == 0 || f.Interval == time.Duration(per*step)*time.Second
			if taken = mean && wanted && (a.step == 0 || per*step < a.step); taken {
				clear(f.ports) // of longer steps
				a.step, f.rows = per*step, 0
				a.table, err = f.header(1, a.names, false)
			}
			fallthrough
		case path == "rrd.rra.database.row":
			if taken && err == nil {
				return f.row(&a)
			}
			a.fields, a.rows = a.fields[:0], a.rows+1
		}
		return err
	})
	if err == nil && a.step == 0 {
		err = cli.Hint(errors.New("no archive of means (AVERAGE) has these steps"), "give its step with -interval, or none")
	}
	return err
}

// endAt moves the rows of an archive so that the last one is at a time in seconds.
func (f *file) endAt(at int64, a *archive) error {
	for _, rows := range f.ports {
		for i := range rows {
			r := &rows[i]
			if r.at += (at - int64(a.rows-1)*a.step) * int64(time.Second); r.at < 0 {
				return f.at(r.line, errors.New("the time is before 1970"))
			}
		}
	}
	return nil
}
