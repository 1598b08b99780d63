// Package ledger keeps what was counted in a file: bytes for each slot of time,
// in either direction, for the billing cycles of late. Gates of both directions,
// and several of one, share it, in different processes; it survives their
// restart, kill -9, and the machine's.
//
// # The file
//
// A header of 4096 bytes, a place for each of 16 gates, and then a table for each of
// four cycles, all numbers little-endian:
//
//	  0  "framepipe ledger"
//	 16  version, 3 (uint32)
//	 20  cycles, 4 (uint32)
//	 24  length of a slot, nanoseconds (uint64)
//	 32  length of a cycle, nanoseconds, or 0: a month (uint64)
//	 40  slots in a table (uint32)
//	 44  day of the month on which cycles begin (uint32)
//	 48  name of the time zone in which they do, 64 bytes, filled with 0
//	112  CRC-32 (IEEE) of the 112 bytes before it
//	256  for each cycle: its beginning, its end (int64, nanoseconds since the
//	     Unix epoch), and 16 bytes that are 0. A beginning of 0 is a table that
//	     has not been used.
//
// A place has 32 KiB: what the gate has charged and not passed on (see Hand; its
// numbers are the machine's).
//
// A table has four columns of 8-byte counts, one behind the other: in, charged;
// in, offered; out, charged; out, offered. Two columns of bits follow, in whole
// 8-byte words: in, marked; out, marked. Slot i of a cycle begins i slots after
// the cycle does; its bit is bit i%64 of word i/64. A mark says that bytes
// passed in the slot which did not fit into a gate's own window, but were free
// (see package budget). For slots of 5 seconds, which is what a window of five
// minutes has, that is 17 MB a cycle and 70 MB in all, whatever the traffic.
//
// # What happens when
//
//   - A process ends, or is killed: what it has counted is in the file, which it
//     shares with the kernel. What it had charged and not passed on is given back
//     by whoever opens the file next.
//   - The machine stops: what was counted since the last Sync is lost.
//   - A new cycle begins: it takes a table that was not used, or else the one with
//     the fewest bytes of those that are neither the new cycle's nor that of the
//     one before. A clock that was wrong for a while fills such a table, and no
//     more.
//   - The clock is set back, over the beginning of the cycle even: the tables are
//     found by their beginning, and counting goes on in them.
//   - The file is cut off while it is counted in, or its file system fails or goes
//     read-only: counting goes on in memory of the process's own, with what the
//     file has as far as it can be read. It is told once (Lost).
//   - The file is damaged, of another make, or made with another slot or cycle:
//     an error, and it is left as it was.
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

// Direction is that of traffic, as the host sees it.
type Direction int

// The directions.
const (
	In Direction = iota
	Out
)

// Config is what a ledger is made with.
type Config struct {
	Slot     time.Duration
	CycleDay int            // day of the month on which cycles begin
	Zone     *time.Location // in which they do
	// Cycle, if it is not 0, is how long cycles are, beginning at the Unix
	// epoch; there is no CycleDay and no Zone then.
	Cycle time.Duration
}

const (
	magic      = "framepipe ledger"
	version    = 3
	headerSize = 4096
	tablesAt   = handsAt + hands*handSize
	crcAt      = 112
	zoneAt     = 48
	zoneSize   = 64
	cyclesAt   = 256
	cycleSize  = 32
	cycles     = 4
	columns    = 4
	bitmaps    = 2
	// longest is a month with the hour that the end of summer time adds.
	longest = 31*24*time.Hour + time.Hour
	// mostSlots bounds the size of a file: to 512 MB.
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
	cur    cycle // in which counting goes on
	seen   cycle // in which was looked last
	boot   uint64
	mine   *Hand          // nil if none was taken
	over   map[int]uint64 // by place in the file: what is to be given back, if this only looks
	// Lost is told, once, when the file can no longer be counted in.
	Lost func(error)
	lost int
	err  error // why
}

// cycle is a table in memory.
type cycle struct {
	start, end int64
	table      int
}

