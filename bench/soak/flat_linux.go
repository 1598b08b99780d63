package main

import (
	"fmt"
	"slices"
	"time"
)

// sample is the memory and the descriptors of a process at some age. Memory is RssAnon: the
// pages of the ledger do not count, and the file bounds them.
type sample struct {
	age    time.Duration
	memory int64
	files  int
}

// life is a process, from its start to its end.
type life []sample

const (
	// The collector lets a heap of nothing grow to 4 MB before it first looks at it,
	// and the queues of tunread and the gate keep the 8 MiB that they may have had.
	growth    = 4 << 20
	queue     = 8 << 20
	mostEver  = 32 << 20 // as in the tests of the tools
	transient = 2        // descriptors: a file of metrics that is just written, and its folder
)

// flatness is how a stage's memory and descriptors went, in all its lives.
type flatness struct {
	lives              int
	first, final, most int64 // memory: medians of the first third and the last, and the most
	files, filesAtLast int   // descriptors: medians likewise
	mostFiles          int
	longest            time.Duration
	complaints         []string
}

// flat holds the end of a stage's lives against their beginning, each by itself if
// it was long enough, and all one behind the other. At the age warm buffers are grown
// and the collector has run.
func flat(name string, lives []life, warm time.Duration) (f flatness) {
	allow := int64(growth)
	if name == "quotagate" || name == "tunread" {
		allow += queue
	}
	var all life
	for i, l := range lives {
		l = slices.Clone(l)
		if len(l) > 0 {
			f.longest = max(f.longest, l[len(l)-1].age)
		}
		old := slices.DeleteFunc(l, func(s sample) bool { return s.age < warm })
		if first, last, ok := thirds(old); ok {
			f.complain(fmt.Sprintf("%s, life %d", name, i+1), first, last, allow)
		}
		all = append(all, old...)
	}
	f.lives = len(lives)
	for _, s := range all {
		f.most, f.mostFiles = max(f.most, s.memory), max(f.mostFiles, s.files)
	}
	first, last, ok := thirds(all)
	if !ok {
		return f
	}
	f.first, f.final, f.files, f.filesAtLast = first.memory, last.memory, first.files, last.files
	f.complain(name+", all its lives", first, last, allow)
	if f.most > mostEver {
		f.complaints = append(f.complaints, fmt.Sprintf("%s: %d MB of memory", name, f.most>>20))
	}
	if f.mostFiles > f.files+transient {
		f.complaints = append(f.complaints, fmt.Sprintf("%s: %d descriptors, and %d as a rule", name, f.mostFiles, f.files))
	}
	return f
}

func (f *flatness) complain(name string, first, last sample, allow int64) {
	if last.memory > first.memory+allow {
		f.complaints = append(f.complaints, fmt.Sprintf("%s: memory grew from %.1f to %.1f MB", name, mb(first.memory), mb(last.memory)))
	}
	if last.files > first.files {
		f.complaints = append(f.complaints, fmt.Sprintf("%s: descriptors grew from %d to %d", name, first.files, last.files))
	}
}

// thirds returns the medians of the first third of the samples and of the last,
// if there are enough to tell.
func thirds(l life) (first, last sample, ok bool) {
	n := len(l) / 3
	if n < 5 {
		return first, last, false
	}
	return middle(l[:n]), middle(l[len(l)-n:]), true
}

func middle(l life) (s sample) {
	var memory []int64
	var files []int
	for _, x := range l {
		memory, files = append(memory, x.memory), append(files, x.files)
	}
	slices.Sort(memory)
	slices.Sort(files)
	return sample{memory: memory[len(l)/2], files: files[len(l)/2]}
}

func mb(n int64) float64 { return float64(n) / (1 << 20) }
