package bill

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Style is the style of text.
type Style struct {
	Colour bool
	ASCII  bool
	Width  int // columns; 80 if 0
}

// Colours, of the 256 of xterm.
const (
	colourMean = 37
	colourMost = 24
	colourOver = 203
	colourLine = 214
	colourDim  = 245
)

// page is text for people.
type page struct {
	strings.Builder
	Style
}

func newPage(s Style) *page {
	if s.Width == 0 {
		s.Width = 80
	}
	s.Width = min(max(s.Width, 40), 240)
	return &page{Style: s}
}

func (p *page) paint(colour int, text string) string {
	if !p.Colour || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[38;5;%dm%s\x1b[0m", colour, text)
}

// bold pads a figure, and makes it bold.
func (p *page) bold(text string) string {
	text = fmt.Sprintf("%-12s", text)
	if p.Colour {
		return "\x1b[1m" + text + "\x1b[0m"
	}
	return text
}

// line writes a name and its figures.
func (p *page) line(name, format string, args ...any) {
	fmt.Fprintf(p, "%s%s\n", p.paint(colourDim, fmt.Sprintf("%-12s", name)), fmt.Sprintf(format, args...))
}

// remark writes text that explains the figures above it.
func (p *page) remark(text string) { fmt.Fprintf(p, "%26s%s\n", "", p.paint(colourDim, text)) }

// table writes rows of cells, which are separated by tabs.
func (p *page) table(rows []string) {
	w := tabwriter.NewWriter(p, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	_ = w.Flush()
}

// ascii has characters for terminals without Unicode.
var ascii = strings.NewReplacer(
	"▁", "#", "▂", "#", "▃", "#", "▄", "#", "▅", "#", "▆", "#", "▇", "#", "█", "#", "▒", ":", "░", ".",
	"─", "-", "│", "|", "┤", "+", "┬", "+", "└", "+",
)

func (p *page) writeTo(w io.Writer) error {
	text := p.String()
	if p.ASCII {
		text = ascii.Replace(text)
	}
	_, err := io.WriteString(w, text)
	return err
}
