package samples

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"framepipe/internal/cli"
)

// readTable reads a table whose first line may name the columns.
func readTable(f *file) error {
	var t *table
	return f.records(func(line int, fields []string) (err error) {
		switch {
		case len(fields) == 1 && fields[0] == "":
			return nil
		case t != nil:
			return f.record(t, row{line: line}, fields)
		case f.name == "fetch":
			fields = append([]string{"time"}, fields...)
		}
		if first := fields[0]; first == "" || first[0] < '0' || first[0] > '9' {
			t, err = f.header(line, slices.Clone(fields)...)
			return err
		}
		names := []string{"time", "in", "out"}
		if f.Format.has("time", "in", "out") {
			names = make([]string, len(fields))
			if !f.Format.has("time") {
				names[0] = "time"
			}
		} else if comment := f.named(); comment != "" {
			return cli.Hint(fmt.Errorf("the columns have no names, but a comment before has some: %.80s", comment),
				"remove the # before these, or give -format time=NUMBER,in=NUMBER,out=NUMBER")
		}
		if t, err = f.header(line, names...); err != nil {
			return err
		}
		return f.record(t, row{line: line}, fields)
	})
}

// named returns the comment above the first line that seems to name the columns, if it names others than time,
// in and out.
func (f *file) named() string {
	for line := range strings.Lines(f.head) {
		name, comment := strings.CutPrefix(strings.TrimSpace(line), "#")
		if !comment && name != "" {
			break
		}
		names := strings.FieldsFunc(name, func(c rune) bool { return strings.ContainsRune(",;\t|", c) })
		if len(names) > 2 && kindOf(names[0]) == "time" && !slices.Equal(split(name), split("time,in,out")) {
			return "#" + name
		}
	}
	return ""
}

// cactiHead is how an export of Cacti begins: lines of a name, in the language of its user, and the title,
// the label, the start, the end and the step of the graph.
const cactiHead = `^".*",".*"\r?\n".*","(.*)"\r?\n".*","(\d{4}-.*:\d\d)"\r?\n".*","\d{4}-.*"\r?\n".*","(\d+)"\r?\n`

// readCacti reads an export of Cacti, whose table comes after an empty line. Old versions give each row
// the time of the next one. Then the first row is a step later than the start.
func readCacti(f *file) error {
	head := regexp.MustCompile(cactiHead).FindStringSubmatch(f.head)
	if head == nil {
		return errors.New("want the title, label, start, end and step of a graph")
	}
	if !f.Format.has("bytes", "bits") {
		scale, bytes, _ := unit(head[1])
		f.kind.unit = scale * bytes
	}
	var t *table
	ended, first := false, true
	return f.records(func(line int, fields []string) (err error) {
		switch {
		case !ended:
			ended = len(fields) == 1 && fields[0] == ""
			return nil
		case t == nil:
			t, err = f.header(line, append([]string{"time"}, fields[1:]...)...)
			return err
		case first && fields[0] != head[2]:
			step, _ := strconv.ParseInt(head[3], 10, 18)
			f.late = step * int64(time.Second)
			f.note(line, "this version of Cacti gives samples the times of the next ones: corrected by %v",
				cli.Duration(f.late))
		}
		first = false
		return f.record(t, row{line: line}, fields)
	})
}

// record adds the rows of a line, one of each port.
func (f *file) record(t *table, r row, fields []string) error {
	n := len(fields)
	for n > t.width && fields[n-1] == "" { // a delimiter at the end
		n--
	}
	switch {
	case n > t.width:
		return cli.Hint(fmt.Errorf("%d fields, but %d columns", n, t.width),
			"if numbers have separators in them, put them in quotes; name all columns in the first line")
	case n < t.need:
		return fmt.Errorf("%d fields, want %d", n, t.need)
	}
	at := strings.TrimSuffix(fields[t.time], ":") // as rrdtool fetch has it
	if t.date >= 0 {
		at = fields[t.date] + " " + at
	}
	if t.period >= 0 {
		x, err := f.number(fields[t.period])
		if err != nil || x == 0 || x > 366*86400 {
			return cli.Hint(fmt.Errorf("the period is %.40q", fields[t.period]), "want seconds")
		}
		r.period = int64(max(x, 0) * float64(time.Second))
	}
	for _, s := range t.series {
		port, values := s.port, [2]string{}
		if t.port >= 0 {
			port = strings.TrimSpace(fields[t.port] + " " + port)
		}
		for d, index := range s.value {
			if index >= 0 {
				values[d] = fields[index]
			}
		}
		if err := f.sample(port, r, at, values, s.unit); err != nil {
			return err
		}
	}
	return nil
}

