package sandbox

import "golang.org/x/sys/unix"

// arch is what the filter wants. The calls of x32 have it, too, but their numbers
// have a bit that ours have not.
const arch = unix.AUDIT_ARCH_X86_64
