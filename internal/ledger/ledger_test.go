package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"framepipe/internal/calendar"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// every is a Config with cycles of a length.
func every(cycle, slot time.Duration) Config {
	return Config{Slot: slot, Calendar: calendar.Calendar{Length: cycle}}
}

var hourly = every(time.Hour, 5*time.Second)

func at(hour int, d time.Duration) int64 { return int64(500000+hour)*int64(time.Hour) + int64(d) }

func open(t testing.TB, name string, cfg Config) *Ledger {
	t.Helper()
	l, err := Open(name, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.file.Close() })
	return l
}

func fresh(t testing.TB) *Ledger {
	t.Helper()
	return open(t, t.TempDir()+"/ledger", hourly)
}

// again opens the file of a ledger again, as another process does.
func again(t testing.TB, l *Ledger) *Ledger {
	t.Helper()
	return open(t, l.file.Name(), l.Config)
}

func add(t testing.TB, l *Ledger, now int64, d Direction, bytes int64) {
	t.Helper()
	s, err := l.At(now, d)
	if err != nil {
		t.Fatal(err)
	}
	s.Charged.Add(bytes)
	s.Offered.Add(2 * bytes)
}

// total adds up what a ledger has for a cycle.
func total(l *Ledger, start int64, d Direction) (charged, offered int64) {
	for _, c := range l.Cycles() {
		if c.Start == start {
			for i := range c.Slots {
				charged += c.Slot(i, d).Charged.Load()
				offered += c.Slot(i, d).Offered.Load()
			}
		}
	}
	return charged, offered
}

// Processes count in a file at the same time, and all counts are there after a restart. The
// reserved bytes, which earlier versions used, change nothing, nor does a process that makes the
// same file. Other users may not open it: they could hold its lock.
func TestShared(t *testing.T) {
	a := fresh(t)
	b := again(t, a)
	copy(a.mem[headerSize:tablesAt], bytes.Repeat([]byte{0xff}, reserved))
	var wg sync.WaitGroup
	for _, l := range []*Ledger{a, b} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 1000 {
				add(t, l, at(0, time.Duration(i%100)*time.Second), Out, 1)
			}
		}()
	}
	wg.Wait()
	if err := errors.Join(a.Sync(), a.Close(), create(a.file.Name(), hourly)); err != nil {
		t.Fatal(err)
	}
	if a.Sync() == nil {
		t.Error("a file that cannot be written has no error")
	}
	r, err := Read(a.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, l := range []*Ledger{b, again(t, b), r} {
		if c, o := total(l, at(0, 0), Out); c != 2000 || o != 4000 || l.Config != hourly {
			t.Errorf("%d, %d, %v", c, o, l.Config)
		}
	}
	files, err := os.ReadDir(filepath.Dir(a.file.Name()))
	if info, e := os.Stat(a.file.Name()); errors.Join(err, e) != nil || len(files) != 1 || info.Mode() != 0o640 {
		t.Errorf("%v, %v, %v", files, info, errors.Join(err, e))
	}
}

