// Package metrics writes figures in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/), for node_exporter's textfile collector.
// Several files of one directory become one exposition: the same metric must have the same HELP in
// all of them, and each series labels of its own.
package metrics

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Label is a label of a series. A label without a value is left out, which means the same.
type Label struct{ Name, Value string }

// Text collects series.
type Text struct {
	bytes.Buffer
	prefix string
	labels []Label
	last   string // the metric of the last series
}

// New returns an empty text. All its metrics have the prefix, and all its series the labels.
func New(prefix string, labels ...Label) *Text { return &Text{prefix: prefix, labels: labels} }

// Gauge adds a series of a gauge, with these labels and those of the text. Series of a metric come one after the
// other. The help is a constant of the program: it is not escaped.
func (t *Text) Gauge(name, help string, v any, labels ...Label) {
	t.series("gauge", name, help, v, labels)
}

// Counter adds a series of a counter, whose name ends in _total.
func (t *Text) Counter(name, help string, v any, labels ...Label) {
	t.series("counter", name, help, v, labels)
}

var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (t *Text) series(kind, name, help string, v any, labels []Label) {
	if name = t.prefix + name; name != t.last {
		fmt.Fprintf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		t.last = name
	}
	var all []string
	for _, l := range slices.Concat(t.labels, labels) {
		if l.Value != "" { // the format wants valid UTF-8
			all = append(all, l.Name+`="`+escaped.Replace(strings.ToValidUTF8(l.Value, "\ufffd"))+`"`)
		}
	}
	t.WriteString(name)
	if len(all) > 0 {
		fmt.Fprintf(t, "{%s}", strings.Join(all, ","))
	}
	fmt.Fprintf(t, " %v\n", v)
}
