package bill

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"framepipe/internal/budget"
	"framepipe/internal/cli"
)

// SVG draws the cycle, with the free windows marked, and below it the duration curve, or the
// bytes used of a transfer cap.
func (b *Bill) SVG(w io.Writer) error {
	about := b.samples() + ", " + b.basis()
	switch {
	case b.Cap > 0 && b.Method <= Max:
		about = "a transfer cap, the direction that has more"
	case b.Cap > 0:
		about = "a transfer cap, " + b.basis()
	}
	if b.Absent > 0 {
		about += "; " + b.absent()
	}
	p := newPicture(650, b.title(), strings.Replace(b.cycle(), "  ", ": ", 1), about)
	for i, t := range b.tiles() {
		at := float64(svgLeft + 176*i + 34*min(i, 1))
		p.text("dim", at, 104, t[0])
		p.text("value", at, 127, t[1])
		p.text("dim", at, 145, t[2])
	}
	b.drawCycle(p, 202, 210)
	if b.Cap > 0 {
		b.drawCap(p, panel{top: 484, high: 136, per: 1, unit: "B"})
	} else {
		b.drawCurve(p, 484, 126)
	}
	return p.writeTo(w)
}

// title says whose traffic was billed, and when.
func (b *Bill) title() string { return strings.TrimPrefix(b.Source+" · "+b.Cycle.Name, " · ") }

// tiles returns the figures at the top of a picture: name, value and remark.
func (b *Bill) tiles() (all [][3]string) {
	add := func(name, value, remark string) { all = append(all, [3]string{name, value, remark}) }
	end := "on " + b.date(b.Cycle.End, "2 Jan")
	if x := b.Transfer; b.Cap > 0 {
		add("used", amount(x.Used), fmt.Sprintf("%.1f%% of %s", 100*share(x.Used, b.Cap), amount(b.Cap)))
		switch day := b.time(x.MeanOut).Format("Mon 2 Jan"); {
		case x.Left < 0:
			add("ran out", day, amount(-x.Left)+" too much")
		case x.MeanOut != 0:
			add("runs out", day, "at the mean rate")
		default:
			add("left", amount(x.Left), "lasts to the end")
		}
		if !b.Closed() {
			add("expected", amount(x.Forecast), end)
		}
		return all
	}
	add("billed", b.rate(b.Billed), fmt.Sprintf("in %s, out %s", b.rate(b.In), b.rate(b.Out)))
	if b.Commit > 0 {
		add("commit", b.rate(b.Commit), b.against(&page{}))
		add("free windows", fmt.Sprintf("%d of %d", b.FreeUsed, b.FreeTotal), "used, over the commit")
	} else {
		add("free windows", fmt.Sprint(b.FreeTotal), fmt.Sprintf("the highest of %d", b.Total))
	}
	if b.Simulated {
		add("simulated", "gates", "that hold to the commit")
	} else if b.Forecast.Days > 0 {
		add("forecast", b.rate(b.Forecast.Billed), end)
	}
	return all
}

// lanes returns the values that a plot of the cycle has: upwards, and of a second downwards.
func (b *Bill) lanes() []Method {
	switch {
	case b.Method == Sum:
		return []Method{Sum}
	case b.InBytes == 0:
		return []Method{Out}
	case b.OutBytes == 0:
		return []Method{In}
	case b.Method == In:
		return []Method{In, Out}
	}
	return []Method{Out, In}
}

// counts reports whether the values of a lane are compared with the commit.
func (b *Bill) counts(lane Method) bool {
	return b.Cap == 0 && (b.Method == lane || b.Method == Separate || b.Method == Max)
}

// drawCycle draws the rates of the cycle: a bar for each pixel of width.
func (b *Bill) drawCycle(p *picture, top, high float64) {
	lanes, off := b.lanes(), ""
	at := panel{top: top, high: high, per: b.Window.Seconds() / 8, unit: "bit/s"}
	for i, lane := range lanes {
		end, highest := b.scale(lane)
		if highest > end {
			off = b.highest(end, highest)
		}
		if i == 0 {
			at.most = end
		} else {
			at.low = -max(min(highest, end), at.most/10)
		}
	}
	// Times without samples have another background.
	from, to := x(b.along(b.From)), x(b.along(min(b.To, b.Cycle.End)))
	p.rect("blank", svgLeft, top, from-svgLeft, high)
	p.rect("blank", to, top, svgRight-to, high)
	p.begin(at, "", 5)
	p.text("dim end", svgRight, top-7, off)
	width := max((time.Duration(b.Cycle.End-b.Cycle.Start) / svgPlot).Round(time.Minute), b.Window)
	var keys []key
	for i, lane := range lanes {
		keys = append(keys, b.drawLane(p, at, float64(1-2*i), lane)...)
	}
	keys = append(keys, key{keys[0].class + "most", fmt.Sprintf("highest in %v", cli.Duration(width))})
	if b.Cap == 0 {
		keys = append(keys, key{"free", "free windows"})
	}
	if b.Commit > 0 && b.Billed > b.Commit {
		keys = append(keys, key{"over", "over the commit"})
	}
	p.legend(svgLeft, top-24, keys...)
	p.across("axis", at.y(0))
	b.drawLevels(p, at)
	b.drawTimes(p, at)
}

