package bill

import (
	"io"
	"time"
)

// SimulatedJSON is a simulation for programs. Rates are bits per second.
type SimulatedJSON struct {
	Cycle      string    `json:"cycle"`
	Start      time.Time `json:"start"` // of the cycle
	End        time.Time `json:"end"`
	From       time.Time `json:"from"` // bounds of its known demand
	To         time.Time `json:"to"`
	Method     string    `json:"method"`
	Percentile float64   `json:"percentile"`
	Window     float64   `json:"window_s"`
	Threshold  float64   `json:"threshold"`
	Patience   float64   `json:"patience_s"`
	Reserve    int64     `json:"reserve"`

	Commit      float64 `json:"commit_bps"`
	Natural     float64 `json:"natural_bps"`
	Billed      float64 `json:"billed_bps"`
	WorstBilled float64 `json:"worst_phase_bps"`
	WorstUsed   int     `json:"worst_phase_free_used"`
	FreeTotal   int     `json:"free_total"`
	FreeUsed    int     `json:"free_used"`

	Offered int64   `json:"offered_bytes"`
	Passed  int64   `json:"passed_bytes"`
	Delayed int64   `json:"delayed_bytes"`
	Lost    int64   `json:"lost_bytes"`
	Longest float64 `json:"longest_delay_s"`

	PassedShare float64 `json:"passed_share"`
	FlatShare   float64 `json:"flat_passed_share"`
	BestShare   float64 `json:"all_knowing_passed_share"`

	Knee *bool `json:"knee,omitempty"` // of a plan
}

// JSON returns the simulation for programs.
func (x *Simulated) JSON() *SimulatedJSON {
	b := x.Bill
	return &SimulatedJSON{
		Cycle: x.Cycle.Name, Start: b.time(x.Cycle.Start), End: b.time(x.Cycle.End), From: b.time(x.From), To: b.time(x.To),
		Method: x.Method.String(), Percentile: x.Percentile.Float(), Window: x.Window.Seconds(),
		Threshold: x.Threshold, Patience: x.Patience.Seconds(), Reserve: x.Reserve,
		Commit: b.BPS(x.Commit), Natural: b.BPS(x.Natural.Billed), Billed: b.BPS(b.Billed),
		WorstBilled: b.BPS(b.WorstBilled), WorstUsed: b.WorstUsed, FreeTotal: b.FreeTotal, FreeUsed: b.FreeUsed,
		Offered: x.Offered, Passed: x.Passed, Delayed: x.Delayed, Lost: x.Lost, Longest: x.Longest.Seconds(),
		PassedShare: x.PassedShare(), FlatShare: x.FlatShare(), BestShare: x.BestShare(),
	}
}

// Slots writes the slots of the cycle as time,offered,passed, as Bill.Slots does.
func (x *Simulated) Slots(w io.Writer) error {
	m := x.Bill.Counted()
	return x.Bill.Slots(w, x.offered, func(i int) int64 { return m.Value(x.passed.In[i], x.passed.Out[i]) })
}
