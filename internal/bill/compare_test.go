package bill

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// polledSamples returns a provider's samples of a series: polls at a phase, up to a jitter early or late. Stamps are
// those of the clock's five minutes.
func polledSamples(r *rand.Rand, s *Series, phase, jitter time.Duration) *Samples {
	in, out := newCounter(s, In), newCounter(s, Out)
	var list []Sample
	from := s.Start + int64(time.Hour)
	for at, poll := from, from+int64(phase); at < s.at(len(s.In))-int64(time.Hour); at += 300e9 {
		next := at + 300e9 + int64(phase) + r.Int64N(2*int64(jitter)+1) - int64(jitter)
		list = append(list, Sample{At: at, In: int64(in.between(poll, next)), Out: int64(out.between(poll, next))})
		poll = next
	}
	return must(NewSamples(list, 5*time.Minute))
}

// The phase of a poller is found to within its jitter, and only samples that were tampered with differ. The ledger may
// be longer than a bill's.
func TestCompare(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	ledger := bursty(r, day(2026, 11, 1), 5*time.Second, 3*17280)
	counts := samplesOf(series(ledger.Start-int64(300*24*time.Hour), 5*time.Second, 1, func(int) (int64, int64) { return 1, 1 }), ledger)
	for _, phase := range []time.Duration{0, 87 * time.Second, 299 * time.Second, -150 * time.Second} {
		s := polledSamples(r, ledger, phase, 2*time.Second)
		want := []Difference{}
		for i := range 3 {
			x := &s.list[100+200*i]
			want = append(want, Difference{x.At, Out, x.Out*11/10 + 1e6, x.Out})
			x.Out = want[i].Sample
		}
		c := must(Compare(s, counts, 2*time.Second, time.UTC))
		wrong := (c.Phase-phase+450*time.Second)%(300*time.Second) - 150*time.Second
		if !c.Sure || wrong.Abs() > 2*time.Second || c.Median > 0.01 || len(c.Differ) != 3 {
			t.Errorf("at %v: %v, %v, the median is %.3f, differ %v", phase, c.Phase, c.Sure, c.Median, c.Differ)
			continue
		}
		for i, x := range c.Differ {
			if x.At != want[i].At || x.Direction != Out || x.Sample != want[i].Sample {
				t.Errorf("%v differs, want %v", x, want[i])
			}
		}
		text := textOf(t, c, Style{})
		first := "sample " + time.Unix(0, want[0].At).UTC().Format(time.DateTime) + " out: "
		if !strings.Contains(text, first) || !strings.Contains(text, "-phase ") || c.JSON()[0]["phase_s"] != c.Phase.Seconds() {
			t.Error(text)
		}
	}
	even := series(ledger.Start, 5*time.Second, 17280, func(int) (int64, int64) { return 0, 1000 })
	s := polledSamples(r, even, 100*time.Second, 2*time.Second)
	c := must(Compare(s, samplesOf(even), 2*time.Second, time.UTC))
	if c.Sure || len(c.Differ) > 0 || c.JSON()[0]["phase_s"] != nil {
		t.Errorf("%+v", c)
	}
	later := series(day(2027, 1, 1), 5*time.Minute, 10, func(int) (int64, int64) { return 1, 1 })
	if _, err := Compare(samplesOf(later), samplesOf(even), 0, time.UTC); err == nil {
		t.Error("there is nothing to compare")
	}
}
