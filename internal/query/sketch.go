package query

import (
	"math"
	"slices"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

// Accuracy is how far a quantile may lie from the reading it stands for, as a part
// of that reading.
const Accuracy = 0.01

// exactValues is how many values a sketch keeps as they are; of so few, quantiles
// are exact. They take about what a sketch of more does.
const exactValues = 256

// sketch is what is kept of values for their quantiles. It does not depend on the
// order in which values or other sketches come in.
type sketch struct {
	mapping      mapping.IndexMapping
	few          []float64 // while they are all there is
	many         *ddsketch.DDSketch
	isMany       bool
	n            uint64 // values without NaN and infinities
	least, most  float64
	below, above uint64 // infinities
}

func (p *plan) newSketch() *sketch { return &sketch{mapping: p.mapping} }

// newMapping is of the kind that the sketches' authors make the default: cubic
// interpolation in place of a logarithm.
func newMapping() mapping.IndexMapping {
	m, err := mapping.NewCubicallyInterpolatedMapping(Accuracy)
	if err != nil {
		panic("query: " + err.Error()) // the accuracy is between 0 and 1
	}
	return m
}

func (s *sketch) reset() {
	if s.many != nil && s.isMany {
		s.many.Clear()
	}
	*s = sketch{mapping: s.mapping, few: s.few[:0], many: s.many}
}

func (s *sketch) add(f float64) {
	switch {
	case f != f:
		return
	case math.IsInf(f, 1):
		s.above++
		return
	case math.IsInf(f, -1):
		s.below++
		return
	}
	if s.n == 0 {
		s.least, s.most = f, f
	}
	s.n++
	s.least, s.most = min(s.least, f), max(s.most, f)
	if !s.isMany {
		if len(s.few) < exactValues {
			s.few = append(s.few, f)
			return
		}
		s.condense()
	}
	s.put(f)
}

// condense goes over from values to a sketch of them.
func (s *sketch) condense() {
	if s.many == nil {
		s.many = ddsketch.NewDDSketch(s.mapping, store.NewBufferedPaginatedStore(), store.NewBufferedPaginatedStore())
	}
	s.isMany = true
	for _, f := range s.few {
		s.put(f)
	}
	s.few = s.few[:0]
}

// put adds a value to the sketch. The few largest finite ones that it has no place
// for go into its last.
func (s *sketch) put(f float64) {
	most := s.mapping.MaxIndexableValue()
	s.many.Add(max(-most, min(f, most))) // what it refuses was left out
}

func (s *sketch) merge(o *sketch) {
	s.below += o.below
	s.above += o.above
	if o.n == 0 {
		return
	}
	if s.n == 0 {
		s.least, s.most = o.least, o.most
	}
	s.n += o.n
	s.least, s.most = min(s.least, o.least), max(s.most, o.most)
	switch {
	case !o.isMany && !s.isMany && len(s.few)+len(o.few) <= exactValues:
		s.few = append(s.few, o.few...)
		return
	case !s.isMany:
		s.condense()
	}
	if o.isMany {
		s.many.MergeWith(o.many) // of the same mapping
		return
	}
	for _, f := range o.few {
		s.put(f)
	}
}

// quantile returns the reading that so many millionths of the way from the first to
// the last lies in order of size; between two, the lower. Of nothing but NaN that is
// NaN.
func (s *sketch) quantile(millionths uint64) float64 {
	all := s.n + s.below + s.above
	if all == 0 {
		return math.NaN()
	}
	rank := millionths * ((all - 1) / million) // in two parts, so that it fits
	rank += millionths * ((all - 1) % million) / million
	switch {
	case rank < s.below:
		return math.Inf(-1)
	case rank >= s.below+s.n:
		return math.Inf(1)
	}
	rank -= s.below
	switch {
	case rank == 0:
		return s.least
	case rank == s.n-1:
		return s.most
	case !s.isMany:
		slices.Sort(s.few)
		return s.few[rank]
	}
	// Half a rank further from 0, where values of a sign are counted from: so rounding
	// can't make it the one before.
	at := float64(rank) + 0.5
	if at < s.many.GetNegativeValueStore().TotalCount() {
		at--
	}
	f, _ := s.many.GetValueAtQuantile(at / float64(s.n-1))
	return max(s.least, min(f, s.most))
}

// size is about the memory that the sketch takes.
func (s *sketch) size() int64 {
	const pageRows, pageBytes = 32, 32*8 + 24
	n := int64(200 + 8*cap(s.few))
	if !s.isMany {
		return n
	}
	for _, half := range [...]store.Store{s.many.GetPositiveValueStore(), s.many.GetNegativeValueStore()} {
		low, err := half.MinIndex()
		high, _ := half.MaxIndex()
		if err == nil {
			n += int64((high-low)/pageRows+2) * pageBytes
		}
	}
	return n
}
