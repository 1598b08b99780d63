package cli

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes: 10GB is 10^10, 10GiB is 10·2^30.
type Size int64

// Set implements flag.Value.
func (s *Size) Set(text string) error {
	number, unit, err := split(text)
	switch {
	case err != nil:
		return err
	case unit == "" && number == "0":
		unit = "B"
	case unit == "":
		return fmt.Errorf("a size needs a unit: %sB, %sMB, %sGiB", text, text, text)
	}
	factor := factor(unit, "B")
	if factor == 0 {
		return fmt.Errorf("unknown unit %q: %s", unit, meant(number, unit, sizes, "want B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB or PiB"))
	}
	return scale((*int64)(s), number, factor, unit, "B")
}

func (s Size) String() string { return inUnits(int64(s), "B") }

// Rate is a number of bits per second: 100Mbit/s, 12.5MB/s.
type Rate int64

// Set implements flag.Value.
func (r *Rate) Set(text string) error {
	number, unit, err := split(text)
	switch {
	case err != nil:
		return err
	case unit == "":
		return fmt.Errorf("a rate needs a unit: %sMbit/s is %s million bits a second, %sMB/s eight times that", text, text, text)
	case strings.HasSuffix(strings.ToLower(unit), "bps"):
		return fmt.Errorf("%q means bits to some and bytes to others (tc): write %sMbit/s or %sMB/s", unit, number, number)
	}
	factor := max(factor(unit, "bit/s"), 8*factor(unit, "B/s"))
	if factor == 0 {
		return fmt.Errorf("unknown unit %q: %s", unit, meant(number, unit, rates, "want bit/s, kbit/s, Mbit/s, Gbit/s, or B/s, kB/s, MB/s, MiB/s and so on"))
	}
	return scale((*int64)(r), number, factor, unit, "bit/s")
}

func (r Rate) String() string { return inUnits(int64(r), "bit/s") }

// BytesPerSecond returns the rate in bytes per second.
func (r Rate) BytesPerSecond() float64 { return float64(r) / 8 }

// Duration is a duration in Go's format, with the additional unit d for days.
type Duration time.Duration

// Set implements flag.Value.
func (d *Duration) Set(text string) error {
	if number, unit, err := split(text); err == nil && unit == "d" {
		return scale((*int64)(d), number, int64(24*time.Hour), unit, "ns")
	}
	n, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("want a duration, such as 50us, 100ms, 5m, 1h30m or 30d")
	}
	if n < 0 {
		return errors.New("a duration must not be negative")
	}
	*d = Duration(n)
	return nil
}

func (d Duration) String() string {
	const day = Duration(24 * time.Hour)
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Window is a Duration, or a month.
type Window struct {
	Duration Duration
	Month    bool
}

// Set implements flag.Value.
func (w *Window) Set(text string) error {
	if text == "month" {
		*w = Window{Month: true}
		return nil
	}
	w.Month = false
	if err := w.Duration.Set(text); err != nil {
		return errors.New("want a duration, such as 5m, 1h or 30d, or month")
	}
	if w.Duration == 0 {
		return errors.New("must be longer than zero")
	}
	return nil
}

func (w Window) String() string {
	if w.Month {
		return "month"
	}
	return w.Duration.String()
}

// Share is a part of a whole: 75% or 0.75.
type Share float64

// Set implements flag.Value.
func (s *Share) Set(text string) error {
	number, percent := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(number, 64)
	if percent {
		f /= 100
	}
	switch {
	case err != nil || math.IsNaN(f) || f < 0:
		return errors.New("want a share, such as 75% or 0.75")
	case f > 1 && !percent && f <= 100:
		return fmt.Errorf("a share must be at most 1: did you mean %s%%?", text)
	case f > 1:
		return errors.New("a share must be at most 100%")
	}
	*s = Share(f)
	return nil
}

func (s Share) String() string { return strconv.FormatFloat(float64(s), 'g', -1, 64) }

// Zone returns the time zone that -tz names.
func Zone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil {
		err = Hint(Usagef("-tz %s: no such time zone", name), "want UTC or a name such as Europe/Berlin")
	}
	return zone, err
}

