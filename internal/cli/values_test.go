package cli

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var values = []struct {
	value      interface{ Set(string) error }
	text, want string
}{
	{new(Size), "10GB", "10GB"},
	{new(Size), "0.5kB", "500B"},
	{new(Size), "1.5GB", "1500MB"},
	{new(Size), "1KB", "1kB"},
	{new(Size), "0", "0B"},
	{new(Size), "1", "error: a size needs a unit: 1B, 1MB, 1GiB"},
	{new(Size), "1M", `error: unknown unit "M": did you mean 1MB?`},
	{new(Size), "1Gbit", `error: unknown unit "Gbit": want B`},
	{new(Size), "1gb", `error: unknown unit "gb": did you mean 1GB?`},
	{new(Size), "1.5 gib", `error: unknown unit " gib": did you mean 1.5GiB?`},
	{new(Size), "1.2.3GB", "error: must begin with a number"},
	{new(Size), "0.1B", "error: must be 0 or at least 1B"},
	{new(Size), "9999999PB", "error: must be at most 1152PB"},
	{new(Size), strings.Repeat("9", 50) + "B", "error: must be at most 1152921504606846976B"},
	{new(Size), "", "error: must begin with a number"},
	{new(Rate), "12.5MB/s", "100Mbit/s"},
	{new(Rate), "1MiB/s", "8Mibit/s"},
	{new(Rate), "100", "error: a rate needs a unit: 100Mbit/s is 100 million bits a second, 100MB/s eight times that"},
	{new(Rate), "100mbps", `error: "mbps" means bits to some and bytes to others (tc): write 100Mbit/s or 100MB/s`},
	{new(Rate), "100Mbit", `error: unknown unit "Mbit": did you mean 100Mbit/s?`},
	{new(Rate), "100MBit/s", `error: unknown unit "MBit/s": did you mean 100Mbit/s?`},
	{new(Rate), "100 Mbit/s", `error: unknown unit " Mbit/s": did you mean 100Mbit/s?`},
	{new(Rate), "100MB", `error: unknown unit "MB": did you mean 100MB/s?`},
	{new(Rate), "5Mb/s", `error: unknown unit "Mb/s": did you mean 5Mbit/s?`},
	{new(Rate), "10G", `error: unknown unit "G": did you mean 10Gbit/s?`},
	{new(Rate), "10gib/s", `error: unknown unit "gib/s": did you mean 10Gibit/s?`},
	{new(Rate), "9999999PB/s", "error: must be at most 144PB/s"},
	{new(Rate), "100M/s", `error: unknown unit "M/s": want bit/s`},
	{new(Rate), "100Xbit/s", `error: unknown unit "Xbit/s": want bit/s`},
	{new(Duration), "50us", "50µs"},
	{new(Duration), "1h", "1h"},
	{new(Duration), "90m", "1h30m"},
	{new(Duration), "1d", "1d"},
	{new(Duration), "30d", "30d"},
	{new(Duration), "0.5d", "12h"},
	{new(Duration), "0", "0s"},
	{new(Duration), "-5m", "error: a duration must not be negative"},
	{new(Duration), "5", "error: want a duration"},
	{new(Duration), "99999999d", "error: must be at most 13343d"},
	{new(Window), "month", "month"},
	{new(Window), "0s", "error: must be longer than zero"},
	{new(Window), "year", "error: want a duration, such as 5m, 1h or 30d, or month"},
	{new(Share), "75%", "0.75"},
	{new(Share), "100%", "1"},
	{new(Share), "0", "0"},
	{new(Share), "75", "error: a share must be at most 1: did you mean 75%?"},
	{new(Share), "101%", "error: a share must be at most 100%"},
	{new(Share), "-1%", "error: want a share"},
	{new(Share), "NaN", "error: want a share"},
	{new(Prefixes), "10.1.2.3/8,fd00::1", "&[10.0.0.0/8 fd00::1/128]"},
	{new(Prefixes), "10.0.0.1,", "error: \"\" is neither"},
	{new(Prefixes), "fe80::1%eth0", "error: \"fe80::1%eth0\" is neither a network, such as 10.0.0.0/8, nor an address"},
}

func TestValues(t *testing.T) {
	for _, tt := range values {
		err := tt.value.Set(tt.text)
		if want, fails := strings.CutPrefix(tt.want, "error: "); fails {
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%T %q: %v, want %s", tt.value, tt.text, err, tt.want)
			}
		} else if err != nil || fmt.Sprint(tt.value) != want {
			t.Errorf("%T %q: %v, %v, want %s", tt.value, tt.text, tt.value, err, tt.want)
		}
	}
}

// What is printed reads back as the same.
func TestValuesRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64Range(1, 1<<60).Draw(rt, "n")
		var s Size
		var r Rate
		var d Duration
		err := errors.Join(s.Set(Size(n).String()), r.Set(Rate(n).String()), d.Set(Duration(n).String()))
		if err != nil || int64(s) != n || int64(r) != n || int64(d) != n {
			rt.Fatalf("%d: %d, %d, %d, %v", n, s, r, d, err)
		}
	})
}

// FuzzValues: whatever the text, no panic, nothing negative, and what is taken
// prints as something that is the same.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"10GB", "12.5MB/s", "1.5s", "month", "75%", "10.0.0.0/8,fd00::1", "1e9B", "0x10MB", "1_0MB", "٣MB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_ = new(Prefixes).Set(s)
		for _, v := range []flag.Value{new(Size), new(Rate), new(Duration), new(Window), new(Share)} {
			if v.Set(s) != nil {
				continue
			}
			if x, is := v.(*Share); is && !(*x >= 0 && *x <= 1) || !is && strings.HasPrefix(v.String(), "-") {
				t.Fatalf("%q is taken, as %v", s, v)
			}
			again := v.String()
			if err := v.Set(again); err != nil || v.String() != again {
				t.Fatalf("%T: %q is taken, and printed as %q, which is %v, %v", v, s, again, v, err)
			}
		}
	})
}

func TestHuman(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0 B", 7: "7 B", 999: "999 B", 999.4: "999 B", 999.6: "1.00 kB", 1000: "1.00 kB", 12345: "12.3 kB", 123456: "123 kB",
		9.996e6: "10.0 MB", 99.96e6: "100 MB", 1e9: "1.00 GB", 1.5: "1.50 B", 1e21: "1000 EB", math.Inf(1): "+Inf B", -2e6: "-2.00 MB",
	} {
		if got := Human(n, "B"); got != want {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
}
