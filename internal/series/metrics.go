package series

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// stats counts what this package does.
type stats struct {
	rolls, rollErrors         prometheus.Counter
	readings, repeats         prometheus.Counter
	retired                   prometheus.Counter
	bytes, chunks             prometheus.Counter
	merges, merged            prometheus.Counter
	rollTime, mergeTime       prometheus.Histogram
	tailBytes, unmergedChunks prometheus.Collector
	cacheBytes, liveBytes     prometheus.Collector
	cacheHits, cacheMisses    prometheus.Collector
	remaining                 prometheus.Collector
	unmerged                  atomic.Int64 // chunks rolled since the last merge or start
}

func newStats(s *Series) *stats {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "holdfast", Subsystem: "series", Name: name, Help: help})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "holdfast", Subsystem: "series", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 8)})
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "holdfast", Subsystem: "series", Name: name, Help: help}, f)
	}
	t := &stats{
		rolls:      counter("rolls_total", "Rolls of the journal."),
		rollErrors: counter("roll_errors_total", "Rolls that failed and are tried again."),
		readings:   counter("rolled_readings_total", "Readings taken from the journal."),
		repeats:    counter("repeats_total", "Repeated readings dropped by rolls."),
		retired:    counter("retired_records_total", "Journal records skipped because their key was destroyed."),
		bytes:      counter("segment_bytes_total", "Bytes written to segments, by rolls and merges."),
		chunks:     counter("rolled_chunks_total", "Chunks written by rolls."),
		merges:     counter("merges_total", "Merges of small chunks."),
		merged:     counter("merged_chunks_total", "Chunks replaced by merges."),
		rollTime:   seconds("roll_seconds", "Time a roll takes."),
		mergeTime:  seconds("merge_seconds", "Time a merge takes."),
	}
	t.tailBytes = gauge("tail_bytes", "Bytes of journal that are not rolled.", func() float64 { return float64(s.tail.size()) })
	t.liveBytes = gauge("live_bytes", "Bytes of readings in memory that live feeds have not taken yet.", func() float64 { return float64(s.live.held()) })
	t.cacheBytes = gauge("cache_bytes", "Bytes of decoded readings kept in memory.", func() float64 {
		used, _, _ := s.cache.stats()
		return float64(used)
	})
	count := func(name, help string, f func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "holdfast", Subsystem: "series", Name: name, Help: help},
			func() float64 { return float64(f()) })
	}
	t.cacheHits = count("cache_hits_total", "Chunks and summaries that were in memory decoded.", func() uint64 {
		_, hits, _ := s.cache.stats()
		return hits
	})
	t.cacheMisses = count("cache_misses_total", "Chunks and summaries that were read and decoded for a query.", func() uint64 {
		_, _, misses := s.cache.stats()
		return misses
	})
	t.unmergedChunks = gauge("unmerged_chunks", "Chunks rolled since the last merge or start.", func() float64 { return float64(t.unmerged.Load()) })
	t.remaining = gauge("remaining_segments", "Segments of which the disk fails that keep bytes of dead chunks.", func() float64 { return float64(len(s.Remains())) })
	return t
}

// Metrics returns what to register.
func (s *Series) Metrics() []prometheus.Collector {
	t := s.stats
	return []prometheus.Collector{t.rolls, t.rollErrors, t.readings, t.repeats, t.retired, t.bytes, t.chunks, t.merges, t.merged,
		t.rollTime, t.mergeTime, t.tailBytes, t.unmergedChunks, t.cacheBytes, t.liveBytes, t.cacheHits, t.cacheMisses, t.remaining}
}
