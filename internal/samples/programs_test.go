package samples

import (
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"framepipe/internal/bill"
	"framepipe/internal/calendar"
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
type slow map[int64]*[2]*big.Rat

func (s slow) add(at int64, direction int, bytes *big.Rat) {
	if s[at] == nil {
		s[at] = &[2]*big.Rat{new(big.Rat), new(big.Rat)}
	}
	s[at][direction].Add(s[at][direction], bytes)
}

func rat(text string, factor int64) *big.Rat {
	x, ok := new(big.Rat).SetString(text)
	if !ok {
		panic(text)
	}
	return x.Mul(x, big.NewRat(factor, 1))
}

// rows calls a function with the groups of each match in a file.
func rows(t *testing.T, name, pattern string, each func(g []string)) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(pattern).FindAllStringSubmatch(string(data), -1)
	if len(all) < 4 {
		t.Fatalf("%s: %d rows", name, len(all))
	}
	for _, g := range all {
		each(g)
	}
}

const start = 1793491200 // 2026-11-01 UTC

func number64(text string) (n int64) { fmt.Sscan(text, &n); return n }

// rrd is samples of rates whose times are ends.
func rrd(t *testing.T, name, pattern string, stamped bool) slow {
	s, at := slow{}, int64(start+300)
	rows(t, name, pattern, func(g []string) {
		values := g[1:]
		if stamped {
			at, values = number64(g[1]), g[2:]
		}
		if v := strings.ToLower(values[0]); !strings.Contains(v, "nan") && v != "null" {
			s.add(at-300, in, rat(values[0], 300))
			s.add(at-300, out, rat(values[1], 300))
		}
		at += 300
	})
	return s
}

func vnstat(t *testing.T, name string) slow {
	s := slow{}
	rows(t, name, `"time":\{"hour":\d+,"minute":\d+\},"timestamp":(\d+),"rx":(\d+),"tx":(\d+)`, func(g []string) {
		s.add(number64(g[1]), in, rat(g[2], 1))
		s.add(number64(g[1]), out, rat(g[3], 1))
	})
	return s
}

// counters is the differences of the counters of eth0, spread over the samples between them.
func counters(t *testing.T) slow {
	var x struct {
		Data struct {
			Result []struct{ Values [][2]any }
		}
	}
	data, err := os.ReadFile("testdata/prometheus.json")
	if err == nil {
		err = json.Unmarshal(data, &x)
	}
	if err != nil || len(x.Data.Result) != 2 {
		t.Fatal(err)
	}
	s := slow{}
	for d, series := range x.Data.Result {
		last, before := int64(0), int64(0)
		for i, v := range series.Values {
			at, n := int64(v[0].(float64)), number64(v[1].(string))
			if bytes := n - last; i > 0 {
				if bytes < 0 { // the machine began anew
					bytes = n
				}
				parts := (at - before) / 300
				for k := range parts {
					share := bytes / parts
					if k < bytes%parts {
						share++
					}
					s.add(before+k*300, d, big.NewRat(share, 1))
				}
			}
			last, before = n, at
		}
	}
	return s
}

// mrtg is the steps of five minutes, and the beginnings of those that a poll cut.
func mrtg(t *testing.T) slow {
	s, all := slow{}, [][]string{}
	rows(t, "mrtg.log", `(?m)^(\d+) (\d+) (\d+) \d+ \d+$`, func(g []string) { all = append(all, g) })
	for i, g := range all[:len(all)-1] {
		end, begin := number64(g[1]), number64(all[i+1][1])
		if end-begin <= 300 {
			for d := range 2 {
				s.add((begin+end)/2/300*300, d, rat(g[2+d], end-begin))
			}
		}
	}
	return s
}

// flows is the flows of interface 1, each spread by the second over its samples.
func flows(t *testing.T) slow {
	s := slow{}
	for i := range int64(10) {
		s.add(start+300*i, in, new(big.Rat))
	}
	pattern := `(?m)^(2026-\S+ \S+),(2026-[^,]+),[^,]+,([0-9.]+),[0-9.]+,\d+,\d+,TCP,[^,]+,\d+,\d+,\d+,(\d+),0,0,(\d),`
	rows(t, "nfdump.csv", pattern, func(g []string) {
		from, _ := time.Parse(time.DateTime, g[1])
		to, _ := time.Parse(time.DateTime, g[2])
		d, rest := in, number64(g[4])
		if g[5] != "1" {
			d = out
		}
		for at := from.Unix() / 300 * 300; at <= to.Unix(); at += 300 {
			later := number64(g[4]) * max(to.Unix()-at-300, 0) / max(to.Unix()-from.Unix(), 1)
			s.add(at, d, big.NewRat(rest-later, 1))
			rest = later
		}
	})
	for at, x := range s {
		if x[in].Sign() == 0 && x[out].Sign() == 0 {
			delete(s, at)
		}
	}
	return s
}

