//go:build !linux

package ledger

import (
	"errors"
	"os"
)

// allocate is implemented on Linux only.
func allocate(*os.File, int64) error { return errors.ErrUnsupported }