// sample adds a row of a port with a time and values as they are written, and the bytes in one of each.
func (f *file) sample(port string, r row, at string, values [2]string, unit [2]float64) (err error) {
	if r.at, r.wall, err = f.time(at); err != nil {
		return err
	}
	for d, text := range values {
		if d == out && len(text) > 1 && text[0] == '-' && text[1] <= '9' {
			f.note(r.line, "out is negative, as it is drawn below the axis: it counts as positive")
			text = text[1:]
		}
		if r.value[d], err = f.number(text); err != nil {
			return fmt.Errorf("%s: %w", directions[d], err)
		}
		if r.value[d] != unknown {
			r.value[d] *= unit[d]
		}
	}
	if r.value == [2]float64{unknown, unknown} {
		return nil
	}
	if f.kept++; f.kept > maxRows {
		return errMany
	}
	f.ports[port] = append(f.ports[port], r)
	return nil
}

// readMRTG reads the log of MRTG: the last counts, and then from the newest line to the oldest the end of
// a step, mean rates and the highest rates. A step begins at the time of the next line. Old steps are
// longer: those do not show samples and are left out.
func readMRTG(f *file) error {
	err := f.records(func(line int, fields []string) error {
		switch {
		case line == 1:
			return nil
		case len(fields) != 5:
			return fmt.Errorf("%d fields, want 5", len(fields))
		}
		return f.sample("", row{line: line}, fields[0], [2]string{fields[1], fields[2]}, [2]float64{f.unit, f.unit})
	})
	f.Interval = cmp.Or(f.Interval, 5*time.Minute)
	rows := f.ports[""]
	n := len(rows) - 1 // the last one has no next
	for n > 0 && rows[n-1].value == [2]float64{} {
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
			f.note(r.line, "a mean of %v is no sample: left out", cli.Duration(r.period))
		case r.period > 0:
			kept = append(kept, r)
		}
	}
	f.ports[""] = kept
	return err
}

// readNfdump reads flows. A flow is in one direction if its interface or address says so.
func readNfdump(f *file) error {
	port, has := f.Format["if"]
	net, err := netip.ParsePrefix(f.Format["net"])
	switch {
	case f.Format.has("net") && err != nil:
		return fmt.Errorf("-format net=%s: want a network: net=192.0.2.0/24", f.Format["net"])
	case !f.Format.has("net", "if"):
		return cli.Hint(errors.New("flows do not say which direction they are of"),
			"give -format if=INDEX of the port, or -format net=192.0.2.0/24 of its side")
	}
	f.Interval = cmp.Or(f.Interval, 5*time.Minute)
	var names []string
	ended := false
	return f.records(func(line int, fields []string) error {
		switch {
		case ended || fields[0] == "Summary":
			ended = true
			return nil
		case names == nil:
			names = slices.Clone(fields)
			for _, name := range []string{"ts", "te", "sa", "da", "in", "out", "ibyt", "obyt"} {
				if !slices.Contains(names, name) {
					return fmt.Errorf("no column is called %s", name)
				}
			}
			return nil
		case len(fields) < len(names):
			return fmt.Errorf("%d fields, want %d", len(fields), len(names))
		}
		field := func(name string) string { return fields[slices.Index(names, name)] }
		into, from := field("in") == port, field("out") == port
		if !has {
			source, err1 := netip.ParseAddr(field("sa"))
			target, err2 := netip.ParseAddr(field("da"))
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			into, from = net.Contains(target), net.Contains(source)
		}
		values := [2]string{field("ibyt"), field("obyt")}
		switch {
		case into == from:
			f.note(line, "the flow does not cross the port: left out")
			return nil
		case from:
			slices.Reverse(values[:])
		}
		begin, _, err1 := f.time(field("ts"))
		end, _, err2 := f.time(field("te"))
		switch err := errors.Join(err1, err2); {
		case err != nil:
			return err
		case end < begin:
			return errors.New("the flow ends before it begins")
		}
		return f.sample("", row{line: line, period: max(end-begin, 1)}, field("ts"), values, [2]float64{f.unit, f.unit})
	})
}
