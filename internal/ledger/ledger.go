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
//   - The clock is wrong: see place.
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
type Direction int

// The directions.
const (
	In Direction = iota
	Out
)

// Config describes a ledger. It is fixed when the file is created.
type Config struct {
	Slot     time.Duration
	Slots    int            // in a window, for those who bill by the ledger; 60 if 0
	CycleDay int            // day of the month on which cycles begin
	Zone     *time.Location // for CycleDay
	// Cycle is the length of cycles, which begin at multiples of it since the Unix
	// epoch. If it is 0, cycles are months; else CycleDay and Zone are not used.
	Cycle time.Duration
}

// Window returns the length of a window.
func (cfg Config) Window() time.Duration {
	if cfg.Slots == 0 {
		cfg.Slots = calendar.Slots
	}
	return time.Duration(cfg.Slots) * cfg.Slot
}

func (cfg Config) String() string {
	s := fmt.Sprintf("slots of %v", cfg.Slot)
	if w := cfg.Window(); w != calendar.Slots*cfg.Slot {
		s += fmt.Sprintf(" in windows of %v", w)
	}
	if cfg.Cycle == 0 {
		return fmt.Sprintf("%s and months from day %d in %v", s, cfg.CycleDay, cfg.Zone)
	}
	return fmt.Sprintf("%s and cycles of %v", s, cfg.Cycle)
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
)

// Ledger is an open file.
type Ledger struct {
	name   string
	file   *os.File
	mem    []byte
	cfg    Config
	bounds func(now int64) (start, end int64)
	slots  int   // of a table
	last   cycle // the cycle of the last At or Look
	jumped int64 // when the clock jumped to a cycle without a table, 0 if it did not
}

// cycle is a cycle and its table, -1 for none.
type cycle struct {
	start, end int64
	table      int
}

// ErrDamaged is wrapped by the error for a file that is not a ledger, or is damaged.
var ErrDamaged = errors.New("not a ledger, or damaged")

// DiffersError is the error for a ledger that was created with another Config.
type DiffersError string

func (e DiffersError) Error() string { return string(e) }

// ErrTooShort is wrapped by the error for slots so short that a cycle has too many.
var ErrTooShort = errors.New("too short for a cycle")

// Open opens a ledger for counting, and creates it if it does not exist. bounds returns
// the cycle of a time, by the Config.
func Open(name string, cfg Config, bounds func(now int64) (start, end int64)) (*Ledger, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err = create(name, cfg); err == nil {
			f, err = os.OpenFile(name, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	l, err := attach(f, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, err
	}
	if have, want := l.cfg.String(), cfg.String(); have != want {
		l.Close()
		return nil, DiffersError(fmt.Sprintf("%s: the ledger has %s, not %s", name, have, want))
	}
	// A copy may have holes. Without space for them, a count would fault later.
	if err := allocate(f, size(l.slots)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		l.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l.bounds = bounds
	return l, nil
}

// Read opens a ledger with any Config for reading.
func Read(name string) (*Ledger, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would wait for a writer
	if err != nil {
		return nil, err
	}
	return attach(f, unix.PROT_READ)
}

// Config returns the Config with which the ledger was created.
func (l *Ledger) Config() Config { return l.cfg }

// Close writes all counts to disk and closes the file.
func (l *Ledger) Close() error {
	return errors.Join(unix.Munmap(l.mem), l.file.Sync(), l.file.Close())
}

// Sync writes all counts to disk and waits until they are there. Another goroutine may
// call it.
func (l *Ledger) Sync() error { return l.file.Sync() }

// word returns the 8-byte number at an offset of the file.
func (l *Ledger) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&l.mem[at])) }

// start and end return the bounds of a table's cycle, 0 if it is unused.
func (l *Ledger) start(table int) int64 { return l.time(cyclesAt + table*cycleSize) }
func (l *Ledger) end(table int) int64   { return l.time(cyclesAt + table*cycleSize + 8) }

// time returns a time in the file, which may be damaged.
func (l *Ledger) time(at int) int64 { return int64(min(atomic.LoadUint64(l.word(at)), 1<<62)) }

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
	*err = fmt.Errorf("%s: the ledger was truncated, or its disk failed", l.name)
}

// Cell is the byte count of a slot. Other processes add to it concurrently.
// The zero Cell always counts 0.
type Cell struct{ p *uint64 }

// Add adds bytes. A negative number undoes part of an earlier Add, but takes the count no
// lower than 0: the table may belong to another cycle since, and the unsigned count
// would wrap around to a huge one.
func (c Cell) Add(bytes int64) {
	switch {
	case c.p == nil:
	case bytes >= 0:
		atomic.AddUint64(c.p, uint64(bytes))
	default:
		for {
			n := atomic.LoadUint64(c.p)
			if atomic.CompareAndSwapUint64(c.p, n, n-min(n, uint64(-bytes))) {
				return
			}
		}
	}
}

// most bounds a count and the sum of a cycle, so that a damaged file cannot make sums
// overflow.
const most = 1 << 55

