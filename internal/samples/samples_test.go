package samples

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf16"

	"framepipe/internal/bill"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
)

var update = flag.Bool("update", false, "write testdata/cases.txt anew")

// readWith reads a file with the flags of quotabill.
func readWith(t *testing.T, file, args string) (ports []Port, notes []string, err error) {
	t.Helper()
	o := Options{Zone: time.UTC, Format: Format{}}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.Func("format", "", o.Format.Set)
	flags.BoolVar(&o.Counters, "counters", false, "")
	flags.DurationVar(&o.Interval, "interval", 0, "")
	flags.Var((*cli.Rate)(&o.Speed), "speed", "")
	zone := flags.String("tz", "UTC", "")
	if err := flags.Parse(strings.Fields(args)); err != nil {
		t.Fatal(args, err)
	}
	if o.Zone, err = time.LoadLocation(*zone); err != nil {
		t.Fatal(err)
	}
	return Read(strings.NewReader(file), o)
}

// result returns the result of a file as text: an error and its hint, or notes and samples, the times in UTC.
func result(t *testing.T, file, args string) string {
	t.Helper()
	ports, notes, err := readWith(t, file, args)
	var text strings.Builder
	if err != nil {
		fmt.Fprintf(&text, "=> error: %v\n", err)
	}
	if hint := cli.HintOf(err); hint != "" {
		fmt.Fprintf(&text, "=> hint: %s\n", hint)
	}
	for _, note := range notes {
		fmt.Fprintf(&text, "=> note: %s\n", note)
	}
	for _, p := range ports {
		fmt.Fprintf(&text, "=> %severy %v\n", strings.TrimLeft(p.Name+" ", " "), cli.Duration(p.Slot))
		for x := range p.All() {
			fmt.Fprintf(&text, "=> %s %d %d\n", time.Unix(0, x.At).UTC().Format("2006-01-02 15:04:05.999"), x.In, x.Out)
		}
	}
	return text.String()
}

