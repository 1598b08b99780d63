package bill

import (
	"strings"
	"testing"
	"time"
)

func TestNewSamples(t *testing.T) {
	for _, tt := range []struct {
		list []Sample
		want string
	}{
		{nil, "there are no samples"},
		{[]Sample{{At: 7}, {At: 0}, {At: 7}}, "two samples begin at 1970-01-01 00:00:00"},
		{[]Sample{{At: 7}, {At: 0}, {At: 15}}, "the sample at 1970-01-01 00:00:00 is not on the grid"},
		{[]Sample{{At: 7, In: 1 << 61}, {At: 0, In: 1 << 61}, {At: 14, Out: 1}}, "the samples have more than 4 EiB, the most bytes that can be counted"},
	} {
		if _, err := NewSamples(tt.list, 7); err == nil || err.Error() != tt.want {
			t.Errorf("%v: %v, want %s", tt.list, err, tt.want)
		}
	}
}

// Samples that are next to no time apart would be billed for as many phases, and for
// as many slots of the cycle.
func TestTooFine(t *testing.T) {
	s, err := NewSamples([]Sample{{At: 0, In: 1}, {At: 1, In: 1}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, window := range []time.Duration{s.Slot, 5 * time.Minute} {
		_, err := New(s, months.At(0), time.UTC, Terms{Percentile: 95e9, Window: window})
		if err == nil || !strings.Contains(err.Error(), "samples every 1ns are more than") {
			t.Errorf("windows of %v: %v", window, err)
		}
	}
}
