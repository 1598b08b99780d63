package e2e

import (
	"encoding/json"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"framepipe/internal/ledger"
)

// Real TCP in both directions, in bursts, through gates that share a ledger and its free windows,
// on scaled time: windows of 1.2 s, ten in a cycle. The ledger has what passed, and by it no phase
// of a poller bills more than the commit.
func TestBudgetBothDirections(t *testing.T) {
	t.Parallel()
	for _, bill := range []string{"sum", "max"} {
		t.Run(bill, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			book := dir + "/ledger"
			gate := "quotagate -quota 6MB -window 1200ms -cycle 12s -percentile 70 -jitter 0 -ledger " + book + " -charge passed -bill " + bill + " -dir "
			meters := [2]string{dir + "/in", dir + "/out"}
			n := newNetwork(t, setup{
				in:  []string{gate + "in", meterStage(t, meters[0])},
				out: []string{gate + "out", meterStage(t, meters[1])},
			})
			near, far := connection(t, n.b, n.a, "10.0.0.1:0")
			for i, c := range []net.Conn{far, near} {
				go func() {
					for on := range 1 << 20 {
						end := time.Now().Add(time.Duration(400+300*((on+i)%3)) * time.Millisecond)
						for time.Now().Before(end) {
							if _, err := io.CopyN(c, &noise{}, 64<<10); err != nil {
								return
							}
						}
						time.Sleep(time.Duration(700+400*i) * time.Millisecond)
					}
				}()
				go func() { _, _ = io.Copy(io.Discard, c) }()
			}
			time.Sleep(14 * time.Second)
			n.stop()
			for d, name := range meters {
				m, sum := readMeter(t, name), charged(t, book, ledger.Direction(d))
				if m.total() != uint64(sum) {
					t.Errorf("direction %d: %d bytes passed, and the ledger has %d", d, m.total(), sum)
				}
			}
			over := 0
			for _, c := range worstPhases(t, book, "-quota 6MB -percentile 70 -method "+bill) {
				// Of a cycle that has only begun, the bill does not count all that will be free: 30% of
				// the nine windows that it has whole at any phase.
				if over += c.Over; c.BPS > c.Commit && c.Over > 2 {
					t.Errorf("%+v", c)
				}
			}
			if over == 0 {
				t.Error("no window was over, and so nothing was tested")
			}
		})
	}
}

// worstPhase returns which of the 60 phases of a poller bills most in a cycle.
type worstPhase struct {
	Phases int
	Commit float64 `json:"commit_bps"`
	BPS    float64 `json:"worst_phase_bps"`
	Over   int     `json:"worst_phase_free_used"` // windows
}

// worstPhases has quotabill bill the cycles of a ledger.
func worstPhases(t testing.TB, book, terms string) (all []worstPhase) {
	t.Helper()
	bills := json.NewDecoder(strings.NewReader(output(t, exec.Command("quotabill", append(strings.Fields(terms), "-all", "-json", book)...))))
	for bills.More() {
		var w worstPhase
		if err := bills.Decode(&w); err != nil || w.Commit == 0 || w.Phases != 60 {
			t.Fatalf("%+v, %v", w, err)
		}
		all = append(all, w)
	}
	return all
}
