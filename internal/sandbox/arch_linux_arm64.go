package sandbox

import "golang.org/x/sys/unix"

// arch is the architecture that the filter allows.
const arch = unix.AUDIT_ARCH_AARCH64

// legacy are older forms of the calls in never, of which this architecture has none.
var legacy = []int{unix.SYS_KEXEC_FILE_LOAD}
