//go:build linux && !amd64 && !arm64

package sandbox

const arch = 0

func calls(_, _ bool) []rule { return nil }
