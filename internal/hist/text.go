package hist

import (
	"fmt"
	"math"
	"strings"

	"framepipe/internal/cli"
)

// Style is the style of a drawn report.
type Style struct {
	Colour bool
	ASCII  bool
	Date   bool // with the time of a report
}

// shades are the shades for the share of a value, relative to noise, in which all
// values are equally frequent. So two pictures can be compared.
var shades = []struct {
	upto   float64 // highest share, as a multiple of that in noise
	block  string
	ascii  string
	colour int // of the 256 of xterm
}{
	{0, "  ", "  ", 235},
	{1. / 16, "··", "..", 24},
	{1. / 4, "░░", "::", 31},
	{1. / 2, "░░", "--", 37},
	{1, "▒▒", "==", 71},
	{2, "▒▒", "++", 107},
	{8, "▓▓", "**", 143},
	{32, "██", "##", 214},
	{math.Inf(1), "██", "@@", 203},
}

// cell returns the shade of a value.
func (s Style) cell(n uint64, total float64) string {
	share, i := float64(n)*256/total, 0 // NaN, which is not over any, if no byte was counted
	for share > shades[i].upto {
		i++
	}
	text := shades[i].block
	if s.ASCII {
		text = shades[i].ascii
	}
	if s.Colour {
		return fmt.Sprintf("\x1b[38;5;%dm%s", shades[i].colour, text)
	}
	return text
}

// bar returns a bar for a share between 0 and 1.
func (s Style) bar(share float64) string {
	const width = 12
	full, eighths := "█", []rune(" ▏▎▍▌▋▊▉")
	if s.ASCII {
		full, eighths = "#", []rune("        ")
	}
	n := int(math.Round(share * width * 8))
	return strings.Repeat(full, n/8) + string(eighths[n%8])
}

// Text returns the report for people: a square of 16 by 16 byte values, shaded by
// frequency; beside it the most frequent values and the sizes of the frames. It is one line if
// there were no frames.
func (r *Report) Text(s Style) string {
	layout := "15:04:05"
	if s.Date {
		layout = "2006-01-02 15:04:05"
	}
	if r.Frames == 0 {
		return fmt.Sprintf("%s  %.1f s  no frames\n", r.Time.Format(layout), r.Interval)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %.1f s  %sframes  %s  %s  %s  entropy %.2f of 8 bits\n",
		r.Time.Format(layout), r.Interval, cli.Human(float64(r.Frames), ""), cli.Human(float64(r.Bytes), "B"),
		cli.Human(r.BPS, "bit/s"), cli.Human(r.FPS, "frames/s"), r.Entropy)
	total := 0.0
	for _, n := range r.Counts {
		total += float64(n)
	}
	side := r.side(s, total)
	b.WriteString("     0 1 2 3 4 5 6 7 8 9 a b c d e f\n")
	for row := range 16 {
		fmt.Fprintf(&b, " %x0  ", row)
		for col := range 16 {
			b.WriteString(s.cell(r.Counts[16*row+col], total))
		}
		if s.Colour {
			b.WriteString("\x1b[0m")
		}
		b.WriteString(strings.TrimRight("   "+side[row], " ") + "\n")
	}
	r.top(&b, s)
	return b.String()
}

// top writes the pairs with the most bytes, if they were counted.
func (r *Report) top(b *strings.Builder, s Style) {
	if len(r.Top) == 0 {
		return
	}
	b.WriteString("most bytes, by addresses")
	if n := *r.TopMissing; n > 0 {
		fmt.Fprintf(b, " (each may lack up to %s)", cli.Human(float64(n), "B"))
	}
	b.WriteByte('\n')
	for _, p := range r.Top {
		name := p.Src + " > " + p.Dst
		if p.Src == "" {
			name = "not IP"
		}
		share := float64(p.Bytes) / float64(r.Ethernet)
		line := fmt.Sprintf("  %-40s  %8s  %5.1f%%  %s", name, cli.Human(float64(p.Bytes), "B"), 100*share, s.bar(share))
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// side returns the text beside each row of the square.
func (r *Report) side(s Style, total float64) (lines [16]string) {
	lines[0] = "most frequent"
	if r.Sample > 1 {
		lines[0] += fmt.Sprintf(" (bytes of %.3g%% of frames)", 100/float64(r.Sample))
	}
	for i, v := range r.Most(5) {
		name := ""
		if v > ' ' && v < 0x7f {
			name = "'" + string(rune(v)) + "'"
		}
		share := float64(r.Counts[v]) / total
		lines[1+i] = fmt.Sprintf("  %02x %-4s     %5.1f%%  %s", v, name, 100*share, s.bar(share))
	}
	lines[7] = "frame size, with check sequence"
	for i, name := range Classes {
		share := float64(r.Sizes[name]) / float64(r.Frames)
		lines[8+i] = fmt.Sprintf("  %-10s  %5.1f%%  %s", name, 100*share, s.bar(share))
	}
	return lines
}
