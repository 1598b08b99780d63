package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
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

	// node_exporter joins the files, and has each HELP once.
	exporter := http.NewServeMux()
	exporter.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		helped := map[string]bool{}
		for _, name := range []string{"in.prom", "out.prom", "bill.prom"} {
			for line := range strings.Lines(read(t, dir+"/"+name)) {
				if strings.HasPrefix(line, "#") && helped[line] {
					continue
				}
				helped[line] = true
				_, _ = io.WriteString(w, line)
			}
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: exporter}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	rules := root + "/examples/prometheus-rules.yml"
	output(t, exec.Command("promtool", "check", "rules", rules))
	write(t, dir+"/rules.yml", read(t, rules))
	write(t, dir+"/prometheus.yml", fmt.Sprintf(`global: {scrape_interval: 250ms, evaluation_interval: 250ms}
rule_files: [rules.yml]
scrape_configs: [{job_name: textfile, static_configs: [{targets: ["%s"]}]}]
`, listener.Addr()))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	said, err := os.Create(dir + "/said")
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	prometheus := exec.Command("prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/tsdb", "--web.listen-address="+address)
	prometheus.Stdout, prometheus.Stderr = said, said
	if err := prometheus.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = prometheus.Process.Kill(); _ = prometheus.Wait() }()

	get := func(path string, into any) error {
		answer, err := http.Get("http://" + address + "/api/v1/" + path)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		return json.NewDecoder(answer.Body).Decode(into)
	}
	ask := func(query string) (series int, fault string) {
		var a struct {
			Error string
			Data  struct{ Result []json.RawMessage }
		}
		if err := get("query?query="+url.QueryEscape(query), &a); err != nil {
			return 0, err.Error()
		}
		return len(a.Data.Result), a.Error
	}
	eventually(t, 30*time.Second, "rates", func() bool {
		n, _ := ask("rate(quotagate_passed_bytes_total[1m])")
		return n == 2
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
			query := strings.NewReplacer("$ledger", ".*", "$__rate_interval", "1m").Replace(target.Expr)
			if n, fault := ask(query); n == 0 || fault != "" {
				t.Errorf("%s: %s: %d series %s", panel.Title, query, n, fault)
			}
		}
	}
	if queries < 10 {
		t.Errorf("%d queries in the dashboard", queries)
	}

	var state struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Query, Health, LastError string }
			}
		}
	}
	evaluated := func() bool {
		if err := get("rules", &state); err != nil || len(state.Data.Groups) != 1 {
			return false
		}
		for _, r := range state.Data.Groups[0].Rules {
			if r.Health == "unknown" {
				return false
			}
		}
		return true
	}
	eventually(t, 10*time.Second, "the rules", evaluated)
	for _, r := range state.Data.Groups[0].Rules {
		if r.Health != "ok" {
			t.Errorf("%s: %s: %s", r.Name, r.Health, r.LastError)
		}
		if n, fault := ask(r.Query); fault != "" || strings.HasPrefix(r.Name, "framepipe:") && n == 0 {
			t.Errorf("%s: %s: %d series %s", r.Name, r.Query, n, fault)
		}
	}
}
