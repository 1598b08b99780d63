//go:build !linux

package divert

import "errors"

// Diversion is for Linux alone.
type Diversion struct{}

// New fails: no other system has tcx hooks.
func New(Config, int, func(format string, args ...any)) (*Diversion, error) {
	return nil, errors.New("only Linux can divert an interface")
}

// Run does nothing.
func (*Diversion) Run(stop, out int) error { return nil }

// Close does nothing.
func (*Diversion) Close() {}

// Counters is the line for SIGUSR1.
func (*Diversion) Counters() string { return "" }
