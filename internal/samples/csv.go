package samples

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"framepipe/internal/cli"
)

// records returns the records of a CSV file until it returns false, with their lines.
// Spaces around fields are removed.
func (f *file) records(each func(line int, fields []string) error) error {
	head, _ := f.in.Peek(16 << 10)
	comma, skip := delimiter(string(head))
	_, _ = f.in.Discard(skip)
	if comma != ',' && !f.Options.Format.has("decimal") {
		f.comma = 0
	}
	r := csv.NewReader(f.in)
	r.Comma, r.Comment, r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = comma, '#', -1, comma != '\t', true
	for {
		fields, err := r.Read()
		var invalid *csv.ParseError
		switch {
		case f.limit.N <= 0 || errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &invalid):
			return f.at(invalid.Line, invalid.Err)
		case err != nil:
			return err
		}
		line, _ := r.FieldPos(0)
		if skip > 0 {
			line++
		}
		for i, field := range fields {
			fields[i] = strings.TrimSpace(field)
		}
		if err := each(line, fields); err != nil {
			return f.at(line, err)
		}
	}
}

// delimiter returns what separates the fields of a file, and the bytes of a line that says so.
func delimiter(head string) (comma rune, skip int) {
	if rest, says := strings.CutPrefix(head, "sep="); says && rest != "" {
		line, _, _ := strings.Cut(head, "\n")
		if c := rest[0]; strings.IndexByte(",;|\t", c) >= 0 {
			return rune(c), min(len(line)+1, len(head))
		}
	}
	for line := range strings.Lines(head) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		quoted := false
		plain := strings.Map(func(c rune) rune {
			quoted = quoted != (c == '"')
			if quoted {
				return -1
			}
			return c
		}, line)
		for _, c := range "\t;|" {
			if strings.ContainsRune(plain, c) {
				return c, 0
			}
		}
		break
	}
	return ',', 0
}

// readCSV reads a table whose first line may name the columns.
func readCSV(f *file) error {
	var t *table
	return f.records(func(line int, fields []string) error {
		if t != nil {
			return f.record(t, line, fields)
		}
		first := fields[0]
		if named := first == "" || first[0] < '0' || first[0] > '9'; named {
			x, err := f.header(slices.Clone(fields))
			t = &x
			return err
		}
		t = &table{time: 0, date: -1, period: -1, port: -1, width: 3, values: []column{{index: 1, direction: in, unit: 1}, {index: 2, direction: out, unit: 1}}}
		if o := f.Options.Format; o.has("time") || o.has("in") || o.has("out") {
			names := make([]string, len(fields))
			if !o.has("time") {
				names[0] = "time"
			}
			x, err := f.header(names)
			t = &x
			if err != nil {
				return err
			}
		}
		if u := f.kind.unit; u != 0 {
			for i := range t.values {
				t.values[i].unit = u
			}
		}
		return f.record(t, line, fields)
	})
}

// record adds the rows of a line.
func (f *file) record(t *table, line int, fields []string) (err error) {
	n := len(fields)
	for n > t.width && fields[n-1] == "" { // a delimiter at the end
		n--
	}
	need := max(t.time, t.date, t.period, t.port)
	for _, c := range t.values {
		need = max(need, c.index)
	}
	switch {
	case n > t.width:
		return cli.Hint(fmt.Errorf("%d fields, but %d columns", n, t.width),
			"if numbers have separators in them, put them in quotes; name all columns in the first line")
	case n <= need:
		return fmt.Errorf("%d fields, want %d", n, need+1)
	}
	r := row{line: line}
	text := fields[t.time]
	if t.date >= 0 {
		text = fields[t.date] + " " + text
	}
	if r.at, r.wall, err = f.clock.parse(text); err != nil {
		return err
	}
	if t.period >= 0 && fields[t.period] != "" {
		x, err := f.number(fields[t.period])
		if err != nil || x.known && (x.float() <= 0 || x.float() > 366*86400) {
			return cli.Hint(fmt.Errorf("the period is %.40q", fields[t.period]), "want seconds")
		}
		r.period = int64(x.float() * float64(time.Second))
	}
	rows := map[string]*row{}
	if len(t.values) <= 2 && (len(t.values) < 2 || t.values[0].port == t.values[1].port) { // no map for each line
		rows = nil
	}
	for _, c := range t.values {
		v, err := f.number(fields[c.index])
		if err != nil {
			return fmt.Errorf("%s: %w", directions[c.direction], err)
		}
		to := &r
		if rows != nil {
			if rows[c.port] == nil {
				x := r
				rows[c.port] = &x
			}
			to = rows[c.port]
		}
		to.value[c.direction] = v.times(c.unit)
	}
	port := t.values[0].port
	if t.port >= 0 {
		port = strings.Clone(fields[t.port])
	}
	if rows == nil {
		return f.add(port, r)
	}
	for name, x := range rows {
		if t.port >= 0 {
			name = strings.TrimSpace(port + " " + name)
		}
		if err := f.add(name, *x); err != nil {
			return err
		}
	}
	return nil
}

