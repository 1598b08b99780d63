package main

import (
	"testing"
	"time"

	"framepipe/internal/ledger"
)

// Samples that are yet to come, or that a ledger has in part, are refused, and leave nothing behind.
func TestInto(t *testing.T) {
	now := time.Date(2026, 11, 10, 0, 10, 0, 0, time.UTC).UnixNano()
	j, ports := portsOf(t, "", "2026-11-10 00:00:00,1000,2000\n2026-11-10 00:05:00,0,7\n")
	j.terms.Commit = 500
	j.into = t.TempDir() + "/ledger"
	s, cycle := ports[0].Samples, j.calendar.At(now)
	if err := j.fill(s, cycle, now-1); err == nil || err.Error() != "the sample that begins at 2026-11-10 00:05:00 ends in the future" {
		t.Error(err)
	}
	l := ledgerOf(t, j.into, j.calendar)
	if all := l.Cycles(); len(all) > 0 {
		t.Errorf("it left %v", all)
	}
	later, _ := l.At(now, ledger.Out) // the gate runs since now
	later.Charged.Add(1)
	if err := j.fill(s, cycle, now); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		slot    int
		in, out int64
		marked  bool
	}{{0, 16, 33, true}, {59, 17, 34, true}, {60, 0, 0, false}, {119, 0, 1, false}} {
		at := now - int64(10*time.Minute) + int64(tt.slot)*5e9
		in, out := l.Look(at, ledger.In), l.Look(at, ledger.Out)
		if in.Charged.Load() != tt.in || out.Offered.Load() != tt.out || in.Marked.Load() != tt.marked || out.Marked.Load() != tt.marked {
			t.Errorf("slot %d: %d in, %d out, marked %v and %v", tt.slot, in.Charged.Load(), out.Offered.Load(), in.Marked.Load(), out.Marked.Load())
		}
	}
	if err := j.fill(s, cycle, now); err == nil || err.Error() != j.into+" has bytes at 2026-11-10 00:00:00, in the time of the samples" {
		t.Error(err)
	}
}

// Samples on both sides of a gap are not of one window.
func TestIntoGap(t *testing.T) {
	j, ports := portsOf(t, "", "2026-11-10 00:00:00,0,1000\n2026-11-10 00:05:00,0,1000\n2026-11-10 00:15:00,0,1000\n")
	j.terms.Window, j.terms.Commit, j.into = 10*time.Minute, 1500, t.TempDir()+"/ledger"
	begin := time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC).UnixNano()
	if err := j.fill(ports[0].Samples, j.calendar.At(begin), begin+int64(time.Hour)); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Read(j.into)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i, want := range []bool{false, true, false, false} {
		if got := l.Look(begin+int64(i)*int64(5*time.Minute), ledger.Out).Marked.Load(); got != want {
			t.Errorf("sample %d is marked: %v", i, got)
		}
	}
}
