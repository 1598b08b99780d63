package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"framepipe/frame"
	"framepipe/internal/offload"
	"framepipe/internal/packet"
)

// meterFile is the environment variable that makes this program a stage, which
// passes a stream on and notes in the file of that name what went by when.
const meterFile = "FRAMEPIPE_METER"

// meterBucket is how finely it notes.
const meterBucket = 5 * time.Millisecond

// metered is what it notes.
type metered struct {
	Start   time.Time
	Buckets []uint64 // bytes, as a switch counts them
}

func (m *metered) add(bucket int, bytes uint64) {
	for len(m.Buckets) <= bucket {
		m.Buckets = append(m.Buckets, 0)
	}
	m.Buckets[bucket] += bytes
}

func meter(name string) int {
	m := metered{Start: time.Now()}
	err := frame.Run(os.Stdin, os.Stdout, func(r *frame.Record, w *frame.Writer) error {
		n := uint64(max(len(r.Frame), 60) + 4)
		if r.Offload != nil {
			if h, err := offload.Parse(r.Offload); err == nil && h.Super() {
				if segments, head, _, err := offload.Measure(h, r.Frame, len(r.Frame), packet.Ethernet); err == nil {
					n += uint64((segments - 1) * (head + 4))
				}
			}
		}
		m.add(int(time.Since(m.Start)/meterBucket), n)
		return w.Pass(r)
	})
	b, e := json.Marshal(m)
	if err := errors.Join(err, e, os.WriteFile(name, b, 0o600)); err != nil {
		fmt.Fprintln(os.Stderr, "meter:", err)
		return 1
	}
	return 0
}

// meterStage is the command of such a stage.
func meterStage(t testing.TB, name string) string {
	return "env " + meterFile + "=" + name + " " + self(t)
}

func readMeter(t testing.TB, name string) (m metered) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, name)), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// total returns the bytes in all.
func (m *metered) total() (sum uint64) {
	for _, b := range m.Buckets {
		sum += b
	}
	return sum
}

// most returns the most bytes in any span.
func (m *metered) most(span time.Duration) (most uint64) {
	n := int(span / meterBucket)
	sum := uint64(0)
	for i, b := range m.Buckets {
		sum += b
		if i >= n {
			sum -= m.Buckets[i-n]
		}
		most = max(most, sum)
	}
	return most
}

// between returns the bytes between two times since from.
func (m *metered) between(since time.Time, from, to time.Duration) (sum uint64) {
	at := since.Sub(m.Start)
	for i := max((at+from)/meterBucket, 0); i < min((at+to)/meterBucket, time.Duration(len(m.Buckets))); i++ {
		sum += m.Buckets[i]
	}
	return sum
}