// Prefixes is a list of networks and addresses, separated by commas. Each Set
// appends to it.
type Prefixes []netip.Prefix

// Set is for flag.Func.
func (p *Prefixes) Set(text string) error {
	for field := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(field)
		if err != nil {
			addr, e := netip.ParseAddr(field)
			if e != nil || addr.Zone() != "" {
				return fmt.Errorf("%q is neither a network, such as 10.0.0.0/8, nor an address", field)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}

// split splits text into the decimal number at its start and the unit.
func split(text string) (number, unit string, err error) {
	number = text[:len(text)-len(strings.TrimLeft(text, "0123456789."))]
	if number == "" {
		err = errNumber
	}
	return number, text[len(number):], err
}

var errNumber = errors.New("must begin with a number")

var prefixes = []struct {
	name   string
	factor int64
}{
	{"Pi", 1 << 50}, {"P", 1e15}, {"Ti", 1 << 40}, {"T", 1e12}, {"Gi", 1 << 30}, {"G", 1e9},
	{"Mi", 1 << 20}, {"M", 1e6}, {"Ki", 1 << 10}, {"k", 1e3}, {"K", 1e3}, {"", 1},
}

// factor returns the factor of a unit that is a prefix and base, 0 for another unit.
func factor(unit, base string) int64 {
	for _, p := range prefixes {
		if unit == p.name+base {
			return p.factor
		}
	}
	return 0
}

// Other spellings of the units, and the right ones.
var (
	sizes = []struct{ other, unit string }{{"B", "B"}, {"", "B"}, {"byte", "B"}, {"bytes", "B"}}
	rates = []struct{ other, unit string }{
		{"B/s", "B/s"}, {"B", "B/s"}, {"bit/s", "bit/s"}, {"bit", "bit/s"}, {"b/s", "bit/s"}, {"b", "bit/s"},
		{"bits", "bit/s"}, {"bits/s", "bit/s"}, {"bytes/s", "B/s"}, {"", "bit/s"},
	}
)

// meant returns "did you mean 100Mbit/s?" for a unit that is another spelling of a right one,
// by its case, spaces or the form of its base. For others it returns otherwise.
func meant(number, unit string, bases []struct{ other, unit string }, otherwise string) string {
	unit = strings.ReplaceAll(unit, " ", "")
	for _, same := range []func(a, b string) bool{func(a, b string) bool { return a == b }, strings.EqualFold} {
		for _, base := range bases {
			for _, p := range prefixes {
				n := len(p.name)
				if len(unit) >= n && strings.EqualFold(unit[:n], p.name) && same(unit[n:], base.other) {
					return fmt.Sprintf("did you mean %s%s%s?", number, p.name, base.unit)
				}
			}
		}
	}
	return otherwise
}

// scale multiplies a decimal number by the factor of its unit, exactly, and rounds down. A
// positive number that would become 0 is an error, which names the unit base.
func scale(to *int64, number string, factor int64, unit, base string) error {
	const most = 1 << 60
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return errNumber
	}
	r.Mul(r, new(big.Rat).SetInt64(factor))
	n := new(big.Int).Quo(r.Num(), r.Denom())
	switch {
	case !n.IsInt64() || n.Int64() > most:
		return fmt.Errorf("must be at most %d%s", most/factor, unit)
	case n.Sign() == 0 && r.Sign() != 0:
		return fmt.Errorf("must be 0 or at least 1%s", base)
	}
	*to = n.Int64()
	return nil
}

// inUnits formats n with the largest prefix that leaves a whole number.
func inUnits(n int64, unit string) string {
	for _, p := range prefixes {
		if p.name != "K" && n != 0 && n%p.factor == 0 {
			return strconv.FormatInt(n/p.factor, 10) + p.name + unit
		}
	}
	return "0" + unit
}

// Choice returns the function, for flag.Func, of a flag with these values.
func Choice[T ~uint8](to *T, names ...string) func(string) error {
	return func(s string) error {
		i := slices.Index(names, s)
		if i < 0 {
			last := len(names) - 1
			return fmt.Errorf("want %s or %s", strings.Join(names[:last], ", "), names[last])
		}
		*to = T(i)
		return nil
	}
}
