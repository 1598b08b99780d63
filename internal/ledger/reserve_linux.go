package ledger

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve makes a new file so long, with room on the disk.
func reserve(f *os.File, size int64) error {
	if done, err := fallocate(f, size); done {
		return err
	}
	return fill(f, size)
}

// allocate finds room for the holes of a file that is so long.
func allocate(f *os.File, size int64) error {
	_, err := fallocate(f, size)
	return err
}

// fallocate reports whether the file system can do it at all.
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
