//go:build !linux

package traffic

import "errors"

// tuneSocket is implemented on Linux only.
func tuneSocket(_ int, r *Request) error {
	if r.Rate > 0 || r.Congestion[0] != 0 {
		return errors.ErrUnsupported
	}
	return nil
}