// data returns a file of testdata.
func data(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// cases returns the text of testdata/cases.txt in parts: a head with a name and flags, a
// file, and the result.
func cases(t testing.TB) (all [][3]string) {
	for line := range strings.Lines(data(t, "cases.txt")) {
		i := len(all) - 1
		switch {
		case strings.HasPrefix(line, "# ") && line != "# x\n":
			all = append(all, [3]string{line})
		case strings.HasPrefix(line, "=> "):
			all[i][2] += line
		default:
			all[i][1] += line
		}
	}
	return all
}

// Each dialect and each bad file has its samples or its message.
func TestCases(t *testing.T) {
	var anew strings.Builder
	for _, c := range cases(t) {
		_, args, _ := strings.Cut(c[0], " -")
		got := result(t, c[1], "-"+args)
		if got != c[2] && !*update {
			t.Errorf("%s%s%swant\n%s", c[0], c[1], got, c[2])
		}
		anew.WriteString(c[0] + c[1] + got)
	}
	if *update {
		if err := os.WriteFile("testdata/cases.txt", []byte(anew.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// Files in UTF-16 and with a mark read as those without.
func TestEncodings(t *testing.T) {
	const file = "time,in,out,ümlaut𝄞\r\n2026-03-01 00:00:00,1,2,ü\r\n2026-03-01 00:05:00,3,4,𝄞\r\n"
	want := result(t, file, "")
	little, big := []byte("\xff\xfe"), []byte("\xfe\xff")
	for _, c := range utf16.Encode([]rune(file)) {
		little, big = append(little, byte(c), byte(c>>8)), append(big, byte(c>>8), byte(c))
	}
	for _, text := range []string{"\ufeff" + file, string(little), string(big)} {
		if got := result(t, text, ""); got != want || strings.Contains(got, "error") {
			t.Errorf("%q: %s, want %s", text[:4], got, want)
		}
	}
}

// A reader that fails is no end.
func TestReadFails(t *testing.T) {
	in := io.MultiReader(strings.NewReader("2026-03-01 00:00:00,1,2\n"), iotest.ErrReader(fmt.Errorf("the disk is gone")))
	if _, _, err := Read(in, Options{Zone: time.UTC}); err == nil || err.Error() != "the disk is gone" {
		t.Error(err)
	}
}

// A line, a value or a file without end is refused before it fills the memory.
func TestEndless(t *testing.T) {
	const long, deep = "longer than 1048576 bytes without an end", "more than 32 elements within each other"
	for _, tt := range []struct{ begin, text, want string }{
		{"", "x", long}, {"", "\n", long}, {"", "#\n", long}, {`"`, "x\n", long},
		{"in out\n\n1793491500: ", "1", long},
		{`{"vnstatversion":"`, "x", long}, {`{"vnstatversion":`, "1", long}, {`{"vnstatversion":`, " ", long},
		{`{"vnstatversion":`, "[", deep}, {"", `{"vnstatversion":`, deep},
		{"<rrd>", "x", long}, {"", "<rrd>", deep}, {"<rrd><!--", "x", long}, {"<rrd>", "x<!-- -->", long},
		{`{"about":"","meta":{"legend":[`, `"in",`, long},
	} {
		file := strings.NewReader(tt.begin + strings.Repeat(tt.text, 9<<20/len(tt.text)))
		_, _, err := Read(file, Options{Zone: time.UTC})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || file.Len() < 1<<20 {
			t.Errorf("%s%s: %v with %d bytes left, want %s", tt.begin, tt.text, err, file.Len(), tt.want)
		}
	}
}

func TestFormat(t *testing.T) {
	for text, want := range map[string]string{
		"fetch": "map[name:fetch]", "csv,bits,in=a b": "map[bits: in:a b name:csv]", "decimal=comma": "map[decimal:,]",
		"x": `"x" is neither a format`, "csv,fetch": "csv and fetch: give one", "bits,bytes": "bits and bytes: give one",
		"in": "in: want in=COLUMN", "end=1": "end takes no value", "decimal=x": "decimal=x: want decimal=point or decimal=comma",
	} {
		f := Format{}
		err := f.Set(text)
		got := fmt.Sprint(f)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// The sum of ports has every sample of any of them.
func TestSum(t *testing.T) {
	port := func(name string, slot time.Duration, list ...bill.Sample) Port {
		s, _ := bill.NewSamples(list, slot)
		return Port{name, s}
	}
	a := port("a", 10, bill.Sample{At: 20, In: 1, Out: 2}, bill.Sample{At: 30, In: 3, Out: 4})
	b := port("b", 10, bill.Sample{At: 31, In: 10, Out: 20})
	s, notes, err := Sum([]Port{a, b})
	if err != nil || len(notes) != 1 || !strings.HasPrefix(notes[0], "1 of 4 samples of the ports are not known") {
		t.Fatal(notes, err)
	}
	want := []bill.Sample{{At: 20, In: 1, Out: 2}, {At: 30, In: 13, Out: 24}}
	if got := slices.Collect(s.All()); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	c := port("c", 5, bill.Sample{At: 20})
	if _, _, err := Sum([]Port{a, c}); err == nil || err.Error() != "samples of a are 10ns apart, those of c 5ns" {
		t.Error(err)
	}
}

// A year of local times is read in less than a second or two.
func TestYear(t *testing.T) {
	zone, _ := time.LoadLocation("America/New_York")
	file := bytes.NewBufferString("time,in,out\n")
	at := time.Date(2025, 1, 1, 0, 0, 0, 0, zone)
	for i := range 365 * 288 {
		fmt.Fprintf(file, "%s,%d,%d\n", at.Add(time.Duration(i)*5*time.Minute).Format(time.DateTime), i*7919%1e9, i)
	}
	begin := time.Now()
	ports, _, err := Read(file, Options{Zone: zone, Format: Format{"amount": ""}})
	if err != nil || ports[0].Len() != 365*288 {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 10*time.Second { // 0.2 s where nothing else runs
		t.Errorf("it took %v", took)
	}
}

// FuzzRead: no file of any format, in pieces of any size, makes it panic; an error
// names a line there is; and samples can be billed and drawn.
func FuzzRead(f *testing.F) {
	for _, c := range cases(f) {
		f.Add([]byte(c[1]), uint8(255), false)
	}
	berlin, _ := time.LoadLocation("Europe/Berlin")
	f.Fuzz(func(t *testing.T, file []byte, kind uint8, counters bool) {
		if len(file) > 1<<14 {
			return
		}
		o := Options{Zone: berlin, Counters: counters, Format: Format{}}
		if int(kind) < len(formats) {
			o.Format["name"] = formats[kind].name
			o.Format["if"] = "1"
		}
		ports, notes, err := Read(bytes.NewReader(file), o)
		again, notes2, err2 := Read(iotest.OneByteReader(bytes.NewReader(file)), o)
		if fmt.Sprint(err) != fmt.Sprint(err2) || !slices.Equal(notes, notes2) || len(ports) != len(again) {
			t.Fatalf("byte by byte %v, and at once %v", err2, err)
		}
		line, lines := 1, 2+bytes.Count(file, []byte{'\n'})+bytes.Count(file, []byte{'\r'})
		if _, _ = fmt.Sscanf(fmt.Sprint(err), "line %d:", &line); line < 1 || line > lines {
			t.Fatal(err)
		}
		for i, p := range ports {
			if p.Slot <= 0 || p.Len() == 0 || !slices.Equal(slices.Collect(p.All()), slices.Collect(again[i].All())) {
				t.Fatalf("%d samples every %v", p.Len(), p.Slot)
			}
			draw(t, p.Samples, berlin)
		}
	})
}

// draw bills the last of the samples, and draws the bill.
func draw(t *testing.T, s *bill.Samples, zone *time.Location) {
	all := slices.Collect(s.All())
	cycles := calendar.Calendar{Length: 500 * s.Slot} // a month has too many slots for one of a million runs
	b, err := bill.New(s, cycles.At(all[len(all)-1].At), zone, bill.Terms{Percentile: 95e9, Window: s.Slot, Commit: 1, Cap: 1})
	if err != nil {
		return
	}
	var svg bytes.Buffer
	if err := errors.Join(b.SVG(&svg), b.Text(io.Discard, bill.Style{})); err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(svg.Bytes(), &struct{}{}); err != nil {
		t.Fatal(err)
	}
}
