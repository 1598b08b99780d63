package bill

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"strings"
)

// htmlHead begins a page that needs no other file.
const htmlHead = `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%s</title>
<style>
:root { color-scheme: light dark }
body { max-width: 800px; margin: 0 auto 40px; background: #ffffff; color: #1c2733;
  font: 14px/1.5 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif }
svg { display: block; max-width: 100%%; height: auto; margin-top: 12px }
table { border-collapse: collapse; margin: 16px 40px 0 56px }
th, td { text-align: left; padding: 3px 18px 3px 0; border-top: 1px solid #e3e8ed }
td:first-child:empty, td:first-child:empty ~ td { border: 0 }
i { font-style: normal } .bold { font-weight: 600 } .dim { color: #5b6875 } .warn { color: #b3243a } .bar { color: #2f7fb8 }
@media (prefers-color-scheme: dark) {
body { background: #12181f; color: #e6edf3 } th, td { border-color: #27313c }
.dim { color: #9aa7b4 } .warn { color: #ff8a96 } .bar { color: #4fa3dd }
}
</style>
`

// elements has the colours of text as elements of the page.
var elements = strings.NewReplacer(
	code(colourMean), `<i class="bar">`, code(colourMost), `<i class="bar">`, code(colourOver), `<i class="warn">`,
	code(colourLine), `<i class="bold">`, code(colourDim), `<i class="dim">`, codeBold, `<i class="bold">`, codeEnd, "</i>",
)

// HTML writes a page with the picture of the bill and its figures.
func (b *Bill) HTML(w io.Writer) error { return writeHTML(w, b.title(), b.SVG, tables(b.Text)) }

// HTML writes a page with the picture of what passed and the figures.
func (x *Simulated) HTML(w io.Writer) error {
	return writeHTML(w, x.Bill.title(), x.Bill.SVG, tables(x.Text))
}

// HTML writes a page with the pictures of the demand and of the plan, and their figures.
func (p Plan) HTML(w io.Writer) error {
	demand := p[0].Natural
	return writeHTML(w, demand.title(), demand.SVG, tables(demand.Text), p.SVG, tables(p.Text))
}

func writeHTML(w io.Writer, title string, parts ...func(io.Writer) error) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, htmlHead, html.EscapeString(title))
	for _, write := range parts {
		if err := write(&out); err != nil {
			return err
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

// tables returns a function that writes text as tables, one for each of its paragraphs.
func tables(text func(io.Writer, Style) error) func(io.Writer) error {
	return func(w io.Writer) error {
		var cells bytes.Buffer
		if err := text(&cells, Style{Colour: true, tabs: true}); err != nil {
			return err
		}
		for part := range strings.SplitSeq(strings.TrimSpace(cells.String()), "\n\n") {
			fmt.Fprintln(w, "<table>")
			for row := range strings.SplitSeq(part, "\n") {
				next := "</td><td>"
				if strings.Count(row, "\t") == 1 { // a sentence takes the place of a figure and its remark
					next = `</td><td colspan="2">`
				}
				row = elements.Replace(html.EscapeString(row))
				fmt.Fprintf(w, "<tr><td>%s</td></tr>\n", strings.ReplaceAll(row, "\t", next))
			}
			fmt.Fprintln(w, "</table>")
		}
		return nil
	}
}
