package fdio

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scratchSize is how much is gathered that lies elsewhere.
const scratchSize = 256 << 10

// share makes memory of a file. It is read with O_DIRECT, which tmpfs takes since
// Linux 6.6 and copies from all the same (copy_splice_read in fs/splice.c); read
// otherwise, the pipe would have its pages, in which the next frames are written.
// That takes two thirds of the time of a write of 64 KiB.
func (w *watched) share(size int) {
	fd, err := unix.MemfdCreate("frames", unix.MFD_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	w.at = (size + 4095) &^ 4095
	all := w.at + scratchSize
	if unix.Ftruncate(fd, int64(all)) != nil {
		return
	}
	file, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	mem, err := unix.Mmap(fd, 0, all, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(file)
		return
	}
	w.file, w.mem, w.scratch = file, mem[:size:size], mem[w.at:]
}

// gather returns the spans as one that write takes as it is, or as much of them.
func (w *watched) gather(spans [][]byte) []byte {
	n := 0
	for _, s := range spans {
		n += copy(w.scratch[n:], s)
	}
	return w.scratch[:n]
}

// write writes some of p. The kernel's answer is EFAULT if the progress loses its memory
// in the middle of it; how much was written nobody knows then.
func (w *watched) write(out int, p []byte) (int, error) {
	from := int64(uintptr(unsafe.Pointer(&p[0])) - uintptr(unsafe.Pointer(&w.mem[0])))
	if from < 0 || from >= int64(w.at+len(w.scratch)) {
		p = w.scratch[:copy(w.scratch, p)]
		from = int64(w.at)
	}
	w.from, w.length = from, len(p)
	w.do(w.begin)
	n, _, e := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(w.file), uintptr(unsafe.Pointer(&w.p.position)), uintptr(out), 0, uintptr(len(p)), unix.SPLICE_F_NONBLOCK)
	if e == 0 {
		w.total += uint64(n)
	}
	w.do(w.settle)
	if e != 0 {
		return 0, errno(e)
	}
	return int(n), nil
}
