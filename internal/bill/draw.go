package bill

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"framepipe/internal/svg"
)

// SVG draws the cycle, with the free windows marked, and below it the duration curve, or the
// bytes used of a transfer cap.
func (b *Bill) SVG(w io.Writer) error {
	about, tiles, second := b.samples()+", "+b.basis(), b.drawTiles, b.drawCurve
	if b.Cap > 0 {
		counted := [...]string{Sum: "both directions", In: "what came in", Out: "what went out"}[b.Method]
		about, tiles, second = "a transfer cap, "+cmp.Or(counted, "the direction that has more"), b.drawCapTiles, b.drawCap
	}
	if b.Absent > 0 {
		about += "; " + b.absent()
	}
	p := svg.New(650, b.title(), strings.Replace(b.cycle(), "  ", ": ", 1), about)
	tiles(p, "on "+b.date(b.Cycle.End))
	at := svg.Plot{Picture: p, Top: 202, High: 210, Per: b.Window.Seconds() / 8, Unit: "bit/s"}
	b.drawCycle(&at)
	second(&svg.Plot{Picture: p, Top: 484, High: 126, Per: at.Per, Unit: at.Unit})
	return p.Write(w)
}

// SVG draws the cycle as simulated.
func (x *Simulated) SVG(w io.Writer) error { return x.Bill.SVG(w) }

// title says whose traffic was billed, and when.
func (b *Bill) title() string { return strings.TrimPrefix(b.Source+" · "+b.Cycle.Name, " · ") }

// drawTiles writes the figures at the top of a picture.
func (b *Bill) drawTiles(p *svg.Picture, end string) {
	soFar, cost := b.open(" so far"), ""
	p.Tile("billed"+soFar, b.rate(b.Billed), fmt.Sprintf("in %s, out %s", b.rate(b.In), b.rate(b.Out)))
	if b.Commit > 0 {
		p.Tile("commit", b.rate(b.Commit), strings.Replace(b.against(&page{}), "at least", "≥", 1))
		p.Tile("free windows", fmt.Sprintf("%d of %d", b.FreeUsed, b.FreeTotal), "over the commit")
	} else {
		p.Tile("free windows", fmt.Sprint(b.FreeTotal), fmt.Sprintf("the highest of %d", b.Total))
	}
	switch {
	case b.Simulated:
		p.Tile("simulated", "gates", "that hold the commit")
	case b.Forecast.Days > 0:
		p.Tile("forecast", b.rate(b.Forecast.Billed), end)
		cost = "forecast " + b.Prices.money(b.cost(b.Forecast.Billed).Total)
	}
	if !b.Prices.None() {
		p.Tile("cost"+soFar, b.Prices.money(b.cost(b.Least).Total), cost)
	}
}