// rated is samples of rates in bits, whose local times are ends, or late by more.
func rated(t *testing.T, name string, late int64) slow {
	s := slow{}
	rows(t, name, `(?m)^"?([-0-9: ]{13,19})"?[,\t](?:"[^"]+",)?"?([-+.0-9e]+)"?[,\t](?:"[^"]+",)?"?([-+.0-9e]+)"?\r?$`, func(g []string) {
		at := number64(g[1]) / 1000
		if d, err := time.Parse(time.DateTime, g[1]); err == nil {
			at = d.Unix()
		}
		s.add(at-300-late, in, new(big.Rat).Quo(rat(g[2], 300), big.NewRat(8, 1)))
		s.add(at-300-late, out, new(big.Rat).Quo(rat(g[3], 300), big.NewRat(8, 1)))
	})
	return s
}

// graph is the rates of LibreNMS's graph, in the samples that end nearest.
func graph(t *testing.T) slow {
	var x struct {
		Data struct {
			Ticks     []int64
			Ins, Outs []json.Number
		} `json:"graph_data"`
	}
	data, err := os.ReadFile("testdata/librenms-graph.json")
	if err == nil {
		data = []byte(strings.NewReplacer("in_data", "Ins", "out_data", "Outs").Replace(string(data)))
		err = json.Unmarshal(data, &x)
	}
	if err != nil || len(x.Data.Ticks) < 4 {
		t.Fatal(err)
	}
	s := slow{}
	for i, at := range x.Data.Ticks {
		at = (at+150)/300*300 - 300
		s.add(at, in, new(big.Rat).Quo(rat(x.Data.Ins[i].String(), 300), big.NewRat(8, 1)))
		s.add(at, out, new(big.Rat).Quo(rat(x.Data.Outs[i].String(), 300), big.NewRat(8, 1)))
	}
	return s
}

// billData is the polls of LibreNMS's table, in the samples that end nearest, or spread over several.
func billData(t *testing.T) slow {
	s := slow{}
	rows(t, "librenms-bill_data.tsv", `(?m)^\d+\t1\t(\S+ \S+)\t(\d+)\t\d+\t(\d+)\t(\d+)$`, func(g []string) {
		to, _ := time.Parse(time.DateTime, g[1])
		end, parts := (to.Unix()+150)/300*300, (number64(g[2])+150)/300
		for d := range 2 {
			rest := number64(g[3+d])
			for k := parts; k > 0; k-- {
				later := number64(g[3+d]) * (k - 1) / parts
				s.add(end-300*k, d, big.NewRat(rest-later, 1))
				rest = later
			}
		}
	})
	return s
}

// near reports whether bytes are the nearest whole number, or one of two.
func near(bytes int64, x *big.Rat) bool {
	apart := new(big.Rat).Sub(x, big.NewRat(bytes, 1))
	return apart.Abs(apart).Cmp(big.NewRat(1, 2)) <= 0
}

