package bill

import (
	"math"
	"slices"
	"sort"
	"time"
)

// Forecast is the bill at the end of the cycle if its rest is like the time before.
// Each future window is taken from the same time of day 7 days earlier,
// or 14 and so on up to 35, then 1 to 35: the first of these that is known. A forecast from means
// would have no peaks, and the peaks are billed.
type Forecast struct {
	// Days is the whole days that the forecast goes by, at most 7. If it is 0, it is too early
	// to say: the other fields are those of the known part, and Low and High are 0.
	Days              int
	Billed            int64 // bytes of a window
	InBytes, OutBytes int64 // of the whole cycle
	FreeUsed          int
	// Low and High are Billed, less and more by twice the error that nine of ten earlier
	// forecasts had at most, and by 5% at least: forecasts of spans that ended some days ago, made
	// when as much of the span was known. Twice, because their spans overlap, and so their errors
	// are alike. Both are 0 if Trials, the number of these forecasts, is.
	Low, High int64
	Trials    int
}

const (
	oneDay    = 24 * time.Hour
	trials    = 14
	trialStep = 2 // days
)

// foreseen reports whether the end of the cycle is known or forecast.
func (b *Bill) foreseen() bool { return b.Closed() || b.Forecast.Days > 0 }

// like returns the window that predicts window k at a time.
func (v *view) like(k, from, now int) Window {
	for _, step := range [...]time.Duration{7 * oneDay, oneDay} {
		for ago := step; ago <= 35*oneDay; ago += step {
			if i := k - int((ago+v.Window/2)/v.Window); i < now && v.number(i).Known {
				return v.number(i)
			}
		}
	}
	return v.number(now - 1 - (k-now)%max(now-from, 1))
}

// span returns windows, of which those before now are known and the others are predicted at that time.
func (v *view) span(from, now, end int) (all []Window) {
	for k := from; k < end; k++ {
		w := v.number(k)
		if k >= now {
			w = v.like(k, from, now)
			w.Known = true
		}
		all = append(all, w)
	}
	return all
}

func (v *view) forecast() {
	b, f := v.Bill, &v.Forecast
	*f = Forecast{Billed: b.Billed, InBytes: b.InBytes, OutBytes: b.OutBytes, FreeUsed: b.FreeUsed}
	b.Least = b.Billed
	if v.now >= v.end || len(b.Windows) == 0 {
		return
	}
	nothing := slices.Repeat([]Window{{Known: true}}, v.end-v.now)
	b.Least = b.billed(slices.Concat(b.Windows, nothing))
	known := min(-v.first/v.per, 0) // the first window that is
	for known < v.now && !v.number(known).Known {
		known++
	}
	if f.Days = min((v.now-known)/v.perDay(), 7); f.Days == 0 {
		return
	}
	windows := v.span(v.now-len(b.Windows), v.now, v.end)
	for _, w := range windows[len(b.Windows):] {
		f.InBytes, f.OutBytes = f.InBytes+w.In, f.OutBytes+w.Out
	}
	in, out := v.bytes(max(v.first+v.now*v.per, 0), v.n) // known, of the first window that is predicted
	f.InBytes, f.OutBytes = f.InBytes-in, f.OutBytes-out
	f.Billed = b.billed(windows)
	f.FreeUsed = b.over(windows, f.Billed)
	if b.Commit > 0 {
		f.FreeUsed = b.FreeUsed + b.over(windows, b.Commit) - b.over(b.Windows, b.Commit)
	}
	f.Low, f.High, f.Trials = v.errors(known, f.Billed)
	if f.Trials > 0 {
		f.Low = min(max(f.Low, b.Least), f.Billed)
	}
	if !b.Held || b.Commit == 0 {
		return
	}
	most := max(b.Commit, b.Least) // of outbound traffic: gates cannot keep inbound traffic to the commit
	if b.Method == Separate || b.Method == In {
		most = max(most, b.percentile(In, windows))
	}
	f.Billed, f.Low, f.High = min(f.Billed, most), min(f.Low, most), min(f.High, most)
	if f.Billed <= b.Commit {
		f.FreeUsed = min(f.FreeUsed, b.FreeTotal)
	}
}

func (v *view) perDay() int { return int(oneDay / v.Window) }

// errors scales a forecast by the errors of earlier ones, whose spans begin with window known at the earliest.
func (v *view) errors(known int, billed int64) (low, high int64, n int) {
	var wrong []float64 // by which factor, either way
	for i := range trials {
		end := v.now - i*trialStep*v.perDay()
		n := min(v.end, end-known)
		start := end - n
		now := start + n*v.now/v.end
		if now-known < v.perDay() || now >= end {
			break
		}
		guess, came := v.billed(v.span(start, now, end)), v.billed(v.span(start, end, end))
		if guess > 0 && came > 0 {
			wrong = append(wrong, float64(max(came, guess))/float64(min(came, guess)))
		}
	}
	if n = len(wrong); n == 0 {
		return 0, 0, 0
	}
	slices.Sort(wrong)
	factor := max(1+2*(wrong[n-1-n/10]-1), 1.05)
	return int64(float64(billed) / factor), int64(min(float64(billed)*factor, math.MaxInt64/2)), n
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

func (v *view) transfer() {
	b := v.Bill
	b.Transfer = Transfer{
		Used:     b.Method.Value(b.InBytes, b.OutBytes),
		Forecast: b.Method.Value(b.Forecast.InBytes, b.Forecast.OutBytes),
	}
	x := &b.Transfer
	x.Left = b.Cap - x.Used
	used := func(i, j int) int64 { return b.Method.Value(v.bytes(i, j)) }
	rate := func(i int) (perSecond float64, out int64) {
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