func (b *Bill) drawCapTiles(p *svg.Picture, end string) {
	x := &b.Transfer
	p.Tile("used", amount(x.Used), fmt.Sprintf("%.1f%% of %s", 100*share(x.Used, b.Cap), amount(b.Cap)))
	switch day := b.time(x.MeanOut).Format("Mon 2 Jan"); {
	case x.Left < 0:
		p.Tile("ran out", day, amount(-x.Left)+" too much")
	case x.MeanOut != 0:
		p.Tile("runs out", day, "at the mean rate")
	default:
		p.Tile("left", amount(x.Left), "lasts to the end")
	}
	if !b.Closed() {
		p.Tile("expected", amount(x.Forecast), end)
	}
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

// drawCycle draws the rates of the cycle. Times without samples have another background.
func (b *Bill) drawCycle(at *svg.Plot) {
	lanes, note := b.lanes(), ""
	for i, lane := range lanes {
		end, highest := b.scale(lane)
		if highest > end {
			note = b.highest(end, highest)
		}
		if i == 0 {
			at.Most = end
		} else {
			at.Low = -max(min(highest, end), at.Most/10)
		}
	}
	at.Span("blank", 0, b.along(b.From))
	at.Span("blank", b.along(min(b.To, b.Cycle.End)), 1)
	at.Axis(5, "", note)
	for i, lane := range lanes {
		b.drawLane(at, lane, float64(1-2*i))
	}
	at.Key(lanes[0].String()+"most", "peaks")
	if b.Cap == 0 {
		b.drawLevels(at)
		at.Key("free", "free windows")
	}
	if b.Commit > 0 && b.Billed > b.Commit {
		at.Key("over", "over the commit")
	}
	at.Ticks(b.marks()...)
}

// drawLane draws the values of a lane, upwards or with sign -1 downwards.
func (b *Bill) drawLane(at *svg.Plot, lane Method, sign float64) {
	mean, most := b.bars(svg.Columns, lane, sign)
	at.Area(lane.String()+"most", 0, most)
	at.Area(lane.String(), 0, mean)
	at.Key(lane.String(), lane.String())
	if lane == Sum {
		in, _ := b.bars(svg.Columns, In, 1)
		at.Area("in", 0, in)
		at.Key("in", "of which in")
	}
	if b.Cap > 0 || b.Method != lane && b.Method != Separate && b.Method != Max {
		return
	}
	if b.Commit > 0 {
		at.Area("over", sign*float64(b.Commit), most)
	}
	paid := sign * float64(max(b.Commit, b.Billed))
	at.Area("free", paid, most)
	below := *at // low ones are visible under the axis
	below.Top, below.High, below.Low, below.Most = at.Top+at.High+2, 6, min(paid, paid+sign), max(paid, paid+sign)
	below.Area("free", paid, most)
}

// drawLevels draws the commit and the billed value. The name of the higher one is above it.
func (b *Bill) drawLevels(at *svg.Plot) {
	if b.Commit > 0 {
		at.Level("commit", b.rate(b.Commit), float64(b.Commit), b.Commit < b.Billed)
	}
	at.Level("billed", b.rate(b.Billed), float64(b.Billed), b.Commit >= max(b.Billed, 1))
}

// drawCurve draws the duration curves, with the free samples and the billed value.
func (b *Bill) drawCurve(at *svg.Plot) {
	at.Most, _ = b.scale(b.Counted())
	marks := b.shares()
	free := marks[1]
	at.Span("freed", 0, free.At)
	at.Axis(4, "How many samples are higher", "the highest "+free.Label+" cost nothing")
	for _, lane := range b.lanes() {
		var points [][2]float64
		for i, v := range b.curve(svg.Columns, lane) {
			points = append(points, [2]float64{float64(i) / svg.Columns, v})
		}
		at.Line(lane.String(), points...)
	}
	b.drawLevels(at)
	at.Ticks(marks...)
	at.Dot("free", [2]float64{free.At, float64(b.Billed)})
}

// drawCap draws the bytes used so far against the cap, and when it runs out at the mean rate.
func (b *Bill) drawCap(at *svg.Plot) {
	t, to := &b.Transfer, min(b.To, b.Cycle.End)
	at.Most, at.Per, at.Unit = float64(max(b.Cap, t.Used))*1.1, 1, "B"
	at.Span("blank", b.along(to), 1)
	at.Axis(4, "Used of the cap", "")
	at.Ticks(b.marks()...)
	at.Level("cap", amount(b.Cap), float64(b.Cap), false)
	points, now := [][2]float64{{b.along(b.From), 0}}, [2]float64{b.along(to), float64(t.Used)}
	var in, out int64
	for i, w := range b.Windows {
		in, out = in+w.In, out+w.Out
		if i%(len(b.Windows)/svg.Columns+1) == 0 { // a point in each column
			points = append(points, [2]float64{b.along(w.At + int64(b.Window)), float64(b.Method.Value(in, out))})
		}
	}
	at.Line("out", append(points, now)...)
	if t.MeanOut == 0 {
		at.Line("out dash", now, [2]float64{1, now[1] + t.Mean*float64(b.Cycle.End-to)/1e9})
		return
	}
	end, text := [2]float64{b.along(t.MeanOut), float64(b.Cap)}, "ran out "+b.time(t.MeanOut).Format("Mon 2 Jan 15:04")
	if t.Left >= 0 {
		at.Line("out dash", now, end)
		text = "runs out " + b.time(t.MeanOut).Format("Mon 2 Jan") + " at the mean"
	}
	at.Dot("over", end)
	if end[0] > 0.5 { // where the curve is not
		at.Text("strong end", end, -9, text)
	} else {
		at.Text("strong", end, 20, text)
	}
}

// line is a line of a plan's picture: its class and name, and its value for each commit.
type line struct {
	class, name string
	value       func(*Simulated) float64
}

// SVG draws, over the commit, the share of the demand that passes, the bytes that are delayed and
// lost, and the cost if there are prices.
func (p Plan) SVG(w io.Writer) error {
	demand, high := p[0].Natural, 450
	if !demand.Prices.None() {
		high += 180
	}
	pic := svg.New(high, demand.title()+" · plan", strings.Replace(demand.cycle(), "  ", ": ", 1),
		fmt.Sprintf("What gates pass of a demand of %s, %s", demand.rate(demand.Billed), amount(p[0].Offered)))
	p.draw(&svg.Plot{Picture: pic, Top: 130, Low: 99, Most: 100, Per: 1, Unit: "%"}, "Passed",
		line{"flat", "with a flat quota", func(x *Simulated) float64 { return 100 * x.FlatShare() }},
		line{"out", "with free windows", func(x *Simulated) float64 { return 100 * x.PassedShare() }})
	p.draw(&svg.Plot{Picture: pic, Top: 310, Most: 1, Per: 1, Unit: "B"}, "Held back",
		line{"out", "delayed", func(x *Simulated) float64 { return float64(x.Delayed) }},
		line{"over", "lost", func(x *Simulated) float64 { return float64(x.Lost) }})
	if !demand.Prices.None() {
		p.draw(&svg.Plot{Picture: pic, Top: 490, Most: 1e6, Per: 1e6, Unit: demand.Prices.Currency}, "Cost",
			line{"flat", "without gates", func(x *Simulated) float64 { return float64(x.paid()) }},
			line{"in", "with gates", func(x *Simulated) float64 { return float64(x.held()) }})
	}
	return pic.Write(w)
}

// draw draws lines over the commit, and an upright one at the commit that is marked.
func (p Plan) draw(at *svg.Plot, name string, lines ...line) {
	first, last := p[0].Commit, p[len(p)-1].Commit
	along := func(x *Simulated) float64 { return float64(x.Commit-first) / float64(max(last-first, 1)) }
	prefix, per := svg.Prefix(p[0].Bill.BPS(last))
	at.High = 110
	var marks []svg.Mark
	for _, x := range p {
		marks = append(marks, svg.Mark{At: along(x), Label: fmt.Sprintf("%.4g", x.Bill.BPS(x.Commit)/per)})
		for _, l := range lines {
			at.Low, at.Most = min(at.Low, l.value(x)), max(at.Most, l.value(x))
		}
	}
	note := ""
	marked, mark := p.marked()
	if marked != nil {
		note = mark + ": " + marked.Bill.rate(marked.Commit)
	}
	at.Axis(4, name, note)
	at.Ticks(marks...)
	at.Text("dim", [2]float64{1.03, at.Low}, 20, prefix+"bit/s")
	for _, l := range lines {
		var points [][2]float64
		for i, x := range p {
			points = append(points, [2]float64{along(x), l.value(x)})
			at.Dot(l.class, points[i])
		}
		at.Line(l.class, points...)
		at.Key(l.class, l.name)
	}
	if marked != nil {
		at.Line("commit", [2]float64{along(marked), at.Low}, [2]float64{along(marked), at.Most})
	}
}
