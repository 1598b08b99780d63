package samples

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"framepipe/internal/cli"
)

// entry adds the rows of a value of a document, which covers a period.
func (f *file) entry(t *table, period time.Duration, fields ...string) error {
	f.values++
	return f.at(f.values, f.record(t, row{line: f.values, period: int64(period)}, fields))
}

// readVnstat reads vnstat --json: the five-minute samples, or the hours, which come after them, if a port has no others or
// -interval asks for hours.
func readVnstat(f *file) error {
	t, err := f.header(1, "time", "port", "in", "out")
	if err != nil {
		return err
	}
	var version, port string
	samples := func(length time.Duration) func(func(any) error) error {
		return func(decode func(any) error) error {
			var x struct {
				Date              struct{ Year, Month, Day int }
				Time              struct{ Hour, Minute int }
				Timestamp, Rx, Tx json.Number
			}
			if err := decode(&x); err != nil {
				return err
			}
			rows, at := f.ports[port], x.Timestamp.String()
			if len(rows) > 0 && rows[0].period != int64(length) || f.Interval == time.Hour && length < time.Hour {
				return nil
			}
			if at == "" { // as with older versions
				at = fmt.Sprintf("%04d-%02d-%02d %02d:%02d", x.Date.Year, x.Date.Month, x.Date.Day, x.Time.Hour, x.Time.Minute)
			}
			return f.entry(t, length, at, port, x.Rx.String(), x.Tx.String())
		}
	}
	err = document{
		"jsonversion":                       text(&version),
		"interfaces[].name":                 text(&port),
		"interfaces[].traffic.fiveminute[]": samples(5 * time.Minute),
		"interfaces[].traffic.hour[]":       samples(time.Hour),
	}.read(f)
	if err == nil && version != "2" {
		err = cli.Hint(fmt.Errorf("version %q of vnStat's JSON", version), "version 2 is known: use vnStat 2")
	}
	return err
}

// readPrometheus reads the answer to a range query. The name of a series or a label says its direction.
func readPrometheus(f *file) error {
	said := f.Counters || f.Format.has("rate", "amount")
	var t *table // of a series
	var status, message, result string
	var pair []any
	count := 0
	err := document{
		"status": text(&status), "error": text(&message), "data.resultType": text(&result),
		"data.result[].metric": func(decode func(any) error) (err error) {
			var labels map[string]string
			if err = decode(&labels); err == nil {
				count++
				t, err = f.series(count, labels, said)
			}
			return err
		},
		"data.result[].values[]": func(decode func(any) error) error {
			if t == nil {
				return errors.New("the values of a series come before its labels")
			}
			if err := decode(&pair); err != nil {
				return err
			}
			return f.entry(t, 0, texts(pair)...)
		},
	}.read(f)
	if err == nil && (status != "success" || result != "matrix") {
		err = fmt.Errorf("status %q, %s, result type %q", status, cmp.Or(message, "no error"), result)
		err = cli.Hint(err, "ask /api/v1/query_range")
	}
	return err
}

// series returns the table of a series, whose port is the labels that do not say its direction;
// said is whether the user says what its values are.
func (f *file) series(count int, metric map[string]string, said bool) (*table, error) {
	direction := -1
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(metric)) {
		d := -1
		if key == "__name__" || key == "direction" || key == "dir" {
			d = slices.Index(directions[:total], kindOf(metric[key]))
		}
		if d >= 0 {
			direction = d
		} else if key != "__name__" {
			labels = append(labels, key+"="+metric[key])
		}
	}
	for d, option := range directions[:total] {
		want, all := strings.ToLower(f.Format[option]), strings.ToLower(fmt.Sprint(metric))
		if want != "" && strings.Contains(all, want) {
			direction = d
		}
	}
	name := strings.Join(labels, " ")
	if direction < 0 {
		return nil, cli.Hint(fmt.Errorf("series %d (%s) is neither in nor out by its name and labels", count, name),
			"ask for series with their names, or give -format in=WORD,out=WORD of their labels")
	}
	if text := metric["__name__"]; strings.HasSuffix(text, "_total") || has(amountWords, split(text)) {
		f.Counters = f.Counters || !f.Format.has("rate", "amount")
	} else if !said {
		return nil, cli.Hint(fmt.Errorf("series %d (%s): counters, or rates?", count, name),
			"give -counters, or -format rate,bits or -format rate,bytes")
	}
	s := series{port: name, value: [2]int{-1, -1}, unit: [2]float64{f.kind.unit, f.kind.unit}}
	s.value[direction] = 1
	return &table{end: -1, date: -1, period: -1, port: -1, width: 2, need: 2, series: []series{s}}, nil
}

