package samples

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The files in testdata were written by these programs, of Debian 12, from random traffic
// of the first hours of November 2026 with two samples missing:
//
//	vnstat-*.json     vnStat 2.10: vnstat --json f 60 -i eth0; --json h -i eth0; --json
//	rrdtool-*         RRDtool 1.7.2: rrdtool fetch port.rrd AVERAGE -s … -e …;
//	                  rrdtool xport [--json] [-t] -s … -e … DEF:a=… DEF:b=… XPORT:a:in XPORT:b:out;
//	                  rrdtool dump port.rrd
//	mrtg.log          MRTG 2.17.10: rateup, called as mrtg does, 700 times
//	prometheus*.json  Prometheus 2.42: query_range with step=300 of the counters of node_exporter,
//	                  and of rate(…[10m])*8
//	nfdump.csv        nfdump 1.7.1: nfcapd was sent NetFlow 5; nfdump -r … -o csv
//	cacti*.csv        Cacti 1.2.24 with MariaDB and a port's RRD: graph_xport.php?local_graph_id=…&graph_start=…&graph_end=…,
//	                  of the template "Interface - Traffic (bits/sec, 95th)", and for a German user of "(bits/sec)"
//	librenms-*.tsv    MariaDB 10.11 with LibreNMS's table bill_data: mariadb -B -e 'select * from bill_data where bill_id=1'
//
// No package has Grafana or LibreNMS. Of these, the code that writes the file ran, and the rest was replaced:
//
//	grafana*.csv      @grafana/data 13.2.3 of npm in node 20, as "Inspect, Data, Download CSV" calls it: joinByField of two data
//	                  frames, applyRawFieldOverrides or applyFieldOverrides (formatted), cacheFieldDisplayNames, toCSV. -excel
//	                  is the option "Download for Excel" of today: toCSV with tabs, UTF-16; -sep that of versions before,
//	                  useExcelHeader, with formatted values; -units is formatted values with the unit bps. The data frames
//	                  are made up, not those of a panel.
//	librenms-*.json   Billing::getBitsGraphData of LibreNMS (commit 005ea2fe), with Illuminate's database 8.83 and the same
//	                  table; in place of the route and of api_success, {"status", "graph_data", "count"} by json_encode, pretty
//	                  printed, as api_success has it. Its bill_data are random, not polled.

// slow is samples that a test computes: bytes of both directions by the time in seconds.
type slow map[int64][2]float64

func (s slow) add(at int64, direction int, bytes float64) {
	x := s[at]
	x[direction] += bytes
	s[at] = x
}

// spread adds the bytes between two times to their samples, in whole numbers.
func (s slow) spread(direction int, from, to, bytes int64) {
	for at, rest := from/300*300, bytes; rest > 0; at += 300 {
		later := bytes * max(to-at-300, 0) / max(to-from, 1)
		s.add(at, direction, float64(rest-later))
		rest = later
	}
}

// rows returns the groups of each match in a file.
func rows(t *testing.T, name, pattern string) (all [][]string) {
	t.Helper()
	for _, g := range regexp.MustCompile(pattern).FindAllStringSubmatch(data(t, name), -1) {
		all = append(all, g[1:])
	}
	if len(all) < 4 {
		t.Fatalf("%s: %d rows", name, len(all))
	}
	return all
}

const start = 1793491200 // 2026-11-01 UTC

