package promapi

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// set is the series of a selector, read when the first is asked for.
type set struct {
	load func() ([]promstorage.Series, error)
	rest []promstorage.Series
	at   promstorage.Series
	err  error
}

func (s *set) Next() bool {
	if s.load != nil {
		s.rest, s.err = s.load()
		s.load = nil
	}
	if s.err != nil || len(s.rest) == 0 {
		return false
	}
	s.at, s.rest = s.rest[0], s.rest[1:]
	return true
}

func (s *set) At() promstorage.Series            { return s.at }
func (s *set) Err() error                        { return s.err }
func (s *set) Warnings() annotations.Annotations { return nil }

// series is one of them.
type series struct {
	labels  labels.Labels
	samples []sample
}

func (s *series) Labels() labels.Labels { return s.labels }

func (s *series) Iterator(chunkenc.Iterator) chunkenc.Iterator {
	return promstorage.NewListSeriesIterator(samples(s.samples))
}

// samples are what the engine goes over.
type samples []sample

func (s samples) Get(i int) chunks.Sample { return &s[i] }
func (s samples) Len() int                { return len(s) }

func (p *sample) T() int64                      { return p.t }
func (p *sample) F() float64                    { return p.f }
func (p *sample) H() *histogram.Histogram       { return nil }
func (p *sample) FH() *histogram.FloatHistogram { return nil }
func (p *sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }

func (p *sample) Copy() chunks.Sample {
	other := *p
	return &other
}
