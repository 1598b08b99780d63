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

var (
	errLarge = errors.New("that is more bytes than can be counted")
	grouped  = map[byte]*regexp.Regexp{}
)

func init() {
	for _, mark := range ",. '" {
		grouped[byte(mark)] = regexp.MustCompile(`^\d{1,3}(` + regexp.QuoteMeta(string(mark)) + `\d{3})+$`)
	}
}

// number reads a number in the dialect of the file.
func (f *file) number(text string) (number, error) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && (text == "" || text[0] != '+') {
		return number{whole: n, known: true}, nil
	}
	switch strings.ToLower(text) {
	case "", "u", "nan", "-nan", "null", "undefined", "-":
		return number{}, nil
	}
	plain, err := f.ungroup(text)
	if err != nil {
		return number{}, err
	}
	x, err := strconv.ParseFloat(plain, 64)
	switch {
	case strings.Trim(plain, "0123456789.eE+-") != "" || plain[0] == '+' || err != nil && !errors.Is(err, strconv.ErrRange):
		return number{}, f.notANumber(text)
	case x < 0:
		return number{}, fmt.Errorf("%.40q is negative", text)
	case x >= 1<<64:
		return number{}, errLarge
	case !strings.ContainsAny(plain, ".eE"):
		whole, _ := strconv.ParseUint(plain, 10, 64)
		return number{whole: whole, known: true}, nil
	}
	whole, part := math.Modf(x)
	return number{uint64(whole), part, true}, nil
}

func (f *file) notANumber(text string) error {
	err := fmt.Errorf("%.40q is not a number", text)
	if i := strings.IndexAny(text, " kMGTb"); i > 0 && text[0] >= '0' && text[0] <= '9' {
		return cli.Hint(err, "export numbers without units: in Grafana, turn off Formatted data")
	}
	return err
}

// ungroup removes separators of thousands, and makes the decimal mark a point.
func (f *file) ungroup(text string) (string, error) {
	text = strings.Map(func(c rune) rune {
		switch c {
		case '\u00a0', '\u202f':
			return ' '
		case '\u2019':
			return '\''
		}
		return c
	}, text)
	for _, mark := range " '" {
		whole, part := text, ""
		if i := strings.IndexAny(text, ",."); i >= 0 {
			whole, part = text[:i], text[i:]
		}
		if grouped[byte(mark)].MatchString(whole) {
			text = strings.ReplaceAll(whole, string(mark), "") + part
		}
	}
	point, comma := strings.LastIndexByte(text, '.'), strings.LastIndexByte(text, ',')
	decimal, mark := byte('.'), byte(',')
	switch {
	case point < 0 && comma < 0:
		return text, nil
	case point >= 0 && comma >= 0:
		if comma > point {
			decimal, mark = ',', '.'
		}
	case strings.Count(text, ".") > 1:
		decimal, mark = ',', '.'
	case strings.Count(text, ",") > 1: // a comma groups
	case f.comma != 0:
		if f.comma == ',' {
			decimal, mark = ',', '.'
		}
	case grouped[text[max(point, comma)]].MatchString(text) && !(point >= 0 && text[0] == '0'):
		return "", cli.Hint(fmt.Errorf("%.40q: a thousand or a fraction?", text), "give -format decimal=comma or -format decimal=point")
	case comma >= 0:
		decimal, mark = ',', '.'
	}
	if f.comma == 0 { // this number settles it for the file
		f.comma = decimal
	}
	whole, part, fraction := strings.Cut(text, string(decimal))
	if strings.IndexByte(whole, mark) >= 0 {
		if !grouped[mark].MatchString(whole) {
			return "", fmt.Errorf("%.40q is not a number", text)
		}
		whole = strings.ReplaceAll(whole, string(mark), "")
	}
	if fraction {
		whole += "." + part
	}
	return whole, nil
}
