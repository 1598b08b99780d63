package cli

import (
	"fmt"
	"math"
)

// Human formats a number for people, with three digits, a decimal prefix and the
// unit: 12.3 MB.
func Human(n float64, unit string) string {
	if math.IsInf(n, 0) || math.IsNaN(n) {
		return fmt.Sprint(n) + " " + unit
	}
	i := 0
	const names = " kMGTPE"
	for math.Abs(n) >= 999.5 && i < len(names)-1 {
		n /= 1000
		i++
	}
	digits := 0
	switch a := math.Abs(n); {
	case i == 0 && a == math.Trunc(a):
	case a < 9.995:
		digits = 2
	case a < 99.95:
		digits = 1
	}
	if i == 0 {
		return fmt.Sprintf("%.*f %s", digits, n, unit)
	}
	return fmt.Sprintf("%.*f %c%s", digits, n, names[i], unit)
}
