package ledger

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve makes a file so long, with room on the disk where the file system
// knows how.
func reserve(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}
