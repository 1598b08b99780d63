// Package ledger stores byte counts in a file, by time slot and direction,
// for the last four billing cycles. Gates in several processes share it. Counts
// survive a restart of the gates, kill -9, and a restart of the machine.
//
// # The file
//
// A header of 4096 bytes, 512 KiB of reserved zeros, and a table for each
// of four cycles. All numbers are little-endian.
//
//	  0  "framepipe ledger"
//	 16  version, 3 (uint32)
//	 20  cycles, 4 (uint16)
//	 22  slots in a window, or 0: 60 (uint16)
//	 24  length of a slot, nanoseconds (uint64)
//	 32  length of a cycle, nanoseconds, or 0: a month (uint64)
//	 40  slots in a table (uint32)
//	 44  day of the month on which cycles begin (uint32)
//	 48  name of the time zone of that day, 64 bytes, padded with 0
//	112  CRC-32 (IEEE) of the 112 bytes before it
//	256  for each cycle: its start, its end (int64, nanoseconds since the
//	     Unix epoch), and 16 bytes that are 0. A start of 0 marks an unused
//	     table.
//
// Earlier versions used the reserved bytes. They are ignored, so files of those
// versions remain valid.
//
// A table has four consecutive columns of 8-byte counts: in, charged;
// in, offered; out, charged; out, offered. Two columns of bits follow, in whole
// 8-byte words: in, marked; out, marked. Slot i of a cycle begins i slots after
// the cycle; its bit is bit i%64 of word i/64. A slot is marked if bytes
// passed in it that did not fit into a gate's own window but were free
// (see package budget). For windows of five minutes, with slots of 5 seconds, the
// table of a month takes 17 MB, and the file 70 MB, regardless of traffic.
//
// # Faults
//
//   - A process exits or is killed: all its counts are in the file, because the
//     file is mapped shared.
//   - The machine stops: counts since the last Sync may be lost.
//   - The disk is full: creating the file fails, or opening a copy of it with holes.
//     Later counts need no space, because all of it is allocated by then.
//   - The file is truncated while in use, or its disk fails: the next access faults,
//     and Catch turns the fault into an error.
//   - The file is damaged, not a ledger, or created with another slot or cycle:
//     opening it fails and does not change it.
//   - The clock is wrong: see free.
package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"framepipe/internal/calendar"

	"golang.org/x/sys/unix"
)

// Direction is the direction of traffic, from the point of view of the host.
type Direction uint8

// The directions.
const (
	In Direction = iota
	Out
)

// Config describes a ledger. It is fixed when the file is created.
type Config struct {
	Slot  time.Duration
	Slots int // in a window, for those who bill by the ledger; 60 if 0
	calendar.Calendar
}

// Window returns the length of a window.
func (cfg Config) Window() time.Duration {
	return time.Duration(cmp.Or(cfg.Slots, calendar.Slots)) * cfg.Slot
}

func (cfg Config) String() string {
	s := fmt.Sprintf("slots of %v", cfg.Slot)
	if w := cfg.Window(); w != calendar.Slots*cfg.Slot {
		s += fmt.Sprintf(" in windows of %v", w)
	}
	if cfg.Length == 0 {
		return fmt.Sprintf("%s and months from day %d in %v", s, cfg.Day, cfg.Zone)
	}
	return fmt.Sprintf("%s and cycles of %v", s, cfg.Length)
}

const (
	magic      = "framepipe ledger"
	version    = 3
	headerSize = 4096
	reserved   = 512 << 10
	tablesAt   = headerSize + reserved
	crcAt      = 112
	zoneAt     = 48
	zoneSize   = 64
	cyclesAt   = 256
	cycleSize  = 32
	cycles     = 4
	columns    = 4
	bitmaps    = 2

	// most bounds a count and the sum of a cycle, so that a damaged file cannot make sums
	// overflow.
	most = 1 << 55
)

// Ledger is an open file.
type Ledger struct {
	Config Config // with which it was created

	file   *os.File
	mem    []byte
	slots  int   // of a table
	last   Cycle // the cycle of the last At, Look or Charged
	jumped int64 // when the clock jumped to a cycle without a table, 0 if it did not
}

