package vault

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	rotations prometheus.Histogram
	all       []prometheus.Collector
}

func newMetrics(v *Vault) metrics {
	m := metrics{rotations: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_keyring_rotation_seconds",
		Help: "Seconds that a destruction of keys took, up to the destruction of the root key.", Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}})}
	gauge := func(name, help string, value func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		m.all = append(m.all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
	}
	cache := func(read func(*listCache) float64) func() float64 {
		return func() float64 {
			v.lists.mu.Lock()
			defer v.lists.mu.Unlock()
			return read(v.lists)
		}
	}
	gauge("holdfast_keyring_owners", "Owner keys in the keyring.", func() float64 { return float64(v.Owners()) })
	gauge("holdfast_key_list_cache_bytes", "Memory that opened key lists take, about.", cache(func(c *listCache) float64 { return float64(c.bytes) }))
	counter("holdfast_key_list_cache_hits_total", "Key lists found in memory.", cache(func(c *listCache) float64 { return float64(c.hits) }))
	counter("holdfast_key_list_cache_misses_total", "Key lists not found in memory.", cache(func(c *listCache) float64 { return float64(c.misses) }))
	counter("holdfast_key_list_cache_evictions_total", "Key lists that left memory for others.", cache(func(c *listCache) float64 { return float64(c.evicted) }))
	gauge("holdfast_journal_keys", "Journal keys in use.", func() float64 { return float64(v.leases.len()) })
	for _, c := range v.copies.all {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_keyring_copy_lag_seconds",
			Help: "Seconds since which a copy of the keyring is not in step, 0 for one that is.", ConstLabels: prometheus.Labels{"copy": c.Name}}, c.lag))
	}
	m.all = append(m.all, m.rotations)
	return m
}

func (m metrics) rotation(took time.Duration) { m.rotations.Observe(took.Seconds()) }

// Metrics returns the collectors of this package.
func (v *Vault) Metrics() []prometheus.Collector { return v.metrics.all }
