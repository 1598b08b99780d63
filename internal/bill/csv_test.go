package bill

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"framepipe/internal/calendar"
)

// read reads the samples of a file.
func read(file string, zone *time.Location, interval time.Duration) (*Samples, error) {
	list, err := ReadCSV(strings.NewReader(file), zone)
	if err != nil {
		return nil, err
	}
	return NewSamples(list, interval)
}

// times returns the samples, for tests.
func (s *Samples) times() (all []string) {
	for _, x := range s.list {
		all = append(all, fmt.Sprintf("%s %d %d", time.Unix(0, x.At).UTC().Format("02 15:04:05"), x.In, x.Out))
	}
	return all
}

func TestReadCSV(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, in string
		zone     *time.Location
		want     string // the samples, or the error
	}{
		{"plain", "time,in,out\n2026-03-01 00:00:00,1,2\n2026-03-01T00:05:00Z,3,4\n", time.UTC, "01 00:00:00 1 2|01 00:05:00 3 4"},
		{"no header", "2026-03-01 00:00:00,1,2", time.UTC, "01 00:00:00 1 2"},
		{"CRLF, a mark, quotes, spaces, comments", "\xef\xbb\xbf\"time\", in ,\"out\"\r\n\r\n# x\r\n\"2026-03-01 00:00:00\", 1 ,\"2\"\r\n", time.UTC, "01 00:00:00 1 2"},
		{"columns elsewhere", "name,OUT,Time,in\nx,2,2026-03-01 00:00:00,1\n", time.UTC, "01 00:00:00 1 2"},
		{"one direction", "time,out\n2026-03-01 00:00:00,2\n", time.UTC, "01 00:00:00 0 2"},
		{"more columns", "2026-03-01 00:00:00,1,2,3\n", time.UTC, "01 00:00:00 1 2"},
		{"an offset", "2026-03-01T01:00:00.5+01:00,1,2", berlin, "01 00:00:00 1 2"},
		{"the zone", "2026-03-01 01:00:00,1,2", berlin, "01 00:00:00 1 2"},
		{"not in order", "2026-03-01 00:05:00,3,4\n2026-03-01 00:00:00,1,2\n", time.UTC, "01 00:00:00 1 2|01 00:05:00 3 4"},
		{"twice the same", "2026-03-01 00:00:00,1,2\n2026-03-01 00:05:00,1,2\n2026-03-01 00:00:00,1,2\n", time.UTC, "01 00:00:00 1 2|01 00:05:00 1 2"},
		{"twice, not the same", "2026-03-01 00:00:00,1,2\n2026-03-01 00:05:00,1,2\n2026-03-01 00:00:00,1,3\n", time.UTC, "error: line 3: line 1 has different bytes for the same time"},
		{"missing", "2026-03-01 00:00:00,,2\n2026-03-01 00:05:00,nan,2\n2026-03-01 00:10:00,1,U\n2026-03-01 00:15:00,1,2\n", time.UTC, "01 00:15:00 1 2"},
		{"put forward", "2026-03-29 01:55:00,1,2\n2026-03-29 03:00:00,1,2\n", berlin, "29 00:55:00 1 2|29 01:00:00 1 2"},
		{"in the gap", "2026-03-29 01:55:00,1,2\n2026-03-29 02:00:00,1,2\n", berlin, "error: line 2: 2026-03-29 02:00:00 does not exist in Europe/Berlin: clocks were set forward"},
		{"put back", "2026-10-25 02:00:00,1,2\n2026-10-25 02:30:00,3,4\n2026-10-25 02:00:00,5,6\n2026-10-25 02:30:00,7,8\n2026-10-25 03:00:00,9,10\n", berlin,
			"25 00:00:00 1 2|25 00:30:00 3 4|25 01:00:00 5 6|25 01:30:00 7 8|25 02:00:00 9 10"},
		{"put back, an hour apart", "2026-10-25 02:00:00,1,2\n2026-10-25 02:00:00,3,4\n", berlin, "25 00:00:00 1 2|25 01:00:00 3 4"},
		{"put back, and only once", "2026-10-25 01:30:00,1,2\n2026-10-25 02:30:00,3,4\n2026-10-25 03:30:00,5,6\n", berlin, "24 23:30:00 1 2|25 00:30:00 3 4|25 02:30:00 5 6"},
		{"empty", "", time.UTC, "error: there are no samples"},
		{"a header alone", "time,in,out\n", time.UTC, "error: there are no samples"},
		{"other names", "when,what\n", time.UTC, "error: line 1: neither a sample nor the names of the columns: want time,in,out"},
		{"a name twice", "time,in,in,out\n", time.UTC, "error: line 1: two columns are called in"},
		{"too few", "time,in,out\n2026-03-01 00:00:00,1\n", time.UTC, "error: line 2: 2 columns, want 3: time,in,out"},
		{"negative", "2026-03-01 00:00:00,-1,2\n", time.UTC, `error: line 1: in is "-1": want a number of bytes`},
		{"a fraction", "2026-03-01 00:00:00,1,2.5\n", time.UTC, `error: line 1: out is "2.5": want a number of bytes`},
		{"no number", "2026-03-01 00:00:00,1,lots\n", time.UTC, `error: line 1: out is "lots": want a number of bytes`},
		{"too much", "2026-03-01 00:00:00,1,9000000000000000000\n", time.UTC, "error: line 1: that is more bytes than can be counted"},
		{"too much together", "2026-03-01 00:00:00,1,4000000000000000000\n2026-03-01 00:05:00,1,4000000000000000000\n", time.UTC, "error: line 2: that is more bytes than can be counted"},
		{"no time", "2026-03-01 00:00:00,1,2\nyesterday,1,2\n", time.UTC, `error: line 2: "yesterday" is not a time: want 2006-01-02T15:04:05Z or 2006-01-02 15:04:05`},
		{"no such day", "2026-02-30 00:00:00,1,2\n", time.UTC, `error: line 1: "2026-02-30 00:00:00" is not a time`},
		{"seconds since 1970", "1740787200,1,2\n", time.UTC, `error: line 1: "1740787200" is not a time`},
		{"long ago", "0001-01-01 00:00:00,1,2\n", time.UTC, "error: line 1: the year 1 is not between 1970 and 2200"},
		{"a quote that does not end", "2026-03-01 00:00:00,1,2\n2026-03-01 00:05:00,\"1,2\n", time.UTC, "error: line 2: extraneous or missing \" in quoted-field"},
		{"a comma for thousands", "2026-03-01 00:00:00,\"1,000\",2\n", time.UTC, `error: line 1: in is "1,000": want a number of bytes`},
		{"a plus", "2026-03-01 00:00:00,+1,2\n", time.UTC, `error: line 1: in is "+1": want a number of bytes`},
		{"before and after a change", "2026-03-28 02:30:00,1,2\n2026-03-30 02:30:00,3,4\n", berlin, "28 01:30:00 1 2|30 00:30:00 3 4"},
	} {
		s, err := read(tt.in, tt.zone, time.Second)
		got := ""
		if err != nil {
			got = "error: " + err.Error()
		} else {
			got = strings.Join(s.times(), "|")
		}
		if got != tt.want && !(strings.HasPrefix(tt.want, "error") && strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// A reader that fails is no end.
func TestReadCSVFails(t *testing.T) {
	in := io.MultiReader(strings.NewReader("2026-03-01 00:00:00,1,2\n"), failing{})
	if _, err := ReadCSV(in, time.UTC); err == nil || err.Error() != "the disk is gone" {
		t.Error(err)
	}
}

// A file, or a line, without end is refused before it fills the memory.
func TestReadCSVLimit(t *testing.T) {
	for _, file := range []string{"2026-03-01 00:00:00,1,2\n", "x"} {
		limit := &io.LimitedReader{R: strings.NewReader(strings.Repeat(file, 1000)), N: 900}
		if _, err := readCSV(limit, time.UTC); err == nil || err.Error() != "larger than 256 MiB" {
			t.Errorf("%q: %v", file, err)
		}
	}
	list, err := readCSV(&io.LimitedReader{R: strings.NewReader("2026-03-01 00:00:00,1,2\n"), N: 25}, time.UTC)
	if err != nil || len(list) != 1 {
		t.Error(list, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, fmt.Errorf("the disk is gone") }

func TestGrid(t *testing.T) {
	at := func(s string) string { return "2026-03-01 " + s + ",0,1\n" }
	for _, tt := range []struct {
		name, in string
		interval time.Duration
		slot     time.Duration
		moved    int
		start    string
		want     string // bytes of each slot; - is missing
	}{
		{"regular", at("00:00:00") + at("00:05:00") + at("00:10:00"), 0, 5 * time.Minute, 0, "00:00", "1 1 1"},
		{"off the clock", at("00:04:00") + at("00:09:00") + at("00:14:00"), 0, 5 * time.Minute, 0, "00:04", "1 1 1"},
		{"missing", at("00:00:00") + at("00:05:00") + at("00:20:00") + at("00:25:00"), 0, 5 * time.Minute, 0, "00:00", "1 1 - - 1 1"},
		{"jitter", at("00:00:00") + at("00:05:00") + at("00:10:03") + at("00:14:58") + at("00:20:00") + at("00:25:00"), 0, 5 * time.Minute, 2, "00:00", "1 1 1 1 1 1"},
		{"two in one", at("00:00:00") + at("00:05:00") + at("00:06:00") + at("00:10:00") + at("00:15:00"), 0, 5 * time.Minute, 1, "00:00", "1 2 1 1"},
		{"given", at("00:00:00") + at("00:01:00") + at("00:02:00") + at("00:05:00"), 5 * time.Minute, 5 * time.Minute, 2, "00:00", "3 1"},
		{"one", at("00:00:00"), time.Minute, time.Minute, 0, "00:00", "1"},
		{"the least interval", at("00:00:00") + at("00:05:00") + at("00:15:00"), 0, 5 * time.Minute, 0, "00:00", "1 1 - 1"},
		{"half an interval early", at("00:00:00") + at("00:05:00") + at("00:07:30") + at("00:15:00"), 5 * time.Minute, 5 * time.Minute, 1, "00:00", "1 1 1 1"},
	} {
		s, err := read(tt.in, time.UTC, tt.interval)
		if err != nil {
			t.Fatal(tt.name, err)
		}
		if s.Slot != tt.slot || s.Moved != tt.moved {
			t.Errorf("%s: every %v, %d moved", tt.name, s.Slot, s.Moved)
		}
		x, err := s.series(0, 1<<62)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, n := range x.Out {
			if got = append(got, fmt.Sprint(n)); !x.Known[i] {
				got[i] = "-"
			}
		}
		if strings.Join(got, " ") != tt.want || time.Unix(0, x.Start).UTC().Format("15:04") != tt.start {
			t.Errorf("%s: %v from %v, want %s from %s", tt.name, got, time.Unix(0, x.Start).UTC(), tt.want, tt.start)
		}
	}
	// Far apart, but in one cycle too many.
	s, err := read("2026-03-01T00:00:00Z,1,1\n2026-03-01T00:00:00.001Z,1,1\n2026-03-09T00:00:00Z,1,1\n", time.UTC, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.series(0, 1<<62); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

// Samples that are next to no time apart would be billed for as many phases, and for
// as many slots of the cycle.
func TestTooFine(t *testing.T) {
	s, err := read("2026-03-01T00:00:00Z,1,1\n2026-03-01T00:00:00.000000001Z,1,1\n", time.UTC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, window := range []time.Duration{s.Slot, 5 * time.Minute} {
		_, err := New(s, calendar.Calendar{Day: 1, Zone: time.UTC}.At(s.list[0].At), time.UTC, Terms{Percentile: 95e9, Window: window})
		if err == nil || !strings.Contains(err.Error(), "samples every 1ns are more than") {
			t.Errorf("windows of %v: %v", window, err)
		}
	}
}

// FuzzReadCSV: whatever the file, and however it comes, no panic; an error names a
// line there is, and what is taken is in the slot that begins nearest to it.
func FuzzReadCSV(f *testing.F) {
	for _, s := range []string{
		"time,in,out\n2026-03-01 00:00:00,1,2\n2026-03-01T00:05:00Z,3,4\n",
		"2026-10-25 02:00:00,1,2\n2026-10-25 02:00:00,5,6\n",
		"out,time\n\"5\",2026-03-01T00:00:00.5+01:00\n#\n,\n",
		"1970-01-01T00:00:00+23:59,1,2\n2200-12-31 23:59:59,1,2\n1970-01-01 00:00:01,NaN,U\n",
		"2026-03-29 02:30:00,1,2\n",
	} {
		f.Add([]byte(s))
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Skip(err)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		list, err := ReadCSV(bytes.NewReader(file), berlin)
		again, err2 := ReadCSV(iotest.OneByteReader(bytes.NewReader(file)), berlin)
		if fmt.Sprint(err) != fmt.Sprint(err2) || !slices.Equal(list, again) {
			t.Fatalf("byte by byte %v, and at once %v", err2, err)
		}
		var s *Samples
		if err == nil {
			s, err = NewSamples(list, 0)
		}
		if err != nil {
			var line int
			if n, _ := fmt.Sscanf(err.Error(), "line %d:", &line); n == 1 && (line < 1 || line > 1+bytes.Count(file, []byte{'\n'})) {
				t.Fatal(err)
			}
			return
		}
		if s.Slot <= 0 || s.Len() == 0 {
			t.Fatalf("%d samples every %v", s.Len(), s.Slot)
		}
		from := s.list[0].At
		want := map[int64]Sample{}
		slices.SortStableFunc(again, func(a, b Sample) int { return cmp.Compare(a.At, b.At) })
		again, _ = distinct(again)
		for i, x := range again {
			if i > 0 && x.At <= again[i-1].At {
				t.Fatal("not in order")
			}
			at := from + (x.At-from+int64(s.Slot)/2)/int64(s.Slot)*int64(s.Slot)
			sum := want[at]
			want[at] = Sample{At: at, In: sum.In + x.In, Out: sum.Out + x.Out}
		}
		if len(want) != s.Len() {
			t.Fatalf("%d slots, want %d", s.Len(), len(want))
		}
		for _, x := range s.list {
			if sum := want[x.At]; x.In != sum.In || x.Out != sum.Out {
				t.Fatalf("%+v, want %+v", x, sum)
			}
		}
		last := s.list[s.Len()-1].At
		cycles := calendar.Calendar{Day: 31, Zone: berlin}
		if s.Slot < time.Hour { // or a month has too many slots for one of a million runs
			cycles.Length = 500 * s.Slot
		}
		b, err := New(s, cycles.At(last), berlin, Terms{Percentile: 95e9, Window: s.Slot, Commit: 1, Cap: 1})
		if err != nil {
			return
		}
		var svg bytes.Buffer
		if err := b.SVG(&svg); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, svg.Bytes())
		if err := b.Text(io.Discard, Style{}); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkReadCSV(b *testing.B) {
	var file bytes.Buffer
	file.WriteString("time,in,out\n")
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for range 31 * 17280 {
		fmt.Fprintf(&file, "%s,%d,%d\n", at.Format(time.DateTime), rand.Int64N(1e8), rand.Int64N(1e8))
		at = at.Add(5 * time.Second)
	}
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		b.Skip(err)
	}
	for b.Loop() {
		if _, err := read(file.String(), zone, 0); err != nil {
			b.Fatal(err)
		}
	}
}
