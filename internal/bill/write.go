package bill

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"time"

	"framepipe/internal/metrics"
)

// given returns a value, or nil if it is not given.
func given(is bool, value any) any {
	if is {
		return value
	}
	return nil
}

// JSON returns the bill for programs, by the names of the manual. Rates are in bits per second.
// What cannot be said, or needs a commit or prices that are not given, is null.
func (b *Bill) JSON() []map[string]any {
	j, f := b.common(), &b.Forecast
	commit, foreseen, priced := b.Commit > 0, b.foreseen(), !b.Prices.None()
	maps.Copy(j, map[string]any{
		"rank": Ranks[b.Rank], "missing": Missings[b.Missing],
		"samples": b.Samples, "missing_samples": b.Absent, "samples_total": b.Total,
		"in_bps": b.BPS(b.In), "out_bps": b.BPS(b.Out), "in_bytes": b.InBytes, "out_bytes": b.OutBytes,
		"billed_window_bytes": b.Billed, // exact; billed_bps is rounded
		"least_bps":           b.BPS(b.Least), "phases": b.Phases, "worst_phase_offset_s": b.WorstOffset.Seconds(),
		"commit_bps": given(commit, b.BPS(b.Commit)), "free_left": given(commit, b.FreeTotal-b.FreeUsed),
		"forecast_bps": given(foreseen, b.BPS(f.Billed)), "forecast_free_used": given(foreseen, f.FreeUsed),
		"forecast_in_bytes": given(foreseen, f.InBytes), "forecast_out_bytes": given(foreseen, f.OutBytes),
		"forecast_low_bps": given(f.Trials > 0, b.BPS(f.Low)), "forecast_high_bps": given(f.Trials > 0, b.BPS(f.High)),
		"cost": given(priced, b.costJSON(b.Least)), "forecast_cost": given(priced && foreseen, b.costJSON(f.Billed)),
		"transfer": given(b.Cap > 0, b.transferJSON()),
	})
	return []map[string]any{j}
}

func (b *Bill) transferJSON() map[string]any {
	x, foreseen := b.Transfer, b.foreseen()
	when := func(at int64) any { return given(at != 0 && (foreseen || x.Left < 0), b.time(at)) }
	return map[string]any{
		"quota_bytes": b.Cap, "used_bytes": x.Used, "left_bytes": x.Left, "forecast_bytes": given(foreseen, x.Forecast),
		"today_bps": 8 * x.Today, "mean_bps": 8 * x.Mean,
		"runs_out_today": when(x.TodayOut), "runs_out_mean": when(x.MeanOut),
	}
}

// number returns an amount as a decimal number, which is exact.
func (m Money) number() json.Number { return json.Number(m.String()) }

// costJSON returns the cost if so many bytes of a window are billed.
func (b *Bill) costJSON(billed int64) map[string]any {
	c := b.cost(billed)
	return map[string]any{
		"currency": b.Prices.Currency, "commit": c.Commit.number(), "overage": c.Overage.number(),
		"overage_bps": c.Over, "total": c.Total.number(),
	}
}

// common returns the figures that a bill and a simulation have.
func (b *Bill) common() map[string]any {
	return map[string]any{
		"cycle": b.Cycle.Name, "start": b.time(b.Cycle.Start), "end": b.time(b.Cycle.End),
		"from": b.time(b.From), "to": b.time(b.To), // of which something is known
		"method": b.Method.String(), "percentile": float64(b.Percentile) / 1e9, "window_s": b.Window.Seconds(),
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
		"passed_share":    x.PassedShare(), "flat_passed_share": x.FlatShare(),
	})
	return []map[string]any{j}
}

// JSON returns the plan for programs.
func (p Plan) JSON() (list []map[string]any) {
	knee, _, _ := p.best()
	marked, mark := p.marked()
	for _, x := range p {
		j, priced := x.JSON()[0], !x.Prices.None()
		j["knee"], j["mark"] = x == knee, given(x == marked, mark)
		j["cost"], j["paid_cost"] = given(priced, x.held().number()), given(priced, x.paid().number())
		list = append(list, j)
	}
	return list
}

