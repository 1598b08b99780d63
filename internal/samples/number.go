package samples

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"framepipe/internal/cli"
)

// number is a value of a file. Counts need all 64 bits, and rates have fractions.
type number struct {
	whole uint64
	part  float64
	known bool
}

func (n number) float() float64 { return float64(n.whole) + n.part }

// times multiplies a number.
func (n number) times(factor float64) number {
	if factor == 1 || !n.known {
		return n
	}
	whole, part := math.Modf(n.float() * factor)
	return number{uint64(min(whole, 1<<63)), part, true}
}

// round returns the nearest whole number.
func (n number) round() int64 { return int64(min(n.whole+uint64(n.part+0.5), math.MaxInt64)) }

// number reads a number in the dialect of the file.
func (f *file) number(text string) (number, error) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return number{whole: n, known: true}, nil
	}
	switch strings.ToLower(text) {
	case "", "u", "nan", "-nan", "null", "undefined", "-":
		return number{}, nil
	}
	plain, err := f.plain(text)
	if err != nil {
		return number{}, err
	}
	if n, err := strconv.ParseUint(plain, 10, 64); err == nil {
		return number{whole: n, known: true}, nil
	}
	x, err := strconv.ParseFloat(plain, 64)
	switch {
	case strings.Trim(plain, "0123456789.eE+-") != "" || err != nil && !errors.Is(err, strconv.ErrRange):
		err = fmt.Errorf("%.40q is not a number", text)
		if i := strings.IndexAny(text, " kMGTb"); i > 0 && text[0] >= '0' && text[0] <= '9' {
			err = cli.Hint(err, "export numbers without units: in Grafana, turn off Formatted data")
		}
		return number{}, err
	case x < 0:
		return number{}, fmt.Errorf("%.40q is negative", text)
	case x >= 1<<64:
		return number{}, fmt.Errorf("%.40q is too large: the most is 2^64-1", text)
	}
	whole, part := math.Modf(x)
	return number{uint64(whole), part, true}, nil
}

// A number with one comma or point may have thousands or a fraction.
var (
	ambiguous = regexp.MustCompile(`^([1-9]\d{0,2}[.,]|0,)\d{3}$`)
	spaces    = strings.NewReplacer("\u00a0", " ", "\u202f", " ", "\u2019", "'")
)

// plain removes separators of thousands, and makes the decimal mark a point. The first number
// that shows the decimal mark settles it for the file.
func (f *file) plain(text string) (string, error) {
	text = spaces.Replace(text)
	decimal, thousands := ".", ","
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
			decimal, thousands = ",", "."
		}
		if f.comma == 0 {
			f.comma = decimal[0]
		}
	}
	whole, part, fraction := strings.Cut(text, decimal)
	for _, mark := range []string{thousands, " ", "'"} {
		groups := strings.Split(whole, mark)
		for i, g := range groups {
			if i > 0 && len(g) != 3 || len(groups) > 1 && (len(g) == 0 || len(g) > 3) {
				return text, nil // not a number
			}
		}
		whole = strings.Join(groups, "")
	}
	if fraction {
		whole += "." + part
	}
	return whole, nil
}
