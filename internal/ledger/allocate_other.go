//go:build !linux

package ledger

import (
	"errors"
	"os"
)

// allocate is implemented on Linux only.
var allocate = func(*os.File, int64) error { return errors.ErrUnsupported }