// Counts and marks are in the slot of their time and direction and in no other, for
// other processes too.
func TestSlots(t *testing.T) {
	cfg := every(time.Hour, 7*time.Second) // the last slot ends with its cycle
	const slots = 515
	type counts struct {
		charged, offered int64
		marked           bool
	}
	slotAt := func(hour, slot int) int64 { return at(hour, time.Duration(slot)*cfg.Slot) }
	rapid.Check(t, func(rt *rapid.T) {
		var want [3][slots][2]counts // by hour, slot and direction
		begun := map[int]bool{}
		l := open(t, t.TempDir()+"/ledger", cfg)
		other := again(t, l)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			hour := rapid.IntRange(0, 2).Draw(rt, "hour")
			slot := rapid.SampledFrom([]int{0, 1, 63, 64, 300, slots - 2, slots - 1}).Draw(rt, "slot")
			d := Direction(rapid.IntRange(0, 1).Draw(rt, "direction"))
			start, end := slotAt(hour, slot), min(slotAt(hour, slot+1), at(hour+1, 0))
			s, err := l.At(rapid.Int64Range(start, end-1).Draw(rt, "now"), d)
			if err != nil || s.Start != start || s.End != end {
				rt.Fatalf("slot %d of hour %d: from %d to %d, %v", slot, hour, s.Start, s.End, err)
			}
			w, n := &want[hour][slot][d], rapid.Int64Range(-1000, 1000).Draw(rt, "bytes")
			s.Charged.Add(n)
			s.Offered.Add(n * n)
			w.charged, w.offered = w.charged+n, w.offered+n*n
			if n%2 == 0 {
				s.Marked.Set()
				w.marked = true
			}
			begun[hour] = true
			l, other = other, l
		}
		slot := rapid.IntRange(0, slots-1).Draw(rt, "to")
		for _, c := range l.Cycles() {
			hour, sums := int((c.Start-at(0, 0))/int64(time.Hour)), [2]int64{}
			for i := range slots {
				for d, w := range want[hour][i] {
					d := Direction(d)
					s := l.Look(slotAt(hour, i), d)
					got := counts{s.Charged.Load(), s.Offered.Load(), s.Marked.Load()}
					w.charged = max(w.charged, 0)
					if got != w || c.Slot(i, d) != s {
						rt.Fatalf("slot %d of hour %d: %+v, want %+v", i, hour, got, w)
					}
					if i < slot {
						sums[d] += w.charged
					}
				}
			}
			to := slotAt(hour, slot)
			if got := [2]int64{l.Charged(to, In), l.Charged(to, Out)}; got != sums {
				rt.Fatalf("charged in hour %d before slot %d: %d, want %d", hour, slot, got, sums)
			}
		}
		// Where there is no cycle there is nothing, and none is begun.
		s := l.Look(at(-5, 0), Out)
		if s.Charged.Load() != 0 || s.Marked.Load() || s.End != at(-5, cfg.Slot) || l.Charged(at(-5, 0), Out) != 0 {
			rt.Fatalf("%+v", s)
		}
		if n := len(l.Cycles()); n != len(begun) {
			rt.Fatalf("%d cycles, want %d", n, len(begun))
		}
	})
}

// Another process begins a cycle, which takes the table of one that is in use here. The old cycle's
// counts and marks are gone, and later counts of it do not get into the new cycle.
func TestTableTaken(t *testing.T) {
	l := fresh(t)
	other := again(t, l)
	add(t, l, at(1, 0), Out, 7)
	l.Look(at(1, 0), Out).Marked.Set()
	for hour := 2; hour < 6; hour++ {
		add(t, other, at(hour, 0), Out, int64(hour))
	}
	if s := l.Look(at(1, 0), Out); s.Charged.Load() != 0 || s.Marked.Load() || s.Start != at(1, 0) {
		t.Errorf("%d bytes in a cycle that is gone, from %d", s.Charged.Load(), s.Start)
	}
	if s := l.Look(at(5, 0), Out); s.Charged.Load() != 5 || s.Marked.Load() {
		t.Errorf("%d bytes, want 5; marked %v", s.Charged.Load(), s.Marked.Load())
	}
	l = again(t, l)
	if s := l.Look(at(2, 0), Out); s.Charged.Load() != 2 {
		t.Fatalf("%d bytes, want 2", s.Charged.Load())
	}
	add(t, other, at(6, 0), Out, 6)
	if s, err := l.At(at(2, 0), Out); err == nil {
		t.Errorf("%d bytes in a cycle that is gone", s.Charged.Load())
	}
}

