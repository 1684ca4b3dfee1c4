package server

import "github.com/prometheus/client_golang/prometheus"

// suspendedMetric tells a hub that was restored and is not confirmed.
func (s *Server) suspendedMetric() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_suspended", Help: "1 while a restored hub lets nobody in until the restore is confirmed, else 0."}, func() float64 {
		if s.Suspended() != "" {
			return 1
		}
		return 0
	})
}

// journalMetrics turns the journal's counts into metrics.
func (s *Server) journalMetrics() prometheus.Collector {
	return journalCollector{s, []*prometheus.Desc{
		prometheus.NewDesc("holdfast_journal_syncs_total", "Syncs of the journal.", nil, nil),
		prometheus.NewDesc("holdfast_journal_sync_seconds_total", "Time spent in syncs of the journal.", nil, nil),
		prometheus.NewDesc("holdfast_journal_records_total", "Durable records of the journal.", nil, nil),
		prometheus.NewDesc("holdfast_journal_bytes_total", "Bytes of durable records of the journal.", nil, nil),
		prometheus.NewDesc("holdfast_journal_queue_bytes", "Bytes that wait to become durable.", nil, nil),
	}}
}

type journalCollector struct {
	server *Server
	descs  []*prometheus.Desc
}

func (c journalCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c journalCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.server.stores.journal.Stats()
	for i, v := range []float64{float64(st.Syncs), st.SyncTime.Seconds(), float64(st.Records), float64(st.Bytes), float64(st.QueuedBytes)} {
		kind := prometheus.CounterValue
		if i == 4 {
			kind = prometheus.GaugeValue
		}
		ch <- prometheus.MustNewConstMetric(c.descs[i], kind, v)
	}
}
