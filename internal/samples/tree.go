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

// value adds a value of a document.
func (f *file) value(port string, period time.Duration, at string, values [2]string) error {
	f.seq++
	r := row{line: f.seq, period: int64(period)}
	return f.at(f.seq, f.sample(port, r, at, values, [2]float64{f.unit, f.unit}))
}

// values adds a value that has the fields of a table. It covers seconds.
func (f *file) values(t *table, seconds int64, fields []string) error {
	f.seq++
	return f.at(f.seq, f.record(t, row{line: f.seq, period: seconds * int64(time.Second)}, fields))
}

// vnstatSample is a sample of vnStat's JSON. Those of older versions have only the local time.
type vnstatSample struct {
	Date              struct{ Year, Month, Day int }
	Time              struct{ Hour, Minute int }
	Timestamp, Rx, Tx json.Number
}

// readVnstat reads vnstat --json: the five-minute samples, or the hours, which come after them, if a port
// has no others or -interval asks for hours.
func readVnstat(f *file) error {
	var version, port string
	samples := func(length time.Duration) func(func(any) error) error {
		return on(func(x vnstatSample) error {
			rows, at := f.ports[port], x.Timestamp.String()
			if len(rows) > 0 && rows[0].period != int64(length) || f.Interval == time.Hour && length < time.Hour {
				return nil
			}
			if at == "" {
				at = fmt.Sprintf("%04d-%02d-%02d %02d:%02d", x.Date.Year, x.Date.Month, x.Date.Day, x.Time.Hour, x.Time.Minute)
			}
			return f.value(port, length, at, [2]string{x.Rx.String(), x.Tx.String()})
		})
	}
	err := document{
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
	var status, message, result, port string
	count, direction := 0, -1
	err := document{
		"status": text(&status), "error": text(&message), "data.resultType": text(&result),
		"data.result[].metric": on(func(labels map[string]string) (err error) {
			count++
			port, direction, err = f.series(count, labels, said)
			return err
		}),
		"data.result[].values[]": on(func(x [2]any) error { // [1793491200.5,"12"]
			if direction < 0 {
				return errors.New("the values of a series come before its labels")
			}
			pair, values := texts(x[:]...), [2]string{}
			values[direction] = pair[1]
			return f.value(port, 0, pair[0], values)
		}),
	}.read(f)
	if err == nil && (status != "success" || result != "matrix") {
		err = fmt.Errorf("status %q, %s, result type %q", status, cmp.Or(message, "no error"), result)
		err = cli.Hint(err, "ask /api/v1/query_range")
	}
	return err
}

// series returns the port of a series, whose name is the labels without the direction, and the direction.
// said reports whether the user gave the meaning of the values.
func (f *file) series(count int, metric map[string]string, said bool) (port string, direction int, err error) {
	var labels []string
	direction = -1
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
	given := 0
	for d, option := range directions[:total] {
		want, all := strings.ToLower(f.Format[option]), strings.ToLower(fmt.Sprint(metric))
		if want != "" && strings.Contains(all, want) {
			direction = d
			given++
		}
	}
	port = strings.Join(labels, " ")
	switch text := metric["__name__"]; {
	case given > 1:
		err = cli.Hint(fmt.Errorf("series %d (%s) has the words of both directions", count, fmt.Sprint(metric)),
			"give -format in=WORD,out=WORD of which only one is in each")
	case direction < 0:
		err = cli.Hint(fmt.Errorf("series %d (%s) is neither in nor out by its name and labels", count, port),
			"ask for series with their names, or give -format in=WORD,out=WORD of their labels")
	case strings.HasSuffix(text, "_total") || has(amountWords, split(text)):
		f.Counters = f.Counters || !f.Format.has("rate", "amount")
	case !said:
		err = cli.Hint(fmt.Errorf("series %d (%s): counters, or rates?", count, port),
			"give -counters, or -format rate,bits or -format rate,bytes")
	}
	return port, direction, err
}

// readGraph reads the graph of a bill from the API of LibreNMS.
func readGraph(f *file) error {
	var columns [3][]string
	column := func(i int) func(func(any) error) error {
		return on(func(x any) error {
			if len(columns[i]) == maxRows {
				return errMany
			}
			columns[i] = append(columns[i], texts(x)...)
			return nil
		})
	}
	err := document{
		"graph_data.ticks[]": column(0), "graph_data.in_data[]": column(1), "graph_data.out_data[]": column(2),
	}.read(f)
	ticks, ins, outs := columns[0], columns[1], columns[2]
	if err == nil && (len(ins) != len(ticks) || len(outs) != len(ticks)) {
		err = fmt.Errorf("%d times, but %d and %d values", len(ticks), len(ins), len(outs))
	}
	for i := 0; i < len(ticks) && err == nil; i++ {
		err = f.value("", 0, ticks[i], [2]string{ins[i], outs[i]})
	}
	return err
}

// xportMeta is what rrdtool xport says of its data.
type xportMeta struct {
	Start  int64    `json:"start" xml:"start"`
	Step   int64    `json:"step" xml:"step"`
	Legend []string `json:"legend" xml:"legend>entry"`
}

// xmlRow is a row of RRDtool's XML.
type xmlRow struct {
	T []string `xml:"t"`
	V []string `xml:"v"`
}

// readXport reads rrdtool xport, XML or JSON. Rows without a time follow each other from the start on.
func readXport(f *file) error {
	var t *table
	var at, step int64 // seconds
	record := func(fields []string) error {
		if t == nil {
			return errors.New("the data come before their names")
		}
		if len(fields) < t.width {
			fields = slices.Insert(fields, 0, strconv.FormatInt(at, 10))
			at += step
		}
		return f.values(t, step, fields)
	}
	return document{
		"meta": on(func(x xportMeta) (err error) {
			at, step = x.Start, x.Step
			if step <= 0 || step > 366*86400 {
				return fmt.Errorf("start %d, step %d", at, step)
			}
			t, err = f.header(1, append([]string{"time"}, x.Legend...)...)
			if err == nil && !f.Format.has("bits", "bytes") && max(t.series[0].unit[in], t.series[0].unit[out]) == 1 {
				f.note(1, "values count as bytes a second: if they are bits, give -format bits")
			}
			return err
		}),
		"data.row": on(func(x xmlRow) error { return record(append(x.T, x.V...)) }),
		"data[]":   on(func(x []any) error { return record(texts(x...)) }),
	}.read(f)
}

// readDump reads rrdtool dump: the means of the shortest steps, or those of -interval. A comment before
// each row has its time.
func readDump(f *file) error {
	var t *table // of an archive that counts
	var mean string
	var step, best, length int64 // seconds
	names, want := []string{"time"}, int64(f.Interval/time.Second)
	err := document{
		"step":    on(func(x int32) error { step = int64(x); return nil }),
		"ds.name": on(func(x string) error { names = append(names, strings.TrimSpace(x)); return nil }),
		"rra.cf":  text(&mean),
		"rra.pdp_per_row": on(func(x int32) (err error) {
			length, t = step*int64(x), nil
			asked := length > 0 && length < 1<<32 && length == cmp.Or(want, length)
			if asked && mean == "AVERAGE" && length <= cmp.Or(best, length) {
				clear(f.ports) // of longer steps
				f.kept, best = 0, length
				t, err = f.header(1, names...)
			}
			return err
		}),
		"rra.database.row": on(func(x xmlRow) error {
			if t == nil {
				return nil
			}
			_, at, _ := strings.Cut(f.comment, "/ ")
			f.comment = ""
			return f.values(t, length, append([]string{at}, x.V...))
		}),
	}.read(f)
	if err == nil && best == 0 {
		err = cli.Hint(errors.New("no archive of means (AVERAGE) has these steps"), "give its step with -interval, or none")
	}
	return err
}
