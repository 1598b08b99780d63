package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"os/exec"
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

// hourly has cycles of an hour.
var hourly = Config{Slot: 5 * time.Second, Cycle: time.Hour}

func hours(now int64) (start, end int64) {
	start = now - now%int64(time.Hour)
	return start, start + int64(time.Hour)
}

func at(hour int, d time.Duration) int64 { return int64(500000+hour)*int64(time.Hour) + int64(d) }

func open(t testing.TB, name string) *Ledger {
	t.Helper()
	l, err := Open(name, hourly, hours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.file.Close() })
	return l
}

func add(t testing.TB, l *Ledger, now int64, d Direction, bytes int64) {
	t.Helper()
	s, err := l.At(now, d)
	if err != nil {
		t.Fatal(err)
	}
	if s.Start > now || s.End <= now || s.End > s.Start+int64(l.cfg.Slot) {
		t.Fatalf("the slot of %d is from %d to %d", now, s.Start, s.End)
	}
	s.Charged.Add(bytes)
	s.Offered.Add(2 * bytes)
}

// total adds up what a ledger has for a cycle.
func total(l *Ledger, start int64, d Direction) (charged, offered int64) {
	for _, c := range l.Cycles() {
		if c.Start == start {
			for i := range c.Slots {
				charged += c.Bytes(d, false, i)
				offered += c.Bytes(d, true, i)
			}
		}
	}
	return charged, offered
}

