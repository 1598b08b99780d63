package samples

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"framepipe/internal/cli"
)

var (
	fetchLine = regexp.MustCompile(`(?m)^\s*\d{9,10}: \S+`)
	mrtgLine  = regexp.MustCompile(`^\d{9,10} -?\d+ -?\d+\r?\n\d{9,10} \d+ \d+ \d+ \d+\s`)
)

func isFetch(head string) bool {
	line, _, _ := strings.Cut(head, "\n")
	return !strings.ContainsAny(line, ",;\"<{") && fetchLine.MatchString(head)
}

func isMRTG(head string) bool { return mrtgLine.MatchString(head) }

// lines calls a function with the words of each line.
func (f *file) lines(each func(line int, words []string) error) error {
	scan := bufio.NewScanner(f.in)
	line := 0
	for scan.Scan() {
		line++
		if words := strings.Fields(scan.Text()); len(words) > 0 {
			if err := each(line, words); err != nil {
				return f.at(line, err)
			}
		}
	}
	if errors.Is(scan.Err(), bufio.ErrTooLong) {
		return f.at(line+1, errors.New("the line is too long"))
	}
	return scan.Err()
}

// readFetch reads what rrdtool fetch prints: names, and lines of a time and values.
func readFetch(f *file) error {
	var columns []column
	width := 0
	return f.lines(func(line int, words []string) (err error) {
		if columns == nil {
			columns, err = f.columns(words)
			width = len(words) + 1
			return err
		}
		if len(words) != width {
			return fmt.Errorf("%d fields, but %d columns", len(words), width)
		}
		at, _, err := f.clock.parse(strings.TrimSuffix(words[0], ":"))
		if err != nil {
			return err
		}
		return f.values(columns, row{line: line, at: at}, words[1:])
	})
}

// values adds the rows that columns of a line are.
func (f *file) values(columns []column, r row, fields []string) error {
	rows := map[string]*row{}
	for _, c := range columns {
		if c.index >= len(fields) {
			return fmt.Errorf("%d values, want %d", len(fields), c.index+1)
		}
		text := fields[c.index]
		if c.direction == out && len(text) > 1 && text[0] == '-' && text[1] <= '9' { // graphs draw out below the axis
			f.note(r.line, "below", "out is negative, as it is drawn below the axis: it counts as positive")
			text = text[1:]
		}
		v, err := f.number(text)
		if err != nil {
			return fmt.Errorf("%s: %w", directions[c.direction], err)
		}
		if rows[c.port] == nil {
			x := r
			rows[c.port] = &x
		}
		rows[c.port].value[c.direction] = v.times(c.unit)
	}
	for port, x := range rows {
		if err := f.add(port, *x); err != nil {
			return err
		}
	}
	return nil
}

// readMRTG reads the log of MRTG: the last counts, and then from the newest line to the
// oldest the end of a step, mean rates and the highest rates. A step begins at the time of the
// next line. Old steps are longer: those do not show samples and are left out.
func readMRTG(f *file) error {
	const usual = 5 * time.Minute
	longest := int64(max(f.Interval, usual)) * 3 / 2
	var rows []row
	err := f.lines(func(line int, words []string) (err error) {
		if line == 1 {
			return nil
		}
		if len(words) != 5 {
			return fmt.Errorf("%d fields, want 5", len(words))
		}
		r := row{line: line}
		if r.at, _, err = f.clock.parse(words[0]); err != nil {
			return err
		}
		for d := range r.value {
			if r.value[d], err = f.number(words[1+d]); err != nil {
				return err
			}
			r.value[d] = r.value[d].times(f.kind.unit)
		}
		if n := len(rows); n > 0 {
			last := &rows[n-1]
			if last.period = last.at - r.at; last.period < 0 {
				return fmt.Errorf("later than the line before: want the newest line first")
			}
		}
		if len(rows) >= maxRows {
			return fmt.Errorf("more than %d samples", maxRows)
		}
		rows = append(rows, r)
		return nil
	})
	rows = rows[:max(len(rows)-1, 0)] // it has no next one
	for len(rows) > 0 && rows[len(rows)-1].value == [2]number{{known: true}, {known: true}} {
		rows = rows[:len(rows)-1] // as a new log is filled
	}
	for _, r := range rows {
		switch {
		case err != nil || r.period == 0:
		case r.period > longest:
			f.note(r.line, "coarse", "a mean of %v is no sample: left out", cli.Duration(r.period))
		default:
			err = f.add("", r)
		}
	}
	if f.Interval == 0 {
		f.Interval = usual
	}
	return err
}

// all reads the rest of the file.
func (f *file) all() ([]byte, error) {
	data, err := io.ReadAll(f.in)
	if f.limit.N <= 0 {
		return nil, errors.New("too large")
	}
	return data, err
}

// join puts values of the same port and time, one a direction, in one row.
type join struct {
	f     *file
	rows  map[string]map[int64]*row
	count int
}

func (j *join) add(port string, direction int, at int64, v number) error {
	if j.rows == nil {
		j.rows = map[string]map[int64]*row{}
	}
	if j.rows[port] == nil {
		j.rows[port] = map[int64]*row{}
	}
	r := j.rows[port][at]
	if r == nil {
		if j.count++; j.count > maxRows {
			return fmt.Errorf("more than %d samples", maxRows)
		}
		r = &row{line: len(j.rows[port]) + 1, at: at}
		j.rows[port][at] = r
	}
	if r.value[direction].known {
		return cli.Hint(fmt.Errorf("two values of %s %s at one time", port, directions[direction]), "ask for one series a port and direction")
	}
	r.value[direction] = v
	return nil
}

// done adds the rows to the file.
func (j *join) done() error {
	for port, rows := range j.rows {
		for _, r := range rows {
			if err := j.f.add(port, *r); err != nil {
				return err
			}
		}
		slices.SortFunc(j.f.ports[port], func(a, b row) int { return a.line - b.line })
	}
	return nil
}
