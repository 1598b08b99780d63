package divert

import (
	"errors"
	"math"
	"math/rand/v2"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// ports is the value of the map that the programs read: numbers of interfaces, and
// whether frames are diverted. Each is 32 bits, which the kernel writes at once.
type ports [4]uint32

// Places in ports. The first three are in the order of Diversion.names.
const (
	atInterface = iota
	atNet
	atHost
	atDivert
)

// atMark is where the mark is in struct __sk_buff (include/uapi/linux/bpf.h).
const atMark = 8

// tcxNext is the result of a program that lets the frame go on (enum tcx_action_base in
// include/uapi/linux/bpf.h).
const tcxNext = -1

// prefix begins the names of the programs, by which a diversion finds another one. Names have
// at most 15 bytes.
const prefix = "tundivert_"

// capture is the program of the interface. Marked frames, which come out of a tap, go on;
// all others go into the tap whose number is at a place in the map, of which ports is the
// descriptor.
func capture(ports int, mark uint32, tap int16) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, atMark, asm.Word),
		asm.Mov.Imm32(asm.R3, int32(mark)),
		asm.JNE.Reg32(asm.R2, asm.R3, "unmarked"),
		asm.StoreImm(asm.R1, atMark, 0, asm.Word),
		asm.Mov.Imm(asm.R0, tcxNext),
		asm.Return(),
		asm.LoadMapValue(asm.R4, ports, 0).WithSymbol("unmarked"),
		asm.Mov.Imm(asm.R0, tcxNext),
		asm.LoadMem(asm.R2, asm.R4, 4*atDivert, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "alone"),
		asm.LoadMem(asm.R1, asm.R4, 4*tap, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return().WithSymbol("alone"),
	}
}

// inject is the program of a tap. It marks the frames that are written to the tap, and sends
// them out by the interface, or, with the flag BPF_F_INGRESS, in by it.
func inject(ports int, mark uint32, flags int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm32(asm.R3, int32(mark)),
		asm.StoreMem(asm.R1, atMark, asm.R3, asm.Word),
		asm.LoadMapValue(asm.R4, ports, 0),
		asm.LoadMem(asm.R1, asm.R4, 4*atInterface, asm.Word),
		asm.Mov.Imm(asm.R2, flags),
		asm.FnRedirect.Call(),
		asm.Return(),
	}
}

// load makes the map and loads the programs, whose mark is random.
func (d *Diversion) load() (err error) {
	d.ports, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: prefix + "ports", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(4 * len(ports{})), MaxEntries: 1,
	})
	if err != nil {
		return refused(err)
	}
	mark := rand.Uint32N(1<<32-1) + 1 // any but none
	for _, p := range []struct {
		at   *attachment
		hook ebpf.AttachType
		name string
		code asm.Instructions
	}{
		{&d.ingress, ebpf.AttachTCXIngress, "in", capture(d.ports.FD(), mark, atNet)},
		{&d.egress, ebpf.AttachTCXEgress, "out", capture(d.ports.FD(), mark, atHost)},
		{&d.net, ebpf.AttachTCXIngress, "net", inject(d.ports.FD(), mark, 0)},
		{&d.host, ebpf.AttachTCXIngress, "host", inject(d.ports.FD(), mark, unix.BPF_F_INGRESS)},
	} {
		p.at.hook = p.hook
		p.at.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: prefix + p.name, Type: ebpf.SchedCLS, Instructions: p.code})
		if err != nil {
			return refused(err)
		}
	}
	// When attaching fails the library looks whether the kernel has tcx hooks, for
	// which it loads a program. It is to do that now, while it may.
	_, err = link.AttachTCX(link.TCXOptions{Interface: math.MaxInt32, Program: d.ingress.program, Attach: d.ingress.hook})
	if !errors.Is(err, unix.ENODEV) {
		return refused(err)
	}
	return nil
}
