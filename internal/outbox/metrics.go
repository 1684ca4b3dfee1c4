package outbox

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast"
)

type metrics struct {
	results *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_outbox_attempts_total", Help: "Attempts to deliver webhooks and mail, by what became of them: delivered, failed (to be tried again), dead (given up), too many (not taken).",
		}, []string{"kind", "result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "holdfast_outbox_attempt_seconds", Help: "How long attempts to deliver take.", Buckets: []float64{.01, .05, .1, .5, 1, 5, 15, 30},
		}),
	}
}

func (m *metrics) result(kind, result string) { m.results.WithLabelValues(kind, result).Inc() }

func kindOf(w holdfast.WebhookID) string {
	if w.IsZero() {
		return "mail"
	}
	return "webhook"
}

// Metrics returns the collectors of this package.
func (b *Outbox) Metrics() []prometheus.Collector {
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_outbox_waiting", Help: "Webhooks and mail that wait to be delivered."}, func() float64 {
		b.mu.Lock()
		defer b.mu.Unlock()
		return float64(len(b.jobs))
	})
	failing := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_outbox_failing_targets", Help: "Webhooks, and the mail server, whose last attempt failed."}, func() float64 {
		return float64(b.FailingTargets())
	})
	return []prometheus.Collector{b.metrics.results, b.metrics.seconds, waiting, failing}
}