// readCacti reads what graph_xport.php writes: names and values in quotes, an empty line,
// and a table. Its vertical label says bits or bytes.
func readCacti(f *file) error {
	var t *table
	return f.records(func(line int, fields []string) error {
		switch {
		case t != nil:
			return f.record(t, line, fields)
		case fields[0] == "Vertical Label" && len(fields) > 1 && !f.Options.Format.has("bytes") && !f.Options.Format.has("bits"):
			bytes, _ := unit(fields[1])
			if bytes == 0 {
				return cli.Hint(fmt.Errorf("the vertical label is %q: bits or bytes?", fields[1]), "give -format bits or -format bytes")
			}
			f.kind.unit = bytes
		case fields[0] == "Date":
			x, err := f.header(slices.Clone(fields))
			t = &x
			return err
		}
		return nil
	})
}

// hasDeltas reports whether a file is the table bill_data of LibreNMS.
func hasDeltas(head string) bool {
	line, _, _ := strings.Cut(head, "\n")
	return strings.Contains(line, "in_delta") && strings.Contains(line, "out_delta")
}

// readNfdump reads flows, and adds up their bytes in samples. A flow is in one direction if its
// interface or address says so.
func readNfdump(f *file) error {
	o := f.Options.Format
	net, err := netip.ParsePrefix(o["net"])
	if o.has("net") && err != nil {
		return fmt.Errorf("-format net=%s: want a network: net=192.0.2.0/24", o["net"])
	}
	if !o.has("net") && !o.has("if") {
		return cli.Hint(errors.New("flows do not say which direction they are of"), "give -format if=INDEX of the port, or -format net=192.0.2.0/24 of its side")
	}
	if f.Interval == 0 {
		f.Interval = 5 * time.Minute
	}
	var names []string
	slots := map[int64]*row{}
	err = f.records(func(line int, fields []string) error {
		if names == nil {
			names = slices.Clone(fields)
			return nil
		}
		if fields[0] == "Summary" || fields[0] == "flows" {
			names = append(names[:0], "summary")
			return nil
		}
		if names[0] == "summary" {
			return nil
		}
		if len(fields) != len(names) {
			return fmt.Errorf("%d fields, but %d columns", len(fields), len(names))
		}
		f.rows++
		return f.flow(slots, net, line, func(name string) string {
			if i := slices.Index(names, name); i >= 0 {
				return fields[i]
			}
			return ""
		})
	})
	f.rows = 0
	for _, r := range slots {
		err = errors.Join(err, f.add("", *r))
	}
	return err
}

// flow spreads a flow over the samples of its time.
func (f *file) flow(slots map[int64]*row, net netip.Prefix, line int, field func(string) string) error {
	var at [2]int64
	var err error
	for i, name := range []string{"ts", "te"} {
		wall := false
		if at[i], wall, err = f.clock.parse(field(name)); err != nil {
			return err
		}
		if wall {
			one := []row{{line: line, at: at[i], wall: true}}
			if err := f.local(one); err != nil {
				return err
			}
			at[i] = one[0].at
		}
	}
	slot := int64(f.Interval)
	first, last := floorDiv(at[0], slot), floorDiv(at[1], slot)
	switch {
	case at[1] < at[0]:
		return errors.New("the flow ends before it begins")
	case last-first > int64(24*time.Hour)/slot:
		return errors.New("the flow lasts longer than a day")
	case len(slots)+int(last-first) > maxRows:
		return fmt.Errorf("more than %d samples", maxRows)
	}
	forward, backward := out, in
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
	if into {
		forward, backward = in, out
	}
	for _, part := range []struct {
		name      string
		direction int
	}{{"ibyt", forward}, {"obyt", backward}} {
		n, err := f.number(field(part.name))
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		bytes, before := float64(n.round()), 0.
		if bytes > math.MaxInt64/4 {
			return errLarge
		}
		for k := first; k <= last; k++ {
			r := slots[k]
			if r == nil {
				r = &row{line: line, at: k * slot, period: slot, value: [2]number{{known: true}, {known: true}}}
				slots[k] = r
			}
			share := bytes
			if k < last {
				share = math.Round(bytes * float64((k+1)*slot-at[0]) / float64(at[1]-at[0]))
			}
			r.value[part.direction].whole += uint64(share - before)
			before = share
		}
	}
	return nil
}