// ErrDamaged is behind the error for a file that is no ledger, or not a whole
// one.
var ErrDamaged = errors.New("no ledger, or a damaged one")

// ErrTooShort is behind the error for slots of which there would be too many.
var ErrTooShort = errors.New("too short for a cycle")

// Open opens a ledger for counting, and makes it if there is none. bounds gives
// the cycle in which a time lies, as the configuration says.
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
	l.bounds = bounds
	debug.SetPanicOnFault(true) // of this goroutine, which is to count
	return l, nil
}

// Read opens a ledger for looking at it, with the configuration that it was made
// with.
func Read(name string) (*Ledger, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	l, err := attach(f, unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	debug.SetPanicOnFault(true) // of this goroutine, which is to look
	l.over = l.left()
	return l, nil
}

// Config returns what the ledger was made with.
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
		return nil, 0, fmt.Errorf("slots of %v, and cycles of %v", cfg.Slot, span)
	case cfg.Cycle == 0 && (cfg.CycleDay < 1 || cfg.CycleDay > 31):
		return nil, 0, fmt.Errorf("cycles begin on day %d", cfg.CycleDay)
	}
	n := count(int64(span), cfg.Slot)
	switch {
	case n > mostSlots:
		return nil, 0, fmt.Errorf("slots of %v are %w of %v: a ledger has %d at the most", cfg.Slot, ErrTooShort, span, mostSlots)
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

// count returns how many slots a span has, which is over 0.
func count(span int64, slot time.Duration) int64 { return (span-1)/int64(slot) + 1 }

// create makes a file beside its place, whole, and then puts it there, unless
// somebody else has done so meanwhile.
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
		// Room for all of it now: a write to memory for which the disk has
		// none is a signal that kills.
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

// fill writes zeros behind the header, for file systems that cannot reserve room.
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

// words is how many a column of bits has.
func words(slots int) int { return (slots + 63) / 64 }

func tableSize(slots int) int { return 8 * (columns*slots + bitmaps*words(slots)) }

// attach looks whether a file is a ledger, and maps it. It closes the file on
// failure.
func attach(f *os.File, prot int) (l *Ledger, err error) {
	defer func() {
		if err != nil {
			f.Close()
			err = fmt.Errorf("%s: %w", f.Name(), err)
		}
	}()
	b := make([]byte, headerSize)
	if n, e := f.ReadAt(b, 0); e != nil {
		return nil, fmt.Errorf("%w: it has %d bytes, less than a header", ErrDamaged, n)
	}
	le := binary.LittleEndian
	switch {
	case string(b[:len(magic)]) != magic:
		return nil, fmt.Errorf("%w: it begins with %q", ErrDamaged, b[:len(magic)])
	case le.Uint32(b[16:]) != version:
		return nil, fmt.Errorf("a ledger of version %d, this reads version %d", le.Uint32(b[16:]), version)
	case le.Uint32(b[crcAt:]) != crc32.ChecksumIEEE(b[:crcAt]):
		return nil, fmt.Errorf("%w: the checksum of its header is wrong", ErrDamaged)
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
		return nil, fmt.Errorf("%w: it has %d bytes, and %d slots want %d", ErrDamaged, info.Size(), slots, size(slots))
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &Ledger{name: f.Name(), file: f, mem: mem, cfg: cfg, slots: slots, boot: bootID()}, nil
}

// differs compares what the ledger was made with and what is wanted.
func (l *Ledger) differs(cfg Config) error {
	have := l.cfg
	switch {
	case have.Slot != cfg.Slot:
		return fmt.Errorf("%s: it has slots of %v, which is another window: slots of %v are wanted", l.name, have.Slot, cfg.Slot)
	case have.Cycle != cfg.Cycle:
		month := func(d time.Duration) string {
			if d == 0 {
				return "a month"
			}
			return d.String()
		}
		return fmt.Errorf("%s: it has cycles of %s, and %s are wanted", l.name, month(have.Cycle), month(cfg.Cycle))
	case have.Cycle == 0 && (have.CycleDay != cfg.CycleDay || have.Zone.String() != cfg.Zone.String()):
		return fmt.Errorf("%s: its cycles begin on day %d in %s, and not on day %d in %s", l.name, have.CycleDay, have.Zone, cfg.CycleDay, cfg.Zone)
	}
	return nil
}

// Close gives back what is in the hand, writes back what was counted and lets go of
// the file.
func (l *Ledger) Close() error {
	if l.mine != nil {
		l.do(func() { l.giveBack(l.mine.page) })
	}
	return errors.Join(unix.Munmap(l.mem), l.file.Sync(), l.file.Close())
}

// Sync writes to the disk what was counted. It takes as long as the disk does,
// and may be called beside all else.
func (l *Ledger) Sync() error { return l.file.Sync() }

// word returns a number of the file.
func (l *Ledger) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&l.mem[at])) }

