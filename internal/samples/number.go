package samples

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"framepipe/internal/cli"
)

// unknown is a value that is missing. Others are not negative. They are exact up to 2^53, which is 9 PB.
const unknown = -1

// number reads a number in the dialect of the file.
func (f *file) number(text string) (float64, error) {
	if n, err := strconv.ParseUint(text, 10, 53); err == nil {
		return float64(n), nil
	}
	switch strings.ToLower(text) {
	case "", "u", "nan", "-nan", "null", "undefined", "-":
		return unknown, nil
	}
	plain, err := f.plain(text)
	if err != nil {
		return 0, err
	}
	x, err := strconv.ParseFloat(plain, 64)
	switch {
	case strings.Trim(plain, "0123456789.eE+-") != "" || err != nil && !errors.Is(err, strconv.ErrRange):
		err = fmt.Errorf("%.40q is not a number", text)
		if i := strings.IndexAny(text, " kKMGTbB"); i > 0 && text[0] >= '0' && text[0] <= '9' {
			err = cli.Hint(err, "export numbers without units: in Grafana, turn off Formatted data")
		} else if strings.Contains(text, ",") {
			err = cli.Hint(err, "if the comma is the decimal mark, give -format decimal=comma")
		}
		return 0, err
	case x < 0:
		return 0, fmt.Errorf("%.40q is negative", text)
	case x > 1<<64:
		return 0, fmt.Errorf("%.40q is too large: the most is 2^64", text)
	}
	return x, nil
}

// A number with one comma or point may have thousands or a fraction. Thousands may have spaces or apostrophes, too.
var (
	ambiguous = regexp.MustCompile(`^([1-9]\d{0,2}[.,]|0,)\d{3}$`)
	thousands = regexp.MustCompile(`^[-+]?[1-9]\d{0,2}((,\d{3})+|(\.\d{3})+|([ \x{a0}\x{202f}]\d{3})+|(['\x{2019}]\d{3})+)$`)
	separator = regexp.MustCompile(`[^-+\d]`)
)

// plain removes separators of thousands, and makes the decimal mark a point. The first number
// that shows the decimal mark settles it for the file.
func (f *file) plain(text string) (string, error) {
	decimal := "."
	if i := strings.LastIndexAny(text, ".,"); i >= 0 {
		comma := text[i] == ','
		switch {
		case strings.Count(text, text[i:i+1]) > 1:
			comma = !comma
		case strings.ContainsAny(text[:i], ".,"):
		case f.comma != 0:
			comma = f.comma == ','
		case ambiguous.MatchString(text):
			return "", cli.Hint(fmt.Errorf("%.40q: a thousand or a fraction?", text),
				"give -format decimal=comma or -format decimal=point")
		}
		if comma {
			decimal = ","
		}
		if f.comma != 0 && f.comma != decimal[0] {
			return "", cli.Hint(fmt.Errorf("%.40q does not have %q as its decimal mark", text, f.comma),
				"give -format decimal=comma or -format decimal=point, and write all numbers alike")
		}
		f.comma = decimal[0]
	}
	whole, part, fraction := strings.Cut(text, decimal)
	if thousands.MatchString(whole) {
		whole = separator.ReplaceAllString(whole, "")
	}
	if fraction {
		whole += "." + part
	}
	return whole, nil
}
