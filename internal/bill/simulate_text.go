package bill

import (
	"fmt"
	"io"
	"math"
	"strings"

	"framepipe/internal/cli"
)

// percent formats a share, rounded down so that less than all never shows as 100%.
func percent(share float64) string {
	return fmt.Sprintf("%.2f%%", math.Floor(share*1e4+1e-7)/1e2)
}

func amount(bytes int64) string { return cli.Human(float64(bytes), "B") }

// Text writes the simulation for people.
func (x *Simulated) Text(w io.Writer, s Style) error {
	if s.Width == 0 {
		s.Width = 80
	}
	s.Width = min(max(s.Width, 40), 240)
	var t strings.Builder
	line := s.lines(&t)
	dim := func(text string) { line("", "%14s%s", "", s.paint(colourDim, text)) }
	b := x.Bill
	x.head(line)
	line("commit", "%-12s  simulated", b.rate(x.Commit))
	line("billed", "%s  %s percentile of what passed: %s", bold(s, b.rate(b.Billed)), ordinal(x.Percentile), b.against(s))
	dim(b.basis())
	line("passed", "%s  %s of %s", bold(s, percent(x.PassedShare())), amount(x.Passed), amount(x.Offered))
	dim(percent(x.FlatShare()) + " with a flat quota")
	dim(percent(x.BestShare()) + x.foresight())
	if len(x.runs) > 1 || len(x.runs[0]) > 1 {
		x.textDirections(line)
	}
	if x.Patience > 0 {
		line("delayed", "%-12s  %v at the longest", amount(x.Delayed), cli.Duration(x.Longest))
	}
	line("lost", "%-12s  %s of it", amount(x.Lost), percent(share(x.Lost, x.Offered)))
	line("free", "%s", b.free(s))
	line("worst phase", "%s", b.worst())
	t.WriteByte('\n')
	b.month(&t, s)
	_, err := io.WriteString(w, t.String())
	return err
}

// foresight describes the best share.
func (x *Simulated) foresight() string {
	if x.Patience > 0 {
		return " if all had been known before; nothing waits"
	}
	return " if all had been known before"
}

// head writes the cycle and its demand.
func (x *Simulated) head(line func(name, format string, args ...any)) {
	b := x.Bill
	line("cycle", "%s", b.cycle())
	line("demand", "%-12s  %s percentile of what was offered, %s", b.rate(x.Natural.Billed), ordinal(x.Percentile), amount(x.Offered))
	if x.To < x.Cycle.End || x.From-x.Cycle.Start >= int64(x.Window) {
		line("", "%14sof the rest of the cycle nothing is known: none comes", "")
	}
}

// textDirections writes how much of each direction passed.
func (x *Simulated) textDirections(line func(name, format string, args ...any)) {
	for column, name := range []string{colIn: "in", colOut: "out"} {
		var sums [2]int64
		for i, s := range []*Series{x.offered, x.passed} {
			for j, n := range s.column(column) {
				if s.at(j) < x.Cycle.End {
					sums[i] += n
				}
			}
		}
		line(name, "%-12s  %s of %s", percent(share(sums[1], sums[0])), amount(sums[1]), amount(sums[0]))
	}
}
