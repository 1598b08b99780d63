package samples

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"framepipe/internal/calendar"
	"framepipe/internal/cli"
)

// object reads a JSON object. Errors name the line.
func (f *file) object(to any) error {
	data, err := f.all()
	if err != nil {
		return err
	}
	err = json.Unmarshal(data, to)
	offset := int64(-1)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
		err = fmt.Errorf("a %s is not what belongs there", kind.Value)
	}
	if offset >= 0 {
		return fmt.Errorf("line %d: %w", 1+bytes.Count(data[:min(offset, int64(len(data)))], []byte("\n")), err)
	}
	return err
}

// seconds returns a time that is given in seconds since the epoch.
func seconds(x json.Number) (int64, error) {
	at, is, err := epoch(x.String())
	if !is && err == nil {
		err = fmt.Errorf("%.40q is not a time in seconds", x)
	}
	return at, err
}

// readVnstat reads vnstat --json: the five-minute samples, or the hours if there are none or
// -interval asks for them.
func readVnstat(f *file) error {
	type sample struct {
		Date      struct{ Year, Month, Day int }
		Time      struct{ Hour, Minute int }
		Timestamp json.Number
		RX, TX    json.Number
	}
	var x struct {
		JSONVersion string
		Interfaces  []struct {
			Name    string
			Traffic struct{ FiveMinute, Hour []sample }
		}
	}
	if err := f.object(&x); err != nil {
		return err
	}
	if x.JSONVersion != "2" {
		return cli.Hint(fmt.Errorf("version %q of vnStat's JSON", x.JSONVersion), "version 2 is known: use vnStat 2")
	}
	for _, port := range x.Interfaces {
		list, apart := port.Traffic.FiveMinute, 5*time.Minute
		if len(list) == 0 || f.Interval == time.Hour {
			list, apart = port.Traffic.Hour, time.Hour
		}
		for i, s := range list {
			t := time.Date(s.Date.Year, time.Month(s.Date.Month), s.Date.Day, s.Time.Hour, s.Time.Minute, 0, 0, time.UTC)
			r := row{line: i + 1, at: t.UnixNano(), wall: true, period: int64(apart)}
			err := calendar.CheckYear(t)
			if s.Timestamp != "" { // older ones have only the local time
				r.wall = false
				r.at, err = seconds(s.Timestamp)
			}
			for d, text := range []json.Number{s.RX, s.TX} {
				if err == nil {
					r.value[d], err = f.number(text.String())
				}
			}
			if err == nil {
				err = f.add(port.Name, r)
			}
			if err != nil {
				return f.at(i+1, err)
			}
		}
	}
	return nil
}

// readPrometheus reads the answer to a range query. The name of a series or a label says
// its direction.
func readPrometheus(f *file) error {
	var x struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := f.object(&x); err != nil {
		return err
	}
	if x.Status != "success" || x.Data.ResultType != "matrix" {
		return cli.Hint(fmt.Errorf("status %q, %s, result type %q", x.Status, cmp.Or(x.Error, "no error"), x.Data.ResultType), "ask /api/v1/query_range")
	}
	j := join{f: f}
	said := f.counters || f.Options.Format.has("rate") || f.Options.Format.has("amount")
	for i, s := range x.Data.Result {
		name, direction := seriesOf(s.Metric)
		for d, option := range directions[:total] {
			if want := f.Options.Format[option]; want != "" && strings.Contains(strings.ToLower(fmt.Sprint(s.Metric)), strings.ToLower(want)) {
				direction = d
			}
		}
		if direction < 0 {
			return cli.Hint(fmt.Errorf("series %d (%s) is neither in nor out by its name and labels", i+1, name),
				"ask for series with their names, or give -format in=WORD,out=WORD of their labels")
		}
		if metric := s.Metric["__name__"]; strings.HasSuffix(metric, "_total") || is(metric, "amount") {
			f.counters = f.counters || !f.Options.Format.has("rate") && !f.Options.Format.has("amount")
		} else if !said {
			return cli.Hint(fmt.Errorf("series %d (%s): counters, or rates?", i+1, name), "give -counters, or -format rate,bits or -format rate,bytes")
		}
		for k, v := range s.Values {
			seconds, isTime := v[0].(float64)
			text, isText := v[1].(string)
			if !isTime || !isText || seconds < 0 || seconds > 1e10 {
				return f.at(k+1, errors.New("want a time and a text"))
			}
			n, err := f.number(text)
			if err == nil {
				err = j.add(name, direction, int64(seconds*1e3+0.5)*1e6, n.times(f.kind.unit))
			}
			if err != nil {
				return f.at(k+1, err)
			}
		}
	}
	return j.done()
}