// readGraph reads the graph of a bill from the API of LibreNMS.
func readGraph(f *file) error {
	t, err := f.header(1, "time", "in", "out")
	if err != nil {
		return err
	}
	d := document{}
	var columns [3][]string
	for i, name := range []string{"ticks", "in_data", "out_data"} {
		d["graph_data."+name+"[]"] = func(decode func(any) error) error {
			var x any
			err := decode(&x)
			if columns[i] = append(columns[i], texts([]any{x})...); len(columns[i]) > maxRows {
				return errMany
			}
			return err
		}
	}
	if err := d.read(f); err != nil {
		return err
	}
	if n := len(columns[0]); len(columns[1]) != n || len(columns[2]) != n {
		return fmt.Errorf("%d times, but %d and %d values", n, len(columns[1]), len(columns[2]))
	}
	for i := range columns[0] {
		if err := f.entry(t, 0, columns[0][i], columns[1][i], columns[2][i]); err != nil {
			return err
		}
	}
	return nil
}

// xmlRow is a row of RRDtool's XML.
type xmlRow struct {
	T []string `xml:"t"`
	V []string `xml:"v"`
}

// readXport reads rrdtool xport, XML or JSON. Rows without a time follow each other from the start on.
func readXport(f *file) error {
	var t *table
	var meta struct {
		Start  int64    `json:"start" xml:"start"`
		Step   int64    `json:"step" xml:"step"`
		Legend []string `json:"legend" xml:"legend>entry"`
	}
	record := func(fields []string) error {
		if t == nil {
			return errors.New("the data come before their names")
		}
		if len(fields) < t.width {
			fields = slices.Insert(fields, 0, strconv.FormatInt(meta.Start, 10))
			meta.Start += meta.Step
		}
		return f.entry(t, time.Duration(meta.Step)*time.Second, fields...)
	}
	return document{
		"meta": func(decode func(any) error) (err error) {
			if err = decode(&meta); err != nil {
				return err
			}
			if meta.Step <= 0 || meta.Step > 366*86400 {
				return fmt.Errorf("start %d, step %d", meta.Start, meta.Step)
			}
			t, err = f.header(1, append([]string{"time"}, meta.Legend...)...)
			if err == nil && !f.Format.has("bits", "bytes") && max(t.series[0].unit[in], t.series[0].unit[out]) == 1 {
				f.note(1, "unit", "values count as bytes a second: if they are bits, give -format bits")
			}
			return err
		},
		"data.row": func(decode func(any) error) error {
			var x xmlRow
			if err := decode(&x); err != nil {
				return err
			}
			return record(append(x.T, x.V...))
		},
		"data[]": func(decode func(any) error) error {
			var x []any
			if err := decode(&x); err != nil {
				return err
			}
			return record(texts(x))
		},
	}.read(f)
}

// readDump reads rrdtool dump: the means of the shortest steps, or those of -interval. A comment before each row has its
// time.
func readDump(f *file) error {
	var t *table // of an archive that counts
	var step, mean, many, comment, name string
	var best, length time.Duration
	names := []string{"time"}
	err := document{
		"step": text(&step), "rra.cf": text(&mean), "rra.database.comment": text(&comment),
		"ds.name": func(decode func(any) error) error {
			err := text(&name)(decode)
			names = append(names, name)
			return err
		},
		"rra.pdp_per_row": func(decode func(any) error) (err error) {
			if err = text(&many)(decode); err != nil {
				return err
			}
			a, _ := strconv.ParseInt(step, 10, 16)
			b, _ := strconv.ParseInt(many, 10, 16)
			length, t = time.Duration(a*b)*time.Second, nil
			if mean == "AVERAGE" && length > 0 && length == cmp.Or(f.Interval, length) && length <= cmp.Or(best, length) {
				clear(f.ports) // of longer steps
				f.kept, best = 0, length
				t, err = f.header(1, names...)
			}
			return err
		},
		"rra.database.row": func(decode func(any) error) error {
			var x xmlRow
			if err := decode(&x); err != nil || t == nil {
				return err
			}
			_, at, _ := strings.Cut(comment, "/ ")
			comment = ""
			return f.entry(t, length, append([]string{at}, x.V...)...)
		},
	}.read(f)
	if err == nil && best == 0 {
		err = cli.Hint(errors.New("no archive of means (AVERAGE) has these steps"), "give its step with -interval, or none")
	}
	return err
}
