package bill

import (
	"fmt"
)

// Warnings returns what to warn of: the commit or the cap is exceeded, one of the shares of the free
// windows or of the cap is reached, or the forecast exceeds either.
func (b *Bill) Warnings(shares []float64) (list []string) {
	if b.Cap > 0 {
		x := b.Transfer
		used := fmt.Sprintf("%s of %s", amount(x.Used), amount(b.Cap))
		list = append(list, reached("the transfer cap", float64(x.Used), float64(b.Cap), used, shares)...)
		if b.Forecast.Days > 0 && !b.Closed() && x.Forecast > b.Cap {
			list = append(list, fmt.Sprintf("%s of the transfer cap of %s will be used, by the forecast", amount(x.Forecast), amount(b.Cap)))
		}
	}
	if b.Commit == 0 {
		return list
	}
	used := fmt.Sprintf("%d of %d", b.FreeUsed, b.FreeTotal)
	list = append(list, reached("the free windows", float64(b.FreeUsed), float64(b.FreeTotal), used, shares)...)
	switch {
	case b.Least > b.Commit:
		list = append(list, fmt.Sprintf("at least %s will be billed, over the commit of %s", b.rate(b.Least), b.rate(b.Commit)))
	case b.Forecast.Days > 0 && b.Forecast.Billed > b.Commit:
		list = append(list, fmt.Sprintf("%s will be billed by the forecast, over the commit of %s", b.rate(b.Forecast.Billed), b.rate(b.Commit)))
	}
	return list
}

// reached returns a warning for the highest share that is reached.
func reached(name string, used, total float64, of string, shares []float64) []string {
	highest := 0.0
	for _, s := range shares {
		if s > highest && used > 0 && used >= s*total {
			highest = s
		}
	}
	if highest == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%v%% of %s reached: %s used", float64(int64(highest*1e4+0.5))/100, name, of)}
}