// start and end are those of a table's cycle, 0 if it has none.
func (l *Ledger) start(table int) Cell { return Cell{l, l.word(cyclesAt + table*cycleSize)} }
func (l *Ledger) end(table int) Cell   { return Cell{l, l.word(cyclesAt + table*cycleSize + 8)} }

// rescue is deferred by whatever touches the memory. The kernel answers that with
// SIGBUS where the file has no page behind it any more, or may not have it
// written; then the memory becomes the process's own, and the caller tries again.
func (l *Ledger) rescue() {
	e := recover()
	if e == nil {
		return
	}
	fault, ok := e.(interface{ Addr() uintptr })
	first := uintptr(unsafe.Pointer(&l.mem[0]))
	if !ok || fault.Addr() < first || fault.Addr() >= first+uintptr(len(l.mem)) {
		panic(e)
	}
	// At first with what the file has; then with none where it ends; and if it cannot
	// be read either, with none at all.
	fd, flags, from := int(l.file.Fd()), unix.MAP_PRIVATE|unix.MAP_FIXED, 0
	if l.lost++; l.lost > 1 {
		if info, err := l.file.Stat(); l.lost == 2 && err == nil {
			page := int64(os.Getpagesize())
			from = int(min((info.Size()+page-1)/page*page, int64(len(l.mem)-1)/page*page))
		}
		fd, flags = -1, flags|unix.MAP_ANON
	}
	if _, err := unix.MmapPtr(fd, 0, unsafe.Pointer(&l.mem[from]), uintptr(len(l.mem)-from), unix.PROT_READ|unix.PROT_WRITE, flags); err != nil || l.lost > 3 {
		panic(e)
	}
	if l.lost == 1 {
		l.err = fmt.Errorf("%s: it was cut off, or its file system fails", l.name)
		if l.Lost != nil {
			l.Lost(l.err)
		}
	}
}

// Err returns why not all was read or counted that should have been, if so: what Lost
// was told.
func (l *Ledger) Err() error { return l.err }

// Gone reports whether what was counted before the file was lost could not be read any
// more.
func (l *Ledger) Gone() bool { return l.lost > 1 }

// do does what touches the memory. f is to touch it first, if it changes anything
// else: it may be done again.
func (l *Ledger) do(f func()) {
	for !l.try(f) {
	}
}

func (l *Ledger) try(f func()) (done bool) {
	defer l.rescue()
	f()
	return true
}

// Cell is the count of a slot, in bytes. Others count in it, too.
type Cell struct {
	l *Ledger
	p *uint64
}

// Add counts bytes, which may be negative: what was counted too early. The count does
// not go below 0, where what it had is lost.
func (c Cell) Add(bytes int64) {
	for c.p != nil && !c.add(bytes) {
	}
}

func (c Cell) add(bytes int64) (done bool) {
	defer c.l.rescue()
	if bytes < 0 {
		lower(c.p, uint64(-bytes))
	} else {
		atomic.AddUint64(c.p, uint64(bytes))
	}
	return true
}