// A process that has the lock stops no other for long, and the cycle that it begins meanwhile
// is not begun again.
func TestLock(t *testing.T) {
	l := fresh(t)
	other := again(t, l)
	if err := other.lock(); err != nil {
		t.Fatal(err)
	}
	_, err := l.At(at(1, 0), Out)
	if err == nil || !strings.HasSuffix(err.Error(), "/ledger: another process holds the lock (flock)") {
		t.Error(err)
	}
	got := make(chan int64)
	go func() {
		s, err := l.At(at(1, 0), Out)
		if err != nil {
			t.Error(err)
		}
		got <- s.Charged.Load()
	}()
	time.Sleep(30 * time.Millisecond)                   // it waits for the lock
	*other.word(other.tableAt(0) + 8*2*other.slots) = 7 // out, charged
	other.begin(0, at(1, 0), at(2, 0))
	if err := unix.Flock(int(other.file.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 7 || len(l.Cycles()) != 1 {
		t.Errorf("%d bytes, want 7; cycles %+v", n, l.Cycles())
	}
	add(t, other, at(2, 0), Out, 1) // the lock is free again
}

// A table that a process was clearing when it was killed has no cycle, and is cleared before
// it is used.
func TestUncleared(t *testing.T) {
	l := fresh(t)
	add(t, l, at(1, 0), Out, 7)
	*l.word(cyclesAt) = 0
	if s, sum := l.Look(1, Out), l.Charged(int64(time.Minute), Out); s.Charged.Load() != 0 || sum != 0 || len(l.Cycles()) != 0 {
		t.Errorf("%d bytes, %d in all, cycles %+v", s.Charged.Load(), sum, l.Cycles())
	}
	add(t, l, at(2, 0), Out, 2)
	if c, _ := total(l, at(2, 0), Out); c != 2 {
		t.Errorf("%d bytes, want 2", c)
	}
	// While a table is cleared it has no cycle.
	if err := os.Truncate(l.file.Name(), tablesAt); err != nil { // the first byte that is cleared faults
		t.Fatal(err)
	}
	err := error(nil)
	func() {
		defer l.Catch(&err)
		l.begin(0, at(3, 0), at(4, 0))
	}()
	if err == nil || l.start(0) != 0 || l.end(0) == 0 {
		t.Errorf("%v, the table is of a cycle from %d to %d", err, l.start(0), l.end(0))
	}
}

// Invalid cycles are left out, except that cycles may overlap. A count is at most a bound. A ledger
// that has a cycle twice ends well.
func TestDamaged(t *testing.T) {
	for name, tt := range map[string]struct {
		bounds [][2]int64
		want   int
	}{
		"without a start": {[][2]int64{{0, int64(time.Hour)}}, 0},
		"backwards":       {[][2]int64{{at(2, 0), at(1, 0)}}, 0},
		"without length":  {[][2]int64{{at(2, 0), at(2, 0)}}, 0},
		"too long":        {[][2]int64{{at(1, 0), at(2, 1)}}, 0},
		"overlapping":     {[][2]int64{{at(1, 0), at(2, 0)}, {at(2, -1), at(3, -1)}, {at(3, 0), at(4, 0)}}, 3},
		"after 2116":      {[][2]int64{{1<<62 + 1, 1<<62 + int64(time.Hour)}}, 0},
		"negative":        {[][2]int64{{-int64(time.Hour), int64(time.Minute)}}, 0},
	} {
		l := fresh(t)
		for i, b := range tt.bounds {
			*l.word(cyclesAt + i*cycleSize), *l.word(cyclesAt + i*cycleSize + 8) = b[0], b[1]
		}
		if got := l.Cycles(); len(got) != tt.want {
			t.Errorf("%s: %+v, want %d", name, got, tt.want)
		}
	}
	l := fresh(t)
	for i := range 2 { // no sum of counts overflows
		s, err := l.At(at(1, time.Duration(i)*hourly.Slot), In)
		if err != nil {
			t.Fatal(err)
		}
		*s.Charged.p = math.MaxInt64
		if one, all := s.Charged.Load(), l.Charged(at(1, time.Minute), In); one != most || all != most {
			t.Errorf("%d, and %d in all, want %d", one, all, int64(most))
		}
	}
	for i := range cycles {
		*l.word(cyclesAt + i*cycleSize) = at(1+i%2, 0)
	}
	if _, err := l.At(at(3, 0), In); err == nil {
		t.Error("a cycle takes the table of one of the two before it")
	}
}

// A new cycle takes the table of the oldest, but not at a jump of the clock.
func TestTables(t *testing.T) {
	const patience = time.Hour / probation
	type step struct {
		hour  int
		after time.Duration
		ok    bool
	}
	begun := func(hours ...int) (steps []step) {
		for _, h := range hours {
			steps = append(steps, step{h, 0, true})
		}
		return steps
	}
	full := begun(1, 2, 3, 4)
	refused := func(hour int, after time.Duration) []step { return []step{{hour, after, false}} }
	// waits is refused until the clock has gone on.
	waits := func(hour int) []step {
		return []step{{hour, 0, false}, {hour, patience - 1, false}, {hour, patience, true}}
	}
	for name, tt := range map[string]struct {
		steps [][]step
		want  []int // the cycles in the end
	}{
		"in 1970":                   {[][]step{refused(-500000, 5), refused(-500000, -5)}, nil}, // it would begin at 0, as if unused
		"one after the other":       {[][]step{full, begun(5, 6)}, []int{3, 4, 5, 6}},
		"an instant in the past":    {[][]step{full, refused(-9000, 0), begun(4)}, []int{1, 2, 3, 4}},
		"an instant in the future":  {[][]step{full, refused(9000, 0), begun(4, 5)}, []int{2, 3, 4, 5}},
		"again and again":           {[][]step{full, refused(9000, 0), begun(4), refused(9000, 59*time.Minute), begun(4)}, []int{1, 2, 3, 4}},
		"at boot, in a new file":    {[][]step{begun(-9000, 1, -9000, 2, 3, 4)}, []int{1, 2, 3, 4}},
		"at boot, every time":       {[][]step{begun(-9000), full, refused(-9000, 0), begun(4, 5)}, []int{2, 3, 4, 5}},
		"for long in the past":      {[][]step{full, waits(-9000), begun(4, 5)}, []int{2, 3, 4, 5}},
		"for long in the future":    {[][]step{full, waits(9000), begun(4, 5)}, []int{3, 4, 5, 9000}},
		"into the next one":         {[][]step{full, begun(5, 4, 5, 6)}, []int{3, 4, 5, 6}},
		"back before all":           {[][]step{full, refused(0, 0), begun(4)}, []int{1, 2, 3, 4}},
		"back, where there is room": {[][]step{begun(-9000, 2, 3, 4, 1, 4)}, []int{1, 2, 3, 4}},
		"set back while it waits":   {[][]step{full, refused(9000, 30*time.Minute), waits(9000)}, []int{2, 3, 4, 9000}},
		"a year in a drawer":        {[][]step{full, waits(9000), begun(9001, 9002)}, []int{4, 9000, 9001, 9002}},
		"all in the future":         {[][]step{begun(9000, 9001, 9002, 9003), waits(1), waits(2), waits(3), begun(4)}, []int{2, 3, 4, 9003}},
		"three far ahead":           {[][]step{begun(4, 9000, 8000, 7000, 4), waits(5)}, []int{4, 5, 8000, 9000}},
	} {
		l := fresh(t)
		for i, s := range slices.Concat(tt.steps...) {
			if _, err := l.At(at(s.hour, s.after), Out); (err == nil) != s.ok {
				t.Errorf("%s, step %d, hour %d: %v", name, i, s.hour, err)
			}
		}
		var got []int
		for _, c := range l.Cycles() {
			got = append(got, int((c.Start-at(0, 0))/int64(time.Hour)))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// Whatever a clock shows for a moment, near or far, before or after restarts and years
// without traffic, the cycle that goes on and the one before it keep every byte.
func TestClockIsWrong(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := fresh(t)
		want := map[int]int64{} // by hour
		hour, before := 0, 0    // the clock went on without a gap from hour before
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0, 1, 2, 3:
				hour++
			case 4:
				hour += rapid.IntRange(2, 9000).Draw(rt, "years")
				before = hour
			case 5:
				if err := l.Close(); err != nil {
					rt.Fatal(err)
				}
				l = again(t, l)
			default: // far away, and not next to another that was, or near
				wrong := 1e4 + 100*rapid.IntRange(-3000, 3000).Draw(rt, "far")
				if rapid.Bool().Draw(rt, "near") {
					wrong = hour + rapid.IntRange(-6, 1).Draw(rt, "hours")
				}
				for i := range rapid.IntRange(1, 3).Draw(rt, "times") {
					if s, err := l.At(at(wrong, time.Duration(i)*time.Second), Out); err == nil {
						s.Charged.Add(1)
						want[wrong]++
					}
				}
			}
			s, err := l.At(at(hour, 0), Out)
			for i := 1; err != nil && i <= 6; i++ { // a jump takes five seconds to be trusted
				s, err = l.At(at(hour, time.Duration(i)*time.Second), Out)
			}
			if err != nil {
				rt.Fatalf("hour %d: %v", hour, err)
			}
			if want[hour] == 0 { // or the ledger has forgotten an excursion to it
				want[hour], _ = total(l, at(hour, 0), Out)
			}
			s.Charged.Add(1000)
			want[hour] += 1000
			for _, h := range []int{hour - 1, hour} {
				if n, _ := total(l, at(h, 0), Out); h >= before && n != want[h] {
					rt.Fatalf("in hour %d: hour %d has %d, want %d", hour, h, n, want[h])
				}
			}
		}
		l.Close()
	})
}

// The longest month fits, and one around either change of the clocks, but for that of Antarctica/Troll, where
// they go back by two hours in October: it is counted nowhere.
func TestMonth(t *testing.T) {
	const hour = 720 // slots
	for name, want := range map[string][]int{
		"Europe/Berlin":    {28 * 24 * hour, 31*24*hour - hour, 31*24*hour + hour},
		"Antarctica/Troll": {28 * 24 * hour, 31*24*hour - 2*hour},
	} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Slot: 5 * time.Second, Calendar: calendar.Calendar{Day: 1, Zone: zone}}
		l := open(t, t.TempDir()+"/ledger", cfg)
		for i, when := range []time.Time{
			time.Date(2026, 2, 28, 23, 59, 59, 0, zone), time.Date(2026, 3, 29, 3, 0, 0, 0, zone),
			time.Date(2026, 10, 31, 23, 59, 59, 999999999, zone),
		} {
			s, err := l.At(when.UnixNano(), In)
			if (err == nil) != (i < len(want)) {
				t.Fatalf("%v: %v", when, err)
			}
			if err == nil {
				s.Charged.Add(7)
			} else if n := l.Look(when.UnixNano(), In).Charged.Load(); n != 0 {
				t.Errorf("%v: %d bytes", when, n)
			}
		}
		var got []int
		for _, c := range l.Cycles() {
			if n, _ := total(l, c.Start, In); n != 7 {
				t.Errorf("%v: %d bytes", time.Unix(0, c.Start), n)
			}
			got = append(got, c.Slots)
		}
		if info, err := l.file.Stat(); err != nil || info.Size() > 70e6 || !slices.Equal(got, want) {
			t.Errorf("%s: %d slots, want %d; %v, %v", name, got, want, info, err)
		}
	}
}

