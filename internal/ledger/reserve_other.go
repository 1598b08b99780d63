//go:build !linux

package ledger

import "os"

// reserve makes a file so long, with room on the disk.
func reserve(f *os.File, size int64) error { return fill(f, size) }
