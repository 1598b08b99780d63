package bill

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"
	"strings"
)

// htmlHead begins a page that needs no other file. Its colours are those of the pictures in it.
const htmlHead = `<!DOCTYPE html>
<html lang="en" class="ground">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%s</title>
<style>
:root { color-scheme: light dark; background: currentColor }
body { max-width: 800px; margin: 0 auto 40px; font: 14px/1.5 system-ui, "Helvetica Neue", "DejaVu Sans", sans-serif }
svg { display: block; max-width: 100%%; height: auto; margin-top: 12px }
table { border-collapse: collapse; margin: 16px 40px 0 56px }
td { padding: 3px 18px 3px 0; border-top: 1px solid #8885 }
td:first-child:empty, td:first-child:empty ~ td { border: 0 }
i { font-style: normal } .bold { font-weight: 600 }
</style>
<body class="ink">
`

// elements has the colours of text as elements of the page.
var elements = strings.NewReplacer(
	colourMean, `<i class="out">`, colourMost, `<i class="out">`, colourOver, `<i class="over">`,
	colourLine, `<i class="bold">`, codeBold, `<i class="bold">`, colourDim, `<i class="dim">`, codeEnd, "</i>",
)

// section is a part of a page: a picture, and its figures.
type section interface {
	SVG(io.Writer) error
	Text(io.Writer, Style) error
}

// HTML writes a page with the picture of the bill and its figures.
func (b *Bill) HTML(w io.Writer) error { return writeHTML(w, b.title(), b) }

// HTML writes a page with the picture of what passed and the figures.
func (x *Simulated) HTML(w io.Writer) error { return writeHTML(w, x.Bill.title(), x) }

// HTML writes a page with the pictures of the demand and of the plan, and their figures.
func (p Plan) HTML(w io.Writer) error { return writeHTML(w, p[0].Natural.title(), p[0].Natural, p) }

func writeHTML(w io.Writer, title string, sections ...section) error {
	var out, text bytes.Buffer
	fmt.Fprintf(&out, htmlHead, html.EscapeString(title))
	for _, s := range sections {
		text.Reset()
		if err := errors.Join(s.SVG(&out), s.Text(&text, Style{Colour: true, cells: true})); err != nil {
			return err
		}
		for part := range strings.SplitSeq(strings.TrimSpace(text.String()), "\n\n") {
			fmt.Fprintln(&out, "<table>")
			for line := range strings.SplitSeq(part, "\n") {
				fmt.Fprintf(&out, "<tr>%s</tr>\n", row(line))
			}
			fmt.Fprintln(&out, "</table>")
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

// row returns the cells of a line of text. A sentence takes the place of a figure and its remark.
func row(line string) (row string) {
	cells := strings.Split(elements.Replace(html.EscapeString(line)), cell)
	for i, text := range cells {
		td := "<td>"
		if i == 1 && len(cells) == 2 {
			td = `<td colspan="2">`
		}
		row += td + strings.TrimSpace(text) + "</td>"
	}
	return row
}
