package query

import "github.com/prometheus/client_golang/prometheus"

// feeds counts what live feeds do.
type feeds struct {
	followers           prometheus.Gauge
	rows, cut, catchUps prometheus.Counter
}

func newFeeds() *feeds {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "holdfast", Subsystem: "feed", Name: name, Help: help})
	}
	return &feeds{
		followers: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "holdfast", Subsystem: "feed", Name: "followers", Help: "Live feeds that are open."}),
		rows:      counter("readings_total", "Readings that live feeds gave out."),
		cut:       counter("cut_total", "Live feeds that were ended because their reader was too slow."),
		catchUps:  counter("catch_ups_total", "How often live feeds read from the store what they had not from memory."),
	}
}

// Metrics returns the collectors of this package.
func (q *Query) Metrics() []prometheus.Collector {
	return []prometheus.Collector{q.feeds.followers, q.feeds.rows, q.feeds.cut, q.feeds.catchUps}
}
