package deviceapi

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts requests; no label tells whose they were.
type metrics struct{ requests, refused *prometheus.CounterVec }

func newMetrics() metrics {
	return metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_deviceapi_requests_total",
			Help: "Requests to the devices' HTTPS listener by route and class of status.",
		}, []string{"route", "status"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_deviceapi_refused_total",
			Help: "Requests refused and connections closed by the devices' HTTPS listener because of a limit, by which.",
		}, []string{"reason"}),
	}
}

// refuse counts what a limit has refused. reason is a word of the code's.
func (m metrics) refuse(reason string) { m.refused.WithLabelValues(reason).Inc() }

func (m metrics) count(route string, status int) {
	if status == 0 { // the connection was taken over, or nothing was said
		status = 100
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status/100)+"xx").Inc()
}

// Metrics returns the collectors of this package.
func (a *API) Metrics() []prometheus.Collector {
	return []prometheus.Collector{a.metrics.requests, a.metrics.refused}
}
