// Package metrics writes figures in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/), for node_exporter's textfile collector.
// Several files of one directory become one exposition: the same metric must have the same HELP in
// all of them, and each series labels of its own.
package metrics

import (
	"bytes"
	"fmt"
	"strings"
)

// Label is a label of a series. A label without a value is left out, which means the same.
type Label struct{ Name, Value string }

// Text collects metrics.
type Text struct {
	bytes.Buffer
	prefix string
	labels []Label
}

// New returns an empty text. All its metrics have the prefix, and all its series the labels.
func New(prefix string, labels ...Label) *Text { return &Text{prefix: prefix, labels: labels} }

// Metric is a metric whose series follow.
type Metric struct {
	text *Text
	name string
}

// Gauge begins a gauge. The help is a constant of the program: it is not escaped.
func (t *Text) Gauge(name, help string) *Metric { return t.begin(name, help, "gauge") }

// Counter begins a counter, whose name ends in _total.
func (t *Text) Counter(name, help string) *Metric { return t.begin(name, help, "counter") }

func (t *Text) begin(name, help, kind string) *Metric {
	name = t.prefix + name
	fmt.Fprintf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	return &Metric{t, name}
}

var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// Set adds a series with these labels and those of the text. The text format wants valid UTF-8.
func (m *Metric) Set(v any, labels ...Label) *Metric {
	var all []string
	for _, list := range [][]Label{m.text.labels, labels} {
		for _, l := range list {
			if l.Value != "" {
				all = append(all, l.Name+`="`+escaped.Replace(strings.ToValidUTF8(l.Value, "\ufffd"))+`"`)
			}
		}
	}
	m.text.WriteString(m.name)
	if len(all) > 0 {
		fmt.Fprintf(m.text, "{%s}", strings.Join(all, ","))
	}
	fmt.Fprintf(m.text, " %v\n", v)
	return m
}
