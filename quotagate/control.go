package main

import "framepipe/internal/packet"

// The budget of a kind of control traffic, in counted bytes: a few frames a second are more
// than a link needs, and some hundred at once when it starts. A gate has one budget for
// frames of a kind to one station, and another for those to a group, so that the broadcasts
// of a large network leave room for answers.
const (
	controlRate  = 1000   // bytes a second
	controlBurst = 16_000 // bytes at once
)

// allowance has a token bucket for each budget: the time, in nanoseconds, when it will be
// full again. The zero value is full.
type allowance [packet.Controls][2]int64

// take takes the bytes of a frame from the budget of its kind. It reports false, and takes
// nothing, if they are more than is left. Times must not go back.
func (a *allowance) take(now int64, kind packet.Control, group bool, bytes int64) bool {
	const perByte = int64(1e9 / controlRate)
	b := &a[kind][0]
	if group {
		b = &a[kind][1]
	}
	full := max(*b, now) + bytes*perByte
	if full-now > controlBurst*perByte {
		return false
	}
	*b = full
	return true
}