// What each program wrote is billed to the byte as a slow computation bills it.
func TestPrograms(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		slot       int64
		want       slow
	}{
		{"vnstat-fiveminute.json", "", 300, vnstat(t, "vnstat-fiveminute.json")},
		{"vnstat-hour.json", "", 3600, vnstat(t, "vnstat-hour.json")},
		{"rrdtool-fetch.txt", "", 300, rrd(t, "rrdtool-fetch.txt", `(\d+): (\S+) (\S+)`, true)},
		{"rrdtool-xport.xml", "bytes", 300, rrd(t, "rrdtool-xport.xml", `<row><v>(.*?)</v><v>(.*?)</v></row>`, false)},
		{"rrdtool-xport-t.xml", "bytes", 300, rrd(t, "rrdtool-xport-t.xml", `<row><t>(.*?)</t><v>(.*?)</v><v>(.*?)</v></row>`, true)},
		{"rrdtool-xport.json", "bytes", 300, rrd(t, "rrdtool-xport.json", `\[ (\S+), (\S+) \]`, false)},
		{"rrdtool-xport-t.json", "bytes", 300, rrd(t, "rrdtool-xport-t.json", `\[ "(\d+)",(\S+), (\S+) \]`, true)},
		{"rrdtool-dump.xml", "", 300, rrd(t, "rrdtool-fetch.txt", `(\d+): (\S+) (\S+)`, true)},
		{"mrtg.log", "", 300, mrtg(t)},
		{"prometheus.json", "", 300, counters(t)},
		{"nfdump.csv", "if=1", 300, flows(t)},
		{"cacti.csv", "", 300, rated(t, "cacti.csv", 300)},
		{"cacti-german.csv", "", 300, rated(t, "cacti-german.csv", 300)},
		{"grafana.csv", "bits,end", 300, rated(t, "grafana.csv", 0)},
		{"grafana-sep.csv", "bits,end", 300, rated(t, "grafana-sep.csv", 0)},
		{"grafana-excel.csv", "bits,end", 300, rated(t, "grafana.csv", 0)},
		{"librenms-graph.json", "", 300, graph(t)},
		{"librenms-bill_data.tsv", "", 300, billData(t)},
	} {
		file, err := os.Open("testdata/" + tt.name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		o := Options{Zone: time.UTC, Format: Format{}}
		if tt.args != "" {
			if err := o.Format.Set(tt.args); err != nil {
				t.Fatal(err)
			}
		}
		ports, _, err := Read(file, o)
		if err != nil || len(ports) != 1 || ports[0].Len() != len(tt.want) || ports[0].Slot != time.Duration(tt.slot)*time.Second {
			t.Errorf("%s: %v %+v, want %d samples", tt.name, err, ports, len(tt.want))
			continue
		}
		var bytes [2][]int64
		for x := range ports[0].All() {
			at := x.At / 1e9
			if want := tt.want[at]; want == nil || !near(x.In, want[in]) || !near(x.Out, want[out]) {
				t.Errorf("%s: %s: %d %d, want %v", tt.name, time.Unix(at, 0).UTC(), x.In, x.Out, want)
			}
			bytes[in], bytes[out] = append(bytes[in], x.In), append(bytes[out], x.Out)
		}
		cycle := calendar.Calendar{Day: 1, Zone: time.UTC}.At(start * 1e9)
		b, err := bill.New(ports[0].Samples, cycle, time.UTC, bill.Terms{Percentile: 95e9, Missing: bill.Skip, Window: ports[0].Slot})
		if err != nil {
			t.Error(tt.name, err)
			continue
		}
		billed := int64(0)
		for _, x := range bytes {
			slices.Sort(x)
			billed = max(billed, x[len(x)-1-len(x)*5/100])
		}
		if b.Billed != billed {
			t.Errorf("%s: billed %d, want %d", tt.name, b.Billed, billed)
		}
	}
}

// Grafana does not say whether values are bits or bytes, and rounds those with units.
func TestGrafana(t *testing.T) {
	for name, want := range map[string]string{
		"grafana.csv": `line 1: "Inbound": bits or bytes?`, "grafana-sep.csv": `line 2: "Inbound": bits or bytes?`,
		"grafana-excel.csv": `line 1: "Inbound": bits or bytes?`, "grafana-units.csv -format bits": `line 2: in: "360 kb/s" is not a number`,
	} {
		name, args, _ := strings.Cut(name, " ")
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if got := result(t, strings.NewReader(string(data)), args); !strings.HasPrefix(got, "=> error: "+want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// Ports of one file, and a rate without its name.
func TestPorts(t *testing.T) {
	for name, want := range map[string]string{
		"vnstat-two.json": "eth0 eth1", "prometheus-two.json": "device=eth0 instance=r1:9100 device=eth1 instance=r1:9100",
		"prometheus-rate.json": "device=eth0 instance=r1:9100",
	} {
		file, err := os.Open("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		o := Options{Zone: time.UTC, Format: Format{}}
		if name == "prometheus-rate.json" {
			o.Format = Format{"in": "eth0", "rate": "", "bits": ""}
		}
		ports, _, err := Read(file, o)
		var names []string
		for _, p := range ports {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != want || err != nil {
			t.Errorf("%s: %s %v, want %s", name, got, err, want)
		}
	}
}