// seriesOf returns the labels of a series that do not say its direction, and the direction, -1
// if none does.
func seriesOf(metric map[string]string) (name string, direction int) {
	direction = -1
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(metric)) {
		value, says := metric[key], false
		for d, word := range directions[:total] {
			if (key == "__name__" || key == "direction" || key == "dir") && is(value, word) {
				direction, says = d, true
			}
		}
		if key != "__name__" && !says {
			labels = append(labels, key+"="+value)
		}
	}
	return strings.Join(labels, " "), direction
}

// readLibreNMS reads the table bill_data of LibreNMS, or the graph of a bill from its API.
func readLibreNMS(f *file) error {
	if head, _ := f.in.Peek(1); string(head) != "{" {
		f.format.unit = "line"
		if o := f.Options.Format; !o.has("bits") {
			f.kind.unit = 1
		}
		return readCSV(f)
	}
	var x struct {
		Data struct {
			In    []json.Number `json:"in_data"`
			Out   []json.Number `json:"out_data"`
			Ticks []json.Number
		} `json:"graph_data"`
	}
	if err := f.object(&x); err != nil {
		return err
	}
	d := x.Data
	if len(d.In) != len(d.Ticks) || len(d.Out) != len(d.Ticks) {
		return fmt.Errorf("%d times, but %d and %d values", len(d.Ticks), len(d.In), len(d.Out))
	}
	for i, tick := range d.Ticks {
		at, err := seconds(tick)
		if err == nil {
			err = f.values([]column{{0, in, "", f.kind.unit}, {1, out, "", f.kind.unit}}, row{line: i + 1, at: at}, []string{d.In[i].String(), d.Out[i].String()})
		}
		if err != nil {
			return f.at(i+1, err)
		}
	}
	if len(d.Ticks) > 1 && f.Interval == 0 {
		first, _ := seconds(d.Ticks[0])
		last, _ := seconds(d.Ticks[len(d.Ticks)-1])
		if apart := (last - first) / int64(len(d.Ticks)-1); apart > int64(8*time.Minute) {
			return cli.Hint(fmt.Errorf("the values are means of %v", cli.Duration(round(apart))), "ask the API with reducefactor=1")
		}
	}
	return nil
}

