package bill

import "time"

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

func (b *Bill) forecast(f *cycleView) {
	b.Forecast = Forecast{Billed: b.Billed, InBytes: b.InBytes, OutBytes: b.OutBytes, FreeUsed: b.FreeUsed}
	i, left := f.remaining(0)
	if left == 0 || len(b.Windows) == 0 {
		return
	}
	var t sampleValues
	for _, w := range b.Windows {
		t.add(b.Method, w, b.Missing)
	}
	for n := range left {
		w := b.pastWindow(f, f.at(i+n*f.per), n)
		w.Known = true
		t.add(b.Method, w, b.Missing)
		b.Forecast.InBytes += w.In
		b.Forecast.OutBytes += w.Out
	}
	// The known part of the current window is counted twice: subtract it once.
	if lost := f.n - i; lost > 0 {
		b.Forecast.InBytes -= f.in[f.n] - f.in[max(i, 0)]
		b.Forecast.OutBytes -= f.out[f.n] - f.out[max(i, 0)]
	}
	b.Forecast.Billed, _, _ = t.billed(&b.Terms)
	line := b.Forecast.Billed
	if b.Commit > 0 {
		line = b.Commit
	}
	b.Forecast.FreeUsed = t.over(b.Method, line)
}

// pastWindow returns the window that predicts the nth future one.
func (b *Bill) pastWindow(f *cycleView, at int64, n int) Window {
	now := b.offset(at)
	for _, days := range back {
		was := at - int64(days)*int64(24*time.Hour)
		was += now - b.offset(was) - f.Start // the same time of day
		i := int((was + int64(f.Slot)/2) / int64(f.Slot))
		if was < 0 || i+f.per > f.n {
			continue
		}
		if w := f.window(i); w.Known {
			return w
		}
	}
	return b.Windows[n%len(b.Windows)]
}

// offset returns the offset of the zone from UTC, in nanoseconds.
func (b *Bill) offset(at int64) int64 {
	if b.Zone == time.UTC {
		return 0
	}
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

func (b *Bill) transfer(f *cycleView, from, to int) {
	b.Transfer = Transfer{
		Used:     b.Method.Value(b.InBytes, b.OutBytes),
		Forecast: b.Method.Value(b.Forecast.InBytes, b.Forecast.OutBytes),
	}
	x := &b.Transfer
	x.Left = b.Cap - x.Used
	if to <= from {
		return
	}
	rate := func(i int) float64 {
		return float64(b.Method.Value(f.in[to]-f.in[i], f.out[to]-f.out[i])) / (time.Duration(to-i) * f.Slot).Seconds()
	}
	x.Mean, x.Today = rate(from), rate(max(from, to-int((24*time.Hour+f.Slot-1)/f.Slot)))
	when := func(rate float64) int64 {
		rest := float64(b.Cycle.End-b.To) / 1e9
		switch {
		case x.Left < 0:
			return b.exceeded(f, from, to)
		case rate <= 0 || float64(x.Left)/rate > rest || rest <= 0:
			return 0
		}
		return b.To + int64(float64(x.Left)/rate*1e9)
	}
	x.TodayOut, x.MeanOut = when(x.Today), when(x.Mean)
}

// exceeded returns when the cap was exceeded: the end of the first slot over it.
func (b *Bill) exceeded(f *cycleView, from, to int) int64 {
	for i := from; i < to; i++ {
		if b.Method.Value(f.in[i+1]-f.in[from], f.out[i+1]-f.out[from]) > b.Cap {
			return f.at(i + 1)
		}
	}
	return f.at(to)
}