// All counts are there: for other processes at once, and after a restart.
func TestShared(t *testing.T) {
	name := t.TempDir() + "/ledger"
	a, b := open(t, name), open(t, name)
	var wg sync.WaitGroup
	for _, l := range []*Ledger{a, b} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 1000 {
				add(t, l, at(0, time.Duration(i%100)*time.Second), Out, 1)
				add(t, l, at(0, 0), In, 10)
			}
		}()
	}
	wg.Wait()
	for _, l := range []*Ledger{a, b} {
		if c, o := total(l, at(0, 0), Out); c != 2000 || o != 4000 {
			t.Errorf("out: %d, %d", c, o)
		}
		if c, o := total(l, at(0, 0), In); c != 20000 || o != 40000 {
			t.Errorf("in: %d, %d", c, o)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Read(name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if c, _ := total(r, at(0, 0), Out); c != 2000 || r.Config().Slot != hourly.Slot || r.Config().Cycle != hourly.Cycle {
		t.Errorf("read: %d, %+v", c, r.Config())
	}
}

// Slots before a time are found across the beginning of a cycle, and time may go
// back.
func TestLook(t *testing.T) {
	l := open(t, t.TempDir()+"/ledger")
	for i := range 10 {
		add(t, l, at(1, time.Duration(i-5)*5*time.Second), Out, int64(1)<<i)
	}
	add(t, l, at(1, -time.Hour+time.Second), Out, 1000) // back in the cycle before
	for i, want := range []int64{1 << 8, 1 << 7, 1 << 6, 1 << 5, 1 << 4, 1 << 3, 1 << 2, 1 << 1, 1, 0, 0, 0} {
		end := at(1, time.Duration(4-i)*5*time.Second)
		if s := l.Look(end-1, Out); s.Charged.Load() != want || s.Offered.Load() != 2*want || s.End != end || s.Start != end-5e9 {
			t.Errorf("%d slots before: %d, from %d to %d", i+1, s.Charged.Load(), s.Start-at(1, 0), s.End-at(1, 0))
		}
	}
	if c, _ := total(l, at(0, 0), Out); c != 1000+1+2+4+8+16 {
		t.Errorf("the cycle before has %d", c)
	}
	// Long before all that: nothing, and no cycle is begun.
	if s := l.Look(at(-5, 0), Out); s.Charged.Load() != 0 || s.Marked.Load() || s.End != at(-5, 5*time.Second) || len(l.Cycles()) != 2 {
		t.Errorf("%+v, %d cycles", s, len(l.Cycles()))
	}
}

// A cycle that was found loses its table to a new one, which another process begins: what
// is counted or looked at in it then is not the new one's.
func TestTableTaken(t *testing.T) {
	name := t.TempDir() + "/ledger"
	l, other := open(t, name), open(t, name)
	add(t, l, at(1, 0), Out, 7)
	for hour := 2; hour < 6; hour++ {
		add(t, other, at(hour, 0), Out, int64(hour))
	}
	if s := l.Look(at(1, 0), Out); s.Charged.Load() != 0 || s.Start != at(1, 0) || s.End != at(1, 5*time.Second) {
		t.Errorf("%d bytes in a cycle that is gone, from %d to %d", s.Charged.Load(), s.Start, s.End)
	}
	l = open(t, name)
	if s := l.Look(at(2, 0), Out); s.Charged.Load() != 2 {
		t.Fatalf("%d bytes, want 2", s.Charged.Load())
	}
	add(t, other, at(6, 0), Out, 6)
	if s, err := l.At(at(2, 0), Out); err == nil {
		t.Errorf("%d bytes in a cycle that is gone", s.Charged.Load())
	}
}

// What a process that has the lock begins meanwhile is not begun again.
func TestBegunMeanwhile(t *testing.T) {
	name := t.TempDir() + "/ledger"
	l, other := open(t, name), open(t, name)
	if err := other.lock(); err != nil {
		t.Fatal(err)
	}
	got := make(chan int64)
	go func() {
		s, err := l.At(at(1, 0), Out)
		if err != nil {
			t.Error(err)
		}
		got <- s.Charged.Load()
	}()
	time.Sleep(30 * time.Millisecond) // it waits for the lock
	other.cell(0, column(Out, false), 0).Add(7)
	other.begin(0, at(1, 0), at(2, 0))
	if err := unix.Flock(int(other.file.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 7 || len(l.Cycles()) != 1 {
		t.Errorf("%d bytes, want 7; cycles %+v", n, l.Cycles())
	}
}

// A count that is taken back is no less than 0, and one that is damaged no more than most.
func TestCell(t *testing.T) {
	l := open(t, t.TempDir()+"/ledger")
	s, err := l.At(at(1, 0), In)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range [][2]int64{{7, 7}, {-5, 2}, {-5, 0}, {3, 3}, {-3, 0}} {
		if s.Charged.Add(step[0]); s.Charged.Load() != step[1] {
			t.Errorf("after %d: %d, want %d", step[0], s.Charged.Load(), step[1])
		}
	}
	*s.Charged.p = math.MaxUint64
	if n := s.Charged.Load(); n != most {
		t.Errorf("%d, want %d", n, int64(most))
	}
	var none Slot
	none.Charged.Add(7)
	none.Charged.Add(-7)
	none.Marked.Set()
	if none.Charged.Load() != 0 || none.Marked.Load() {
		t.Error("no slot has a count or a mark")
	}
}

// The last slot ends with its cycle, also where slots do not fill it.
func TestLastSlot(t *testing.T) {
	minutes := func(now int64) (start, end int64) {
		start = now - now%int64(time.Minute)
		return start, start + int64(time.Minute)
	}
	l, err := Open(t.TempDir()+"/ledger", Config{Slot: 7 * time.Second, Cycle: time.Minute}, minutes)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, sec := range []int64{0, 6, 7, 55, 56, 59} {
		s, err := l.At(at(1, time.Duration(sec)*time.Second), In)
		start, end := at(1, 0)+sec/7*7e9, at(1, 0)+min(sec/7*7+7, 60)*1e9
		if x := l.Look(s.Start, In); err != nil || s.Start != start || s.End != end || x != s {
			t.Errorf("second %d: %+v, %+v, %v, want %d to %d", sec, s, x, err, start, end)
		}
	}
	if c := l.Cycles(); len(c) != 1 || c[0].Slots != 9 {
		t.Errorf("%+v", c)
	}
}

// A mark is that of one slot and direction, stays, and is gone with the cycle.
func TestMark(t *testing.T) {
	name := t.TempDir() + "/ledger"
	l, other := open(t, name), open(t, name)
	marked := []int{0, 63, 64, 130, 719}
	for _, i := range marked {
		s, err := l.At(at(1, time.Duration(i)*5*time.Second), Out)
		if err != nil {
			t.Fatal(err)
		}
		s.Marked.Set()
		s.Marked.Set()
	}
	for _, c := range other.Cycles() {
		for i := range c.Slots {
			if c.Marked(Out, i) != slices.Contains(marked, i) || c.Marked(In, i) || c.Bytes(Out, false, i) != 0 {
				t.Errorf("slot %d: out %v, in %v, %d bytes", i, c.Marked(Out, i), c.Marked(In, i), c.Bytes(Out, false, i))
			}
			if got := other.Look(c.Start+int64(i)*5e9, Out).Marked.Load(); got != c.Marked(Out, i) {
				t.Errorf("slot %d: looked at, %v", i, got)
			}
		}
	}
	// Enough new cycles to take its table.
	for hour := 2; hour < 8; hour++ {
		add(t, other, at(hour, 0), Out, 1)
	}
	if s := l.Look(at(1, 0), Out); s.Marked.Load() {
		t.Error("a mark outlives its cycle")
	}
	for _, c := range l.Cycles() {
		for i := range c.Slots {
			if c.Marked(Out, i) {
				t.Errorf("slot %d of the cycle of %d is marked", i, c.Start)
			}
		}
	}
}

// Cycles go on for ever; the one before is always there. A clock that is wrong
// for a while costs neither.
func TestCycles(t *testing.T) {
	l := open(t, t.TempDir()+"/ledger")
	for hour := range 20 {
		add(t, l, at(hour, 7*time.Second), Out, int64(1000+hour))
		if hour == 10 { // three times into another year
			for _, wrong := range []int{-5000, 9000, 9100} {
				if _, err := l.At(at(wrong, 0), Out); err == nil {
					t.Errorf("hour %d has a table", wrong)
				}
			}
		}
		for _, h := range []int{hour - 1, hour} {
			if c, o := total(l, at(h, 0), Out); h >= 0 && (c != int64(1000+h) || o != 2*c) {
				t.Fatalf("in hour %d, hour %d has %d, %d", hour, h, c, o)
			}
		}
		all := l.Cycles()
		for i := 1; i < len(all); i++ {
			if all[i].Start <= all[i-1].Start {
				t.Fatalf("the cycles are not in order")
			}
		}
	}
	for _, early := range []int64{-5, 5e9} { // whose cycle would begin at 0, as an unused table does
		if _, err := l.At(early, Out); err == nil {
			t.Errorf("the time %d has a cycle", early)
		}
	}
}

// A table that a process was clearing when it was killed has no cycle, and is cleared
// before it is used.
func TestUncleared(t *testing.T) {
	l := open(t, t.TempDir()+"/ledger")
	add(t, l, at(1, 0), Out, 7)
	*l.word(cyclesAt) = 0
	if s := l.Look(1, Out); s.Charged.Load() != 0 || l.Charged(0, int64(time.Hour), Out) != 0 || len(l.Cycles()) != 0 {
		t.Errorf("%d bytes, %d in all, cycles %+v", s.Charged.Load(), l.Charged(0, int64(time.Hour), Out), l.Cycles())
	}
	add(t, l, at(2, 0), Out, 2)
	if c, _ := total(l, at(2, 0), Out); c != 2 {
		t.Errorf("%d bytes, want 2", c)
	}
}

// While a table is cleared it has no cycle, so that a gate that ends then leaves no old
// counts in a new one.
func TestClearing(t *testing.T) {
	name := t.TempDir() + "/ledger"
	l := open(t, name)
	add(t, l, at(1, 0), Out, 7)
	if err := os.Truncate(name, tablesAt); err != nil { // the first byte that is cleared faults
		t.Fatal(err)
	}
	err := error(nil)
	func() {
		defer l.Catch(&err)
		l.begin(0, at(2, 0), at(3, 0))
	}()
	if err == nil || l.start(0) != 0 || l.end(0) == 0 {
		t.Errorf("%v, the table is of a cycle from %d to %d", err, l.start(0), l.end(0))
	}
}

// Cycles that cannot be are left out, and a ledger that has one twice ends well.
func TestDamagedCycles(t *testing.T) {
	for name, tt := range map[string]struct {
		bounds [][2]int64
		want   int
	}{
		"in any order":    {[][2]int64{{at(3, 0), at(4, 0)}, {at(1, 0), at(2, 0)}, {at(2, 0), at(3, 0)}}, 3},
		"without a start": {[][2]int64{{0, int64(time.Hour)}}, 0},
		"backwards":       {[][2]int64{{at(2, 0), at(1, 0)}}, 0},
		"without length":  {[][2]int64{{at(2, 0), at(2, 0)}}, 0},
		"too long":        {[][2]int64{{at(1, 0), at(2, 1)}}, 0},
		"overlapping":     {[][2]int64{{at(1, 0), at(2, 0)}, {at(2, -1), at(3, -1)}, {at(3, 0), at(4, 0)}}, 2},
		"after 2116":      {[][2]int64{{1<<62 + 1, 1<<62 + int64(time.Hour)}}, 0},
		"negative":        {[][2]int64{{-int64(time.Hour), int64(time.Minute)}}, 0},
	} {
		l := open(t, t.TempDir()+"/ledger")
		for i, b := range tt.bounds {
			*l.word(cyclesAt + i*cycleSize), *l.word(cyclesAt + i*cycleSize + 8) = uint64(b[0]), uint64(b[1])
		}
		if got := l.Cycles(); len(got) != tt.want {
			t.Errorf("%s: %+v, want %d", name, got, tt.want)
		}
	}
	l := open(t, t.TempDir()+"/ledger")
	for i := range cycles {
		*l.word(cyclesAt + i*cycleSize) = uint64(at(1+i%2, 0))
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
	// waits is refused until the clock has gone on.
	waits := func(hour int) []step {
		return []step{{hour, 0, false}, {hour, patience - 1, false}, {hour, patience, true}}
	}
	for name, tt := range map[string]struct {
		steps []step
		want  []int // the cycles in the end
	}{
		"one after the other": {begun(1, 2, 3, 4, 5, 6), []int{3, 4, 5, 6}},
		"an instant in the past": {
			slices.Concat(begun(1, 2, 3, 4), []step{{-9000, 0, false}}, begun(4)), []int{1, 2, 3, 4},
		},
		"an instant in the future": {
			slices.Concat(begun(1, 2, 3, 4), []step{{9000, 0, false}}, begun(4, 5)), []int{2, 3, 4, 5},
		},
		"again and again": {
			slices.Concat(begun(1, 2, 3, 4), []step{{9000, 0, false}}, begun(4), []step{{9000, 59 * time.Minute, false}}, begun(4)), []int{1, 2, 3, 4},
		},
		"at boot, in a new file":    {begun(-9000, 1, -9000, 2, 3, 4), []int{1, 2, 3, 4}},
		"at boot, every time":       {slices.Concat(begun(-9000, 1, 2, 3, 4), []step{{-9000, 0, false}}, begun(4, 5)), []int{2, 3, 4, 5}},
		"for long in the past":      {slices.Concat(begun(1, 2, 3, 4), waits(-9000), begun(4, 5)), []int{2, 3, 4, 5}},
		"for long in the future":    {slices.Concat(begun(1, 2, 3, 4), waits(9000), begun(4, 5)), []int{3, 4, 5, 9000}},
		"into the next one":         {begun(1, 2, 3, 4, 5, 4, 5, 6), []int{3, 4, 5, 6}},
		"back before all":           {slices.Concat(begun(1, 2, 3, 4), []step{{0, 0, false}}, begun(4)), []int{1, 2, 3, 4}},
		"back, where there is room": {begun(-9000, 2, 3, 4, 1, 4), []int{1, 2, 3, 4}},
		"set back while it waits":   {slices.Concat(begun(1, 2, 3, 4), []step{{9000, 30 * time.Minute, false}}, waits(9000)), []int{2, 3, 4, 9000}},
		"a year in a drawer":        {slices.Concat(begun(1, 2, 3, 4), waits(9000), begun(9001, 9002)), []int{4, 9000, 9001, 9002}},
		"all in the future":         {slices.Concat(begun(9000, 9001, 9002, 9003), waits(1), waits(2), waits(3), begun(4)), []int{2, 3, 4, 9003}},
		"three far ahead":           {slices.Concat(begun(4, 9000, 8000, 7000, 4), waits(5)), []int{4, 5, 8000, 9000}},
	} {
		file := t.TempDir() + "/ledger"
		l := open(t, file)
		for i, s := range tt.steps {
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
		name := filepath.Join(t.TempDir(), "ledger")
		l := open(t, name)
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
				l = open(t, name)
			default: // far away, and not next to another that was, or near
				wrong := 1e4 + 100*rapid.IntRange(-3000, 3000).Draw(rt, "far")
				if rapid.Bool().Draw(rt, "near") {
					wrong = hour + rapid.IntRange(-6, 1).Draw(rt, "hours")
				}
				for i := range rapid.IntRange(1, 3).Draw(rt, "times") {
					s, err := l.At(at(wrong, time.Duration(i)*time.Second), Out)
					if err == nil {
						s.Charged.Add(1)
						want[wrong]++
					}
				}
			}
			var s Slot
			err := error(nil)
			for at0, i := at(hour, 0), 0; i == 0 || err != nil; i++ {
				if i > 6 {
					rt.Fatalf("hour %d: %v", hour, err)
				}
				s, err = l.At(at0+int64(i)*int64(time.Second), Out)
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

// The longest month fits, and one around either change of the clocks.
func TestMonth(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Slot: 5 * time.Second, CycleDay: 1, Zone: zone}
	months := func(now int64) (int64, int64) {
		y, m, _ := time.Unix(0, now).In(zone).Date()
		return time.Date(y, m, 1, 0, 0, 0, 0, zone).UnixNano(), time.Date(y, m+1, 1, 0, 0, 0, 0, zone).UnixNano()
	}
	name := t.TempDir() + "/ledger"
	l, err := Open(name, cfg, months)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, when := range []time.Time{
		time.Date(2026, 3, 29, 3, 0, 0, 0, zone), time.Date(2026, 10, 31, 23, 59, 59, 999999999, zone),
		time.Date(2026, 2, 28, 23, 59, 59, 0, zone),
	} {
		now := when.UnixNano()
		add(t, l, now, In, 7)
		start, end := months(now)
		if c, _ := total(l, start, In); c != 7 {
			t.Errorf("%v: %d", when, c)
		}
		for _, c := range l.Cycles() {
			if c.Start == start && c.Slots != int((end-start)/int64(cfg.Slot)) {
				t.Errorf("%v: %d slots", when, c.Slots)
			}
		}
	}
	info, err := os.Stat(name)
	if err != nil || info.Size() > 70e6 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

// A ledger that another process has made in the meantime stays. Other users may not open it: they could hold its lock.
func TestMadeMeanwhile(t *testing.T) {
	name := t.TempDir() + "/ledger"
	add(t, open(t, name), at(1, 0), Out, 7)
	if err := create(name, hourly); err != nil {
		t.Fatal(err)
	}
	if c, _ := total(open(t, name), at(1, 0), Out); c != 7 {
		t.Errorf("%d bytes, want 7", c)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A FIFO is no ledger, and Read does not wait for a writer.
func TestReadFifo(t *testing.T) {
	name := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := Read(name)
		read <- err
	}()
	select {
	case err := <-read:
		if !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Read waits")
	}
}

// What no file can be made for.
func TestHeader(t *testing.T) {
	zone := func(length int) *time.Location { return time.FixedZone(strings.Repeat("x", length), 0) }
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Slot: time.Hour, Cycle: time.Hour}, ""},
		{Config{Slot: time.Hour + 1, Cycle: time.Hour}, "slots of 1h0m0.000000001s do not fit cycles of 1h0m0s"},
		{Config{Slot: time.Hour, CycleDay: 1, Zone: zone(63)}, ""},
		{Config{Slot: time.Hour, CycleDay: 1, Zone: zone(64)}, "is too long"},
		{Config{Slot: time.Hour, CycleDay: 32, Zone: time.UTC}, "cycle day 32: must be 1 to 31"},
	} {
		if _, _, err := tt.cfg.header(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

// A month that the clocks make longer than a table has counts for the time of the table: in
// Antarctica/Troll they go back by two hours in October.
func TestLongMonth(t *testing.T) {
	start := at(0, 0)
	end := start + int64(calendar.Calendar{}.Longest()) + int64(time.Hour)
	long := func(int64) (int64, int64) { return start, end }
	l, err := Open(t.TempDir()+"/ledger", Config{Slot: time.Hour, CycleDay: 1, Zone: time.UTC}, long)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.At(start, In); err == nil {
		t.Error("the month has a table")
	}
	l.begin(0, start, end)
	l.cell(0, column(In, false), l.slots-1).Add(7)
	l.cell(0, column(In, false), l.slots).Add(9) // which is another column
	if s := l.Look(end-1, In); s.Charged.Load() != 0 || s.End != end {
		t.Errorf("%d bytes past the table, up to %d", s.Charged.Load(), s.End)
	}
	if s := l.Look(end-1-int64(time.Hour), In); s.Charged.Load() != 7 {
		t.Errorf("%d bytes in the last slot of the table", s.Charged.Load())
	}
}

// Any other file is an error that says why, and is left as it was.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	good := dir + "/good"
	open(t, good)
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, v byte, sum bool) []byte {
		c := bytes.Clone(b)
		c[at] ^= v
		if sum {
			binary.LittleEndian.PutUint32(c[crcAt:], crc32.ChecksumIEEE(c[:crcAt]))
		}
		return c
	}
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
		"cut off":       {b[:len(b)-1], hourly, "slots need"},
		"another slot":  {b, Config{Slot: time.Second, Cycle: time.Hour}, "the ledger has slots of 5s and cycles of 1h0m0s, not slots of 1s and cycles of 1h0m0s"},
		"another cycle": {b, Config{Slot: 5 * time.Second, Cycle: 2 * time.Hour}, "the ledger has slots of 5s and cycles of 1h0m0s, not slots of 5s and cycles of 2h0m0s"},
	} {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, tt.in, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(file, tt.cfg, hours)
		if err == nil || !strings.HasPrefix(err.Error(), file+": ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
		if after, _ := os.ReadFile(file); !bytes.Equal(after, tt.in) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, err := Open(dir+"/no/such/directory", hourly, hours); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(dir+"/tiny", Config{Slot: time.Microsecond, Cycle: time.Hour}, hours); err == nil || !strings.Contains(err.Error(), "too short for a cycle") {
		t.Errorf("tiny slots: %v", err)
	}
	if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// FuzzRead: whatever a file says, reading it ends well, with an error or with cycles
// one after the other; and what a gate counts in it is found again. in is the file
// without the bytes that are reserved.
func FuzzRead(f *testing.F) {
	file := func(slot, cycle time.Duration) []byte {
		b, slots, err := Config{Slot: slot, Cycle: cycle}.header()
		if err != nil {
			f.Fatal(err)
		}
		b = append(b, make([]byte, size(slots)-tablesAt)...)
		for i, start := range []time.Duration{3 * cycle, cycle, 7 * cycle} {
			binary.LittleEndian.PutUint64(b[cyclesAt+i*cycleSize:], uint64(start))
			binary.LittleEndian.PutUint64(b[cyclesAt+i*cycleSize+8:], uint64(start+cycle))
		}
		return b
	}
	f.Add(file(time.Minute, time.Hour), false, int64(5*time.Hour))
	f.Add(file(7*time.Second, time.Minute), true, int64(3*time.Minute+1))
	f.Add(file(time.Hour, 24*time.Hour), true, int64(1))
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
		cfg := l.Config()
		if _, slots, err := cfg.header(); err != nil || slots != l.slots || slots < 1 || int64(len(in)) != size(slots)-reserved {
			t.Fatalf("%+v in %d bytes, %v", cfg, len(in), err)
		}
		readAll(t, l)
		l.Close()
		if cfg.Cycle != 0 && now >= 0 && now <= 1<<62 {
			countIn(t, name, cfg, now)
		}
	})
}

// readAll checks that a ledger has cycles one after the other, and no negative counts.
func readAll(t *testing.T, l *Ledger) {
	last := int64(0)
	for _, c := range l.Cycles() {
		if c.Start < last || c.End <= c.Start || c.Slots < 1 || c.Slots > l.slots {
			t.Fatalf("the cycle %+v, after one that ends at %d", c, last)
		}
		last = c.End
		for i := range c.Slots {
			if c.Bytes(In, false, i) < 0 || c.Bytes(Out, true, i) < 0 {
				t.Fatal("less than nothing")
			}
			c.Marked(Out, i)
		}
	}
}

// countIn counts a byte in a ledger, if it has a cycle for the time, and looks for it.
func countIn(t *testing.T, name string, cfg Config, now int64) {
	l, err := Open(name, cfg, func(now int64) (int64, int64) {
		start := now - now%int64(cfg.Cycle)
		return start, start + int64(cfg.Cycle)
	})
	if err != nil {
		t.Fatal(err)
	}
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

// A file of an earlier program has something in the bytes that are reserved.
func TestReserved(t *testing.T) {
	name := t.TempDir() + "/ledger"
	l := open(t, name)
	add(t, l, at(1, 0), In, 7)
	l.Close()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, reserved), headerSize); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l = open(t, name)
	add(t, l, at(1, 0), In, 1)
	if n, _ := total(l, at(1, 0), In); n != 8 {
		t.Errorf("%d are counted, want 8", n)
	}
}

// mended makes a file one whose header is in order, if there is room for one.
func mended(b []byte) []byte {
	le := binary.LittleEndian
	b = append(bytes.Clone(b), make([]byte, max(0, headerSize-len(b)))...)
	copy(b, magic)
	le.PutUint32(b[16:], version)
	le.PutUint32(b[20:], cycles)
	cfg := Config{Slot: time.Duration(le.Uint64(b[24:])), Cycle: time.Duration(le.Uint64(b[32:])), CycleDay: int(le.Uint32(b[44:])), Zone: time.UTC}
	if _, slots, err := cfg.header(); err == nil && slots < 1000 {
		le.PutUint32(b[40:], uint32(slots))
		b = append(b, make([]byte, max(0, int(size(slots))-len(b)))...)[:size(slots)]
	}
	le.PutUint32(b[crcAt:], crc32.ChecksumIEEE(b[:crcAt]))
	return b
}

// Headers with nonsense and a valid checksum.
func TestNonsense(t *testing.T) {
	name := t.TempDir() + "/ledger"
	for _, tt := range []struct {
		slot, cycle time.Duration
		slots, day  uint32
	}{
		{0, time.Hour, 60, 1}, // division by which ended the tool
		{-time.Minute, time.Hour, 60, 1},
		{time.Minute, -time.Hour, 60, 1},
		{3 << 61, 3 << 61, 0, 1}, // whose sum is no slot at all
		{math.MaxInt64, math.MaxInt64, 1, 1},
		{time.Hour, 0, 745, 0}, // months of which none has an end
		{time.Hour, 0, 745, 32},
	} {
		b := make([]byte, size(int(tt.slots)))
		le := binary.LittleEndian
		copy(b, magic)
		le.PutUint32(b[16:], version)
		le.PutUint32(b[20:], cycles)
		le.PutUint64(b[24:], uint64(tt.slot))
		le.PutUint64(b[32:], uint64(tt.cycle))
		le.PutUint32(b[40:], tt.slots)
		le.PutUint32(b[44:], tt.day)
		le.PutUint32(b[crcAt:], crc32.ChecksumIEEE(b[:crcAt]))
		for i, bound := range []int64{1, math.MaxInt64, 2, 1 << 62} { // one in the other
			le.PutUint64(b[cyclesAt+i/2*cycleSize+i%2*8:], uint64(bound))
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Read(name)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%+v: %v", tt, err)
			}
			continue
		}
		if all := l.Cycles(); tt.slot < 1<<62 || len(all) != 1 || all[0].Slots != 1 {
			t.Errorf("%+v: %+v", tt, all)
		}
		l.Close()
	}
}

const child = "FRAMEPIPE_LEDGER_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(child); name != "" {
		l, err := Open(name, hourly, hours)
		if err != nil {
			os.Exit(3)
		}
		for i := int64(0); ; i++ {
			c, err := l.At(at(int(min(i/100000, cycles-1)), 0), Out) // of all the cycles that it keeps
			if err != nil {
				os.Exit(4)
			}
			// It counts first and tells then: so the ledger has all that was told.
			c.Charged.Add(1)
			if i%10 == 9 {
				if _, err := os.Stdout.Write([]byte("0123456789")); err != nil {
					os.Exit(0)
				}
			}
		}
	}
	os.Exit(m.Run())
}

// counter counts what is written to it.
type counter struct {
	n     int
	begun chan struct{} // closed by the first write
}

func (c *counter) Write(p []byte) (int, error) {
	if c.n == 0 {
		close(c.begun)
	}
	c.n += len(p)
	return len(p), nil
}

// A process that is killed loses none of its counts.
func TestKilled(t *testing.T) {
	name := t.TempDir() + "/ledger"
	open(t, name)
	told := 0
	for i := range 20 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), child+"="+name)
		out := counter{begun: make(chan struct{})}
		c.Stdout = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 { // half of them have begun to tell
			<-out.begun
		}
		time.Sleep(time.Duration(i) * 2 * time.Millisecond)
		_ = c.Process.Kill()
		if err := c.Wait(); c.ProcessState.ExitCode() != -1 {
			t.Fatal(err)
		}
		told += out.n
	}
	l := open(t, name)
	counted := int64(0)
	for _, c := range l.Cycles() {
		n, _ := total(l, c.Start, Out)
		counted += n
	}
	if counted < int64(told) || told == 0 {
		t.Errorf("%d were told, and %d are in the ledger", told, counted)
	}
	t.Logf("%d told, %d counted", told, counted)
}

