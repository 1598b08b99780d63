package sandbox

import "golang.org/x/sys/unix"

// arch is the architecture that the filter allows.
const arch = unix.AUDIT_ARCH_AARCH64

// legacy lists older forms of the calls in never. This architecture has almost none.
var legacy = []int{unix.SYS_KEXEC_FILE_LOAD}
