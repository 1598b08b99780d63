package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/calendar"
	"framepipe/internal/cli"
	"framepipe/internal/ledger"
)

func (c *config) checkInto() error {
	switch {
	case c.into == "":
		return nil
	case c.csv == nil || c.add == addPercentiles || c.simulate || c.plan:
		return cli.Usagef("-into is for samples: give it with -csv, without -simulate, -plan and -add percentiles")
	case c.rate == 0 && c.quota == 0:
		return cli.Usagef("-into needs the commit of the gate, which free windows go by: give -rate, or -quota")
	}
	return nil
}

// fill adds the samples of a cycle, and of the one before, from which gates learn, to a ledger. It makes a
// new one under another name, so that no gate finds a part of it.
func (j *job) fill(s *bill.Samples, cycle calendar.Cycle, now int64) (err error) {
	before, _ := j.calendar.Bounds(cycle.Start - 1)
	list := slices.DeleteFunc(slices.Collect(s.All()), func(x bill.Sample) bool { return x.At < before || x.At >= cycle.End })
	made := j.into
	if _, err := os.Stat(made); errors.Is(err, os.ErrNotExist) {
		dir, err := os.MkdirTemp(filepath.Dir(made), ".quotabill.*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		made = filepath.Join(dir, filepath.Base(made))
	}
	slots, err := j.calendar.Divide(j.terms.Window)
	if err != nil {
		return err
	}
	cfg := ledger.Config{Slot: j.terms.Window / time.Duration(slots), Slots: slots, Calendar: j.calendar}
	l, err := ledger.Open(made, cfg)
	if err != nil {
		return err
	}
	defer l.Catch(&err)
	if err = j.free(l, list, int64(s.Slot), now); err == nil {
		err = j.count(l, list, int64(s.Slot))
	}
	if err = errors.Join(err, l.Close()); err == nil && made != j.into {
		err = os.Link(made, j.into)
	}
	return err
}

// free checks that the time of samples has passed, and that a ledger has no bytes of it.
func (j *job) free(l *ledger.Ledger, list []bill.Sample, length, now int64) error {
	show := func(at int64) string { return time.Unix(0, at).In(j.calendar.Zone).Format(time.DateTime) }
	last := list[len(list)-1].At
	if last+length > now {
		return cli.Hint(fmt.Errorf("the sample that begins at %s ends in the future", show(last)), "give the time zone of the file with -tz")
	}
	for at := list[0].At; at < last+length; {
		slot := l.Look(at, ledger.In)
		if slot.Charged.Load()+l.Look(at, ledger.Out).Charged.Load() > 0 {
			return cli.Hint(fmt.Errorf("%s has bytes at %s, in the time of the samples", j.into, show(at)), "leave out samples from then on")
		}
		at = slot.End
	}
	return nil
}

// count counts samples, and marks the slots in which a gate would have passed bytes that are free.
func (j *job) count(l *ledger.Ledger, list []bill.Sample, length int64) error {
	_, _, limit := j.terms.Poller.Samples(j.terms.Window, j.terms.Commit)
	per := int(int64(j.terms.Window) / length)
	var window [2]int64
	for i, x := range list {
		bytes, left := [2]int64{x.In, x.Out}, [2]int64{}
		if i >= per {
			left = [2]int64{list[i-per].In, list[i-per].Out}
		}
		for d := range window {
			window[d] += bytes[d] - left[d]
		}
		for d, one := range window {
			if j.method == bill.Sum {
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
