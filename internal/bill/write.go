package bill

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"time"
)

// JSON returns the bill for programs, by the names of the manual. Rates are in bits per second.
func (b *Bill) JSON() []map[string]any {
	j := b.common()
	maps.Copy(j, map[string]any{
		"rank": b.Rank.String(), "missing": b.Missing.String(),
		"samples": b.Samples, "missing_samples": b.Absent, "samples_total": b.Total,
		"in_bps": b.BPS(b.In), "out_bps": b.BPS(b.Out), "in_bytes": b.InBytes, "out_bytes": b.OutBytes,
		"billed_window_bytes": b.Billed, // exact; billed_bps is rounded
		"commit_bps":          nil, "transfer": nil,
		"free_left": b.FreeTotal - b.FreeUsed, "phases": b.Phases, "worst_phase_offset_s": b.WorstOffset.Seconds(),
		"forecast_bps": b.BPS(b.Forecast.Billed), "forecast_free_used": b.Forecast.FreeUsed,
		"forecast_in_bytes": b.Forecast.InBytes, "forecast_out_bytes": b.Forecast.OutBytes,
	})
	if b.Commit > 0 {
		j["commit_bps"] = b.BPS(b.Commit)
	}
	if x := b.Transfer; b.Cap > 0 {
		when := func(at int64) any {
			if at == 0 {
				return nil
			}
			return b.time(at)
		}
		j["transfer"] = map[string]any{
			"quota_bytes": b.Cap, "used_bytes": x.Used, "left_bytes": x.Left, "forecast_bytes": x.Forecast,
			"today_bps": 8 * x.Today, "mean_bps": 8 * x.Mean, "runs_out_today": when(x.TodayOut), "runs_out_mean": when(x.MeanOut),
		}
	}
	return []map[string]any{j}
}

// common returns the figures that a bill and a simulation have.
func (b *Bill) common() map[string]any {
	return map[string]any{
		"cycle": b.Cycle.Name, "start": b.time(b.Cycle.Start), "end": b.time(b.Cycle.End),
		"from": b.time(b.From), "to": b.time(b.To), // of which something is known
		"method": b.Method.String(), "percentile": b.Percentile.Float(), "window_s": b.Window.Seconds(),
		"billed_bps": b.BPS(b.Billed), "free_total": b.FreeTotal, "free_used": b.FreeUsed,
		"worst_phase_bps": b.BPS(b.WorstBilled), "worst_phase_free_used": b.WorstUsed,
	}
}

// JSON returns the bills for programs.
func (all Bills) JSON() (list []map[string]any) {
	for _, b := range all {
		list = append(list, b.JSON()...)
	}
	return list
}

// JSON returns the simulation for programs. Rates are in bits per second.
func (x *Simulated) JSON() []map[string]any {
	j := x.Bill.common()
	maps.Copy(j, map[string]any{
		"threshold": x.Threshold, "patience_s": x.Patience.Seconds(), "reserve": x.Reserve,
		"commit_bps": x.Bill.BPS(x.Commit), "natural_bps": x.Bill.BPS(x.Natural.Billed),
		"offered_bytes": x.Offered, "passed_bytes": x.Passed, "delayed_bytes": x.Delayed, "lost_bytes": x.Lost,
		"longest_delay_s": x.Longest.Seconds(),
		"passed_share":    x.PassedShare(), "flat_passed_share": x.FlatShare(), "all_knowing_passed_share": x.BestShare(),
	})
	return []map[string]any{j}
}

// JSON returns the plan for programs.
func (p Plan) JSON() (list []map[string]any) {
	knee := p.Knee()
	for i, x := range p {
		j := x.JSON()[0]
		j["knee"] = i == knee
		list = append(list, j)
	}
	return list
}

// Prometheus writes the bill in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func (b *Bill) Prometheus(w io.Writer) error {
	out := bufio.NewWriter(w)
	gauge := func(name string, v any) {
		fmt.Fprintf(out, "# TYPE quotabill_%s gauge\nquotabill_%s %v\n", name, name, v)
	}
	directions := func(name string, in, outbound any) {
		fmt.Fprintf(out, "# TYPE quotabill_%s gauge\n", name)
		fmt.Fprintf(out, "quotabill_%s{direction=\"in\"} %v\nquotabill_%s{direction=\"out\"} %v\n", name, in, name, outbound)
	}
	gauge("billed_bits_per_second", b.BPS(b.Billed))
	directions("percentile_bits_per_second", b.BPS(b.In), b.BPS(b.Out))
	directions("cycle_bytes", b.InBytes, b.OutBytes)
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
	return out.Flush()
}

// Slots writes the known slots of the cycle as time,offered,passed, in
// bytes that the method counts; for Separate, those of the billed direction. Outside of
// a simulation all passed.
func (b *Bill) Slots(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "time,offered,passed")
	m := b.Counted()
	for i, known := range b.offered.Known {
		if at := b.offered.at(i); known && at >= b.Cycle.Start && at < b.Cycle.End {
			offered, passed := m.Value(b.offered.In[i], b.offered.Out[i]), m.Value(b.passed.In[i], b.passed.Out[i])
			fmt.Fprintf(out, "%s,%d,%d\n", b.time(at).Format(time.RFC3339Nano), offered, passed)
		}
	}
	return out.Flush()
}
