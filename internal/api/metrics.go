package api

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are labelled by route pattern and class of status, which a caller can't
// choose.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	rows     prometheus.Counter
	streams  prometheus.GaugeFunc
	count    func() float64
}

func newMetrics() *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_api_requests_total",
			Help: "Requests by route and class of status."}, []string{"route", "class"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "holdfast_api_request_seconds",
			Help: "Seconds to the end of the answer.", Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 30, 120}}, []string{"route"}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_api_rows_total", Help: "Rows given out by /v1/readings."}),
	}
	m.streams = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_api_streams", Help: "Readings and exports under way."},
		func() float64 {
			if m.count == nil {
				return 0
			}
			return m.count()
		})
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.seconds, m.rows, m.streams}
}

func (m *metrics) done(route string, status int, began time.Time) {
	m.requests.WithLabelValues(route, strconv.Itoa(status/100)+"xx").Inc()
	m.seconds.WithLabelValues(route).Observe(time.Since(began).Seconds())
}