// ErrDamaged is wrapped by the error for a file that is not a ledger, or is damaged.
var ErrDamaged = errors.New("not a ledger, or damaged")

// ErrDiffers is wrapped by the error for a ledger that was created with another Config.
var ErrDiffers = errors.New("the ledger has")

// ErrTooShort is wrapped by the error for slots so short that a cycle has too many.
var ErrTooShort = errors.New("too short for a cycle")

// Open opens a ledger for counting, and creates it if it does not exist.
func Open(name string, cfg Config) (*Ledger, error) {
	l, err := attach(name, os.O_RDWR, unix.PROT_READ|unix.PROT_WRITE)
	if errors.Is(err, os.ErrNotExist) {
		if err = create(name, cfg); err == nil {
			l, err = attach(name, os.O_RDWR, unix.PROT_READ|unix.PROT_WRITE)
		}
	}
	if err != nil {
		return nil, err
	}
	if have, want := l.Config.String(), cfg.String(); have != want {
		l.Close()
		return nil, fmt.Errorf("%s: %w %s, not %s", name, ErrDiffers, have, want)
	}
	// A copy may have holes. Without space for them, a count would fault later.
	if err := allocate(l.file, size(l.slots)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		l.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// Read opens a ledger with any Config for reading.
func Read(name string) (*Ledger, error) { return attach(name, os.O_RDONLY, unix.PROT_READ) }

// Close writes all counts to disk and closes the file.
func (l *Ledger) Close() error {
	return errors.Join(unix.Munmap(l.mem), l.file.Sync(), l.file.Close())
}

// Sync writes all counts to disk and waits until they are there. Another goroutine may
// call it.
func (l *Ledger) Sync() error { return l.file.Sync() }

// word returns the 8-byte number at an offset of the file.
func (l *Ledger) word(at int) *int64 { return (*int64)(unsafe.Pointer(&l.mem[at])) }

func (l *Ledger) tableAt(table int) int { return tablesAt + table*tableSize(l.slots) }

// start and end return the bounds of a table's cycle, 0 if it is unused.
func (l *Ledger) start(table int) int64 { return l.time(cyclesAt + table*cycleSize) }
func (l *Ledger) end(table int) int64   { return l.time(cyclesAt + table*cycleSize + 8) }

// time returns a time in the file, which may be damaged.
func (l *Ledger) time(at int) int64 { return min(atomic.LoadInt64(l.word(at)), 1<<62) }

// Catch turns a fault in the mapped file into an error. The kernel raises such a fault
// if the file was truncated, or if the disk cannot read or write a page. Defer Catch
// in the goroutine that opened the ledger.
func (l *Ledger) Catch(err *error) {
	e := recover()
	if e == nil {
		return
	}
	fault, ok := e.(interface{ Addr() uintptr })
	first := uintptr(unsafe.Pointer(&l.mem[0]))
	if !ok || fault.Addr() < first || fault.Addr() >= first+uintptr(len(l.mem)) {
		panic(e)
	}
	*err = fmt.Errorf("%s: the ledger was truncated, or its disk failed", l.file.Name())
}

// Cell is the byte count of a slot. Other processes add to it concurrently.
type Cell struct{ p *int64 }

// Add adds bytes. A negative number undoes part of an earlier Add.
func (c Cell) Add(bytes int64) { atomic.AddInt64(c.p, bytes) }

// Load returns the count.
func (c Cell) Load() int64 {
	if c.p == nil {
		return 0
	}
	// It is negative if an Add is undone after the table was given to another cycle.
	return min(max(atomic.LoadInt64(c.p), 0), most)
}

// Mark is the bit of a slot. Other processes set it concurrently; it is cleared only
// with its table.
type Mark struct {
	p   *int64
	bit int64
}

// Set sets the mark.
func (m Mark) Set() {
	if !m.Load() {
		atomic.OrInt64(m.p, m.bit)
	}
}

// Load reports whether the mark is set.
func (m Mark) Load() bool { return m.p != nil && atomic.LoadInt64(m.p)&m.bit != 0 }

// Slot is a slot of one direction.
type Slot struct {
	Charged, Offered Cell
	Marked           Mark
	Start, End       int64 // nanoseconds since the Unix epoch
}

// At returns the slot of a time, for counting. It begins a new cycle if necessary.
func (l *Ledger) At(now int64, d Direction) (Slot, error) {
	if l.seek(now); l.last.table < 0 {
		if err := l.place(now); err != nil {
			return Slot{}, fmt.Errorf("%s: %w", l.file.Name(), err)
		}
	}
	l.jumped = 0 // the clock is back
	return l.last.at(now, d), nil
}

// Look returns the slot of a time, for reading. It does not begin a cycle: if the ledger
// does not have the cycle, the counts are 0, and cannot be added to.
func (l *Ledger) Look(now int64, d Direction) Slot {
	l.seek(now)
	return l.last.at(now, d)
}

// Charged returns the charged bytes of the cycle that contains a time, in the slots before
// that of the time. At the end of a month this takes half a millisecond.
func (l *Ledger) Charged(to int64, d Direction) (sum int64) {
	l.seek(to)
	n := (to - l.last.Start) / int64(l.Config.Slot)
	if l.last.table < 0 || n == 0 {
		return 0
	}
	counts := unsafe.Slice(l.last.Slot(0, d).Charged.p, n)
	for i := range counts {
		sum = min(sum+Cell{&counts[i]}.Load(), most)
	}
	return sum
}

// seek finds the cycle of a time.
func (l *Ledger) seek(now int64) {
	c := &l.last
	switch {
	case now < c.Start || now >= c.End:
		start, end := l.Config.Bounds(now)
		*c = Cycle{start, end, int(count(end-start, l.Config.Slot)), l, -1}
	// Another process may have given its table to a new cycle.
	case c.table >= 0 && l.start(c.table) == c.Start:
		return
	}
	c.table = -1
	if c.Slots <= l.slots { // a month that the clocks make longer than the table has none
		c.table = l.table(c.Start)
	}
}

// table returns the table of the cycle that begins at start, -1 if there is none.
func (l *Ledger) table(start int64) int {
	for i := range cycles {
		if s := l.start(i); s == start && s != 0 {
			return i
		}
	}
	return -1
}

// Cycle is a cycle that has a table.
type Cycle struct {
	Start, End int64 // nanoseconds since the Unix epoch
	Slots      int

	l     *Ledger
	table int // -1 for none
}

// Cycles returns the cycles of the ledger, oldest first. Those of a damaged file may overlap.
func (l *Ledger) Cycles() (all []Cycle) {
	for i := range cycles {
		start, end := l.start(i), l.end(i)
		n := count(end-start, l.Config.Slot)
		if start > 0 && end > start && n <= int64(l.slots) { // else it is unused, or damaged
			all = append(all, Cycle{start, end, int(n), l, i})
		}
	}
	slices.SortFunc(all, func(a, b Cycle) int { return cmp.Compare(a.Start, b.Start) })
	return all
}

// at returns the slot of a time.
func (c *Cycle) at(now int64, d Direction) Slot {
	return c.Slot(int((now-c.Start)/int64(c.l.Config.Slot)), d)
}

// Slot returns a slot of the cycle.
func (c *Cycle) Slot(i int, d Direction) (s Slot) {
	slot := int64(c.l.Config.Slot)
	s.Start = c.Start + int64(i)*slot
	s.End = min(s.Start+slot, c.End)
	if c.table >= 0 {
		table, slots := c.l.tableAt(c.table), c.l.slots
		s.Charged = Cell{c.l.word(table + 8*(2*int(d)*slots+i))}
		s.Offered = Cell{c.l.word(table + 8*((2*int(d)+1)*slots+i))}
		s.Marked = Mark{c.l.word(table + 8*(columns*slots+int(d)*words(slots)+i/64)), 1 << (i % 64)}
	}
	return s
}