// Prometheus writes the bill in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/). The labels are those of all series.
func (b *Bill) Prometheus(w io.Writer, labels ...metrics.Label) error {
	out := metrics.New("quotabill_", labels...)
	gauge := out.Gauge
	directions := func(name, help string, in, outbound any) {
		gauge(name, help, in, metrics.Label{Name: "direction", Value: "in"})
		gauge(name, help, outbound, metrics.Label{Name: "direction", Value: "out"})
	}
	f := &b.Forecast
	gauge("billed_bits_per_second", "What is billed for the known part of the cycle.", b.BPS(b.Billed))
	gauge("least_bits_per_second", "What is billed at the end of the cycle if nothing more comes.", b.BPS(b.Least))
	directions("percentile_bits_per_second", "The percentile of each direction.", b.BPS(b.In), b.BPS(b.Out))
	directions("cycle_bytes", "All bytes of the known part of the cycle.", b.InBytes, b.OutBytes)
	gauge("samples", "Samples that count.", b.Samples)
	gauge("missing_samples", "Samples that are missing.", b.Absent)
	gauge("free_windows_total", "Windows of the cycle that cost nothing.", b.FreeTotal)
	gauge("worst_phase_bits_per_second", "The most that a phase of the provider's poller bills.", b.BPS(b.WorstBilled))
	if b.Commit > 0 {
		gauge("commit_bits_per_second", "The commit.", b.BPS(b.Commit))
		gauge("free_windows_used", "Windows over the commit.", b.FreeUsed)
		gauge("worst_phase_free_windows_used", "Windows over the commit in the phase that has most.", b.WorstUsed)
	}
	if b.foreseen() {
		gauge("forecast_bits_per_second", "What is billed at the end of the cycle if its rest is like the week before.", b.BPS(f.Billed))
		if b.Commit > 0 {
			gauge("forecast_free_windows_used", "Windows over the commit at the end of the cycle.", f.FreeUsed)
		}
	}
	if f.Trials > 0 {
		gauge("forecast_low_bits_per_second", "The low end of the forecast, by the errors of earlier ones.", b.BPS(f.Low))
		gauge("forecast_high_bits_per_second", "The high end of the forecast, by the errors of earlier ones.", b.BPS(f.High))
	}
	if !b.Prices.None() {
		currency := metrics.Label{Name: "currency", Value: b.Prices.Currency}
		gauge("cost", "What the cycle costs if nothing more comes.", b.cost(b.Least).Total, currency)
		if b.foreseen() {
			gauge("forecast_cost", "What the cycle costs by the forecast.", b.cost(f.Billed).Total, currency)
		}
	}
	gauge("cycle_start_seconds", "When the cycle begins, since the Unix epoch.", b.Cycle.Start/1e9)
	gauge("cycle_end_seconds", "When the cycle ends, since the Unix epoch.", b.Cycle.End/1e9)
	gauge("known_until_seconds", "Up to when the cycle is known, since the Unix epoch.", float64(b.To)/1e9)
	if b.Cap > 0 {
		gauge("transfer_quota_bytes", "The transfer cap.", b.Cap)
		gauge("transfer_used_bytes", "What is used of the transfer cap.", b.Transfer.Used)
		if b.foreseen() {
			gauge("transfer_forecast_bytes", "What is used of the transfer cap at the end of the cycle, by the forecast.", b.Transfer.Forecast)
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

// Slots writes the known slots of the cycle as time,in,out,offered_in,offered_out, in bytes: what passed,
// and what came, which outside of a simulation is the same.
func (b *Bill) Slots(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "time,in,out,offered_in,offered_out")
	for i, known := range b.offered.Known {
		if at := b.offered.at(i); known && at >= b.Cycle.Start && at < b.Cycle.End {
			fmt.Fprintf(out, "%s,%d,%d,%d,%d\n", b.time(at).Format(time.RFC3339Nano),
				b.passed.In[i], b.passed.Out[i], b.offered.In[i], b.offered.Out[i])
		}
	}
	return out.Flush()
}