// most is what a count, or all those of a cycle, are taken for at the most: nonsense in
// a file is to add up to nonsense, and not to less than nothing.
const most = 1 << 55

// Load returns the count.
func (c Cell) Load() int64 { return min(c.time(), most) }

// time is Load for what is no count.
func (c Cell) time() int64 {
	if c.p == nil {
		return 0
	}
	n, done := c.load()
	for !done {
		n, done = c.load()
	}
	return int64(min(n, 1<<62))
}

func (c Cell) load() (n uint64, done bool) {
	defer c.l.rescue()
	return atomic.LoadUint64(c.p), true
}

func (l *Ledger) tableAt(table int) int { return tablesAt + table*tableSize(l.slots) }

func (l *Ledger) cellAt(table, column, slot int) int {
	return l.tableAt(table) + (column*l.slots+slot)*8
}

func (l *Ledger) cell(table, column, slot int) Cell {
	return Cell{l, l.word(l.cellAt(table, column, slot))}
}

// Mark is the bit of a slot. Others set it, too; nobody clears it.
type Mark struct {
	Cell
	bit uint64
}

// Set sets the mark.
func (m Mark) Set() {
	for m.p != nil && !m.Load() && !m.set() {
	}
}

func (m Mark) set() (done bool) {
	defer m.l.rescue()
	atomic.OrUint64(m.p, m.bit)
	return true
}

// Load reports whether it is set.
func (m Mark) Load() bool {
	if m.p == nil {
		return false
	}
	n, done := m.load()
	for !done {
		n, done = m.load()
	}
	return n&m.bit != 0
}

func (l *Ledger) mark(table int, d Direction, slot int) Mark {
	at := l.tableAt(table) + 8*(columns*l.slots+int(d)*words(l.slots)+slot/64)
	return Mark{Cell{l, l.word(at)}, 1 << (slot % 64)}
}

func column(d Direction, offered bool) int {
	c := 2 * int(d)
	if offered {
		c++
	}
	return c
}

// Slot is a slot of a direction, to count in.
type Slot struct {
	Charged, Offered Cell
	Marked           Mark
	Start, End       int64 // nanoseconds since the Unix epoch
}

