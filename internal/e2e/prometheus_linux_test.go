package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/nettest"
)

// A real Prometheus that scrapes the metrics of a gate and of its bill has an answer to each
// query of the dashboard, and finds no fault in the rules.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	nettest.Programs(t, "prometheus", "promtool")
	dir := t.TempDir()
	day, now := int64(24*time.Hour), time.Now().UnixNano()
	days := int64(20) // of the cycle, of which a half or more is over, so that there is a forecast
	for ; now%(days*day) < days*day/2; days++ {
	}
	in := streamFrom(uint64(now-10*day), 3000, 500, 10*time.Duration(day)/3000)
	for _, way := range []string{"in", "out"} {
		_, said, status := through(t, in, "quotagate", "-rate", "2kbit/s", "-percentile", "95", "-clock", "stream", "-cycle", fmt.Sprint(days, "d"), "-ledger", dir+"/bill", "-dir", way, "-metrics", dir+"/"+way+".prom")
		if status != 0 {
			t.Fatal(status, said)
		}
	}
	output(t, exec.Command("quotabill", "-rate", "2kbit/s", "-price", "9.50", "-prom", dir+"/bill.prom", dir+"/bill"))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() { _ = http.Serve(listener, http.FileServer(http.Dir(dir))) }()

	rules := root + "/examples/prometheus-rules.yml"
	output(t, exec.Command("promtool", "check", "rules", rules))
	write(t, dir+"/rules.yml", read(t, rules))
	targets := ""
	for _, name := range []string{"in", "out", "bill"} {
		targets += fmt.Sprintf("  - {targets: ['%s'], labels: {__metrics_path__: /%s.prom}}\n", listener.Addr(), name)
	}
	write(t, dir+"/prometheus.yml", `global: {scrape_interval: 250ms, evaluation_interval: 250ms}
rule_files: [rules.yml]
scrape_configs:
- job_name: textfile
  static_configs:
`+targets)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	prometheus := exec.Command("prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/tsdb", "--web.listen-address="+address)
	pipeline(t, nil, nil, prometheus)

	query := func(expr string) (series int) {
		out, err := exec.Command("promtool", "query", "instant", "http://"+address, expr).CombinedOutput()
		if err != nil {
			t.Logf("%s: %s", expr, out)
			return -1
		}
		return bytes.Count(out, []byte(" => "))
	}
	eventually(t, 30*time.Second, "rates and a bill", func() bool {
		return query("rate(quotagate_passed_bytes_total[1m])") == 2 && query("quotabill_samples") == 1
	})
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, root+"/examples/grafana.json")), &board); err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			queries++
			expr := strings.NewReplacer("$ledger", ".*", "$__rate_interval", "1m").Replace(target.Expr)
			if n := query(expr); n <= 0 {
				t.Errorf("%s: %s: %d series", panel.Title, expr, n)
			}
		}
	}
	if queries < 10 {
		t.Errorf("%d queries in the dashboard", queries)
	}

	type rule struct{ Name, Query, Health, LastError string }
	var state struct {
		Data struct{ Groups []struct{ Rules []rule } }
	}
	eventually(t, 10*time.Second, "the rules", func() bool {
		answer, err := http.Get("http://" + address + "/api/v1/rules")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		err = json.NewDecoder(answer.Body).Decode(&state)
		unknown := func(r rule) bool { return r.Health == "unknown" }
		return err == nil && len(state.Data.Groups) == 1 && !slices.ContainsFunc(state.Data.Groups[0].Rules, unknown)
	})
	for _, r := range state.Data.Groups[0].Rules {
		if n := query(r.Query); n < 0 || r.Health != "ok" || strings.HasPrefix(r.Name, "framepipe:") && n == 0 {
			t.Errorf("%s: %s: %s %s, %d series", r.Name, r.Query, r.Health, r.LastError, n)
		}
	}
}
