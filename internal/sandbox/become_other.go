//go:build !linux

package sandbox

import "errors"

// Become fails unless u is the zero User: it is implemented on Linux only.
func Become(u User) error {
	if u.text == "" {
		return nil
	}
	return errors.New("-user is supported on Linux only")
}

// DropCapabilities fails: only Linux has capabilities(7).
func DropCapabilities() error { return errors.New("dropping capabilities is supported on Linux only") }
