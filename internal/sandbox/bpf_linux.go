package sandbox

import "golang.org/x/sys/unix"

// rule allows a system call, if its argument is right. Arguments are compared by
// their low 32 bits, for such as the kernel takes as 32 bits or has no more
// flags than that for, and the values of which it says they must be null.
type rule struct {
	call int
	arg  int // that is looked at
	test test
	// values are those that are right, or the bits that must not be set.
	values []uint32
	errno  uint32 // if it is never allowed: how it fails
}

type test uint8

const (
	whatever test = iota // all arguments are right
	among                // the argument is one of the values
	without              // the argument has no bit of the value
	null                 // the argument is 0, in all its 64 bits
	never
)

// Where a filter finds what it decides on: struct seccomp_data in
// include/uapi/linux/seccomp.h, of a machine whose low bytes come first.
const (
	atCall = 0
	atArch = 4
	atArgs = 16
)

const (
	allowed = unix.SECCOMP_RET_ALLOW
	refused = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
)

// instructions of classic BPF (Documentation/networking/filter.rst). The jumps
// skip so many instructions.

func load(at int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(at)}
}

func jump(condition uint16, k uint32, yes, no int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | condition, K: k, Jt: uint8(yes), Jf: uint8(no)}
}

func answer(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

// program makes the filter of rules, in their order: those for what is called
// often come first. (Since Linux 5.11 the kernel knows which calls are allowed
// whatever their arguments, and does not ask the filter.) A call that has no rule
// is refused. There is no program where there are no rules.
func program(rules []rule) (p []unix.SockFilter) {
	if len(rules) == 0 {
		return nil
	}
	// The numbers of calls are those of an architecture; a process may make
	// those of its other one, too, such as i386.
	p = append(p, load(atArch), jump(unix.BPF_JEQ, arch, 1, 0), answer(refused), load(atCall))
	for _, r := range rules {
		c := r.check()
		p = append(p, jump(unix.BPF_JEQ, uint32(r.call), 0, len(c)))
		p = append(p, c...)
	}
	return append(p, answer(refused))
}

// check is what comes when the call is that of the rule. It ends in an answer.
func (r rule) check() (p []unix.SockFilter) {
	arg := atArgs + 8*r.arg
	switch r.test {
	case whatever:
		return []unix.SockFilter{answer(allowed)}
	case never:
		return []unix.SockFilter{answer(unix.SECCOMP_RET_ERRNO | r.errno)}
	case among:
		p = append(p, load(arg))
		for i, v := range r.values {
			p = append(p, jump(unix.BPF_JEQ, v, len(r.values)-i, 0)) // over the rest and a refusal
		}
		return append(p, answer(refused), answer(allowed))
	case without:
		return []unix.SockFilter{load(arg), jump(unix.BPF_JSET, r.values[0], 0, 1), answer(refused), answer(allowed)}
	case null:
		return []unix.SockFilter{
			load(arg), jump(unix.BPF_JEQ, 0, 0, 2),
			load(arg + 4), jump(unix.BPF_JEQ, 0, 1, 0),
			answer(refused), answer(allowed),
		}
	}
	return []unix.SockFilter{answer(refused)}
}
