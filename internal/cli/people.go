package cli

import (
	"fmt"
	"math"
)

// Human formats a number for people, with three digits, a decimal prefix and the
// unit: 12.3 MB.
func Human(n float64, unit string) string {
	i, names := 0, []string{"", "k", "M", "G", "T", "P", "E"}
	for math.Abs(n) >= 999.5 && i < len(names)-1 && !math.IsInf(n, 0) {
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
	return fmt.Sprintf("%.*f %s%s", digits, n, names[i], unit)
}