// Load returns the count.
func (c Cell) Load() int64 {
	if c.p == nil {
		return 0
	}
	return int64(min(atomic.LoadUint64(c.p), most))
}

func (l *Ledger) tableAt(table int) int { return tablesAt + table*tableSize(l.slots) }

func (l *Ledger) cellAt(table, column, slot int) int {
	return l.tableAt(table) + (column*l.slots+slot)*8
}

func (l *Ledger) cell(table, column, slot int) Cell {
	return Cell{l.word(l.cellAt(table, column, slot))}
}

// Mark is the bit of a slot. Other processes set it concurrently; it is cleared only
// with its table.
type Mark struct {
	p   *uint64
	bit uint64
}

// Set sets the mark.
func (m Mark) Set() {
	if m.p != nil && !m.Load() {
		atomic.OrUint64(m.p, m.bit)
	}
}

// Load reports whether the mark is set.
func (m Mark) Load() bool { return m.p != nil && atomic.LoadUint64(m.p)&m.bit != 0 }

func (l *Ledger) mark(table int, d Direction, slot int) Mark {
	at := l.tableAt(table) + 8*(columns*l.slots+int(d)*words(l.slots)+slot/64)
	return Mark{l.word(at), 1 << (slot % 64)}
}

func column(d Direction, offered bool) int {
	c := 2 * int(d)
	if offered {
		c++
	}
	return c
}

// Slot is a slot of one direction.
type Slot struct {
	Charged, Offered Cell
	Marked           Mark
	Start, End       int64 // nanoseconds since the Unix epoch
}

// At returns the slot of a time, for counting. It begins a new cycle if necessary.
func (l *Ledger) At(now int64, d Direction) (Slot, error) {
	if !l.covers(now) {
		c, err := l.find(now)
		if err != nil {
			return Slot{}, err
		}
		l.last = c
	}
	l.jumped = 0 // the clock is back
	return l.slot(l.last, now, d), nil
}

// Look returns the slot of a time, for reading. It does not begin a cycle: if the ledger
// does not have the cycle, the counts are 0.
func (l *Ledger) Look(now int64, d Direction) Slot {
	if !l.covers(now) {
		start, end := l.bounds(now)
		l.last = cycle{start, end, l.table(start)}
	}
	return l.slot(l.last, now, d)
}

// covers reports whether the last cycle contains a time and still has its table, which
// another process may have given to a new cycle.
func (l *Ledger) covers(now int64) bool {
	c := l.last
	return c.table >= 0 && now >= c.start && now < c.end && l.start(c.table) == c.start
}

// slot returns the slot of a time in a cycle. Its counts are always 0 if the cycle has no
// table, or if the time is past the table's last slot: a month that the clocks make longer
// than longest has such times.
func (l *Ledger) slot(c cycle, now int64, d Direction) (s Slot) {
	i := int((now - c.start) / int64(l.cfg.Slot))
	s.Start = c.start + int64(i)*int64(l.cfg.Slot)
	s.End = min(s.Start+int64(l.cfg.Slot), c.end)
	if c.table >= 0 && i < l.slots {
		s.Charged, s.Offered = l.cell(c.table, column(d, false), i), l.cell(c.table, column(d, true), i)
		s.Marked = l.mark(c.table, d, i)
	}
	return s
}

// Charged returns the charged bytes of the cycle that begins at start, in its slots that
// begin before to. At the end of a month this takes half a millisecond.
func (l *Ledger) Charged(start, to int64, d Direction) (bytes int64) {
	table := l.table(start)
	if table < 0 || to <= start {
		return 0
	}
	cells := unsafe.Slice(l.word(l.cellAt(table, column(d, false), 0)), min(count(to-start, l.cfg.Slot), int64(l.slots)))
	sum := uint64(0)
	for i := range cells {
		sum = min(sum+min(atomic.LoadUint64(&cells[i]), most), most)
	}
	return int64(sum)
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
	table int
}

// Cycles returns the cycles of the ledger, oldest first.
func (l *Ledger) Cycles() (all []Cycle) {
	for i := range cycles {
		start, end := l.start(i), l.end(i)
		if start <= 0 || end <= start || count(end-start, l.cfg.Slot) > int64(l.slots) {
			continue // unused, or damaged
		}
		all = append(all, Cycle{start, end, int(count(end-start, l.cfg.Slot)), l, i})
	}
	slices.SortFunc(all, func(a, b Cycle) int { return cmp.Compare(a.Start, b.Start) })
	last := int64(0)
	return slices.DeleteFunc(all, func(c Cycle) bool {
		if c.Start < last {
			return true // damaged
		}
		last = c.End
		return false
	})
}

// Marked reports whether a slot of the cycle is marked.
func (c *Cycle) Marked(d Direction, slot int) bool { return c.l.mark(c.table, d, slot).Load() }

// Bytes returns the bytes charged, or offered, in a slot of the cycle.
func (c *Cycle) Bytes(d Direction, offered bool, slot int) int64 {
	return c.l.cell(c.table, column(d, offered), slot).Load()
}