// At returns the slot in which a time lies. It may begin a new cycle.
func (l *Ledger) At(now int64, d Direction) (s Slot, err error) {
	if !l.has(&l.cur, now) {
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

// has reports whether a time lies in a cycle that was found earlier, and nobody
// has taken its table since.
func (l *Ledger) has(c *cycle, now int64) bool {
	return now >= c.start && now < c.end && l.start(c.table).time() == c.start
}

func (l *Ledger) slot(table int, d Direction, i int) Slot {
	return Slot{Charged: l.cell(table, column(d, false), i), Offered: l.cell(table, column(d, true), i), Marked: l.mark(table, d, i)}
}

// Look returns the slot in which a time lies, for looking at it. That of a cycle
// which the ledger does not have is empty: it begins none.
func (l *Ledger) Look(now int64, d Direction) (s Slot) {
	c := l.seen
	if !l.has(&c, now) {
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

// Charged returns what was charged in a cycle, which begins then, in the slots that
// begin before a time. It is one column of the table, and takes half a millisecond at
// the end of a month.
func (l *Ledger) Charged(start, to int64, d Direction) (bytes int64) {
	table := l.table(start)
	if table < 0 || to <= start {
		return 0
	}
	cells := unsafe.Slice(l.word(l.cellAt(table, column(d, false), 0)), min(count(to-start, l.cfg.Slot), int64(l.slots)))
	l.do(func() {
		sum := uint64(0)
		for i := range cells {
			sum = min(sum+min(atomic.LoadUint64(&cells[i]), most), most)
		}
		bytes = int64(sum)
	})
	return bytes
}

// table finds the table of the cycle that begins then, -1 if there is none.
func (l *Ledger) table(start int64) int {
	for i := range cycles {
		if s := l.start(i).time(); s == start && s != 0 {
			return i
		}
	}
	return -1
}

// find returns the cycle in which a time lies, and begins it if need be.
func (l *Ledger) find(now int64) (cycle, error) {
	start, end := l.bounds(now)
	if start <= 0 || now < start || now >= end || count(end-start, l.cfg.Slot) > int64(l.slots) {
		return cycle{}, fmt.Errorf("%s: there is no cycle for the time %v", l.name, time.Unix(0, now).UTC())
	}
	if i := l.table(start); i >= 0 {
		return cycle{start, end, i}, nil
	}
	l.seen = cycle{} // whose table may be the one that is taken
	if err := l.alone(); err != nil {
		return cycle{}, fmt.Errorf("%s: %w", l.name, err)
	}
	defer func() { _ = unix.Flock(int(l.file.Fd()), unix.LOCK_UN) }()
	i := l.table(start)
	if i < 0 {
		before, _ := l.bounds(start - 1)
		i = l.spare(before)
		for !l.begin(i, start, end) {
		}
	}
	return cycle{start, end, i}, nil
}

// patience is how long somebody else may take to begin a cycle, or have the file
// locked for whatever else: whoever may read it can do so, and stops nobody for longer.
const patience = 200 * time.Millisecond

// alone waits until it has the file for itself, to begin a cycle.
func (l *Ledger) alone() error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
		case err != unix.EWOULDBLOCK:
			return err
		case time.Since(start) > patience:
			return errors.New("somebody else has it locked (flock)")
		}
	}
}

// begin begins a cycle in a table.
func (l *Ledger) begin(table int, start, end int64) (done bool) {
	defer l.rescue()
	from, to := l.start(table).p, l.end(table).p
	atomic.StoreUint64(from, 0)
	// One that has an end was used, or was being cleared by somebody who was
	// killed.
	if atomic.LoadUint64(to) != 0 {
		clear(l.mem[l.tableAt(table):l.tableAt(table+1)])
	}
	atomic.StoreUint64(to, uint64(end))
	atomic.StoreUint64(from, uint64(start))
	return true
}

// spare finds a table for a new cycle, of which the one before begins then.
func (l *Ledger) spare(before int64) (table int) {
	table, least := -1, uint64(0)
	for i := range cycles {
		switch start := l.start(i).time(); start {
		case 0:
			return i
		case before:
			continue
		}
		sum := uint64(0)
		for slot := range l.slots {
			for c := range columns {
				sum += uint64(l.cell(i, c, slot).Load())
			}
		}
		if table < 0 || sum < least {
			table, least = i, sum
		}
	}
	return table
}

// Cycle is a cycle of which the ledger has a table.
type Cycle struct {
	Start, End int64 // nanoseconds since the Unix epoch
	Slots      int

	l     *Ledger
	table int
}

// Cycles returns the cycles that the ledger has, the oldest first.
func (l *Ledger) Cycles() (all []Cycle) {
	for i := range cycles {
		start, end := l.start(i).time(), l.end(i).time()
		if start <= 0 || end <= start || count(end-start, l.cfg.Slot) > int64(l.slots) {
			continue // not used, or somebody has written nonsense there
		}
		all = append(all, Cycle{start, end, int(count(end-start, l.cfg.Slot)), l, i})
	}
	slices.SortFunc(all, func(a, b Cycle) int { return cmp.Compare(a.Start, b.Start) })
	last := int64(0)
	return slices.DeleteFunc(all, func(c Cycle) bool {
		if c.Start < last {
			return true // nonsense, too
		}
		last = c.End
		return false
	})
}

// Marked reports whether a slot of the cycle is marked.
func (c *Cycle) Marked(d Direction, slot int) bool { return c.l.mark(c.table, d, slot).Load() }

// Bytes returns what was charged, or offered, in a slot of the cycle.
func (c *Cycle) Bytes(d Direction, offered bool, slot int) int64 {
	at := c.l.cellAt(c.table, column(d, offered), slot)
	n := Cell{c.l, c.l.word(at)}.Load()
	return n - min(n, int64(c.l.over[at]))
}
