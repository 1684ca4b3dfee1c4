package twin

import "github.com/prometheus/client_golang/prometheus"

// metrics count what becomes of commands: never whose, and never which.
type metrics struct {
	commands *prometheus.CounterVec
	desired  prometheus.Counter
	reported prometheus.Counter
}

func newMetrics() metrics {
	m := metrics{
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_commands_total", Help: "Commands by the state that they came into.",
		}, []string{"state"}),
		desired:  prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_desired_changes_total", Help: "Changes of desired states."}),
		reported: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_reported_changes_total", Help: "Changes of reported states."}),
	}
	for _, state := range []string{Queued, Delivered, Accepted, Done, Failed, Expired, Cancelled} {
		m.commands.WithLabelValues(state)
	}
	return m
}

func (m metrics) count(state string) { m.commands.WithLabelValues(state).Inc() }

// Metrics returns the collectors of this package.
func (s *Store) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.commands, s.metrics.desired, s.metrics.reported}
}
