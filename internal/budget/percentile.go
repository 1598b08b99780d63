package budget

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Percentile is a share of samples, in 10⁻⁹ percent, so that 99.9 is exact.
type Percentile int64

// Hundred is 100 percent: all samples.
const Hundred Percentile = 100e9

// Set implements flag.Value.
func (p *Percentile) Set(s string) error {
	whole, fraction, dot := strings.Cut(strings.TrimSuffix(s, "%"), ".")
	wrong := errors.New("want a percentile, such as 95 or 99.9, from 1 to 100")
	if len(fraction) > 9 || len(whole) > 3 || whole == "" || dot && fraction == "" {
		return wrong
	}
	n, err := strconv.ParseUint(whole+fraction+strings.Repeat("0", 9-len(fraction)), 10, 63)
	if err != nil || n == 0 || Percentile(n) > Hundred {
		return wrong
	}
	if n < uint64(Hundred/100) { // a share elsewhere
		return errors.New("want a percentile from 1 to 100: 95, not 0.95")
	}
	*p = Percentile(n)
	return nil
}

func (p Percentile) String() string {
	s := fmt.Sprintf("%d.%09d", p/1e9, p%1e9)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// Free returns how many of n samples are free, rounded down.
func (p Percentile) Free(n int) int {
	return int(muldiv(int64(n), int64(Hundred-p), int64(Hundred)))
}
