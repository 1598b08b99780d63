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
	Width  int  // columns; 80 if 0
	tabs   bool // between cells, for tables of HTML, and no plots
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

// The codes of terminals.
const (
	codeBold = "\x1b[1m"
	codeEnd  = "\x1b[0m"
)

func code(colour int) string { return fmt.Sprintf("\x1b[38;5;%dm", colour) }

func (p *page) paint(colour int, text string) string {
	if !p.Colour || text == "" {
		return text
	}
	return code(colour) + text + codeEnd
}

// bold pads a figure, and makes it bold.
func (p *page) bold(text string) string {
	if !p.tabs {
		text = fmt.Sprintf("%-12s", text)
	}
	if p.Colour {
		return codeBold + text + codeEnd
	}
	return text
}

// line writes a name and its figures.
func (p *page) line(name, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if p.tabs {
		p.table([]string{p.paint(colourDim, name) + "\t" + strings.Replace(text, "  ", "\t", 1)})
		return
	}
	fmt.Fprintf(p, "%s%s\n", p.paint(colourDim, fmt.Sprintf("%-12s", name)), text)
}

// remark writes text that explains the figures above it.
func (p *page) remark(text string) {
	indent := fmt.Sprintf("%26s", "")
	if p.tabs {
		indent = "\t\t"
	}
	p.WriteString(indent + p.paint(colourDim, text) + "\n")
}

// table writes rows of cells, which are separated by tabs.
func (p *page) table(rows []string) {
	if p.tabs {
		p.WriteString(strings.Join(rows, "\n") + "\n")
		return
	}
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