// What no file can be made for, and what none can say.
func TestHeader(t *testing.T) {
	month := func(day, length int) Config {
		return Config{Slot: time.Hour, Calendar: calendar.Calendar{Day: day, Zone: time.FixedZone(strings.Repeat("x", length), 0)}}
	}
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{every(time.Hour, time.Hour), ""},
		{every(math.MaxInt64, math.MaxInt64), ""},
		{every(time.Hour, time.Hour+1), "slots of 1h0m0.000000001s do not fit cycles of 1h0m0s"},
		{every(time.Hour, 0), "do not fit"},
		{every(-time.Hour, time.Minute), "do not fit"},
		{month(1, zoneSize-1), ""},
		{month(1, zoneSize), "is too long"},
		{month(0, 1), "cycle day 0: must be 1 to 31"},
		{month(32, 1), "cycle day 32: must be 1 to 31"},
	} {
		if _, _, err := tt.cfg.header(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

// Any other file is an error that says why, and is left as it was.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	good, err := os.ReadFile(fresh(t).file.Name())
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, v byte, sum bool) []byte {
		c := bytes.Clone(good)
		c[at] ^= v
		if sum {
			binary.LittleEndian.PutUint32(c[crcAt:], crc32.ChecksumIEEE(c[:crcAt]))
		}
		return c
	}
	const have = "the ledger has slots of 5s and cycles of 1h0m0s, not "
	for name, tt := range map[string]struct {
		in   []byte
		cfg  Config
		want string
	}{
		"empty":         {nil, hourly, "not a ledger, or damaged: 0 bytes"},
		"text":          {bytes.Repeat([]byte("hello "), 1000), hourly, `it begins with "hello hello hell"`},
		"version":       {change(16, 1, false), hourly, "ledger version 2 is not supported: need version 3"},
		"a bit":         {change(25, 1, false), hourly, "wrong header checksum"},
		"cycles":        {change(20, 1, true), hourly, "not a ledger, or damaged: 720 slots for a cycle"},
		"slots":         {change(40, 1, true), hourly, "not a ledger, or damaged: 721 slots for a cycle"},
		"cut off":       {good[:len(good)-1], hourly, "slots need"},
		"another slot":  {good, every(time.Hour, time.Second), have + "slots of 1s and cycles of 1h0m0s"},
		"another cycle": {good, every(2*time.Hour, 5*time.Second), have + "slots of 5s and cycles of 2h0m0s"},
	} {
		file := dir + "/file"
		if err := os.WriteFile(file, tt.in, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(file, tt.cfg)
		if err == nil || !strings.HasPrefix(err.Error(), file+": ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
		if after, _ := os.ReadFile(file); !bytes.Equal(after, tt.in) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, err := Open(dir+"/no/such/directory", hourly); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(dir+"/tiny", every(time.Hour, time.Microsecond)); !errors.Is(err, ErrTooShort) {
		t.Errorf("tiny slots: %v", err)
	}
}

// FuzzRead: reading any file ends well, with an error or with cycles in order, and the bytes that a gate counts
// in it are found again. in is the file without the bytes that are reserved.
func FuzzRead(f *testing.F) {
	file := func(slot, cycle time.Duration, slots int) []byte {
		b := make([]byte, size(slots)-reserved)
		le := binary.LittleEndian
		le.PutUint64(b[24:], uint64(slot))
		le.PutUint64(b[32:], uint64(cycle))
		for i, start := range []time.Duration{3 * cycle, cycle, 7 * cycle} {
			le.PutUint64(b[cyclesAt+i*cycleSize:], uint64(start))
			le.PutUint64(b[cyclesAt+i*cycleSize+8:], uint64(start+cycle))
		}
		return mended(b)
	}
	f.Add(file(time.Minute, time.Hour, 60), false, int64(5*time.Hour))
	f.Add(file(7*time.Second, time.Minute, 9), true, int64(3*time.Minute+1))
	f.Add(file(time.Hour, 24*time.Hour, 24), true, int64(1))
	f.Add(file(0, time.Hour, 60), true, int64(1)) // division by which ended the tool
	f.Add(file(3<<61, 3<<61, 0), true, int64(1))  // whose sum is no slot at all
	f.Add(file(math.MaxInt64, math.MaxInt64, 1), true, int64(1))
	f.Add(file(time.Hour, 0, 745), true, int64(1)) // months of which none has an end
	name := f.TempDir() + "/ledger"
	f.Fuzz(func(t *testing.T, in []byte, mend bool, now int64) {
		if mend {
			in = mended(in)
		}
		head := in[:min(len(in), headerSize)]
		file, err := os.Create(name)
		if err == nil {
			_, err = file.Write(head)
			if tables := in[len(head):]; err == nil && len(tables) > 0 {
				_, err = file.WriteAt(tables, tablesAt)
			}
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		l, err := Read(name)
		if err != nil {
			return
		}
		cfg := l.Config
		if _, slots, err := cfg.header(); err != nil || slots != l.slots || slots < 1 || int64(len(in)) != size(slots)-reserved {
			t.Fatalf("%+v in %d bytes, %v", cfg, len(in), err)
		}
		last := int64(0)
		for _, c := range l.Cycles() {
			if c.Start < last || c.End <= c.Start || c.Slots < 1 || c.Slots > l.slots {
				t.Fatalf("the cycle %+v, after one that starts at %d", c, last)
			}
			last = c.Start
			for i := range c.Slots {
				s := c.Slot(i, Out)
				if s.Charged.Load() < 0 || s.Offered.Load() < 0 {
					t.Fatal("less than nothing")
				}
				s.Marked.Load()
			}
		}
		l.Close()
		if cfg.Length != 0 && now >= 0 && now <= 1<<62 {
			countIn(t, name, cfg, now)
		}
	})
}

// mended makes a file one whose header is in order, if there is room for one.
func mended(b []byte) []byte {
	le := binary.LittleEndian
	b = append(bytes.Clone(b), make([]byte, max(0, headerSize-len(b)))...)
	copy(b, magic)
	le.PutUint32(b[16:], version)
	le.PutUint32(b[20:], cycles)
	cfg := every(time.Duration(le.Uint64(b[32:])), time.Duration(le.Uint64(b[24:])))
	cfg.Day, cfg.Zone = int(le.Uint32(b[44:])), time.UTC
	if _, slots, err := cfg.header(); err == nil && slots < 1000 {
		le.PutUint32(b[40:], uint32(slots))
		b = append(b, make([]byte, max(0, int(size(slots))-len(b)))...)[:size(slots)]
	}
	le.PutUint32(b[crcAt:], crc32.ChecksumIEEE(b[:crcAt]))
	return b
}

// countIn counts a byte in a ledger, if it has a cycle for the time, and looks for it.
func countIn(t *testing.T, name string, cfg Config, now int64) {
	l := open(t, name, cfg)
	defer l.Close()
	s, err := l.At(now, Out)
	if err != nil {
		return // the first cycle of all time, or no table for it
	}
	if now < s.Start || now >= s.End || s.End-s.Start > int64(cfg.Slot) {
		t.Fatalf("%d lies in the slot from %d to %d", now, s.Start, s.End)
	}
	was := s.Charged.Load()
	s.Charged.Add(1)
	s.Marked.Set()
	if x := l.Look(now, Out); x.Charged.Load() != min(was+1, most) || !x.Marked.Load() || x.Start != s.Start {
		t.Fatalf("%d and one more are %d", was, x.Charged.Load())
	}
}

// Counting in a file that was cut off is an error, and no crash; so is reading it.
func TestCutOff(t *testing.T) {
	for what, use := range map[string]func(l *Ledger, s Slot){
		"count":      func(_ *Ledger, s Slot) { s.Charged.Add(1) },
		"take back":  func(_ *Ledger, s Slot) { s.Charged.Add(-1) },
		"look":       func(_ *Ledger, s Slot) { s.Charged.Load() },
		"mark":       func(_ *Ledger, s Slot) { s.Marked.Set() },
		"sum":        func(l *Ledger, _ Slot) { l.Charged(at(1, time.Minute), In) },
		"next cycle": func(l *Ledger, _ Slot) { _, _ = l.At(at(2, 0), In) },
		"read":       func(l *Ledger, _ Slot) { l.Cycles()[0].Slot(0, In).Charged.Load() },
	} {
		l := fresh(t)
		s, err := l.At(at(1, 0), In)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(l.file.Name(), 0); err != nil {
			t.Fatal(err)
		}
		func() {
			defer l.Catch(&err)
			use(l, s)
		}()
		if want := l.file.Name() + ": the ledger was truncated, or its disk failed"; err == nil || err.Error() != want {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Another panic is not the ledger's, nor is a fault below or above its memory.
func TestOtherFaults(t *testing.T) {
	fresh(t) // faults panic from now on
	page := os.Getpagesize()
	pages, err := unix.Mmap(-1, 0, 3*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(pages) }()
	l := &Ledger{mem: pages[page : 2*page]}
	for name, do := range map[string]func(){
		"a panic": func() { panic("oh") },
		"below":   func() { pages[page-1]++ },
		"above":   func() { pages[2*page]++ },
	} {
		func() {
			defer func() {
				if r := recover(); r == nil {
					t.Errorf("%s: it is taken for the ledger's", name)
				}
			}()
			var err error
			defer l.Catch(&err)
			do()
		}()
	}
}

// A ledger has all its space from the start. Where that cannot be reserved, it is written;
// a full disk leaves no file.
func TestSpace(t *testing.T) {
	reserve := allocate
	defer func() { allocate = reserve }()
	_, slots, _ := hourly.header()
	whole, good := size(slots), fresh(t).file.Name()
	for _, fails := range []error{nil, errors.ErrUnsupported, unix.ENOSPC} {
		name := t.TempDir() + "/ledger"
		if fails != nil {
			allocate = func(*os.File, int64) error { return fails }
		}
		_, err := Open(name, hourly)
		var st unix.Stat_t
		missing := unix.Stat(name, &st)
		if fails == unix.ENOSPC {
			if !errors.Is(err, fails) || !strings.Contains(err.Error(), "making a ledger of 0.621 MB") || missing != unix.ENOENT {
				t.Errorf("a full disk: %v, %v", err, missing)
			}
			if _, err := Open(good, hourly); !errors.Is(err, fails) {
				t.Errorf("a full disk, and a file that may have holes: %v", err)
			}
		} else if err != nil || st.Size != whole || st.Blocks*512 < whole-headerSize {
			t.Errorf("%v: %d bytes in %d blocks, %v", fails, st.Size, st.Blocks, err)
		}
	}
}
