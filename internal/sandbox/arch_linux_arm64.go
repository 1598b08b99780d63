package sandbox

import "golang.org/x/sys/unix"

// arch is the architecture that the filter allows.
const arch = unix.AUDIT_ARCH_AARCH64

// legacy lists older forms of the calls in never: none on this architecture.
var legacy []int
