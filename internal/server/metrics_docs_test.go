package server

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// metric is what one says of itself.
type metric struct{ help, labels string }

// metricNames are those of a hub that serves.
func metricNames(t *testing.T) map[string]metric {
	t.Helper()
	h := newHouse(t)
	s := h.Server
	_, end := h.serve()
	defer end()
	out := map[string]metric{}
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		s.metrics.Describe(descs)
	}()
	name := regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]*)".*variableLabels: \{([^}]*)\}`)
	for d := range descs {
		m := name.FindStringSubmatch(d.String())
		out[m[1]] = metric{m[2], m[3]}
	}
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if _, ok := out[f.GetName()]; !ok {
			out[f.GetName()] = metric{help: f.GetHelp()}
		}
	}
	return out
}

// documentedMetrics are those of the table in docs/operations.md, with their labels.
func documentedMetrics(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	out := map[string]string{}
	for line := range strings.Lines(section) {
		cell, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		cell, _, _ = strings.Cut(cell, " | ")
		for _, m := range regexp.MustCompile(`(holdfast_[a-z0-9_]+)(?:\{([a-z,]+)\})?`).FindAllStringSubmatch(cell, -1) {
			if _, twice := out[m[1]]; twice {
				t.Errorf("docs/operations.md, Metrics, has %s twice", m[1])
			}
			out[m[1]] = m[2]
		}
	}
	return out
}

// docs/operations.md has each metric of the hub, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	have, said := metricNames(t), documentedMetrics(t)
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if !strings.HasPrefix(name, "holdfast_") {
			continue
		}
		if labels, ok := said[name]; !ok {
			t.Errorf("docs/operations.md, Metrics, lacks a line like this: | `%s` | %s |", name, have[name].help)
		} else if labels != have[name].labels {
			t.Errorf("docs/operations.md, Metrics, has %s with the labels {%s}; they are {%s}", name, labels, have[name].labels)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		if _, ok := have[name]; !ok && !strings.HasPrefix(name, "holdfast_ledger_witness") && !strings.HasPrefix(name, "holdfast_keyring_copy") { // those only with --witness, and with copies
			t.Errorf("docs/operations.md, Metrics, has %s, which no hub has", name)
		}
	}
}

// The rules that users are given are what Prometheus reads (promtool says so), and
// ask for metrics that are there.
func TestAlertRules(t *testing.T) {
	have := metricNames(t)
	files, err := filepath.Glob("../../examples/prometheus/*.rules.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rules := regexp.MustCompile(`(?m)^ +expr: (.+)$`).FindAllStringSubmatch(string(b), -1)
		if len(rules) < 5 || len(rules) != strings.Count(string(b), "alert: ") {
			t.Errorf("%s has %d rules", file, len(rules))
		}
		for _, r := range rules {
			for _, name := range regexp.MustCompile(`holdfast_[a-z0-9_]+`).FindAllString(r[1], -1) {
				_, plain := have[name]
				_, parts := have[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")]
				if !plain && !parts {
					t.Errorf("%s asks for %s, which no hub has", file, name)
				}
			}
		}
	}
	need(t, "promtool")
	if out, err := exec.Command("promtool", append([]string{"check", "rules"}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
