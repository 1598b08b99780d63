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
//	 20  cycles, 4 (uint32)
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
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

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
	CycleDay int            // day of the month on which cycles begin
	Zone     *time.Location // for CycleDay
	// Cycle is the length of cycles, which begin at multiples of it since the Unix
	// epoch. If it is 0, cycles are months; else CycleDay and Zone are not used.
	Cycle time.Duration
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
	// longest is a month of 31 days plus the hour that the end of summer time adds.
	longest = 31*24*time.Hour + time.Hour
	// mostSlots limits the size of a file to 512 MB.
	mostSlots = 1 << 22
)

// Ledger is an open file.
type Ledger struct {
	name   string
	file   *os.File
	mem    []byte
	cfg    Config
	bounds func(now int64) (start, end int64)
	slots  int   // of a table
	cur    cycle // of the last At
	seen   cycle // of the last Look
	doubt  int64 // when the clock jumped to a cycle without a table, 0 if it did not
}

// cycle is a cycle and its table.
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
	if err := l.differs(cfg); err != nil {
		l.Close()
		return nil, err
	}
	// A copy may have holes. Without space for them, a count would fault later.
	if err := allocate(f, size(l.slots)); err != nil {
		l.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l.bounds = bounds
	debug.SetPanicOnFault(true) // for Catch
	return l, nil
}

// Read opens a ledger with any Config for reading.
func Read(name string) (*Ledger, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	l, err := attach(f, unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	debug.SetPanicOnFault(true) // for Catch
	return l, nil
}

// Config returns the Config with which the ledger was created.
func (l *Ledger) Config() Config { return l.cfg }

// header encodes the header of a new file.
func (cfg Config) header() (b []byte, slots int, err error) {
	span, zone := cfg.Cycle, ""
	if span == 0 {
		span = longest
		zone = cfg.Zone.String()
	}
	switch {
	case cfg.Slot <= 0 || span < cfg.Slot:
		return nil, 0, fmt.Errorf("slots of %v do not fit cycles of %v", cfg.Slot, span)
	case cfg.Cycle == 0 && (cfg.CycleDay < 1 || cfg.CycleDay > 31):
		return nil, 0, fmt.Errorf("cycle day %d: must be 1 to 31", cfg.CycleDay)
	}
	n := count(int64(span), cfg.Slot)
	switch {
	case n > mostSlots:
		return nil, 0, fmt.Errorf("slots of %v are %w of %v: a ledger has at most %d slots a cycle", cfg.Slot, ErrTooShort, span, mostSlots)
	case len(zone) >= zoneSize:
		return nil, 0, fmt.Errorf("the name of the time zone %q is too long", zone)
	}
	b = make([]byte, headerSize)
	le := binary.LittleEndian
	copy(b, magic)
	le.PutUint32(b[16:], version)
	le.PutUint32(b[20:], cycles)
	le.PutUint64(b[24:], uint64(cfg.Slot))
	le.PutUint64(b[32:], uint64(cfg.Cycle))
	le.PutUint32(b[40:], uint32(n))
	le.PutUint32(b[44:], uint32(cfg.CycleDay))
	copy(b[zoneAt:], zone)
	le.PutUint32(b[crcAt:], crc32.ChecksumIEEE(b[:crcAt]))
	return b, int(n), nil
}

// count returns the number of slots that cover a span, which must be positive.
func count(span int64, slot time.Duration) int64 { return (span-1)/int64(slot) + 1 }

// create writes the file under a temporary name and then links it to its own, so that
// other processes never see a partial file. If another process was faster, its file stays.
func create(name string, cfg Config) (err error) {
	b, slots, err := cfg.header()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		os.Remove(f.Name())
		if err != nil {
			err = fmt.Errorf("%s: making a ledger of %.3g MB: %w", name, float64(size(slots))/1e6, err)
		}
	}()
	if _, err = f.Write(b); err == nil {
		// Without space on the disk, a count would fault later.
		err = reserve(f, size(slots))
	}
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	if err == nil {
		if err = os.Link(f.Name(), name); errors.Is(err, os.ErrExist) {
			err = nil
		}
	}
	return err
}

