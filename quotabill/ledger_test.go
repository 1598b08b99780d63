package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
	"framepipe/internal/ledger"
	"framepipe/internal/samples"
)

func ledgerOf(t testing.TB, name string, c calendar.Calendar) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(name, ledger.Config{Slot: 5 * time.Second, Calendar: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// FuzzLedger: the bills of any ledger, damaged or not, end well, and those of a ledger
// whose cycles are in order have every byte up to now.
func FuzzLedger(f *testing.F) {
	const cycle = 10 * time.Minute
	const slots, cyclesAt, tables = 120, 256, 4096 + 512<<10
	const table = 8 * (4*slots + 2*2)
	name := f.TempDir() + "/ledger"
	ledgerOf(f, name, calendar.Calendar{Length: cycle})
	fresh, err := os.ReadFile(name)
	if err != nil || len(fresh) != tables+4*table {
		f.Fatal(len(fresh), err)
	}
	some := bytes.Repeat([]byte{0, 7, 0, 1, 0, 0, 1, 200, 0, 0, 3, 255, 2, 9, 5, 0}, 8)
	f.Add(some, uint32(4<<24|3<<16|2<<8|1), int64(0), int64(35*time.Minute), uint8(0))
	f.Add(some, uint32(4<<24|2<<16|3<<8|1), int64(2*time.Minute+1), int64(1<<62), uint8(0x63))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint32(1<<24|1<<8), int64(-1), int64(time.Hour), uint8(0x44))
	f.Fuzz(func(t *testing.T, counts []byte, order uint32, shift, now int64, how uint8) {
		file, le := bytes.Clone(fresh), binary.LittleEndian
		for i := range 4 {
			if n := order >> (8 * i) & 0xff; n > 0 {
				start := int64(n)*int64(cycle) + shift*int64(i)
				le.PutUint64(file[cyclesAt+32*i:], uint64(start))
				le.PutUint64(file[cyclesAt+32*i+8:], uint64(start+int64(cycle)-shift>>40))
			}
		}
		for ; len(counts) >= 4; counts = counts[4:] { // a place, and a number of up to 64 bits
			at := tables + 8*(int(le.Uint16(counts))%(4*table/8))
			le.PutUint64(file[at:], uint64(counts[2])<<(counts[3]%64))
		}
		if err := os.WriteFile(name, file, 0o600); err != nil {
			t.Fatal(err)
		}
		j := job{given: none, ledger: name, zone: "UTC", threshold: 0.75, simulate: how&1 != 0, rate: 1000}
		j.calendar.Day, j.terms.Percentile, j.terms.Method = 1, 95e9, bill.Method(how>>1%5)
		source, err := j.fromLedger(now)
		if err != nil {
			return
		}
		if err := j.check(); err != nil {
			t.Fatal(err)
		}
		l, err := ledger.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var want, got int64
		for _, x := range l.Cycles() {
			for i := range x.Slots {
				in, out := x.Slot(i, ledger.In), x.Slot(i, ledger.Out)
				switch {
				case in.Start > now:
				case j.simulate:
					want += in.Offered.Load() + out.Offered.Load()
				default:
					want += in.Charged.Load() + out.Charged.Load()
				}
			}
		}
		all := source.Cycles(j.calendar)
		if len(all) > 20 {
			t.Fatalf("%d cycles of a file that has four", len(all))
		}
		for _, cycle := range all {
			b, err := bill.New(source, cycle, j.calendar.Zone, j.terms)
			if err != nil {
				continue
			}
			if b.InBytes < 0 || b.OutBytes < 0 || b.Billed < 0 || b.WorstBilled < b.Billed || b.FreeUsed < 0 {
				t.Fatalf("%+v", b)
			}
			got += b.InBytes + b.OutBytes
			if how>>5 > 0 { // the rest takes longer than all before
				continue
			}
			_, err = json.Marshal(b.JSON())
			if err = errors.Join(err, b.Text(io.Discard, bill.Style{}), b.HTML(io.Discard), b.Slots(io.Discard)); err != nil {
				t.Fatal(err)
			}
		}
		if shift == 0 && got != want {
			t.Fatalf("%d bytes are billed of %d", got, want)
		}
		if j.simulate && how>>5 == 4 && len(all) > 0 {
			_, _ = j.report([]samples.Port{{Samples: source}}, all[len(all)-1:])
		}
	})
}

// Counts of a clock that was ahead, in this cycle and in the next, are not known yet.
func TestAhead(t *testing.T) {
	const cycle = 10 * time.Minute
	const start = 100 * int64(cycle)
	name := t.TempDir() + "/ledger"
	l := ledgerOf(t, name, calendar.Calendar{Length: cycle})
	count := func(times ...time.Duration) {
		t.Helper()
		for _, after := range times {
			s, err := l.At(start+int64(after), ledger.Out)
			if err != nil {
				t.Fatal(err)
			}
			s.Charged.Add(1000)
		}
	}
	count(5*time.Minute, cycle+time.Minute)
	_, err := (&job{given: none, ledger: name}).fromLedger(start + int64(time.Minute))
	if err == nil || !strings.Contains(err.Error(), "no traffic was counted yet") {
		t.Errorf("only the future has counts: %v", err)
	}
	count(0, time.Minute)
	for _, tt := range []struct {
		now   time.Duration
		slots int
		bytes int64
	}{
		{time.Minute, 13, 2000}, // with the slot of now, which has some
		{time.Minute + 5*time.Second, 13, 2000},
		{2 * time.Minute, 24, 2000},
		{6 * time.Minute, 72, 3000},
		{cycle, 120, 3000},
		{cycle + time.Minute, 133, 4000},
		{2 * cycle, 133, 4000}, // nothing is known after the last byte once its cycle is over
	} {
		list, bytes := readLedger(l, false, start+int64(tt.now)), int64(0)
		for _, x := range list {
			bytes += x.In + x.Out
		}
		if len(list) != tt.slots || bytes != tt.bytes {
			t.Errorf("at %v: %d slots, %d bytes; want %d, %d", tt.now, len(list), bytes, tt.slots, tt.bytes)
		}
	}
}

// The poller is that of the samples: of a ledger's window, which may be longer than the default, or of a file.
func TestPoller(t *testing.T) {
	j, ports := portsOf(t, "", "2026-11-10 00:00:00,0,1\n2026-11-10 00:05:00,0,1\n")
	j.given = func(names ...string) bool { return slices.Contains(names, "phase") || slices.Contains(names, "jitter") }
	j.csv, j.ledger, j.simulate, j.rate, j.phase = nil, "bill", true, 1e6, cli.Duration(6*time.Minute)
	if err := j.check(); err != nil {
		t.Error(err)
	}
	j.phase, j.jitter = 0, cli.Duration(time.Hour)
	if err := j.check(); err != nil {
		t.Fatal(err)
	}
	const want = "jitter of 1h0m0s: must be between 0 and a tenth of the window, 30s"
	if err := j.compare(ports[0].Samples); err == nil || err.Error() != want {
		t.Error(err)
	}
}

// none is job.given if no flag is.
func none(...string) bool { return false }