// Counting in a file that was cut off is an error, and no crash; so is reading it.
func TestCutOff(t *testing.T) {
	uses := map[string]func(l *Ledger, s Slot){
		"count":      func(_ *Ledger, s Slot) { s.Charged.Add(1) },
		"take back":  func(_ *Ledger, s Slot) { s.Charged.Add(-1) },
		"look":       func(_ *Ledger, s Slot) { s.Charged.Load() },
		"mark":       func(_ *Ledger, s Slot) { s.Marked.Set() },
		"sum":        func(l *Ledger, _ Slot) { l.Charged(at(1, 0), at(2, 0), In) },
		"next cycle": func(l *Ledger, _ Slot) { _, _ = l.At(at(2, 0), In) },
		"read":       func(l *Ledger, _ Slot) { l.Cycles()[0].Bytes(In, false, 0) },
	}
	for what, use := range uses {
		name := t.TempDir() + "/ledger"
		l := open(t, name)
		s, err := l.At(at(1, 0), In)
		if err != nil {
			t.Fatal(err)
		}
		s.Charged.Add(7)
		if err := os.Truncate(name, 0); err != nil {
			t.Fatal(err)
		}
		func() {
			defer l.Catch(&err)
			use(l, s)
		}()
		if want := name + ": the ledger was truncated, or its disk failed"; err == nil || err.Error() != want {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Another panic is not the ledger's, nor is a fault below or above its memory.
func TestOtherFaults(t *testing.T) {
	page := func() []byte {
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(b) })
		return b
	}
	before := page()
	l := open(t, t.TempDir()+"/ledger")
	after := page()
	for name, do := range map[string]func(){
		"a panic":        func() { panic("oh") },
		"mapped earlier": func() { before[0]++ },
		"mapped later":   func() { after[0]++ },
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

// A copy with holes is given the space that it lacks.
func TestHoles(t *testing.T) {
	name := t.TempDir() + "/ledger"
	l := open(t, name)
	b := bytes.Clone(l.mem[:headerSize])
	whole := size(l.slots)
	if err := errors.Join(l.Close(), os.WriteFile(name, b, 0o600), os.Truncate(name, whole)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := allocate(f, headerSize); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this file system cannot allocate: ", err)
	}
	open(t, name)
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Size != whole || st.Blocks*512 < whole {
		t.Errorf("%d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
}

// A process that has a ledger locked stops no other.
func TestLocked(t *testing.T) {
	name := t.TempDir() + "/ledger"
	l := open(t, name)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		_, err := l.At(at(1, 0), In)
		result <- err
	}()
	select {
	case err := <-result:
		if err == nil || !strings.HasSuffix(err.Error(), "/ledger: another process holds the lock (flock)") {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	add(t, l, at(1, 0), In, 7)
}

// A ledger has all its space from the start. Where that cannot be reserved, it is written;
// a full disk leaves no file.
func TestSpace(t *testing.T) {
	reserve := allocate
	defer func() { allocate = reserve }()
	for _, failed := range []error{nil, errors.ErrUnsupported, unix.ENOSPC} {
		if failed != nil {
			allocate = func(*os.File, int64) error { return failed }
		}
		name := t.TempDir() + "/ledger"
		_, err := Open(name, hourly, hours)
		var st unix.Stat_t
		e := unix.Stat(name, &st)
		if failed == unix.ENOSPC {
			if !errors.Is(err, failed) || !strings.Contains(err.Error(), "making a ledger of 0.621 MB") || e != unix.ENOENT {
				t.Errorf("a full disk: %v, %v", err, e)
			}
		} else if _, slots, _ := hourly.header(); err != nil || e != nil || st.Blocks*512 < size(slots)-headerSize {
			t.Errorf("%v: %d bytes in %d blocks, %v, %v", failed, st.Size, st.Blocks, err, e)
		}
	}
}

// The disk's error is that of Sync.
func TestSync(t *testing.T) {
	l := open(t, t.TempDir()+"/ledger")
	if err := l.Sync(); err != nil {
		t.Error(err)
	}
	l.file.Close()
	if err := l.Sync(); err == nil {
		t.Error("a file that cannot be written has no error")
	}
}

// Charged has the slots that begin before a time.
func TestCharged(t *testing.T) {
	l := open(t, t.TempDir()+"/ledger")
	for _, i := range []int{0, 1, 7, 300, 719} {
		add(t, l, at(3, time.Duration(i)*5*time.Second), In, int64(i+1))
		add(t, l, at(4, time.Duration(i)*5*time.Second), In, 1000)
	}
	for _, slot := range []int{-1, 0, 1, 2, 7, 8, 300, 301, 719, 720, 5000} {
		want := int64(0)
		for i := range min(slot, 720) {
			s := l.Look(at(3, time.Duration(i)*5*time.Second), In)
			want += s.Charged.Load()
		}
		if got := l.Charged(at(3, 0), at(3, time.Duration(slot)*5*time.Second), In); got != want {
			t.Errorf("up to slot %d: %d, want %d", slot, got, want)
		}
	}
	if got := l.Charged(at(3, 0), at(4, 0), Out) + l.Charged(at(9, 0), at(10, 0), In); got != 0 {
		t.Errorf("%d where nothing was charged", got)
	}
	*l.cell(l.table(at(3, 0)), column(In, false), 5).p = math.MaxUint64 // damaged
	*l.cell(l.table(at(3, 0)), column(In, false), 6).p = math.MaxUint64
	if got := l.Charged(at(3, 0), at(4, 0), In); got != most {
		t.Errorf("%d of nonsense", got)
	}
}

// The sum of a month, as a gate with a transfer cap asks for at its end, every five
// seconds.
func BenchmarkCharged(b *testing.B) {
	start, end := int64(0), int64(30*24*time.Hour)
	start, end = start+end, end+end
	bounds := func(int64) (int64, int64) { return start, end }
	l, err := Open(b.TempDir()+"/ledger", Config{Slot: 5 * time.Second, Cycle: 30 * 24 * time.Hour}, bounds)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	if _, err := l.At(start, In); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l.Charged(start, end, In)
	}
}
