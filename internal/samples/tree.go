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

	"framepipe/internal/cli"
)

// readVnstat reads vnstat --json: the five-minute samples, or the hours if there are none or
// -interval asks for them.
func readVnstat(f *file) error {
	t, err := f.header(1, "time", "port", "in", "out")
	if err != nil {
		return err
	}
	minutes := false // the port has them
	wants := []string{"jsonversion", "interfaces.name", "interfaces.traffic.fiveminute.", "interfaces.traffic.hour."}
	d, err := f.document(wants, func(d *document, path string) (e entry, err error) {
		length, is := strings.CutPrefix(path, "interfaces.traffic.")
		if path == "interfaces" {
			d.take("interfaces.name")
			minutes = false
		}
		if !is || strings.Contains(length, ".") {
			return e, nil
		}
		sample, port, period := d.takeAll(path), d.last("interfaces.name"), time.Hour
		if length == "fiveminute" {
			period = 5 * time.Minute
		}
		switch hours := period == time.Hour; {
		case len(sample) == 0, hours && minutes, !hours && f.Interval == time.Hour:
			return e, nil
		case !hours && !minutes:
			delete(f.ports, port) // its hours
			minutes = true
		}
		e = entry{t, period, []string{vnstatTime(sample), port, sample["rx"], sample["tx"]}}
		return e, nil
	})
	if version := d.last("jsonversion"); err == nil && version != "2" {
		err = cli.Hint(fmt.Errorf("version %q of vnStat's JSON", version), "version 2 is known: use vnStat 2")
	}
	return err
}

// vnstatTime returns the time of a sample. Those of older versions have only the local time.
func vnstatTime(sample map[string]string) string {
	if text := sample["timestamp"]; text != "" {
		return text
	}
	var n [5]any
	for i, name := range []string{"date.year", "date.month", "date.day", "time.hour", "time.minute"} {
		n[i], _ = strconv.Atoi(sample[name])
	}
	return fmt.Sprintf("%04d-%02d-%02d %02d:%02d", n[:]...)
}

// readPrometheus reads the answer to a range query. The name of a series or a label says
// its direction.
func readPrometheus(f *file) error {
	said := f.Counters || f.Format.has("rate", "amount")
	var t *table // of a series
	count := 0
	wants := []string{"status", "error", "data.resultType", "data.result.values", "data.result.metric."}
	d, err := f.document(wants, func(d *document, path string) (e entry, err error) {
		switch path {
		case "data.result.metric":
			count++
			t, err = f.series(count, d.takeAll(path), said)
		case "data.result.values":
			if e = (entry{table: t, fields: d.take(path)}); t == nil {
				err = errors.New("the values of a series come before its labels")
			}
		case "data.result":
			t = nil
		}
		return e, err
	})
	if status, result := d.last("status"), d.last("data.resultType"); err == nil && (status != "success" || result != "matrix") {
		err = fmt.Errorf("status %q, %s, result type %q", status, cmp.Or(d.last("error"), "no error"), result)
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
	wants := []string{"graph_data.ticks", "graph_data.in_data", "graph_data.out_data"}
	d, err := f.document(wants, func(*document, string) (entry, error) { return entry{}, nil })
	if err != nil {
		return err
	}
	ticks, ins, outs := d.take(wants[0]), d.take(wants[1]), d.take(wants[2])
	if len(ins) != len(ticks) || len(outs) != len(ticks) {
		return fmt.Errorf("%d times, but %d and %d values", len(ticks), len(ins), len(outs))
	}
	for i := range ticks {
		if err := f.record(t, row{line: i + 1}, []string{ticks[i], ins[i], outs[i]}); err != nil {
			return f.at(i+1, err)
		}
	}
	return nil
}

// readXport reads rrdtool xport, XML or JSON. Rows without a time follow each other from the
// start on.
func readXport(f *file) error {
	var t *table
	var at, step int64 // seconds
	wants := []string{"meta.start", "meta.step", "meta.legend", "meta.legend.entry", "data", "data.row.t", "data.row.v"}
	_, err := f.document(wants, func(d *document, path string) (e entry, err error) {
		fields := slices.Concat(d.take("data"), d.take("data.row.t"), d.take("data.row.v"))
		if len(fields) > 0 && t == nil {
			at, step = d.number("meta.start"), d.number("meta.step")
			if step <= 0 || step > 366*86400 {
				return e, fmt.Errorf("start %d, step %d", at, step)
			}
			names := slices.Concat([]string{"time"}, d.take("meta.legend"), d.take("meta.legend.entry"))
			if t, err = f.header(1, names...); err != nil {
				return e, err
			}
			o, first := f.Format, t.series[0].unit
			if !o.has("bits", "bytes") && max(first[in], first[out]) == 1 {
				f.note(1, "unit", "values count as bytes a second: if they are bits, give -format bits")
			}
		}
		if len(fields) > 0 && len(fields) < t.width {
			fields = slices.Insert(fields, 0, strconv.FormatInt(at, 10))
			at += step
		}
		return entry{t, time.Duration(step) * time.Second, fields}, nil
	})
	return err
}

// readDump reads rrdtool dump: the means of the shortest steps, or those of -interval. A comment
// before each row has its time.
func readDump(f *file) error {
	var t *table
	var best time.Duration
	decided := false // whether to take an archive
	wants := []string{"step", "ds.name", "rra.cf", "rra.pdp_per_row", "rra.database.comment", "rra.database.row.v"}
	_, err := f.document(wants, func(d *document, path string) (e entry, err error) {
		if path == "rra" {
			decided, t = false, nil
		}
		_, at, _ := strings.Cut(d.last("rra.database.comment"), "/")
		fields := slices.Concat([]string{strings.TrimSpace(at)}, d.take("rra.database.row.v"))
		if len(fields) == 1 {
			return e, nil
		}
		d.take("rra.database.comment")
		step := time.Duration(d.number("step")*d.number("rra.pdp_per_row")) * time.Second
		wanted := d.last("rra.cf") == "AVERAGE" && step > 0 && step == cmp.Or(f.Interval, step) && step <= cmp.Or(best, step)
		if !decided && wanted {
			clear(f.ports) // of longer steps
			f.kept, best = 0, step
			t, err = f.header(1, append([]string{"time"}, d.texts["ds.name"]...)...)
		}
		if decided = true; t == nil {
			return e, err
		}
		return entry{t, step, fields}, err
	})
	if err == nil && best == 0 {
		err = cli.Hint(errors.New("no archive of means (AVERAGE) has these steps"), "give its step with -interval, or none")
	}
	return err
}
