package cli

import (
	"flag"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// set parses a text as a value and returns how it prints, or the error.
func set(v flag.Value, text string) string {
	if err := v.Set(text); err != nil {
		return "error: " + err.Error()
	}
	return v.String()
}

var (
	newSize     = func() flag.Value { return new(Size) }
	newRate     = func() flag.Value { return new(Rate) }
	newDuration = func() flag.Value { return new(Duration) }
	newWindow   = func() flag.Value { return new(Window) }
	newShare    = func() flag.Value { return new(Share) }
	newPrefixes = func() flag.Value { return new(Prefixes) }
)

var values = []struct {
	of         func() flag.Value
	text, want string
}{
	{newSize, "10GB", "10GB"},
	{newSize, "10GiB", "10GiB"},
	{newSize, "1000MB", "1GB"},
	{newSize, "0.5kB", "500B"},
	{newSize, "1.5GB", "1500MB"},
	{newSize, "1KB", "1kB"},
	{newSize, "1PB", "1PB"},
	{newSize, "0", "0B"},
	{newSize, "1", "error: a size needs a unit: 1B, 1MB, 1GiB"},
	{newSize, "1M", `error: unknown unit "M": did you mean 1MB?`},
	{newSize, "1Gbit", `error: unknown unit "Gbit": want B`},
	{newSize, "1gb", `error: unknown unit "gb": did you mean 1GB?`},
	{newSize, "1.5 gib", `error: unknown unit " gib": did you mean 1.5GiB?`},
	{newSize, "-1GB", "error: must begin with a number"},
	{newSize, "GB", "error: must begin with a number"},
	{newSize, "1.2.3GB", "error: must begin with a number"},
	{newSize, "0.1B", "error: must be 0 or at least 1B"},
	{newSize, "9999999PB", "error: must be at most 1152PB"},
	{newSize, strings.Repeat("9", 50) + "B", "error: a number of 50 digits: at most 40 are read"},
	{newSize, "", "error: must begin with a number"},
	{newRate, "100Mbit/s", "100Mbit/s"},
	{newRate, "12.5MB/s", "100Mbit/s"},
	{newRate, "1MiB/s", "8Mibit/s"},
	{newRate, "1.5Gbit/s", "1500Mbit/s"},
	{newRate, "100", "error: a rate needs a unit: 100Mbit/s is 100 million bits a second, 100MB/s eight times that"},
	{newRate, "100mbps", `error: "mbps" means bits to some and bytes to others (tc): write 100Mbit/s or 100MB/s`},
	{newRate, "100Mbps", "error: \"Mbps\" means bits to some"},
	{newRate, "100Mbit", `error: unknown unit "Mbit": did you mean 100Mbit/s?`},
	{newRate, "100mbit", `error: unknown unit "mbit": did you mean 100Mbit/s?`},
	{newRate, "100MBit/s", `error: unknown unit "MBit/s": did you mean 100Mbit/s?`},
	{newRate, "100 Mbit/s", `error: unknown unit " Mbit/s": did you mean 100Mbit/s?`},
	{newRate, "100MB", `error: unknown unit "MB": did you mean 100MB/s?`},
	{newRate, "5Mb/s", `error: unknown unit "Mb/s": did you mean 5Mbit/s?`},
	{newRate, "10G", `error: unknown unit "G": did you mean 10Gbit/s?`},
	{newRate, "10gib/s", `error: unknown unit "gib/s": did you mean 10Gibit/s?`},
	{newRate, "9999999PB/s", "error: must be at most 144PB/s"},
	{newRate, "100M/s", `error: unknown unit "M/s": want bit/s`},
	{newRate, "100Xbit/s", `error: unknown unit "Xbit/s": want bit/s`},
	{newDuration, "50us", "50µs"},
	{newDuration, "5m", "5m"},
	{newDuration, "1h", "1h"},
	{newDuration, "90m", "1h30m"},
	{newDuration, "1.5s", "1.5s"},
	{newDuration, "30d", "30d"},
	{newDuration, "0.5d", "12h"},
	{newDuration, "0", "0s"},
	{newDuration, "-5m", "error: a duration must not be negative"},
	{newDuration, "5", "error: want a duration"},
	{newDuration, "99999999d", "error: must be at most 13343d"},
	{newWindow, "month", "month"},
	{newWindow, "5m", "5m"},
	{newWindow, "1d", "1d"},
	{newWindow, "0s", "error: must be longer than zero"},
	{newWindow, "year", "error: want a duration, such as 5m, 1h or 30d, or month"},
	{newShare, "75%", "0.75"},
	{newShare, "0.75", "0.75"},
	{newShare, "100%", "1"},
	{newShare, "0", "0"},
	{newShare, "75", "error: a share must be at most 1: did you mean 75%?"},
	{newShare, "101%", "error: a share must be at most 100%"},
	{newShare, "-1%", "error: want a share"},
	{newShare, "NaN", "error: want a share"},
	{newShare, "lots", "error: want a share"},
	{newPrefixes, "10.0.0.0/8", "10.0.0.0/8"},
	{newPrefixes, "10.1.2.3/8,fd00::1", "10.0.0.0/8,fd00::1/128"},
	{newPrefixes, "10.0.0.1,", "error: \"\" is neither"},
	{newPrefixes, "fe80::1%eth0", "error: \"fe80::1%eth0\" is neither a network, such as 10.0.0.0/8, nor an address"},
	{newPrefixes, "example.org", "error: \"example.org\" is neither"},
}

func TestValues(t *testing.T) {
	for _, tt := range values {
		got := set(tt.of(), tt.text)
		if got != tt.want && !(strings.HasPrefix(tt.want, "error") && strings.HasPrefix(got, tt.want)) {
			t.Errorf("%T %q: %s, want %s", tt.of(), tt.text, got, tt.want)
		}
	}
}

// What is printed reads back as the same.
func TestValuesRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64Range(1, 1<<60).Draw(rt, "n")
		var s Size
		if err := s.Set(Size(n).String()); err != nil || int64(s) != n {
			rt.Fatalf("size %d: %v, %v", n, s, err)
		}
		var r Rate
		if err := r.Set(Rate(n).String()); err != nil || int64(r) != n {
			rt.Fatalf("rate %d: %v, %v", n, r, err)
		}
		var d Duration
		if err := d.Set(Duration(n).String()); err != nil || int64(d) != n {
			rt.Fatalf("duration %d: %v, %v", n, d, err)
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
		for _, v := range []flag.Value{new(Size), new(Rate), new(Duration), new(Window), new(Share), new(Prefixes)} {
			if v.Set(s) != nil {
				continue
			}
			switch x := v.(type) {
			case *Size:
				if *x < 0 {
					t.Fatalf("%q is a size of %d", s, *x)
				}
			case *Rate:
				if *x < 0 {
					t.Fatalf("%q is a rate of %d", s, *x)
				}
			case *Duration:
				if *x < 0 {
					t.Fatalf("%q is a duration of %d", s, *x)
				}
			case *Share:
				if !(*x >= 0 && *x <= 1) {
					t.Fatalf("%q is a share of %v", s, *x)
				}
			}
			again := v.String()
			if p, ok := v.(*Prefixes); ok {
				*p = nil // it would grow
			}
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
	if got := Duration(100 * time.Millisecond).String(); got != "100ms" {
		t.Error(got)
	}
}
