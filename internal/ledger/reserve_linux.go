package ledger

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve extends a new file to a size and allocates its space on disk.
func reserve(f *os.File, size int64) error {
	if done, err := fallocate(f, size); done {
		return err
	}
	return fill(f, size)
}

// allocate allocates the holes of a file of a size.
func allocate(f *os.File, size int64) error {
	_, err := fallocate(f, size)
	return err
}

// fallocate reports in done whether the file system supports the call.
func fallocate(f *os.File, size int64) (done bool, err error) {
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, size); err {
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			return false, nil
		default:
			return true, err
		}
	}
}
