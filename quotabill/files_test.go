package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/cli"
	"framepipe/internal/samples"
)

// portsOf returns a job for files of these contents, and their ports.
func portsOf(t *testing.T, add string, contents ...string) (*job, []samples.Port) {
	t.Helper()
	j := &job{given: none, add: add, zone: "UTC", format: samples.Format{}}
	j.calendar.Day, j.terms.Percentile, j.window.Duration = 1, 95e9, cli.Duration(5*time.Minute)
	for i, content := range contents {
		name := filepath.Join(t.TempDir(), "abc"[i:i+1])
		if err := os.WriteFile(name, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		j.csv = append(j.csv, name)
	}
	if err := j.check(); err != nil {
		t.Fatal(err)
	}
	ports, err := j.fromFiles(&cli.Tool{})
	if err != nil {
		t.Fatal(err)
	}
	return j, ports
}

// Several ports are added up as the user says, and never without a word.
func TestAdd(t *testing.T) {
	one := "2026-11-10 00:00:00,375000000,0\n2026-11-10 00:05:00,0,0\n"
	other := "2026-11-10 00:00:00,0,0\n2026-11-10 00:05:00,375000000,0\n"
	j, ports := portsOf(t, addSamples, one, other)
	for x := range ports[0].All() {
		if len(ports) != 1 || ports[0].Len() != 2 || x.In != 375000000 {
			t.Error(ports, x)
		}
	}
	j.add = ""
	if _, err := j.fromFiles(&cli.Tool{}); err == nil || !strings.HasPrefix(err.Error(), "there are 2 ports: ") {
		t.Error(err)
	}
	j, ports = portsOf(t, addPercentiles, one, other)
	r, err := j.report(ports, ports[0].Cycles(j.calendar))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := r.Text(&text, bill.Style{}); err != nil || !strings.Contains(text.String(), "20.0 Mbit/s") {
		t.Errorf("%s%v", &text, err)
	}
	if list := r.JSON(); len(list) != 3 || list[2]["billed_bps"] != 2e7 || list[0]["port"] != ports[0].Name {
		t.Error(list)
	}
}

// One sample of the next month is not that month's bill, unless it is asked for.
func TestOneOfTheNextMonth(t *testing.T) {
	j, ports := portsOf(t, "", "2026-11-30 23:50:00,1,1\n2026-11-30 23:55:00,1,1\n2026-12-01 00:00:00,1,1\n")
	for given, want := range map[string]string{"": "2026-11", "2026-12": "2026-12"} {
		j.cycle = given
		if cycles, err := j.cycles(&cli.Tool{}, ports[0].Samples); err != nil || len(cycles) != 1 || cycles[0].Name != want {
			t.Errorf("%q: %v %v", given, cycles, err)
		}
	}
}

// A commit may be free, with a price for its overage.
func TestFreeCommit(t *testing.T) {
	j, _ := portsOf(t, "", "2026-11-10 00:00:00,0,1\n2026-11-10 00:05:00,0,1\n")
	j.rate, j.terms.Prices.Overage = 1e6, 2e6
	j.given = func(names ...string) bool {
		return slices.Contains(names, "price") || slices.Contains(names, "overage")
	}
	if err := j.check(); err != nil {
		t.Error(err)
	}
	if cost := j.terms.Prices.Of(1e6, 3e6); cost.Total != 4e6 {
		t.Error(cost)
	}
}