// colour returns the class of a lane.
func (m Method) colour() string {
	if m == In {
		return "in"
	}
	return "out"
}

// drawLane draws the values of a direction, or of both, and returns their colours.
func (b *Bill) drawLane(p *picture, at panel, sign float64, lane Method) []key {
	bars, colour := b.bars(svgPlot, lane), lane.colour()
	mean := func(c bar) (from, to float64) { return 0, c.mean }
	p.columns(colour+"most", at, sign, bars, func(c bar) (from, to float64) { return c.mean, c.most })
	p.columns(colour, at, sign, bars, mean)
	keys := []key{{colour, colour}}
	if lane == Sum { // out is above in
		p.columns("in", at, sign, b.bars(svgPlot, In), mean)
		keys = append(keys, key{"in", "in"})
	}
	if !b.counts(lane) {
		return keys
	}
	commit, paid := float64(b.Commit), float64(max(b.Commit, b.Billed))
	if commit > 0 {
		p.columns("over", at, sign, bars, func(c bar) (from, to float64) { return commit, min(c.most, paid) })
	}
	p.columns("free", at, sign, bars, func(c bar) (from, to float64) { return paid, c.most })
	// Low ones are visible under the axis.
	mark := panel{top: at.bottom() + 2, high: 6, most: 1}
	p.columns("free", mark, 1, bars, func(c bar) (from, to float64) { return 0, c.most - paid })
	return keys
}

// drawLevels draws the commit and the billed value, and their names: the higher one's above it,
// the other's below.
func (b *Bill) drawLevels(p *picture, at panel) {
	for i, v := range []int64{b.Commit, b.Billed} {
		if b.Cap > 0 || i == 0 && v == 0 {
			continue
		}
		y := at.y(float64(v))
		p.across([]string{"commit", "billed"}[i], y)
		if lanes := b.lanes(); len(lanes) > 1 && b.counts(lanes[1]) && float64(-v) > at.low {
			p.across([]string{"commit", "billed"}[i], at.y(float64(-v)))
		}
		if b.Commit > 0 && (i == 0) == (b.Commit < b.Billed) {
			y += 30
		}
		p.text("strong", svgRight+6, y-17, []string{"commit", "billed"}[i])
		p.text("dim", svgRight+6, y-4, b.rate(v))
	}
}

// drawTimes draws the time axis of the cycle.
func (b *Bill) drawTimes(p *picture, at panel) {
	for _, m := range b.marks() {
		p.down("axis", x(m.at), at.bottom(), 10)
		if m.at < 0.95 {
			p.text("dim mid", x(m.at), at.bottom()+24, m.label)
		}
	}
}

// drawCurve draws the duration curves, with the free samples and the billed value.
func (b *Bill) drawCurve(p *picture, top, high float64) {
	at := panel{top: top, high: high, per: b.Window.Seconds() / 8, unit: "bit/s"}
	for _, lane := range b.lanes() {
		end, _ := b.scale(lane)
		at.most = max(at.most, end)
	}
	free := float64(budget.Hundred-b.Percentile) / float64(budget.Hundred)
	p.rect("freed", svgLeft, top, svgPlot*free, high)
	p.begin(at, "How many samples are higher", 4)
	p.text("dim end", svgRight, top-16, fmt.Sprintf("the highest %.3g%% cost nothing", 100*free))
	for _, lane := range b.lanes() {
		var points []point
		for i, c := range b.curve(svgPlot, lane) {
			points = append(points, point{float64(i) / svgPlot, c.most}, point{float64(i+1) / svgPlot, c.most})
		}
		p.line(lane.colour()+"line", at, points...)
	}
	b.drawLevels(p, at)
	for _, share := range []float64{0, .25, .5, .75, 1} {
		p.down("axis", x(share), at.bottom(), 4)
		p.text("dim mid", x(share), at.bottom()+19, fmt.Sprintf("%g%%", 100*share))
	}
	p.dot("free", x(free), at.y(float64(b.Billed)))
}