func whole(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// seconds reads seconds or milliseconds since 1970, or a time in UTC.
func seconds(text string) int64 {
	if at, err := time.Parse(time.DateTime, text); err == nil {
		return at.Unix()
	}
	return whole(text[:min(len(text), 10)])
}

// stamped is the rows of a time, if there is one, and both directions. Times are late by so many seconds, and
// bytes are the values times a factor.
func stamped(t *testing.T, name, pattern string, late int64, factor float64) slow {
	s, at := slow{}, int64(start+300)
	for _, g := range rows(t, name, pattern) {
		if len(g) == 3 {
			at, g = seconds(g[0]), g[1:]
		}
		for d, text := range g {
			if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(v) {
				s.add(at-late, d, v*factor)
			}
		}
		at += 300
	}
	return s
}

// counters is the differences of the counters of eth0, one series after the other, spread over the samples between them.
func counters(t *testing.T) slow {
	s, d, before, last := slow{}, in-1, int64(math.MaxInt64), int64(0)
	for _, g := range rows(t, "prometheus.json", `\[(\d+),"(\d+)"\]`) {
		at, n := whole(g[0]), whole(g[1])
		switch {
		case at < before:
			d++
		case n < last: // the machine began anew
			s.spread(d, before, at, n)
		default:
			s.spread(d, before, at, n-last)
		}
		before, last = at, n
	}
	return s
}

// mrtg is the steps of five minutes, and the beginnings of those that a poll cut.
func mrtg(t *testing.T) slow {
	s, all := slow{}, rows(t, "mrtg.log", `(?m)^(\d+) (\d+) (\d+) \d+ \d+$`)
	for i, g := range all[:len(all)-1] {
		end, begin := whole(g[0]), whole(all[i+1][0])
		if end-begin <= 300 {
			for d := range 2 {
				s.add((begin+end)/2/300*300, d, float64(whole(g[1+d])*(end-begin)))
			}
		}
	}
	return s
}

// flows is the flows of interface 1, each spread by the second over its samples.
func flows(t *testing.T) slow {
	s := slow{}
	pattern := `(?m)^(2026-\S+ \S+),(2026-[^,]+),[^,]+,[0-9.]+,[0-9.]+,\d+,\d+,TCP,[^,]+,\d+,\d+,\d+,(\d+),0,0,(\d),`
	for _, g := range rows(t, "nfdump.csv", pattern) {
		s.spread(map[bool]int{true: in, false: out}[g[3] == "1"], seconds(g[0]), seconds(g[1]), whole(g[2]))
	}
	return s
}

// graph is the rates of LibreNMS's graph, in the samples that end nearest.
func graph(t *testing.T) slow {
	var x struct {
		Data struct {
			Ticks []int64
			In    []float64 `json:"in_data"`
			Out   []float64 `json:"out_data"`
		} `json:"graph_data"`
	}
	if err := json.Unmarshal([]byte(data(t, "librenms-graph.json")), &x); err != nil || len(x.Data.Ticks) < 4 {
		t.Fatal(err)
	}
	s := slow{}
	for i, at := range x.Data.Ticks {
		s[(at+150)/300*300-300] = [2]float64{in: x.Data.In[i] * 300 / 8, out: x.Data.Out[i] * 300 / 8}
	}
	return s
}

// billData is the polls of LibreNMS's table, in the samples that end nearest, or spread over several.
func billData(t *testing.T) slow {
	s := slow{}
	pattern := `(?m)^\d+\t1\t(\S+ \S+)\t(\d+)\t\d+\t(\d+)\t(\d+)$`
	for _, g := range rows(t, "librenms-bill_data.tsv", pattern) {
		end, length := (seconds(g[0])+150)/300*300, (whole(g[1])+150)/300*300
		for d := range 2 {
			s.spread(d, end-length, end, whole(g[2+d]))
		}
	}
	return s
}

// What each program wrote is read to the byte as a slow computation reads it.
func TestPrograms(t *testing.T) {
	const five = 5 * time.Minute
	vnstat := func(name string) slow {
		return stamped(t, name, `"time":\{"hour":\d+,"minute":\d+\},"timestamp":(\d+),"rx":(\d+),"tx":(\d+)`, 0, 1)
	}
	rrd := func(name, pattern string) slow { return stamped(t, name, pattern, 300, 300) }
	bits := func(name string, late int64) slow {
		const value = `[,\t](?:"[^"]+",)?"?([-+.0-9e]+)"?`
		return stamped(t, name, `(?m)^"?([-0-9: ]{13,19})"?`+value+value+`\r?$`, late, 300./8)
	}
	for _, tt := range []struct {
		name, args string
		slot       time.Duration
		want       slow
	}{
		{"vnstat-fiveminute.json", "", five, vnstat("vnstat-fiveminute.json")},
		{"vnstat-hour.json", "", time.Hour, vnstat("vnstat-hour.json")},
		{"rrdtool-fetch.txt", "", five, rrd("rrdtool-fetch.txt", `(\d+): (\S+) (\S+)`)},
		{"rrdtool-dump.xml", "", five, rrd("rrdtool-fetch.txt", `(\d+): (\S+) (\S+)`)},
		{"rrdtool-xport.xml", "-format bytes", five, rrd("rrdtool-xport.xml", `<row><v>(.*?)</v><v>(.*?)</v>`)},
		{"rrdtool-xport-t.xml", "-format bytes", five, rrd("rrdtool-xport-t.xml", `<t>(.*?)</t><v>(.*?)</v><v>(.*?)</v>`)},
		{"rrdtool-xport.json", "-format bytes", five, rrd("rrdtool-xport.json", `\[ (\S+), (\S+) \]`)},
		{"rrdtool-xport-t.json", "-format bytes", five, rrd("rrdtool-xport-t.json", `\[ "(\d+)",(\S+), (\S+) \]`)},
		{"mrtg.log", "", five, mrtg(t)},
		{"prometheus.json", "", five, counters(t)},
		{"nfdump.csv", "-format if=1", five, flows(t)},
		{"cacti.csv", "", five, bits("cacti.csv", 600)},
		{"cacti-german.csv", "", five, bits("cacti-german.csv", 600)},
		{"grafana.csv", "-format bits,end", five, bits("grafana.csv", 300)},
		{"grafana-sep.csv", "-format bits,end", five, bits("grafana-sep.csv", 300)},
		{"grafana-excel.csv", "-format bits,end", five, bits("grafana.csv", 300)},
		{"librenms-graph.json", "", five, graph(t)},
		{"librenms-bill_data.tsv", "", five, billData(t)},
	} {
		ports, _, err := readWith(t, data(t, tt.name), tt.args)
		if err != nil || len(ports) != 1 || ports[0].Len() != len(tt.want) || ports[0].Slot != tt.slot {
			t.Errorf("%s: %v %+v, want %d samples", tt.name, err, ports, len(tt.want))
			continue
		}
		for x := range ports[0].All() {
			const half = 0.5 + 1e-4 // as far as a rounded number of bytes is from a quotient
			want, known := tt.want[x.At/1e9]
			if !known || math.Abs(float64(x.In)-want[in]) > half || math.Abs(float64(x.Out)-want[out]) > half {
				t.Errorf("%s: %s: %d %d, want %v", tt.name, time.Unix(0, x.At).UTC(), x.In, x.Out, want)
			}
		}
	}
}

// A file may have several ports. Grafana does not say whether values are bits or bytes, and rounds those with units.
func TestPorts(t *testing.T) {
	for file, want := range map[string]string{
		"vnstat-two.json":     "<nil> eth0 eth1",
		"prometheus-two.json": "<nil> device=eth0 instance=r1:9100 device=eth1 instance=r1:9100",
		"prometheus-rate.json -format in=eth0,rate,bits": "<nil> device=eth0 instance=r1:9100",
		"grafana.csv":                    `line 1: "Inbound": bits or bytes?`,
		"grafana-sep.csv":                `line 2: "Inbound": bits or bytes?`,
		"grafana-units.csv -format bits": `line 2: in: "360 kb/s" is not a number`,
	} {
		name, args, _ := strings.Cut(file, " ")
		ports, _, err := readWith(t, data(t, name), args)
		got := fmt.Sprint(err)
		for _, p := range ports {
			got += " " + p.Name
		}
		if got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}
