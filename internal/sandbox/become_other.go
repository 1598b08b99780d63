//go:build !linux

package sandbox

import "errors"

// Become fails if there is a user: what it promises is tried on Linux only.
func Become(u User) error {
	if u.text == "" {
		return nil
	}
	return errors.New("-user: only on Linux")
}

// DropCapabilities fails: capabilities(7) are Linux's.
func DropCapabilities() error { return errors.New("capabilities are dropped only on Linux") }
