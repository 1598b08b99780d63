package bill

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"time"
)

// JSON is a bill for programs.
type JSON struct {
	Cycle      string    `json:"cycle"`
	Start      time.Time `json:"start"` // of the cycle
	End        time.Time `json:"end"`
	From       time.Time `json:"from"` // bounds of its known part
	To         time.Time `json:"to"`
	Method     string    `json:"method"`
	Percentile float64   `json:"percentile"`
	Rank       string    `json:"rank"`
	Missing    string    `json:"missing"`
	Window     float64   `json:"window_s"`

	Samples int     `json:"samples"`
	Absent  int     `json:"missing_samples"`
	Billed  float64 `json:"billed_bps"`
	In      float64 `json:"in_bps"`
	Out     float64 `json:"out_bps"`
	// BilledBytes is exact; billed_bps is rounded.
	BilledBytes int64 `json:"billed_window_bytes"`
	InBytes     int64 `json:"in_bytes"`
	OutBytes    int64 `json:"out_bytes"`

	Commit      *float64 `json:"commit_bps"`
	SamplesEnd  int      `json:"samples_total"`
	FreeTotal   int      `json:"free_total"`
	FreeUsed    int      `json:"free_used"`
	FreeLeft    int      `json:"free_left"`
	Phases      int      `json:"phases"`
	WorstBilled float64  `json:"worst_phase_bps"`
	WorstOffset float64  `json:"worst_phase_offset_s"`
	WorstUsed   int      `json:"worst_phase_free_used"`

	ForecastBilled float64 `json:"forecast_bps"`
	ForecastIn     int64   `json:"forecast_in_bytes"`
	ForecastOut    int64   `json:"forecast_out_bytes"`
	ForecastUsed   int     `json:"forecast_free_used"`

	Transfer *JSONTransfer `json:"transfer"`
}

// JSONTransfer is the state of a transfer cap.
type JSONTransfer struct {
	Quota    int64      `json:"quota_bytes"`
	Used     int64      `json:"used_bytes"`
	Left     int64      `json:"left_bytes"`
	Today    float64    `json:"today_bps"`
	Mean     float64    `json:"mean_bps"`
	TodayOut *time.Time `json:"runs_out_today"` // at today's rate; null: not in this cycle
	MeanOut  *time.Time `json:"runs_out_mean"`
	Forecast int64      `json:"forecast_bytes"`
}

// JSON returns the bill for programs.
func (b *Bill) JSON() *JSON {
	j := &JSON{
		Cycle: b.Cycle.Name, Start: b.time(b.Cycle.Start), End: b.time(b.Cycle.End), From: b.time(b.From), To: b.time(b.To),
		Method: b.Method.String(), Percentile: b.Percentile.Float(), Rank: b.Rank.String(), Missing: b.Missing.String(), Window: b.Window.Seconds(),
		Samples: b.Samples, Absent: b.Absent, Billed: b.BPS(b.Billed), In: b.BPS(b.In), Out: b.BPS(b.Out),
		BilledBytes: b.Billed, InBytes: b.InBytes, OutBytes: b.OutBytes,
		SamplesEnd: b.Total, FreeTotal: b.FreeTotal, FreeUsed: b.FreeUsed, FreeLeft: b.FreeTotal - b.FreeUsed,
		Phases: b.Phases, WorstBilled: b.BPS(b.WorstBilled), WorstOffset: b.WorstOffset.Seconds(), WorstUsed: b.WorstUsed,
		ForecastBilled: b.BPS(b.Forecast.Billed), ForecastIn: b.Forecast.InBytes, ForecastOut: b.Forecast.OutBytes, ForecastUsed: b.Forecast.FreeUsed,
	}
	if b.Commit > 0 {
		bps := b.BPS(b.Commit)
		j.Commit = &bps
	}
	if x := b.Transfer; b.Cap > 0 {
		when := func(at int64) *time.Time {
			if at == 0 {
				return nil
			}
			t := b.time(at)
			return &t
		}
		j.Transfer = &JSONTransfer{
			Quota: b.Cap, Used: x.Used, Left: x.Left, Today: 8 * x.Today, Mean: 8 * x.Mean,
			TodayOut: when(x.TodayOut), MeanOut: when(x.MeanOut), Forecast: x.Forecast,
		}
	}
	return j
}

// Prometheus returns the bill in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func (b *Bill) Prometheus() []byte {
	var w bytes.Buffer
	gauge := func(name string, v any) {
		fmt.Fprintf(&w, "# TYPE quotabill_%s gauge\nquotabill_%s %v\n", name, name, v)
	}
	gauge("billed_bits_per_second", b.BPS(b.Billed))
	fmt.Fprintf(&w, "# TYPE quotabill_percentile_bits_per_second gauge\n")
	fmt.Fprintf(&w, "quotabill_percentile_bits_per_second{direction=\"in\"} %v\nquotabill_percentile_bits_per_second{direction=\"out\"} %v\n", b.BPS(b.In), b.BPS(b.Out))
	fmt.Fprintf(&w, "# TYPE quotabill_cycle_bytes gauge\nquotabill_cycle_bytes{direction=\"in\"} %d\nquotabill_cycle_bytes{direction=\"out\"} %d\n", b.InBytes, b.OutBytes)
	gauge("samples", b.Samples)
	gauge("missing_samples", b.Absent)
	if b.Commit > 0 {
		gauge("commit_bits_per_second", b.BPS(b.Commit))
	}
	gauge("free_windows_total", b.FreeTotal)
	gauge("free_windows_used", b.FreeUsed)
	gauge("worst_phase_bits_per_second", b.BPS(b.WorstBilled))
	gauge("worst_phase_free_windows_used", b.WorstUsed)
	gauge("forecast_bits_per_second", b.BPS(b.Forecast.Billed))
	gauge("forecast_free_windows_used", b.Forecast.FreeUsed)
	gauge("cycle_start_seconds", b.Cycle.Start/1e9)
	gauge("cycle_end_seconds", b.Cycle.End/1e9)
	gauge("known_until_seconds", float64(b.To)/1e9)
	if b.Cap > 0 {
		gauge("transfer_quota_bytes", b.Cap)
		gauge("transfer_used_bytes", b.Transfer.Used)
		gauge("transfer_forecast_bytes", b.Transfer.Forecast)
	}
	return w.Bytes()
}

// Slots writes the known slots of the cycle as time,offered,passed, in
// bytes that the method counts; for Separate, those of the billed direction. passed
// returns the bytes of a slot that passed, and is nil if all passed.
func (b *Bill) Slots(w io.Writer, s *Series, passed func(i int) int64) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "time,offered,passed")
	m := b.Counted()
	var line []byte
	for i := range s.In {
		at := s.at(i)
		if at < b.Cycle.Start || at >= b.Cycle.End || s.Known != nil && !s.Known[i] {
			continue
		}
		v := m.Value(s.In[i], s.Out[i])
		p := v
		if passed != nil {
			p = passed(i)
		}
		line = b.time(at).AppendFormat(line[:0], time.RFC3339Nano)
		line = fmt.Appendf(line, ",%d,%d\n", v, p)
		out.Write(line)
	}
	return out.Flush()
}
