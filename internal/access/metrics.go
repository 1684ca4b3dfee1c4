package access

import "github.com/prometheus/client_golang/prometheus"

// metrics count what was refused, by reason: never by whom.
type metrics struct {
	refused *prometheus.CounterVec
	codes   *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_access_refused_total", Help: "Credentials that were not accepted, by reason.",
		}, []string{"reason"}),
		codes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_access_codes_total", Help: "Codes of second factors that were shown, by what came of it.",
		}, []string{"result"}),
	}
}

// Metrics returns the collectors of this package.
func (a *Access) Metrics() []prometheus.Collector {
	return []prometheus.Collector{a.metrics.refused, a.metrics.codes}
}