// drawCap draws the bytes used so far against the cap, and when it runs out at the mean rate.
func (b *Bill) drawCap(p *picture, at panel) {
	t, to := &b.Transfer, min(b.To, b.Cycle.End)
	at.most = roundUp(float64(max(b.Cap, t.Used))*1.15, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
	p.rect("blank", x(b.along(to)), at.top, svgRight-x(b.along(to)), at.high)
	p.begin(at, "Used of the cap", 4)
	b.drawTimes(p, at)
	y := at.y(float64(b.Cap))
	p.across("commit", y)
	p.text("strong", svgRight+6, y-1, "cap")
	p.text("dim", svgRight+6, y+13, amount(b.Cap))

	points, now := []point{{b.along(b.From), 0}}, point{b.along(to), float64(t.Used)}
	var in, out int64
	for _, w := range b.Windows {
		in, out = in+w.In, out+w.Out
		if end := b.along(w.At + int64(b.Window)); end > points[len(points)-1].share+1./svgPlot && end < now.share {
			points = append(points, point{end, float64(b.Method.Value(in, out))})
		}
	}
	p.line("outline", at, append(points, now)...)
	end := point{1, float64(t.Used) + t.Mean*float64(b.Cycle.End-to)/1e9}
	if t.MeanOut != 0 {
		end = point{b.along(t.MeanOut), float64(b.Cap)}
	}
	text, class := "runs out "+b.time(t.MeanOut).Format("Mon 2 Jan")+" at the mean", "strong"
	if t.Left < 0 {
		text = "ran out " + b.time(t.MeanOut).Format("Mon 2 Jan 15:04")
	} else {
		p.line("outline dash", at, now, end)
	}
	if t.MeanOut == 0 {
		return
	}
	p.dot("over", x(end.share), y)
	if y += 20; end.share > 0.5 { // where the curve is not
		class, y = "strong end", y-29
	}
	p.text(class, x(end.share), y, text)
}

// curve is a line of a plan: its colour and name, and the value of each row.
type curve struct {
	key
	value func(i int) float64
}

// SVG draws, over the commit, the share of the demand that passes, the bytes that are delayed and
// lost, and the cost if there are prices.
func (p Plan) SVG(w io.Writer) error {
	demand, rows, high := p[0].Natural, p.Rows(), 450
	priced := rows[0].Paid != 0
	if priced {
		high += 180
	}
	pic := newPicture(high, demand.title()+" · plan", strings.Replace(demand.cycle(), "  ", ": ", 1),
		fmt.Sprintf("What gates pass of a demand of %s, %s", demand.rate(demand.Billed), amount(p[0].Offered)))
	at := panel{top: 130, high: 110, per: 1, unit: "%"}
	p.draw(pic, at, "Passed",
		curve{key{"flat", "with a flat quota"}, func(i int) float64 { return 100 * p[i].FlatShare() }},
		curve{key{"out", "with free windows"}, func(i int) float64 { return 100 * p[i].PassedShare() }})
	at.top, at.unit = at.top+180, "B"
	p.draw(pic, at, "Held back",
		curve{key{"out", "delayed"}, func(i int) float64 { return float64(p[i].Delayed) }},
		curve{key{"over", "lost"}, func(i int) float64 { return float64(p[i].Lost) }})
	if priced {
		at.top, at.per, at.unit = at.top+180, 1e6, demand.Prices.Currency
		p.draw(pic, at, "Cost",
			curve{key{"flat", "without gates"}, func(i int) float64 { return float64(rows[i].Paid) }},
			curve{key{"in", "with gates"}, func(i int) float64 { return float64(rows[i].Cost) }})
	}
	return pic.writeTo(w)
}

// draw draws curves over the commit, and a line at the row that is marked. A panel of shares begins
// below the least, and others at 0.
func (p Plan) draw(pic *picture, at panel, name string, curves ...curve) {
	least := 99.0
	at.most = at.per
	for i := range p {
		for _, c := range curves {
			least, at.most = min(least, c.value(i)), max(at.most, c.value(i)*1.1)
		}
	}
	if at.unit == "%" {
		step := roundUp((100-least)/4, 1, 2, 2.5, 5)
		at.low, at.most = 100-step*math.Ceil((100-least)/step), 100
	}
	pic.begin(at, name, 4)
	share := func(i int) float64 {
		return float64(p[i].Commit-p[0].Commit) / float64(max(p[len(p)-1].Commit-p[0].Commit, 1))
	}
	keys := []key{}
	for _, c := range curves {
		var points []point
		for i := range p {
			points = append(points, point{share(i), c.value(i)})
			pic.dot(c.class, x(share(i)), at.y(c.value(i)))
		}
		pic.line(c.class+"line", at, points...)
		keys = append(keys, c.key)
	}
	pic.legend(svgLeft+110, at.top-16, keys...)
	demand, last := p[0].Natural, -1.0
	prefix := metric(demand.BPS(p[len(p)-1].Commit))
	for i, row := range p.Rows() {
		pic.down("axis", x(share(i)), at.bottom(), 4)
		if share(i) > last+0.06 {
			last = share(i)
			label := fmt.Sprintf("%.4g", demand.BPS(p[i].Commit)/math.Pow(1000, float64(prefix)))
			pic.text("dim mid", x(last), at.bottom()+19, label)
		}
		if row.Mark != "" {
			pic.down("commit", x(share(i)), at.top, at.high)
			pic.text("dim end", svgRight, at.top-16, row.Mark+": "+demand.rate(p[i].Commit))
		}
	}
	pic.text("dim", svgRight+22, at.bottom()+19, prefixes[prefix]+"bit/s")
}
