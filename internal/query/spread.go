package query

import (
	"math"

	"github.com/holdfast-iot/holdfast"
)

// spread is how far values lie apart, by Welford's recurrence, which does not lose
// small differences of large values; two are merged as Chan, Golub and LeVeque do.
type spread struct {
	n    float64
	mean float64
	m2   float64 // squared distances from the mean, added up
}

func (s *spread) add(f float64) {
	s.n++
	d := f - s.mean
	s.mean += d / s.n
	s.m2 += d * (f - s.mean)
}

func (s *spread) merge(o spread) {
	if o.n == 0 {
		return
	}
	if s.n == 0 {
		*s = o
		return
	}
	n := s.n + o.n
	d := o.mean - s.mean
	s.m2 += o.m2 + d*d*(s.n*o.n/n)
	s.mean += d * (o.n / n)
	s.n = n
}

// value is of the readings as a sample: over n-1, and nothing for one reading.
func (s *spread) value(a Aggregate) (holdfast.Value, bool) {
	if s.n < 2 {
		return holdfast.Value{}, false
	}
	v := s.m2 / (s.n - 1)
	if math.IsNaN(v) {
		v = math.NaN()
	}
	if a == Stddev {
		v = math.Sqrt(v)
	}
	return holdfast.NumberValue(v), true
}
