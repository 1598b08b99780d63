package bill

import "fmt"

// Warnings returns what to warn of: the commit or the cap is exceeded, one of the shares of the free
// windows or of the cap is reached, or the forecast exceeds either.
func (b *Bill) Warnings(shares []float64) (list []string) {
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	reached := func(name string, used, total float64, of string) {
		highest := 0.0
		for _, s := range shares {
			if used > 0 && used >= s*total {
				highest = max(highest, s)
			}
		}
		if highest > 0 {
			warn("%v%% of %s reached: %s used", float64(int64(highest*1e4+0.5))/100, name, of)
		}
	}
	if x := b.Transfer; b.Cap > 0 {
		reached("the transfer cap", float64(x.Used), float64(b.Cap), fmt.Sprintf("%s of %s", amount(x.Used), amount(b.Cap)))
		if b.Forecast.Days > 0 && !b.Closed() && x.Forecast > b.Cap {
			warn("%s of the transfer cap of %s will be used, by the forecast", amount(x.Forecast), amount(b.Cap))
		}
	}
	if b.Commit == 0 {
		return list
	}
	reached("the free windows", float64(b.FreeUsed), float64(b.FreeTotal), fmt.Sprintf("%d of %d", b.FreeUsed, b.FreeTotal))
	switch {
	case b.Least > b.Commit:
		warn("at least %s will be billed, over the commit of %s", b.rate(b.Least), b.rate(b.Commit))
	case b.Forecast.Days > 0 && b.Forecast.Billed > b.Commit:
		warn("%s will be billed by the forecast, over the commit of %s", b.rate(b.Forecast.Billed), b.rate(b.Commit))
	}
	return list
}
