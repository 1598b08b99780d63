package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"framepipe/internal/calendar"

	"golang.org/x/sys/unix"
)

// header encodes the header of a new file.
func (cfg Config) header() (b []byte, slots int, err error) {
	span, zone := cfg.Longest(), ""
	if cfg.Length == 0 {
		zone = cfg.Zone.String()
	}
	switch {
	case cfg.Slot <= 0 || cfg.Length < 0 || span < cfg.Slot:
		return nil, 0, fmt.Errorf("slots of %v do not fit cycles of %v", cfg.Slot, span)
	case cfg.Slots < 0 || cfg.Slots > calendar.Slots:
		return nil, 0, fmt.Errorf("%d slots in a window: must be at most %d", cfg.Slots, calendar.Slots)
	case cfg.Length == 0 && (cfg.Day < 1 || cfg.Day > 31):
		return nil, 0, fmt.Errorf("cycle day %d: must be 1 to 31", cfg.Day)
	case count(int64(span), cfg.Slot) > calendar.MaxSlots:
		return nil, 0, fmt.Errorf("slots of %v are %w of %v: a ledger has at most %d slots a cycle", cfg.Slot, ErrTooShort, span, calendar.MaxSlots)
	case len(zone) >= zoneSize:
		return nil, 0, fmt.Errorf("the name of the time zone %q is too long: at most %d bytes", zone, zoneSize-1)
	}
	b, slots = make([]byte, headerSize), int(count(int64(span), cfg.Slot))
	le := binary.LittleEndian
	copy(b, magic)
	le.PutUint32(b[16:], version)
	le.PutUint16(b[20:], cycles)
	le.PutUint16(b[22:], uint16(cfg.Slots%calendar.Slots))
	le.PutUint64(b[24:], uint64(cfg.Slot))
	le.PutUint64(b[32:], uint64(cfg.Length))
	le.PutUint32(b[40:], uint32(slots))
	le.PutUint32(b[44:], uint32(cfg.Day))
	copy(b[zoneAt:], zone)
	le.PutUint32(b[crcAt:], crc32.ChecksumIEEE(b[:crcAt]))
	return b, slots, nil
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
		return &os.PathError{Op: "open", Path: name, Err: errors.Unwrap(err)} // not its temporary name
	}
	defer func() {
		f.Close()
		os.Remove(f.Name())
		if err != nil {
			err = fmt.Errorf("%s: making a ledger of %.3g MB: %w", name, float64(size(slots))/1e6, err)
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	// Without space on the disk, a count would fault later.
	if err = allocate(f, size(slots)); errors.Is(err, errors.ErrUnsupported) {
		err = fill(f, size(slots))
	}
	// A process that can open it can hold its lock, without which no cycle begins.
	if err = errors.Join(err, f.Chmod(0o640), f.Sync()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), name); errors.Is(err, os.ErrExist) {
		return nil
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

// attach opens a file, checks that it is a ledger, and maps it.
func attach(name string, flag, prot int) (l *Ledger, err error) {
	f, err := os.OpenFile(name, flag, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			err = fmt.Errorf("%s: %w", name, err)
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
	cfg := Config{Slot: time.Duration(le.Uint64(b[24:])), Slots: int(le.Uint16(b[22:]))}
	cfg.Length, cfg.Day = time.Duration(le.Uint64(b[32:])), int(le.Uint32(b[44:]))
	if cfg.Length == 0 {
		zone, _, _ := bytes.Cut(b[zoneAt:zoneAt+zoneSize], []byte{0})
		if cfg.Zone, err = time.LoadLocation(string(zone)); err != nil {
			return nil, err
		}
	}
	slots := int(le.Uint32(b[40:]))
	if _, want, err := cfg.header(); err != nil || want != slots || le.Uint16(b[20:]) != cycles {
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
	debug.SetPanicOnFault(true) // for Catch
	return &Ledger{Config: cfg, file: f, mem: mem, slots: slots}, nil
}
