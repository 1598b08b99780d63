package samples

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"framepipe/internal/cli"
)

// readTable reads a table whose first line may name the columns.
func readTable(f *file) error {
	var t *table
	return f.records(func(line int, fields []string) (err error) {
		if t != nil {
			return f.record(t, row{line: line}, fields)
		}
		switch {
		case f.format == "cacti" && fields[0] == "Vertical Label" && len(fields) > 1:
			return f.label(fields[1])
		case f.format == "cacti" && fields[0] != "Date":
			return nil
		case f.format == "fetch":
			fields = append([]string{"time"}, fields...)
		}
		if first := fields[0]; first == "" || first[0] < '0' || first[0] > '9' {
			t, err = f.header(line, slices.Clone(fields), true)
			return err
		}
		names := []string{"time", "in", "out"}
		if o := f.Options.Format; o.has("time") || o.has("in") || o.has("out") {
			names = make([]string, len(fields))
			if !o.has("time") {
				names[0] = "time"
			}
		}
		if t, err = f.header(line, names, true); err != nil {
			return err
		}
		return f.record(t, row{line: line}, fields)
	})
}

// label takes the unit of a graph from its vertical label.
func (f *file) label(text string) error {
	if o := f.Options.Format; o.has("bytes") || o.has("bits") {
		return nil
	}
	if f.kind.unit, _ = unit(text); f.kind.unit == 0 {
		return cli.Hint(fmt.Errorf("the vertical label is %q: bits or bytes?", text), "give -format bits or -format bytes")
	}
	return nil
}

// record adds the rows of a line, one of each port.
func (f *file) record(t *table, r row, fields []string) (err error) {
	n := len(fields)
	for n > t.width && fields[n-1] == "" { // a delimiter at the end
		n--
	}
	switch {
	case n > t.width && f.unit == "line":
		return cli.Hint(fmt.Errorf("%d fields, but %d columns", n, t.width),
			"if numbers have separators in them, put them in quotes; name all columns in the first line")
	case n > t.width || n < t.need:
		return fmt.Errorf("%d fields, want %d", n, t.need)
	}
	if t.time >= 0 {
		text := fields[t.time]
		if t.date >= 0 {
			text = fields[t.date] + " " + text
		}
		if f.format == "fetch" {
			text = strings.TrimSuffix(text, ":")
		}
		if r.at, r.wall, err = f.clock.parse(text); err != nil {
			return err
		}
	}
	if t.period >= 0 {
		x, err := f.number(fields[t.period])
		if err != nil || x.known && (x.float() <= 0 || x.float() > 366*86400) {
			return cli.Hint(fmt.Errorf("the period is %.40q", fields[t.period]), "want seconds")
		}
		r.period = int64(x.float() * float64(time.Second))
	}
	for i := range t.series {
		s, x := &t.series[i], r
		for d, c := range s.values {
			if c.index < 0 {
				continue
			}
			text := fields[c.index]
			if f.graph && d == out && len(text) > 1 && text[0] == '-' && text[1] <= '9' {
				f.note(r.line, "below", "out is negative, as it is drawn below the axis: it counts as positive")
				text = text[1:]
			}
			v, err := f.number(text)
			if err != nil {
				return fmt.Errorf("%s: %w", directions[d], err)
			}
			x.value[d] = v.times(c.unit)
		}
		port := s.port
		if t.port >= 0 {
			port = strings.TrimSpace(fields[t.port] + " " + port)
		}
		if err := f.add(port, x); err != nil {
			return err
		}
	}
	return nil
}

// readMRTG reads the log of MRTG: the last counts, and then from the newest line to the
// oldest the end of a step, mean rates and the highest rates. A step begins at the time of the
// next line. Old steps are longer: those do not show samples and are left out.
func readMRTG(f *file) error {
	t, err := f.header(1, []string{"time", "in", "out", "max in", "max out"}, true)
	if err != nil {
		return err
	}
	err = f.records(func(line int, fields []string) error {
		if line == 1 {
			return nil
		}
		return f.record(t, row{line: line}, fields)
	})
	f.Interval = cmp.Or(f.Interval, 5*time.Minute)
	rows := f.ports[""]
	n := len(rows) - 1 // the last one has no next
	for n > 0 && rows[n-1].value == [2]number{{known: true}, {known: true}} {
		n-- // as a new log is filled
	}
	var kept []row
	for i := 0; i < n && err == nil; i++ {
		r := rows[i]
		r.period = r.at - rows[i+1].at
		switch {
		case r.period < 0:
			err = f.at(rows[i+1].line, errors.New("later than the line before: want the newest line first"))
		case r.period > int64(max(f.Interval, 5*time.Minute))*3/2:
			f.note(r.line, "coarse", "a mean of %v is no sample: left out", cli.Duration(r.period))
		case r.period > 0:
			kept = append(kept, r)
		}
	}
	f.ports[""] = kept
	return err
}

// readNfdump reads flows. A flow is in one direction if its interface or address says so.
func readNfdump(f *file) error {
	o := f.Options.Format
	net, err := netip.ParsePrefix(o["net"])
	if o.has("net") && err != nil {
		return fmt.Errorf("-format net=%s: want a network: net=192.0.2.0/24", o["net"])
	}
	if !o.has("net") && !o.has("if") {
		return cli.Hint(errors.New("flows do not say which direction they are of"), "give -format if=INDEX of the port, or -format net=192.0.2.0/24 of its side")
	}
	f.Interval = cmp.Or(f.Interval, 5*time.Minute)
	var column map[string]int
	ended := false
	return f.records(func(line int, fields []string) (err error) {
		switch {
		case ended:
		case fields[0] == "Summary":
			ended = true
		case column == nil:
			column, err = flowColumns(fields)
		case len(fields) != len(column):
			err = fmt.Errorf("%d fields, want %d", len(fields), len(column))
		default:
			err = f.flow(line, net, func(name string) string { return fields[column[name]] })
		}
		return err
	})
}

// flowColumns returns where the columns of nfdump are.
func flowColumns(names []string) (map[string]int, error) {
	column := map[string]int{}
	for i, name := range names {
		column[name] = i
	}
	for _, name := range []string{"ts", "te", "sa", "da", "in", "out", "ibyt", "obyt"} {
		if _, has := column[name]; !has || len(column) != len(names) {
			return nil, fmt.Errorf("want the columns of nfdump -o csv, and %s once", name)
		}
	}
	return column, nil
}

// flow adds the row of a flow, unless it does not cross the port.
func (f *file) flow(line int, net netip.Prefix, field func(name string) string) (err error) {
	r := row{line: line}
	if r.at, r.wall, err = f.clock.parse(field("ts")); err != nil {
		return err
	}
	end, _, err := f.clock.parse(field("te"))
	if err != nil {
		return err
	}
	if end < r.at {
		return errors.New("the flow ends before it begins")
	}
	r.period = max(end-r.at, 1)
	into, from := false, false
	if port := f.Options.Format["if"]; port != "" {
		into, from = field("in") == port, field("out") == port
	} else {
		source, err1 := netip.ParseAddr(field("sa"))
		target, err2 := netip.ParseAddr(field("da"))
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		into, from = net.Contains(target), net.Contains(source)
	}
	if into == from {
		f.note(line, "neither", "the flow does not cross the port: left out")
		return nil
	}
	names := [2]string{"ibyt", "obyt"} // of the flow, and of the one back
	if from {
		slices.Reverse(names[:])
	}
	for d, name := range names {
		v, err := f.number(field(name))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.value[d] = v.times(f.kind.unit)
	}
	return f.add("", r)
}
