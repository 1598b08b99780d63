package bill

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Style is the style of text.
type Style struct {
	Colour bool
	ASCII  bool
	Width  int  // columns; 80 if 0
	cells  bool // marks the cells, and has no plots
}

// The codes of terminals: colours of the 256 of xterm, and others.
const (
	colourMean = "\x1b[38;5;37m"
	colourMost = "\x1b[38;5;24m"
	colourOver = "\x1b[38;5;203m"
	colourLine = "\x1b[38;5;214m"
	colourDim  = "\x1b[38;5;245m"
	codeBold   = "\x1b[1m"
	codeEnd    = "\x1b[0m"
)

// cell is the mark before each cell but the first of a line, which text does without.
const cell = "\x1f"

// page is text for people.
type page struct {
	strings.Builder
	Style
}

func newPage(s Style) *page {
	s.Width = min(max(cmp.Or(s.Width, 80), 40), 240)
	return &page{Style: s}
}

func (p *page) paint(code, text string) string {
	if !p.Colour || text == "" {
		return text
	}
	return code + text + codeEnd
}

// bold pads a figure, and makes it bold.
func (p *page) bold(text string) string {
	return strings.Replace(fmt.Sprintf("%-12s", text), text, p.paint(codeBold, text), 1)
}

// line writes a name and its figures.
func (p *page) line(name, format string, args ...any) {
	text := strings.Replace(fmt.Sprintf(format, args...), "  ", "  "+cell, 1)
	fmt.Fprintf(p, "%s%s%s\n", p.paint(colourDim, fmt.Sprintf("%-12s", name)), cell, text)
}

// remark writes text that explains the figures above it.
func (p *page) remark(text string) {
	fmt.Fprintf(p, "%28s%s\n", cell+cell, p.paint(colourDim, text))
}

// table writes rows of cells, which are separated by tabs.
func (p *page) table(rows []string) {
	w := tabwriter.NewWriter(p, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.ReplaceAll(row, "\t", cell+"\t"))
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
	if !p.cells {
		text = strings.ReplaceAll(text, cell, "")
	}
	if p.ASCII {
		text = ascii.Replace(text)
	}
	_, err := io.WriteString(w, text)
	return err
}
