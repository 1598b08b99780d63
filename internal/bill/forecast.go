package bill

import (
	"sort"
	"time"
)

// Forecast is the bill at the end of the cycle if its rest is like the week before.
// Each future window is taken from the same time of day, in the zone, 7 days earlier,
// or 14, 21, 28, then 1 to 6: the first of these that is known. If none is,
// the windows of this cycle repeat. A forecast from means would have no
// peaks, and the peaks are billed.
type Forecast struct {
	Billed            int64 // bytes of a window
	InBytes, OutBytes int64 // of the whole cycle
	FreeUsed          int
}

var back = [...]int{7, 14, 21, 28, 1, 2, 3, 4, 5, 6}

func (b *Bill) forecast(v *view) {
	b.Forecast = Forecast{Billed: b.Billed, InBytes: b.InBytes, OutBytes: b.OutBytes, FreeUsed: b.FreeUsed}
	i, left := v.future()
	if left == 0 || len(b.Windows) == 0 {
		return
	}
	var values sampleValues
	for _, w := range b.Windows {
		values.add(&b.Terms, w)
	}
	for n := range left {
		w := b.pastWindow(v, v.at(i+n*v.per), n)
		w.Known = true
		values.add(&b.Terms, w)
		b.Forecast.InBytes += w.In
		b.Forecast.OutBytes += w.Out
	}
	// The known part of the current window is counted twice: subtract it once.
	if lost := v.n - i; lost > 0 {
		in, out := v.bytes(max(i, 0), v.n)
		b.Forecast.InBytes -= in
		b.Forecast.OutBytes -= out
	}
	b.Forecast.Billed, _, _ = values.billed(&b.Terms)
	line := b.Forecast.Billed
	if b.Commit > 0 {
		line = b.Commit
	}
	b.Forecast.FreeUsed = values.over(b.Method, line)
}

// pastWindow returns the window that predicts the nth future one.
func (b *Bill) pastWindow(v *view, at int64, n int) Window {
	now := b.offset(at)
	for _, days := range back {
		was := at - int64(days)*int64(24*time.Hour)
		was += now - b.offset(was) - v.Start // the same time of day
		i := int((was + int64(v.Slot)/2) / int64(v.Slot))
		if was < 0 || i+v.per > v.n {
			continue
		}
		if w := v.window(i); w.Known {
			return w
		}
	}
	return b.Windows[n%len(b.Windows)]
}

// offset returns the offset of the zone from UTC, in nanoseconds.
func (b *Bill) offset(at int64) int64 {
	_, seconds := time.Unix(0, at).In(b.Zone).Zone()
	return int64(seconds) * 1e9
}

// Transfer is the state of a transfer cap.
type Transfer struct {
	Used, Left int64 // bytes; Left is negative over the cap
	// Today and Mean are bytes a second: over the last 24 known hours, and over
	// the known part of the cycle.
	Today, Mean float64
	// TodayOut and MeanOut are the times at which the cap is reached at these rates,
	// nanoseconds since the Unix epoch; 0 if not before the cycle ends.
	TodayOut, MeanOut int64
	// Forecast is the bytes used at the end of the cycle.
	Forecast int64
}

func (b *Bill) transfer(v *view) {
	b.Transfer = Transfer{
		Used:     b.Method.Value(b.InBytes, b.OutBytes),
		Forecast: b.Method.Value(b.Forecast.InBytes, b.Forecast.OutBytes),
	}
	x := &b.Transfer
	x.Left = b.Cap - x.Used
	used := func(i, j int) int64 { return b.Method.Value(v.bytes(i, j)) }
	rate := func(i int) (perSecond float64, out int64) {
		if v.to <= i {
			return 0, 0
		}
		perSecond = float64(used(i, v.to)) / (time.Duration(v.to-i) * v.Slot).Seconds()
		if left := float64(x.Left) / perSecond; left < float64(b.Cycle.End-b.To)/1e9 {
			out = b.To + int64(left*1e9)
		}
		return perSecond, out
	}
	x.Today, x.TodayOut = rate(max(v.from, v.to-int(ceilDiv(int64(24*time.Hour), int64(v.Slot)))))
	x.Mean, x.MeanOut = rate(v.from)
	if x.Left < 0 { // at the end of the first slot over the cap
		i := sort.Search(v.to-v.from, func(i int) bool { return used(v.from, v.from+i+1) > b.Cap })
		x.TodayOut = v.at(v.from + i + 1)
		x.MeanOut = x.TodayOut
	}
}
