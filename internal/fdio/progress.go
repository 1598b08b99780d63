package fdio

// Progress is how much of an output was written. It is made to lie in memory that
// others can see: a file's, which is there after the process was killed.
//
// Killed in a write, a process has written or not, and cannot say. So the write is
// one that has the kernel note its progress in memory by itself: splice(2) of a file
// at an offset, which it reads and writes through a pointer (do_splice in
// fs/splice.c), before anything can end the process. But it does not where the page
// has been written back meanwhile, and so is protected, and the process is being killed
// (fault_signal_pending in include/linux/sched/signal.h): a write whose position has not moved
// counts in full, lest less counts than was written. Where splice is not to be had, all
// of a write is noted before, and what was not written taken back after it.
//
// The stores are plain ones. A process ends between two instructions, and its
// memory is read when it has.
type Progress struct {
	settled  uint64 // bytes written before the write that is under way
	origin   uint64 // how far the output is at offset 0 of what that one writes
	position int64  // the kernel's: up to which offset it has written
	end      uint64 // how far the output is when all of it is written; 0 if none is under way
}

// Written returns how many bytes were written.
func (p *Progress) Written() uint64 {
	if p.end == 0 {
		return p.settled
	}
	if at := p.origin + uint64(p.position); at > p.settled {
		return at
	}
	return max(p.settled, p.end)
}

// watched is an Output's memory that the kernel can write from.
type watched struct {
	p       *Progress
	do      func(func()) // what touches p
	settle  func()       // the methods, made once
	begin   func()
	total   uint64 // bytes written
	from    int64  // where in the file the write begins that is under way
	length  int    // of that
	file    int    // that mem is the memory of, open for unbuffered reading
	mem     []byte // for the user, and
	scratch []byte // behind it, for what is not in there
	at      int    // where scratch begins in the file
}

// Watch keeps p up to date with what is written from now on. What touches p is done by
// do, which may do it again. mem is memory of that size from which writing is cheapest;
// it stays valid.
func (out *Output) Watch(p *Progress, do func(func()), size int) (mem []byte) {
	w := &watched{p: p, do: do, file: -1}
	w.settle = func() { w.p.settled, w.p.end = w.total, 0 }
	w.begin = func() {
		w.p.origin, w.p.position = w.total-uint64(w.from), w.from
		w.p.end = w.total + uint64(w.length)
	}
	w.do(func() { *p = Progress{} })
	out.w = w
	if IsPipe(out.fd) {
		out.w.share(size)
	}
	if out.w.file < 0 {
		return make([]byte, size)
	}
	return out.w.mem
}

// Advance notes bytes that were written without the Output, as by Splice, if it is
// watched.
func (out *Output) Advance(n int) {
	if out.w != nil {
		out.w.advance(n)
	}
}

func (w *watched) advance(n int) {
	w.total += uint64(n)
	w.do(w.settle)
}