// fill writes zeros after the header, for file systems that cannot reserve space.
func fill(f *os.File, size int64) error {
	zeros := make([]byte, 64<<10)
	for at := int64(headerSize); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

func size(slots int) int64 { return tablesAt + cycles*int64(tableSize(slots)) }

// words returns the number of words in a column of bits.
func words(slots int) int { return (slots + 63) / 64 }

func tableSize(slots int) int { return 8 * (columns*slots + bitmaps*words(slots)) }

// attach checks that a file is a ledger and maps it. On failure it closes the file.
func attach(f *os.File, prot int) (l *Ledger, err error) {
	defer func() {
		if err != nil {
			f.Close()
			err = fmt.Errorf("%s: %w", f.Name(), err)
		}
	}()
	b := make([]byte, headerSize)
	if n, e := f.ReadAt(b, 0); e != nil {
		return nil, fmt.Errorf("%w: %d bytes are less than a header", ErrDamaged, n)
	}
	le := binary.LittleEndian
	switch {
	case string(b[:len(magic)]) != magic:
		return nil, fmt.Errorf("%w: it begins with %q", ErrDamaged, b[:len(magic)])
	case le.Uint32(b[16:]) != version:
		return nil, fmt.Errorf("ledger version %d is not supported: need version %d", le.Uint32(b[16:]), version)
	case le.Uint32(b[crcAt:]) != crc32.ChecksumIEEE(b[:crcAt]):
		return nil, fmt.Errorf("%w: wrong header checksum", ErrDamaged)
	}
	cfg := Config{Slot: time.Duration(le.Uint64(b[24:])), Cycle: time.Duration(le.Uint64(b[32:])), CycleDay: int(le.Uint32(b[44:]))}
	slots := int(le.Uint32(b[40:]))
	zone, _, _ := bytes.Cut(b[zoneAt:zoneAt+zoneSize], []byte{0})
	if cfg.Cycle == 0 {
		if cfg.Zone, err = time.LoadLocation(string(zone)); err != nil {
			return nil, err
		}
	}
	if _, want, err := cfg.header(); err != nil || want != slots || le.Uint32(b[20:]) != cycles {
		return nil, fmt.Errorf("%w: %d slots for a cycle", ErrDamaged, slots)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != size(slots) {
		return nil, fmt.Errorf("%w: %d bytes, but %d slots need %d", ErrDamaged, info.Size(), slots, size(slots))
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &Ledger{name: f.Name(), file: f, mem: mem, cfg: cfg, slots: slots}, nil
}

// differs returns an error if the ledger has another Config than cfg.
func (l *Ledger) differs(cfg Config) error {
	have, what := l.cfg, ""
	switch {
	case have.Slot != cfg.Slot:
		what = fmt.Sprintf("the ledger has slots of %v, but the window needs slots of %v", have.Slot, cfg.Slot)
	case have.Cycle != cfg.Cycle:
		month := func(d time.Duration) string {
			if d == 0 {
				return "a month"
			}
			return d.String()
		}
		what = fmt.Sprintf("the ledger has cycles of %s, not of %s", month(have.Cycle), month(cfg.Cycle))
	case have.Cycle == 0 && (have.CycleDay != cfg.CycleDay || have.Zone.String() != cfg.Zone.String()):
		what = fmt.Sprintf("the ledger's cycles begin on day %d in %s, not on day %d in %s", have.CycleDay, have.Zone, cfg.CycleDay, cfg.Zone)
	default:
		return nil
	}
	return DiffersError(l.name + ": " + what)
}

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
func (l *Ledger) At(now int64, d Direction) (s Slot, err error) {
	if !l.covers(&l.cur, now) {
		if l.cur, err = l.find(now); err != nil {
			return s, err
		}
	}
	i := int((now - l.cur.start) / int64(l.cfg.Slot))
	s = l.slot(l.cur.table, d, i)
	s.Start = l.cur.start + int64(i)*int64(l.cfg.Slot)
	s.End = min(s.Start+int64(l.cfg.Slot), l.cur.end)
	return s, nil
}

// covers reports whether a cycle found earlier contains a time and still has its table.
func (l *Ledger) covers(c *cycle, now int64) bool {
	return now >= c.start && now < c.end && l.start(c.table) == c.start
}

func (l *Ledger) slot(table int, d Direction, i int) Slot {
	return Slot{Charged: l.cell(table, column(d, false), i), Offered: l.cell(table, column(d, true), i), Marked: l.mark(table, d, i)}
}

// Look returns the slot of a time, for reading. It does not begin a cycle: if the ledger
// does not have the cycle, the counts are 0.
func (l *Ledger) Look(now int64, d Direction) (s Slot) {
	c := l.seen
	if !l.covers(&c, now) {
		c.start, c.end = l.bounds(now)
		if c.table = l.table(c.start); c.table >= 0 {
			l.seen = c
		}
	}
	i := int((now - c.start) / int64(l.cfg.Slot))
	if c.table >= 0 && i < l.slots {
		s = l.slot(c.table, d, i)
	}
	s.Start = c.start + int64(i)*int64(l.cfg.Slot)
	s.End = min(s.Start+int64(l.cfg.Slot), c.end)
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

// find returns the cycle of a time, and begins it if necessary.
func (l *Ledger) find(now int64) (cycle, error) {
	start, end := l.bounds(now)
	if start <= 0 || now < start || now >= end || count(end-start, l.cfg.Slot) > int64(l.slots) {
		return cycle{}, fmt.Errorf("%s: there is no cycle for the time %v", l.name, time.Unix(0, now).UTC())
	}
	i := l.table(start)
	if i < 0 {
		if err := l.lock(); err != nil {
			return cycle{}, fmt.Errorf("%s: %w", l.name, err)
		}
		defer func() { _ = unix.Flock(int(l.file.Fd()), unix.LOCK_UN) }()
		if i = l.table(start); i < 0 { // no other process was faster
			if i = l.place(now, start, end); i < 0 {
				return cycle{}, fmt.Errorf("%s: no table for the time %v, which is far from the ledger's cycles: the clock may be wrong", l.name, time.Unix(0, now).UTC())
			}
			l.begin(i, start, end)
		}
	}
	l.doubt = 0
	return cycle{start, end, i}, nil
}

const (
	// doubtful is the fraction of a cycle, 1/720, for which a clock that jumped is not
	// trusted: an hour of a month.
	doubtful = 720
	// another is the number of cycles after which a later time counts as a new jump.
	another = 24
)

// place returns a table for a new cycle, -1 if there is none yet: an unused table,
// or the table of the oldest cycle.
//
// A clock that is wrong for a moment must not cost a cycle that is still needed. So the
// oldest cycle loses its table at once only to a newer cycle adjacent to a known one. The
// two cycles just before the new one never lose theirs, as the clock may return to them.
// After a jump of the clock, such as a year in a drawer or a boot in 2000, the clock has
// to run for a while (see doubtful) before the oldest cycle is lost.
func (l *Ledger) place(now, start, end int64) (oldest int) {
	before, _ := l.bounds(start - 1)
	first, _ := l.bounds(before - 1)
	oldest, next := -1, false
	for i := range cycles {
		s := l.start(i)
		if s == 0 {
			return i
		}
		next = next || s == before || s == end
		if s != before && s != first && (oldest < 0 || s < l.start(oldest)) {
			oldest = i
		}
	}
	if oldest < 0 {
		return -1 // a damaged file that has a cycle twice
	}
	if next && l.start(oldest) < start {
		return oldest
	}
	if l.doubt == 0 || now < l.doubt || now-l.doubt > another*(end-start) {
		l.doubt = now
	}
	if now-l.doubt < (end-start)/doubtful {
		return -1
	}
	return oldest
}

// lockTimeout bounds the wait for the lock. Any process that can read the file can lock
// it, and must not stop traffic by that.
const lockTimeout = 200 * time.Millisecond

// lock locks the file, to begin a cycle.
func (l *Ledger) lock() error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
		case err != unix.EWOULDBLOCK:
			return err
		case time.Since(start) > lockTimeout:
			return errors.New("another process holds the lock (flock)")
		}
	}
}

// begin begins a cycle in a table.
func (l *Ledger) begin(table int, start, end int64) {
	from, to := l.word(cyclesAt+table*cycleSize), l.word(cyclesAt+table*cycleSize+8)
	atomic.StoreUint64(from, 0)
	// A table with an end was in use, or a process was killed while clearing the table.
	if atomic.LoadUint64(to) != 0 {
		clear(l.mem[l.tableAt(table):l.tableAt(table+1)])
	}
	atomic.StoreUint64(to, uint64(end))
	atomic.StoreUint64(from, uint64(start))
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
