package chunk

import (
	"math"
	"math/bits"

	"github.com/holdfast-iot/holdfast"
)

// Stretch is what rows of one stream that follow one another come to. What is
// said of it is said the same way wherever it is made: a summary kept beside a
// chunk and the chunk itself give the same bits.
//
// Two stretches add up to one by way of their fields, but for Sum: a sum of
// numbers is rounded once for each stretch. So who adds up more than a minute makes
// a stretch of each minute since 1970, cut only where his question cuts it, and
// adds those (Sum.Add).
type Stretch struct {
	Rows            uint64
	FirstAt, LastAt int64          // times
	First, Last     holdfast.Value // of equal times the first and the last to arrive

	Total     float64 // of Number: the compensated sum, rounded
	Low, High float64 // of Number: the extremes but for NaN; of equal ones the first
	Ranked    bool    // of Number: there was anything but NaN

	Whole       Whole // of Integer and Boolean: the exact sum, true being 1
	Least, Most int64 // of Integer and Boolean
}

// Minute is what a Stretch of a longer question is cut at.
const Minute = int64(60e9)

// Stretch returns what rows i up to j of c come to; i < j.
func (c *Columns) Stretch(i, j int) Stretch {
	s := Stretch{Rows: uint64(j - i), FirstAt: c.Times[i], LastAt: c.Times[j-1], First: c.Reading(i).Value, Last: c.Reading(j - 1).Value}
	switch c.Type {
	case holdfast.Number:
		var sum Sum
		sum.AddAll(c.Numbers[i:j])
		s.Total = sum.Total()
		s.Low, s.High, s.Ranked = Extremes(c.Numbers[i:j])
	case holdfast.Integer:
		s.Least, s.Most = c.Integers[i], c.Integers[i]
		for _, v := range c.Integers[i:j] {
			s.Whole.Add(v)
			s.Least, s.Most = min(s.Least, v), max(s.Most, v)
		}
	case holdfast.Boolean:
		n := int64(0)
		for _, b := range c.Booleans[i:j] {
			if b {
				n++
			}
		}
		s.Whole.Add(n)
		if n == int64(j-i) {
			s.Least = 1
		}
		s.Most = min(n, 1)
	}
	return s
}

// Extremes returns the least and the greatest of v but for NaN, of equal ones (0
// and -0) the first; false if there is nothing else.
func Extremes(v []float64) (low, high float64, ranked bool) {
	i := 0
	for i < len(v) && v[i] != v[i] {
		i++
	}
	if i == len(v) {
		return 0, 0, false
	}
	low, high = v[i], v[i]
	for _, f := range v[i+1:] {
		if f < low {
			low = f
		}
		if f > high {
			high = f
		}
	}
	return low, high, true
}

// Sum is a sum of float64 with Neumaier's compensation (ZAMM 54, 1974): what each
// addition loses is added up beside it.
type Sum struct{ sum, lost float64 }

// Add adds f.
func (s *Sum) Add(f float64) {
	t := s.sum + f
	if math.Abs(s.sum) >= math.Abs(f) {
		s.lost += (s.sum - t) + f
	} else {
		s.lost += (f - t) + s.sum
	}
	s.sum = t
}

// AddAll adds all of v, in order: what Add does, without storing between.
func (s *Sum) AddAll(v []float64) {
	sum, lost := s.sum, s.lost
	for _, f := range v {
		t := sum + f
		if math.Abs(sum) >= math.Abs(f) {
			lost += (sum - t) + f
		} else {
			lost += (f - t) + sum
		}
		sum = t
	}
	s.sum, s.lost = sum, lost
}

// Total returns the sum; infinities have nothing to compensate. A NaN is the plain
// one, whatever the bits of those that made it.
func (s *Sum) Total() float64 {
	switch t := s.sum + s.lost; {
	case math.IsInf(s.sum, 0):
		return s.sum
	case math.IsNaN(t):
		return math.NaN()
	default:
		return t
	}
}

// Whole is a sum of integers, exact: 128 bits, two's complement.
type Whole struct {
	Lo uint64
	Hi int64
}

// Add adds i.
func (w *Whole) Add(i int64) { w.Merge(Whole{uint64(i), i >> 63}) }

// Merge adds another sum.
func (w *Whole) Merge(o Whole) {
	lo, carry := bits.Add64(w.Lo, o.Lo, 0)
	w.Lo, w.Hi = lo, w.Hi+o.Hi+int64(carry)
}
