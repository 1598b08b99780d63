package bill

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Money is an amount in millionths of a currency's unit. Amounts are integers throughout,
// so that a bill is exact.
type Money int64

// hundredth is the unit of an invoice's lines.
const hundredth Money = 1e4

// Set implements flag.Value.
func (m *Money) Set(s string) error {
	whole, fraction, dot := strings.Cut(s, ".")
	n, err := strconv.ParseUint(whole+fraction+strings.Repeat("0", max(6-len(fraction), 0)), 10, 63)
	if err != nil || whole == "" || len(whole) > 9 || len(fraction) > 6 || dot && fraction == "" {
		return errors.New("want an amount of money, such as 2.50, below a billion and with at most six decimals")
	}
	*m = Money(n)
	return nil
}

// String formats an amount with two decimals, or more if it has more.
func (m Money) String() string {
	s := fmt.Sprintf("%d.%06d", m/1e6, m%1e6)
	for range 4 {
		s = strings.TrimSuffix(s, "0")
	}
	return s
}

// Prices are the prices of a contract. Without a commit, each Mbit/s that is billed costs Commit.
type Prices struct {
	Commit   Money // for each Mbit/s of the commit
	Overage  Money // for each Mbit/s that is billed above the commit
	Whole    bool  // the overage is rounded up to whole Mbit/s
	Minimum  Money // the least that a cycle costs
	Currency string
}

// None reports whether there are no prices.
func (p *Prices) None() bool { return p.Commit == 0 && p.Overage == 0 }

// Cost is the cost of a cycle.
type Cost struct {
	Over                   int64 // bits per second above the commit, as they are charged
	Commit, Overage, Total Money // Total is the minimum if the sum is less
}

// Of returns the cost of a cycle, of rates in bits per second. The amounts for the commit and
// for the overage are each rounded to a hundredth, half up.
func (p *Prices) Of(commit, billed int64) (c Cost) {
	overage := p.Overage
	if commit == 0 {
		overage = p.Commit
	}
	const mega int64 = 1e6
	c.Over = max(billed-commit, 0)
	if p.Whole {
		c.Over = min(ceilDiv(c.Over, mega), math.MaxInt64/mega) * mega
	}
	c.Commit, c.Overage = p.Commit.times(commit), overage.times(c.Over)
	c.Total = max(c.Commit+min(c.Overage, math.MaxInt64-c.Commit), p.Minimum)
	return c
}

// times returns the price of a rate in bits per second, if m is that of a Mbit/s.
func (m Money) times(rate int64) Money {
	const per = int64(1e6 * hundredth)
	return min(Money(mulDiv(int64(m), rate, per/2, per)), math.MaxInt64/hundredth) * hundredth
}

// mulDiv returns (a·b + c) / d, rounded down, or math.MaxInt64 if that is less. No number may be negative.
func mulDiv(a, b, c, d int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	lo, carry := bits.Add64(lo, uint64(c), 0)
	if hi += carry; hi >= uint64(d) {
		return math.MaxInt64
	}
	n, _ := bits.Div64(hi, lo, uint64(d))
	return int64(min(n, math.MaxInt64))
}

// BitRate returns the rate of a window's bytes in bits per second, rounded up. For a commit that Bytes
// returned for a window of 8 seconds or more, it is the rate that Bytes was given.
func BitRate(bytes int64, window time.Duration) int64 {
	return mulDiv(bytes, 8*int64(time.Second), int64(window)-1, int64(window))
}

// cost returns the cost of the cycle if so many bytes of a window are billed.
func (b *Bill) cost(billed int64) Cost {
	return b.Prices.Of(BitRate(b.Commit, b.Window), BitRate(billed, b.Window))
}

// money formats an amount with its currency.
func (p *Prices) money(m Money) string { return strings.TrimSuffix(m.String()+" "+p.Currency, " ") }
