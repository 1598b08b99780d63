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
	minutes, n := false, 0
	wants := []string{"jsonversion", "interfaces.name", "interfaces.traffic.fiveminute.", "interfaces.traffic.hour."}
	d, err := f.document(wants, func(d *document, path string) error {
		if path == "interfaces" {
			d.take("interfaces.name")
			minutes = false
		}
		length, is := strings.CutPrefix(path, "interfaces.traffic.")
		if !is || strings.Contains(length, ".") {
			return nil
		}
		sample, port := d.takeAll(path), d.last("interfaces.name")
		if n++; len(sample) == 0 { // of the samples of this length
			n = 0
			return nil
		}
		period := map[string]time.Duration{"fiveminute": 5 * time.Minute, "hour": time.Hour}[length]
		switch hours := f.Interval == time.Hour; {
		case period == 0, hours && period < time.Hour, minutes && period == time.Hour:
			return nil
		case !minutes && period < time.Hour:
			delete(f.ports, port) // its hours
			minutes = true
		}
		return f.at(n, f.record(t, row{line: n, period: int64(period)}, []string{vnstatTime(sample), port, sample["rx"], sample["tx"]}))
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
	said := f.Counters || f.Options.Format.has("rate") || f.Options.Format.has("amount")
	var t *table // of a series
	count, n := 0, 0
	wants := []string{"status", "error", "data.resultType", "data.result.values", "data.result.metric."}
	d, err := f.document(wants, func(d *document, path string) (err error) {
		switch path {
		case "data.result.metric":
			count, n = count+1, 0
			t, err = f.series(count, d.takeAll(path), said)
		case "data.result.values":
			n++
			if point := d.take(path); t == nil {
				err = errors.New("the values of a series come before its labels")
			} else if len(point) > 0 { // not the end of all points
				err = f.at(n, f.record(t, row{line: n}, point))
			}
		case "data.result":
			t = nil
		}
		return err
	})
	if status, result := d.last("status"), d.last("data.resultType"); err == nil && (status != "success" || result != "matrix") {
		err = cli.Hint(fmt.Errorf("status %q, %s, result type %q", status, cmp.Or(d.last("error"), "no error"), result), "ask /api/v1/query_range")
	}
	return err
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
	if text := metric["__name__"]; strings.HasSuffix(text, "_total") || has(amountWords, split(text)) {
		f.Counters = f.Counters || !f.Options.Format.has("rate") && !f.Options.Format.has("amount")
	} else if !said {
		return nil, cli.Hint(fmt.Errorf("series %d (%s): counters, or rates?", count, name), "give -counters, or -format rate,bits or -format rate,bytes")
	}
	s := series{port: name, value: [2]int{-1, -1}, unit: [2]float64{f.kind.unit, f.kind.unit}}
	s.value[direction] = 1
	return &table{end: -1, date: -1, period: -1, port: -1, width: 2, need: 2, series: []series{s}}, nil
}

// seriesOf returns the labels of a series that do not say its direction, and the direction, -1
// if none does.
func seriesOf(metric map[string]string) (name string, direction int) {
	direction = -1
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(metric)) {
		value, says := metric[key], false
		for d, word := range directions[:total] {
			if (key == "__name__" || key == "direction" || key == "dir") && kindOf(value) == word {
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
	t, err := f.header(1, "time", "in", "out")
	if err != nil {
		return err
	}
	d, err := f.document([]string{"graph_data.ticks", "graph_data.in_data", "graph_data.out_data"}, func(*document, string) error { return nil })
	if err != nil {
		return err
	}
	ticks, ins, outs := d.take("graph_data.ticks"), d.take("graph_data.in_data"), d.take("graph_data.out_data")
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

// readXport reads rrdtool xport, XML or JSON. Rows without a time follow each other from the
// start on.
func readXport(f *file) error {
	var t *table
	var start, step, n int64
	_, err := f.document([]string{"meta.start", "meta.step", "meta.legend", "meta.legend.entry", "data", "data.row.t", "data.row.v"}, func(d *document, path string) (err error) {
		fields := slices.Concat(d.take("data"), d.take("data.row.t"), d.take("data.row.v"))
		if path != "data" && path != "data.row" || len(fields) == 0 { // of all rows
			return nil
		}
		if t == nil {
			start, step = d.number("meta.start"), d.number("meta.step")
			if step <= 0 || step > 366*86400 || start < 0 || start > 1e10 {
				return fmt.Errorf("start %d, step %d", start, step)
			}
			names := slices.Concat([]string{"time"}, d.take("meta.legend"), d.take("meta.legend.entry"))
			if t, err = f.header(1, names...); err != nil {
				return err
			}
			if o := f.Options.Format; !o.has("bits") && !o.has("bytes") && max(t.series[0].unit[in], t.series[0].unit[out]) == 1 {
				f.note(1, "unit", "values count as bytes a second: if they are bits, give -format bits")
			}
		}
		if len(fields) < t.width {
			fields = slices.Insert(fields, 0, strconv.FormatInt(start+n*step, 10))
		}
		n++
		return f.at(int(n), f.record(t, row{line: int(n), period: step * int64(time.Second)}, fields))
	})
	return err
}

// readDump reads rrdtool dump: the means of the shortest steps, or those of -interval. A comment
// before each row has its time.
func readDump(f *file) error {
	var t *table
	var best int64 // seconds
	n := 0
	wants := []string{"step", "ds.name", "rra.cf", "rra.pdp_per_row", "rra.database.comment", "rra.database.row.v"}
	_, err := f.document(wants, func(d *document, path string) (err error) {
		if path == "rra" {
			n, t = 0, nil
		}
		if path != "rra.database.row" {
			return nil
		}
		_, at, _ := strings.Cut(d.last("rra.database.comment"), "/")
		fields := slices.Concat([]string{strings.TrimSpace(at)}, d.take("rra.database.row.v"))
		d.take("rra.database.comment")
		step := d.number("step") * d.number("rra.pdp_per_row")
		wanted := best == 0 || step < best
		if f.Interval != 0 {
			wanted = f.Interval == time.Duration(step)*time.Second
		}
		if n++; n == 1 && wanted && d.last("rra.cf") == "AVERAGE" && step > 0 && step <= 366*86400 {
			clear(f.ports) // of longer steps
			f.kept, best = 0, step
			if t, err = f.header(1, append([]string{"time"}, d.texts["ds.name"]...)...); err != nil {
				return err
			}
		}
		if t == nil {
			return nil
		}
		return f.at(n, f.record(t, row{line: n, period: best * int64(time.Second)}, fields))
	})
	if err == nil && best == 0 {
		err = cli.Hint(errors.New("no archive of means (AVERAGE) has these steps"), "give its step with -interval, or none")
	}
	return err
}