// readXport reads rrdtool xport, XML or JSON. Rows without a time follow each other from the
// start on.
func readXport(f *file) error {
	var x struct {
		Meta struct {
			Start  int64    `xml:"start" json:"start"`
			Step   int64    `xml:"step" json:"step"`
			Legend []string `xml:"legend>entry" json:"legend"`
		} `xml:"meta" json:"meta"`
		Rows []struct {
			Time   string   `xml:"t"`
			Values []string `xml:"v"`
		} `xml:"data>row" json:"-"`
		Data [][]any `xml:"-" json:"data"`
	}
	data, err := f.all()
	if err != nil {
		return err
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		f.in.Reset(bytes.NewReader(data))
		if err = f.object(&x); err != nil {
			return err
		}
	} else if err := unmarshalXML(data, &x); err != nil {
		return err
	}
	m := x.Meta
	if m.Step <= 0 || m.Step > 366*86400 || m.Start < 0 || m.Start > 1e10 {
		return fmt.Errorf("start %d, step %d", m.Start, m.Step)
	}
	columns, err := f.columns(m.Legend)
	if err != nil {
		return err
	}
	if o := f.Options.Format; !o.has("bits") && !o.has("bytes") && columns[0].unit == 1 {
		f.note(1, "unit", "values count as bytes a second: if they are bits, give -format bits")
	}
	for i := range max(len(x.Rows), len(x.Data)) {
		var stamp string
		var fields []string
		if len(x.Rows) > 0 {
			stamp, fields = x.Rows[i].Time, x.Rows[i].Values
		} else {
			for _, v := range x.Data[i] {
				fields = append(fields, text(v))
			}
			if len(fields) == len(m.Legend)+1 { // with rrdtool xport -t
				stamp, fields = fields[0], fields[1:]
			}
		}
		at := (m.Start + int64(i)*m.Step) * int64(time.Second)
		if stamp != "" {
			at, err = seconds(json.Number(stamp))
		}
		switch {
		case err != nil:
		case len(fields) != len(m.Legend):
			err = fmt.Errorf("%d values, but %d names", len(fields), len(m.Legend))
		default:
			err = f.values(columns, row{line: i + 1, at: at, period: m.Step * int64(time.Second)}, fields)
		}
		if err != nil {
			return f.at(i+1, err)
		}
	}
	return nil
}

// text returns a JSON value as text.
func text(v any) string {
	switch v := v.(type) {
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		return v
	}
	return ""
}

func unmarshalXML(data []byte, to any) error {
	d := xml.NewDecoder(bytes.NewReader(data))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	err := d.Decode(to)
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("line %d: %s", syntax.Line, syntax.Msg)
	}
	return err
}

// readDump reads rrdtool dump: the means of the shortest steps, or those of -interval.
func readDump(f *file) error {
	var x struct {
		Step int64 `xml:"step"`
		Last int64 `xml:"lastupdate"`
		DS   []struct {
			Name string `xml:"name"`
		} `xml:"ds"`
		RRA []struct {
			CF   string `xml:"cf"`
			Per  int64  `xml:"pdp_per_row"`
			Rows []struct {
				Values []string `xml:"v"`
			} `xml:"database>row"`
		} `xml:"rra"`
	}
	data, err := f.all()
	if err == nil {
		err = unmarshalXML(data, &x)
	}
	if err != nil {
		return err
	}
	if x.Step <= 0 || x.Step > 86400 || x.Last < 0 || x.Last > 1e10 {
		return fmt.Errorf("step %d, last update %d", x.Step, x.Last)
	}
	var names []string
	for _, ds := range x.DS {
		names = append(names, strings.TrimSpace(ds.Name))
	}
	columns, err := f.columns(names)
	if err != nil {
		return err
	}
	best := -1
	for i, a := range x.RRA {
		mean := strings.TrimSpace(a.CF) == "AVERAGE" && a.Per > 0 && a.Per <= 366*86400
		wanted := f.Interval == 0 || int64(f.Interval) == a.Per*x.Step*int64(time.Second)
		if mean && wanted && (best < 0 || a.Per < x.RRA[best].Per) {
			best = i
		}
	}
	if best < 0 {
		return cli.Hint(errors.New("no archive of means (AVERAGE) has these steps"), "give its step with -interval, or none")
	}
	a := x.RRA[best]
	step := a.Per * x.Step
	end := x.Last - x.Last%step // of the last row
	for i, r := range a.Rows {
		if len(r.Values) != len(names) {
			return f.at(i+1, fmt.Errorf("%d values, but %d names", len(r.Values), len(names)))
		}
		at := (end - int64(len(a.Rows)-1-i)*step) * int64(time.Second)
		if err := f.values(columns, row{line: i + 1, at: at, period: step * int64(time.Second)}, r.Values); err != nil {
			return f.at(i+1, err)
		}
	}
	return nil
}
