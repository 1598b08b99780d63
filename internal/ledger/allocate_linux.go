package ledger

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate extends a file to a size and allocates its space on disk, holes included. The
// error is errors.ErrUnsupported if the file system cannot do that. Tests replace it.
var allocate = func(f *os.File, size int64) error {
	for {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != unix.EINTR {
			return err
		}
	}
}
