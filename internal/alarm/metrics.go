package alarm

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	looks   *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_alarm_evaluations_total", Help: "Looks of alarm rules: done, denied (the rule may not read), failed (to be done again).",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "holdfast_alarm_evaluation_seconds", Help: "How long a look of one rule takes.", Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5},
		}),
	}
}

// Metrics returns the collectors of this package.
func (a *Alarms) Metrics() []prometheus.Collector {
	return []prometheus.Collector{a.metrics.looks, a.metrics.seconds, states{a}}
}

// states tells how many rules there are, by their state.
type states struct{ a *Alarms }

func stateDesc() *prometheus.Desc {
	return prometheus.NewDesc("holdfast_alarm_rules", "Alarm rules, by state: ok, pending, firing, acknowledged, denied.", []string{"state"}, nil)
}

func (s states) Describe(to chan<- *prometheus.Desc) { to <- stateDesc() }

func (s states) Collect(to chan<- prometheus.Metric) {
	have := s.a.States()
	for _, state := range []string{"ok", "pending", "firing", "acknowledged", "denied"} {
		to <- prometheus.MustNewConstMetric(stateDesc(), prometheus.GaugeValue, float64(have[state]), state)
	}
}
