package fdio

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

// A goroutine that waits holds on to its P, and the collector waits for it (see
// the package comment): a stage has one such goroutine, these tests have both
// ends of a pipe in one process.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(16)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	os.Exit(m.Run())
}
