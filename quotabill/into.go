package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
	"framepipe/internal/ledger"
)

// fill adds the samples of a cycle, and of the one before, from which gates learn, to a ledger.
func (j *job) fill(s *bill.Samples, cycle calendar.Cycle, now int64) (err error) {
	slots, err := j.calendar.Divide(j.terms.Window)
	if err != nil {
		return err
	}
	before, _ := j.calendar.Bounds(cycle.Start - 1)
	list := slices.DeleteFunc(slices.Collect(s.All()), func(x bill.Sample) bool { return x.At < before || x.At >= cycle.End })
	last := list[len(list)-1].At
	if last+int64(s.Slot) > now {
		return cli.Hint(fmt.Errorf("the sample that begins at %s ends in the future", j.show(last)), "give the time zone of the file with -tz")
	}
	cfg := ledger.Config{Slot: j.terms.Window / time.Duration(slots), Slots: slots, Calendar: j.calendar}
	l, err := ledger.Open(j.into, cfg)
	if err != nil {
		return err
	}
	defer l.Catch(&err)
	if err = j.free(l, list[0].At, last+int64(s.Slot)); err == nil {
		err = j.count(l, list, int64(s.Slot))
	}
	return errors.Join(err, l.Close())
}

func (j *job) show(at int64) string {
	return time.Unix(0, at).In(j.calendar.Zone).Format(time.DateTime)
}

// free checks that a ledger has no bytes from start to end.
func (j *job) free(l *ledger.Ledger, start, end int64) error {
	for at := start; at < end; {
		slot := l.Look(at, ledger.In)
		if slot.Charged.Load()+l.Look(at, ledger.Out).Charged.Load() > 0 {
			return cli.Hint(fmt.Errorf("%s has bytes at %s, in the time of the samples", j.into, j.show(at)), "leave out samples from then on")
		}
		at = slot.End
	}
	return nil
}

// count counts samples, and marks the slots in which a gate would have passed bytes that are free.
func (j *job) count(l *ledger.Ledger, list []bill.Sample, length int64) error {
	_, _, limit := j.terms.Poller.Samples(j.terms.Window, j.terms.Commit)
	first, window := 0, [2]int64{}
	for _, x := range list {
		bytes := [2]int64{x.In, x.Out}
		window[ledger.In] += x.In
		window[ledger.Out] += x.Out
		for ; list[first].At < x.At+length-int64(j.terms.Window); first++ {
			window[ledger.In] -= list[first].In
			window[ledger.Out] -= list[first].Out
		}
		for d, one := range window {
			if j.terms.Method == bill.Sum {
				one = window[ledger.In] + window[ledger.Out]
			}
			err := spread(l, ledger.Direction(d), x.At, x.At+length, bytes[d], j.terms.Commit > 0 && one > limit)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// spread counts bytes evenly from start to end.
func spread(l *ledger.Ledger, d ledger.Direction, start, end, bytes int64, beyond bool) error {
	counted := int64(0)
	for at := start; at < end; {
		slot, err := l.At(at, d)
		if err != nil {
			return err
		}
		sum := bytes
		if at = slot.End; at < end {
			sum = int64(float64(bytes) * float64(at-start) / float64(end-start))
		}
		slot.Charged.Add(sum - counted)
		slot.Offered.Add(sum - counted)
		if counted = sum; beyond {
			slot.Marked.Set()
		}
	}
	return nil
}
